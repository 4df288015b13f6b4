//! Rollouts: the rules of a policy set, requests and actions, and the stages: shadow, a canary with a growing share, active.
//! Inputs of the stages are time and cohort sizes; the output is the next step.

use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use serde::{Deserialize, Serialize};

use crate::judging::Judging;

evenkeel_model::named! {
    /// The author of a change of revisions.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Actor {
        /// A changed file.
        File = "file",
        /// SIGHUP.
        Signal = "signal",
        /// A person, by command or API.
        Operator = "operator",
        /// The gateway itself.
        Gateway = "gateway",
    }
}

/// A step whose cohort is too small to judge is prolonged to this many times its duration. Then its share grows, so that a
/// gateway with few sessions reaches one that can be judged.
const PROLONGED_MAX: u32 = 3;

/// From this share on, per cent, no step is taken unjudged.
const UNJUDGED_BELOW: u8 = 50;

/// The stages through which a revision becomes active.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Strategy {
    /// Shares of the canary, per cent, each larger than the one before. At 100, and after the last, the candidate
    /// becomes active.
    pub steps: Vec<u8>,
    /// The duration of each stage.
    pub each: Duration,
    /// Duration of the shadow stage; zero for none.
    pub shadow: Duration,
    /// The candidate stays in the shadow stage until an operator promotes it.
    pub stays_in_shadow: bool,
    /// The rollout is paused.
    pub held: bool,
}

impl Strategy {
    /// True if a revision becomes active without a rollout.
    pub fn is_at_once(&self) -> bool {
        let steps = self.steps.first().is_none_or(|first| *first >= 100);
        steps && self.shadow.is_zero() && !self.stays_in_shadow
    }
}

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
    /// End the rollout of another revision.
    pub replace: bool,
    /// `None`: the revision becomes active at once.
    pub strategy: Option<Strategy>,
    /// The revision is that of a file: an older version is accepted, and the previous revision returns at once.
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

/// The exposure of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum RolloutStage {
    /// The candidate is asked the questions that the active revision answered. Its answers are only compared.
    Shadow,
    /// The candidate decides for this share, per cent.
    Canary(u8),
}

impl RolloutStage {
    /// As in the API and in records: `canary`.
    pub fn name(self) -> &'static str {
        match self {
            RolloutStage::Shadow => "shadow",
            RolloutStage::Canary(_) => "canary",
        }
    }

    /// Returns the share of rooms or sessions in per cent; 0 in shadow.
    pub fn percent(self) -> u8 {
        match self {
            RolloutStage::Shadow => 0,
            RolloutStage::Canary(percent) => percent,
        }
    }
}

impl std::fmt::Display for RolloutStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RolloutStage::Shadow => f.write_str("in shadow"),
            RolloutStage::Canary(percent) => write!(f, "canary at {percent} %"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RolloutStep {
    /// Set the candidate's share, per cent.
    Expose(u8),
    Activate,
}

/// The size of the cohort of a canary.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CohortSize {
    /// Rooms, sessions or newcomers of the canary that were judged in this step.
    pub judged: u32,
    /// The number that a step needs.
    pub required: u32,
}

/// The progress of a candidate through its stages.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct RolloutProgress {
    strategy: Strategy,
    stage: RolloutStage,
    next: usize,
    #[serde(with = "instant")]
    stage_began: Instant,
    /// Time at this stage before the pause; `None` if not paused.
    paused: Option<Duration>,
    /// An operator paused the rollout, so a strategy without `held` does not resume it.
    by_operator: bool,
}

impl RolloutProgress {
    /// Begins with the shadow stage, or with the first share.
    pub fn begin(strategy: Strategy, now: Instant) -> RolloutProgress {
        let shadowed = !strategy.shadow.is_zero() || strategy.stays_in_shadow;
        let paused = strategy.held.then_some(Duration::ZERO);
        let (stage, stage_began) = (RolloutStage::Shadow, now);
        let mut progress =
            RolloutProgress { strategy, stage, next: 0, stage_began, paused, by_operator: false };
        if !shadowed {
            progress.advance(now);
        }
        progress
    }

    /// Continues from the present share with another strategy.
    fn set_strategy(&mut self, strategy: Strategy, now: Instant) {
        match (self.strategy.held, strategy.held) {
            (false, true) => self.paused = Some(self.lasted(now)),
            (true, false) if !self.by_operator => self.resume(now),
            (false, false) | (true, _) => {}
        }
        let share = self.stage.percent();
        self.next = strategy.steps.iter().filter(|percent| **percent <= share).count();
        self.strategy = strategy;
    }

    /// Applies a changed strategy of the policy set. A rollout that follows the set takes the new one; one that was
    /// pushed with its own strategy takes only `held`. Returns true if it is paused now, false if it is resumed.
    pub fn follow(&mut self, was: &Strategy, is: Strategy, now: Instant) -> Option<bool> {
        if *was == is {
            return None;
        }
        let own = Strategy { held: is.held, ..self.strategy.clone() };
        let was_paused = self.is_paused();
        self.set_strategy(if self.strategy == *was { is } else { own }, now);
        (was_paused != self.is_paused()).then_some(self.is_paused())
    }

    /// Returns the stage in force.
    pub fn stage(&self) -> RolloutStage {
        self.stage
    }

    /// Returns the stages of the rollout.
    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// Time at this stage, without pauses.
    pub fn lasted(&self, now: Instant) -> Duration {
        self.paused.unwrap_or_else(|| now.saturating_duration_since(self.stage_began))
    }

    /// Returns true if an operator paused the rollout.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// The next share, per cent; at 100 the candidate becomes active.
    pub fn next_share(&self) -> u8 {
        self.strategy.steps.get(self.next).copied().unwrap_or(100).min(100)
    }

    /// Minimum time until the next step; `None` while the candidate waits for an operator.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let lasts = match self.stage {
            RolloutStage::Shadow if self.strategy.stays_in_shadow => return None,
            RolloutStage::Shadow => self.strategy.shadow,
            RolloutStage::Canary(_) => self.strategy.each,
        };
        (!self.is_paused()).then(|| lasts.saturating_sub(self.lasted(now)))
    }

    /// Returns the next step if it is due.
    pub fn poll(
        &mut self,
        cohort: impl FnOnce() -> CohortSize,
        now: Instant,
    ) -> Option<RolloutStep> {
        if self.is_paused() {
            return None;
        }
        let lasted = self.lasted(now);
        let is_due = match self.stage {
            RolloutStage::Shadow => {
                !self.strategy.stays_in_shadow && lasted >= self.strategy.shadow
            }
            RolloutStage::Canary(_) if lasted < self.strategy.each => false,
            RolloutStage::Canary(_) => {
                let CohortSize { judged, required } = cohort();
                let is_prolonged = lasted >= self.strategy.each * PROLONGED_MAX;
                judged >= required || is_prolonged && self.next_share() < UNJUDGED_BELOW
            }
        };
        is_due.then(|| self.advance(now))
    }

    /// Takes the next step, whether it is due or not.
    pub fn advance(&mut self, now: Instant) -> RolloutStep {
        let share = self.next_share();
        (self.stage_began, self.paused) = (now, self.paused.map(|_| Duration::ZERO));
        if share == 100 {
            return RolloutStep::Activate;
        }
        self.next += 1;
        self.stage = RolloutStage::Canary(share);
        RolloutStep::Expose(share)
    }

    /// Pauses the rollout until an operator resumes it.
    pub fn pause(&mut self, now: Instant) {
        self.paused = Some(self.lasted(now));
        self.by_operator = true;
    }

    /// Resumes the rollout. The time at this stage before the pause counts.
    pub fn resume(&mut self, now: Instant) {
        self.by_operator = false;
        if let Some(lasted) = self.paused.take() {
            self.stage_began = now.checked_sub(lasted).unwrap_or(now);
        }
    }
}

#[cfg(test)]
mod tests;
