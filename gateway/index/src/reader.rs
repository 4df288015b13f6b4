//! Sessions of all gateways, from the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_contract::gateway::{self as contract, IndexedGateway};
use evenkeel_model::SessionId;
use tokio::sync::{Semaphore, watch};

use super::claim::{ClaimRevision, RoomClaim, RoomOwner, claim_room};
use super::desired::DesiredEntries;
use super::entry::{IndexKeys, IndexedSession, MemberEntry, OwnerEntry, decode, split};
use super::nats::Nats;
use super::store::{Store, StoreError};

/// Deadline of an answer, since a client waits for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Deadline of a claim, since an offer waits for it.
const CLAIMED_WITHIN: Duration = Duration::from_millis(20);

/// Gateways, and sessions of one id, that an answer names at most.
const GATEWAYS_MAX: usize = 1_000;

/// The state of the index, as this gateway knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexStatus {
    /// The state of the copy.
    pub state: IndexState,
    /// The reason why it is not current.
    pub reason: Option<String>,
}

evenkeel_model::named! {
    /// The state of the copy in the store.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum IndexState {
        /// Not connected yet.
        Starting = "starting",
        /// The store has the sessions of this gateway.
        Current = "current",
        /// The group's other gateway writes its sessions.
        Standby = "standby",
        /// The store names another owner, which is not replaced.
        Fenced = "fenced",
        /// The store is down or slow; entries are written again once it answers.
        Unreachable = "unreachable",
    }
}

/// The API's access to the index.
#[derive(Clone)]
pub struct IndexReader {
    /// Set once the thread of the index has a store.
    pub(super) store: watch::Receiver<Option<Nats>>,
    /// One listing at once: each reads many entries of the store.
    pub(super) turn: Arc<Semaphore>,
    pub(super) keys: IndexKeys,
    pub(super) desired: DesiredEntries,
    pub(super) status: watch::Receiver<IndexStatus>,
}

impl IndexReader {
    /// State of the connection, and its reason.
    pub fn status(&self) -> IndexStatus {
        let status = self.status.borrow().clone();
        // The thread of the index ends before the API only after a panic, or with a reason.
        match self.status.has_changed() {
            Err(_) if status.reason.is_none() => {
                let reason = Some("the thread of the index has ended".to_owned());
                IndexStatus { state: IndexState::Unreachable, reason }
            }
            _ => status,
        }
    }

    /// Notes the key of the offer that opened the session.
    pub fn note_key(&self, session: SessionId, key: &str) {
        self.desired.set_key(session, key);
    }

    /// Claims a new room for the group of this gateway. `None`: the store did not answer within 20 ms, or is known not to.
    ///
    /// # Errors
    /// Another group has the room.
    pub async fn claim(&self, room: &Arc<str>) -> Result<Option<ClaimRevision>, RoomOwner> {
        let store = self.store.borrow().clone();
        let is_usable =
            !matches!(self.status().state, IndexState::Fenced | IndexState::Unreachable);
        let Some(store) = store.filter(|_| is_usable) else { return Ok(None) };
        let claiming = claim_room(&store, &self.keys, room);
        match tokio::time::timeout(CLAIMED_WITHIN, claiming).await {
            Ok(Ok(RoomClaim::Claimed(revision))) => {
                self.desired.lock().claims.note_claimed(Arc::clone(room), revision);
                Ok(Some(ClaimRevision(revision)))
            }
            Ok(Ok(RoomClaim::Taken(owner))) => Err(owner),
            Ok(Ok(RoomClaim::Contended) | Err(_)) | Err(_) => {
                self.desired.lock().claims.note_unanswered(Arc::clone(room));
                Ok(None)
            }
        }
    }

    /// The offer that made the claim opened no session.
    pub fn note_unused(&self, room: &Arc<str>, ClaimRevision(revision): ClaimRevision) {
        self.desired.note_unused(room, revision);
    }

    /// The sessions of this id, at any gateway.
    pub async fn find(&self, session: SessionId) -> Result<Vec<contract::IndexedSession>, String> {
        self.ask(|store| find(store, session)).await
    }

    /// The gateways in the store.
    pub async fn members(&self) -> Result<Vec<IndexedGateway>, String> {
        self.ask(members).await
    }

    async fn ask<T, F>(&self, asking: impl FnOnce(Nats) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut store = self.store.clone();
        let answer = async {
            let _turn = self.turn.acquire().await;
            let store = store.wait_for(Option::is_some).await.ok().and_then(|store| store.clone());
            let ended = || StoreError("the index is not written".to_owned());
            asking(store.ok_or_else(ended)?).await
        };
        let late = |_| format!("no answer within {ANSWER_WITHIN:?}");
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(late)?;
        answer.map_err(|error| error.to_string())
    }
}

async fn find(
    store: impl Store,
    session: SessionId,
) -> Result<Vec<contract::IndexedSession>, StoreError> {
    let listed = store.list(&format!("*.session.{session}"), GATEWAYS_MAX).await?;
    let mut found = Vec::new();
    if listed.is_empty() {
        return Ok(found);
    }
    let members: BTreeMap<_, _> = members(store.clone())
        .await?
        .into_iter()
        .map(|it| ((it.group, it.gateway), it.api))
        .collect();
    for entry in listed {
        let Some((group, id)) = split(&entry.key) else { continue };
        let Some(session) = decode::<IndexedSession>(&entry.value) else { continue };
        let IndexedSession { v, room, scenario, opened_us, idempotency_key } = session;
        let owner = store.get(&IndexKeys::new(&group).owner()).await?;
        let owner: Option<OwnerEntry> = owner.and_then(|owner| decode(&owner.value));
        let owner = owner.map(|owner| (group.clone(), owner.gateway));
        let member = owner.and_then(|owner| members.get_key_value(&owner));
        found.push(contract::IndexedSession {
            gateway: member.map(|((_, gateway), _)| Arc::clone(gateway)),
            api: member.and_then(|(_, api)| *api),
            group,
            id: id.to_owned(),
            v,
            room,
            scenario,
            opened_us,
            idempotency_key,
        });
    }
    Ok(found)
}

async fn members(store: impl Store) -> Result<Vec<IndexedGateway>, StoreError> {
    let entries = store.list("*.member.*", GATEWAYS_MAX).await?;
    let listed = entries.iter().filter_map(|entry| {
        let (group, _) = split(&entry.key)?;
        let MemberEntry { v, gateway, role, epoch, started_us, api } = decode(&entry.value)?;
        let is_its_key = IndexKeys::new(&group).member(&gateway) == entry.key;
        let role = role.name().into();
        let listed = IndexedGateway { group, v, gateway, role, epoch, started_us, api };
        is_its_key.then_some(listed)
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort_by(|a, b| (&a.group, &a.gateway).cmp(&(&b.group, &b.gateway)));
    Ok(listed)
}

#[cfg(test)]
mod tests;
