//! The vote of the store on the ownership of a group: a ballot as agents keep it, in an entry that the members change by
//! compare-and-set.
//!
//! Members and store share no clock. A hold for a time has ended for a claimant when it knows of no write of the owner for
//! that time: a write that it does not know has changed the revision, and the claim fails. The owner counts its lease from
//! before its write, so the lease ends earlier than any claim succeeds. A claim is refused as long as it is too early, and
//! never waits: its candidate may have given it up meanwhile.

use evenkeel_group::{HOLD, Hold, Vote, Voted};
use evenkeel_process::random::draw;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::entry::{VERSION, decode, encode};
use super::store::{Store, StoreError};

/// Other members may change the ballot between the steps of an attempt.
const ATTEMPTS: usize = 4;

/// No group reaches such a number; a member counts on from the highest that it reads.
const NUMBER_MAX: u64 = 1 << 48;

/// `ballot.GROUP`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct BallotEntry {
    v: u32,
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
    fn new() -> BallotEntry {
        let instance = draw() as u32;
        BallotEntry { v: VERSION, instance, epoch: 0, promised: 0, is_barred: false, renewals: 0 }
    }

    /// `None` for a value that no member writes.
    fn read(value: &[u8]) -> Option<BallotEntry> {
        decode(value).filter(BallotEntry::is_plausible)
    }

    fn is_plausible(&self) -> bool {
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
    fn may_be_held(&self, vote: Vote) -> bool {
        matches!(vote, Vote::Claim { base, .. } if base == self.entry.epoch)
            && self.renewed_by + HOLD > Instant::now()
    }
}

/// The ballot of a group, as one member knows it.
pub(super) struct StoreBallot<S> {
    store: S,
    key: String,
    known: Option<KnownBallot>,
    /// An older revision is that of a store that forgot votes.
    newest: u64,
}

impl<S: Store> StoreBallot<S> {
    pub(super) fn new(store: S, key: String) -> StoreBallot<S> {
        StoreBallot { store, key, known: None, newest: 0 }
    }

    /// Returns the answer to a member's question. May be cancelled; the vote may count then, and gives no lease.
    pub(super) async fn handle(&mut self, vote: Vote) -> Result<Voted, StoreError> {
        // Most votes of an owner need one round trip.
        let mut known = match self.known.filter(|known| known.entry.after(vote).is_some()) {
            Some(known) => known,
            None => self.read().await?,
        };
        for _ in 0..ATTEMPTS {
            let next = known.entry.after(vote).filter(|_| !known.may_be_held(vote));
            let Some(next) = next else { return Ok(voted(&known)) };
            if !next.is_plausible() {
                return Err(StoreError(format!("{vote:?} is out of range")));
            }
            if let Some(known) = self.replace(next, known.revision).await? {
                return Ok(voted(&known));
            }
            known = self.read().await?;
        }
        Err(StoreError("the ballot is changed by others at the same time".to_owned()))
    }

    async fn read(&mut self) -> Result<KnownBallot, StoreError> {
        for _ in 0..ATTEMPTS {
            let found = self.store.get(&self.key).await?;
            let arrived = Instant::now();
            let (value, revision) =
                found.map_or_else(Default::default, |found| (found.value, found.revision));
            let entry = BallotEntry::read(&value);
            if entry.is_none() && !value.is_empty() {
                let key = &self.key;
                return Err(StoreError(format!("`{key}` has a value of another program")));
            }
            let forgot = |entry: &BallotEntry| {
                let known = self.known.filter(|known| known.revision == revision);
                revision < self.newest || known.is_some_and(|known| known.entry != *entry)
            };
            if let Some(entry) = entry.filter(|entry| !forgot(entry)) {
                return Ok(self.note(entry, revision, arrived));
            }
            self.known = None;
            if let Some(known) = self.replace(BallotEntry::new(), revision).await? {
                return Ok(known);
            }
        }
        Err(StoreError("the ballot is created by others at the same time".to_owned()))
    }

    async fn replace(
        &mut self,
        entry: BallotEntry,
        revision: u64,
    ) -> Result<Option<KnownBallot>, StoreError> {
        let replaced = self.store.replace(&self.key, Some(encode(&entry)), revision).await?;
        Ok(replaced.map(|revision| self.note(entry, revision, Instant::now())))
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

fn voted(known: &KnownBallot) -> Voted {
    let KnownBallot { entry, owner_heard, .. } = known;
    let BallotEntry { epoch, promised, instance, .. } = *entry;
    Voted { epoch, promised, heard: owner_heard.map(|at| at.elapsed()), instance }
}

#[cfg(test)]
mod tests;
