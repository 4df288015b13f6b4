//! The walk of a revision into force: shadow, then a canary that grows, then all of it. Time and what is heard go in,
//! what is to be done comes out; whoever walks it does that.

use std::time::{Duration, Instant};

/// A cohort that is too small to tell is waited for so many times the pace, and then the walk goes on.
const WAITS_MAX: u32 = 3;

/// How a revision is to come into force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Shares of the canary, per cent, each larger than the one before; at 100, and behind the last, it is in force.
    pub steps: Vec<u8>,
    /// How long each step lasts at least.
    pub each: Duration,
    /// How long it is asked along before, and nothing of what it says is done. Zero: not at all.
    pub shadow: Duration,
    /// Whether it stays in shadow until somebody promotes it.
    pub stays_in_shadow: bool,
    /// Whether it stays where it is, as one that is paused does.
    pub held: bool,
}

impl Pace {
    /// Whether it comes into force without a walk.
    pub fn is_at_once(&self) -> bool {
        let steps = self.steps.first().is_none_or(|first| *first >= 100);
        steps && self.shadow.is_zero() && !self.stays_in_shadow
    }
}

/// How far a revision has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is asked along, and nothing of what it says is done.
    Shadow,
    /// It decides for this share, per cent.
    Canary(u8),
}

impl Stage {
    /// The word in the API and in records: `canary`.
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

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It decides for this share from now on, per cent.
    Expose(u8),
    /// It is in force from now on.
    Activate,
}

/// What is heard of the canary.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Heard {
    /// Rooms or sessions that belong to it.
    pub there: u32,
    /// Those of them that were measured since the step began.
    pub measured: u32,
    /// Fewer than this say nothing.
    pub least: u32,
}

/// A revision on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    pace: Pace,
    stage: Stage,
    /// The next of the steps.
    next: usize,
    /// Since when it is at this stage.
    since: Instant,
    /// That it is paused, and how long it was at this stage by then.
    paused: Option<Duration>,
    /// Whether somebody paused it: then it does not go on because its pace holds it no more.
    by_hand: bool,
}

impl Walk {
    /// It begins now, in shadow or with its first share.
    pub fn begin(pace: Pace, now: Instant) -> Walk {
        let shadowed = !pace.shadow.is_zero() || pace.stays_in_shadow;
        let paused = pace.held.then_some(Duration::ZERO);
        let stage = Stage::Shadow;
        let mut walk = Walk { pace, stage, next: 0, since: now, paused, by_hand: false };
        if !shadowed {
            walk.step(now);
        }
        walk
    }

    /// It goes on like this, from the share that it has.
    pub fn repace(&mut self, pace: Pace, now: Instant) {
        match (self.pace.held, pace.held) {
            (false, true) => self.paused = Some(self.lasted(now)),
            (true, false) if !self.by_hand => self.resume(now),
            (false, false) | (true, _) => {}
        }
        let share = self.stage.percent();
        self.next = pace.steps.iter().filter(|percent| **percent <= share).count();
        self.pace = pace;
    }

    /// Where it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How it goes.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// How long it has been there, pauses left out.
    pub fn lasted(&self, now: Instant) -> Duration {
        self.paused.unwrap_or_else(|| now.saturating_duration_since(self.since))
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// The share that it has next, per cent; at 100 it is in force.
    pub fn next_share(&self) -> u8 {
        self.pace.steps.get(self.next).copied().unwrap_or(100).min(100)
    }

    /// How long it stays where it is at least; none: until somebody promotes or resumes it.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let lasts = match self.stage {
            Stage::Shadow if self.pace.stays_in_shadow => return None,
            Stage::Shadow => self.pace.shadow,
            Stage::Canary(_) => self.pace.each,
        };
        (!self.is_paused()).then(|| lasts.saturating_sub(self.lasted(now)))
    }

    /// What its time has come for, given what is heard of it.
    pub fn poll(&mut self, heard: impl FnOnce() -> Heard, now: Instant) -> Option<Turn> {
        if self.is_paused() {
            return None;
        }
        let lasted = self.lasted(now);
        let is_due = match self.stage {
            Stage::Shadow => !self.pace.stays_in_shadow && lasted >= self.pace.shadow,
            Stage::Canary(_) if lasted < self.pace.each => false,
            Stage::Canary(_) => {
                let Heard { there, measured, least } = heard();
                there == 0 || measured >= least || lasted >= self.pace.each * WAITS_MAX
            }
        };
        is_due.then(|| self.step(now))
    }

    /// Somebody wants the next step now.
    pub fn promote(&mut self, now: Instant) -> Turn {
        self.step(now)
    }

    /// It stays where it is until it is resumed.
    pub fn pause(&mut self, now: Instant) {
        self.paused = Some(self.lasted(now));
        self.by_hand = true;
    }

    /// It goes on; the time before the pause counts.
    pub fn resume(&mut self, now: Instant) {
        self.by_hand = false;
        if let Some(lasted) = self.paused.take() {
            self.since = now.checked_sub(lasted).unwrap_or(now);
        }
    }

    fn step(&mut self, now: Instant) -> Turn {
        let share = self.next_share();
        (self.since, self.paused) = (now, self.paused.map(|_| Duration::ZERO));
        if share == 100 {
            return Turn::Activate;
        }
        self.next += 1;
        self.stage = Stage::Canary(share);
        Turn::Expose(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(steps: &[u8], shadow: u32) -> Pace {
        let (each, shadow) = (10 * SECOND, shadow * SECOND);
        Pace { steps: steps.into(), each, shadow, stays_in_shadow: false, held: false }
    }

    fn enough() -> Heard {
        Heard { there: 10, measured: 5, least: 5 }
    }

    #[test]
    fn it_goes_from_shadow_by_its_steps_into_force() {
        let start = Instant::now();
        let mut walk = Walk::begin(pace(&[1, 25, 100], 5), start);
        assert_eq!(walk.stage(), Stage::Shadow);
        let at = |seconds: u32| start + seconds * SECOND;
        assert_eq!((walk.next_share(), walk.left(at(2))), (1, Some(3 * SECOND)));
        assert_eq!(walk.poll(enough, at(5) - Duration::from_millis(1)), None);
        assert_eq!(walk.poll(enough, at(5)), Some(Turn::Expose(1)));
        assert_eq!(walk.poll(enough, at(15) - Duration::from_millis(1)), None);
        assert_eq!((walk.next_share(), walk.left(at(7))), (25, Some(8 * SECOND)));
        assert_eq!(walk.poll(enough, at(15)), Some(Turn::Expose(25)));
        assert_eq!(walk.stage(), Stage::Canary(25));
        assert_eq!(
            (walk.next_share(), walk.left(at(60))),
            (100, Some(Duration::ZERO)),
            "waited for"
        );
        assert_eq!(walk.poll(enough, at(25)), Some(Turn::Activate));
    }

    #[test]
    fn behind_the_last_step_it_is_in_force_and_without_one_at_once() {
        let start = Instant::now();
        let mut walk = Walk::begin(pace(&[5], 0), start);
        assert_eq!((walk.stage(), walk.next_share()), (Stage::Canary(5), 100));
        assert_eq!(walk.poll(enough, start + 10 * SECOND), Some(Turn::Activate));
        for (steps, shadow, at_once) in
            [(&[][..], 0, true), (&[100][..], 0, true), (&[5][..], 0, false), (&[][..], 1, false)]
        {
            assert_eq!(pace(steps, shadow).is_at_once(), at_once, "{steps:?} {shadow}");
        }
    }

    #[test]
    fn who_is_not_heard_is_waited_for_and_who_is_not_there_is_not() {
        let start = Instant::now();
        let few = || Heard { there: 10, measured: 4, least: 5 };
        let nobody = || Heard { there: 0, measured: 0, least: 5 };
        let mut walk = Walk::begin(pace(&[5], 0), start);
        assert_eq!(walk.poll(few, start + 29 * SECOND), None);
        assert_eq!(walk.clone().poll(few, start + 30 * SECOND), Some(Turn::Activate));
        assert_eq!(walk.poll(nobody, start + 10 * SECOND), Some(Turn::Activate));
    }

    #[test]
    fn what_somebody_paused_does_not_go_on_because_nothing_holds_it_any_more() {
        let start = Instant::now();
        let free = pace(&[5], 0);
        let held = Pace { held: true, ..free.clone() };
        let mut walk = Walk::begin(free.clone(), start);
        walk.pause(start);
        walk.repace(held.clone(), start);
        walk.repace(free.clone(), start);
        assert!(walk.is_paused());
        walk.resume(start);
        assert!(!walk.is_paused());
        walk.repace(held, start);
        walk.repace(free, start);
        assert!(!walk.is_paused(), "nobody paused it since");
    }

    #[test]
    fn paused_it_stays_until_it_is_promoted_or_resumed() {
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut walk = Walk::begin(pace(&[5, 50], 0), start);
        walk.pause(at(4));
        assert_eq!((walk.poll(enough, at(100)), walk.left(at(100))), (None, None));
        walk.resume(at(100));
        assert_eq!(walk.poll(enough, at(106) - Duration::from_millis(1)), None, "four were over");
        assert_eq!(walk.poll(enough, at(106)), Some(Turn::Expose(50)));
        walk.pause(at(107));
        assert_eq!(walk.promote(at(108)), Turn::Activate);
        assert!(walk.is_paused());
    }

    #[test]
    fn with_another_pace_it_goes_on_from_its_share_and_held_it_stays() {
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut walk = Walk::begin(pace(&[1, 25, 50], 0), start);
        assert_eq!(walk.promote(at(1)), Turn::Expose(25));
        let held = Pace { held: true, ..pace(&[1, 5, 40], 0) };
        walk.repace(held.clone(), at(3));
        assert!(walk.is_paused());
        walk.repace(held.clone(), at(50));
        assert_eq!((walk.poll(enough, at(100)), walk.lasted(at(100))), (None, 2 * SECOND));
        walk.repace(Pace { held: false, ..held.clone() }, at(100));
        assert_eq!(walk.poll(enough, at(108)), Some(Turn::Expose(40)), "two seconds were over");
        walk.repace(pace(&[], 0), at(109));
        assert_eq!(walk.poll(enough, at(118)), Some(Turn::Activate));
        assert!(Walk::begin(held, start).is_paused());
    }

    #[test]
    fn what_is_to_stay_in_shadow_stays_there_until_it_is_promoted() {
        let start = Instant::now();
        let mut walk = Walk::begin(Pace { stays_in_shadow: true, ..pace(&[5], 0) }, start);
        assert_eq!(walk.poll(enough, start + 10_000 * SECOND), None);
        assert_eq!((walk.next_share(), walk.left(start)), (5, None));
        assert_eq!(walk.promote(start), Turn::Expose(5));
    }
}
