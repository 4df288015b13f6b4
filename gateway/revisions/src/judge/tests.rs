mod refusals;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const LOSSY: BadFigures = BadFigures(1 << Figure::Loss as u8);

/// Two cohorts drawn at random, with reports every 100 ms.
struct World {
    judge: Judge,
    now: Instant,
    arms: Vec<Arm>,
}

impl World {
    fn of(canary: usize, all: usize) -> World {
        World::drawn(canary, all, 7, |_| BadFigures::default())
    }

    /// `before` is the state of each room or session when it is enrolled.
    fn drawn(canary: usize, all: usize, seed: u64, before: impl Fn(Arm) -> BadFigures) -> World {
        let mut arms = vec![Arm::Standing; all];
        arms[..canary].fill(Arm::Canary);
        fastrand::Rng::with_seed(seed).shuffle(&mut arms);
        let now = Instant::now();
        let mut judge = Judge::new(Judging::default(), now);
        (0..).zip(&arms).for_each(|(unit, arm)| judge.enrol(unit, *arm, before(*arm)));
        World { judge, now, arms }
    }

    /// Reports on all units, with the state that `bad` gives. Returns the first breach.
    fn tell(&mut self, mut bad: impl FnMut(usize, Arm) -> BadFigures) -> Option<Breach> {
        self.now += ms(100);
        self.judge.turn(self.now);
        let mut found = None;
        for (unit, arm) in self.arms.iter().enumerate() {
            let bad = bad(unit, *arm);
            self.judge.enrol(unit as u64, *arm, bad);
            found = found.or(self.judge.note(unit as u64, bad));
        }
        found
    }
}

/// Loss in the canary only.
fn harmed(_: usize, arm: Arm) -> BadFigures {
    if arm == Arm::Canary { LOSSY } else { BadFigures::default() }
}

fn well(_: usize, _: Arm) -> BadFigures {
    BadFigures::default()
}

#[test]
fn loss_of_a_small_cohort_is_found_at_once() {
    let breach = World::of(10, 200).tell(harmed).unwrap();
    assert_eq!(breach.figure, Figure::Loss);
    assert!(breach.canary.worse >= 3 && breach.canary.of == 10, "{breach:?}");
    assert_eq!(breach.rest, BreachCount { of: 190, worse: 0 });
    assert!(breach.to_string().starts_with("loss: "), "{breach}");
}

#[test]
fn gradual_harm_is_found_within_two_seconds() {
    let mut world = World::of(10, 200);
    let canary = |arm: &&Arm| **arm == Arm::Canary;
    let before: Vec<usize> =
        (0..200).map(|unit| world.arms[..unit].iter().filter(canary).count()).collect();
    let found = (1..=20).find(|look| {
        let hit = |unit: usize, arm| arm == Arm::Canary && before[unit] * 2 < *look;
        world.tell(|unit, arm| if hit(unit, arm) { LOSSY } else { BadFigures::default() }).is_some()
    });
    assert!(found.is_some(), "no breach though ten fell in two seconds");
}

#[test]
fn equal_loss_of_both_cohorts_is_no_breach() {
    let mut world = World::of(50, 200);
    for _ in 0..100 {
        assert_eq!(world.tell(|_, _| LOSSY), None);
    }
    let mut world = World::of(50, 200);
    assert_eq!(
        world.tell(|unit, _| if unit % 4 == 0 { LOSSY } else { BadFigures::default() }),
        None
    );
}

#[test]
fn earlier_loss_counts_only_after_recovery() {
    let mut world = World::drawn(10, 200, 7, |arm| harmed(0, arm));
    for _ in 0..50 {
        assert_eq!(world.tell(harmed), None);
    }
    for _ in 0..60 {
        assert_eq!(world.tell(well), None);
    }
    assert!(world.tell(harmed).is_some());
}

#[test]
fn missed_objective_is_a_breach_if_it_burns_fast() {
    for (burn_ppm, says) in [(500_000, true), (500_001, false)] {
        let mut world = World::of(10, 200);
        world.judge.judge_by(Judging { burn_ppm, ..Judging::default() });
        let mut missed = 0;
        let breach = world.tell(|_, arm| {
            let misses = arm == Arm::Canary && missed < 5;
            missed += u32::from(misses);
            BadFigures::default().with(Figure::Slo, misses)
        });
        assert_eq!(breach.map(|it| it.figure), says.then_some(Figure::Slo), "{burn_ppm}");
    }
}

#[test]
fn cohort_below_minimum_is_not_judged() {
    for (cohort, says) in [(4, false), (5, true)] {
        assert_eq!(World::of(cohort, 400).tell(harmed).is_some(), says, "{cohort}");
    }
}

#[test]
fn departed_sessions_are_not_counted() {
    let mut world = World::of(10, 200);
    for (unit, _) in (0..).zip(&world.arms).filter(|(_, arm)| **arm == Arm::Canary) {
        world.judge.leave(unit);
    }
    assert_eq!(world.judge.cohort_size(), CohortSize { judged: 0, required: 5 });
    let lossy = world.judge.figures().find(|(figure, ..)| *figure == Figure::Loss).unwrap();
    assert_eq!((lossy.1, lossy.2.of), (BreachCount::default(), 190));
}

/// Bursts that hit a share of all units at once, and some long bad periods, both independent of the cohort.
fn noise(seed: u64) -> bool {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (canary, all) = (rng.usize(5..60), rng.usize(100..400));
    let mut world = World::drawn(canary, all, seed, |_| BadFigures::default());
    let mut badness = vec![0_u32; all];
    (0..300).any(|_| {
        let burst = if rng.u8(0..20) == 0 { rng.u32(0..600) } else { 2 };
        for left in &mut badness {
            let falls = rng.u32(0..1_000) < burst;
            *left = if falls { rng.u32(1..50) } else { left.saturating_sub(1) };
        }
        world
            .tell(|unit, _| if badness[unit] > 0 { LOSSY } else { BadFigures::default() })
            .is_some()
    })
}

#[test]
fn noise_is_rarely_a_breach() {
    let wrong = (0..300).filter(|seed| noise(*seed)).count();
    assert!(wrong <= 3, "{wrong} of 300");
}

/// Decisions of an arm: all, and those that broke a rule.
fn decided(
    conduct: &mut RuleBreaches,
    arm: Arm,
    [of, worse]: [u32; 2],
    now: Instant,
) -> Option<Breach> {
    let decided = BreachCount { of, worse };
    conduct.note(Figure::Guarded, arm, decided, &Judging::default(), now)
}

#[test]
fn third_broken_rule_of_a_tenth_is_a_breach() {
    let now = Instant::now();
    for (decisions, found) in [([2, 2], false), ([3, 3], true), ([30, 3], true), ([31, 3], false)] {
        for arm in Arm::ALL {
            let mut conduct = RuleBreaches::new(now);
            let breach = decided(&mut conduct, arm, decisions, now);
            assert_eq!(breach.is_some(), found, "{decisions:?} {arm:?}");
        }
    }
    let mut conduct = RuleBreaches::new(now);
    assert_eq!(decided(&mut conduct, Arm::Standing, [100, 40], now).map(|it| it.rest.of), Some(0));
    assert_eq!(
        decided(&mut conduct, Arm::Canary, [10, 8], now),
        None,
        "the rest breaks rules, too"
    );
    let mut conduct = RuleBreaches::new(now);
    assert_eq!(decided(&mut conduct, Arm::Standing, [100, 5], now), None);
    let breach = decided(&mut conduct, Arm::Canary, [10, 4], now).unwrap();
    assert_eq!(breach.to_string(), "guarded decisions: 4 of 10 broke a rule, of the rest 5 of 100");
}

#[test]
fn decisions_count_on_until_there_are_enough() {
    let now = Instant::now();
    let mut conduct = RuleBreaches::new(now);
    assert_eq!(decided(&mut conduct, Arm::Canary, [1, 1], now), None);
    assert_eq!(decided(&mut conduct, Arm::Standing, [500, 0], now), None);
    assert_eq!(decided(&mut conduct, Arm::Canary, [1, 1], now + 6 * ROUND), None);
    assert!(decided(&mut conduct, Arm::Canary, [1, 1], now + 12 * ROUND).is_some());
    let mut conduct = RuleBreaches::new(now);
    assert_eq!(decided(&mut conduct, Arm::Canary, [100, 9], now), None);
    assert_eq!(decided(&mut conduct, Arm::Canary, [19, 2], now + ROUND), None, "another round");
    assert!(decided(&mut conduct, Arm::Canary, [1, 1], now + ROUND).is_some());
}

#[test]
fn rooms_of_the_canary_on_one_node_are_a_breach() {
    let crowd = |world: &mut World, to: u32| {
        let found = world.arms.iter().zip(0..).filter_map(|(arm, unit)| {
            let on = if *arm == Arm::Canary { to } else { unit as u32 % 6 };
            world.judge.note_node(unit, NodeId(on))
        });
        found.map(|breach| (breach.figure, breach.canary.of)).next()
    };
    let mut world = World::of(50, 300);
    world.tell(well);
    let (figure, rooms) = crowd(&mut world, 3).unwrap();
    assert_eq!((figure, rooms < 50), (Figure::Spread, true), "before all are known");
    // Rooms are counted once, where they are.
    let mut world = World::of(7, 300);
    assert_eq!(crowd(&mut world, 3), None);
    assert_eq!(crowd(&mut world, 4), None);
    assert_eq!(crowd(&mut world, 3), None);
    world.judge.begin_round(world.now);
    assert_eq!(world.judge.note_node(0, NodeId(1)), None, "not enrolled in this round");
}

#[test]
fn placements_of_the_canary_on_one_node_are_a_breach() {
    let mut judge = Judge::new(Judging::default(), Instant::now());
    assert!((0..180).all(|room| judge.note_placement(Arm::Standing, NodeId(room % 6)).is_none()));
    let found = (1..).find(|_| judge.note_placement(Arm::Canary, NodeId(2)).is_some());
    assert_eq!(found, Some(8), "of the rest a sixth");
}
