//! The record of this gateway, and the sessions of another one's record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{MediaDescription, NodeId, RoomId, SessionId};

use super::Gateway;
use crate::sessions::{LegState, Session, SessionPhase};
use crate::timer::Timer;
use crate::{
    ChangedRecords, GatewayEffect, GatewayRecord, HopMap, LegRecord, MemoRecord, NodeRecord,
    RegionRecord, RestoreError, RoomRecord, SessionRecord,
};

/// The records of a gateway as they change.
#[derive(Debug)]
pub struct Records<'a>(pub(super) &'a mut Gateway);

impl Records<'_> {
    /// Has [`Records::take_changed`] return all records, and then those that change.
    pub fn follow(&mut self) {
        self.0.sessions.follow();
        self.0.rooms.follow();
    }

    pub fn unfollow(&mut self) {
        self.0.sessions.changes.unfollow();
        self.0.rooms.changes.unfollow();
    }

    pub fn have_changed(&self) -> bool {
        !(self.0.sessions.changes.is_empty() && self.0.rooms.changes.is_empty())
    }

    /// Has the next part of the deferred changes taken: new states of policies. Called each 20 ms, it has each taken within a
    /// second.
    pub fn release_deferred(&mut self) {
        self.0.sessions.changes.release();
    }

    /// Takes all records that changed.
    pub fn take_all_changed(&mut self, now: Instant) -> ChangedRecords {
        let sessions = self.0.sessions.changes.take_all();
        let rooms = self.0.rooms.changes.take_all();
        changed_records(self.0, sessions, rooms, now)
    }

    /// Takes the records of up to this many sessions and rooms that changed.
    pub fn take_changed(&mut self, at_most: usize, now: Instant) -> ChangedRecords {
        let sessions = self.0.sessions.changes.take(at_most);
        let rooms = self.0.rooms.changes.take(at_most);
        changed_records(self.0, sessions, rooms, now)
    }

    /// The record without rooms and sessions.
    pub fn of_nodes(&self) -> GatewayRecord {
        of_nodes(self.0)
    }

    /// Decides about the restored sessions, while their packets are served: weighs and publishes the routes, and moves
    /// rooms off a node that is down or not listed here.
    pub fn settle(&mut self, now: Instant) {
        self.0.route(now, |gateway| gateway.restoration().settle_restored(now));
    }
}

/// Continues the next session of a record: it is new in the caches of the processor when its output is executed.
pub(super) fn restore_next(gateway: &mut Gateway) -> Option<GatewayEffect> {
    gateway.restoration().restore_session().then(|| gateway.effects.pop()).flatten()
}

pub(super) fn record(gateway: &Gateway, now: Instant) -> GatewayRecord {
    let live = || gateway.sessions.values().filter(|session| session.phase == SessionPhase::Live);
    let rooms: BTreeSet<RoomId> = live().map(|session| session.room).collect();
    let waiting = gateway.questions.waiting();
    let rooms = rooms.iter().filter_map(|id| room_record(gateway, *id, &waiting, now)).collect();
    let (sessions, media) = session_records(gateway, live());
    GatewayRecord { rooms, sessions, media, ..of_nodes(gateway) }
}

fn of_nodes(gateway: &Gateway) -> GatewayRecord {
    let memos = gateway.policies.memos();
    GatewayRecord {
        nodes: node_records(gateway),
        regions: region_records(gateway),
        memos: memos
            .map(|(policy, memo)| MemoRecord { policy: policy.clone(), memo: memo.clone() })
            .collect(),
        ..numbers(gateway)
    }
}

fn numbers(gateway: &Gateway) -> GatewayRecord {
    GatewayRecord {
        nodes: Vec::new(),
        regions: Vec::new(),
        rooms: Vec::new(),
        sessions: Vec::new(),
        media: Vec::new(),
        memos: Vec::new(),
        next_session: gateway.sessions.next_id().0,
        next_room: gateway.rooms.next_number(),
        started: gateway.questions.started(),
    }
}

fn changed_records(
    gateway: &Gateway,
    sessions: Vec<SessionId>,
    changed: Vec<RoomId>,
    now: Instant,
) -> ChangedRecords {
    let (mut live, mut ended) = (Vec::new(), Vec::new());
    for id in sessions {
        match gateway.sessions.get(&id) {
            Some(session) if session.phase == SessionPhase::Live => live.push(id),
            // It has never been live.
            Some(_) => {}
            None => ended.push(id),
        }
    }
    let waiting = if changed.is_empty() { BTreeSet::new() } else { gateway.questions.waiting() };
    let (mut rooms, mut dissolved) = (Vec::new(), Vec::new());
    for id in changed {
        let is_live = |session: &SessionId| {
            gateway.sessions.get(session).is_some_and(|it| it.phase == SessionPhase::Live)
        };
        let stands = gateway.rooms.get(&id).is_some_and(|room| room.sessions.iter().any(is_live));
        match stands.then(|| room_record(gateway, id, &waiting, now)).flatten() {
            Some(room) => rooms.push(room),
            None => dissolved.push(id),
        }
    }
    let (sessions, media) = session_records(gateway, live.iter().map(|id| &gateway.sessions[id]));
    let whole = gateway.sessions.changes.is_whole() && gateway.rooms.changes.is_whole();
    let core = GatewayRecord { rooms, sessions, media, ..numbers(gateway) };
    ChangedRecords { core, ended, dissolved, whole }
}

/// The sessions' records, and the media to which they refer.
fn session_records<'a>(
    gateway: &Gateway,
    sessions: impl Iterator<Item = &'a Session>,
) -> (Vec<SessionRecord>, Vec<Arc<MediaDescription>>) {
    let mut places: BTreeMap<&Arc<MediaDescription>, u32> = BTreeMap::new();
    let mut media = Vec::new();
    let records = sessions.map(|session| {
        let place = *places.entry(&session.request.media).or_insert_with(|| {
            media.push(Arc::clone(&session.request.media));
            media.len() as u32 - 1
        });
        session_record(gateway, session, place)
    });
    (records.collect(), media)
}

fn node_records(gateway: &Gateway) -> Vec<NodeRecord> {
    let nodes = gateway.nodes.iter().map(|node| NodeRecord {
        hop: node.hop(),
        name: node.settings.name.clone(),
        trust: node.trust(),
        drain: gateway.rooms.drain_of(node.id),
        gauge: gateway.capacity.ledger().gauge(node.id).clone(),
    });
    nodes.collect()
}

fn region_records(gateway: &Gateway) -> Vec<RegionRecord> {
    let regions = gateway.nodes.regions().zip(&gateway.settings.regions);
    let records = regions.map(|(region, name)| RegionRecord {
        name: name.clone(),
        drained: gateway.nodes.is_drained(region),
        failback: gateway.rooms.failback(region),
        breaker: gateway.capacity.breaker_record(region),
    });
    records.collect()
}

fn room_record(
    gateway: &Gateway,
    id: RoomId,
    waiting: &BTreeSet<RoomId>,
    now: Instant,
) -> Option<RoomRecord> {
    let record = gateway.rooms.get(&id)?.to_record(now);
    Some(RoomRecord {
        away: gateway.rooms.is_away(id),
        due: gateway.effects.timers().due(&Timer::RoomDue(id)),
        waits: record.waits || waiting.contains(&id),
        ..record
    })
}

fn session_record(gateway: &Gateway, session: &Session, media: u32) -> SessionRecord {
    let legs = session.legs.iter().filter_map(|(hop, leg)| match leg {
        LegState::Waiting => None,
        LegState::Opening(_) => Some(LegRecord { hop: *hop, open: false }),
        LegState::Open => Some(LegRecord { hop: *hop, open: true }),
    });
    SessionRecord {
        id: session.id,
        room: session.room,
        labels: Arc::clone(&session.request.labels),
        media,
        transport: session.transport,
        of_first_packet: session.of_first_packet,
        offered: session.offered,
        bounds: session.bounds,
        close_after: session.close_after,
        plan: session.plan,
        share: session.share,
        reduced: gateway.capacity.reduced_since(session.id),
        admitted_by: (*session.admitted_by).clone(),
        legs: legs.collect(),
        last_heard: session.last_heard,
        memory: session.memory.clone(),
    }
}

pub(super) fn restore(
    gateway: &mut Gateway,
    record: GatewayRecord,
    node: impl Fn(&str) -> Option<NodeId>,
    now: Instant,
) -> Result<HopMap, RestoreError> {
    if !gateway.sessions.is_empty() {
        return Err(RestoreError::HasSessions);
    }
    record.check()?;
    let GatewayRecord { nodes, regions, rooms, sessions, media, memos, .. } = record;
    gateway.sessions.resume_numbers(record.next_session);
    gateway.rooms.resume_numbers(record.next_room);
    gateway.questions.resume_time(record.started);
    for MemoRecord { policy, memo } in memos {
        gateway.policies.restore_memo(policy, memo);
    }
    let older = sessions.iter().any(|session| session.memory.keeps_other())
        || rooms.iter().any(|room| room.memory.keeps_other());
    if older {
        gateway.policies.expect_older_states();
    }
    // Notices wait for the rooms to be settled.
    let mut restoration = gateway.restoration();
    let regions = restoration.restore_regions(&regions);
    let hops = restoration.restore_nodes(nodes, node, now);
    restoration.restore_rooms(rooms, sessions, media, &hops, &regions, now);
    Ok(hops)
}
