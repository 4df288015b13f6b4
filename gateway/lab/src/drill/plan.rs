//! The plan of a drill: its fault, the repair, and the reasons for which either fails.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::crowd::CrowdError;

/// The period of a flapping node.
const FLAPS_EVERY: Duration = Duration::from_secs(1);

/// The fault to inject, and the sessions that measure it.
#[derive(Clone, Debug)]
pub struct DrillPlan {
    /// The fault.
    pub kind: DrillFault,
    /// The node to break; `None` for the node with most rooms.
    pub node: Option<String>,
    /// The region to lose; `None` for the region of the node with most rooms.
    pub region: Option<String>,
    /// Number of synthetic sessions, two per room, of which one sends.
    pub sessions: u32,
    /// Scenario of the synthetic sessions.
    pub scenario: String,
    /// Duration of flapping.
    pub flaps_for: Duration,
    /// Seed of the synthetic clients.
    pub seed: u64,
}

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

/// A drill broke nothing, or could not repair what it broke.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The synthetic sessions could not be opened or closed.
    #[error(transparent)]
    Crowd(#[from] CrowdError),
    /// The gateway's API refused a request, or was not reached.
    #[error("{0}: {1}")]
    Gateway(String, evenkeel_client::ClientError),
    /// The gateway or its nodes do not permit the drill; says why.
    #[error("{0}")]
    Unfit(String),
    /// The drill names a node or region that the gateway does not have.
    #[error("{0}")]
    Unknown(String),
    /// The drill's report was not added to the record.
    #[error("cannot write {path}: {1}", path = .0.display())]
    Record(PathBuf, io::Error),
    /// A signal came before the fault.
    #[error("interrupted; nothing was broken")]
    Interrupted,
    /// A signal came after the fault, and all nodes are repaired.
    #[error("interrupted; nodes have been repaired")]
    Mended,
    /// Nodes are still broken.
    #[error("{why}\n{}", by_hand(unmended))]
    Unmended {
        /// The error that ended the drill.
        why: Box<DrillError>,
        /// The broken nodes, each with the request that repairs it.
        unmended: Vec<Unmended>,
    },
}

/// A node that is still broken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unmended {
    pub(crate) node: String,
    pub(crate) is: &'static str,
    /// The API request that repairs it.
    pub(crate) by_hand: String,
    /// Why the drill could not repair the node.
    pub(crate) why: String,
}

/// The commands that repair these nodes.
pub(super) fn by_hand(unmended: &[Unmended]) -> String {
    let mut words = String::new();
    for Unmended { node, is, by_hand, why } in unmended {
        let end = if words.is_empty() { "" } else { "\n" };
        let _ = write!(words, "{end}{node} is still {is}: {by_hand} ({why})");
    }
    words
}
