//! The plan of a drill: its fault, the repair, and the reasons for which either fails.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::error::LabError;

/// The period of a flapping node.
const FLAPS_EVERY: Duration = Duration::from_secs(1);

/// The fault to inject, and the sessions that measure it.
#[derive(Clone, Debug)]
pub struct DrillPlan {
    pub kind: DrillFault,
    /// The node to break, or the zone or region to lose; `None` for the node with most rooms, or its zone or region.
    pub place: Option<String>,
    /// Number of synthetic sessions, two per room, of which one sends.
    pub sessions: u32,
    /// Scenario of the synthetic sessions.
    pub scenario: String,
    /// Duration of flapping.
    pub flaps_for: Duration,
    /// Seed of the synthetic clients.
    pub seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrillFault {
    /// A node's process is killed.
    KillNode,
    /// The process is stopped (SIGSTOP).
    HangNode,
    /// No packet reaches the node or leaves it.
    CutLink,
    /// Every node of a zone is killed.
    LoseZone,
    /// Every node of a region is killed.
    LoseRegion,
    /// The process is stopped and continued once per second.
    Flap,
}

/// What a fault does to a node, in orders to its agent and in words.
pub(super) struct FaultFacts {
    /// The name on the command line: `kill-node`.
    pub(super) name: &'static str,
    /// The participle in progress messages, before the nodes' names.
    pub(super) doing: &'static str,
    is: &'static str,
    pub(super) fault: &'static str,
    pub(super) cure: &'static str,
    /// Needs the same permissions as the fault. It changes nothing at a node without a fault, and ends the fault of another drill. That the
    /// agent can cure the fault it does not show: `kill` needs a `start`.
    pub(super) trial: &'static str,
}

impl DrillFault {
    pub(super) fn facts(self) -> FaultFacts {
        let (name, doing, is, fault, cure) = match self {
            DrillFault::KillNode => ("kill-node", "killing", "dead", "kill", "start"),
            DrillFault::HangNode => ("hang-node", "stopping", "stopped", "hang", "wake"),
            DrillFault::CutLink => ("cut-link", "cutting off", "cut off", "cut", "heal"),
            DrillFault::LoseZone => ("lose-zone", "killing", "dead", "kill", "start"),
            DrillFault::LoseRegion => ("lose-region", "killing", "dead", "kill", "start"),
            DrillFault::Flap => ("flap", "stopping, again and again,", "stopped", "hang", "wake"),
        };
        let trial = if fault == "cut" { "heal" } else { "wake" };
        FaultFacts { name, doing, is, fault, cure, trial }
    }

    pub(super) fn unmended(self, node: &str, why: String) -> Unmended {
        let FaultFacts { is, cure, .. } = self.facts();
        let by_hand = match cure {
            "start" => format!("POST /v1/nodes/{node}:start"),
            how => format!("POST /v1/nodes/{node}:break {{\"how\": \"{how}\"}}"),
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
    /// The synthetic sessions could not be opened or closed, or the gateway's API refused another request.
    #[error(transparent)]
    Lab(#[from] LabError),
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
    let lines = unmended.iter().map(|Unmended { node, is, by_hand, why }| {
        format!("{node} is still {is}: {by_hand} ({why})")
    });
    lines.collect::<Vec<String>>().join("\n")
}
