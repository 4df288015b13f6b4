//! Some packets of a stream are withheld, others pass.

use std::collections::BTreeMap;

use super::*;
use crate::rtcp::{packets, write_nack, write_receiver_report};

/// Packets per frame.
const PER_FRAME: u64 = 3;

fn video() -> Node {
    Node { payload_type: 96, clock_rate: VIDEO_HZ, ..node(1, 0xa, 65_500, 5_000) }
}

/// Packet `number` of frames 33 ms apart.
fn packet(number: u64) -> Sent {
    let timestamp = (number / PER_FRAME) as u32 * 3_000;
    Sent { number, timestamp, marker: number % PER_FRAME == PER_FRAME - 1 }
}

/// Each second frame is withheld.
fn is_withheld(number: u64) -> bool {
    number / PER_FRAME % 2 == 1
}

/// The client's number of a packet, if none was withheld twice, and none is late.
fn expected(number: u64) -> u16 {
    let frame = number / PER_FRAME;
    65_500_u16.wrapping_add((number - frame.div_ceil(2) * PER_FRAME) as u16)
}

impl Session {
    fn thin(&mut self, sent: Sent) -> Option<u16> {
        let (node, now_ms) = (video(), sent.number as f64 * 11.0);
        if is_withheld(sent.number)
            && self.0.withhold_between(node.epoch, &node.header(sent), at(now_ms))
        {
            return None;
        }
        match self.pass(node, sent, now_ms) {
            Pass::Untouched => Some(node.header(sent).sequence),
            Pass::Rewrite { sequence, .. } => Some(sequence),
            _ => None,
        }
    }
}

#[test]
fn numbers_continue_over_withheld_frames() {
    for protection in [Protection::Clear, Protection::Terminated] {
        let mut session = Session(Continuity::new(7, protection));
        let numbers: Vec<_> = (0..600).filter_map(|number| session.thin(packet(number))).collect();
        assert_eq!(numbers.len(), 300);
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{numbers:?}");
        assert_eq!(session.0.arrivals(), (300, 0));
    }
}

#[test]
fn loss_beside_withheld_packets_remains_visible() {
    // The last packet of a frame that passes, one that would be withheld, and the first of the next frame.
    for lost in [2, 4, 6] {
        let mut session = Session::new();
        let kept = (0..12).filter(|number| *number != lost);
        let numbers: Vec<_> = kept.filter_map(|number| session.thin(packet(number))).collect();
        let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0].wrapping_add(1)).count();
        assert_eq!(gaps, 1, "{lost}: {numbers:?}");
    }
}

#[test]
fn late_packet_before_a_withheld_one_keeps_its_number() {
    let mut session = Session::new();
    let order = [0, 1, 3, 2, 4, 5, 6, 7];
    let numbers = order.map(|number| session.thin(packet(number)));
    let last = [0, 1, 2, 3, 4].map(|number| Some(65_500 + number));
    assert_eq!(numbers, [last[0], last[1], None, last[2], None, None, last[3], last[4]]);
}

#[test]
fn packets_among_withheld_ones_may_come_in_any_order() {
    // One packet per frame: 1 and 3 are withheld, and 2 comes after both; 5 comes twice.
    let mut session = Session::new();
    let mut numbers = Vec::new();
    for number in [0, 1, 3, 2, 4, 5, 7, 5, 6, 8] {
        let sent = Sent { number, timestamp: number as u32 * 3_000, marker: true };
        let header = video().header(sent);
        let is_withheld = number % 2 == 1;
        if !(is_withheld && session.0.withhold_between(StreamEpoch(1), &header, at(0.0))) {
            numbers.push(session.got(video(), sent, number as f64).1);
        }
    }
    assert_eq!(numbers, [65_500, 65_501, 65_502, 65_503, 65_504]);
}

#[test]
fn packets_that_changed_places_use_no_number_twice() {
    for protection in [Protection::Clear, Protection::Terminated] {
        for seed in 0..200 {
            let (mut session, mut random) =
                (Session(Continuity::new(7, protection)), Random(seed * 7 + 1));
            let mut order: Vec<u64> = (0..300).filter(|_| random.below(20) > 0).collect();
            for place in 0..order.len() - 1 {
                if random.below(8) == 0 {
                    order.swap(place, place + 1);
                }
            }
            let mut used = BTreeMap::new();
            for number in order {
                let Some(got) = session.thin(packet(number)) else { continue };
                let place = got.wrapping_sub(expected(0));
                assert_eq!(used.insert(place, number), None, "{protection:?} {seed} {number}");
            }
            assert!(used.len() > 100, "{protection:?} {seed}");
            assert!(used.values().is_sorted(), "{protection:?} {seed}: {used:?}");
        }
    }
}

#[test]
fn reports_reach_the_node_between_withheld_frames() {
    let mut session = Session::new();
    (0..60).for_each(|number| _ = session.thin(packet(number)));
    // About a packet of two gaps ago.
    let number = expected(42);
    let block = ReportBlock { ssrc: 0xa, sequence_max: number.into(), ..ReportBlock::default() };
    let mut report = Vec::new();
    write_receiver_report(5, &[block], &mut report);
    let length = session.0.rtcp_to_node(&mut report).unwrap();
    report.truncate(length);
    let told: Vec<_> =
        packets(&report).map_while(Result::ok).flat_map(|packet| packet.blocks()).collect();
    let node_sent = video().header(packet(59)).sequence;
    let told = told[0].sequence_max as u16;
    assert!(sequence_ahead(node_sent, told) >= 0, "the node did send it: {told} {node_sent}");
    assert!(sequence_ahead(told, video().header(packet(42)).sequence) >= 0);
}

#[test]
fn nack_about_packets_before_a_gap_ends_here() {
    let mut session = Session::new();
    (0..60).for_each(|number| _ = session.thin(packet(number)));
    let nack = |number: u16| {
        let mut nack = Vec::new();
        write_nack(5, 0xa, &[number], &mut nack);
        nack
    };
    let mut before = nack(expected(42));
    assert_eq!(session.0.rtcp_to_node(&mut before), Err(FeedbackDrop::Empty));
    let mut since = nack(expected(55));
    let length = session.0.rtcp_to_node(&mut since).unwrap();
    assert_eq!(since[..length], nack(video().header(packet(55)).sequence));
}
