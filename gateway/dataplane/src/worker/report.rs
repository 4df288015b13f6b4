//! Reports from a worker to control.

use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_model::{FlowCounts, Hop, Measures, NodeId, RedundancyMode, SessionId};
use serde::{Deserialize, Serialize};

#[derive(Debug)]
pub enum WorkerReport {
    /// ICMP reports no listener at the node's trunk port.
    Refused {
        node: NodeId,
    },
    /// A datagram on the node's trunk was not decrypted.
    Unreadable {
        node: NodeId,
    },
    /// ICMP reports no listener at the port that this session uses at the hop.
    PortClosed {
        session: SessionId,
        hop: Hop,
    },
    /// The streams of the two hops are not copies of each other. The client hears the leading hop.
    CopiesDiffer {
        session: SessionId,
        hops: [Hop; 2],
    },
    /// A signed message arrived on the node's trunk.
    Signed {
        node: NodeId,
        message: Box<[u8]>,
    },
    /// RTP from an unknown source arrived at an open listener.
    FirstPacket {
        listener: u8,
        source: SocketAddr,
        payload_type: u8,
    },
    Summaries(Vec<Summary>),
    /// The current rung withheld these packets from a client.
    Shed {
        session: SessionId,
        run: ShedRun,
    },
    Removed {
        session: SessionId,
        mode: RedundancyMode,
        totals: Totals,
    },
    /// The session was removed because one of its packets caused a panic.
    Panicked {
        session: SessionId,
    },
}

/// Consecutive packets that a rung withheld from a client, counted from the last packet that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct ShedRun {
    /// The stream's SSRC towards the client.
    pub ssrc: u32,
    /// The sequence number of the last packet sent to the client.
    pub after: u16,
    /// The distance of the first shed packet from `after`; at least 1.
    pub first: u32,
    pub packets: u32,
}

/// Measurements of one session since its last summary.
#[derive(Debug)]
pub struct Summary {
    pub session: SessionId,
    pub measures: Measures,
    pub last_heard: Option<Instant>,
    pub flow: FlowCounts,
    pub totals: Totals,
}

/// Counts over a session's lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Totals {
    /// RTP packets from the client, and their bytes.
    pub packets_up: u64,
    pub bytes_up: u64,
    /// RTP packets to the client, and their bytes.
    pub packets_down: u64,
    pub bytes_down: u64,
    /// RTP packets to the client that the current rung shed.
    pub shed: u64,
    /// Packets lost between the client and the gateway.
    pub lost_up: u64,
    /// Switches from one hop to another.
    pub switches: u32,
    /// Packets to the client that were lost when the hop changed.
    pub lost_at_switches: u32,
    /// Bytes of the copies to and from the second hop in hitless mode.
    pub bytes_copied: u64,
}
