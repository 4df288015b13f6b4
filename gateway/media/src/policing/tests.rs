use super::*;
use crate::tests::at;

const LIMIT: u32 = 1_000;

/// A rate that is updated every 100 ms.
struct Sender {
    rate: SenderRate,
    now: Instant,
}

impl Sender {
    fn new() -> Sender {
        let now = at(0);
        Sender { rate: SenderRate::new(LIMIT, now), now }
    }

    fn sends(&mut self, kbps: u32, ms: u64) -> RateExcess {
        self.sends_within(kbps, LIMIT, ms)
    }

    fn sends_within(&mut self, kbps: u32, limit_kbps: u32, ms: u64) -> RateExcess {
        for _ in 0..ms / 100 {
            self.now += Duration::from_millis(100);
            self.rate.update(kbps, limit_kbps, self.now);
        }
        self.rate.excess()
    }
}

#[test]
fn key_frame_is_no_excess() {
    let mut sender = Sender::new();
    for _ in 0..10 {
        assert_eq!(sender.sends(4_000, 100), RateExcess::None);
        assert_eq!(sender.sends(500, 1_900), RateExcess::None);
    }
}

#[test]
fn excess_lasts_after_two_seconds_above_the_tolerance() {
    let mut sender = Sender::new();
    assert_eq!(sender.sends(1_090, 30_000), RateExcess::Begun, "is told, and tolerated");
    assert_eq!(sender.sends(2_000, 2_000), RateExcess::Begun);
    assert_eq!(sender.sends(2_000, 300), RateExcess::Lasting);
    assert_eq!(sender.rate.sent_kbps(), 1_919);
}

#[test]
fn excess_ends_after_five_seconds_below_the_limit() {
    let mut sender = Sender::new();
    sender.sends(2_000, 5_000);
    assert_eq!(sender.sends(1_050, 10_000), RateExcess::Lasting, "within the tolerance");
    assert_eq!(sender.sends(900, 5_000), RateExcess::Lasting);
    assert!(!sender.rate.is_settled(sender.now));
    assert_eq!(sender.sends(900, 1_500), RateExcess::None);
    assert!(sender.rate.is_settled(sender.now));
}

#[test]
fn another_limit_leaves_time_to_follow() {
    let mut sender = Sender::new();
    assert_eq!(sender.sends(1_000, 5_000), RateExcess::None);
    assert_eq!(sender.sends_within(1_000, 500, 2_000), RateExcess::Begun);
    assert_eq!(sender.sends_within(1_000, 400, 1_900), RateExcess::Begun);
    assert_eq!(sender.sends_within(1_000, 400, 200), RateExcess::Lasting);
}

#[test]
fn budget_pays_its_debt_at_its_rate() {
    let start = at(0);
    let mut budget = RateBudget::new(800, start);
    budget.spend(10_000);
    assert_eq!(budget.debt(), Duration::from_millis(100));
    budget.refill(start + Duration::from_millis(60));
    assert_eq!(budget.debt(), Duration::from_millis(40));
    budget.set_rate(400);
    assert_eq!(budget.debt(), Duration::from_millis(80));
    // At most a quarter of a second is saved: 12.5 kB.
    budget.refill(start + Duration::from_secs(10));
    budget.spend(12_500);
    assert_eq!(budget.debt(), Duration::ZERO);
    budget.spend(50);
    assert_eq!(budget.debt(), Duration::from_millis(1));
}
