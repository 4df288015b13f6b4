//! The outputs of a member.

use std::time::Duration;

use evenkeel_media::trunk::Vote;

use super::agents::{Voter, WitnessId};
use super::beat::Beat;
use super::ownership::MaySend;

/// Outputs are carried out in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterOutput {
    Send(Beat),
    /// Ask an agent, or every agent, at once. Its answer is handed to `handle_witness` with the time of asking.
    Ask {
        to: Option<WitnessId>,
        vote: Vote,
    },
    /// The workers' lease.
    MaySend(MaySend),
    /// Own the addresses: restore the records, unless the workers are those that yielded, and use this epoch.
    TakeOver {
        epoch: u64,
        evidence: TakeoverCause,
    },
    /// The peer owns: drop all sessions and what the workers had read, and follow it.
    StepDown {
        epoch: u64,
    },
    /// Use this newer epoch. Messages under way with the older one may be refused, and are sent again.
    Raise {
        epoch: u64,
    },
    /// Suspend the workers, send the last records, then call `handle_yielded`. [`ClusterOutput::StepDown`] follows when the
    /// peer owns; [`ClusterEvent::HandOverFailed`] if it does not, before an [`ClusterOutput::TakeOver`].
    Yield,
    Event(ClusterEvent),
}

/// A witness that no process has the peer's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reporter {
    /// The kernel of the peer's host, by a port unreachable.
    Kernel,
    /// The agent beside the peer.
    Agent,
}

/// The reason of a takeover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeoverCause {
    /// Neither member owned.
    Start,
    /// The process of the owner ended.
    PeerEnded,
    /// The owner's process was replaced by one that does not own.
    PeerRestarted,
    /// The owner is silent, and a majority of the voters does not hear it either.
    Silence,
    HandOver,
    /// An operator confirmed that the peer is down.
    Operator,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterEvent {
    PeerHeard,
    PeerSilent,
    PeerEnded {
        by: Reporter,
    },
    PeerRestarted,
    Followed {
        epoch: u64,
    },
    Armed {
        voters: Vec<Voter>,
    },
    Disarmed,
    /// The agents keep the peer from taking over in this epoch, because it is gone.
    Barred,
    LeaseLapsed,
    LeaseRenewed {
        after: Duration,
    },
    HandOverFailed,
    /// The owner is silent, and no takeover follows.
    TakeoverBlocked(Blocked),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// This member did not hold all records, or no agent answered the owner.
    NotArmed,
    /// Agents still hear the owner.
    OwnerHeard,
    /// No agent answers: this member may be the one that is cut off.
    NoAgent,
    /// This member has not followed its silent peer as the owner; the peer may own.
    Unknown,
}

/// The reason for which an owner hands nothing over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandOverRefusal {
    NotOwner,
    PeerSilent,
    /// The peer does not hold all records.
    RecordsIncomplete,
}

/// The reason for which a member takes nothing over at an operator's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeoverRefusal {
    /// This member owns, and may send.
    OwnerAlready,
    PeerOwns,
    /// The peer is heard, and does not own.
    PeerHeard,
    /// This member has just started, and listens for its peer.
    Joining,
    /// Agents hear the peer as the owner.
    AgentsHearPeer,
}
