//! Make-before-break: the old hop still delivers while the new one begins; and video.

use super::*;
use std::collections::BTreeMap;

fn old() -> Node {
    node(1, 0xa, 65_530, u32::MAX - 3 * FRAME)
}

fn new() -> Node {
    node(2, 0xb, 30_000, 123_456)
}

/// Packets in order of arrival: time in ms, node, packet.
type Arrivals = Vec<(f64, Node, Sent)>;

/// Plays arrivals in order: each must pass once, with the numbers that the old node gives it.
fn play(session: &mut Session, mut arrivals: Arrivals) {
    arrivals.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut used = BTreeMap::new();
    for (now_ms, node, sent) in arrivals {
        let got = session.got(node, sent, now_ms);
        assert_eq!(got, numbers(old(), sent), "{sent:?} of {node:?}");
        assert_eq!(used.insert(got.1, sent.number), None, "a number is used once");
    }
}

#[test]
fn planned_move_neither_loses_nor_duplicates() {
    for (old_ms, new_ms) in [(30.0, 30.0), (70.0, 10.0), (200.0, 15.0), (35.0, 30.0)] {
        let mut session = Session::new();
        let sent = 0..40;
        let of_old = sent.map(|number| (20.0 * number as f64 + old_ms, old(), voice(number)));
        let of_new = (40..80).map(|number| (20.0 * number as f64 + new_ms, new(), voice(number)));
        let (early, late): (Arrivals, Arrivals) = of_old.partition(|arrival| arrival.0 < 800.0);
        play(&mut session, early);
        let lead = Duration::from_secs_f64((old_ms - new_ms) / 1_000.0);
        session.0.switched(StreamEpoch(2), SwitchCause::Planned { lead });
        play(&mut session, late.into_iter().chain(of_new).collect());
    }
}

#[test]
fn late_packet_without_a_free_number_is_dropped() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 30);
    // The packet was sent before the switch but arrives after the first packet of the new hop, and
    // no lead was given.
    assert_eq!(session.got(new(), voice(32), 601.0).1, numbers(old(), voice(30)).1);
    assert_eq!(session.pass(old(), voice(30), 602.0), Pass::Duplicate);
    assert_eq!(session.pass(old(), voice(31), 622.0), Pass::Duplicate);
}

#[test]
fn previous_hop_fills_numbers_kept_free_once() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 30);
    session.voice_as(new(), old(), 33, 35);
    assert_eq!(session.got(old(), voice(31), 701.0), numbers(old(), voice(31)));
    assert_eq!(session.pass(old(), voice(31), 702.0), Pass::Duplicate);
    assert_eq!(session.pass(old(), voice(29), 703.0), Pass::Duplicate, "passed before the switch");
    assert_eq!(session.got(old(), voice(30), 704.0), numbers(old(), voice(30)));
    session.voice_as(new(), old(), 36, 40);
}

#[test]
fn previous_hop_cannot_fill_numbers_before_it() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 27);
    session.voice_as(old(), old(), 28, 30);
    session.voice_as(new(), old(), 30, 33);
    session.voice_as(node(3, 0xc, 9, 9), old(), 35, 36);
    assert_eq!(session.pass(new(), voice(27), 701.0), Pass::Duplicate, "free, but older");
    assert_eq!(session.got(new(), voice(34), 702.0), numbers(old(), voice(34)));
}

#[test]
fn closed_hop_delivers_nothing() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 30);
    session.voice_as(new(), old(), 33, 35);
    session.0.close_previous();
    assert_eq!(session.pass(old(), voice(31), 701.0), Pass::Stale);
    session.voice_as(new(), old(), 35, 40);
}

#[test]
fn hop_before_the_previous_one_is_closed() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 30);
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    assert_eq!(session.got(old(), voice(30), 600.0), numbers(old(), voice(30)));
    session.0.switched(StreamEpoch(3), SwitchCause::Failover);
    assert_eq!(session.pass(old(), voice(31), 620.0), Pass::Stale);
}

#[test]
fn left_hop_may_finish_streams_but_not_begin() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 30);
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    let other = Node { ssrc: 0xdd, ..old() };
    assert_eq!(session.pass(other, voice(30), 600.0), Pass::Stale);
}

#[test]
fn both_hops_may_deliver_one_stream() {
    // Nodes that do not renumber: the same packet on two paths is one packet, in either order of
    // arrival.
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 30);
    let twin = old().again(2);
    let mut passed = 0;
    for number in 30..60 {
        let (one, other) = if number % 3 == 0 { (old(), twin) } else { (twin, old()) };
        let now_ms = 20.0 * number as f64;
        for node in [one, other] {
            match session.pass(node, voice(number), now_ms) {
                Pass::Untouched => passed += 1,
                Pass::Duplicate => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(passed, 30);
}

const FRAME_PACKETS: u64 = 6;

/// Video packet: frames of six packets, 30 per second, half a millisecond between packets of a
/// frame.
fn picture(number: u64) -> (f64, Sent) {
    let (frame, packet) = (number / FRAME_PACKETS, number % FRAME_PACKETS);
    let marker = packet + 1 == FRAME_PACKETS;
    let timestamp = (frame as u32).wrapping_mul(3_000);
    (frame as f64 * 100.0 / 3.0 + packet as f64 * 0.5, Sent { number, timestamp, marker })
}

fn video(node: Node) -> Node {
    Node { payload_type: 96, clock_rate: VIDEO_HZ, ..node }
}

/// Sends video frames through `sender`: sequence numbers must be those of the old hop, timestamps
/// equal within a frame and within 2 ms of their place.
fn watch(session: &mut Session, sender: Node, range: std::ops::Range<u64>) {
    let mut frame: Option<(u64, u32)> = None;
    for number in range {
        let (now_ms, sent) = picture(number);
        let got = session.got(video(sender), sent, now_ms);
        let like = numbers(video(old()), sent);
        assert_eq!((got.0, got.1), (like.0, like.1), "packet {number}");
        let off = rtp::timestamp_ahead(got.2, like.2);
        assert!(off.abs() <= 180, "packet {number} is {off} ticks off");
        match frame {
            Some((of, timestamp)) if of == number / FRAME_PACKETS => assert_eq!(got.2, timestamp),
            _ => frame = Some((number / FRAME_PACKETS, got.2)),
        }
    }
}

#[test]
fn video_continues_at_the_next_frame() {
    for lost_frames in 0..30 {
        let mut session = Session::new();
        watch(&mut session, old(), 0..120);
        let first = 120 + lost_frames * FRAME_PACKETS;
        watch(&mut session, new(), first..first + 120);
    }
}

#[test]
fn video_continues_within_a_complete_frame() {
    let mut session = Session::new();
    watch(&mut session, old(), 0..123);
    watch(&mut session, new(), 123..240);
    let (_, sent) = picture(122);
    let (_, next) = picture(123);
    assert_eq!(sent.timestamp, next.timestamp, "the switch was within a frame");
}

#[test]
fn rest_of_an_unfinished_frame_is_lost_with_it() {
    let mut session = Session::new();
    watch(&mut session, old(), 0..123);
    watch(&mut session, new(), 132..240);
}

#[test]
fn frame_finished_by_the_second_sender_counts() {
    let mut session = Session::new();
    watch(&mut session, old(), 0..120);
    let (_, alone) = picture(120);
    let alone = Sent { marker: true, ..alone };
    let (now_ms, _) = picture(120);
    let unfinished = Sent { marker: false, ..alone };
    session.got(video(old()), unfinished, now_ms);
    let (now_ms, next) = picture(126);
    let second = session.got(video(new()), Sent { marker: true, ..next }, now_ms);
    let (now_ms, next) = picture(132);
    let third = session.got(video(node(3, 0xc, 9, 9)), next, now_ms);
    assert_eq!(third.1, second.1.wrapping_add(1), "nothing lost");
}

#[test]
fn frame_left_by_a_jump_is_over() {
    let mut session = Session::new();
    watch(&mut session, old(), 0..122);
    // The frames from here on have one packet, under distant numbers.
    let jumped = Node { sequence: old().sequence.wrapping_add(20_000), ..old() };
    let of = |number| {
        let (now_ms, sent) = picture(number);
        (now_ms, Sent { marker: true, ..sent })
    };
    let (now_ms, sent) = of(126);
    session.got(video(jumped), sent, now_ms);
    let (now_ms, sent) = of(132);
    let last = session.got(video(jumped), Sent { number: 127, ..sent }, now_ms);
    let (now_ms, sent) = of(138);
    let next = session.got(video(new()), sent, now_ms);
    assert_eq!(next.1, last.1.wrapping_add(1), "nothing lost");
}

#[test]
fn frame_may_arrive_over_both_hops() {
    let mut session = Session::new();
    watch(&mut session, old(), 0..122);
    session.0.switched(StreamEpoch(2), SwitchCause::Planned { lead: Duration::from_millis(1) });
    let order = [(123, new()), (122, old()), (124, new()), (125, new())];
    for (number, sender) in order {
        let (now_ms, sent) = picture(number);
        let got = session.got(video(sender), sent, now_ms);
        assert_eq!(got, numbers(video(old()), sent), "packet {number}");
    }
}
