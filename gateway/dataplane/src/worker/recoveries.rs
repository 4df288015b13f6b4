//! How long clients heard nothing when a node died: a distribution that its worker writes and others read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Steps within a doubling: a time is known to one part in 16.
const STEPS: u64 = 16;

/// Doublings from 16 µs on; what took longer than ten minutes counts as that.
const DOUBLINGS: u64 = 26;

/// A count of times by length, in microseconds. One writer, relaxed.
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

/// What several workers counted.
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

    /// None where there was none.
    pub fn longest(&self) -> Option<Duration> {
        (self.count() > 0).then_some(self.longest)
    }

    /// A time that so many thousandths took no longer than; none where there was none. At most one part in 16 too long.
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

/// Where a time is counted: linear up to [`STEPS`] microseconds, then in as many steps per doubling.
fn place(us: u64) -> usize {
    let doublings = (us / STEPS).checked_ilog2().map_or(0, |doublings| u64::from(doublings) + 1);
    let step = if doublings == 0 { us } else { (us >> (doublings - 1)) - STEPS };
    (doublings * STEPS + step).min(STEPS * DOUBLINGS - 1) as usize
}

/// What is counted there is shorter than this.
fn above(place: u64) -> u64 {
    let (doublings, step) = (place / STEPS, place % STEPS);
    if doublings == 0 { step + 1 } else { (STEPS + step + 1) << (doublings - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_where_it_belongs() {
        for us in (0..2_000).chain([20_000, 41_234, 1_000_000, 500_000_000]) {
            let place = place(us) as u64;
            let below = place.checked_sub(1).map_or(0, above);
            assert!(
                (below..above(place)).contains(&us),
                "{us} at {place}: {below}..{}",
                above(place)
            );
            assert!(above(place) - below <= 1 + us / STEPS, "{us}");
        }
        assert_eq!(place(u64::MAX), place(1 << 40));
    }

    #[test]
    fn workers_count_apart_and_are_read_together() {
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
}
