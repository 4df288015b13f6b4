//! Inputs of a lifecycle: rules, pushes, actions of operators, and outcomes of calls.

use std::time::{Duration, Instant, SystemTime};

use evenkeel_model::PluginFault;

use crate::judge::Judging;
use crate::progress::Strategy;
use crate::report::Actor;

/// How revisions of a policy set become active.
#[derive(Clone, PartialEq, Debug)]
pub struct RolloutRules {
    /// Strategy of changed files. A push names its own strategy.
    pub strategy: Strategy,
    /// Time during which a rollback to the previous revision is possible.
    pub keep: Duration,
    /// Thresholds by which a candidate is judged.
    pub judging: Judging,
}

/// A push, a changed file, or the first revision of a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct RolloutRequest {
    /// From [`Lifecycle::next_push`](super::Lifecycle::next_push). A later number supersedes this request.
    pub push: u64,
    /// The author of the push.
    pub by: Actor,
    /// The time of the push, which orders pushes.
    pub arrived: Instant,
    /// Accept a quarantined or older revision.
    pub force: bool,
    /// `None`: the revision becomes active at once.
    pub strategy: Option<Strategy>,
    /// Return to the previous revision at once, since its file was restored.
    pub returns: bool,
}

/// An operator's action on a rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RolloutAction {
    /// Give the candidate its next share.
    Promote,
    /// Activate the candidate.
    PromoteAll,
    /// Hold the rollout at its stage.
    Pause,
    /// Continue a paused rollout.
    Resume,
    /// Drop the candidate; the active revision stays.
    Abort,
}

/// The outcome of a call that a revision answered or failed.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyCallResult {
    /// The call returned an answer.
    pub answered: bool,
    /// The fault of the call; `None` without one.
    pub fault: Option<PluginFault>,
    /// The plugin could not be started again.
    pub beyond_repair: bool,
}

/// The outcome of a question that a candidate was asked in the shadow stage.
#[derive(Clone, PartialEq, Debug)]
pub enum Compared {
    /// Both revisions gave equal answers.
    Same,
    /// The answers differ.
    Different,
    /// The candidate faulted.
    Faulted(PluginFault),
    /// There was not enough time to ask the candidate.
    Skipped,
}

/// Translates the virtual clock to wall time, for records that outlive the process.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// The reading of the monotonic clock.
    pub instant: Instant,
    /// The reading of the wall clock at that instant.
    pub time: SystemTime,
}

impl WallClock {
    pub(crate) fn at(&self, now: Instant) -> SystemTime {
        self.time + now.saturating_duration_since(self.instant)
    }
}
