use super::*;

/// Packets that are sent 20 ms apart, and arrive this much further apart.
fn after_groups(trend: &mut DelayTrend, groups: i64, growth_us: i64) -> PathUse {
    let (sent_us, arrived_us) =
        trend.filter.group.map_or((0, 70_000), |group| (group.sent_us, group.arrived_us));
    for group in 1..=groups {
        trend.note(sent_us + group * 20_000, arrived_us + group * (20_000 + growth_us));
    }
    trend.path_use()
}

#[test]
fn growing_and_draining_queues_are_found() {
    let mut trend = DelayTrend::default();
    assert_eq!(after_groups(&mut trend, 30, 0), PathUse::Normal);
    assert_eq!(trend.slope(), Some(0.0));
    assert_eq!(after_groups(&mut trend, 20, 4_000), PathUse::Over);
    assert!(trend.slope().unwrap() > 0.05);
    assert_eq!(after_groups(&mut trend, 40, -4_000), PathUse::Under);
    assert_eq!(after_groups(&mut trend, 60, 0), PathUse::Normal);
}

#[test]
fn trend_needs_eight_groups() {
    let mut trend = DelayTrend::default();
    after_groups(&mut trend, 9, 1_000);
    assert_eq!(trend.slope(), None);
    after_groups(&mut trend, 1, 1_000);
    assert!(trend.slope().unwrap() > 0.0);
    trend.restart();
    assert_eq!((trend.slope(), trend.path_use()), (None, PathUse::Normal));
}

#[test]
fn drift_of_clocks_is_no_overuse() {
    let mut trend = DelayTrend::default();
    // 200 parts per million.
    assert_eq!(after_groups(&mut trend, 3_000, 4), PathUse::Normal);
    assert_eq!(after_groups(&mut trend, 3_000, -4), PathUse::Normal);
}

#[test]
fn packets_of_a_burst_are_a_group() {
    let mut trend = DelayTrend::default();
    for burst in 0..30_i64 {
        // Ten packets at once, which the path carries one after the other.
        for packet in 0..10 {
            let sent_us = burst * 33_000 + packet * 100;
            assert_eq!(trend.note(sent_us, sent_us + packet * 2_000), PathUse::Normal);
        }
    }
    assert_eq!(trend.slope(), Some(0.0));
}

#[test]
fn packets_that_were_held_up_together_are_a_group() {
    let mut trend = DelayTrend::default();
    after_groups(&mut trend, 30, 0);
    let Some(PacketGroup { sent_us, arrived_us, .. }) = trend.filter.group else { panic!() };
    // A link stops for 80 ms, then delivers all at once.
    for packet in 1..=4 {
        assert_eq!(trend.note(sent_us + packet * 20_000, arrived_us + 80_000), PathUse::Normal);
    }
    assert_eq!(after_groups(&mut trend, 10, 0), PathUse::Normal);
}

#[test]
fn another_clock_begins_anew() {
    let mut trend = DelayTrend::default();
    after_groups(&mut trend, 30, 0);
    let Some(PacketGroup { sent_us, arrived_us, .. }) = trend.filter.group else { panic!() };
    for at_us in [arrived_us + 5_000_000, arrived_us - 5_000_000] {
        let mut trend = DelayTrend::default();
        after_groups(&mut trend, 30, 0);
        trend.note(sent_us + 20_000, at_us);
        trend.note(sent_us + 40_000, at_us + 20_000);
        assert_eq!(trend.slope(), None);
    }
}

#[test]
fn threshold_follows_slowly_rising_trends_only() {
    let mut trend = DelayTrend::default();
    after_groups(&mut trend, 100, 0);
    let quiet = trend.threshold_ms;
    assert!((THRESHOLD_MIN_MS..THRESHOLD_MS).contains(&quiet), "{quiet}");
    // A little above the threshold.
    for _ in 0..200 {
        trend.adapt_threshold(trend.threshold_ms + 10.0, trend.adapted_ms.unwrap() + 20.0);
    }
    let raised = trend.threshold_ms;
    assert!(raised > 2.0 * quiet, "{quiet} {raised}");
    trend.adapt_threshold(raised + 15.1, trend.adapted_ms.unwrap() + 20.0);
    assert_eq!(trend.threshold_ms, raised, "a sudden fault");
}
