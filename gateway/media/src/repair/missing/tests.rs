use super::*;
use crate::repair::tests::{at, timing};
use crate::rtp::{self, Fields};

const SSRC: u32 = 7;
const ROUND_TRIP_MS: u64 = 40;
const LATENCY_MS: u64 = 120;

/// A receiver of one stream, whose sender is 40 ms away and retransmits for 120 ms.
#[derive(Default)]
struct Receiver(MissingPackets);

impl Receiver {
    /// Returns whether the packet was asked for.
    fn receive(&mut self, sequence: u16, ms: u64) -> bool {
        self.receive_of(SSRC, 96, sequence, ms)
    }

    fn receive_of(&mut self, ssrc: u32, payload_type: u8, sequence: u16, ms: u64) -> bool {
        let fields = Fields { payload_type, marker: false, sequence, timestamp: 0, ssrc };
        let mut packet = Vec::new();
        rtp::write(&fields, &[], &mut packet);
        self.0.receive(&RtpHeader::parse(&packet).unwrap(), at(ms))
    }

    fn asks(&mut self, ms: u64) -> Vec<u16> {
        let request = self.0.next_request(timing(ROUND_TRIP_MS, LATENCY_MS), at(ms));
        request.map_or(Vec::new(), |request| {
            assert_eq!(request.ssrc, SSRC);
            request.numbers.to_vec()
        })
    }

    /// Receives packets, one each 20 ms from 0 on. Returns the requests after each.
    fn voice(&mut self, numbers: impl IntoIterator<Item = u16>) -> Vec<(u16, Vec<u16>)> {
        let mut asked = Vec::new();
        for number in numbers {
            self.receive(number, 20 * u64::from(number));
            let numbers = self.asks(20 * u64::from(number));
            asked.extend((!numbers.is_empty()).then_some((number, numbers)));
        }
        asked
    }
}

#[test]
fn missing_voice_is_asked_for_with_the_next_packet() {
    let mut receiver = Receiver::default();
    let came = (0..14).filter(|number| ![3, 4].contains(number));
    // Again after each round trip, until it would come too late.
    assert_eq!(receiver.voice(came), [5, 7, 9].map(|number| (number, vec![3, 4])));
    assert!(receiver.0.streams[0].missing.is_empty(), "forgotten");
}

#[test]
fn reordered_packets_are_not_asked_for() {
    let mut receiver = Receiver::default();
    // Packets of a frame come within a millisecond.
    for number in [1, 3, 2, 4, 7, 6, 5, 8] {
        assert!(!receiver.receive(number, 100));
        assert_eq!(receiver.asks(100), [0; 0], "{number}");
    }
    assert!(!receiver.0.awaits_packets(at(100)));
    receiver.receive(10, 100);
    assert_eq!(receiver.asks(109), [0; 0]);
    assert_eq!(receiver.asks(110), [9], "by time");
    receiver.receive(12, 111);
    receiver.receive(13, 111);
    assert_eq!(receiver.asks(111), [0; 0]);
    receiver.receive(14, 111);
    assert_eq!(receiver.asks(111), [11], "by packets");
}

#[test]
fn packet_that_was_asked_for_is_told_from_a_late_one() {
    let mut receiver = Receiver::default();
    receiver.voice([0, 1, 4]);
    assert!(receiver.receive(2, 90));
    assert!(receiver.receive(2, 100), "and a second copy of it");
    assert!(receiver.0.awaits_packets(at(100)));
    assert!(receiver.receive(3, 110));
    assert!(!receiver.0.awaits_packets(at(110)));
    assert_eq!(receiver.asks(130), [0; 0]);
    assert!(!receiver.receive(1, 130), "a copy of one that was not");
}

#[test]
fn retransmission_of_another_stream_is_an_answer() {
    let mut receiver = Receiver::default();
    receiver.voice([0, 1, 4]);
    let mut contains = |number| receiver.0.receive_retransmission(number, Some(96));
    assert_eq!(contains(2), RetransmittedPacket::Missing(SSRC));
    assert_eq!(contains(2), RetransmittedPacket::Repeated);
    assert_eq!(contains(1), RetransmittedPacket::Unasked);
    for number in [5, 4_u16.wrapping_sub(4_097), 32_772] {
        assert_eq!(contains(number), RetransmittedPacket::Unknown, "{number}");
    }
    assert_eq!(contains(4_u16.wrapping_sub(4_096)), RetransmittedPacket::Unasked);
    let other = receiver.0.receive_retransmission(3, Some(97));
    assert_eq!(other, RetransmittedPacket::Unknown, "no stream has this payload type");
    assert_eq!(receiver.asks(80 + ROUND_TRIP_MS), [3]);
    assert_eq!(receiver.0.receive_retransmission(3, None), RetransmittedPacket::Missing(SSRC));
}

#[test]
fn retransmission_that_two_streams_lack_is_of_neither() {
    let mut receiver = Receiver::default();
    for ssrc in [1, 2, 3] {
        let payload_type = if ssrc == 3 { 98 } else { 96 };
        for number in [0, 1, 5] {
            receiver.receive_of(ssrc, payload_type, number, 0);
        }
        while receiver.0.next_request(timing(ROUND_TRIP_MS, LATENCY_MS), at(20)).is_some() {}
    }
    let mut contains = |payload_type| receiver.0.receive_retransmission(2, Some(payload_type));
    assert_eq!(contains(96), RetransmittedPacket::Unasked);
    assert_eq!(contains(98), RetransmittedPacket::Missing(3));
}

#[test]
fn packet_that_a_node_asks_for_again_is_missing_again() {
    let mut receiver = Receiver::default();
    receiver.voice([0, 1, 4]);
    assert!(receiver.receive(2, 90));
    let timing = timing(ROUND_TRIP_MS, LATENCY_MS);
    assert!(receiver.0.admit_request(SSRC, 2, timing, at(120)), "lost behind the gateway");
    let again = receiver.0.receive_retransmission(2, Some(96));
    assert_eq!(again, RetransmittedPacket::Missing(SSRC));
}

#[test]
fn recovered_packet_is_not_asked_for() {
    let mut receiver = Receiver::default();
    assert!(receiver.voice([0, 1]).is_empty());
    receiver.receive(4, 80);
    receiver.0.note_recovered(SSRC, 3);
    receiver.0.note_recovered(SSRC + 1, 2);
    assert_eq!(receiver.asks(80), [2]);
    assert_eq!(receiver.0.streams.len(), 1);
    assert!(!receiver.receive(3, 90), "it comes late");
}

#[test]
fn numbers_wrap() {
    let mut receiver = Receiver::default();
    let asked: Vec<_> = [(65_533, 0), (65_534, 20), (2, 100)]
        .into_iter()
        .flat_map(|(number, ms)| {
            receiver.receive(number, ms);
            receiver.asks(ms)
        })
        .collect();
    assert_eq!(asked, [65_535, 0, 1]);
    assert!(receiver.receive(65_535, 140) && receiver.receive(0, 140));
}

#[test]
fn long_gap_is_given_up() {
    let mut receiver = Receiver::default();
    receiver.receive(0, 0);
    receiver.receive(MISSING_MAX as u16 + 1, 20);
    assert_eq!(receiver.asks(40).len(), MISSING_MAX);
    let mut receiver = Receiver::default();
    receiver.receive(0, 0);
    for number in [MISSING_MAX as u16 + 2, MISSING_MAX as u16 + 3, 60_000, MISSING_MAX as u16 + 4] {
        receiver.receive(number, 20);
        assert_eq!(receiver.asks(40), [0; 0], "{number}");
    }
    // Gaps that follow one another are bounded together.
    (0..1_000_u16).for_each(|step| _ = receiver.receive(200 + 5 * step, 40));
    assert!(receiver.0.streams[0].missing.len() <= MISSING_MAX);
}

#[test]
fn stray_number_changes_nothing() {
    let mut receiver = Receiver::default();
    receiver.voice([0, 1]);
    receiver.receive(30_000, 40);
    receiver.receive(2, 40);
    assert_eq!(receiver.voice([3, 5]), [(5, vec![4])]);
}

#[test]
fn request_of_a_node_passes_once_per_round_trip() {
    let mut receiver = Receiver::default();
    receiver.voice([0, 1]);
    receiver.receive(3, 60);
    let timing = timing(ROUND_TRIP_MS, LATENCY_MS);
    let mut admits = |sequence, ms| receiver.0.admit_request(SSRC, sequence, timing, at(ms));
    assert!(admits(2, 60) && !admits(2, 89), "the first asks");
    assert!(admits(1, 60) && admits(1, 60), "lost behind the gateway");
    assert_eq!(receiver.asks(89), [0; 0]);
    assert_eq!(receiver.asks(90), [2]);
    assert!(!receiver.0.admit_request(SSRC, 2, timing, at(119)));
    assert!(receiver.0.admit_request(9, 2, timing, at(119)), "another stream");
}

#[test]
fn request_comes_by_time_without_later_packets() {
    let mut receiver = Receiver::default();
    receiver.voice([0, 1, 3]);
    assert_eq!(receiver.asks(100), [2], "a round trip after the first request");
    assert!(receiver.0.awaits_packets(at(100)));
    assert!(!receiver.0.awaits_packets(at(1_041)));
}
