//! Packets counted as missing at a switch.

use super::*;

fn old() -> Node {
    node(1, 0xa, 1_000, 0)
}

fn new() -> Node {
    node(2, 0xb, 30_000, 123_456)
}

fn missed(session: &Session, now_ms: f64) -> u32 {
    session.0.missed_at_switches(at(now_ms))
}

/// Sends thirty packets of the old hop, the last one at 580 ms.
fn talked() -> Session {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 30);
    session
}

#[test]
fn losses_at_a_death_count_unless_they_arrive_late() {
    let mut session = talked();
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    session.0.left(at(590.0), false);
    session.voice_as(new(), old(), 35, 60);
    assert_eq!(missed(&session, 1_199.0), 0, "some may still arrive");
    assert_eq!(missed(&session, 1_200.0), 5);
    let mut session = talked();
    session.voice_as(new(), old(), 35, 40);
    session.got(old(), voice(31), 800.0);
    session.got(old(), voice(33), 801.0);
    assert_eq!(missed(&session, 1_200.0), 3);
    session.got(old(), voice(34), 1_300.0);
    assert_eq!(missed(&session, 1_400.0), 3, "final");
}

#[test]
fn numbers_kept_free_are_not_lost_once_filled() {
    let mut session = talked();
    session.0.switched(StreamEpoch(2), SwitchCause::Planned { lead: Duration::from_millis(60) });
    session.0.left(at(600.0), true);
    // The new path is 60 ms faster: three packets are still in flight on the old one.
    let first = session.got(new(), voice(33), 601.0);
    assert_eq!(first.1, 1_000 + 33);
    for number in 30..33 {
        session.got(old(), voice(number), 20.0 * number as f64 + 62.0);
    }
    session.got(new(), voice(34), 621.0);
    assert_eq!(missed(&session, 5_000.0), 0);
}

#[test]
fn source_that_paused_before_lost_nothing() {
    // The source is muted at 580 ms and returns after ten seconds; the node died, or was left, in
    // between.
    for planned in [false, true] {
        let mut session = talked();
        session.0.switched(StreamEpoch(2), SwitchCause::Planned { lead: Duration::ZERO });
        session.0.left(at(9_000.0), planned);
        session.got(new(), voice(530), 10_600.0);
        assert_eq!(missed(&session, 20_000.0), 0, "planned: {planned}");
    }
}

#[test]
fn source_silent_during_a_planned_move_lost_nothing() {
    let mut session = talked();
    session.0.switched(StreamEpoch(2), SwitchCause::Planned { lead: Duration::ZERO });
    session.0.left(at(580.0), true);
    session.got(new(), voice(530), 10_600.0);
    assert_eq!(missed(&session, 20_000.0), 0);
    // If the hop died, the whole silence counts.
    let mut session = talked();
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    session.0.left(at(580.0), false);
    session.got(new(), voice(530), 10_600.0);
    assert_eq!(missed(&session, 20_000.0), 500);
}

#[test]
fn packets_that_neither_hop_delivered_count() {
    let mut session = talked();
    session.0.switch_to_copies();
    // The other hop repeats packet 29, then continues at packet 34.
    let again = session.pass(old(), voice(29), 590.0);
    assert_eq!(again, Pass::Duplicate);
    session.voice_as(old(), old(), 34, 40);
    session.got(old(), voice(31), 800.0);
    assert_eq!(missed(&session, 5_000.0), 3);
    session.voice_as(old(), old(), 45, 50);
    assert_eq!(missed(&session, 5_000.0), 3, "later losses do not count");
    session.0.switch_to_copies();
    session.voice_as(old(), old(), 50, 60);
    assert_eq!(missed(&session, 5_000.0), 3, "no loss this time");
}

/// A node with the numbers of senders takes over from one that died after packet 29 of `talked`.
fn replayed(mut session: Session, first: u64) -> (Session, Vec<u64>) {
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    session.0.close_previous();
    session.0.left(at(650.0), false);
    let passes = |number: &u64| {
        matches!(session.pass(old().again(2), voice(*number), 661.0), Pass::Untouched)
    };
    let passed = (first..34).filter(passes).collect();
    (session, passed)
}

#[test]
fn packets_sent_again_pass_once_and_fill_the_gap() {
    for (first, missing) in [(26, 0), (29, 0), (30, 0), (31, 1)] {
        let (session, passed) = replayed(talked(), first);
        assert_eq!(passed, (first.max(30)..34).collect::<Vec<_>>(), "from {first}");
        assert_eq!(missed(&session, 1_161.0), missing, "from {first}");
        assert_eq!(session.0.is_whole(StreamEpoch(2), old().ssrc), missing == 0, "from {first}");
        assert!(!session.0.is_whole(StreamEpoch(2), new().ssrc), "no stream");
    }
    // One that overtook the others leaves a gap until they come.
    let (mut session, _) = replayed(talked(), 33);
    assert!(!session.0.is_whole(StreamEpoch(2), old().ssrc));
    (30..33).for_each(|number| {
        session.got(old().again(2), voice(number), 662.0);
    });
    assert!(session.0.is_whole(StreamEpoch(2), old().ssrc));
    assert_eq!(missed(&session, 1_161.0), 0);
}

#[test]
fn node_with_numbers_of_its_own_leaves_no_stream_whole() {
    let mut session = talked();
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    session.0.left(at(590.0), false);
    for number in [30, 31] {
        session.got(new(), voice(number), 20.0 * number as f64);
        assert!(!session.0.is_whole(StreamEpoch(2), new().ssrc), "packet {number}");
    }
}

#[test]
fn forgotten_stream_keeps_its_count() {
    let mut session = talked();
    session.0.switch_to_copies();
    session.voice_as(old(), old(), 32, 33);
    for ssrc in 100..100 + STREAMS_MAX as u32 {
        session.got(Node { ssrc, ..old() }, voice(0), 5_000.0);
    }
    assert_eq!(missed(&session, 6_000.0), 2);
}

#[test]
fn silence_counts_only_from_the_death() {
    let session = talked();
    assert_eq!(session.0.fell_silent(at(600.0)), Some(at(580.0)));
    assert_eq!(
        session.0.fell_silent(at(900.0)),
        Some(at(580.0)),
        "evidence is younger than the death"
    );
    assert_eq!(session.0.fell_silent(at(1_000.0)), None);
    assert_eq!(Session::new().0.fell_silent(at(0.0)), None);
    // Packets at a low rate are silent for longer.
    let mut session = Session::new();
    for number in [0, 20, 40, 60] {
        let sent = Sent { number: number / 20, ..voice(number) };
        session.got(old(), sent, 20.0 * number as f64);
    }
    assert_eq!(session.0.fell_silent(at(2_900.0)), Some(at(1_200.0)));
}

#[test]
fn number_half_a_cycle_ahead_misses_nothing() {
    let mut session = Session(Continuity::new(7, Protection::Srtp));
    let before = node(1, 0xa, 0, 0);
    let after = Node { sequence: 0x8000, ..before.again(2) };
    assert_eq!(session.pass(before, voice(0), 0.0), Pass::Untouched);
    let _ = session.pass(after, voice(0), 20.0);
    assert_eq!(session.0.missed_at_switches(at(60_000.0)), 0);
}
