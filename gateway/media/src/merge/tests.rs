//! Two ways that deliver copies, or something else.

use super::*;

/// A packet whose payload is its number, unless it is said to be another.
fn packet(ssrc: u32, sequence: u16, payload: u8) -> Vec<u8> {
    let fields = rtp::Fields {
        payload_type: 111,
        marker: false,
        sequence,
        timestamp: u32::from(sequence) * 960,
        ssrc,
    };
    let mut bytes = Vec::new();
    rtp::write(&fields, &[payload; 21], &mut bytes);
    bytes
}

fn take_as(merge: &mut Merge, way: Way, ssrc: u32, sequence: u16, payload: u8) -> Taken {
    let packet = packet(ssrc, sequence, payload);
    merge.take(way, &rtp::Header::parse(&packet).unwrap(), &packet)
}

/// A packet of this payload type and SSRC.
fn take_of(merge: &mut Merge, way: Way, of: (u8, u32), sequence: u16, payload: u8) -> Taken {
    let mut packet = packet(of.1, sequence, payload);
    packet[1] = of.0;
    merge.take(way, &rtp::Header::parse(&packet).unwrap(), &packet)
}

fn take(merge: &mut Merge, way: Way, sequence: u16) -> Taken {
    take_as(merge, way, 7, sequence, sequence as u8)
}

/// Two ways that deliver copies, known as such, up to this number.
fn proven(until: u16) -> Merge {
    let mut merge = Merge::new(Way::A);
    for sequence in until - 8..=until {
        assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
        take(&mut merge, Way::B, sequence);
    }
    assert!(merge.is_proven());
    merge
}

#[test]
fn of_two_copies_the_first_passes_whichever_way_it_comes() {
    let mut merge = proven(100);
    assert_eq!(take(&mut merge, Way::A, 101), Taken::First);
    assert_eq!(take(&mut merge, Way::B, 101), Taken::Again);
    assert_eq!(take(&mut merge, Way::B, 102), Taken::First);
    assert_eq!(take(&mut merge, Way::A, 102), Taken::Again);
    assert_eq!(take(&mut merge, Way::A, 102), Taken::Again, "a network that doubles packets");
}

#[test]
fn what_one_way_lost_the_other_delivers() {
    let mut merge = proven(100);
    let mut passed = Vec::new();
    for sequence in 101..400 {
        if sequence % 3 != 0 {
            passed.push((sequence, take(&mut merge, Way::A, sequence)));
        }
        if sequence % 3 == 0 || sequence % 5 == 0 {
            passed.push((sequence, take(&mut merge, Way::B, sequence)));
        }
    }
    let first = passed.iter().filter(|(_, taken)| *taken == Taken::First);
    assert!(first.map(|(sequence, _)| *sequence).eq(101..400));
}

#[test]
fn a_way_has_to_prove_that_it_delivers_copies_before_they_pass() {
    let mut merge = Merge::new(Way::A);
    for sequence in 1..=3 {
        // It is ahead of the one that leads, and nothing of it passes yet.
        assert_eq!(take(&mut merge, Way::B, sequence), Taken::Unproven);
        assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
    }
    assert_eq!(take(&mut merge, Way::B, 4), Taken::Unproven);
    assert_eq!(take(&mut merge, Way::A, 4), Taken::First);
    assert_eq!(take(&mut merge, Way::B, 5), Taken::First);
}

/// Payload types of which the way that does not lead delivers no copies.
fn unalike(merge: &Merge) -> Vec<u8> {
    merge.unalike().collect()
}

#[test]
fn another_source_or_other_numbers_are_no_copies() {
    for (ssrc, ahead) in [(8, 0), (7, 5_000)] {
        let mut merge = Merge::new(Way::A);
        for sequence in 0..200 {
            assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
            let other = take_as(&mut merge, Way::B, ssrc, sequence + ahead, 1);
            assert_ne!(other, Taken::First, "{sequence} of a stranger");
        }
        assert_eq!(unalike(&merge), [111]);
    }
}

#[test]
fn another_payload_under_the_same_number_is_no_copy() {
    let mut merge = proven(100);
    for sequence in 101..110 {
        assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
        assert_ne!(take_as(&mut merge, Way::B, 7, sequence, 255), Taken::First);
    }
    assert_eq!(unalike(&merge), [111]);
}

#[test]
fn a_stream_that_is_proven_proves_no_other_one() {
    let mut merge = proven(100);
    for sequence in 101..300 {
        // Voice are copies; the picture has an SSRC of each node's own.
        assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
        assert_eq!(take(&mut merge, Way::B, sequence), Taken::Again);
        assert_eq!(take_of(&mut merge, Way::A, (96, 70), sequence, 1), Taken::First);
        assert_eq!(take_of(&mut merge, Way::B, (96, 71), sequence, 1), Taken::Unproven);
    }
    assert!(merge.is_proven());
    assert_eq!(unalike(&merge), [96]);
}

#[test]
fn retransmissions_that_differ_leave_the_streams_that_they_repair_alone() {
    let mut merge = proven(100);
    for sequence in 101..300 {
        take_of(&mut merge, Way::A, (97, 70), sequence, 1);
        take_of(&mut merge, Way::B, (97, 70), sequence, 2);
        assert_eq!(
            take(&mut merge, Way::B, sequence),
            Taken::First,
            "of the stream that is proven"
        );
        assert_eq!(take(&mut merge, Way::A, sequence), Taken::Again);
    }
    assert_eq!(unalike(&merge), [97]);
    merge.replace();
    assert_eq!(unalike(&merge), [], "another one may keep it");
}

#[test]
fn what_only_the_other_way_delivers_is_judged_only_where_it_could_be_the_same() {
    let mut merge = Merge::new(Way::A);
    for sequence in 0..200 {
        // A source that the other way does not have, and one of another kind that it alone has.
        take_of(&mut merge, Way::A, (96, 70), sequence, 1);
        assert_eq!(take_of(&mut merge, Way::B, (97, 71), sequence, 1), Taken::Unproven);
    }
    assert_eq!(unalike(&merge), []);
}

#[test]
fn where_the_way_that_leads_is_gone_the_other_goes_on_and_nothing_passes_twice() {
    let mut merge = proven(100);
    for sequence in 101..200 {
        assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
    }
    merge.turn();
    assert_eq!(merge.leads(), Way::B);
    for sequence in 101..200 {
        assert_eq!(take(&mut merge, Way::B, sequence), Taken::Again, "99 packets behind");
    }
    assert_eq!(take(&mut merge, Way::B, 200), Taken::First);
    merge.replace();
    assert!(!merge.is_proven());
    assert_eq!(take(&mut merge, Way::A, 201), Taken::Unproven, "another one");
}

#[test]
fn a_copy_that_comes_after_the_window_passes_no_more() {
    let mut merge = proven(100);
    take(&mut merge, Way::A, 101 + WINDOW - 1);
    assert_eq!(take(&mut merge, Way::B, 101), Taken::First, "within, and missing");
    take(&mut merge, Way::A, 101 + WINDOW + 1);
    assert_eq!(take(&mut merge, Way::B, 102), Taken::Again);
}

#[test]
fn a_source_that_begins_anew_passes_by_the_way_that_leads() {
    let mut merge = proven(10_000);
    assert_eq!(take(&mut merge, Way::A, 100), Taken::First);
    assert_eq!(take(&mut merge, Way::A, 101), Taken::First);
    assert_eq!(take(&mut merge, Way::B, 101), Taken::Again);
    assert_eq!(take(&mut merge, Way::B, 102), Taken::First);
    // Near the old numbers, with other contents.
    assert_eq!(take_as(&mut merge, Way::A, 7, 101, 99), Taken::First);
}

#[test]
fn numbers_go_around() {
    let mut merge = proven(65_530);
    for sequence in (65_531..=65_535).chain(0..40) {
        assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
        assert_eq!(take(&mut merge, Way::B, sequence), Taken::Again);
    }
}

#[test]
fn strangers_do_not_push_out_the_stream_that_leads() {
    let mut merge = proven(100);
    for ssrc in 1_000..1_040 {
        take_as(&mut merge, Way::B, ssrc, 1, 1);
    }
    take(&mut merge, Way::A, 101);
    assert_eq!(take(&mut merge, Way::B, 101), Taken::Again);
}

#[test]
fn of_more_streams_than_are_followed_the_one_silent_for_longest_is_forgotten() {
    let mut merge = Merge::new(Way::A);
    let both = |merge: &mut Merge, ssrc, sequence| {
        let first = take_as(merge, Way::A, ssrc, sequence, 1);
        (first, take_as(merge, Way::B, ssrc, sequence, 1))
    };
    let count = STREAMS_MAX as u32;
    for sequence in 1..=8 {
        for ssrc in 0..count {
            both(&mut merge, ssrc, sequence);
        }
    }
    // The first one is heard again before another joins.
    assert_eq!(both(&mut merge, 0, 9), (Taken::First, Taken::Again));
    take_as(&mut merge, Way::A, count, 1, 1);
    assert_eq!(take_as(&mut merge, Way::B, 0, 10, 1), Taken::First, "it is known still");
    assert_eq!(take_as(&mut merge, Way::B, 1, 9, 1), Taken::Unproven, "and this one is not");
    assert_eq!(merge.streams.len(), STREAMS_MAX);
}

#[test]
fn one_stream_too_many_of_the_other_way_is_not_followed_and_judges_nothing() {
    let mut merge = Merge::new(Way::A);
    for sequence in 1..=200 {
        for ssrc in 0..STREAMS_MAX as u32 {
            take_as(&mut merge, Way::A, ssrc, sequence, 1);
        }
        assert_eq!(take_as(&mut merge, Way::B, 99, sequence, 1), Taken::Unproven);
    }
    assert_eq!((unalike(&merge).len(), merge.is_proven()), (0, false));
}

#[test]
fn memory_of_a_stream_that_was_forgotten_is_taken_again() {
    let mut merge = Merge::new(Way::A);
    for ssrc in 0..STREAMS_MAX as u32 {
        take_as(&mut merge, Way::A, ssrc, 1, 1);
    }
    let slots = |merge: &Merge| merge.streams.iter().map(Stream::memory).collect::<Vec<_>>();
    let before = slots(&merge);
    for ssrc in 1_000..1_100 {
        assert_eq!(take_as(&mut merge, Way::A, ssrc, 1, 1), Taken::First);
    }
    assert_eq!(slots(&merge), before);
}
