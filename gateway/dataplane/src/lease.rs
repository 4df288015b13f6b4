//! The time until which this gateway may send. The owner of a group's addresses renews it as long as it is sure that no
//! other gateway has taken them over.
//!
//! Threads compare it with the clock where they send, once per system call: a process that was stopped may continue
//! between two of its instructions after another gateway has taken over.

use std::cell::Cell;
use std::sync::Arc;
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

    /// Returns whether this gateway may send at this time.
    pub fn is_held(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || self.nanos(now) < until
    }

    /// Reads the clock only if the lease has an end.
    pub fn is_held_now(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || self.nanos(Instant::now()) < until
    }

    fn nanos(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.base).as_nanos() as u64
    }
}

/// A thread's use of the lease.
#[derive(Debug)]
pub(crate) struct Permit {
    lease: Arc<SendLease>,
    /// True if something was not sent because the lease had ended.
    held_back: Cell<bool>,
}

impl Permit {
    pub(crate) fn new(lease: Arc<SendLease>) -> Permit {
        Permit { lease, held_back: Cell::new(false) }
    }

    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.lease.is_held(now)
    }

    /// Returns whether the thread may send now. If not, its queue waits for the renewal.
    pub(crate) fn may_send(&self) -> bool {
        let may_send = self.lease.is_held_now();
        if !may_send {
            self.held_back.set(true);
        }
        may_send
    }

    pub(crate) fn has_held_back(&self) -> bool {
        self.held_back.get()
    }

    pub(crate) fn begin_pass(&self) {
        self.held_back.set(false);
    }
}

#[cfg(test)]
mod tests;
