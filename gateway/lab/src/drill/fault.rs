//! The faults of drills and their repairs.

use std::time::Duration;

use super::Unmended;

/// The period of a flapping node.
const FLAPS_EVERY: Duration = Duration::from_secs(1);

/// The fault of a drill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrillFault {
    /// A node's process is killed.
    KillNode,
    /// The process is stopped (SIGSTOP).
    HangNode,
    /// No packet reaches the node or leaves it.
    CutLink,
    /// Every node of a region is killed.
    LoseRegion,
    /// The process is stopped and continued once per second.
    Flap,
}

/// A command for the node's agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FaultCommand {
    Start,
    Break(&'static str),
}

impl FaultCommand {
    /// The verb in messages: `wake`.
    pub(super) fn name(self) -> &'static str {
        match self {
            FaultCommand::Start => "start",
            FaultCommand::Break(how) => how,
        }
    }
}

impl DrillFault {
    /// The name on the command line: `kill-node`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            DrillFault::KillNode => "kill-node",
            DrillFault::HangNode => "hang-node",
            DrillFault::CutLink => "cut-link",
            DrillFault::LoseRegion => "lose-region",
            DrillFault::Flap => "flap",
        }
    }

    /// The participle in progress messages, before the nodes' names.
    pub(super) fn done_to(self) -> &'static str {
        match self {
            DrillFault::KillNode | DrillFault::LoseRegion => "killing",
            DrillFault::HangNode => "stopping",
            DrillFault::CutLink => "cutting off",
            DrillFault::Flap => "stopping, again and again,",
        }
    }

    pub(super) fn fault(self) -> FaultCommand {
        FaultCommand::Break(match self {
            DrillFault::KillNode | DrillFault::LoseRegion => "kill",
            DrillFault::HangNode | DrillFault::Flap => "hang",
            DrillFault::CutLink => "cut",
        })
    }

    pub(super) fn cure(self) -> FaultCommand {
        match self {
            DrillFault::KillNode | DrillFault::LoseRegion => FaultCommand::Start,
            DrillFault::HangNode | DrillFault::Flap => FaultCommand::Break("wake"),
            DrillFault::CutLink => FaultCommand::Break("heal"),
        }
    }

    pub(super) fn unmended(self, node: &str, why: String) -> Unmended {
        let is = match self {
            DrillFault::KillNode | DrillFault::LoseRegion => "dead",
            DrillFault::HangNode | DrillFault::Flap => "stopped",
            DrillFault::CutLink => "cut off",
        };
        let by_hand = match self.cure() {
            FaultCommand::Start => format!("POST /v1/nodes/{node}:start"),
            FaultCommand::Break(how) => {
                format!("POST /v1/nodes/{node}:break {{\"how\": \"{how}\"}}")
            }
        };
        Unmended { node: node.to_owned(), is, by_hand, why }
    }

    /// The period, if the fault repeats.
    pub(super) fn every(self) -> Option<Duration> {
        (self == DrillFault::Flap).then_some(FLAPS_EVERY)
    }
}
