//! One stream, one sender after the other.

use super::*;

fn first() -> Node {
    node(1, 0xa, 65_500, u32::MAX - 10 * FRAME)
}

fn second() -> Node {
    node(2, 0xb, 100, 5_000_000)
}

#[test]
fn packets_before_a_switch_are_untouched() {
    let mut session = Session::new();
    for number in 0..70_000 {
        assert_eq!(session.pass(first(), voice(number), 20.0 * number as f64), Pass::Untouched);
    }
}

#[test]
fn node_that_continues_the_stream_is_untouched() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    for number in 33..60 {
        let pass = session.pass(first().again(2), voice(number), 20.0 * number as f64);
        assert_eq!(pass, Pass::Untouched);
    }
}

#[test]
fn new_senders_numbers_continue_the_old_ones() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.voice_as(second(), first(), 30, 100);
}

#[test]
fn lost_packets_leave_their_numbers_and_time() {
    for lost in 0..200 {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        session.voice_as(second(), first(), 30 + lost, 60 + lost);
    }
}

#[test]
fn jitter_below_half_a_frame_skips_no_number() {
    let mut random = Random(1);
    for _ in 0..200 {
        let mut session = Session::new();
        let lost = random.below(20);
        for number in (0..30).chain(30 + lost..60) {
            let node = if number < 30 { first() } else { second() };
            let now_ms = 20.0 * number as f64 + random.below(99) as f64 / 10.0;
            assert_eq!(session.got(node, voice(number), now_ms), numbers(first(), voice(number)));
        }
    }
}

#[test]
fn continuation_window_is_3000_ahead_100_behind() {
    for (ahead, untouched) in
        [(3_000, true), (3_001, false), (-99, true), (-100, true), (-101, false)]
    {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        // Numbers this far behind are not remembered, so the packets do not count as duplicates.
        let restarted = Node { sequence: first().sequence.wrapping_add_signed(ahead), ..first() };
        let pass = session.pass(restarted.again(2), voice(29), 600.0);
        assert_eq!(pass == Pass::Untouched, untouched, "{ahead}: {pass:?}");
        if !untouched {
            let next = numbers(first(), voice(30));
            assert_eq!(pass, Pass::Rewrite { ssrc: next.0, sequence: next.1, timestamp: next.2 });
        }
    }
}

#[test]
fn same_ssrc_with_another_timeline_is_a_new_stream() {
    for (seconds, untouched) in [(9, true), (11, false), (-9, true), (-11, false)] {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        let shift = (seconds * 48_000_i32).cast_unsigned();
        let restarted = Node { timestamp: first().timestamp.wrapping_add(shift), ..first() };
        let pass = session.pass(restarted.again(2), voice(30), 600.0);
        assert_eq!(pass == Pass::Untouched, untouched, "{seconds} s: {pass:?}");
    }
}

#[test]
fn paused_stream_continues_with_or_without_its_clock() {
    for sent in [voice(30), Sent { number: 30, ..voice(30 + 60 * 50) }] {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        assert_eq!(session.pass(first().again(2), sent, 60_600.0), Pass::Untouched);
    }
}

#[test]
fn return_to_the_first_node_is_continuous() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.voice_as(second(), first(), 30, 80);
    // The first node continued or paused its count meanwhile: its own SSRC, near the old numbers.
    for sequence in [first().sequence, first().sequence.wrapping_sub(50)] {
        let mut session = Session(session.0.clone());
        let back = Node { sequence, ..first() }.again(3);
        session.voice_as(back, first(), 80, 150);
    }
}

#[test]
fn return_before_any_packet_keeps_the_numbers() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    session.0.switched(StreamEpoch(3), SwitchCause::Failover);
    session.voice_as(first().again(3), first(), 32, 60);
}

#[test]
fn repeated_switches_keep_one_stream() {
    let mut random = Random(2);
    let mut session = Session::new();
    let mut number = 0;
    for epoch in 1..300 {
        let ssrc = random.next() as u32;
        let sender = node(epoch, ssrc, random.next() as u16, random.next() as u32);
        let sender = if epoch == 1 { first() } else { sender };
        let end = number + 3 + random.below(50);
        session.voice_as(sender, first(), number, end);
        number = end + random.below(10);
    }
    assert_eq!(session.0.sources().count(), 1);
}

#[test]
fn voice_silence_survives_a_switch() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    // Silence sends one packet per 400 ms, with the next number and its true timestamp.
    let rare = |index: u64| {
        let sent = voice(30 + 20 * index);
        (Sent { number: 30 + index, ..sent }, 20.0 * (30 + 20 * index) as f64)
    };
    for index in 1..5 {
        let (sent, now_ms) = rare(index);
        assert_eq!(session.got(first(), sent, now_ms), numbers(first(), sent));
    }
    for index in 5..8 {
        let (sent, now_ms) = rare(index);
        assert_eq!(session.got(second(), sent, now_ms), numbers(first(), sent), "no loss reported");
    }
}

#[test]
fn reordered_packets_at_a_switch_keep_their_order() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 28);
    for (number, now_ms) in [(29, 580.0), (28, 581.0)] {
        assert_eq!(session.got(first(), voice(number), now_ms), numbers(first(), voice(number)));
    }
    for (number, now_ms) in [(31, 620.0), (30, 621.0), (33, 660.0), (32, 661.0)] {
        assert_eq!(session.got(second(), voice(number), now_ms), numbers(first(), voice(number)));
    }
}

#[test]
fn packet_with_a_used_number_is_dropped() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.voice_as(second(), first(), 30, 33);
    assert_eq!(session.pass(second(), voice(29), 661.0), Pass::Duplicate);
    assert_eq!(session.pass(second(), voice(20), 661.0), Pass::Duplicate);
}

#[test]
fn packet_before_the_old_senders_last_is_dropped() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 27);
    session.voice_as(first(), first(), 28, 30);
    session.voice_as(second(), first(), 30, 33);
    assert_eq!(
        session.pass(second(), voice(27), 661.0),
        Pass::Duplicate,
        "free, but of the old sender"
    );
    let other = Sent { timestamp: 5, ..voice(29) };
    assert_eq!(session.pass(second(), other, 661.0), Pass::Duplicate, "taken by another packet");
}

#[test]
fn duplicates_around_a_switch_are_dropped() {
    let mut session = Session::new();
    for number in 0..60 {
        let node = if number < 30 { first() } else { second() };
        let now_ms = 20.0 * number as f64;
        let _ = session.got(node, voice(number), now_ms);
        assert_eq!(session.pass(node, voice(number), now_ms), Pass::Duplicate);
    }
}

#[test]
fn sender_restarting_at_used_numbers_passes() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 50);
    let anew = Node { timestamp: 77, ..first() };
    for number in 20..50 {
        assert_eq!(
            session.pass(anew, voice(number), 1_000.0 + 20.0 * number as f64),
            Pass::Untouched
        );
    }
}

#[test]
fn source_that_restarts_is_a_new_stream() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let restarted = Node { ssrc: 0xc, sequence: 9, timestamp: 9, ..first() };
    session.voice_as(restarted, restarted, 30, 60);
    // After the next switch, the stream with the latest packet continues.
    session.voice_as(second(), restarted, 160, 200);
}

#[test]
fn jump_of_the_present_sender_is_followed() {
    for jump in [4_000_u16, 30_000, 40_000, 65_000] {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        let jumped = Node { sequence: first().sequence.wrapping_add(jump), ..first() };
        session.voice_as(jumped, jumped, 30, 32);
        assert_eq!(session.pass(jumped, voice(31), 621.0), Pass::Duplicate);
        session.voice_as(jumped, jumped, 32, 40);
        session.voice_as(second(), jumped, 42, 60);
    }
}

#[test]
fn stray_number_has_no_effect() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let stray = Node { sequence: first().sequence.wrapping_add(20_000), ..first() };
    assert_eq!(session.pass(stray, voice(30), 600.0), Pass::Untouched);
    session.voice_as(first(), first(), 31, 40);
    session.voice_as(second(), first(), 40, 60);
}

#[test]
fn jump_needs_two_consecutive_numbers() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let stray = Node { sequence: first().sequence.wrapping_add(20_000), ..first() };
    assert_eq!(session.pass(stray, voice(30), 600.0), Pass::Untouched);
    session.voice_as(first(), first(), 31, 32);
    assert_eq!(session.pass(stray, voice(31), 620.0), Pass::Untouched);
    session.voice_as(second(), first(), 32, 60);
}

#[test]
fn clock_set_back_by_its_sender_is_followed() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let back = first().timestamp.wrapping_sub(10 * VOICE_HZ);
    let set_back = Node { timestamp: back, ..first() };
    session.voice_as(set_back, set_back, 30, 40);
    session.voice_as(second(), set_back, 42, 60);
}

#[test]
fn hour_of_silence_is_bridged() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let number = 30 + 3_600 * 50;
    let (ssrc, sequence, timestamp) = session.got(second(), voice(number), 20.0 * number as f64);
    let last = numbers(first(), voice(29));
    assert_eq!((ssrc, sequence), (0xa, last.1.wrapping_add(1_001)), "skip is bounded");
    assert_eq!(timestamp, numbers(first(), voice(number)).2);
}

#[test]
fn srtp_passes_unchanged_or_is_dropped() {
    let mut session = Session(Continuity::new(7, Protection::Srtp));
    for number in 0..30 {
        assert_eq!(session.pass(first(), voice(number), 20.0 * number as f64), Pass::Untouched);
    }
    for number in 30..60 {
        let now_ms = 20.0 * number as f64;
        assert_eq!(session.pass(first().again(2), voice(number), now_ms), Pass::Untouched);
        assert_eq!(session.pass(second(), voice(number), now_ms), Pass::Untouched);
        assert_eq!(session.pass(second(), voice(number), now_ms), Pass::Duplicate);
    }
    let restarted = Node { sequence: 30_000, ..first() }.again(3);
    for number in 60..90 {
        assert_eq!(session.pass(restarted, voice(number), 20.0 * number as f64), Pass::Untouched);
    }
}

#[test]
fn unknown_clock_rate_gives_growing_numbers() {
    let mut session = Session::new();
    let unknown = |node: Node| Node { clock_rate: 0, ..node };
    session.voice_as(unknown(first()), first(), 0, 30);
    let (ssrc, sequence, timestamp) = session.got(unknown(second()), voice(35), 700.0);
    assert_eq!((ssrc, sequence), (0xa, numbers(first(), voice(30)).1));
    assert_eq!(timestamp, numbers(first(), voice(30)).2);
    let went_on = session.pass(unknown(second()).again(3), voice(36), 720.0);
    let next = numbers(first(), voice(31));
    assert_eq!(went_on, Pass::Rewrite { ssrc: next.0, sequence: next.1, timestamp: next.2 });
}

#[test]
fn losses_are_reported_once_and_exclude_switches() {
    let mut session = Session::new();
    let pass = |session: &mut Session, node: Node, numbers: &[u64]| {
        numbers.iter().for_each(|&n| _ = session.pass(node, voice(n), 20.0 * n as f64));
    };
    pass(&mut session, first(), &[0, 1, 2, 5, 6, 9]);
    assert_eq!(session.0.arrivals(), (10, 4));
    assert_eq!(session.0.arrivals(), (0, 0));
    pass(&mut session, first(), &[8, 10]);
    assert_eq!(session.0.arrivals(), (2, 0), "late is not lost, though reported");
    pass(&mut session, second(), &[40, 41, 43]);
    assert_eq!(session.0.arrivals(), (3, 1), "the gap at the switch counts for neither");
}

#[test]
fn packets_lost_with_a_node_are_not_the_nexts_loss() {
    let mut session = Session::new();
    (0..10).for_each(|n| _ = session.pass(first(), voice(n), 20.0 * n as f64));
    assert_eq!(session.0.arrivals(), (10, 0));
    // The same numbers 60 ms later; one of the node's own packets is missing.
    for n in [13, 14, 16] {
        session.pass(first().again(2), voice(n), 20.0 * n as f64);
    }
    assert_eq!(session.0.missed_at_switches(at(1_000.0)), 3);
    assert_eq!(session.0.arrivals(), (3, 1));
}

#[test]
fn restarted_sender_lost_nothing() {
    let mut session = Session::new();
    let pass = |session: &mut Session, numbers: std::ops::Range<u64>| {
        numbers.for_each(|n| _ = session.pass(first(), voice(n), 20.0 * n as f64));
    };
    pass(&mut session, 0..10);
    assert_eq!(session.0.arrivals(), (10, 0));
    pass(&mut session, 30_000..30_010);
    assert_eq!(session.0.arrivals(), (9, 0));
}
