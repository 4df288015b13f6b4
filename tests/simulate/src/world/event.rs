//! What happens, and what control hears.

use evenkeel_core::{AgentWord, Answered, AskId, Fault as Failure, Hop, Kind, NodeId, SessionId};

use crate::node::Arrival;
use crate::packet::Packet;

/// Something happens.
pub(crate) enum Event {
    /// A client comes, or tries again.
    Join(u32),
    /// A client leaves, or vanishes.
    Leave(u32),
    /// A client's packets arrive at the gateway, and its clock goes on.
    Beat {
        client: u32,
        kind: Kind,
        session: SessionId,
    },
    /// Something arrives at a node.
    AtNode {
        node: usize,
        arrival: Arrival,
    },
    /// A packet of a client's is read late.
    FromClient {
        session: SessionId,
        packet: Packet,
    },
    /// A packet of a node's arrives at the gateway.
    FromNode {
        tag: u32,
        packet: Packet,
    },
    /// Control hears something.
    Told(Word),
    /// The driver asks again for what was not answered.
    AskAgain {
        tag: u32,
    },
    /// The agent beside a node is asked.
    Agent(usize),
    /// The canary sessions at a node are kept open.
    Canaries(usize),
    /// A node's hook has done its work.
    Started(usize),
    /// Leases at a node are renewed.
    Leases {
        node: usize,
    },
    /// Workers' stamps are looked at.
    Watch,
    /// Workers tell of their sessions.
    Summaries,
    /// An episode begins, goes on, ends.
    Begins(usize),
    GoesOn(usize, u32),
    Ends(usize),
    /// Nobody waits any longer for what follows an episode.
    Settled(usize),
    /// Workers, or control, go on.
    WorkersGoOn,
    ControlGoesOn,
    /// What receivers heard is counted anew: the last second begins.
    LastSecond,
    /// The baseline looks after a node; it has had its time to answer.
    Check(usize),
    Checked(usize),
    /// A client of the baseline opens again.
    Reopen(u32),
}

/// What control hears.
pub(crate) enum Word {
    ProbeAnswered { node: NodeId, sequence: u64, willing: bool },
    Load(NodeId, u16),
    CanaryPassed { node: NodeId, sequence: u64 },
    CanariesOpen(NodeId),
    StartFailed(NodeId),
    Refused(NodeId),
    PortClosed { session: SessionId, hop: Hop },
    Opened { tag: u32, taken: bool, full: bool },
    Unalike { session: SessionId, hops: [Hop; 2] },
    Answered(AskId, Result<Answered, Failure>),
    Agent(NodeId, AgentWord),
}
