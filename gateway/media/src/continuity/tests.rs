//! Tests of continuity with a sender, nodes with arbitrary numbering, and a client.

use super::*;
use crate::rtp::{self, RtpHeader};
use crate::tests::handed_over;

mod conference;
mod control;
mod copied;
mod fuzz;
mod missing;
mod original;
mod overlap;
mod placement;
mod seeds;
mod terminated;
mod thinned;
mod voice;

const OPUS: u8 = 111;
const VOICE_HZ: u32 = 48_000;
const VIDEO_HZ: u32 = 90_000;
const FRAME: u32 = 960;

/// A clock set by the test; only distances between its instants matter.
pub(super) fn at(ms: f64) -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *ORIGIN + Duration::from_secs(1_000) + Duration::from_secs_f64(ms / 1_000.0)
}

/// A packet with its sender's numbers.
#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    timestamp: u32,
    marker: bool,
}

/// Voice packet `number`, 20 ms per packet.
fn voice(number: u64) -> Sent {
    Sent { number, timestamp: (number as u32).wrapping_mul(FRAME), marker: false }
}

/// Describes how a node numbers a stream.
#[derive(Clone, Copy, Debug)]
struct Node {
    epoch: StreamEpoch,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    payload_type: u8,
    clock_rate: u32,
}

fn node(epoch: u64, ssrc: u32, sequence: u16, timestamp: u32) -> Node {
    let epoch = StreamEpoch(epoch);
    Node { epoch, ssrc, sequence, timestamp, payload_type: OPUS, clock_rate: VOICE_HZ }
}

impl Node {
    fn header(&self, sent: Sent) -> RtpHeader {
        RtpHeader {
            payload_type: self.payload_type,
            marker: sent.marker,
            sequence: self.sequence.wrapping_add(sent.number as u16),
            timestamp: self.timestamp.wrapping_add(sent.timestamp),
            ssrc: self.ssrc,
            payload_offset: 12,
            payload_end: 112,
        }
    }

    /// Returns the same node after a new switch.
    fn again(self, epoch: u64) -> Self {
        Self { epoch: StreamEpoch(epoch), ..self }
    }
}

/// SSRC, sequence number and timestamp that the client gets.
type Got = (u32, u16, u32);

impl Continuity {
    /// The streams received from the present hop.
    fn sources(&self) -> impl Iterator<Item = &OutgoingStream> {
        self.streams.iter().filter(|stream| stream.epoch() == self.epoch)
    }
}

/// A session that receives packets from nodes, and is handed over now and then.
struct Session(Continuity);

impl Session {
    fn new() -> Self {
        Self(Continuity::new(7, Protection::Clear))
    }

    fn pass(&mut self, node: Node, sent: Sent, now_ms: f64) -> Pass {
        if sent.number % 13 == 5 {
            self.0 = handed_over(&self.0);
        }
        self.0.pass(node.epoch, &node.header(sent), node.clock_rate, at(now_ms))
    }

    /// Passes a packet that must reach the client, and returns its numbers.
    fn got(&mut self, node: Node, sent: Sent, now_ms: f64) -> Got {
        let header = node.header(sent);
        match self.pass(node, sent, now_ms) {
            Pass::Untouched => (header.ssrc, header.sequence, header.timestamp),
            Pass::Rewrite { ssrc, sequence, timestamp } => (ssrc, sequence, timestamp),
            dropped => panic!("{dropped:?}: {sent:?} of {node:?}"),
        }
    }

    /// Sends voice on time, from packet `first` to before `end`. Each packet must have the numbers
    /// that `like` would have given it.
    fn voice_as(&mut self, node: Node, like: Node, first: u64, end: u64) {
        for number in first..end {
            let got = self.got(node, voice(number), 20.0 * number as f64);
            assert_eq!(got, numbers(like, voice(number)), "packet {number}");
        }
    }
}

#[test]
fn withheld_packets_leave_no_gap() {
    let mut session = Session::new();
    let node = node(1, 5, 65_530, 0);
    session.voice_as(node, node, 0, 10);
    let mut withhold = |number| {
        let header = node.header(voice(number));
        session.0.withhold(node.epoch, &header, VOICE_HZ, at(20.0 * number as f64))
    };
    let after = 65_530_u16.wrapping_add(9);
    assert_eq!(withhold(10), Some(Withheld { ssrc: 5, after, ahead: 1 }));
    assert_eq!(withhold(13), Some(Withheld { ssrc: 5, after, ahead: 4 }));
    assert_eq!(withhold(12), Some(Withheld { ssrc: 5, after, ahead: 3 }), "late, among them");
    assert_eq!(withhold(8), None, "late, of a part that passed");
    // Packet 14 is lost in the network, and the gap stays visible. Timestamps advance as before.
    let (ssrc, sequence, timestamp) = session.got(node, voice(15), 300.0);
    assert_eq!((ssrc, sequence, timestamp), (5, after.wrapping_add(2), voice(15).timestamp));
    assert_eq!(session.got(node, voice(16), 320.0).1, after.wrapping_add(3));
    assert_eq!(session.pass(node, voice(11), 330.0), Pass::Duplicate, "its number is gone");
}

#[test]
fn withholding_beyond_the_number_space_leaves_no_gap() {
    let mut session = Session::new();
    let node = node(1, 5, 0, 0);
    session.voice_as(node, node, 0, 10);
    for number in 10..70_010 {
        let header = node.header(voice(number));
        let place = session.0.withhold(node.epoch, &header, VOICE_HZ, at(20.0 * number as f64));
        assert_eq!(place.unwrap().ahead, number as u32 - 9);
    }
    assert_eq!(session.got(node, voice(70_010), 20.0 * 70_010.0).1, 10);
}

#[test]
fn switch_while_withholding_is_no_loss() {
    let mut session = Session::new();
    let (old, new) = (node(1, 5, 100, 0), node(2, 9, 40_000, 7));
    session.voice_as(old, old, 0, 10);
    let keep = |session: &mut Session, node: Node, number| {
        let header = node.header(voice(number));
        session.0.withhold(node.epoch, &header, VOICE_HZ, at(20.0 * number as f64))
    };
    (10..20).for_each(|number| assert!(keep(&mut session, old, number).is_some()));
    assert_eq!(keep(&mut session, new, 30), None, "the number of lost packets is unknown");
    assert!(keep(&mut session, new, 31).is_some());
    assert_eq!(session.got(new, voice(32), 640.0).1, 111);
}

/// Returns the numbers that `node` assigns.
fn numbers(node: Node, sent: Sent) -> Got {
    let header = node.header(sent);
    (header.ssrc, header.sequence, header.timestamp)
}

/// A deterministic generator for seeded loops.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[test]
fn session_of_one_stream_stays_small() {
    let bytes = size_of::<Continuity>() + size_of::<OutgoingStream>();
    assert!(bytes <= 512, "{bytes} bytes: an idle session has 1.5 KiB in all");
}
