//! Two paths that deliver copies, or different packets.

use super::*;
use crate::tests::handed_over;
use evenkeel_fuzz::Corpus;

mod pair;

/// Builds a packet with its number as payload unless one is given.
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

fn take_as(
    merge: &mut Merge,
    path: MergePath,
    ssrc: u32,
    sequence: u16,
    payload: u8,
) -> MergeOutcome {
    if sequence % 13 == 5 {
        *merge = handed_over(merge);
    }
    let packet = packet(ssrc, sequence, payload);
    merge.take(path, &rtp::RtpHeader::parse(&packet).unwrap(), &packet)
}

/// Takes a packet of this payload type and SSRC.
fn take_of(
    merge: &mut Merge,
    path: MergePath,
    of: (u8, u32),
    sequence: u16,
    payload: u8,
) -> MergeOutcome {
    let mut packet = packet(of.1, sequence, payload);
    packet[1] = of.0;
    merge.take(path, &rtp::RtpHeader::parse(&packet).unwrap(), &packet)
}

fn take(merge: &mut Merge, path: MergePath, sequence: u16) -> MergeOutcome {
    take_as(merge, path, 7, sequence, sequence as u8)
}

/// Creates a merge with two paths proved to deliver copies, up to this number.
fn proven(until: u16) -> Merge {
    let mut merge = Merge::new(MergePath::A);
    for sequence in until - 8..=until {
        assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::First);
        take(&mut merge, MergePath::B, sequence);
    }
    assert!(merge.is_proven());
    merge
}

#[test]
fn first_copy_passes_on_either_path() {
    let mut merge = proven(100);
    assert_eq!(take(&mut merge, MergePath::A, 101), MergeOutcome::First);
    assert_eq!(take(&mut merge, MergePath::B, 101), MergeOutcome::Again);
    assert_eq!(take(&mut merge, MergePath::B, 102), MergeOutcome::First);
    assert_eq!(take(&mut merge, MergePath::A, 102), MergeOutcome::Again);
    assert_eq!(
        take(&mut merge, MergePath::A, 102),
        MergeOutcome::Again,
        "duplicated by the network"
    );
}

#[test]
fn loss_on_one_path_is_filled_by_the_other() {
    let mut merge = proven(100);
    let mut passed = Vec::new();
    for sequence in 101..400 {
        if sequence % 3 != 0 {
            passed.push((sequence, take(&mut merge, MergePath::A, sequence)));
        }
        if sequence % 3 == 0 || sequence % 5 == 0 {
            passed.push((sequence, take(&mut merge, MergePath::B, sequence)));
        }
    }
    let first = passed.iter().filter(|(_, taken)| *taken == MergeOutcome::First);
    assert!(first.map(|(sequence, _)| *sequence).eq(101..400));
}

#[test]
fn path_must_prove_copies_before_they_pass() {
    let mut merge = Merge::new(MergePath::A);
    for sequence in 1..=3 {
        // The other path is ahead of the leading one, and none of its packets passes yet.
        assert_eq!(take(&mut merge, MergePath::B, sequence), MergeOutcome::Unproven);
        assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::First);
    }
    assert_eq!(take(&mut merge, MergePath::B, 4), MergeOutcome::Unproven);
    assert_eq!(take(&mut merge, MergePath::A, 4), MergeOutcome::First);
    assert_eq!(take(&mut merge, MergePath::B, 5), MergeOutcome::First);
}

/// Returns payload types in which the other path delivers different packets.
fn differing(merge: &Merge) -> Vec<u8> {
    merge.differing().collect()
}

#[test]
fn other_source_or_numbers_are_no_copies() {
    for (ssrc, ahead) in [(8, 0), (7, 5_000)] {
        let mut merge = Merge::new(MergePath::A);
        for sequence in 0..200 {
            assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::First);
            let other = take_as(&mut merge, MergePath::B, ssrc, sequence + ahead, 1);
            assert_ne!(other, MergeOutcome::First, "{sequence} of another source");
        }
        assert_eq!(differing(&merge), [111]);
    }
}

#[test]
fn other_payload_under_one_number_is_no_copy() {
    let mut merge = proven(100);
    for sequence in 101..110 {
        assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::First);
        assert_ne!(take_as(&mut merge, MergePath::B, 7, sequence, 255), MergeOutcome::First);
    }
    assert_eq!(differing(&merge), [111]);
}

#[test]
fn proof_of_one_stream_proves_no_other() {
    let mut merge = proven(100);
    for sequence in 101..300 {
        // Voice packets are copies; the video has an SSRC per node.
        assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::First);
        assert_eq!(take(&mut merge, MergePath::B, sequence), MergeOutcome::Again);
        assert_eq!(take_of(&mut merge, MergePath::A, (96, 70), sequence, 1), MergeOutcome::First);
        assert_eq!(
            take_of(&mut merge, MergePath::B, (96, 71), sequence, 1),
            MergeOutcome::Unproven
        );
    }
    assert!(merge.is_proven());
    assert_eq!(differing(&merge), [96]);
}

#[test]
fn differing_retransmissions_leave_their_streams() {
    let mut merge = proven(100);
    for sequence in 101..300 {
        take_of(&mut merge, MergePath::A, (97, 70), sequence, 1);
        take_of(&mut merge, MergePath::B, (97, 70), sequence, 2);
        assert_eq!(
            take(&mut merge, MergePath::B, sequence),
            MergeOutcome::First,
            "of the proven stream"
        );
        assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::Again);
    }
    assert_eq!(differing(&merge), [97]);
    merge.replace();
    assert_eq!(differing(&merge), [], "another path may deliver copies");
}

#[test]
fn streams_of_one_path_are_compared_by_type_only() {
    let mut merge = Merge::new(MergePath::A);
    for sequence in 0..200 {
        // The other path lacks one source, and sends one of another type that only it has.
        take_of(&mut merge, MergePath::A, (96, 70), sequence, 1);
        assert_eq!(
            take_of(&mut merge, MergePath::B, (97, 71), sequence, 1),
            MergeOutcome::Unproven
        );
    }
    assert_eq!(differing(&merge), []);
}

#[test]
fn takeover_passes_nothing_twice() {
    let mut merge = proven(100);
    for sequence in 101..200 {
        assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::First);
    }
    merge.turn();
    assert_eq!(merge.leads, MergePath::B);
    for sequence in 101..200 {
        assert_eq!(
            take(&mut merge, MergePath::B, sequence),
            MergeOutcome::Again,
            "99 packets behind"
        );
    }
    assert_eq!(take(&mut merge, MergePath::B, 200), MergeOutcome::First);
    merge.replace();
    assert!(!merge.is_proven());
    assert_eq!(take(&mut merge, MergePath::A, 201), MergeOutcome::Unproven, "another one");
}

#[test]
fn copy_older_than_the_window_is_dropped() {
    let mut merge = proven(100);
    take(&mut merge, MergePath::A, 101 + WINDOW - 1);
    assert_eq!(take(&mut merge, MergePath::B, 101), MergeOutcome::First, "within, and missing");
    take(&mut merge, MergePath::A, 101 + WINDOW + 1);
    assert_eq!(take(&mut merge, MergePath::B, 102), MergeOutcome::Again);
}

#[test]
fn restarted_source_passes_on_the_leading_path() {
    let mut merge = proven(10_000);
    assert_eq!(take(&mut merge, MergePath::A, 100), MergeOutcome::First);
    assert_eq!(take(&mut merge, MergePath::A, 101), MergeOutcome::First);
    assert_eq!(take(&mut merge, MergePath::B, 101), MergeOutcome::Again);
    assert_eq!(take(&mut merge, MergePath::B, 102), MergeOutcome::First);
    // The numbers are near the old ones; the contents differ.
    assert_eq!(take_as(&mut merge, MergePath::A, 7, 101, 99), MergeOutcome::First);
}

#[test]
fn sequence_numbers_wrap() {
    let mut merge = proven(65_530);
    for sequence in (65_531..=65_535).chain(0..40) {
        assert_eq!(take(&mut merge, MergePath::A, sequence), MergeOutcome::First);
        assert_eq!(take(&mut merge, MergePath::B, sequence), MergeOutcome::Again);
    }
}

#[test]
fn other_sources_do_not_evict_the_leading_stream() {
    let mut merge = proven(100);
    for ssrc in 1_000..1_040 {
        take_as(&mut merge, MergePath::B, ssrc, 1, 1);
    }
    take(&mut merge, MergePath::A, 101);
    assert_eq!(take(&mut merge, MergePath::B, 101), MergeOutcome::Again);
}

#[test]
fn longest_silent_stream_is_forgotten_at_the_limit() {
    let mut merge = Merge::new(MergePath::A);
    let both = |merge: &mut Merge, ssrc, sequence| {
        let first = take_as(merge, MergePath::A, ssrc, sequence, 1);
        (first, take_as(merge, MergePath::B, ssrc, sequence, 1))
    };
    let count = STREAMS_MAX as u32;
    for sequence in 1..=8 {
        for ssrc in 0..count {
            both(&mut merge, ssrc, sequence);
        }
    }
    // The first stream sends again before another joins.
    assert_eq!(both(&mut merge, 0, 9), (MergeOutcome::First, MergeOutcome::Again));
    take_as(&mut merge, MergePath::A, count, 1, 1);
    assert_eq!(take_as(&mut merge, MergePath::B, 0, 10, 1), MergeOutcome::First, "still followed");
    assert_eq!(take_as(&mut merge, MergePath::B, 1, 9, 1), MergeOutcome::Unproven, "forgotten");
    assert_eq!(merge.streams.len(), STREAMS_MAX);
}

#[test]
fn stream_beyond_the_limit_is_not_followed() {
    let mut merge = Merge::new(MergePath::A);
    for sequence in 1..=200 {
        for ssrc in 0..STREAMS_MAX as u32 {
            take_as(&mut merge, MergePath::A, ssrc, sequence, 1);
        }
        assert_eq!(take_as(&mut merge, MergePath::B, 99, sequence, 1), MergeOutcome::Unproven);
    }
    assert_eq!((differing(&merge).len(), merge.is_proven()), (0, false));
}

#[test]
fn memory_of_a_forgotten_stream_is_reused() {
    let mut merge = Merge::new(MergePath::A);
    for ssrc in 0..STREAMS_MAX as u32 {
        take_as(&mut merge, MergePath::A, ssrc, 1, 1);
    }
    let slots = |merge: &Merge| {
        merge.streams.iter().map(|stream| stream.slots.as_ptr()).collect::<Vec<_>>()
    };
    let before = slots(&merge);
    for ssrc in 1_000..1_100 {
        assert_eq!(take_as(&mut merge, MergePath::A, ssrc, 1, 1), MergeOutcome::First);
    }
    assert_eq!(slots(&merge), before);
}

#[test]
fn fuzz_merge() {
    // Per packet: path and change of paths, payload type, SSRC, payload, sequence number.
    let copies =
        (0..40_u8).flat_map(|number| [1, 0x81].map(|path| [path, 111, 7, number, 0, number]));
    let corpus = Corpus::of("merge").with(copies.flatten().collect::<Vec<_>>());
    corpus.check(|bytes| {
        let mut merge = Merge::new(MergePath::A);
        for [act, payload_type, ssrc, payload, high, low] in bytes.as_chunks::<6>().0 {
            match act & 0x7f {
                0 => merge.turn(),
                2 => merge.replace(),
                _ => {}
            }
            let path = if act & 0x80 == 0 { MergePath::A } else { MergePath::B };
            let sequence = u16::from_be_bytes([*high, *low]);
            take_of(&mut merge, path, (*payload_type, u32::from(*ssrc)), sequence, *payload);
            assert!(merge.streams.len() <= STREAMS_MAX);
        }
    });
}
