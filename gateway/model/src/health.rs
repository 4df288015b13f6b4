//! The health of nodes and regions, and the sources of evidence about it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

crate::named! {
    /// A node's health, as this gateway sees it.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    #[repr(u32)]
    pub enum Health {
        /// The node takes rooms.
        Up = "up",
        /// One witness accuses the node. New rooms avoid it.
        Suspect = "suspect",
        /// The node is back from Down with a new incarnation, and is not trusted yet.
        Wary = "wary",
        /// The node carries nothing. This state is final for the incarnation.
        Down = "down",
        /// The node does not run. A hook can start it.
        Cold = "cold",
    }
}

crate::named! {
    /// A source of evidence about a node.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum EvidenceSource {
        /// The kernel says that no process listens there.
        KernelError = "kernel-error",
        /// The media port of the node did not answer probes.
        Probe = "probe",
        /// No media came from the node while the gateway sent media to it.
        Silence = "silence",
        /// The agent beside the node reports that its process ended. This witness alone marks the node down at once.
        Agent = "agent",
        /// The node keeps the canary sessions open but forwards no packets between them.
        Canary = "canary",
        /// More rooms lose packets at this node than at its siblings, the nodes of its region that carry the same scenario.
        Cohort = "cohort",
        /// Most rooms lose packets at this node according to gateway and node, and it has no siblings to compare.
        Feedback = "feedback",
        /// An operator ejected the node.
        Operator = "operator",
    }
}

impl EvidenceSource {
    /// Returns true if the witness reports loss. Loss alone never marks a node down.
    pub fn is_of_loss(self) -> bool {
        matches!(self, EvidenceSource::Cohort | EvidenceSource::Feedback)
    }

    /// Returns true if the witness is a report. The others are missing packets, which a broken uplink also causes.
    pub fn speaks(self) -> bool {
        matches!(
            self,
            EvidenceSource::KernelError | EvidenceSource::Agent | EvidenceSource::Operator
        )
    }
}

/// A step in the start of a cold node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartPhase {
    /// The start hook is called.
    Begun {
        /// Counts attempts since the node last ran, from 1.
        attempt: u32,
    },
    /// The node did not start.
    Failed {
        /// The reason of the failure.
        why: NotStarted,
        /// Delay before the next attempt.
        again: Duration,
    },
    /// The node answers.
    Done {
        /// Time since the hook was called.
        took: Duration,
    },
    /// The hook is not called.
    Refused {
        /// The limit that forbids the start.
        why: StartRefusal,
    },
}

impl StartPhase {
    /// The word in metrics and records: `starting`.
    pub fn name(self) -> &'static str {
        match self {
            StartPhase::Begun { .. } => "starting",
            StartPhase::Failed { .. } => "failed",
            StartPhase::Done { .. } => "ready",
            StartPhase::Refused { .. } => "refused",
        }
    }
}

crate::named! {
    /// The limit that forbids the start of a node.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    pub enum StartRefusal {
        /// As many started nodes run as may run at once.
        Nodes = "max-nodes",
        /// The started nodes would cost more per hour than is allowed.
        Cost = "budget",
        /// The breaker of the provider is open.
        Provider = "provider-breaker",
    }
}

crate::named! {
    /// The reason why a node is not stopped.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum NodeNeed {
        /// It carries rooms.
        Rooms = "rooms",
        /// Rooms are stranded.
        Stranded = "stranded-rooms",
        /// The load of the region, now or by the forecast, is too high for the other nodes.
        Load = "load",
        /// The other nodes lack capacity for its reserves.
        Reserves = "reserves",
    }
}

/// A step in the stop of a node that is no longer needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopPhase {
    /// The node is empty, and is told to stop.
    Begun,
    /// The node still answered when its time limit passed. Its hooks are ended, and the node is used again.
    Failed,
    /// The node no longer answers.
    Done {
        /// Time since the node was told to stop.
        took: Duration,
    },
}

impl StopPhase {
    /// The word in metrics and events: `stopping`.
    pub fn name(self) -> &'static str {
        match self {
            StopPhase::Begun => "stopping",
            StopPhase::Failed => "failed",
            StopPhase::Done { .. } => "stopped",
        }
    }
}

crate::named! {
    /// Why a node was not started.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum NotStarted {
        /// The start hook failed.
        Hook = "hook-failed",
        /// The node did not answer within its start timeout.
        Late = "late",
        /// An operator ejected the node during the start.
        Ejected = "ejected",
        /// The node was removed from the list during the start.
        Removed = "removed",
    }
}

crate::named! {
    /// State of the breaker of a region or zone, which decides on new rooms.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    #[repr(u32)]
    pub enum BreakerState {
        /// New rooms may enter the region.
        Closed = "closed",
        /// New rooms are placed in other regions or refused.
        Open = "open",
        /// A share of new rooms is admitted.
        HalfOpen = "half-open",
    }
}

crate::named! {
    /// How the state of a breaker is decided.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
    #[serde(rename_all = "kebab-case")]
    pub enum BreakerMode {
        /// By the evidence.
        #[default]
        Auto = "auto",
        /// An operator holds it open.
        Open = "open",
        /// An operator holds it closed.
        Closed = "closed",
    }
}
