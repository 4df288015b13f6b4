//! Clocks of processes beside real time.

use std::time::{Duration, Instant};

use fastrand::Rng;

const MILLION: u128 = 1_000_000;

/// The greatest error of a clock's rate, in millionths. The core allows for two clocks that differ by 4 %.
const RATE_ERROR_MAX: u128 = 15_000;

/// A monotonic clock with an offset and a constant error of its rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    zero: Instant,
    /// Nanoseconds that it shows in a millisecond.
    rate: u128,
}

impl Clock {
    pub(super) fn draw(origin: Instant, rng: &mut Rng) -> Clock {
        let zero = origin + Duration::from_millis(rng.u64(0..1_000_000));
        let rate = rng.u128(MILLION - RATE_ERROR_MAX..=MILLION + RATE_ERROR_MAX);
        Clock { zero, rate }
    }

    pub(super) fn at(&self, real: Duration) -> Instant {
        self.zero + Duration::from_nanos((real.as_nanos() * self.rate / MILLION) as u64)
    }

    /// The first moment at which the clock shows this time.
    pub(super) fn real(&self, shown: Instant) -> Duration {
        let nanos = shown.saturating_duration_since(self.zero).as_nanos();
        Duration::from_nanos((nanos * MILLION).div_ceil(self.rate) as u64)
    }
}
