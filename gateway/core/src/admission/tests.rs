use super::*;
use crate::gateway::tests::settings;

#[test]
fn retry_time_is_longer_while_rooms_are_stranded() {
    let mut admission = Admission::new(&settings(), Instant::now());
    let mut within = |is_busy, opens: u64, least: u64, most: u64| {
        let retry = admission.retry_after(is_busy, Duration::from_secs(opens));
        assert!((Duration::from_secs(least)..Duration::from_secs(most)).contains(&retry));
    };
    within(false, 0, 2, 4);
    within(true, 0, 5, 10);
    within(true, 20, 20, 40);
    within(false, 3_600, 60, 120);
}

#[test]
fn jitter_follows_the_seed() {
    let mut admission = Admission::new(&settings(), Instant::now());
    let mut drawn = |seed| {
        admission.seed(seed);
        admission.jittered(Duration::from_secs(1))
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn shutdown_finishes_once() {
    let mut admission = Admission::new(&settings(), Instant::now());
    assert!(admission.is_open() && !admission.finish());
    assert!(admission.shut_down() && !admission.shut_down() && !admission.is_open());
    assert!(admission.finish() && !admission.finish());
    assert!(admission.is_finished() && !admission.is_open());
}
