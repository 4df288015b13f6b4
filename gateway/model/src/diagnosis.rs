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
        /// The node.
        Node = "node",
        /// This gateway.
        Gateway = "gateway",
        /// The network from the gateway to a client.
        Downlink = "downlink",
    }
}

/// The impairment of a session's media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Impairment {
    /// The segment that causes it.
    pub segment: PathSegment,
    /// The session of the device, uplink or downlink, which another session of the room may hear; otherwise the session
    /// itself.
    pub at: SessionId,
    /// Loss in the segment, in ppm; 0 for a device, and for a stall of this gateway.
    pub loss_ppm: u32,
    /// Certainty, in per cent, that the segment loses more than 1 % or, for a device, that it sends less than half of its
    /// frames.
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
    /// Video frames per second from the client, and usually.
    pub frames: Option<[u32; 2]>,
    /// Lateness of this gateway.
    pub late: Duration,
    /// Packets that this gateway dropped, in ppm.
    pub dropped_ppm: u32,
}
