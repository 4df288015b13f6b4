use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn lateness_covers_current_and_last_pass() {
    let base = Instant::now();
    let stats = WorkerStats::new(base, 0);
    let late = |ms| stats.take_lateness(base + MS * ms);
    assert_eq!(late(1), Duration::ZERO);
    stats.pass_begins(base + MS * 2);
    assert_eq!([late(4), late(40)], [MS * 2, MS * 38]);
    stats.pass_ends(base + MS * 41);
    assert_eq!([late(42), late(44)], [MS * 39, Duration::ZERO], "reported once");
}

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

/// Returns the shares within this number of half-millisecond steps, with their steps.
fn shares(
    sweep: &mut Sweep,
    places: usize,
    start: Instant,
    steps: u32,
) -> Vec<(u32, Range<usize>)> {
    let at = |step| start + Duration::from_micros(500) * step;
    (1..=steps).filter_map(|step| Some((step, sweep.take(places, at(step))?))).collect()
}

#[test]
fn few_sessions_are_summarised_every_100_ms() {
    let start = Instant::now();
    for places in [0, 1, SHARE] {
        let taken = shares(&mut Sweep::new(start), places, start, 600);
        assert_eq!(taken, [200, 400, 600].map(|step| (step, 0..places)));
    }
}

#[test]
fn many_sessions_are_summarised_in_shares() {
    let start = Instant::now();
    let (places, mut sweep) = (30_000, Sweep::new(start));
    let round = every(places);
    assert_eq!(round, Duration::from_millis(1_500), "20,000 a second");
    for number in 0..3 {
        let taken = shares(&mut sweep, places, start + round * number, 3_000);
        assert!(taken.iter().all(|(_, share)| share.len() <= SHARE));
        let covered: Vec<_> = taken.into_iter().flat_map(|(_, share)| share).collect();
        assert_eq!(covered, (0..places).collect::<Vec<_>>());
    }
    assert_eq!(every(2_000), EVERY);
}

#[test]
fn late_sweep_skips_missed_rounds() {
    let start = Instant::now();
    let mut sweep = Sweep::new(start);
    let late = start + EVERY * 50;
    assert_eq!(sweep.take(10, late), Some(0..10));
    assert_eq!(sweep.take(10, late), None);
    assert_eq!(sweep.due(10), late + EVERY);
}

#[test]
fn session_count_may_change_within_a_round() {
    let start = Instant::now();
    let mut sweep = Sweep::new(start);
    assert_eq!(sweep.take(1_000, start + EVERY / 4), Some(0..SHARE));
    assert_eq!(sweep.take(2_000, start + EVERY), Some(SHARE..2 * SHARE));
    assert!(sweep.due(2_000) < start + EVERY);
}
