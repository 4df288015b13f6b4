//! Events of a world, and messages to control.

use evenkeel_model::{
    AskId, Hop, NodeId, PluginFault as Failure, RevisionAnswer, SessionId, StreamKind,
};
use evenkeel_nodes::AgentWord;

use crate::node::Arrival;
use crate::packet::Packet;

pub(crate) enum Event {
    /// A client joins or retries.
    Join(u32),
    /// A client leaves or vanishes.
    Leave(u32),
    /// Packets of a client arrive at the gateway; schedules the next ones.
    Beat {
        client: u32,
        kind: StreamKind,
        session: SessionId,
    },
    AtNode {
        node: usize,
        arrival: Arrival,
    },
    /// A client's packet is read after a stall.
    FromClient {
        session: SessionId,
        packet: Packet,
    },
    FromNode {
        tag: u32,
        packet: Packet,
    },
    ToControl(Message),
    /// The driver retries an unanswered opening.
    RetryOpen {
        tag: u32,
    },
    Agent(usize),
    /// Canary sessions at a node are refreshed.
    Canaries(usize),
    Started(usize),
    /// Leases at a node are refreshed.
    Leases {
        node: usize,
    },
    /// Control reads the workers' stamps.
    Watch,
    Summaries,
    Begins(usize),
    GoesOn(usize, u32),
    Ends(usize),
    /// Gaps after an episode no longer belong to it.
    Settled(usize),
    WorkersGoOn,
    ControlGoesOn,
    /// Resets the receivers' packet counters for the last second.
    LastSecond,
    /// The baseline checks a node; its answer is due.
    Check(usize),
    Checked(usize),
    Reopen(u32),
}

pub(crate) enum Message {
    ProbeAnswered { node: NodeId, sequence: u64, willing: bool },
    Load(NodeId, u16),
    CanaryPassed { node: NodeId, sequence: u64 },
    CanariesOpen(NodeId),
    StartFailed(NodeId),
    Refused(NodeId),
    PortClosed { session: SessionId, hop: Hop },
    Opened { tag: u32, taken: bool, full: bool },
    Unalike { session: SessionId, hops: [Hop; 2] },
    Answered(AskId, Box<Result<RevisionAnswer, Failure>>),
    Agent(NodeId, AgentWord),
}
