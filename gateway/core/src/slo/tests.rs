use std::time::Duration;

use super::*;

fn shortest() -> u32 {
    WINDOWS[0].buckets
}

const SLO: ServiceObjective = ServiceObjective {
    objective: 0.99,
    refusals: true,
    set_up: None,
    gap: None,
    r_factor_centi: None,
};

#[test]
fn burn_rate_needs_ten_sessions() {
    let mut now = Instant::now();
    let mut table = SloTable::new(now);
    let call: Arc<str> = "call".into();
    let mut offers = |bad: u32, good: u32| {
        now += Duration::from_secs(1);
        for is_bad in (0..bad + good).map(|number| number < bad) {
            table.note_offer(&call, SloIndicator::Refusals, is_bad, now);
        }
        let number = table.number(now);
        WINDOWS.map(|it| table.window(&call, SloIndicator::Refusals, &SLO, it, number).burn_rate)
    };
    assert_eq!(offers(1, 8), [None; 3]);
    assert_eq!(offers(0, 1), [Some(10.0); 3], "1 of 10, where 1 % may be bad");
    assert_eq!(offers(10, 180), [Some(5.5); 3]);
}

#[test]
fn each_window_forgets_after_its_length() {
    let mut counts = SessionCounts::new(0);
    counts.note_offer(true, 0);
    for WindowLength { buckets: window, .. } in WINDOWS {
        assert_eq!(counts.within(window, window - 1), (1, 1));
        assert_eq!(counts.within(window, window), (0, 0));
        // The same with a newer bucket.
        counts.note_offer(false, window);
        assert_eq!(counts.within(window, window), (1, 0));
        counts = SessionCounts::new(0);
        counts.note_offer(true, 0);
    }
}

#[test]
fn bad_session_counts_once_per_window() {
    let (mut counts, mut mark) = (SessionCounts::new(7), SessionMark::default());
    counts.note(&mut mark, false, 7);
    assert_eq!(counts.within(shortest(), 7), (1, 0));
    for number in [7, 7, 9, 20] {
        counts.note(&mut mark, true, number);
        assert_eq!(counts.within(shortest(), number), (1, 1), "{number}");
    }
    // From its last miss on it is good again after a window, but not in a longer one.
    assert_eq!(counts.within(shortest(), 19 + shortest()), (1, 1));
    assert_eq!(counts.within(shortest(), 20 + shortest()), (1, 0));
    assert_eq!(counts.within(WINDOWS[1].buckets, 20 + shortest()), (1, 1));
}

#[test]
fn ended_session_counts_until_its_window_ends() {
    let (mut counts, mut mark) = (SessionCounts::new(0), SessionMark::default());
    counts.note(&mut mark, true, 0);
    counts.leave(10);
    assert_eq!(counts.within(shortest(), shortest() - 1), (1, 1));
    assert_eq!(counts.within(shortest(), shortest()), (1, 0), "the miss is older than the end");
    assert_eq!(counts.within(shortest(), 10 + shortest()), (0, 0));
}

#[test]
fn buckets_are_bounded_after_a_pause() {
    let (mut counts, mut mark) = (SessionCounts::new(0), SessionMark::default());
    counts.note(&mut mark, true, 0);
    let late = 10 * BUCKETS as u32;
    assert_eq!(counts.within(BUCKETS as u32, late), (1, 0));
    counts.note(&mut mark, true, late);
    assert_eq!(counts.buckets.len(), BUCKETS);
    assert_eq!(counts.within(BUCKETS as u32, late), (1, 1));
}
