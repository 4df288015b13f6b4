//! The owner's knowledge of its standby: the newest copy that the standby acknowledged, and the time of the acknowledgement.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time after an acknowledgement of the standby from which an owner sends without limits. A takeover after a death takes less.
pub const FREE_AFTER: Duration = Duration::from_secs(2);

/// A worker's copy of sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyNumber {
    /// Number of the worker.
    pub worker: u16,
    /// Counts the copies of the worker.
    pub number: u64,
}

/// A batch of records that an owner sent to its standby.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SentBatch {
    /// The standby that it was sent to, as [`IndexGrant::begin`] counts them.
    pub follower: u64,
    /// Counts the batches for this standby, from 1.
    pub number: u64,
    /// The copies that it contains.
    pub copies: Vec<CopyNumber>,
}

/// The indices that an owner may use, as far as its standby determines them. Shared by the threads that send the copies,
/// receive the acknowledgements and send the packets, without a lock.
///
/// Without a standby, and [`FREE_AFTER`] after its last acknowledgement, the owner is *free*: it needs no acknowledgement. The
/// standby knows that, by [`CopyProof`](super::CopyProof).
#[derive(Debug)]
pub struct IndexGrant {
    base: Instant,
    /// Nanoseconds from the base to the time from which the owner is free.
    free_from: AtomicU64,
    /// Counts the times at which limits began anew: copies before have lost their worth.
    era: AtomicU64,
    /// Counts the times from which a standby may know again that copies hold.
    round: AtomicU64,
    /// The next acknowledgement is the first one of its follower.
    is_first: AtomicBool,
    follower: AtomicU64,
    /// The newest batch that the follower has acknowledged.
    batch: AtomicU64,
    /// Until then another member may use older copies, and no lease is renewed.
    held_until: AtomicU64,
    /// The newest acknowledged copy of each worker.
    copies: Box<[AtomicU64]>,
}

/// A grant, as a worker sees it now.
#[derive(Clone, Copy, Debug)]
pub struct GrantView<'a> {
    /// The grant of the gateway.
    pub grant: &'a IndexGrant,
    /// The worker, which numbers its copies.
    pub worker: u16,
    /// The present time.
    pub now: Instant,
}

impl IndexGrant {
    /// The grant of a gateway with this number of workers and no standby.
    pub fn new(workers: usize, now: Instant) -> Self {
        Self {
            base: now,
            free_from: AtomicU64::new(0),
            era: AtomicU64::new(0),
            round: AtomicU64::new(0),
            is_first: AtomicBool::new(false),
            follower: AtomicU64::new(0),
            batch: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
            copies: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Begins to copy to a standby. Returns the standby's number.
    pub fn begin(&self, now: Instant) -> u64 {
        self.limit(now);
        self.is_first.store(true, Ordering::Release);
        self.batch.store(0, Ordering::Release);
        self.follower.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Continues the limits of a process that has ended, as if its standby had acknowledged a copy now.
    pub fn inherit(&self, now: Instant) {
        self.free_from.fetch_max(self.nanos(now + FREE_AFTER), Ordering::AcqRel);
    }

    /// Limits the owner from now on.
    fn limit(&self, now: Instant) {
        // In this order a thread that sees the limit sees that copies before it are without worth.
        if self.is_free(now) {
            self.era.fetch_add(1, Ordering::AcqRel);
        }
        self.inherit(now);
    }

    /// Notes that the standby has acknowledged a batch.
    pub fn acknowledge(&self, batch: &SentBatch, now: Instant) {
        let renews = self.is_first.swap(false, Ordering::AcqRel);
        let silent = self.nanos(now + FREE_AFTER / 2) >= self.free_from.load(Ordering::Acquire);
        self.limit(now);
        if batch.follower == self.follower.load(Ordering::Acquire) {
            self.batch.fetch_max(batch.number, Ordering::AcqRel);
        }
        if renews || silent {
            self.round.fetch_add(1, Ordering::AcqRel);
        }
        if self.nanos(now) >= self.held_until.load(Ordering::Acquire) {
            for copy in &batch.copies {
                if let Some(newest) = self.copies.get(usize::from(copy.worker)) {
                    newest.fetch_max(copy.number, Ordering::AcqRel);
                }
            }
        }
    }

    /// Notes that another member is the standby. As long as the one before it may use its copies, no lease is renewed.
    pub fn hold(&self) {
        self.held_until.store(self.free_from.load(Ordering::Acquire), Ordering::Release);
    }

    /// The newest batch that the standby has acknowledged; 0 before the first one. The owner returns it with each batch.
    pub fn batch(&self) -> u64 {
        self.batch.load(Ordering::Acquire)
    }

    /// Counts the times since which sessions are to be copied again, also those that have not changed.
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    fn is_free(&self, now: Instant) -> bool {
        self.nanos(now) >= self.free_from.load(Ordering::Acquire)
    }

    fn nanos(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.base).as_nanos() as u64
    }
}

impl GrantView<'_> {
    /// Returns whether the standby has this copy of the worker.
    pub(super) fn has_acknowledged(&self, copy: u64) -> bool {
        let newest = self.grant.copies.get(usize::from(self.worker));
        newest.is_some_and(|newest| newest.load(Ordering::Acquire) >= copy)
    }

    /// Returns whether limits of this era hold.
    pub(super) fn is_limited(&self, era: Option<u64>) -> bool {
        !self.grant.is_free(self.now) && era == Some(self.era())
    }

    pub(super) fn era(&self) -> u64 {
        self.grant.era.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
