//! Records: those of this gateway as they change, and the rooms, sessions and nodes of another process that continue here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_breakers::Breaker;
use evenkeel_model::{
    CoreEvent, Decider, FailureDomain, Hop, MediaDescription, MoveCause, NodeId, RegionId, RoomId,
    SessionId, ZoneId,
};
use evenkeel_nodes::Node;
use evenkeel_slo::SloRecord;

use crate::effects::{GatewayEffect, RoomNotice, Timer};
use crate::gateway::Gateway;
use crate::hop_map::HopMap;
use crate::record::{
    ChangedRecords, GatewayRecord, MemoRecord, NodeRecord, RegionRecord, RestoreError, Unsettled,
};
use crate::rooms::room::{MoveStep, PortMoveRecord, RescueChange, Room, RoomRecord, Stranded};
use crate::rooms::worklists::PORTS_EXPLAINED_WITHIN;
use crate::sessions::{Session, SessionRecord};

/// The records of a gateway as they change, and those of another process that continue here.
#[derive(Debug)]
pub struct Records<'a> {
    pub(super) gateway: &'a mut Gateway,
}

impl Gateway {
    /// Returns the records as they change.
    pub fn records(&mut self) -> Records<'_> {
        Records { gateway: self }
    }

    /// All live sessions with their rooms, and the state of nodes and regions.
    pub fn record(&mut self, now: Instant) -> GatewayRecord {
        self.records().all(now)
    }
}

impl Records<'_> {
    /// Makes [`Records::take_changed`] return all records, and then those that change.
    pub fn follow(&mut self) {
        self.gateway.sessions.follow();
        self.gateway.rooms.follow();
    }

    /// Stops noting changes, since no process takes them.
    pub fn unfollow(&mut self) {
        self.gateway.sessions.unfollow();
        self.gateway.rooms.unfollow();
    }

    /// The number of changed sessions or rooms, whichever is greater: [`Records::take_changed`] takes both side by side.
    pub fn changed(&self) -> usize {
        self.gateway.sessions.changes().len().max(self.gateway.rooms.changes().len())
    }

    /// Notes that another part of the session's record changed.
    pub fn note_session(&mut self, session: SessionId) {
        self.gateway.sessions.note_changed(session);
    }

    /// Releases the next part of the deferred changes: new states of policies. Called each 20 ms, it releases each within
    /// a second.
    pub fn release_deferred(&mut self) {
        self.gateway.sessions.release_deferred();
    }

    /// Takes the records of up to this many sessions and rooms that changed, or of all.
    pub fn take_changed(&mut self, at_most: Option<usize>, now: Instant) -> ChangedRecords {
        let sessions = self.gateway.sessions.take_changed(at_most);
        let changed = self.gateway.rooms.take_changed(at_most);
        let (mut live, mut ended) = (Vec::new(), Vec::new());
        for id in sessions {
            match self.gateway.sessions.get(&id) {
                Some(session) if session.is_live() => live.push(id),
                // It has never been live.
                Some(_) => {}
                None => ended.push(id),
            }
        }
        let waiting =
            if changed.is_empty() { BTreeSet::new() } else { self.gateway.questions.waiting() };
        let (mut rooms, mut dissolved) = (Vec::new(), Vec::new());
        for id in changed {
            let is_live = |session: &SessionId| {
                self.gateway.sessions.get(session).is_some_and(Session::is_live)
            };
            let stands =
                self.gateway.rooms.get(&id).is_some_and(|room| room.sessions().iter().any(is_live));
            match stands.then(|| self.room(id, &waiting, now)).flatten() {
                Some(room) => rooms.push(room),
                None => dissolved.push(id),
            }
        }
        let (sessions, media) = self.sessions(live.iter().map(|id| &self.gateway.sessions[id]));
        let whole =
            self.gateway.sessions.changes().is_whole() && self.gateway.rooms.changes().is_whole();
        let core = GatewayRecord { rooms, sessions, media, ..self.numbers() };
        ChangedRecords { core, ended, dissolved, whole }
    }

    /// Returns the record of all live sessions with their rooms, and of the nodes and regions.
    pub(crate) fn all(&self, now: Instant) -> GatewayRecord {
        let live = || self.gateway.sessions.values().filter(|session| session.is_live());
        let rooms: BTreeSet<RoomId> = live().map(Session::room).collect();
        let waiting = self.gateway.questions.waiting();
        let rooms = rooms.iter().filter_map(|id| self.room(*id, &waiting, now)).collect();
        let (sessions, media) = self.sessions(live());
        let slo = self.slo_record();
        GatewayRecord { rooms, sessions, media, slo, ..self.of_nodes() }
    }

    /// Returns the windows of all service level objectives, and the revisions that are judged by them.
    pub fn slo_record(&self) -> Option<SloRecord> {
        self.gateway.slos.record(&self.gateway.activations)
    }

    /// Returns the windows of the scenario after `last`, to which it sets `last`, and the judged revisions.
    pub fn next_slo_record(&self, last: &mut Option<Arc<str>>) -> Option<SloRecord> {
        self.gateway.slos.next_record(last, &self.gateway.activations)
    }

    /// Returns the record of nodes and regions alone.
    pub(crate) fn of_places(&self) -> GatewayRecord {
        GatewayRecord {
            nodes: self.nodes(),
            regions: self.regions(),
            client_breakers: self.gateway.admission.client_breakers.records(),
            provider_breakers: self.gateway.nodes.provider_records(),
            ..self.numbers()
        }
    }

    /// Returns the record without rooms and sessions.
    pub fn of_nodes(&self) -> GatewayRecord {
        let memos = self.gateway.policies.memos();
        let memos = memos
            .map(|(policy, memos)| MemoRecord { policy: policy.clone(), memos: memos.clone() });
        GatewayRecord { memos: memos.collect(), ..self.of_places() }
    }

    fn numbers(&self) -> GatewayRecord {
        GatewayRecord {
            nodes: Vec::new(),
            regions: Vec::new(),
            client_breakers: Vec::new(),
            provider_breakers: BTreeMap::new(),
            rooms: Vec::new(),
            sessions: Vec::new(),
            media: Vec::new(),
            memos: Vec::new(),
            slo: None,
            next_session: self.gateway.sessions.next_id().0,
            next_room: self.gateway.rooms.next_number(),
            started: self.gateway.questions.started,
        }
    }

    /// The sessions' records, and the media to which they refer.
    fn sessions<'a>(
        &self,
        sessions: impl Iterator<Item = &'a Session>,
    ) -> (Vec<SessionRecord>, Vec<Arc<MediaDescription>>) {
        let mut places: BTreeMap<&Arc<MediaDescription>, u32> = BTreeMap::new();
        let mut media = Vec::new();
        let records = sessions.map(|session| {
            let place = *places.entry(session.media()).or_insert_with(|| {
                media.push(Arc::clone(session.media()));
                media.len() as u32 - 1
            });
            self.session(session, place)
        });
        (records.collect(), media)
    }

    fn nodes(&self) -> Vec<NodeRecord> {
        let nodes = self.gateway.nodes.iter().map(|node| NodeRecord {
            hop: node.hop(),
            name: node.settings.name.clone(),
            trust: node.trust_record(),
            drain: self.gateway.drains.get(node.id),
            gauge: self.gateway.capacity.ledger().gauge(node.id).clone(),
        });
        nodes.collect()
    }

    fn regions(&self) -> Vec<RegionRecord> {
        let regions = self.gateway.nodes.regions().zip(&self.gateway.settings.regions);
        let breakers = &self.gateway.capacity.domain_breakers;
        let breaker = |place| breakers.get(place).cloned();
        let records = regions.filter_map(|(region, name)| {
            Some(RegionRecord {
                name: name.clone(),
                drained: self.gateway.nodes.is_drained(FailureDomain::Region(region)),
                drained_zones: self
                    .zones_of(region)
                    .filter(|(zone, _)| self.gateway.nodes.is_drained(*zone))
                    .map(|(_, name)| name.into())
                    .collect(),
                failback: self.gateway.worklists.away.failback(region),
                breaker: breaker(FailureDomain::Region(region))?,
                zone_breakers: self
                    .zones_of(region)
                    .filter_map(|(zone, name)| Some((name.into(), breaker(zone)?)))
                    .filter(|(_, breaker)| !breaker.is_at_rest())
                    .collect(),
            })
        });
        records.collect()
    }

    fn zones_of(&self, region: RegionId) -> impl Iterator<Item = (FailureDomain, &str)> {
        let zones = (0..).map(ZoneId).zip(self.gateway.nodes.zones());
        let there = zones.filter(move |(_, zone)| zone.region == region);
        there.map(|(id, zone)| (FailureDomain::Zone(id), &*zone.name))
    }

    pub(crate) fn room(
        &self,
        id: RoomId,
        waiting: &BTreeSet<RoomId>,
        now: Instant,
    ) -> Option<RoomRecord> {
        let room = self.gateway.rooms.get(&id)?;
        let is_away = self.gateway.worklists.away.contains(id);
        let due = self.gateway.effects.due(&Timer::RoomDue(id));
        let mut record = room.to_record(is_away, due, waiting.contains(&id), now);
        record.port_moves = self.gateway.worklists.closed_ports.records(room);
        Some(record)
    }

    pub(crate) fn session(&self, session: &Session, media: u32) -> SessionRecord {
        session.to_record(media, self.gateway.capacity.reduced.since(session.id()))
    }

    /// See [`Gateway::handle_record`](crate::Gateway::handle_record).
    pub(crate) fn restore(
        &mut self,
        record: GatewayRecord,
        node: impl Fn(&str) -> Option<NodeId>,
        now: Instant,
    ) -> Result<HopMap, RestoreError> {
        if !self.gateway.sessions.is_empty() {
            return Err(RestoreError::HasSessions);
        }
        record.check()?;
        let GatewayRecord { nodes, regions, client_breakers, provider_breakers, .. } = record;
        let GatewayRecord { rooms, sessions, media, memos, .. } = record;
        self.gateway.sessions.resume_numbers(SessionId(record.next_session));
        self.gateway.rooms.resume_numbers(record.next_room);
        // States of policies refer to the time that they saw in the other process.
        self.gateway.questions.started = self.gateway.questions.started.min(record.started);
        for MemoRecord { policy, memos } in memos {
            self.gateway.policies.restore_memos(policy, memos);
        }
        let older = sessions.iter().any(SessionRecord::keeps_other_states)
            || rooms.iter().any(RoomRecord::keeps_other_states);
        if older {
            self.gateway.policies.expect_older_states();
        }
        // Notices wait for the rooms to be settled.
        let regions = self.restore_regions(&regions, now);
        let Gateway { slos, activations, settings, .. } = &mut *self.gateway;
        slos.restore(record.slo, activations, settings, now);
        self.gateway.nodes.restore_providers(provider_breakers);
        let events = self.gateway.admission.client_breakers.restore(client_breakers, now);
        events.into_iter().for_each(|event| self.gateway.effects.event(event));
        let hops = self.restore_nodes(nodes, node, now);
        self.restore_rooms(rooms, sessions, media, &hops, &regions, now);
        Ok(hops)
    }

    /// Returns the regions by their numbers in the record. A region without a successor is the home region.
    pub(crate) fn restore_regions(
        &mut self,
        regions: &[RegionRecord],
        now: Instant,
    ) -> Vec<RegionId> {
        let mut found = Vec::new();
        for record in regions {
            let place = self.gateway.settings.regions.iter().position(|name| *name == record.name);
            let Some(place) = place else {
                found.push(self.gateway.nodes.home());
                continue;
            };
            let region = RegionId(place as u32);
            self.gateway.worklists.away.set_failback(Some(region), record.failback);
            let Gateway { capacity, effects, nodes, .. } = &mut *self.gateway;
            let (breakers, names) = (&mut capacity.domain_breakers, nodes.zones());
            let mut restore = |place, breaker: Option<&Breaker>| {
                let event = breakers.restore(place, breaker, names, now);
                event.into_iter().for_each(|event| effects.event(event));
            };
            restore(FailureDomain::Region(region), Some(&record.breaker));
            for (id, zone) in (0..).map(ZoneId).zip(names).filter(|(_, it)| it.region == region) {
                let found = record.zone_breakers.iter().find(|(name, _)| *name == zone.name);
                restore(FailureDomain::Zone(id), found.map(|(_, breaker)| breaker));
            }
            self.gateway.nodes.set_drained(FailureDomain::Region(region), record.drained);
            let zones = (0..).map(ZoneId).zip(self.gateway.nodes.zones());
            let drained = zones.filter(|(_, zone)| {
                zone.region == region && record.drained_zones.contains(&zone.name)
            });
            for zone in drained.map(|(id, _)| id).collect::<Vec<ZoneId>>() {
                self.gateway.nodes.set_drained(FailureDomain::Zone(zone), true);
            }
            found.push(region);
        }
        found
    }

    /// Continues the trust in nodes, and their drains, and reports what is new to this process. Returns the hops that lead to them.
    pub(crate) fn restore_nodes(
        &mut self,
        nodes: Vec<NodeRecord>,
        node: impl Fn(&str) -> Option<NodeId>,
        now: Instant,
    ) -> HopMap {
        let kept = nodes.iter().filter(|record| !record.trust.removed);
        let kept: BTreeSet<Box<str>> = kept.map(|record| record.name.clone()).collect();
        let mut hops = HopMap::new(self.gateway.settings.limits.nodes_max as u32);
        for NodeRecord { hop, name, trust, drain, gauge } in nodes {
            // The name of a removed node may have gone to another one.
            let replaced = trust.removed && kept.contains(&name);
            let id = node(&name).filter(|id| !replaced && !hops.leads_to(*id));
            let Some(id) = id.filter(|id| self.gateway.nodes.get(*id).is_some()) else { continue };
            let (from, drained) =
                (self.gateway.nodes[id].health(), self.gateway.nodes[id].drains());
            self.gateway.nodes.resume(id, &trust);
            self.gateway.capacity.ledger.gauge_mut(id).resume(&gauge);
            let node = &self.gateway.nodes[id];
            let (to, last_heard) = (node.health(), node.detector.last_heard());
            if from != to {
                let (hop, witnesses) = (node.hop(), Vec::new());
                self.gateway.effects.event(CoreEvent::Node {
                    hop,
                    from,
                    to,
                    witnesses,
                    last_heard,
                    rooms: 0,
                });
            }
            if node.drains() && !drained {
                self.gateway.effects.event(CoreEvent::Draining { node: id, draining: true });
            }
            if let Some(drain) = drain.filter(|_| node.drains()) {
                self.gateway.drains.resume(id, drain);
                self.gateway.effects.set(Timer::Drain(id), now);
            }
            if node.loses_more_than_others() {
                self.gateway.effects.set_if_idle(Timer::Cohorts, now);
            }
            hops.renumber(hop.node, id);
            // The incarnation of a cold node ended with it, even if the node was started meanwhile.
            if trust.runs() || !node.runs() {
                hops.insert(hop, node.hop());
            }
        }
        let is_new = |id: &NodeId| !hops.leads_to(*id);
        let drained = |id: &NodeId| self.gateway.nodes.is_in_drained(*id);
        let new = self.gateway.nodes.iter().map(|node| node.id).filter(is_new);
        for id in new.filter(drained).collect::<Vec<NodeId>>() {
            self.gateway.decide_drain(id, |node| node.trust.draining = true, now);
        }
        hops
    }

    /// Continues the rooms, for [`Self::restore_session`]. Packets follow the recorded routes until
    /// [`Self::settle_restored`].
    pub(crate) fn restore_rooms(
        &mut self,
        rooms: Vec<RoomRecord>,
        sessions: Vec<SessionRecord>,
        media: Vec<Arc<MediaDescription>>,
        hops: &HopMap,
        regions: &[RegionId],
        now: Instant,
    ) {
        let unsettled = Unsettled::new(&rooms, sessions, media, hops.clone(), now);
        for room in rooms {
            let region = regions.get(room.region().0 as usize).copied();
            self.restore_room(room, region.unwrap_or(self.gateway.nodes.home()), hops, now);
        }
        self.gateway.unsettled = Some(Box::new(unsettled));
    }

    /// Continues the next session. Returns true if there was one.
    pub(crate) fn restore_session(&mut self) -> bool {
        let Some(mut unsettled) = self.gateway.unsettled.take() else { return false };
        let next = unsettled.next_session();
        let found = next.is_some();
        if let Some((session, media)) = next {
            self.continue_session(session, media, &unsettled);
        }
        self.gateway.unsettled = Some(unsettled);
        found
    }

    /// Weighs and publishes the routes of restored rooms, and opens their sessions where they are not open, in the order of
    /// the rooms' priority. Rooms leave hops that died or disappeared meanwhile as they always do.
    pub(crate) fn settle_restored(&mut self, now: Instant) {
        while self.restore_session() {}
        let Some(unsettled) = self.gateway.unsettled.take() else { return };
        let mut ids: Vec<RoomId> = self.gateway.rooms.keys().collect();
        // A driver serves openings in their order.
        ids.sort_by_cached_key(|id| Reverse(self.gateway.rooms[id].priority()));
        // All rooms hold their capacity before any is weighed, so that none takes the reserve of another.
        for id in &ids {
            let covers = unsettled.covers(*id);
            self.gateway.change_room(*id, |room, scales| room.resume_holding(covers, scales));
        }
        for id in &ids {
            self.gateway.change_room(*id, Room::republish);
        }
        for id in unsettled.lost() {
            self.report_lost(*id, now);
        }
        let dead: Vec<Hop> = (self.gateway.nodes.iter().map(Node::hop))
            .filter(|hop| {
                !self.gateway.nodes.is_up(*hop)
                    && !self.gateway.worklists.by_node.at(hop.node).is_empty()
            })
            .collect();
        for hop in &dead {
            self.gateway.mark_down(*hop, now, now);
        }
        for hop in dead {
            self.gateway.fail_over(hop.node, now);
        }
        for id in ids {
            self.gateway.close_left_hops(id, now);
            // An opening under way at the other process is repeated.
            let mut hops = self.gateway.rooms.get(&id).map(Room::hops_to_open).unwrap_or_default();
            hops.retain(|hop| self.gateway.nodes.is_up(*hop));
            for session in self.gateway.sessions_of(id, Session::is_live) {
                for &hop in &hops {
                    self.gateway.open_at(session, hop, now);
                }
            }
        }
        if !self.gateway.worklists.stranded.is_empty() {
            self.gateway.effects.set(Timer::Rescue, now);
        }
        if !self.gateway.worklists.changing.is_empty() {
            self.gateway.effects.set(Timer::Change, now);
        }
        if !self.gateway.worklists.away.is_empty() {
            self.gateway.effects.set_if_idle(Timer::Failback, now);
        }
    }

    fn restore_room(
        &mut self,
        mut record: RoomRecord,
        region: RegionId,
        hops: &HopMap,
        now: Instant,
    ) {
        let (id, away) = (record.id, record.is_away());
        let (due, waits) = (record.due(), record.awaits_policy());
        let port_moves = std::mem::take(&mut record.port_moves);
        let room = Room::of_record(record, region, hops, now);
        for port in port_moves {
            let port = PortMoveRecord { hop: hops.past(port.hop), ..port };
            self.gateway.worklists.closed_ports.restore(&room, port);
            let settled = now + PORTS_EXPLAINED_WITHIN;
            self.gateway.effects.set_if_idle(Timer::ClosedPorts, settled);
        }
        let scenario = self.gateway.settings.scenarios.get(room.scenario());
        if scenario.is_some_and(|scenario| scenario.mode != room.mode()) {
            self.gateway.worklists.changing.insert(id);
        }
        if let Some(Stranded { attempts, .. }) = room.stranded() {
            let rescue = RescueChange { before: None, after: Some(attempts) };
            self.gateway.worklists.stranded.apply(&room, rescue);
        }
        self.gateway.rooms.restore(room);
        self.gateway.alter_room(id, |room| room.set_away(away));
        if let Some(due) = due {
            self.gateway.effects.set(Timer::RoomDue(id), due);
        }
        if waits {
            self.gateway.effects.want_reroute(id);
        }
    }

    fn continue_session(
        &mut self,
        record: SessionRecord,
        media: Arc<MediaDescription>,
        unsettled: &Unsettled,
    ) {
        let id = record.id;
        let Gateway { sessions, rooms, slos, .. } = &mut *self.gateway;
        let Some(room) = rooms.unrecorded_mut(&record.room) else { return };
        room.join(id);
        let (hops, reduced) = (unsettled.hops(), record.reduced_since());
        let session = sessions.of_record(record, media, room, hops, slos, unsettled.restored());
        let restored = session.installed(room);
        self.gateway.effects.push(GatewayEffect::Restore(restored));
        self.gateway.capacity.reduced.set(id, reduced);
        if let Some(group) = session.voice_only_for() {
            self.gateway.admission.client_breakers.note_voice_only(id, group.clone());
        }
        let ticks = self.gateway.degradation_policy(session.scenario());
        self.gateway.sessions.restore(session, ticks);
        self.gateway.effects.notice(RoomNotice::Enrol(id));
    }

    /// The room's node is not listed here: reports that the room is stranded.
    fn report_lost(&mut self, id: RoomId, now: Instant) {
        let Some(stranded) = self.gateway.rooms.get(&id).and_then(Room::stranded) else {
            return;
        };
        self.gateway.want_start(id, now);
        let (cause, by) = (MoveCause::NodeDown, self.gateway.rooms.intern(Decider::Native));
        let step = MoveStep { cause, by, from: stranded.lost, to: None, started: stranded.since };
        self.gateway.moved(id, step, now);
    }
}
