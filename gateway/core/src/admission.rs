//! Admission: whether the gateway takes new sessions, the breakers of their clients, and when refused clients try again.

use std::time::{Duration, Instant};

use evenkeel_breakers::ClientBreakers;
use evenkeel_model::{ClientGroup, CoreSettings};

const RETRY_SOON: Duration = Duration::from_secs(2);

/// Retry time while stranded rooms are being rescued.
const RETRY_DURING_FAILOVER: Duration = Duration::from_secs(5);

/// Maximum retry time for an open breaker.
const RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Admission {
    stage: Stage,
    pub(crate) client_breakers: ClientBreakers,
    /// Random source for the jitter of retry times.
    rng: fastrand::Rng,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Admitting,
    /// No session is admitted any more; those that are there go on.
    ShuttingDown,
    /// The last session has ended.
    Finished,
}

impl Admission {
    pub(crate) fn new(settings: &CoreSettings, now: Instant) -> Admission {
        Admission {
            stage: Stage::Admitting,
            client_breakers: ClientBreakers::new(settings, now),
            rng: fastrand::Rng::with_seed(0),
        }
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.rng = fastrand::Rng::with_seed(seed);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Admitting
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    /// Admits no more sessions. Returns true if it did until now.
    pub(crate) fn shut_down(&mut self) -> bool {
        let was_open = self.is_open();
        if was_open {
            self.stage = Stage::ShuttingDown;
        }
        was_open
    }

    /// No session is left. Returns true if that ends a shutdown.
    pub(crate) fn finish(&mut self) -> bool {
        let finishes = self.stage == Stage::ShuttingDown;
        if finishes {
            self.stage = Stage::Finished;
        }
        finishes
    }

    /// `wait` extended at random up to twice its length, so that clients refused together do not return together.
    pub(crate) fn jittered(&mut self, wait: Duration) -> Duration {
        wait.saturating_add(wait.mul_f64(self.rng.f64()))
    }

    /// Retry time for clients without capacity, with jitter: 2 s; 5 s while rooms are stranded; or, if no node
    /// accepts new rooms, until the first one does in `opens`, at most 60 s.
    pub(crate) fn retry_after(&mut self, is_busy: bool, opens: Duration) -> Duration {
        let wait = if is_busy { RETRY_DURING_FAILOVER } else { RETRY_SOON };
        self.jittered(wait.max(opens.min(RETRY_MAX)))
    }

    /// Retry time for clients whose breaker is open, with jitter: at least until it is half-open.
    pub(crate) fn retry_of_clients(&mut self, group: &ClientGroup, now: Instant) -> Duration {
        let wait = self.client_breakers.admits_in(group, now);
        self.jittered(wait.clamp(RETRY_SOON, RETRY_MAX))
    }
}

#[cfg(test)]
mod tests;
