//! Reports of the packet path, and spans of time between them.

use std::time::{Duration, Instant};

use crate::forwarding::Hop;
use crate::policing::Policing;

/// The number of [`StreamKind`](crate::StreamKind)s, which are tracked separately: a voice-only listener has lost nothing
/// if it does not receive a new video.
pub const STREAM_KINDS: usize = 2;

/// RTP packets between a session and its node since the last report, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowCounts {
    /// Packets to the node, in the order of `StreamKind`.
    pub sent: [u32; STREAM_KINDS],
    /// Packets from the hop in `hears`, whether or not they reached the client.
    pub received: [u32; STREAM_KINDS],
    /// The hop whose packets the client receives; `None` before the first packet.
    pub hears: Option<Hop>,
    /// Packets expected from that hop by sequence number, including lost ones.
    pub expected: u32,
    /// Packets of `expected` that are missing.
    pub lost: u32,
    /// Packets missing by sequence number when another hop continued a stream, minus those that arrived late.
    pub missed: u32,
    /// The loss that the node last reported in RTCP, in ppm (RFC 3550, 6.4.1), if it did since the last report.
    pub reported_ppm: Option<u32>,
    /// The highest loss of a stream that the client reported in RTCP since the last report, in ppm, if it did.
    pub client_ppm: Option<u32>,
    /// Packets that are missing from the client by sequence number.
    pub lost_up: u32,
    /// Video frames from the client, if it sends one video stream.
    pub frames: u32,
    /// Interarrival jitter (RFC 3550, 6.4.1) of the client's voice, in microseconds, if it sends voice.
    pub jitter_up_us: Option<u32>,
    /// Jitter of the voice from the hop in `hears`, if it sends voice.
    pub jitter_us: Option<u32>,
    /// The highest jitter of voice that the client reported in RTCP since the last report, if it did.
    pub client_jitter_us: Option<u32>,
    /// The round trip to the client, in microseconds, if it was measured since the last report.
    pub round_trip_us: Option<u32>,
    /// Time for which key frames of the client were requested, and its video had none, in milliseconds.
    pub key_frame_missing_ms: u32,
    /// Voice packets of the client since the session began, if none of them has sound; otherwise 0.
    pub silent_voice: u32,
    /// The policing of the client, if it sends more than it may.
    pub policing: Option<Policing>,
}

impl FlowCounts {
    /// No packet came from the node.
    pub fn is_silent(&self) -> bool {
        self.received == [0; STREAM_KINDS]
    }

    /// The number of packets both ways.
    pub fn packets(&self) -> u32 {
        self.sent.iter().chain(&self.received).sum()
    }
}

/// The workers' counters for a node: media, RTP and RTCP. Signed messages do not count as media.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stamp {
    /// The last packet from the node; `None` before the first.
    pub last_received: Option<Instant>,
    /// Total packets received from the node.
    pub received: u64,
    /// The last packet to the node; `None` before the first.
    pub last_sent: Option<Instant>,
}

/// The start of a time span, with the gateway's own lateness during it.
///
/// Of several stalls only the longest counts, because between two stalls the gateway read all that had arrived.
/// Constant lateness therefore delays a judgement by one stall only.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// The start of the span.
    pub at: Instant,
    late: Duration,
}

impl Since {
    /// Starts a span without lateness.
    pub fn new(at: Instant) -> Since {
        Since { at, late: Duration::ZERO }
    }

    /// Notes that the gateway itself was late by this time during the span.
    pub fn excuse(&mut self, late: Duration) {
        self.late = self.late.max(late);
    }

    /// The time elapsed until `now`, less the gateway's own lateness.
    pub fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at).saturating_sub(self.late)
    }
}
