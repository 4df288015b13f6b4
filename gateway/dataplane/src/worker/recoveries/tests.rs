use super::*;

#[test]
fn time_falls_into_its_bucket() {
    for us in (0..2_000).chain([20_000, 41_234, 1_000_000, 500_000_000]) {
        let place = place(us) as u64;
        let below = place.checked_sub(1).map_or(0, above);
        assert!((below..above(place)).contains(&us), "{us} at {place}: {below}..{}", above(place));
        assert!(above(place) - below <= 1 + us / STEPS, "{us}");
    }
    assert_eq!(place(u64::MAX), place(1 << 40));
}

#[test]
fn distribution_sums_workers() {
    let workers = [Recoveries::default(), Recoveries::default()];
    let none = Distribution::of(workers.iter());
    assert_eq!((none.count(), none.within(500), none.longest()), (0, None, None));
    for ms in 1..=99 {
        workers[ms as usize % 2].add(Duration::from_millis(ms));
    }
    workers[0].add(Duration::from_millis(700));
    let all = Distribution::of(workers.iter());
    let near = |permille, ms: f64| {
        let found = all.within(permille).unwrap().as_secs_f64() * 1_000.0;
        assert!((ms..=ms * 1.07).contains(&found), "{found} for {ms}");
    };
    near(500, 50.0);
    near(990, 99.0);
    assert_eq!((all.count(), all.longest()), (100, Some(Duration::from_millis(700))));
    assert_eq!(all.within(1_000), all.longest());
}
