//! The faults of drills and their repairs.

use std::time::Duration;

use super::Unmended;

/// The period of a flapping node.
const FLAPS_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
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
pub(super) enum Order {
    Start,
    Break(&'static str),
}

impl Order {
    /// The verb in messages: `wake`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Start => "start",
            Order::Break(how) => how,
        }
    }
}

impl Kind {
    pub const ALL: [Kind; 5] =
        [Kind::KillNode, Kind::HangNode, Kind::CutLink, Kind::LoseRegion, Kind::Flap];

    /// The name on the command line: `kill-node`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KillNode => "kill-node",
            Kind::HangNode => "hang-node",
            Kind::CutLink => "cut-link",
            Kind::LoseRegion => "lose-region",
            Kind::Flap => "flap",
        }
    }

    /// The participle in progress messages, before the nodes' names.
    pub(super) fn done_to(self) -> &'static str {
        match self {
            Kind::KillNode | Kind::LoseRegion => "killing",
            Kind::HangNode => "stopping",
            Kind::CutLink => "cutting off",
            Kind::Flap => "stopping, again and again,",
        }
    }

    pub(super) fn fault(self) -> Order {
        Order::Break(match self {
            Kind::KillNode | Kind::LoseRegion => "kill",
            Kind::HangNode | Kind::Flap => "hang",
            Kind::CutLink => "cut",
        })
    }

    pub(super) fn cure(self) -> Order {
        match self {
            Kind::KillNode | Kind::LoseRegion => Order::Start,
            Kind::HangNode | Kind::Flap => Order::Break("wake"),
            Kind::CutLink => Order::Break("heal"),
        }
    }

    pub(super) fn unmended(self, node: &str, why: String) -> Unmended {
        let is = match self {
            Kind::KillNode | Kind::LoseRegion => "dead",
            Kind::HangNode | Kind::Flap => "stopped",
            Kind::CutLink => "cut off",
        };
        let by_hand = match self.cure() {
            Order::Start => format!("POST /v1/nodes/{node}:start"),
            Order::Break(how) => format!("POST /v1/nodes/{node}:break {{\"how\": \"{how}\"}}"),
        };
        Unmended { node: node.to_owned(), is, by_hand, why }
    }

    /// The period, if the fault repeats.
    pub(super) fn every(self) -> Option<Duration> {
        (self == Kind::Flap).then_some(FLAPS_EVERY)
    }
}
