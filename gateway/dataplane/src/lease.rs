//! The time until which this gateway may send. The owner of a group's addresses renews it as long as it is sure that no
//! other gateway has taken them over.
//!
//! Threads compare it with the clock where they send, once per system call: a process that was stopped may continue
//! between two of its instructions after another gateway has taken over.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering};

/// Interval at which a thread looks for the renewal of a lease that has ended.
pub(crate) const CHECKED_EVERY: Duration = Duration::from_millis(1);

/// Nanoseconds of a lease that has no end.
const FOREVER: u64 = u64::MAX;

/// The time until which this gateway may send, shared by its threads.
#[derive(Debug)]
pub struct SendLease {
    base: Instant,
    /// Nanoseconds from the base to the end.
    until: AtomicU64,
}

impl SendLease {
    /// The lease of a gateway without a group.
    pub fn forever() -> SendLease {
        SendLease { base: Instant::now(), until: AtomicU64::new(FOREVER) }
    }

    /// Lets this gateway send until this time.
    pub fn renew(&self, until: Instant) {
        self.until.store(self.nanos(until).min(FOREVER - 1), Ordering::Release);
    }

    /// Lets this gateway send without an end.
    pub fn renew_forever(&self) {
        self.until.store(FOREVER, Ordering::Release);
    }

    /// Lets this gateway send nothing.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Returns whether this gateway may send. The clock is read only if the lease has an end.
    pub fn is_held(&self, now: impl FnOnce() -> Instant) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || self.nanos(now()) < until
    }

    fn nanos(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.base).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests;
