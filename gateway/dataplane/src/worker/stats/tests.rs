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
