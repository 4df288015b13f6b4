//! The health of nodes and regions, and the sources of evidence about it.

use std::time::Duration;

/// A node's health, as this gateway sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Health {
    /// The node takes rooms.
    Up = 0,
    /// One witness accuses the node. New rooms avoid it.
    Suspect = 1,
    /// The node is back from Down with a new incarnation, and is not trusted yet.
    Wary = 2,
    /// The node carries nothing. This state is final for the incarnation.
    Down = 3,
    /// The node does not run. A hook can start it.
    Cold = 4,
}

impl Health {
    /// The word in metrics and records: `suspect`.
    pub fn name(self) -> &'static str {
        match self {
            Health::Up => "up",
            Health::Suspect => "suspect",
            Health::Wary => "wary",
            Health::Down => "down",
            Health::Cold => "cold",
        }
    }
}

/// A source of evidence about a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EvidenceSource {
    /// The kernel says that no process listens there.
    KernelError,
    /// The media port of the node did not answer probes.
    Probe,
    /// No media came from the node while the gateway sent media to it.
    Silence,
    /// The agent beside the node reports that its process ended. This witness alone marks the node down at once.
    Agent,
    /// The node keeps the canary sessions open but forwards no packets between them.
    Canary,
    /// More rooms lose packets at this node than at its siblings, the nodes of its region that carry the same scenario.
    Cohort,
    /// Most rooms lose packets at this node according to gateway and node, and it has no siblings to compare.
    Feedback,
    /// An operator ejected the node.
    Operator,
}

impl EvidenceSource {
    /// All sources; the number of each is its index.
    pub const ALL: [EvidenceSource; 8] = [
        EvidenceSource::KernelError,
        EvidenceSource::Probe,
        EvidenceSource::Silence,
        EvidenceSource::Agent,
        EvidenceSource::Canary,
        EvidenceSource::Cohort,
        EvidenceSource::Feedback,
        EvidenceSource::Operator,
    ];

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

    /// The word in metrics and records: `kernel-error`.
    pub fn name(self) -> &'static str {
        match self {
            EvidenceSource::KernelError => "kernel-error",
            EvidenceSource::Probe => "probe",
            EvidenceSource::Silence => "silence",
            EvidenceSource::Agent => "agent",
            EvidenceSource::Operator => "operator",
            EvidenceSource::Canary => "canary",
            EvidenceSource::Cohort => "cohort",
            EvidenceSource::Feedback => "feedback",
        }
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
}

impl StartPhase {
    /// The word in metrics and records: `starting`.
    pub fn name(self) -> &'static str {
        match self {
            StartPhase::Begun { .. } => "starting",
            StartPhase::Failed { .. } => "failed",
            StartPhase::Done { .. } => "ready",
        }
    }
}

/// Why a node was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotStarted {
    /// The start hook failed.
    Hook,
    /// The node did not answer within its start timeout.
    Late,
    /// An operator ejected the node during the start.
    Ejected,
    /// The node was removed from the list during the start.
    Removed,
}

impl NotStarted {
    /// The word in metrics and records: `hook-failed`.
    pub fn name(self) -> &'static str {
        match self {
            NotStarted::Hook => "hook-failed",
            NotStarted::Late => "late",
            NotStarted::Ejected => "ejected",
            NotStarted::Removed => "removed",
        }
    }
}

/// State of a regional breaker, which decides on new rooms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum BreakerState {
    /// New rooms may enter the region.
    Closed = 0,
    /// New rooms are placed in other regions or refused.
    Open = 1,
    /// A share of new rooms is admitted.
    HalfOpen = 2,
}

impl BreakerState {
    /// The word in metrics and records: `half-open`.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}
