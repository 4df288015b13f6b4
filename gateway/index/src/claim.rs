//! Claims of rooms. The claim in the store names the one group that serves a room, even if two are offered it.
//!
//! An offer of a new room creates the claim by compare-and-set, and is refused if another group has it. Without an answer of
//! the store in time it is admitted; the writer claims the room later, and reports it if another group has it then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::is_first_packet_room;
use evenkeel_core::is_session_room_name;
use tokio::time::Instant;

use super::entry::{IndexKeys, MemberEntry, OwnerEntry, RoomEntry, VERSION, decode, encode};
use super::store::{Store, StoreError};

/// Another offer may claim the room, and a writer release it, between the steps of an attempt.
const ATTEMPTS: usize = 3;

/// A cluster refuses a write while another one to the key is on its way, which a reader does not see yet.
const WRITES_WAIT: Duration = Duration::from_millis(1);
const WAITS: usize = 20;

/// Members of a group that are read; it has five at most.
const MEMBERS_MAX: usize = 16;

/// A claim without a session is kept for this time: an offer has 5 s to open one, and may rely on a claim that it found.
const UNUSED_FOR: Duration = Duration::from_secs(10);

/// Interval at which the claims of rooms that another group has are tried again.
const DUPLICATES_EVERY: Duration = Duration::from_secs(5);

/// The revision of a claim that an offer made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimRevision(pub(super) u64);

/// The group that has a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomOwner {
    /// The name of the group.
    pub group: String,
    /// The gateway that owns the group's addresses; another member while that one is not listed.
    pub gateway: Arc<str>,
    /// The address of that gateway's API.
    pub api: Option<SocketAddr>,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum RoomClaim {
    /// This group has the room, at this revision.
    Claimed(u64),
    Taken(RoomOwner),
    /// Others changed the claim in each attempt.
    Contended,
}

/// Claims the room for the group of `keys`, unless a group with a running gateway has it.
pub(super) async fn claim_room(
    store: &impl Store,
    keys: &IndexKeys,
    room: &str,
) -> Result<RoomClaim, StoreError> {
    let key = IndexKeys::room(room);
    let value = encode(&RoomEntry { v: VERSION, group: keys.group() });
    let (mut revision, mut attempts, mut waits) = (0, 0, 0);
    while attempts < ATTEMPTS {
        if let Some(revision) = store.replace(&key, Some(value.clone()), revision).await? {
            return Ok(RoomClaim::Claimed(revision));
        }
        let found = store.get(&key).await?;
        let seen = found.as_ref().map_or(0, |entry| entry.revision);
        if seen == revision && waits < WAITS {
            waits += 1;
            tokio::time::sleep(WRITES_WAIT).await;
            continue;
        }
        (revision, attempts) = (seen, attempts + 1);
        // A claim of this group is written again: its release, which names the older revision, fails.
        let other = found
            .and_then(|entry| RoomEntry::read(&entry.value))
            .filter(|entry| entry.group != keys.group());
        if let Some(RoomEntry { group, .. }) = other
            && let Some(owner) = find_running_gateway(store, group).await?
        {
            return Ok(RoomClaim::Taken(owner));
        }
    }
    Ok(RoomClaim::Contended)
}

/// `None`: no gateway of the group has renewed its entry. Members are listed only if the owner is not among them, since a
/// listing takes longer than two entries.
async fn find_running_gateway(
    store: &impl Store,
    group: String,
) -> Result<Option<RoomOwner>, StoreError> {
    let keys = IndexKeys::new(&group);
    let owner: Option<OwnerEntry> =
        store.get(&keys.owner()).await?.and_then(|entry| decode(&entry.value));
    let mut member: Option<MemberEntry> = None;
    if let Some(OwnerEntry { gateway, .. }) = owner {
        let found = store.get(&keys.member(&gateway)).await?;
        member = found.and_then(|entry| decode(&entry.value));
    }
    if member.is_none() {
        let members = store.list(&keys.members(), MEMBERS_MAX).await?;
        member = members.iter().find_map(|entry| decode(&entry.value));
    }
    Ok(member.map(|MemberEntry { gateway, api, .. }| RoomOwner { group, gateway, api }))
}

/// A change of a claim that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum DueClaim {
    Claim,
    /// Names the revision of the claim.
    Release(u64),
}

#[derive(Debug)]
struct HeldClaim {
    revision: u64,
    /// Since then no session needs it.
    since: Instant,
    /// The offer that made it was refused.
    is_unused: bool,
}

/// Rooms of this gateway that its sessions share, and their claims.
#[derive(Default)]
pub(super) struct ClaimTable {
    /// The number of sessions of each room.
    sessions: BTreeMap<Arc<str>, usize>,
    claims: BTreeMap<Arc<str>, HeldClaim>,
    /// Rooms to compare with their claims.
    due: BTreeSet<Arc<str>>,
    /// Rooms that the store may have as this gateway's, although it did not say so in time.
    unanswered: BTreeSet<Arc<str>>,
    /// Rooms that another group has as well, and its name.
    duplicates: BTreeMap<Arc<str>, String>,
    duplicates_at: Option<Instant>,
}

impl ClaimTable {
    pub(super) fn enter(&mut self, room: &Arc<str>) {
        // Its session shares the room with none.
        if is_session_room_name(room) || is_first_packet_room(room) {
            return;
        }
        if let Some(claim) = self.claims.get_mut(room) {
            claim.is_unused = false;
        }
        let sessions = self.sessions.entry(Arc::clone(room)).or_default();
        *sessions += 1;
        if *sessions == 1 {
            self.due.insert(Arc::clone(room));
        }
    }

    pub(super) fn leave(&mut self, room: &Arc<str>) {
        let Some(sessions) = self.sessions.get_mut(room) else { return };
        *sessions -= 1;
        if *sessions == 0 {
            self.sessions.remove(room);
            self.duplicates.remove(room);
            match self.claims.get_mut(room) {
                Some(claim) => {
                    claim.since = Instant::now();
                    self.due.insert(Arc::clone(room));
                }
                None => drop(self.due.remove(room)),
            }
        }
    }

    /// Of two offers of a new room, the answer to the later one may come first.
    pub(super) fn note_claimed(&mut self, room: Arc<str>, revision: u64) {
        let known = self.claims.get(&room).map_or(0, |claim| claim.revision);
        let (revision, since) = (known.max(revision), Instant::now());
        self.claims.insert(Arc::clone(&room), HeldClaim { revision, since, is_unused: false });
        self.unanswered.remove(&room);
        self.duplicates.remove(&room);
        self.due.insert(room);
    }

    /// The store may have claimed the room. It is claimed again, and then released unless a session enters it.
    pub(super) fn note_unanswered(&mut self, room: Arc<str>) {
        self.unanswered.insert(Arc::clone(&room));
        self.due.insert(room);
    }

    /// No session needs the claim, unless another offer has made it again.
    pub(super) fn note_unused(&mut self, room: &Arc<str>, revision: u64) {
        if let Some(claim) = self.claims.get_mut(room).filter(|it| it.revision == revision) {
            claim.is_unused = true;
            self.due.insert(Arc::clone(room));
        }
    }

    /// The room is claimed in a later round.
    pub(super) fn note_contended(&mut self, room: Arc<str>) {
        if self.sessions.contains_key(&room) {
            self.due.insert(room);
        }
    }

    /// Returns false if it is known.
    pub(super) fn note_duplicate(&mut self, room: Arc<str>, group: &str) -> bool {
        self.unanswered.remove(&room);
        self.sessions.contains_key(&room)
            && self.duplicates.insert(room, group.to_owned()).is_none_or(|known| known != group)
    }

    pub(super) fn note_released(&mut self, room: &str, revision: u64) {
        if self.claims.get(room).is_some_and(|claim| claim.revision == revision) {
            self.claims.remove(room);
            // A session may have entered the room meanwhile.
            self.note_contended(room.into());
        }
    }

    /// Replaces the claims by those that the store has; all rooms are compared with them. Claims that were noted since the
    /// listing began stay, and all of them if it was cut off.
    pub(super) fn replace(
        &mut self,
        mut listed: BTreeMap<Arc<str>, u64>,
        began: Instant,
        is_cut_off: bool,
    ) {
        let now = Instant::now();
        self.claims.retain(|room, claim| match listed.remove(room) {
            Some(revision) => {
                claim.revision = claim.revision.max(revision);
                true
            }
            None => is_cut_off || claim.since >= began,
        });
        let held = |revision| HeldClaim { revision, since: now, is_unused: false };
        self.claims.extend(listed.into_iter().map(|(room, revision)| (room, held(revision))));
        let rooms = self.sessions.keys().chain(self.claims.keys()).chain(&self.unanswered);
        self.due.extend(rooms.cloned());
    }

    /// Another gateway serves the group.
    pub(super) fn forget(&mut self) {
        self.claims.clear();
        self.unanswered.clear();
    }

    /// Takes all claims, at the end of the gateway.
    pub(super) fn take_all(&mut self) -> Vec<(Arc<str>, DueClaim)> {
        let claims = std::mem::take(&mut self.claims).into_iter();
        claims.map(|(room, claim)| (room, DueClaim::Release(claim.revision))).collect()
    }

    pub(super) fn take_due(&mut self) -> Vec<(Arc<str>, DueClaim)> {
        let now = Instant::now();
        if self.duplicates_at.is_none_or(|at| at <= now) {
            self.duplicates_at = Some(now + DUPLICATES_EVERY);
            self.due.extend(self.duplicates.keys().cloned());
        }
        let (mut taken, mut later) = (Vec::new(), BTreeSet::new());
        for room in std::mem::take(&mut self.due) {
            let is_wanted = self.sessions.contains_key(&room) || self.unanswered.contains(&room);
            match self.claims.get(&room) {
                None if is_wanted => taken.push((room, DueClaim::Claim)),
                Some(claim) if !self.sessions.contains_key(&room) => {
                    if claim.is_unused || claim.since + UNUSED_FOR <= now {
                        taken.push((room, DueClaim::Release(claim.revision)));
                    } else {
                        later.insert(room);
                    }
                }
                _ => {}
            }
        }
        self.due = later;
        taken
    }
}

#[cfg(test)]
mod tests;
