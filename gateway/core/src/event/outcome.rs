//! Outcomes of decisions, and the rules that decisions must keep.

use crate::Fault;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
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
    Guarded(Guard),
    /// The subject changed after the question, so the answer no longer applies.
    Stale,
    /// The policy faulted. The native default decided.
    Faulted(Fault),
}

impl Outcome {
    /// The word in metrics and records: `applied`.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Applied { .. } => "applied",
            Outcome::Abstained => "abstained",
            Outcome::Kept => "kept",
            Outcome::Guarded(_) => "guarded",
            Outcome::Stale => "stale",
            Outcome::Faulted(_) => "faulted",
        }
    }
}

/// A native rule that a decision broke.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Guard {
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

impl Guard {
    /// Returns true if the decision itself broke the rule. The other rules can be broken by concurrent events.
    pub(crate) fn is_its_own(self) -> bool {
        match self {
            Guard::UnusableNode
            | Guard::UnusableRegion
            | Guard::UnknownRow
            | Guard::UnknownAction
            | Guard::CapOutOfBounds
            | Guard::CapUnsupported
            | Guard::HiddenState => true,
            Guard::NoCapacity
            | Guard::Churn
            | Guard::MovedTooOften
            | Guard::BreakerOpen
            | Guard::Outdated => false,
        }
    }

    /// The word in metrics and records: `churn`.
    pub fn name(self) -> &'static str {
        match self {
            Guard::UnusableNode => "unusable-node",
            Guard::NoCapacity => "no-capacity",
            Guard::UnusableRegion => "unusable-region",
            Guard::UnknownRow => "unknown-row",
            Guard::UnknownAction => "unknown-action",
            Guard::Churn => "churn",
            Guard::MovedTooOften => "moved-too-often",
            Guard::CapOutOfBounds => "cap-out-of-bounds",
            Guard::CapUnsupported => "cap-unsupported",
            Guard::BreakerOpen => "breaker-open",
            Guard::Outdated => "outdated",
            Guard::HiddenState => "hidden-state",
        }
    }
}
