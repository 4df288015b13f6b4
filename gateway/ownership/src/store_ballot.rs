//! The vote of a store: a ballot as agents keep it, in an entry that the members change by compare-and-set.
//!
//! Each member decides for itself what the entry becomes. Members and store share no clock. A hold for a time has ended for
//! a claimant when it knows of no write of the owner for that time: a write that it does not know has changed the revision,
//! and the claim fails. The owner counts its lease from before its write, so the lease ends earlier than any claim
//! succeeds. A claim is refused as long as it is too early, and never waits: its candidate may have given it up meanwhile.

use std::time::Instant;

use evenkeel_media::trunk::{Hold, Vote, Voted};
use serde::{Deserialize, Serialize};

use crate::cluster::HOLD;

/// A question fails after this many writes that came too late: other members may change the entry between the steps.
const LATE_WRITES_MAX: usize = 4;

/// No group reaches such a number; a member counts on from the highest that it reads.
const NUMBER_MAX: u64 = 1 << 48;

/// The ballot of a group, as a store keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BallotEntry {
    /// Random: a ballot that is created anew, or was forgotten in part, is another voter.
    instance: u32,
    /// The newest epoch in which an owner wrote.
    epoch: u64,
    /// The newest epoch promised to a standby.
    promised: u64,
    /// No claim of this epoch succeeds.
    is_barred: bool,
    /// Counts the writes of owners.
    renewals: u64,
}

impl BallotEntry {
    fn new(instance: u32) -> BallotEntry {
        BallotEntry { instance, epoch: 0, promised: 0, is_barred: false, renewals: 0 }
    }

    /// False for an entry that no member writes.
    pub fn is_plausible(&self) -> bool {
        [self.epoch, self.promised, self.renewals].iter().all(|number| *number < NUMBER_MAX)
    }

    /// The entry after this vote; `None` if the vote changes nothing. A hold for a time has ended.
    fn after(mut self, vote: Vote) -> Option<BallotEntry> {
        match vote {
            Vote::Owner { epoch, hold } if epoch >= self.epoch => {
                self.is_barred &= epoch == self.epoch;
                self.is_barred |= hold == Hold::Epoch && self.promised <= epoch;
                self.epoch = epoch;
                self.renewals += 1;
            }
            Vote::Claim { base, claim } if claim > base.max(self.promised) => {
                let is_free = self.epoch < base || self.epoch == base && !self.is_barred;
                is_free.then(|| self.promised = claim)?;
            }
            Vote::Owner { .. } | Vote::Standby | Vote::Claim { .. } => return None,
        }
        Some(self)
    }
}

/// A write of the entry that takes place only if the entry has not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BallotWrite {
    /// The new entry.
    pub entry: BallotEntry,
    /// The revision of the entry that it replaces; 0 if there is none.
    pub revision: u64,
    /// The entry is that of a new ballot, which does not contain the vote yet.
    is_creation: bool,
}

/// The next step of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BallotStep {
    /// Read the entry; [`StoreBallot::handle_entry`] takes it.
    Read,
    /// Write the entry; [`StoreBallot::handle_written`] takes the result.
    Write(BallotWrite),
    /// The answer to the question.
    Answer(Voted),
    /// The question gets no answer.
    Fail(BallotError),
}

/// The reason for which a question gets no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BallotError {
    /// The vote names a number that no group reaches.
    OutOfRange(Vote),
    /// Other members changed the entry at each attempt.
    Contended,
}

impl std::fmt::Display for BallotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BallotError::OutOfRange(vote) => write!(f, "{vote:?} is out of range"),
            BallotError::Contended => {
                f.write_str("the ballot is changed by others at the same time")
            }
        }
    }
}

impl std::error::Error for BallotError {}

#[derive(Clone, Copy, Debug)]
struct KnownBallot {
    entry: BallotEntry,
    revision: u64,
    /// The last time at which the store showed or took this revision.
    seen: Instant,
    /// No write of an owner that this revision contains is later.
    renewed_by: Instant,
    /// The newest write of an owner is later; `None` until one was seen.
    owner_heard: Option<Instant>,
}

impl KnownBallot {
    /// A hold for a time may last, for all that this member knows.
    fn may_be_held(&self, vote: Vote, now: Instant) -> bool {
        matches!(vote, Vote::Claim { base, .. } if base == self.entry.epoch)
            && self.renewed_by + HOLD > now
    }

    fn voted(&self, now: Instant) -> Voted {
        let BallotEntry { epoch, promised, instance, .. } = self.entry;
        let heard = self.owner_heard.map(|at| now.saturating_duration_since(at));
        Voted { epoch, promised, heard, instance }
    }
}

/// The ballot of a group in a store, as one process of a member knows it. Like [`Cluster`](crate::Cluster), it has neither
/// I/O nor clock: each method returns the next step.
///
/// One question is asked at a time. Another one may be asked before the answer; the caller then drops the results of the
/// former one's steps. Its vote may count, and gives no lease.
#[derive(Debug)]
pub struct StoreBallot {
    known: Option<KnownBallot>,
    /// An older revision is that of a store that forgot votes.
    newest: u64,
    vote: Vote,
    late_writes: usize,
}

impl Default for StoreBallot {
    fn default() -> StoreBallot {
        StoreBallot { known: None, newest: 0, vote: Vote::Standby, late_writes: 0 }
    }
}

impl StoreBallot {
    /// Takes a member's question.
    pub fn handle_vote(&mut self, vote: Vote, now: Instant) -> BallotStep {
        (self.vote, self.late_writes) = (vote, 0);
        // Most votes of an owner need one round trip.
        match self.known.filter(|known| known.entry.after(vote).is_some()) {
            Some(known) => self.decide(known, now),
            None => BallotStep::Read,
        }
    }

    /// Takes an entry that another member wrote, as the store reports it. A candidate that knows the newest revision claims
    /// in one round trip. Between two questions only.
    pub fn handle_change(&mut self, entry: BallotEntry, revision: u64, now: Instant) {
        // An older revision is late, or that of a store that forgot votes, which a question notices.
        if revision > self.newest {
            self.note(entry, revision, now);
        }
    }

    /// Takes the entry, `None` if there is none, and the revision of its key. `instance` is random, for a new ballot.
    pub fn handle_entry(
        &mut self,
        entry: Option<BallotEntry>,
        revision: u64,
        instance: u32,
        now: Instant,
    ) -> BallotStep {
        match entry.filter(|entry| !self.has_forgotten(entry, revision)) {
            Some(entry) => {
                let known = self.note(entry, revision, now);
                self.decide(known, now)
            }
            None => {
                self.known = None;
                self.write(BallotWrite {
                    entry: BallotEntry::new(instance),
                    revision,
                    is_creation: true,
                })
            }
        }
    }

    /// Takes the new revision of the entry; `None` if it had changed before the write.
    pub fn handle_written(
        &mut self,
        write: BallotWrite,
        revision: Option<u64>,
        now: Instant,
    ) -> BallotStep {
        let Some(revision) = revision else {
            self.late_writes += 1;
            return BallotStep::Read;
        };
        let known = self.note(write.entry, revision, now);
        if write.is_creation {
            self.decide(known, now)
        } else {
            BallotStep::Answer(known.voted(now))
        }
    }

    fn decide(&self, known: KnownBallot, now: Instant) -> BallotStep {
        let next = known.entry.after(self.vote);
        match next.filter(|_| !known.may_be_held(self.vote, now)) {
            None => BallotStep::Answer(known.voted(now)),
            Some(entry) if !entry.is_plausible() => {
                BallotStep::Fail(BallotError::OutOfRange(self.vote))
            }
            Some(entry) => {
                self.write(BallotWrite { entry, revision: known.revision, is_creation: false })
            }
        }
    }

    fn write(&self, write: BallotWrite) -> BallotStep {
        match self.late_writes < LATE_WRITES_MAX {
            true => BallotStep::Write(write),
            false => BallotStep::Fail(BallotError::Contended),
        }
    }

    /// The store shows less than it showed or took before.
    fn has_forgotten(&self, entry: &BallotEntry, revision: u64) -> bool {
        let known = self.known.filter(|known| known.revision == revision);
        revision < self.newest || known.is_some_and(|known| known.entry != *entry)
    }

    fn note(&mut self, entry: BallotEntry, revision: u64, seen: Instant) -> KnownBallot {
        let is_same = |known: &KnownBallot| known.entry.instance == entry.instance;
        let (renewed_by, owner_heard) = match self.known.filter(is_same) {
            Some(known) if known.entry.renewals == entry.renewals => {
                (known.renewed_by, known.owner_heard)
            }
            Some(known) => (seen, Some(known.seen)),
            None => (seen, None),
        };
        let known = KnownBallot { entry, revision, seen, renewed_by, owner_heard };
        (self.known, self.newest) = (Some(known), revision);
        known
    }
}

#[cfg(test)]
mod tests;
