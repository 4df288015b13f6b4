//! The trust in a node, as another process continues it.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// A node's health, and what operators and the node itself decided.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub struct NodeTrust {
    pub(super) standing: HealthState,
    /// The ejection time is waived: by an operator, or because the node had never been heard when it was marked down.
    pub(super) excused: bool,
    /// The node was marked down before it was ever heard. It may just start late, so this is no relapse.
    pub(super) unknown: bool,
    pub(super) relapses: u32,
    /// Set while the node loses more than others.
    pub(super) worse: Option<ImpairedPeriod>,
    pub(super) starting: Starting,
    /// An operator marked the node Down. It stays Down until the operator lets it back.
    pub ejected: bool,
    /// An operator drains the node.
    pub draining: bool,
    /// The node drains at its own request, reported by its agent.
    pub leaving: bool,
    /// The node is no longer listed. It drains, and is then forgotten.
    pub removed: bool,
    /// Its start, stop and replacement by the gateway.
    #[serde(default)]
    pub elastic: ElasticState,
}

/// The start, stop and replacement of a node by the gateway.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct ElasticState {
    /// The gateway started the node, and has not stopped it since.
    pub(super) started: bool,
    /// The node is no longer needed. It drains, and is then stopped.
    pub stopping: bool,
    /// The time at which the node was told to stop, until it is gone.
    #[serde(with = "evenkeel_instant::option")]
    pub(super) stop_called: Option<Instant>,
    /// The earliest time at which the dead node is started again.
    #[serde(with = "evenkeel_instant::option")]
    pub(super) replace_at: Option<Instant>,
    /// Replacements in a row, which delay the next one.
    pub(super) replacements: u32,
    /// The time of the last replacement.
    #[serde(with = "evenkeel_instant::option")]
    pub(super) replaced_at: Option<Instant>,
}

impl NodeTrust {
    pub(super) fn new(standing: HealthState) -> NodeTrust {
        NodeTrust {
            standing,
            excused: false,
            unknown: false,
            relapses: 0,
            worse: None,
            starting: Starting::default(),
            ejected: false,
            draining: false,
            leaving: false,
            removed: false,
            elastic: ElasticState::default(),
        }
    }

    /// Returns true unless the node was Cold.
    pub fn runs(&self) -> bool {
        match self.standing {
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => true,
            HealthState::Down { .. } | HealthState::Cold { .. } => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(super) enum HealthState {
    Up {
        #[serde(with = "evenkeel_instant")]
        since: Instant,
    },
    Suspect {
        was_wary: bool,
    },
    Down {
        #[serde(with = "evenkeel_instant")]
        since: Instant,
        #[serde(with = "evenkeel_instant::option")]
        answering_since: Option<Instant>,
    },
    Wary {
        #[serde(with = "evenkeel_instant")]
        since: Instant,
    },
    /// The node does not run; its hook can start it.
    Cold {
        #[serde(with = "evenkeel_instant")]
        since: Instant,
    },
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(super) struct ImpairedPeriod {
    #[serde(with = "evenkeel_instant")]
    pub(super) since: Instant,
    /// The node stays Suspect until this time, even without rooms that could measure its loss.
    #[serde(with = "evenkeel_instant")]
    pub(super) until: Instant,
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, Debug)]
pub(super) struct Starting {
    /// The time at which the hook was called, while the node is awaited.
    #[serde(skip)]
    pub(super) called: Option<Instant>,
    /// Attempts since the node last ran.
    pub(super) attempts: u32,
    /// The earliest time of the next attempt.
    #[serde(with = "evenkeel_instant::option")]
    pub(super) again: Option<Instant>,
}
