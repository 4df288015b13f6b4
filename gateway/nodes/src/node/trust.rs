//! The trust in a node, as another process continues it.

use std::time::Instant;

use evenkeel_model::EvidenceSource;
use serde::{Deserialize, Serialize};

use crate::node::{HealthState, ImpairedPeriod, Node, RELAPSES_MAX, Starting};

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

impl Node {
    /// Returns the facts that another process continues.
    pub fn trust(&self) -> NodeTrust {
        NodeTrust { starting: self.trust.starting.not_called(), ..self.trust }
    }

    /// Continues the trust of another process, unless this process has worse evidence. A call of the start hook in
    /// that process is unknown here.
    pub fn resume(&mut self, before: &NodeTrust) {
        // A node that was just added, or that a hook starts, is Down or Cold without any evidence.
        let without_evidence = match self.trust.standing {
            HealthState::Down { .. } => self.trust.excused && !self.trust.unknown,
            HealthState::Cold { .. } => true,
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => {
                false
            }
        };
        let holds = match before.standing {
            HealthState::Down { .. } => true,
            HealthState::Cold { .. } => !self.runs() || !self.detector.was_heard(),
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => {
                self.runs() || without_evidence
            }
        };
        if holds {
            (self.trust.standing, self.trust.excused, self.trust.unknown) =
                (before.standing, before.excused, before.unknown);
        }
        if let Some(worse) = before.worse.filter(|_| self.runs()) {
            self.trust.worse = Some(worse);
            self.detector.handle_worse(Some(EvidenceSource::Cohort), worse.since);
        }
        self.trust.relapses = self.trust.relapses.max(before.relapses).min(RELAPSES_MAX);
        self.trust.starting = before.starting;
        self.trust.ejected = before.ejected;
        self.trust.draining = before.draining;
        self.trust.leaving |= before.leaving;
    }

    /// Returns true while rooms accuse the node of loss.
    pub fn loses_more_than_others(&self) -> bool {
        self.trust.worse.is_some()
    }

    /// The time since which the node does not run.
    pub fn absent_since(&self) -> Option<Instant> {
        match self.trust.standing {
            HealthState::Down { since, .. } | HealthState::Cold { since } => Some(since),
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => None,
        }
    }
}
