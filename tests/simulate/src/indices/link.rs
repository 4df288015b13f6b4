//! The connection between an owner and its standby, and the copies at the standby.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_media::srtp::{CopyProof, SentBatch, SentIndices};

use super::process::SessionId;

/// The counters of a session and the numbers of its streams, as an owner copies them.
#[derive(Clone)]
pub(super) struct SessionCopy {
    pub(super) session: SessionId,
    pub(super) counters: Vec<SentIndices>,
    pub(super) continuity: Vec<u8>,
}

pub(super) struct Batch {
    pub(super) sent: SentBatch,
    pub(super) echo: u64,
    pub(super) copies: Vec<SessionCopy>,
}

/// Messages arrive in their order.
struct Wire<T> {
    messages: VecDeque<(Instant, T)>,
    last: Instant,
}

impl<T> Wire<T> {
    fn new(now: Instant) -> Wire<T> {
        Wire { messages: VecDeque::new(), last: now }
    }

    fn put(&mut self, message: T, at: Instant) {
        self.last = self.last.max(at);
        self.messages.push_back((self.last, message));
    }

    fn take(&mut self, now: Instant) -> Option<T> {
        self.messages.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }
}

pub(super) struct Link {
    to_standby: Wire<Batch>,
    to_owner: Wire<u64>,
    /// Batches that the standby has not acknowledged.
    sent: VecDeque<SentBatch>,
    /// Until then, messages of either direction are held back.
    pub(super) held_until: [Instant; 2],
}

impl Link {
    pub(super) fn new(now: Instant) -> Link {
        Link {
            to_standby: Wire::new(now),
            to_owner: Wire::new(now),
            sent: VecDeque::new(),
            held_until: [now; 2],
        }
    }

    pub(super) fn send(&mut self, batch: Batch, now: Instant, latency: Duration) {
        self.sent.push_back(batch.sent.clone());
        self.to_standby.put(batch, (now + latency).max(self.held_until[0]));
    }

    pub(super) fn acknowledge(&mut self, number: u64, now: Instant, latency: Duration) {
        self.to_owner.put(number, (now + latency).max(self.held_until[1]));
    }

    pub(super) fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        self.to_standby.take(now)
    }

    /// The next acknowledged batch.
    pub(super) fn next_acknowledged(&mut self, now: Instant) -> Option<SentBatch> {
        let number = self.to_owner.take(now)?;
        let place = self.sent.iter().position(|batch| batch.number == number)?;
        self.sent.drain(..=place).next_back()
    }
}

/// The copies at a standby.
pub(super) struct Replica {
    /// The number of the last batch.
    number: u64,
    proof: CopyProof,
    pub(super) copies: BTreeMap<SessionId, (SessionCopy, Option<Instant>)>,
}

impl Replica {
    pub(super) fn new() -> Replica {
        Replica { number: 0, proof: CopyProof::default(), copies: BTreeMap::new() }
    }

    /// Takes the next batch. The first batch of a follower replaces all copies.
    pub(super) fn apply(&mut self, batch: Batch, now: Instant) {
        let number = batch.sent.number;
        if number == 1 {
            *self = Replica::new();
        }
        assert_eq!(number, self.number + 1, "a connection loses nothing");
        self.number = number;
        let received = self.proof.receive(number, batch.echo, now).then_some(now);
        self.copies.extend(batch.copies.into_iter().map(|copy| (copy.session, (copy, received))));
    }

    /// Returns whether the indices in this copy hold.
    pub(super) fn holds(&self, received: Option<Instant>, now: Instant) -> bool {
        let until = received.and_then(|received| self.proof.holds_until(received));
        until.is_some_and(|until| now < until)
    }
}
