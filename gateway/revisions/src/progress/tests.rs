use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn strategy(steps: &[u8], shadow: u32) -> Strategy {
    let (each, shadow) = (10 * SECOND, shadow * SECOND);
    Strategy { steps: steps.into(), each, shadow, stays_in_shadow: false, held: false }
}

fn enough() -> CohortSize {
    CohortSize { judged: 5, required: 5 }
}

#[test]
fn rollout_goes_through_its_stages() {
    let start = Instant::now();
    let mut rollout = RolloutProgress::begin(strategy(&[1, 25, 100], 5), start);
    assert_eq!(rollout.stage(), RolloutStage::Shadow);
    let at = |seconds: u32| start + seconds * SECOND;
    assert_eq!((rollout.next_share(), rollout.left(at(2))), (1, Some(3 * SECOND)));
    assert_eq!(rollout.poll(enough, at(5) - Duration::from_millis(1)), None);
    assert_eq!(rollout.poll(enough, at(5)), Some(RolloutStep::Expose(1)));
    assert_eq!(rollout.poll(enough, at(15) - Duration::from_millis(1)), None);
    assert_eq!((rollout.next_share(), rollout.left(at(7))), (25, Some(8 * SECOND)));
    assert_eq!(rollout.poll(enough, at(15)), Some(RolloutStep::Expose(25)));
    assert_eq!(rollout.stage(), RolloutStage::Canary(25));
    assert_eq!(
        (rollout.next_share(), rollout.left(at(60))),
        (100, Some(Duration::ZERO)),
        "prolonged"
    );
    assert_eq!(rollout.poll(enough, at(25)), Some(RolloutStep::Activate));
}

#[test]
fn last_step_leads_to_activation() {
    let start = Instant::now();
    let mut rollout = RolloutProgress::begin(strategy(&[5], 0), start);
    assert_eq!((rollout.stage(), rollout.next_share()), (RolloutStage::Canary(5), 100));
    assert_eq!(rollout.poll(enough, start + 10 * SECOND), Some(RolloutStep::Activate));
    for (steps, shadow, at_once) in
        [(&[][..], 0, true), (&[100][..], 0, true), (&[5][..], 0, false), (&[][..], 1, false)]
    {
        assert_eq!(strategy(steps, shadow).is_at_once(), at_once, "{steps:?} {shadow}");
    }
}

#[test]
fn unjudged_step_is_prolonged_and_none_leads_to_half() {
    let (start, late) = (Instant::now(), 100_000 * SECOND);
    let few = || CohortSize { judged: 4, required: 5 };
    let mut rollout = RolloutProgress::begin(strategy(&[5, 49], 0), start);
    assert_eq!(rollout.poll(few, start + 29 * SECOND), None);
    assert_eq!(rollout.poll(few, start + 30 * SECOND), Some(RolloutStep::Expose(49)));
    assert_eq!(rollout.poll(few, start + late), None, "activation");
    assert_eq!(rollout.poll(enough, start + late), Some(RolloutStep::Activate));
    let mut rollout = RolloutProgress::begin(strategy(&[5, 50], 0), start);
    assert_eq!(rollout.poll(few, start + late), None);
    assert_eq!(rollout.poll(enough, start + late), Some(RolloutStep::Expose(50)));
}

#[test]
fn pause_by_operator_survives_hold_and_release() {
    let start = Instant::now();
    let free = strategy(&[5], 0);
    let held = Strategy { held: true, ..free.clone() };
    let mut rollout = RolloutProgress::begin(free.clone(), start);
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
    let mut rollout = RolloutProgress::begin(strategy(&[5, 50], 0), start);
    rollout.pause(at(4));
    assert_eq!((rollout.poll(enough, at(100)), rollout.left(at(100))), (None, None));
    rollout.resume(at(100));
    assert_eq!(rollout.poll(enough, at(106) - Duration::from_millis(1)), None, "4 s had passed");
    assert_eq!(rollout.poll(enough, at(106)), Some(RolloutStep::Expose(50)));
    rollout.pause(at(107));
    assert_eq!(rollout.advance(at(108)), RolloutStep::Activate);
    assert!(rollout.is_paused());
}

#[test]
fn changed_strategy_continues_from_the_share() {
    let start = Instant::now();
    let at = |seconds: u32| start + seconds * SECOND;
    let mut rollout = RolloutProgress::begin(strategy(&[1, 25, 50], 0), start);
    assert_eq!(rollout.advance(at(1)), RolloutStep::Expose(25));
    let held = Strategy { held: true, ..strategy(&[1, 5, 40], 0) };
    rollout.set_strategy(held.clone(), at(3));
    assert!(rollout.is_paused());
    rollout.set_strategy(held.clone(), at(50));
    assert_eq!((rollout.poll(enough, at(100)), rollout.lasted(at(100))), (None, 2 * SECOND));
    rollout.set_strategy(Strategy { held: false, ..held.clone() }, at(100));
    assert_eq!(rollout.poll(enough, at(108)), Some(RolloutStep::Expose(40)), "2 s had passed");
    rollout.set_strategy(strategy(&[], 0), at(109));
    assert_eq!(rollout.poll(enough, at(118)), Some(RolloutStep::Activate));
    assert!(RolloutProgress::begin(held, start).is_paused());
}

#[test]
fn shadow_only_rollout_waits_for_promotion() {
    let start = Instant::now();
    let mut rollout =
        RolloutProgress::begin(Strategy { stays_in_shadow: true, ..strategy(&[5], 0) }, start);
    assert_eq!(rollout.poll(enough, start + 10_000 * SECOND), None);
    assert_eq!((rollout.next_share(), rollout.left(start)), (5, None));
    assert_eq!(rollout.advance(start), RolloutStep::Expose(5));
}

#[test]
fn strategy_change_of_set_reaches_its_rollouts() {
    let now = Instant::now();
    let was = strategy(&[5, 50], 5);
    let is = Strategy { held: true, ..strategy(&[5, 20], 5) };
    let mut by_set = RolloutProgress::begin(was.clone(), now);
    assert_eq!(by_set.follow(&was, is.clone(), now), Some(true));
    assert_eq!((by_set.strategy(), by_set.is_paused()), (&is, true));
    let mut pushed = RolloutProgress::begin(Strategy { steps: vec![1, 2], ..was.clone() }, now);
    assert_eq!(pushed.follow(&was, is.clone(), now), Some(true));
    assert_eq!((&*pushed.strategy().steps, pushed.is_paused()), (&[1, 2][..], true));
    assert_eq!(pushed.follow(&is, is.clone(), now), None);
    assert_eq!(pushed.follow(&is, was.clone(), now), Some(false));
    assert!(!pushed.is_paused());
    by_set.resume(now);
    assert_eq!(by_set.follow(&is, was, now), None, "an operator resumed it before");
}
