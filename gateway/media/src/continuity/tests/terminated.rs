//! SRTP that ends at the gateway: no number is used twice, and no step between numbers is long.

use super::*;
use crate::rtcp::{self, ReportBlock};

fn terminated() -> Session {
    Session(Continuity::new(7, Protection::Terminated))
}

/// The sequence numbers of packets `from` to `to` that pass.
fn passed(session: &mut Session, node: Node, numbers: std::ops::Range<u64>) -> Vec<u16> {
    let sequence = |number| match session.pass(node, voice(number), 20.0 * number as f64) {
        Pass::Untouched => Some(node.header(voice(number)).sequence),
        Pass::Rewrite { sequence, .. } => Some(sequence),
        Pass::Stale | Pass::Duplicate | Pass::Surplus => None,
    };
    numbers.filter_map(sequence).collect()
}

#[test]
fn source_that_restarts_continues_its_stream() {
    for back in [30, 101, 5_000, 30_000, 40_000, 62_000] {
        let mut session = terminated();
        let before = node(1, 0xa, 50_000, 5_000);
        let expected: Vec<u16> = (17_232..17_432).collect();
        assert_eq!(passed(&mut session, before, 0..200), expected);
        let after = node(1, 0xa, 50_000_u16.wrapping_sub(back), 9_000_000);
        let passed = passed(&mut session, after, 200..300);
        assert!(passed.len() >= 99, "{back}: {} pass", passed.len());
        let mut last = 17_431;
        for sequence in passed {
            assert!((1..100).contains(&sequence.wrapping_sub(last)), "{back}: {last} {sequence}");
            last = sequence;
        }
    }
}

#[test]
fn first_number_is_in_the_lower_half() {
    for (first, right) in [(0, 0), (32_767, 32_767), (32_768, 0), (65_535, 32_767)] {
        let mut session = terminated();
        let node = node(1, 0xa, first, 5_000);
        assert_eq!(passed(&mut session, node, 0..3), [right, right + 1, right + 2], "{first}");
    }
}

#[test]
fn stray_packets_change_no_mapping() {
    let mut session = terminated();
    let node = node(1, 0xa, 50_000, 5_000);
    passed(&mut session, node, 0..500);
    for stray in [10, 20_000, 300, 33_000] {
        assert_eq!(session.pass(node, voice(stray), 10_000.0), Pass::Stale, "{stray}");
    }
    assert_eq!(passed(&mut session, node, 500..502), [17_732, 17_733]);
}

#[test]
fn late_and_repeated_packets_are_no_restart() {
    let mut session = terminated();
    let node = node(1, 0xa, 50_000, 5_000);
    let all = (0..60).filter(|number| *number != 50);
    all.for_each(|number| _ = passed(&mut session, node, number..number + 1));
    assert_eq!(passed(&mut session, node, 50..51), [17_282]);
    assert_eq!(passed(&mut session, node, 50..60), [], "each passed before");
    assert_eq!(passed(&mut session, node, 60..61), [17_292]);
}

#[test]
fn late_retransmissions_are_no_restart() {
    // Frames of video in twelve packets, of which some come so many later.
    let frame = |number: u64| Sent { number, timestamp: number as u32 / 12 * 3_000, marker: false };
    for (behind, passes) in [(40, true), (80, true), (150, false)] {
        let mut session = terminated();
        let node = Node { clock_rate: VIDEO_HZ, ..node(1, 0xa, 100, 5_000) };
        let pass = |session: &mut Session, number: u64, at: u64| {
            matches!(session.pass(node, frame(number), 3.0 * at as f64), Pass::Untouched)
        };
        let lost = [300, 301, 302];
        let mut last = 300 + behind;
        (0..=last).filter(|number| !lost.contains(number)).for_each(|number| {
            assert!(pass(&mut session, number, number));
        });
        for number in lost {
            assert_eq!(pass(&mut session, number, last), passes, "{number}, {behind} later");
        }
        last += 1;
        assert!(pass(&mut session, last, last), "the numbers go on after {behind}");
    }
}

#[test]
fn copy_goes_on_above_the_numbers_that_were_skipped() {
    let mut session = terminated();
    let node = node(1, 0xa, 32_000, 5_000);
    passed(&mut session, node, 0..100);
    let mut copy = Session(handed_over(&session.0));
    copy.0.skip_to(0xb, 1);
    copy.0.skip_to(0xa, 31_000);
    let limit = 32_100_u16 + 2_500;
    copy.0.skip_to(0xa, limit - 1);
    copy.0.went_on_elsewhere();
    // The client heard packets up to 129 of the other process.
    let passed = passed(&mut copy, node, 130..200);
    let expected: Vec<u16> = (limit + 30..limit + 100).collect();
    assert_eq!(passed, expected);
    let (expected, lost) = copy.0.arrivals();
    assert_eq!((expected, lost), (70, 0), "numbers that were skipped are no loss");
    assert_eq!(copy.0.missed_at_switches(at(99_999.0)), 0);
}

#[test]
fn numbers_that_were_skipped_are_no_reported_loss() {
    let mut session = terminated();
    passed(&mut session, node(1, 0xa, 32_000, 5_000), 0..100);
    session.0.skip_to(0xa, 36_000);
    let mut report = |ssrc, sequence_max| {
        let block = ReportBlock {
            ssrc,
            fraction_lost: 84,
            lost: 1_000,
            sequence_max,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        let mut compound = Vec::new();
        rtcp::write_receiver_report(1, &[block], &mut compound);
        session.0.excuse_skipped(&mut compound);
        let packet = rtcp::packets(&compound).next().unwrap().unwrap();
        packet.blocks().next().unwrap().fraction_lost
    };
    assert_eq!(report(0xa, 32_099), 84, "before the skip");
    assert_eq!(report(0xb, 36_001), 84, "another stream");
    assert_eq!(report(0xa, 36_001), 0);
    assert_eq!(report(0xa, 36_050), 84, "once");
}

#[test]
fn unsent_numbers_are_counted_up_to_a_report() {
    let unsent = |session: &Session, sequence_max| {
        session.0.unsent(&ReportBlock { ssrc: 0xa, sequence_max, ..ReportBlock::default() })
    };
    let mut session = terminated();
    let sender = node(1, 0xa, 32_000, 5_000);
    passed(&mut session, sender, 0..100);
    passed(&mut session, sender, 103..110);
    let ends = [32_099, 32_101, 32_102, 32_109].map(|end| unsent(&session, end));
    assert_eq!(ends, [0, 2, 3, 3]);
    passed(&mut session, sender, 101..102);
    assert_eq!([32_101, 32_109].map(|end| unsent(&session, end)), [1, 2], "it came late");
    session.0.skip_to(0xa, 36_000);
    assert_eq!(unsent(&session, 36_000), 2, "excused otherwise");

    let mut session = Session(Continuity::new(7, Protection::Clear));
    let sender = node(1, 0xa, 100, 5_000);
    passed(&mut session, sender, 0..10);
    assert_eq!(passed(&mut session, sender, 20_000..20_005).len(), 5);
    assert_eq!(unsent(&session, 20_104), 0, "the receiver takes the jump for a restart");
}

#[test]
fn other_sender_follows_the_numbers_that_were_skipped() {
    let mut session = terminated();
    passed(&mut session, node(1, 0xa, 32_000, 5_000), 0..100);
    session.0.skip_to(0xa, 36_000);
    session.0.went_on_elsewhere();
    let passed = passed(&mut session, node(2, 0xb, 9, 9), 101..110);
    let after = passed[0].wrapping_sub(36_000);
    assert!((1..300).contains(&after), "{passed:?}");
}

#[test]
fn packets_sent_again_after_a_death_pass_once() {
    let mut session = terminated();
    let node = node(1, 0xa, 50_000, 5_000);
    assert_eq!(passed(&mut session, node, 0..100).len(), 100);
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    // Of the last numbers half were delivered before.
    let numbers = passed(&mut session, node.again(2), 52..152);
    assert_eq!(numbers, (17_332..17_384).collect::<Vec<u16>>());
}
