use super::super::*;

impl Gauge {
    pub(crate) fn claimed(&self) -> u64 {
        self.claimed
    }
}

const MS: Duration = Duration::from_millis(1);

/// Reports this load every 10 ms for a while.
fn says(gauge: &mut Gauge, permille: u16, ours: u64, start: Instant) {
    for ms in (0..8_000).step_by(10) {
        gauge.handle_load(permille, ours, start + MS * ms);
    }
}

#[test]
fn reported_load_corrects_estimate_smoothly() {
    let start = Instant::now();
    let mut gauge = Gauge::new(1_000);
    gauge.handle_load(900, 200, start);
    gauge.handle_load(900, 200, start + 10 * MS);
    assert!(gauge.kbps() > 980, "one word is no fact: {}", gauge.kbps());
    says(&mut gauge, 900, 200, start);
    assert!((300..320).contains(&gauge.kbps()), "{}: 200 of ours, 100 free", gauge.kbps());
    says(&mut gauge, 200, 200, start + 8_000 * MS);
    assert!(gauge.kbps() > 950, "{}", gauge.kbps());
}

#[test]
fn false_load_report_is_bounded() {
    let start = Instant::now();
    let mut gauge = Gauge::new(1_000);
    says(&mut gauge, 0, 900, start);
    assert_eq!(gauge.kbps(), 1_000);
    says(&mut gauge, 60_000, 0, start);
    assert!((100..130).contains(&gauge.kbps()), "{}", gauge.kbps());
}

#[test]
fn measured_capacity_overrides_config() {
    let start = Instant::now();
    let mut gauge = Gauge::new(1_600);
    gauge.claim(2_000);
    assert_eq!(gauge.kbps(), 2_000, "nobody said less");
    gauge.handle_full(400, start);
    for (claimed, takes) in [(1_600, 400), (8_000, 800), (300, 300)] {
        gauge.claim(claimed);
        assert_eq!(gauge.kbps(), takes, "{claimed}: a tenth at least");
    }
    gauge.claim(2_000);
    gauge.handle_full(400, start);
    gauge.claim(1_600);
    says(&mut gauge, 0, 400, start - 4_000 * MS);
    assert_eq!(gauge.kbps(), 400, "it refused, and is believed in that still");
}

#[test]
fn refusal_outweighs_reports_and_expires() {
    let start = Instant::now();
    let mut gauge = Gauge::new(1_600);
    gauge.handle_full(400, start);
    assert_eq!(gauge.kbps(), 400);
    says(&mut gauge, 0, 400, start - 4_000 * MS);
    assert_eq!(gauge.kbps(), 400, "it says that it is empty, and refuses");
    gauge.recover(start + 4_999 * MS);
    assert_eq!(gauge.kbps(), 400);
    for half in 0..20 {
        gauge.recover(start + 10_000 * MS + half * 500 * MS);
    }
    assert_eq!(gauge.kbps(), 1_600);
}
