//! When a plugin that could not be started is tried again.

use std::time::Duration;

/// So many restarts that fail in a row say that the revision will never start: one may have met a moment without memory,
/// three that are apart by longer and longer pauses have not.
const FAILED_MAX: u32 = 3;

/// Between a restart that failed and the next.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// No pause is longer, and a policy whose trouble is over answers again within it.
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// Restarts of one revision. Time is gateway time in microseconds.
pub(crate) struct Restarts {
    /// In a row.
    failed: u32,
    again_us: u64,
    /// Policies of one seed fail alike; those of different seeds do not start all at once.
    rng: fastrand::Rng,
}

impl Restarts {
    pub(crate) fn new(seed: u64) -> Restarts {
        Restarts { failed: 0, again_us: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    /// Whether it may be tried.
    pub(crate) fn is_due(&self, now_us: u64) -> bool {
        self.failed == 0 || now_us >= self.again_us
    }

    /// It was tried in vain; how long it is left alone now. Each pause is twice the one before, or up to a quarter less.
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

    /// Something changed that may help: it may be tried at once.
    pub(crate) fn hurry(&mut self) {
        self.again_us = 0;
    }

    /// Whether nothing is left to hope for.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.failed >= FAILED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_100_ms_to_30_s_and_are_not_alike() {
        let mut restarts = Restarts::new(7);
        assert!(restarts.is_due(0), "the first restart waits for nothing");
        let pauses: Vec<Duration> = (0..12).map(|_| restarts.note_failed(0)).collect();
        for (tries, pause) in pauses.iter().enumerate() {
            let most = Duration::from_millis(100 << tries).min(Duration::from_secs(30));
            assert!(*pause <= most && *pause >= most * 3 / 4, "{pause:?} of {most:?}");
        }
        let mut other = Restarts::new(8);
        let others: Vec<Duration> = (0..12).map(|_| other.note_failed(0)).collect();
        assert_ne!(pauses, others, "who fails together does not come back together");
    }

    #[test]
    fn it_is_left_alone_until_its_pause_is_over() {
        let mut restarts = Restarts::new(7);
        let pause = restarts.note_failed(1_000).as_micros() as u64;
        assert!(!restarts.is_due(1_000 + pause - 1));
        assert!(restarts.is_due(1_000 + pause));
        restarts.note_failed(1_000 + pause);
        assert!(!restarts.is_due(1_000 + pause));
        restarts.hurry();
        assert!(restarts.is_due(1_000 + pause));
    }

    #[test]
    fn three_in_a_row_are_hopeless_and_two_are_not() {
        let mut restarts = Restarts::new(7);
        restarts.note_failed(0);
        restarts.note_failed(0);
        assert!(!restarts.is_hopeless());
        restarts.note_started();
        restarts.note_failed(0);
        restarts.note_failed(0);
        assert!(!restarts.is_hopeless(), "one that went well between them begins the count anew");
        restarts.note_failed(0);
        assert!(restarts.is_hopeless());
    }
}
