use super::*;

const SECOND_US: i64 = 1_000_000;
const TRIP: Duration = Duration::from_millis(40);

/// The rate after reports each second, of a sender that follows it up to 2,000 kbit/s, on a path of this capacity.
fn after_seconds(
    reports: &mut ReportEstimate,
    seconds: std::ops::Range<i64>,
    capacity_kbps: f64,
    random_loss: f64,
) -> f64 {
    for second in seconds {
        let at_us = second * SECOND_US;
        let sent_kbps = reports.kbps(at_us).unwrap_or(500.0).min(2_000.0);
        let carried = (capacity_kbps / sent_kbps).min(1.0);
        reports.read(1.0 - carried * (1.0 - random_loss), Some(TRIP), sent_kbps, at_us);
    }
    reports.rate.unwrap().kbps
}

#[test]
fn rate_follows_the_path_by_reports() {
    let mut reports = ReportEstimate::default();
    assert_eq!(reports.kbps(0), None);
    assert!(after_seconds(&mut reports, 0..10, 2_500.0, 0.0) > 2_000.0);
    let down = after_seconds(&mut reports, 10..11, 600.0, 0.0);
    assert!((400.0..600.0).contains(&down), "one report suffices: {down}");
    let stays = after_seconds(&mut reports, 11..40, 600.0, 0.0);
    assert!((480.0..800.0).contains(&stays), "{stays}");
    let up = after_seconds(&mut reports, 40..48, 2_500.0, 0.0);
    assert!(up > 0.85 * 2_000.0, "{up}");
}

#[test]
fn random_loss_lowers_no_rate() {
    for loss in [0.01, 0.05, 0.1] {
        let mut reports = ReportEstimate::default();
        assert!(after_seconds(&mut reports, 0..20, 1e6, loss) > 2_000.0, "{loss}");
    }
    let mut reports = ReportEstimate::default();
    let rate = after_seconds(&mut reports, 0..30, 1e6, 0.2);
    assert!(rate > 1_500.0, "it is lowered once: {rate}");
}

#[test]
fn loss_beside_a_longer_round_trip_is_congestion() {
    let kbps = |round_trip_ms: Option<u64>| {
        let mut reports = ReportEstimate::default();
        for second in 0..5 {
            reports.read(0.0, Some(TRIP), 1_000.0, second * SECOND_US);
        }
        let before = reports.kbps(5 * SECOND_US).unwrap();
        let round_trip = round_trip_ms.map(Duration::from_millis);
        reports.read(0.03, round_trip, 1_000.0, 5 * SECOND_US);
        assert_eq!(before, 1_500.0);
        reports.kbps(5 * SECOND_US).unwrap()
    };
    assert_eq!(kbps(Some(40)), 1_500.0);
    assert_eq!(kbps(Some(139)), 1_500.0);
    // 95 % of the 970 kbit/s that arrive.
    assert!((920.0..923.0).contains(&kbps(Some(141))));
}

#[test]
fn rate_holds_while_the_path_has_a_queue() {
    for (loss, round_trip) in [(0.0, Some(Duration::from_millis(200))), (0.03, None)] {
        let mut reports = ReportEstimate::default();
        reports.read(0.0, Some(TRIP), 1_000.0, 0);
        // Lowered, so that there is room below the bound.
        reports.read(0.5, Some(TRIP), 1_000.0, SECOND_US);
        let lowered = reports.kbps(SECOND_US);
        reports.read(0.0, Some(TRIP), 475.0, 2 * SECOND_US);
        assert_eq!(reports.kbps(2 * SECOND_US), lowered, "the effect is awaited");
        reports.read(loss, round_trip, 475.0, 3 * SECOND_US);
        assert_eq!(reports.kbps(3 * SECOND_US), lowered, "{loss}");
        reports.read(0.0, Some(TRIP), 475.0, 4 * SECOND_US);
        assert!(reports.kbps(4 * SECOND_US) > lowered);
    }
}

#[test]
fn estimate_ends_without_reports() {
    let mut reports = ReportEstimate::default();
    reports.read(0.0, None, 1_000.0, 0);
    assert_eq!(reports.kbps(15 * SECOND_US - 1), Some(1_500.0));
    assert_eq!(reports.kbps(15 * SECOND_US), None);
    reports.read(0.0, None, 100.0, 20 * SECOND_US);
    assert_eq!(reports.kbps(20 * SECOND_US), Some(150.0), "the former rates do not count");
}
