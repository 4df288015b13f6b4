//! Writes this gateway's entries, and makes the store equal to them whenever it turns out to differ.
//!
//! The store may forget writes that it acknowledged, and others may write. Before each write the mark of the group's
//! sessions is compared with the one that the last write left. If they differ, all entries are listed and compared. They
//! are listed in any case each [`COMPARED_EVERY`], since no mark shows a change between two writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_group::GroupRole;
use evenkeel_model::SessionId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::claim::{DueClaim, RoomClaim, RoomOwner, claim_room};
use super::desired::{DesiredEntries, GroupPart};
use super::entry::{
    IndexKeys, IndexedSession, MemberEntry, OwnerEntry, RoomEntry, VERSION, decode, encode, split,
};
use super::store::{Store, StoreChange, StoreError, StoreMark};

/// Changes that are written before the first of them is acknowledged.
const WRITES_MAX: usize = 128;

/// Entries of others that are listed at once, beside those of this gateway's sessions.
const UNEXPECTED_MAX: usize = 4_096;

/// Claims of all groups that are listed at once. A further one is looked up when a session enters its room.
const CLAIMS_MAX: usize = 65_536;

/// Interval at which all entries are compared.
const COMPARED_EVERY: Duration = Duration::from_secs(60);

/// After a difference was repaired, the entries are compared again: others may have written meanwhile.
const VERIFIED_AFTER: Duration = Duration::from_secs(1);

const MEMBER_EVERY: Duration = Duration::from_secs(3);

/// A gateway is listed for this time after it wrote its entry.
const MEMBER_EXPIRES: Duration = Duration::from_secs(15);

/// The result of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RoundOutcome {
    /// The store had the entries of all sessions.
    Current,
    /// The sessions of this gateway are not known yet.
    Unlisted,
    /// Another gateway serves the group's sessions.
    Standby,
    /// The store names an owner that this gateway must not replace.
    Fenced { owner: Arc<str>, epoch: u64 },
}

pub(super) struct IndexWriter<S> {
    store: S,
    keys: IndexKeys,
    member: MemberEntry,
    desired: DesiredEntries,
    member_due: Option<Instant>,
    ownership: Option<OwnershipClaim>,
    /// Sessions that the store has, as far as it acknowledged.
    stored: BTreeSet<SessionId>,
    /// The store's mark after the last write; `None` if all entries are to be compared.
    mark: Option<StoreMark>,
    compare_at: Instant,
    repaired: u64,
    duplicates: Vec<(Arc<str>, RoomOwner)>,
}

/// The owner's entry as this gateway wrote it.
struct OwnershipClaim {
    epoch: u64,
    revision: u64,
}

enum OwnershipState {
    Before,
    Now,
    Fenced { owner: Arc<str>, epoch: u64 },
}

impl<S: Store> IndexWriter<S> {
    pub(super) fn new(
        store: S,
        keys: IndexKeys,
        member: MemberEntry,
        desired: DesiredEntries,
    ) -> IndexWriter<S> {
        IndexWriter {
            store,
            keys,
            member,
            desired,
            member_due: None,
            ownership: None,
            stored: BTreeSet::new(),
            mark: None,
            compare_at: Instant::now(),
            repaired: 0,
            duplicates: Vec::new(),
        }
    }

    /// Entries that differed in the store, so far.
    pub(super) fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Takes the rooms that turned out to be at another group as well, with the group that has the claim.
    pub(super) fn take_duplicates(&mut self) -> Vec<(Arc<str>, RoomOwner)> {
        std::mem::take(&mut self.duplicates)
    }

    /// Writes what changed. After an error, or if it is cancelled, nothing is known of the store.
    pub(super) async fn write(&mut self, part: GroupPart) -> Result<RoundOutcome, StoreError> {
        let known = self.mark.take();
        let written = self.try_write(part, known).await;
        if written.is_err() {
            self.member_due = None;
        }
        written
    }

    async fn try_write(
        &mut self,
        part: GroupPart,
        known: Option<StoreMark>,
    ) -> Result<RoundOutcome, StoreError> {
        // Creates a bucket that is gone, before anything is written.
        let mark = self.store.mark(&self.keys.sessions()).await?;
        self.write_member(part).await?;
        let epoch = match part {
            GroupPart::Alone => None,
            GroupPart::Member { role: GroupRole::Owner, epoch } => Some(epoch),
            GroupPart::Member { .. } => {
                self.ownership = None;
                self.desired.lock().claims.forget();
                return Ok(RoundOutcome::Standby);
            }
        };
        let known = match self.claim_ownership(epoch).await? {
            OwnershipState::Before => known,
            // Perhaps after another process of this gateway: its entries are compared.
            OwnershipState::Now => None,
            OwnershipState::Fenced { owner, epoch } => {
                self.desired.lock().claims.forget();
                return Ok(RoundOutcome::Fenced { owner, epoch });
            }
        };
        if self.desired.lock().listed_as != Some(part) {
            return Ok(RoundOutcome::Unlisted);
        }
        let now = Instant::now();
        let mark = if known.as_ref() != Some(&mark) || self.compare_at <= now {
            self.list_claims().await?;
            self.compare(mark).await?
        } else {
            let changes = self.desired.lock().take_changes(&self.stored, &self.keys);
            self.store_changes(changes, mark).await?
        };
        let due = self.desired.lock().claims.take_due();
        self.write_claims(due).await?;
        self.mark = Some(mark);
        Ok(RoundOutcome::Current)
    }

    async fn write_member(&mut self, part: GroupPart) -> Result<(), StoreError> {
        let (role, epoch) = match part {
            GroupPart::Alone => {
                (GroupRole::Owner, self.ownership.as_ref().map_or(0, |claim| claim.epoch))
            }
            GroupPart::Member { role, epoch } => (role, epoch),
        };
        let now = Instant::now();
        let is_changed = (self.member.role, self.member.epoch) != (role, epoch);
        if !is_changed && self.member_due.is_some_and(|due| now < due) {
            return Ok(());
        }
        (self.member.role, self.member.epoch) = (role, epoch);
        let change = StoreChange {
            key: self.keys.member(&self.member.gateway),
            value: Some(encode(&self.member)),
            expires: Some(MEMBER_EXPIRES),
        };
        self.store.write(&[change]).await?;
        self.member_due = Some(now + MEMBER_EVERY);
        Ok(())
    }

    /// Makes this gateway the owner in the store. `epoch` is the group's; without one, this process takes the next.
    async fn claim_ownership(&mut self, epoch: Option<u64>) -> Result<OwnershipState, StoreError> {
        let key = self.keys.owner();
        let found = self.store.get(&key).await?;
        let revision = found.as_ref().map_or(0, |entry| entry.revision);
        let owner: Option<OwnerEntry> = found.and_then(|entry| decode(&entry.value));
        let stored = owner.as_ref().map_or(0, |owner| owner.epoch);
        let claimed = self.ownership.as_ref().map(|claim| claim.epoch);
        let epoch = epoch.or(claimed).unwrap_or(stored + 1);
        if let Some(claim) = &self.ownership
            && claim.epoch == epoch
            && claim.revision == revision
        {
            return Ok(OwnershipState::Before);
        }
        if let Some(OwnerEntry { gateway, epoch: stored, .. }) = owner
            && (stored > epoch || (stored == epoch && gateway != self.member.gateway))
        {
            return Ok(OwnershipState::Fenced { owner: gateway, epoch: stored });
        }
        let gateway = Arc::clone(&self.member.gateway);
        let value = encode(&OwnerEntry { v: VERSION, gateway, epoch });
        let replaced = self.store.replace(&key, Some(value), revision).await?;
        let raced = || StoreError("another gateway wrote the owner's entry".to_owned());
        self.ownership = Some(OwnershipClaim { epoch, revision: replaced.ok_or_else(raced)? });
        Ok(OwnershipState::Now)
    }

    /// Lists what the store has, and writes the differences. Keys that no gateway writes are deleted. Of a listing that is cut
    /// off, the next one shows the rest.
    async fn compare(&mut self, mut mark: StoreMark) -> Result<StoreMark, StoreError> {
        self.compare_at = Instant::now() + COMPARED_EVERY;
        let most = self.desired.lock().sessions.len() + UNEXPECTED_MAX;
        let (mut listed, mut foreign) = (BTreeMap::new(), Vec::new());
        let entries = self.store.list(&self.keys.sessions(), most).await?;
        if entries.len() == most {
            self.compare_at = Instant::now() + VERIFIED_AFTER;
        }
        for entry in entries {
            let id = split(&entry.key).and_then(|(_, part)| SessionId::parse(part));
            match id {
                Some(id) => drop(listed.insert(id, decode::<IndexedSession>(&entry.value))),
                None => foreign.push(StoreChange { key: entry.key, value: None, expires: None }),
            }
        }
        self.stored = listed.keys().copied().collect();
        let (changes, unexpected) = {
            let mut table = self.desired.lock();
            let unexpected = table.compare(&listed) + foreign.len();
            (table.take_changes(&self.stored, &self.keys), unexpected)
        };
        if unexpected > 0 {
            self.repaired += unexpected as u64;
            self.compare_at = Instant::now() + VERIFIED_AFTER;
            tracing::info!(entries = unexpected, "index: entries that differ are written again");
        }
        for deletions in foreign.chunks(WRITES_MAX) {
            mark.newest = self.store.write(deletions).await?;
        }
        self.store_changes(changes, mark).await
    }

    /// Writes, and returns the mark that the writes leave.
    async fn store_changes(
        &mut self,
        changes: Vec<(SessionId, StoreChange)>,
        mut mark: StoreMark,
    ) -> Result<StoreMark, StoreError> {
        for changes in changes.chunks(WRITES_MAX) {
            let writes: Vec<StoreChange> =
                changes.iter().map(|(_, change)| change.clone()).collect();
            mark.newest = self.store.write(&writes).await?;
            for (id, change) in changes {
                if change.value.is_some() {
                    self.stored.insert(*id);
                } else {
                    self.stored.remove(id);
                }
            }
        }
        Ok(mark)
    }

    async fn list_claims(&mut self) -> Result<(), StoreError> {
        let (began, group) = (Instant::now(), self.keys.group());
        let entries = self.store.list(IndexKeys::rooms(), CLAIMS_MAX).await?;
        let own = entries.iter().filter_map(|entry| {
            let claim = RoomEntry::read(&entry.value)?;
            let room = IndexKeys::room_of(&entry.key)?;
            (claim.group == group).then_some((room.into(), entry.revision))
        });
        let own: BTreeMap<_, _> = own.collect();
        let is_cut_off = entries.len() == CLAIMS_MAX;
        self.desired.lock().claims.replace(own, began, is_cut_off);
        Ok(())
    }

    /// After an error the claims are listed again, before the next ones are written.
    async fn write_claims(&mut self, due: Vec<(Arc<str>, DueClaim)>) -> Result<(), StoreError> {
        for due in due.chunks(WRITES_MAX) {
            let mut writes = JoinSet::new();
            for (room, change) in due.iter().cloned() {
                let (store, keys, desired) =
                    (self.store.clone(), self.keys.clone(), self.desired.clone());
                writes.spawn(async move {
                    let owner = write_claim(&store, &keys, &desired, &room, change).await?;
                    Ok(owner.map(|owner| (room, owner)))
                });
            }
            let written = writes.join_all().await;
            let failed = written.iter().find_map(|written| written.clone().err());
            self.duplicates.extend(written.into_iter().flatten().flatten());
            failed.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Removes this gateway from the index, at its end.
    pub(super) async fn leave(&mut self) -> Result<(), StoreError> {
        // A gateway that another one has replaced has forgotten its claims.
        let claims = self.desired.lock().claims.take_all();
        self.write_claims(claims).await?;
        let key = self.keys.member(&self.member.gateway);
        self.store.write(&[StoreChange { key, value: None, expires: None }]).await?;
        Ok(())
    }
}

/// Returns the other group that has the room, if that was not known.
async fn write_claim(
    store: &impl Store,
    keys: &IndexKeys,
    desired: &DesiredEntries,
    room: &Arc<str>,
    change: DueClaim,
) -> Result<Option<RoomOwner>, StoreError> {
    match change {
        DueClaim::Claim => match claim_room(store, keys, room).await? {
            RoomClaim::Claimed(revision) => {
                desired.lock().claims.note_claimed(Arc::clone(room), revision);
                Ok(None)
            }
            RoomClaim::Taken(owner) => {
                let is_new = desired.lock().claims.note_duplicate(Arc::clone(room), &owner.group);
                Ok(is_new.then_some(owner))
            }
            RoomClaim::Contended => {
                desired.lock().claims.note_contended(Arc::clone(room));
                Ok(None)
            }
        },
        DueClaim::Release(revision) => {
            let key = IndexKeys::room(room);
            let is_deleted = store.replace(&key, None, revision).await?.is_some();
            let found = if is_deleted { None } else { store.get(&key).await? };
            let mut table = desired.lock();
            table.claims.note_released(room, revision);
            if let Some(entry) = found
                && RoomEntry::read(&entry.value).is_some_and(|it| it.group == keys.group())
            {
                table.claims.note_claimed(Arc::clone(room), entry.revision);
            }
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
