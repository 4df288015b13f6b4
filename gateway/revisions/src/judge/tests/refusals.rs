use std::time::Duration;

use super::super::*;

/// Newcomers, 10 ms apart. The arm of each is random.
struct World {
    refusals: RefusalEvidence,
    percent: u8,
    rng: fastrand::Rng,
    judging: Judging,
    now: Instant,
}

impl World {
    fn of(percent: u8, seed: u64) -> World {
        let now = Instant::now();
        let (refusals, rng) = (RefusalEvidence::new(now), fastrand::Rng::with_seed(seed));
        World { refusals, percent, rng, judging: Judging::default(), now }
    }

    fn comes(&mut self, arm: Arm, turned_away: bool) -> Option<Breach> {
        self.now += Duration::from_millis(10);
        let newcomer = AdmissionSample { arm, turned_away };
        self.refusals.note(newcomer, self.percent, &self.judging, self.now)
    }

    /// Sends newcomers up to the first breach.
    fn come(&mut self, newcomers: u32, mut turns_away: impl FnMut(Arm) -> bool) -> Option<Breach> {
        (0..newcomers).find_map(|_| {
            let canary = self.rng.u8(0..100) < self.percent;
            let arm = if canary { Arm::Canary } else { Arm::Standing };
            self.comes(arm, turns_away(arm))
        })
    }
}

fn only_the_canary(arm: Arm) -> bool {
    arm == Arm::Canary
}

#[test]
fn refusal_of_all_is_found_at_any_share() {
    for percent in [1, 5, 25, 50] {
        for seed in 0..20 {
            let breach = World::of(percent, seed).come(20_000, only_the_canary).unwrap();
            assert!(breach.canary.of <= 40, "{breach} at {percent} %");
            assert_eq!((breach.figure, breach.rest.worse), (Figure::Refusals, 0));
            assert_eq!(breach.canary.worse, breach.canary.of);
        }
    }
}

#[test]
fn refusals_below_cohort_minimum_are_ignored() {
    let mut world = World::of(1, 7);
    world.judging.cohort_min = 7;
    let mut one_of_the_canary = || {
        assert!((0..80).all(|_| world.comes(Arm::Standing, false).is_none()));
        world.comes(Arm::Canary, true)
    };
    // Without the minimum, five would be proof.
    assert!((0..6).all(|_| one_of_the_canary().is_none()));
    let breach = one_of_the_canary().unwrap();
    assert_eq!(breach.to_string(), "refusals: 7 of 7 turned away, of the rest 0 of 560");
    let (canary, rest) = (BreachCount { of: 7, worse: 7 }, BreachCount { of: 560, worse: 0 });
    assert_eq!(world.refusals.figure(), Some((Figure::Refusals, canary, rest)));
    assert_eq!(World::of(1, 7).refusals.figure(), None);
}

/// Refusals at random in both arms; now and then all newcomers are refused for a while.
fn noise(seed: u64) -> bool {
    let mut rng = fastrand::Rng::with_seed(!seed);
    let mut world = World::of(rng.u8(1..=60), seed);
    let part = rng.u32(200..900);
    let mut full = 0_u32;
    let found = world.come(3_000, |_| {
        full = if rng.u32(0..500) == 0 { 100 } else { full.saturating_sub(1) };
        full > 0 || rng.u32(0..1_000) < part
    });
    found.is_some()
}

#[test]
fn equal_refusals_are_rarely_a_breach() {
    let wrong = (0..300).filter(|seed| noise(*seed)).count();
    assert!(wrong <= 1, "{wrong} of 300");
}

#[test]
fn slightly_stricter_candidate_is_tolerated() {
    for (each, found) in [(6, false), (4, true)] {
        let mut newcomers = 0_u32;
        let breach = World::of(50, 7).come(5_000, |arm| {
            newcomers += u32::from(arm == Arm::Canary);
            arm == Arm::Canary && newcomers.is_multiple_of(each)
        });
        assert_eq!(breach.is_some(), found, "every {each}th: {breach:?}");
    }
}

#[test]
fn refusals_without_a_rest_are_no_breach() {
    for percent in [50, 100] {
        let mut world = World::of(percent, 7);
        assert!((0..2_000).all(|_| world.comes(Arm::Canary, true).is_none()), "{percent} %");
    }
}

/// At first all newcomers are admitted; then the candidate refuses all, and the active revision does not answer.
#[test]
fn refusals_after_active_fails_are_no_breach() {
    for seed in 0..100 {
        for percent in [1, 5, 25] {
            let mut world = World::of(percent, seed);
            assert_eq!(world.come(1_000, |_| false), None);
            let found = (0..500).find_map(|_| world.comes(Arm::Canary, true));
            assert_eq!(found, None, "seed {seed}, {percent} %");
        }
    }
}

#[test]
fn refusals_of_earlier_rounds_do_not_count() {
    let mut world = World::of(50, 7);
    assert_eq!(world.come(2_000, |_| true), None);
    assert_eq!(world.come(200, |_| false), None);
    world.now += ROUND;
    assert!(world.come(150, only_the_canary).is_some());
}

#[test]
fn round_waits_for_enough_newcomers() {
    let mut world = World::of(25, 7);
    let found = (0..20).any(|_| {
        world.now += Duration::from_secs(3);
        (0..3).for_each(|_| _ = world.comes(Arm::Standing, false));
        world.comes(Arm::Canary, true).is_some()
    });
    assert!(found, "all 20 of the canary were turned away");
}
