//! One stream, one sender after the other.

use super::*;

fn first() -> Node {
    node(1, 0xa, 65_500, u32::MAX - 10 * FRAME)
}

fn second() -> Node {
    node(2, 0xb, 100, 5_000_000)
}

#[test]
fn nothing_is_touched_before_a_switch() {
    let mut session = Session::new();
    for number in 0..70_000 {
        assert_eq!(session.pass(first(), voice(number), 20.0 * number as f64), Pass::Untouched);
    }
}

#[test]
fn node_that_goes_on_with_the_stream_is_not_touched() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    for number in 33..60 {
        let pass = session.pass(first().again(2), voice(number), 20.0 * number as f64);
        assert_eq!(pass, Pass::Untouched);
    }
}

#[test]
fn another_senders_numbers_go_on_where_the_first_left_them() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.voice_as(second(), first(), 30, 100);
}

#[test]
fn packets_lost_in_between_leave_their_numbers_and_their_time() {
    for lost in 0..200 {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        session.voice_as(second(), first(), 30 + lost, 60 + lost);
    }
}

#[test]
fn jitter_below_half_a_frame_moves_no_number() {
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
fn window_of_going_on_is_3000_ahead_and_100_behind() {
    for (ahead, untouched) in
        [(3_000, true), (3_001, false), (-99, true), (-100, true), (-101, false)]
    {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        // Nothing is kept of numbers this far behind, so they are not taken for duplicates.
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
fn same_ssrc_with_another_time_line_is_another_stream() {
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
fn stream_that_paused_goes_on_whether_its_clock_paused_or_not() {
    for sent in [voice(30), Sent { number: 30, ..voice(30 + 60 * 50) }] {
        let mut session = Session::new();
        session.voice_as(first(), first(), 0, 30);
        assert_eq!(session.pass(first().again(2), sent, 60_600.0), Pass::Untouched);
    }
}

#[test]
fn return_to_the_first_node_is_as_smooth_as_leaving_it() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.voice_as(second(), first(), 30, 80);
    // The first node counted on, or stood still meanwhile: with its own SSRC, near the old numbers.
    for sequence in [first().sequence, first().sequence.wrapping_sub(50)] {
        let mut session = Session(session.0.clone());
        let back = Node { sequence, ..first() }.again(3);
        session.voice_as(back, first(), 80, 150);
    }
}

#[test]
fn return_before_the_second_node_said_anything_keeps_the_numbers() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.0.switched(Epoch(2), Switch::Failover);
    session.0.switched(Epoch(3), Switch::Failover);
    session.voice_as(first().again(3), first(), 32, 60);
}

#[test]
fn switch_after_switch_the_client_sees_one_stream() {
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
fn silence_of_voice_survives_a_switch() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    // Silent now: one packet in 400 ms, its number the next, its time the real one.
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
        assert_eq!(
            session.got(second(), sent, now_ms),
            numbers(first(), sent),
            "no loss is made up"
        );
    }
}

#[test]
fn reordered_packets_around_the_switch_keep_their_places() {
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
fn packet_whose_number_the_old_sender_used_is_dropped() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    session.voice_as(second(), first(), 30, 33);
    assert_eq!(session.pass(second(), voice(29), 661.0), Pass::Duplicate);
    assert_eq!(session.pass(second(), voice(20), 661.0), Pass::Duplicate);
}

#[test]
fn packet_that_belongs_before_what_the_old_sender_said_is_dropped() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 27);
    session.voice_as(first(), first(), 28, 30);
    session.voice_as(second(), first(), 30, 33);
    assert_eq!(session.pass(second(), voice(27), 661.0), Pass::Duplicate, "free, but not its own");
    let other = Sent { timestamp: 5, ..voice(29) };
    assert_eq!(session.pass(second(), other, 661.0), Pass::Duplicate, "taken by another packet");
}

#[test]
fn duplicates_are_dropped_on_both_sides_of_a_switch() {
    let mut session = Session::new();
    for number in 0..60 {
        let node = if number < 30 { first() } else { second() };
        let now_ms = 20.0 * number as f64;
        let _ = session.got(node, voice(number), now_ms);
        assert_eq!(session.pass(node, voice(number), now_ms), Pass::Duplicate);
    }
}

#[test]
fn sender_that_begins_anew_at_numbers_it_used_is_heard() {
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
fn source_that_restarts_by_itself_is_a_new_stream() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let restarted = Node { ssrc: 0xc, sequence: 9, timestamp: 9, ..first() };
    session.voice_as(restarted, restarted, 30, 60);
    // Whoever is heard last is who goes on after the next switch.
    session.voice_as(second(), restarted, 160, 200);
}

#[test]
fn jump_of_the_present_sender_is_its_own_affair_and_followed() {
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
fn one_stray_number_derails_nothing() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let stray = Node { sequence: first().sequence.wrapping_add(20_000), ..first() };
    assert_eq!(session.pass(stray, voice(30), 600.0), Pass::Untouched);
    session.voice_as(first(), first(), 31, 40);
    session.voice_as(second(), first(), 40, 60);
}

#[test]
fn stray_numbers_are_believed_only_one_right_after_the_other() {
    let mut session = Session::new();
    session.voice_as(first(), first(), 0, 30);
    let stray = Node { sequence: first().sequence.wrapping_add(20_000), ..first() };
    assert_eq!(session.pass(stray, voice(30), 600.0), Pass::Untouched);
    session.voice_as(first(), first(), 31, 32);
    assert_eq!(session.pass(stray, voice(31), 620.0), Pass::Untouched);
    session.voice_as(second(), first(), 32, 60);
}

#[test]
fn clock_that_its_sender_set_back_is_followed() {
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
    assert_eq!(
        (ssrc, sequence),
        (0xa, last.1.wrapping_add(1_001)),
        "no more skipped than followed"
    );
    assert_eq!(timestamp, numbers(first(), voice(number)).2);
}

#[test]
fn srtp_passes_as_it_came_or_not_at_all() {
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
fn unknown_clock_rate_still_gives_growing_numbers() {
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
fn what_a_sender_lost_is_told_once_and_a_switch_is_no_loss() {
    let mut session = Session::new();
    let pass = |session: &mut Session, node: Node, numbers: &[u64]| {
        numbers.iter().for_each(|&n| _ = session.pass(node, voice(n), 20.0 * n as f64));
    };
    pass(&mut session, first(), &[0, 1, 2, 5, 6, 9]);
    assert_eq!(session.0.arrivals(), (10, 4));
    assert_eq!(session.0.arrivals(), (0, 0));
    pass(&mut session, first(), &[8, 10]);
    assert_eq!(session.0.arrivals(), (2, 0), "late is not lost, though it was told");
    pass(&mut session, second(), &[40, 41, 43]);
    assert_eq!(session.0.arrivals(), (3, 1), "what came to nobody in between is no loss of either");
}

#[test]
fn what_died_with_a_node_that_kept_numbers_is_no_loss_of_the_next_one() {
    let mut session = Session::new();
    (0..10).for_each(|n| _ = session.pass(first(), voice(n), 20.0 * n as f64));
    assert_eq!(session.0.arrivals(), (10, 0));
    // The same numbers, 60 ms later; of its own packets one is missing.
    for n in [13, 14, 16] {
        session.pass(first().again(2), voice(n), 20.0 * n as f64);
    }
    assert_eq!(session.0.missed_at_switches(at(1_000.0)), 3);
    assert_eq!(session.0.arrivals(), (3, 1));
}

#[test]
fn a_sender_that_begins_anew_has_lost_nothing() {
    let mut session = Session::new();
    let pass = |session: &mut Session, numbers: std::ops::Range<u64>| {
        numbers.for_each(|n| _ = session.pass(first(), voice(n), 20.0 * n as f64));
    };
    pass(&mut session, 0..10);
    assert_eq!(session.0.arrivals(), (10, 0));
    pass(&mut session, 30_000..30_010);
    assert_eq!(session.0.arrivals(), (9, 0));
}
