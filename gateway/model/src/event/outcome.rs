//! Outcomes of decisions, and the rules that decisions must keep.

use crate::PluginFault;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecisionOutcome {
    /// The decision was applied, in whole or in part.
    Applied {
        /// True if the decision differs from the native default.
        differs: bool,
    },
    /// The policy abstained. The native default decided.
    Abstained,
    /// The answer changed nothing.
    Kept,
    /// The decision broke this rule.
    Guarded(GuardRule),
    /// The subject changed after the question, so the answer no longer applies.
    Stale,
    /// The policy faulted. The native default decided.
    Faulted(PluginFault),
}

impl DecisionOutcome {
    /// The word in metrics and records: `applied`.
    pub fn name(&self) -> &'static str {
        match self {
            DecisionOutcome::Applied { .. } => "applied",
            DecisionOutcome::Abstained => "abstained",
            DecisionOutcome::Kept => "kept",
            DecisionOutcome::Guarded(_) => "guarded",
            DecisionOutcome::Stale => "stale",
            DecisionOutcome::Faulted(_) => "faulted",
        }
    }
}

/// A native rule that a decision broke.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GuardRule {
    /// The decision names a node that does not exist or is down, or names a node twice.
    UnusableNode,
    /// The first node has no capacity for the room.
    NoCapacity,
    /// The decision names a region that does not exist, or redirects a session of an existing room.
    UnusableRegion,
    /// The decision names a row that was not in the question, or moves a row twice.
    UnknownRow,
    /// The decision names an action that does not exist or was not granted.
    UnknownAction,
    /// Policies moved too many sessions within a second.
    Churn,
    /// The room moved too often within a minute.
    MovedTooOften,
    /// The cap is outside the scenario's floor and ceiling.
    CapOutOfBounds,
    /// The cap has no effect: no endpoint concerned supports one.
    CapUnsupported,
    /// The breaker of a node's region is open.
    BreakerOpen,
    /// The subject changed since the question.
    Outdated,
    /// A fresh instance of the plugin answered the same question differently.
    HiddenState,
}

impl GuardRule {
    /// Returns true if the decision itself broke the rule. The other rules can be broken by concurrent events.
    pub fn is_its_own(self) -> bool {
        match self {
            GuardRule::UnusableNode
            | GuardRule::UnusableRegion
            | GuardRule::UnknownRow
            | GuardRule::UnknownAction
            | GuardRule::CapOutOfBounds
            | GuardRule::CapUnsupported
            | GuardRule::HiddenState => true,
            GuardRule::NoCapacity
            | GuardRule::Churn
            | GuardRule::MovedTooOften
            | GuardRule::BreakerOpen
            | GuardRule::Outdated => false,
        }
    }

    /// The word in metrics and records: `churn`.
    pub fn name(self) -> &'static str {
        match self {
            GuardRule::UnusableNode => "unusable-node",
            GuardRule::NoCapacity => "no-capacity",
            GuardRule::UnusableRegion => "unusable-region",
            GuardRule::UnknownRow => "unknown-row",
            GuardRule::UnknownAction => "unknown-action",
            GuardRule::Churn => "churn",
            GuardRule::MovedTooOften => "moved-too-often",
            GuardRule::CapOutOfBounds => "cap-out-of-bounds",
            GuardRule::CapUnsupported => "cap-unsupported",
            GuardRule::BreakerOpen => "breaker-open",
            GuardRule::Outdated => "outdated",
            GuardRule::HiddenState => "hidden-state",
        }
    }
}
