//! A revision that was to come in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::PolicyName;

/// A revision of a policy, from its arrival to what became of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Rollout {
    /// Whose.
    pub policy: PolicyName,
    /// The new revision, where it came far enough to have one.
    pub revision: Option<Arc<str>>,
    /// What was there before.
    pub previous: Option<Arc<str>>,
    /// What became of it.
    pub outcome: RolledOut,
    /// Why, where it is not active.
    pub reason: Option<String>,
    /// When it arrived.
    pub started: Instant,
    /// How long the switch took, where there was one.
    pub activate: Option<Duration>,
}

/// What became of a new revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RolledOut {
    /// It answers.
    Activated,
    /// It never answered.
    Refused,
    /// It answered, and the one before it does again.
    RolledBack,
}

impl RolledOut {
    /// The word in metrics and records: `rolled-back`.
    pub fn name(self) -> &'static str {
        match self {
            RolledOut::Activated => "activated",
            RolledOut::Refused => "refused",
            RolledOut::RolledBack => "rolled-back",
        }
    }
}
