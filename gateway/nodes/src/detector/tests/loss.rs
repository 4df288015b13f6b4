use fastrand::Rng;

use super::super::*;

const NEAR: Duration = Duration::from_millis(10);
const FAR: Duration = Duration::from_millis(50);

/// The measured loss after each probe during `seconds` on a path that loses `percent`.
fn shown(loss: &mut Loss, every: Duration, percent: u32, seconds: u32) -> Vec<u32> {
    let mut rng = Rng::with_seed(2);
    let probes = 0..Duration::from_secs(seconds.into()).as_millis() / every.as_millis();
    let shown = probes.map(|_| {
        match rng.u32(0..100) < percent {
            true => loss.missed(every),
            false => loss.answered(every),
        }
        loss.ppm() / 10_000
    });
    shown.collect()
}

#[test]
fn path_loss_is_learned_within_seconds() {
    for (every, between) in [(NEAR, 10..=20), (FAR, 6..=24)] {
        let mut loss = Loss::default();
        let rises = shown(&mut loss, every, 15, 20);
        let known = rises.iter().position(|percent| *percent >= 7).unwrap() as u32;
        assert!((1..=7).contains(&(every * known).as_secs()), "{every:?} {known}");
        let stays = shown(&mut loss, every, 15, 60);
        assert!(stays.iter().all(|percent| between.contains(percent)), "{every:?}");
        let heals = shown(&mut loss, every, 0, 15);
        assert_eq!(heals.last(), Some(&0), "{every:?}");
    }
}

/// Counts the times at which the path turned bad or good while it lost `percent`, with its state at the end.
fn turns(loss: &mut Loss, every: Duration, percent: u32, seconds: u32) -> (usize, bool) {
    let mut rng = Rng::with_seed(3);
    let probes = 0..Duration::from_secs(seconds.into()).as_millis() / every.as_millis();
    let turns = probes.filter(|_| {
        let was = loss.is_much();
        match rng.u32(0..100) < percent {
            true => loss.missed(every),
            false => loss.answered(every),
        }
        loss.is_much() != was
    });
    (turns.count(), loss.is_much())
}

#[test]
fn hovering_loss_enters_and_stays() {
    let mut loss = Loss::default();
    // Loss of both directions together.
    assert_eq!(turns(&mut loss, NEAR, 10, 600), (1, true));
    assert_eq!(turns(&mut loss, NEAR, 9, 600), (0, true), "not good enough to come back");
    assert_eq!(turns(&mut Loss::default(), NEAR, 6, 600), (0, false), "nor bad enough to go");
    assert_eq!(turns(&mut loss, NEAR, 4, 600), (1, false), "it is good again, for good");
}

#[test]
fn high_loss_has_two_thresholds() {
    let at = |is_much, ppm: u32| {
        let mut loss = Loss { share: 0.0, is_much };
        loss.shows((f64::from(ppm) + 0.5) / 1e6);
        loss.is_much()
    };
    assert_eq!([at(false, MUCH_PPM - 1), at(false, MUCH_PPM)], [false, true]);
    assert_eq!([at(true, STILL_MUCH_PPM), at(true, STILL_MUCH_PPM - 1)], [true, false]);
}

#[test]
fn one_lost_or_late_probe_weighs_little() {
    let mut loss = Loss::default();
    loss.missed(NEAR);
    assert_eq!(loss.ppm(), 2_000);
    loss.came_late(NEAR);
    assert_eq!(loss.ppm(), 0);
}
