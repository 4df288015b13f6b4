//! Impairments of sessions' media, and the segment of the path that causes each.

use std::time::Duration;

use crate::id::SessionId;

crate::named! {
    /// A segment of the path of a session's media.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum PathSegment {
        /// The device of a sender.
        Device = "device",
        /// The network from a client to the gateway.
        Uplink = "uplink",
        /// The network between the gateway and a node.
        Leg = "leg",
        Node = "node",
        /// This gateway.
        Gateway = "gateway",
        /// The network from the gateway to a client.
        Downlink = "downlink",
        /// The measurements do not tell the segment.
        Unknown = "unknown",
    }
}

crate::named! {
    /// The measurement that shows an impairment.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum ImpairmentSign {
        /// Packets are lost.
        Loss = "loss",
        /// Packets arrive unevenly.
        Jitter = "jitter",
        /// Packets arrive late.
        Delay = "delay",
        /// This gateway did not read packets in time.
        Stall = "stall",
        /// Much fewer video frames than usual.
        FewFrames = "few-frames",
        /// Requested key frames do not come.
        NoKeyFrame = "no-key-frame",
        /// The voice never had any sound.
        Silence = "silence",
    }
}

/// The impairment of a session's media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Impairment {
    /// The segment that causes it.
    pub segment: PathSegment,
    /// The measurement that shows it.
    pub sign: ImpairmentSign,
    /// The session of the device, uplink or downlink, which another session of the room may hear; otherwise the session
    /// itself.
    pub at: SessionId,
    /// Loss in the segment, in ppm; 0 unless loss is the sign.
    pub loss_ppm: u32,
    /// Certainty, in per cent: that the segment loses more than 1 %, or adds more than 10 ms of jitter; that a device sends less
    /// than half of its frames, no key frame, or no sound. For a delay the segment's part of it.
    pub confidence: u8,
    /// The measurements of the path.
    pub evidence: PathEvidence,
}

/// Measurements along a session's path. `None`: not measured.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PathEvidence {
    /// Loss between the client and the gateway, in ppm.
    pub uplink_ppm: Option<u32>,
    /// The worst such loss of the room's senders, in ppm.
    pub senders_ppm: Option<u32>,
    /// Loss of the client's packets at the node, by its receiver reports, in ppm.
    pub to_node_ppm: Option<u32>,
    /// Loss of the node's packets at the gateway, in ppm.
    pub from_node_ppm: Option<u32>,
    /// Unanswered probes of the node, in ppm.
    pub probes_ppm: Option<u32>,
    /// Loss at the client, by its receiver reports, in ppm.
    pub client_ppm: Option<u32>,
    /// Interarrival jitter (RFC 3550, 6.4.1) of voice between the client and the gateway, in microseconds.
    pub uplink_jitter_us: Option<u32>,
    /// The highest such jitter of the room's senders.
    pub senders_jitter_us: Option<u32>,
    /// Jitter of the node's voice at the gateway.
    pub from_node_jitter_us: Option<u32>,
    /// Mean deviation of the round trip of probes of the node.
    pub probes_jitter_us: Option<u32>,
    /// Jitter of voice at the client, by its receiver reports.
    pub client_jitter_us: Option<u32>,
    /// Round trip between the gateway and the client, in microseconds.
    pub client_round_trip_us: Option<u32>,
    /// Round trip of probes of the node.
    pub node_round_trip_us: Option<u32>,
    /// Video frames per second from the client, and usually.
    pub frames: Option<[u32; 2]>,
    /// Time for which key frames of the client were requested, and its video had none, in milliseconds.
    pub key_frame_missing_ms: Option<u32>,
    /// Voice packets of the client since the session began, if none of them has sound.
    pub silent_packets: Option<u32>,
    /// Lateness of this gateway.
    pub late: Duration,
    /// Packets that this gateway dropped, in ppm.
    pub dropped_ppm: u32,
}
