//! Retransmissions refer to packets by the client's numbers.

use super::*;

const VP8: u8 = 96;
const RTX: u8 = 97;

fn video(epoch: u64, ssrc: u32, sequence: u16, timestamp: u32) -> Node {
    Node { payload_type: VP8, clock_rate: VIDEO_HZ, ..node(epoch, ssrc, sequence, timestamp) }
}

/// One packet per frame, 30 frames per second.
fn frame(number: u64) -> Sent {
    Sent { number, timestamp: (number as u32).wrapping_mul(3_000), marker: true }
}

impl Session {
    fn frames(&mut self, node: Node, numbers: std::ops::Range<u64>) {
        numbers.for_each(|number| _ = self.got(node, frame(number), number as f64 * 33.3));
    }

    /// The client's numbers of a frame that `node` sends again.
    fn original(&mut self, node: Node, sent: Sent) -> Option<(u16, u32)> {
        let lost = node.header(sent);
        let header = RtpHeader { payload_type: RTX, ssrc: 0xbeef, ..lost };
        let (is_repaired, now) = (|number| number != RTX, at(10_000.0));
        let (epoch, rate) = (node.epoch, node.clock_rate);
        let passed =
            self.0.pass_retransmission(epoch, &header, lost.sequence, rate, is_repaired, now);
        let (Pass::Untouched | Pass::Rewrite { .. }, Some(numbers)) = passed else { return None };
        Some((numbers.sequence, numbers.timestamp))
    }
}

#[test]
fn original_of_an_unchanged_stream_is_unchanged() {
    let mut session = Session::new();
    let node = video(1, 0xa, 65_530, 5_000);
    session.frames(node, 0..20);
    for number in [0, 5, 6, 19] {
        let (_, sequence, timestamp) = numbers(node, frame(number));
        assert_eq!(session.original(node, frame(number)), Some((sequence, timestamp)), "{number}");
    }
    assert_eq!(session.original(node, frame(20)), None, "not sent yet");
}

#[test]
fn original_has_the_numbers_that_the_client_knows() {
    for protection in [Protection::Clear, Protection::Terminated] {
        let mut session = Session(Continuity::new(7, protection));
        let (old, new) = (video(1, 0xa, 50_000, 5_000), video(2, 0xb, 7, 900));
        session.frames(old, 0..30);
        let sent =
            (32..60).map(|number| (number, session.got(new, frame(number), number as f64 * 33.3)));
        let sent: Vec<_> = sent.collect();
        for (number, (_, sequence, timestamp)) in sent {
            assert_eq!(session.original(new, frame(number)), Some((sequence, timestamp)));
        }
        assert_eq!(session.original(new, frame(31)), None, "sent by the node before");
        assert_eq!(session.original(old, frame(20)), None, "of a hop that was left");
    }
}

#[test]
fn original_is_not_a_packet_of_voice() {
    let mut session = Session::new();
    let (voice_of, video_of) = (node(1, 0xa, 100, 5_000), video(1, 0xb, 90, 900));
    session.voice_as(voice_of, voice_of, 0, 10);
    session.frames(video_of, 0..40);
    let (_, sequence, timestamp) = numbers(video_of, frame(12));
    assert_eq!(session.original(video_of, frame(12)), Some((sequence, timestamp)));
}

#[test]
fn original_before_withheld_packets_has_no_number() {
    let mut session = Session::new();
    let node = video(1, 0xa, 100, 5_000);
    session.frames(node, 0..10);
    for number in 10..20 {
        let header = node.header(frame(number));
        session.0.withhold(node.epoch, &header, VIDEO_HZ, at(number as f64 * 33.3));
    }
    session.frames(node, 20..30);
    assert_eq!(session.original(node, frame(15)), None, "withheld");
    assert_eq!(session.original(node, frame(5)), None, "its number belongs to another packet now");
    assert_eq!(session.original(node, frame(25)), Some((115, 5_000 + 75_000)));
}
