//! Outcomes of decisions, and the rules that they are held to.

use crate::Fault;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Its decision was taken, in whole or in part.
    Applied {
        /// It differs from the native default.
        differs: bool,
    },
    /// It had no opinion: the native default decided.
    Abstained,
    /// It answered, and nothing was to change.
    Kept,
    /// The guard refused it: which rule.
    Guarded(Guard),
    /// Something changed meanwhile; the answer no longer fits.
    Stale,
    /// It failed us; the native default decided.
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
    /// It names a node that does not exist, is Down, or names one twice.
    UnusableNode,
    /// Its first node has no room for it.
    NoCapacity,
    /// It names a region that does not exist, or redirects a room that has one.
    UnusableRegion,
    /// It names a row that was not asked about, or moves one twice.
    UnknownRow,
    /// It names an action that does not exist or was not granted.
    UnknownAction,
    /// Too many sessions moved by policy within a second.
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
    /// It is not what the same question gets from a fresh instance of the plugin.
    HiddenState,
}

impl Guard {
    /// The decision itself was wrong. The other rules may be broken by events elsewhere at the time.
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
