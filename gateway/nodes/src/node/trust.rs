//! The trust in a node, as another process continues it.

use std::time::Instant;

use evenkeel_model::EvidenceSource;
use serde::{Deserialize, Serialize};

use crate::node::{HealthState, ImpairedPeriod, Node, RELAPSES_MAX, Starting};

/// A node's health, and what operators and the node itself decided.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct NodeTrust {
    standing: HealthState,
    excused: bool,
    unknown: bool,
    relapses: u32,
    worse: Option<ImpairedPeriod>,
    starting: Starting,
    ejected: bool,
    draining: bool,
    leaving: bool,
    /// The node is being removed from the list.
    pub removed: bool,
}

impl NodeTrust {
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
        let &Node { standing, excused, unknown, relapses, worse, ejected, .. } = self;
        let &Node { draining, leaving, removed, .. } = self;
        let starting = self.starting.not_called();
        NodeTrust {
            standing,
            excused,
            unknown,
            relapses,
            worse,
            starting,
            ejected,
            draining,
            leaving,
            removed,
        }
    }

    /// Continues the trust of another process, unless this process has worse evidence. A call of the start hook in
    /// that process is unknown here.
    pub fn resume(&mut self, before: &NodeTrust) {
        // A node that was just added, or that a hook starts, is Down or Cold without any evidence.
        let without_evidence = match self.standing {
            HealthState::Down { .. } => self.excused && !self.unknown,
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
            (self.standing, self.excused, self.unknown) =
                (before.standing, before.excused, before.unknown);
        }
        if let Some(worse) = before.worse.filter(|_| self.runs()) {
            self.worse = Some(worse);
            self.detector.handle_worse(Some(EvidenceSource::Cohort), worse.since);
        }
        self.relapses = self.relapses.max(before.relapses).min(RELAPSES_MAX);
        self.starting = before.starting;
        self.ejected = before.ejected;
        self.draining = before.draining;
        self.leaving |= before.leaving;
    }

    /// Returns true while rooms accuse the node of loss.
    pub fn loses_more_than_others(&self) -> bool {
        self.worse.is_some()
    }

    /// The time since which the node does not run.
    pub fn absent_since(&self) -> Option<Instant> {
        match self.standing {
            HealthState::Down { since, .. } | HealthState::Cold { since } => Some(since),
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => None,
        }
    }
}
