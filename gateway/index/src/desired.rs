//! The sessions that this gateway serves, and those of them that changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evenkeel_group::{Group, GroupRole};
use evenkeel_model::SessionId;
use evenkeel_process::lock;
use tokio::sync::Notify;

use super::claim::ClaimTable;
use super::entry::{IndexKeys, IndexedSession, encode};
use super::store::StoreChange;

/// Two gateways compute the opening of one session from its age; they differ by the time that this takes.
const OPENED_WITHIN: Duration = Duration::from_secs(5);

/// Keys of offers for sessions that are not listed yet, since their events are on their way.
const EARLY_KEYS_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GroupPart {
    /// It belongs to no group.
    Alone,
    Member {
        role: GroupRole,
        epoch: u64,
    },
}

impl GroupPart {
    pub(super) fn of(group: Option<&Group>) -> GroupPart {
        match group {
            None => GroupPart::Alone,
            Some(group) => {
                let (role, epoch) = group.role();
                GroupPart::Member { role, epoch }
            }
        }
    }
}

/// Shared by the feed, the writer and the readers of the API; never locked across an await.
#[derive(Clone, Default)]
pub(super) struct DesiredEntries(Arc<DesiredState>);

#[derive(Default)]
struct DesiredState {
    table: Mutex<DesiredTable>,
    changed: Notify,
}

/// Bounded by the limit of sessions.
#[derive(Default)]
pub(super) struct DesiredTable {
    pub(super) sessions: BTreeMap<SessionId, IndexedSession>,
    /// Since they were taken.
    pub(super) changed: BTreeSet<SessionId>,
    /// The part in the group for which all sessions were listed.
    pub(super) listed_as: Option<GroupPart>,
    pub(super) claims: ClaimTable,
    early_keys: VecDeque<(SessionId, Arc<str>)>,
}

impl DesiredEntries {
    pub(super) fn lock(&self) -> MutexGuard<'_, DesiredTable> {
        lock(&self.0.table)
    }

    /// Returns once a session has changed since the last call.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    pub(super) fn open(&self, id: SessionId, session: IndexedSession) {
        self.lock().open(id, session);
        self.0.changed.notify_one();
    }

    pub(super) fn close(&self, id: SessionId) {
        let mut table = self.lock();
        if let Some(session) = table.sessions.remove(&id) {
            table.claims.leave(&session.room);
            table.changed.insert(id);
            self.0.changed.notify_one();
        }
    }

    pub(super) fn note_unused(&self, room: &Arc<str>, revision: u64) {
        self.lock().claims.note_unused(room, revision);
        self.0.changed.notify_one();
    }

    /// Notes the key of the offer that opened the session.
    pub(super) fn set_key(&self, id: SessionId, key: &str) {
        let mut table = self.lock();
        let Some(session) = table.sessions.get_mut(&id) else {
            table.early_keys.push_back((id, key.into()));
            let excess = table.early_keys.len().saturating_sub(EARLY_KEYS_MAX);
            table.early_keys.drain(..excess);
            return;
        };
        session.idempotency_key = Some(key.into());
        table.changed.insert(id);
        self.0.changed.notify_one();
    }

    pub(super) fn list(&self, listed: BTreeMap<SessionId, IndexedSession>, part: GroupPart) {
        let mut table = self.lock();
        table.listed_as = Some(part);
        let gone = table.sessions.extract_if(.., |id, _| !listed.contains_key(id));
        for (id, session) in gone.collect::<Vec<_>>() {
            table.claims.leave(&session.room);
            table.changed.insert(id);
        }
        for (id, session) in listed {
            table.open(id, session);
        }
        self.0.changed.notify_one();
    }
}

impl DesiredTable {
    fn open(&mut self, id: SessionId, mut session: IndexedSession) {
        if let Some(early) = self.early_keys.iter().position(|(early, _)| *early == id) {
            session.idempotency_key = self.early_keys.remove(early).map(|(_, key)| key);
        }
        if let Some(known) = self.sessions.get(&id) {
            if is_same(known, &session) {
                return;
            }
            // The clock was set: a listing computes another opening, and knows no key.
            session.idempotency_key =
                session.idempotency_key.or_else(|| known.idempotency_key.clone());
        }
        self.claims.enter(&session.room);
        if let Some(known) = self.sessions.insert(id, session) {
            self.claims.leave(&known.room);
        }
        self.changed.insert(id);
    }

    /// Notes each session that differs from the listed one, and no other. Returns how many of them had not changed here.
    pub(super) fn compare(
        &mut self,
        listed: &BTreeMap<SessionId, Option<IndexedSession>>,
    ) -> usize {
        let pending = std::mem::take(&mut self.changed);
        for (id, session) in &mut self.sessions {
            let found = listed.get(id).and_then(Option::as_ref);
            let Some(found) = found.filter(|found| is_same(found, session)) else {
                self.changed.insert(*id);
                continue;
            };
            // The gateway that served the session before knew its key, and when exactly it was opened.
            let key = session.idempotency_key.take().or_else(|| found.idempotency_key.clone());
            if key != found.idempotency_key {
                self.changed.insert(*id);
            }
            *session = IndexedSession { idempotency_key: key, ..found.clone() };
        }
        let gone = listed.keys().filter(|id| !self.sessions.contains_key(id));
        self.changed.extend(gone);
        self.changed.difference(&pending).count()
    }

    /// The writes that make `stored` equal to the sessions.
    pub(super) fn take_changes(
        &mut self,
        stored: &BTreeSet<SessionId>,
        keys: &IndexKeys,
    ) -> Vec<(SessionId, StoreChange)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let change = |id: SessionId| {
            let value = self.sessions.get(&id).map(encode);
            // A session that came and went between two writes.
            let is_needed = value.is_some() || stored.contains(&id);
            let change = StoreChange { key: keys.session(id), value, expires: None };
            is_needed.then_some((id, change))
        };
        changed.filter_map(change).collect()
    }
}

/// Both are of the same session, and differ at most by how they were computed.
fn is_same(one: &IndexedSession, other: &IndexedSession) -> bool {
    let apart = Duration::from_micros(one.opened_us.abs_diff(other.opened_us));
    one.room == other.room && one.scenario == other.scenario && apart <= OPENED_WITHIN
}
