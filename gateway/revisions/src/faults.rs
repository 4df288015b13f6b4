//! Calls and faults of one revision within the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Window in which calls and faults are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// More faults than this within [`WINDOW`] roll a revision back, unless it had so many calls that [`FAULTS_SHARE`]
/// permits more.
const FAULTS_MAX: u64 = 5;

/// One call in this many may fault.
const FAULTS_SHARE: u64 = 1_000;

/// Calls are counted in buckets of this length, since a policy may be asked thousands of times within [`WINDOW`].
const BUCKET: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct FaultWindow {
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
    pub(crate) fn new(now: Instant) -> FaultWindow {
        FaultWindow { began: now, buckets: VecDeque::new() }
    }

    /// Counts a call. Returns true if it is a fault that exceeds the limit.
    pub(crate) fn count(&mut self, now: Instant, faulted: bool) -> bool {
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

    /// True if a rollback may restore this revision: it has no recent fault, or ran for a whole window with few faults.
    pub(crate) fn is_good(&self, now: Instant) -> bool {
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
mod tests;
