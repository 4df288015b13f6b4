//! Histogram of recovery times: the time without packets for a client after its node died.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Buckets per power of two: a relative error of one in 16.
const STEPS: u64 = 16;

/// Powers of two from 16 µs on. Times above ten minutes count in the last bucket.
const DOUBLINGS: u64 = 26;

/// Counts by time in microseconds. One thread writes; access is relaxed.
#[derive(Debug)]
pub struct Recoveries {
    counts: Box<[AtomicU64]>,
    longest_us: AtomicU64,
}

impl Default for Recoveries {
    fn default() -> Self {
        let counts = (0..STEPS * DOUBLINGS).map(|_| AtomicU64::new(0)).collect();
        Recoveries { counts, longest_us: AtomicU64::new(0) }
    }
}

impl Recoveries {
    pub fn add(&self, took: Duration) {
        let us = took.as_micros() as u64;
        let count = &self.counts[place(us)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        if us > self.longest_us.load(Relaxed) {
            self.longest_us.store(us, Relaxed);
        }
    }
}

/// The sum over several workers.
#[derive(Clone, Debug)]
pub struct Distribution {
    counts: Vec<u64>,
    longest: Duration,
}

impl Distribution {
    pub fn of<'a>(all: impl Iterator<Item = &'a Recoveries>) -> Distribution {
        let mut sum =
            Distribution { counts: vec![0; (STEPS * DOUBLINGS) as usize], longest: Duration::ZERO };
        for recoveries in all {
            for (sum, count) in sum.counts.iter_mut().zip(&recoveries.counts) {
                *sum += count.load(Relaxed);
            }
            let longest = Duration::from_micros(recoveries.longest_us.load(Relaxed));
            sum.longest = sum.longest.max(longest);
        }
        sum
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns `None` without samples.
    pub fn longest(&self) -> Option<Duration> {
        (self.count() > 0).then_some(self.longest)
    }

    /// Returns the quantile in thousandths, at most one in 16 too long. `None` without samples.
    pub fn within(&self, permille: u64) -> Option<Duration> {
        let rank = (self.count() * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(above(place as u64)).min(self.longest))
    }
}

/// Returns the bucket: linear up to [`STEPS`] microseconds, then [`STEPS`] buckets per power of two.
fn place(us: u64) -> usize {
    let doublings = (us / STEPS).checked_ilog2().map_or(0, |doublings| u64::from(doublings) + 1);
    let step = if doublings == 0 { us } else { (us >> (doublings - 1)) - STEPS };
    (doublings * STEPS + step).min(STEPS * DOUBLINGS - 1) as usize
}

/// Returns the exclusive upper bound of a bucket.
fn above(place: u64) -> u64 {
    let (doublings, step) = (place / STEPS, place % STEPS);
    if doublings == 0 { step + 1 } else { (STEPS + step + 1) << (doublings - 1) }
}

#[cfg(test)]
mod tests;
