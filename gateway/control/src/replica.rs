//! The records of another process, kept from its batches.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::iter::Peekable;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{GatewayRecord, RoomRecord, SessionRecord};
use evenkeel_dataplane::worker::TrunkState;
use evenkeel_drivers::DriversReplica;
use evenkeel_model::{MediaDescription, RoomId, SessionId};

use crate::offers::RequestInterner;
use crate::registry::ReservedPorts;
use crate::registry::record::{EntryRecord, RegistryRecord};
use crate::snapshot::{MediaRecord, RecordBatch, Snapshot};
use crate::{KEYS_MAX, KeyRecord};

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotApplied {
    #[error(
        "batch {found} came, batch {next} is the next: the records must be sent from the beginning"
    )]
    Gap { found: u64, next: u64 },
}

/// The records that batches brought so far.
#[derive(Debug, Default)]
pub struct Replica {
    number: u64,
    whole: bool,
    last: bool,
    /// Nodes, regions, memos and numbers.
    common: Option<GatewayRecord>,
    rooms: BTreeMap<RoomId, RoomRecord>,
    sessions: BTreeMap<SessionId, (SessionRecord, Arc<MediaDescription>)>,
    interner: RequestInterner,
    entries: BTreeMap<SessionId, EntryRecord>,
    states: BTreeMap<SessionId, MediaRecord>,
    /// Without sessions.
    registry: Option<RegistryRecord>,
    drivers: DriversReplica,
    trunks: Vec<Vec<TrunkState>>,
    next_offer: u64,
    idempotency_keys: VecDeque<KeyRecord>,
    /// Sessions of the last batch with sockets: descriptors follow in this order.
    with_sockets: Vec<SessionId>,
    ports: ReservedPorts,
}

impl Replica {
    /// A replica without records.
    pub fn new() -> Replica {
        Replica::default()
    }

    /// The records of a gateway that binds its sessions' own ports to this address, which moves here with them.
    pub fn with_ports_at(at: Option<IpAddr>) -> Replica {
        Replica { ports: ReservedPorts::new(at), ..Replica::default() }
    }

    /// The number of the last batch; 0 before the first one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns whether all records have come.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Takes the next batch. The first batch of a follower replaces all records.
    ///
    /// # Errors
    /// If a batch is missing. Nothing has changed then.
    pub fn apply(&mut self, batch: RecordBatch) -> Result<(), NotApplied> {
        let RecordBatch { number: found, whole, last, ended, dissolved, changed } = batch;
        let next = self.number + 1;
        if found == 1 {
            let ports = std::mem::take(&mut self.ports);
            *self = Replica { ports, ..Replica::default() };
        } else if found != next {
            return Err(NotApplied::Gap { found, next });
        }
        let was_whole = std::mem::replace(&mut self.whole, whole);
        (self.number, self.last) = (found, last);
        for id in ended {
            self.sessions.remove(&id);
            self.entries.remove(&id);
            self.states.remove(&id);
            self.drivers.forget(id);
            self.ports.forget(id);
        }
        for id in dissolved {
            self.rooms.remove(&id);
        }
        let Snapshot { core, registry, drivers, media, trunks, next_offer, idempotency_keys } =
            changed;
        self.drivers.apply(drivers, core.sessions.iter().map(|session| session.id));
        self.take_core(core);
        let mut registry = registry;
        for entry in std::mem::take(&mut registry.sessions) {
            if let Some(numbers) = entry.ports {
                self.ports.reserve(entry.session, registry.ports_at, numbers);
            }
            self.entries.insert(entry.session, entry);
        }
        if whole && !was_whole {
            // Sessions that ended while no batch came.
            self.ports.retain(|session| self.entries.contains_key(&session));
        }
        self.registry = Some(registry);
        // An earlier copy of a session with sockets may come before the one with its descriptors.
        let with_sockets = media.iter().filter(|record| record.sockets > 0);
        self.with_sockets = with_sockets.map(|record| record.state.session).collect();
        self.states.extend(media.into_iter().map(|record| (record.state.session, record)));
        (self.trunks, self.next_offer) = (trunks, next_offer);
        self.idempotency_keys.extend(idempotency_keys);
        let excess = self.idempotency_keys.len().saturating_sub(KEYS_MAX);
        self.idempotency_keys.drain(..excess);
        Ok(())
    }

    fn take_core(&mut self, core: GatewayRecord) {
        let GatewayRecord { rooms, sessions, media, .. } = core;
        self.rooms.extend(rooms.into_iter().map(|room| (room.id, room)));
        let shared: Vec<Arc<MediaDescription>> =
            media.into_iter().map(|media| self.interner.media.share(media)).collect();
        for mut session in sessions {
            if let Some(media) = shared.get(session.media as usize) {
                session.labels = self.interner.labels.share(session.labels);
                self.sessions.insert(session.id, (session, Arc::clone(media)));
            }
        }
        let before = self.common.take().filter(|_| core.nodes.is_empty());
        let (rooms, sessions, media) = Default::default();
        self.common = Some(match before {
            Some(GatewayRecord { nodes, regions, memos, .. }) => {
                GatewayRecord { nodes, regions, memos, rooms, sessions, media, ..core }
            }
            None => GatewayRecord { rooms, sessions, media, ..core },
        });
    }

    /// The state of a gateway with these records, and the sockets of its sessions. A session has none if its ports are
    /// not free here.
    pub fn snapshot_with_ports(mut self) -> Option<(Snapshot, Vec<OwnedFd>)> {
        let mut ports = std::mem::take(&mut self.ports);
        let at = self.registry.as_ref()?.ports_at;
        let mut snapshot = self.snapshot()?;
        let descriptors = snapshot.take_ports(|session, numbers| {
            ports.reserve(session, at, numbers);
            ports.take(session)
        });
        Some((snapshot, descriptors))
    }

    /// The state of a gateway with these records. A session is left out as long as a part of it is missing. `None`
    /// before the first batch.
    pub fn snapshot(self) -> Option<Snapshot> {
        let Replica { mut rooms, drivers, trunks, .. } = self;
        let (mut core, registry) = (self.common?, self.registry?);
        let now = Instant::now();
        let (mut entries, mut states) = (ById::new(self.entries), ById::new(self.states));
        let count = self.sessions.len();
        core.sessions = Vec::with_capacity(count);
        let (mut of_sessions, mut media_records) =
            (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut places: BTreeMap<*const MediaDescription, u32> = BTreeMap::new();
        for (id, (mut session, media)) in self.sessions {
            let (entry, mut state) = (entries.take(id), states.take(id));
            let Some(mut entry) = entry.filter(|_| rooms.contains_key(&session.room)) else {
                continue;
            };
            match &mut state {
                Some(MediaRecord { state, .. }) => {
                    if self.last {
                        state.stood_still();
                    }
                    state.keep_legs(|hop| session.legs.iter().any(|leg| leg.hop == hop));
                    session.legs.iter_mut().for_each(|leg| leg.open &= state.has_leg(leg.hop));
                    let heard = state.last_heard();
                    session.last_heard =
                        heard.map_or(session.last_heard, |at| at.max(session.last_heard));
                    entry.totals = state.totals(now).unwrap_or(entry.totals);
                }
                None => session.legs.iter_mut().for_each(|leg| leg.open = false),
            }
            let next = places.len() as u32;
            session.media = *places.entry(Arc::as_ptr(&media)).or_insert_with(|| {
                core.media.push(media);
                next
            });
            core.sessions.push(session);
            of_sessions.push(entry);
            media_records.extend(state);
        }
        let mut inhabited: Vec<RoomId> = core.sessions.iter().map(|it| it.room).collect();
        inhabited.sort_unstable();
        rooms.retain(|id, _| inhabited.binary_search(id).is_ok());
        core.rooms = rooms.into_values().collect();
        let places: BTreeMap<SessionId, usize> =
            self.with_sockets.iter().copied().zip(0..).collect();
        let place = |record: &MediaRecord| places.get(&record.state.session).copied();
        media_records.sort_by_key(|record| place(record).unwrap_or(places.len()));
        Some(Snapshot {
            drivers: drivers.record(),
            registry: registry.with_sessions(of_sessions),
            media: media_records,
            trunks,
            next_offer: self.next_offer,
            idempotency_keys: self.idempotency_keys.into(),
            core,
        })
    }
}

/// Parts of sessions, taken in the order of the sessions.
struct ById<T>(Peekable<btree_map::IntoIter<SessionId, T>>);

impl<T> ById<T> {
    fn new(parts: BTreeMap<SessionId, T>) -> ById<T> {
        ById(parts.into_iter().peekable())
    }

    /// Drops the parts of sessions before this one.
    fn take(&mut self, session: SessionId) -> Option<T> {
        while self.0.next_if(|(id, _)| *id < session).is_some() {}
        self.0.next_if(|(id, _)| *id == session).map(|(_, part)| part)
    }
}
