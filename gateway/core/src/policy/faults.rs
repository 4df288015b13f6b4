//! Calls and faults of one revision within the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Faults are counted within this.
const WINDOW: Duration = Duration::from_secs(10);

/// More faults than this within [`WINDOW`] roll a revision back, however many calls there were.
const FAULTS_MAX: u64 = 5;

/// With many calls, one in this many may fault.
const FAULTS_SHARE: u64 = 1_000;

/// Calls are counted in buckets of this length, since a policy may be asked thousands of times within [`WINDOW`].
const BUCKET: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct FaultWindow {
    began: Instant,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    began: Instant,
    calls: u64,
    faults: u64,
}

impl FaultWindow {
    pub(super) fn new(now: Instant) -> FaultWindow {
        FaultWindow { began: now, buckets: VecDeque::new() }
    }

    /// Counts a call; true if it was one fault too many.
    pub(super) fn count(&mut self, now: Instant, faulted: bool) -> bool {
        let age = |from: Instant| now.saturating_duration_since(from);
        while self.buckets.front().is_some_and(|bucket| age(bucket.began) > WINDOW) {
            self.buckets.pop_front();
        }
        if self.buckets.back().is_none_or(|bucket| age(bucket.began) >= BUCKET) {
            self.buckets.push_back(Bucket { began: now, calls: 0, faults: 0 });
        }
        if let Some(bucket) = self.buckets.back_mut() {
            bucket.calls += 1;
            bucket.faults += u64::from(faulted);
        }
        faulted && self.too_many(now)
    }

    /// True if a rollback may lead to this revision: it never failed, or rarely and for long enough.
    pub(super) fn is_good(&self, now: Instant) -> bool {
        let long = now.saturating_duration_since(self.began) >= WINDOW;
        self.sum(now).1 == 0 || long && !self.too_many(now)
    }

    fn too_many(&self, now: Instant) -> bool {
        let (calls, faults) = self.sum(now);
        faults > FAULTS_MAX.max(calls / FAULTS_SHARE)
    }

    /// Calls and faults within the window.
    fn sum(&self, now: Instant) -> (u64, u64) {
        let recent =
            self.buckets.iter().filter(|it| now.saturating_duration_since(it.began) <= WINDOW);
        recent.fold((0, 0), |(calls, faults), it| (calls + it.calls, faults + it.faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_faults_in_ten_seconds_are_tolerated() {
        let now = Instant::now();
        let mut faults = FaultWindow::new(now);
        for _ in 0..5 {
            assert!(!faults.count(now, true));
        }
        assert!(faults.count(now, true));
        assert!(!faults.count(now, false), "a call without a fault rolls nothing back");
    }

    #[test]
    fn old_faults_are_forgotten() {
        let now = Instant::now();
        let mut faults = FaultWindow::new(now);
        for _ in 0..5 {
            faults.count(now, true);
        }
        assert!(!faults.count(now + WINDOW + Duration::from_millis(1), true));
    }

    #[test]
    fn one_fault_in_a_thousand_calls_is_tolerated() {
        let now = Instant::now();
        let mut faults = FaultWindow::new(now);
        for _ in 0..10_000 {
            faults.count(now, false);
        }
        let rolled = (1..=12).find(|_| faults.count(now, true));
        assert_eq!(rolled, Some(11));
    }

    #[test]
    fn calls_are_counted_by_the_second() {
        let now = Instant::now();
        let mut faults = FaultWindow::new(now);
        for call in 0..30_000 {
            faults.count(now + Duration::from_millis(call), false);
        }
        assert!(faults.buckets.len() <= 11, "{}", faults.buckets.len());
    }

    #[test]
    fn rare_faults_for_long_enough_are_good() {
        let now = Instant::now();
        let mut faults = FaultWindow::new(now);
        assert!(faults.is_good(now));
        faults.count(now, true);
        assert!(!faults.is_good(now + Duration::from_secs(9)));
        faults.count(now + Duration::from_secs(9), true);
        assert!(faults.is_good(now + Duration::from_secs(10)));
        for _ in 0..6 {
            faults.count(now + Duration::from_secs(10), true);
        }
        assert!(!faults.is_good(now + Duration::from_secs(15)));
    }
}
