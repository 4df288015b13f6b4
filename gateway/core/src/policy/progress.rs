//! The stages of a rollout: shadow, a canary with a growing share, active. Inputs are time and cohort sizes; the output
//! is the next step.

use std::time::{Duration, Instant};

/// A step with a cohort too small to judge is prolonged to this many times its duration; then the rollout continues.
const PROLONGED_MAX: u32 = 3;

/// How a revision becomes active.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strategy {
    /// Shares of the canary, per cent, each larger than the one before. At 100, and after the last, it is active.
    pub steps: Vec<u8>,
    /// Minimum duration of each step.
    pub each: Duration,
    /// Duration of the shadow stage; zero for none.
    pub shadow: Duration,
    /// It stays in the shadow stage until an operator promotes it.
    pub stays_in_shadow: bool,
    /// It stays at its stage.
    pub held: bool,
}

impl Strategy {
    /// True if it becomes active without a rollout.
    pub fn is_at_once(&self) -> bool {
        let steps = self.steps.first().is_none_or(|first| *first >= 100);
        steps && self.shadow.is_zero() && !self.stays_in_shadow
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is asked the questions that the active revision answered, and its answers are only compared.
    Shadow,
    /// It decides for this share, per cent.
    Canary(u8),
}

impl Stage {
    /// As in the API and in records: `canary`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Shadow => "shadow",
            Stage::Canary(_) => "canary",
        }
    }

    /// Its share, per cent.
    pub fn percent(self) -> u8 {
        match self {
            Stage::Shadow => 0,
            Stage::Canary(percent) => percent,
        }
    }
}

/// The next step of a rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The candidate's share is this from now on, per cent.
    Expose(u8),
    Activate,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct CohortSize {
    /// Rooms or sessions of the canary.
    pub(crate) present: u32,
    /// The part that was measured since the step began.
    pub(crate) measured: u32,
    /// The minimum that can be judged.
    pub(crate) required: u32,
}

/// How far a candidate is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    strategy: Strategy,
    stage: Stage,
    /// Index of the next step.
    next: usize,
    stage_began: Instant,
    /// While it is paused: the time it had spent at this stage.
    paused: Option<Duration>,
    /// An operator paused it; then a strategy without `held` does not resume it.
    by_operator: bool,
}

impl Progress {
    /// Begins with the shadow stage, or with the first share.
    pub(super) fn begin(strategy: Strategy, now: Instant) -> Progress {
        let shadowed = !strategy.shadow.is_zero() || strategy.stays_in_shadow;
        let paused = strategy.held.then_some(Duration::ZERO);
        let (stage, stage_began) = (Stage::Shadow, now);
        let mut progress =
            Progress { strategy, stage, next: 0, stage_began, paused, by_operator: false };
        if !shadowed {
            progress.advance(now);
        }
        progress
    }

    /// Continues from its share with another strategy.
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
    pub(super) fn follow(&mut self, was: &Strategy, is: Strategy, now: Instant) -> Option<bool> {
        if *was == is {
            return None;
        }
        let own = Strategy { held: is.held, ..self.strategy.clone() };
        let was_paused = self.is_paused();
        self.set_strategy(if self.strategy == *was { is } else { own }, now);
        (was_paused != self.is_paused()).then_some(self.is_paused())
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// Time at this stage, without pauses.
    pub fn lasted(&self, now: Instant) -> Duration {
        self.paused.unwrap_or_else(|| now.saturating_duration_since(self.stage_began))
    }

    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// The next share, per cent; at 100 it is active.
    pub fn next_share(&self) -> u8 {
        self.strategy.steps.get(self.next).copied().unwrap_or(100).min(100)
    }

    /// Minimum time until the next step; none while it waits for an operator.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let lasts = match self.stage {
            Stage::Shadow if self.strategy.stays_in_shadow => return None,
            Stage::Shadow => self.strategy.shadow,
            Stage::Canary(_) => self.strategy.each,
        };
        (!self.is_paused()).then(|| lasts.saturating_sub(self.lasted(now)))
    }

    /// The next step, if it is due.
    pub(super) fn poll(
        &mut self,
        cohort: impl FnOnce() -> CohortSize,
        now: Instant,
    ) -> Option<Step> {
        if self.is_paused() {
            return None;
        }
        let lasted = self.lasted(now);
        let is_due = match self.stage {
            Stage::Shadow => !self.strategy.stays_in_shadow && lasted >= self.strategy.shadow,
            Stage::Canary(_) if lasted < self.strategy.each => false,
            Stage::Canary(_) => {
                let CohortSize { present, measured, required } = cohort();
                present == 0 || measured >= required || lasted >= self.strategy.each * PROLONGED_MAX
            }
        };
        is_due.then(|| self.advance(now))
    }

    /// Takes the next step, whether it is due or not.
    pub(super) fn advance(&mut self, now: Instant) -> Step {
        let share = self.next_share();
        (self.stage_began, self.paused) = (now, self.paused.map(|_| Duration::ZERO));
        if share == 100 {
            return Step::Activate;
        }
        self.next += 1;
        self.stage = Stage::Canary(share);
        Step::Expose(share)
    }

    /// Stays at its stage until an operator resumes it.
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused = Some(self.lasted(now));
        self.by_operator = true;
    }

    /// Continues; the time before the pause counts.
    pub(super) fn resume(&mut self, now: Instant) {
        self.by_operator = false;
        if let Some(lasted) = self.paused.take() {
            self.stage_began = now.checked_sub(lasted).unwrap_or(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn strategy(steps: &[u8], shadow: u32) -> Strategy {
        let (each, shadow) = (10 * SECOND, shadow * SECOND);
        Strategy { steps: steps.into(), each, shadow, stays_in_shadow: false, held: false }
    }

    fn enough() -> CohortSize {
        CohortSize { present: 10, measured: 5, required: 5 }
    }

    #[test]
    fn rollout_goes_through_its_stages() {
        let start = Instant::now();
        let mut rollout = Progress::begin(strategy(&[1, 25, 100], 5), start);
        assert_eq!(rollout.stage(), Stage::Shadow);
        let at = |seconds: u32| start + seconds * SECOND;
        assert_eq!((rollout.next_share(), rollout.left(at(2))), (1, Some(3 * SECOND)));
        assert_eq!(rollout.poll(enough, at(5) - Duration::from_millis(1)), None);
        assert_eq!(rollout.poll(enough, at(5)), Some(Step::Expose(1)));
        assert_eq!(rollout.poll(enough, at(15) - Duration::from_millis(1)), None);
        assert_eq!((rollout.next_share(), rollout.left(at(7))), (25, Some(8 * SECOND)));
        assert_eq!(rollout.poll(enough, at(15)), Some(Step::Expose(25)));
        assert_eq!(rollout.stage(), Stage::Canary(25));
        assert_eq!(
            (rollout.next_share(), rollout.left(at(60))),
            (100, Some(Duration::ZERO)),
            "prolonged"
        );
        assert_eq!(rollout.poll(enough, at(25)), Some(Step::Activate));
    }

    #[test]
    fn last_step_leads_to_activation() {
        let start = Instant::now();
        let mut rollout = Progress::begin(strategy(&[5], 0), start);
        assert_eq!((rollout.stage(), rollout.next_share()), (Stage::Canary(5), 100));
        assert_eq!(rollout.poll(enough, start + 10 * SECOND), Some(Step::Activate));
        for (steps, shadow, at_once) in
            [(&[][..], 0, true), (&[100][..], 0, true), (&[5][..], 0, false), (&[][..], 1, false)]
        {
            assert_eq!(strategy(steps, shadow).is_at_once(), at_once, "{steps:?} {shadow}");
        }
    }

    #[test]
    fn small_cohort_prolongs_a_step_empty_does_not() {
        let start = Instant::now();
        let few = || CohortSize { present: 10, measured: 4, required: 5 };
        let empty = || CohortSize { present: 0, measured: 0, required: 5 };
        let mut rollout = Progress::begin(strategy(&[5], 0), start);
        assert_eq!(rollout.poll(few, start + 29 * SECOND), None);
        assert_eq!(rollout.clone().poll(few, start + 30 * SECOND), Some(Step::Activate));
        assert_eq!(rollout.poll(empty, start + 10 * SECOND), Some(Step::Activate));
    }

    #[test]
    fn pause_by_operator_survives_hold_and_release() {
        let start = Instant::now();
        let free = strategy(&[5], 0);
        let held = Strategy { held: true, ..free.clone() };
        let mut rollout = Progress::begin(free.clone(), start);
        rollout.pause(start);
        rollout.set_strategy(held.clone(), start);
        rollout.set_strategy(free.clone(), start);
        assert!(rollout.is_paused());
        rollout.resume(start);
        assert!(!rollout.is_paused());
        rollout.set_strategy(held, start);
        rollout.set_strategy(free, start);
        assert!(!rollout.is_paused(), "no operator paused it since");
    }

    #[test]
    fn paused_rollout_waits_for_operator() {
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut rollout = Progress::begin(strategy(&[5, 50], 0), start);
        rollout.pause(at(4));
        assert_eq!((rollout.poll(enough, at(100)), rollout.left(at(100))), (None, None));
        rollout.resume(at(100));
        assert_eq!(
            rollout.poll(enough, at(106) - Duration::from_millis(1)),
            None,
            "4 s had passed"
        );
        assert_eq!(rollout.poll(enough, at(106)), Some(Step::Expose(50)));
        rollout.pause(at(107));
        assert_eq!(rollout.advance(at(108)), Step::Activate);
        assert!(rollout.is_paused());
    }

    #[test]
    fn changed_strategy_continues_from_the_share() {
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut rollout = Progress::begin(strategy(&[1, 25, 50], 0), start);
        assert_eq!(rollout.advance(at(1)), Step::Expose(25));
        let held = Strategy { held: true, ..strategy(&[1, 5, 40], 0) };
        rollout.set_strategy(held.clone(), at(3));
        assert!(rollout.is_paused());
        rollout.set_strategy(held.clone(), at(50));
        assert_eq!((rollout.poll(enough, at(100)), rollout.lasted(at(100))), (None, 2 * SECOND));
        rollout.set_strategy(Strategy { held: false, ..held.clone() }, at(100));
        assert_eq!(rollout.poll(enough, at(108)), Some(Step::Expose(40)), "2 s had passed");
        rollout.set_strategy(strategy(&[], 0), at(109));
        assert_eq!(rollout.poll(enough, at(118)), Some(Step::Activate));
        assert!(Progress::begin(held, start).is_paused());
    }

    #[test]
    fn shadow_only_rollout_waits_for_promotion() {
        let start = Instant::now();
        let mut rollout =
            Progress::begin(Strategy { stays_in_shadow: true, ..strategy(&[5], 0) }, start);
        assert_eq!(rollout.poll(enough, start + 10_000 * SECOND), None);
        assert_eq!((rollout.next_share(), rollout.left(start)), (5, None));
        assert_eq!(rollout.advance(start), Step::Expose(5));
    }

    #[test]
    fn strategy_change_of_set_reaches_its_rollouts() {
        let now = Instant::now();
        let was = strategy(&[5, 50], 5);
        let is = Strategy { held: true, ..strategy(&[5, 20], 5) };
        let mut by_set = Progress::begin(was.clone(), now);
        assert_eq!(by_set.follow(&was, is.clone(), now), Some(true));
        assert_eq!((by_set.strategy(), by_set.is_paused()), (&is, true));
        let mut pushed = Progress::begin(Strategy { steps: vec![1, 2], ..was.clone() }, now);
        assert_eq!(pushed.follow(&was, is.clone(), now), Some(true));
        assert_eq!((&*pushed.strategy().steps, pushed.is_paused()), (&[1, 2][..], true));
        assert_eq!(pushed.follow(&is, is.clone(), now), None);
        assert_eq!(pushed.follow(&is, was.clone(), now), Some(false));
        assert!(!pushed.is_paused());
        by_set.resume(now);
        assert_eq!(by_set.follow(&is, was, now), None, "an operator resumed it before");
    }
}
