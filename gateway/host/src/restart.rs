//! Backoff of failed restarts.

use std::time::Duration;

/// Failed restarts in a row after which the revision is given up. One failure may be a momentary lack of memory; three
/// with growing pauses are not.
const FAILED_MAX: u32 = 3;

/// Pause after the first failed restart.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Maximum pause, so that a policy recovers within this time after the cause is gone.
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// Restarts of one revision. Time is gateway time in microseconds.
pub(crate) struct Restarts {
    failed: u32,
    again_us: u64,
    /// Random source for jitter. Policies with one seed pause alike; those with different seeds do not restart all at
    /// once.
    rng: fastrand::Rng,
}

impl Restarts {
    pub(crate) fn new(seed: u64) -> Restarts {
        Restarts { failed: 0, again_us: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    pub(crate) fn is_due(&self, now_us: u64) -> bool {
        self.failed == 0 || now_us >= self.again_us
    }

    /// Notes a failed restart and returns the pause. Each pause is twice the previous one, shortened at random by up to
    /// a quarter.
    pub(crate) fn note_failed(&mut self, now_us: u64) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(1 << self.failed.min(16)).min(PAUSE_LONGEST);
        let sooner = self.rng.u64(0..=doubled.as_micros() as u64 / 4);
        let pause = doubled - Duration::from_micros(sooner);
        self.failed = self.failed.saturating_add(1);
        self.again_us = now_us.saturating_add(pause.as_micros() as u64);
        pause
    }

    pub(crate) fn note_started(&mut self) {
        self.failed = 0;
    }

    /// Ends the pause, since a change may have removed the cause.
    pub(crate) fn hurry(&mut self) {
        self.again_us = 0;
    }

    pub(crate) fn is_hopeless(&self) -> bool {
        self.failed >= FAILED_MAX
    }
}

#[cfg(test)]
mod tests;
