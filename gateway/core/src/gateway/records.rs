//! Records: those of this gateway as they change, and the rooms, sessions and nodes of another process that continue here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_breakers::Breaker;
use evenkeel_model::{
    BreakerMode, CoreEvent, Decider, FailureDomain, Hop, MediaDescription, MoveCause, NodeId,
    RegionId, RoomId, SessionId, ZoneId,
};
use evenkeel_nodes::Node;
use evenkeel_slo::SloRecord;

use crate::effects::{GatewayEffect, RoomNotice, Timer};
use crate::gateway::{Gateway, Tables};
use crate::hop_map::HopMap;
use crate::record::{
    BreakersRecord, ChangedRecords, GatewayRecord, MemoRecord, NodeRecord, RegionBreakerRecord,
    RegionRecord, RestoreError, Unsettled,
};
use crate::rooms::room::{MoveStep, RescueChange, Room, RoomRecord};
use crate::rooms::worklists::{PORTS_EXPLAINED_WITHIN, Worklists};
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
        let Gateway { rooms, tables, .. } = &mut *self.gateway;
        tables.sessions.follow();
        tables.worklists.changed.follow(rooms.keys());
    }

    /// Stops noting changes, since no process takes them.
    pub fn unfollow(&mut self) {
        self.gateway.tables.sessions.unfollow();
        self.gateway.tables.worklists.changed.unfollow();
    }

    /// The number of changed sessions or rooms, whichever is greater: [`Records::take_changed`] takes both side by side.
    pub fn changed(&self) -> usize {
        let Tables { sessions, worklists, .. } = &self.gateway.tables;
        sessions.changes().len().max(worklists.changed.len())
    }

    /// Notes that another part of the session's record changed.
    pub fn note_session(&mut self, session: SessionId) {
        self.gateway.tables.sessions.note_changed(session);
    }

    /// Releases the next part of the deferred changes: new states of policies. Called each 20 ms, it releases each within
    /// a second.
    pub fn release_deferred(&mut self) {
        self.gateway.tables.sessions.release_deferred();
    }

    /// Takes the records of up to this many sessions and rooms that changed, or of all.
    pub fn take_changed(&mut self, at_most: Option<usize>, now: Instant) -> ChangedRecords {
        let sessions = self.gateway.tables.sessions.take_changed(at_most);
        let changed = self.gateway.tables.worklists.changed.take(at_most);
        let (mut live, mut ended) = (Vec::new(), Vec::new());
        for id in sessions {
            match self.gateway.tables.sessions.get(&id) {
                Some(session) if session.is_live() => live.push(id),
                // It has never been live.
                Some(_) => {}
                None => ended.push(id),
            }
        }
        let (mut rooms, mut dissolved) = (Vec::new(), Vec::new());
        for id in changed {
            let is_live = |session: &SessionId| {
                self.gateway.tables.sessions.get(session).is_some_and(Session::is_live)
            };
            let room = self.gateway.rooms.get(&id);
            match room.filter(|room| room.sessions().iter().any(is_live)) {
                Some(room) => rooms.push(self.room(room, now)),
                None => dissolved.push(id),
            }
        }
        let (sessions, media) =
            self.sessions(live.iter().map(|id| &self.gateway.tables.sessions[id]));
        let Tables { sessions: table, worklists, .. } = &self.gateway.tables;
        let whole = table.changes().is_whole() && worklists.changed.is_whole();
        let core = GatewayRecord { rooms, sessions, media, ..self.numbers() };
        ChangedRecords { core, ended, dissolved, whole }
    }

    /// Returns the record of all live sessions with their rooms, and of the nodes and regions.
    pub(crate) fn all(&self, now: Instant) -> GatewayRecord {
        let live = || self.gateway.tables.sessions.values().filter(|session| session.is_live());
        let rooms: BTreeSet<RoomId> = live().map(Session::room).collect();
        let rooms = rooms.iter().filter_map(|id| self.gateway.rooms.get(id));
        let rooms = rooms.map(|room| self.room(room, now)).collect();
        let (sessions, media) = self.sessions(live());
        let slo = self.slo_record();
        GatewayRecord { rooms, sessions, media, slo, ..self.of_nodes() }
    }

    /// Returns the windows of all service level objectives, and the revisions that are judged by them.
    pub fn slo_record(&self) -> Option<SloRecord> {
        self.gateway.tables.slos.record(&self.gateway.activations)
    }

    /// Returns the windows of the scenario after `last`, to which it sets `last`, and the judged revisions.
    pub fn next_slo_record(&self, last: &mut Option<Arc<str>>) -> Option<SloRecord> {
        self.gateway.tables.slos.next_record(last, &self.gateway.activations)
    }

    /// As [`Records::next_slo_record`], for a process that continues no session.
    pub fn next_slo_record_once_ended(
        &self,
        last: &mut Option<Arc<str>>,
        now: Instant,
    ) -> Option<SloRecord> {
        self.gateway.tables.slos.next_record_once_ended(last, now)
    }

    /// Continues the windows of an earlier process, of which no session is left.
    pub fn restore_slo_windows(&mut self, record: SloRecord) {
        let Tables { slos, settings, .. } = &mut self.gateway.tables;
        slos.restore_windows(record, settings);
    }

    /// Returns the automatic breakers that do not act as new ones.
    pub fn breakers(&self) -> BreakersRecord {
        let breakers = &self.gateway.tables.capacity.domain_breakers;
        let unrested = |place, region: &str, zone: Option<&str>| {
            let is_automatic = |it: &&Breaker| it.mode() == BreakerMode::Auto && !it.is_at_rest();
            let breaker = breakers.get(place).filter(is_automatic)?;
            let (region, zone) = (region.into(), zone.map(Into::into));
            Some(RegionBreakerRecord { region, zone, breaker: breaker.clone() })
        };
        let places = self.gateway.tables.nodes.regions().zip(&self.gateway.tables.settings.regions);
        let regions = places.flat_map(|(region, name)| {
            let zones = self.zones_of(region);
            let zones = zones.filter_map(move |(zone, it)| unrested(zone, name, Some(it)));
            unrested(FailureDomain::Region(region), name, None).into_iter().chain(zones)
        });
        let clients = self.gateway.admission.client_breakers.records().into_iter();
        BreakersRecord {
            regions: regions.collect(),
            clients: clients.filter(|it| it.mode() == BreakerMode::Auto).collect(),
            providers: self.gateway.tables.nodes.provider_records(),
        }
    }

    /// Continues the automatic breakers of an earlier process, of which no session is left.
    pub fn restore_breakers(&mut self, record: BreakersRecord, now: Instant) {
        let BreakersRecord { regions, clients, providers } = record;
        for RegionBreakerRecord { region, zone, breaker } in regions {
            let mut known = self.gateway.tables.settings.regions.iter();
            let Some(number) = known.position(|name| *name == region) else { continue };
            let id = RegionId(number as u32);
            let place = match zone {
                None => Some(FailureDomain::Region(id)),
                Some(zone) => {
                    self.zones_of(id).find(|(_, name)| **name == *zone).map(|(place, _)| place)
                }
            };
            let Tables { capacity, effects, nodes, .. } = &mut self.gateway.tables;
            let event = place.and_then(|place| {
                capacity.domain_breakers.restore(place, Some(&breaker), nodes.zones(), now)
            });
            event.into_iter().for_each(|event| effects.event(event));
        }
        let events = self.gateway.admission.client_breakers.restore(clients, now);
        events.into_iter().for_each(|event| self.gateway.tables.effects.event(event));
        self.gateway.tables.nodes.restore_providers(providers);
    }

    /// Returns the record of nodes and regions alone.
    pub(crate) fn of_places(&self) -> GatewayRecord {
        GatewayRecord {
            nodes: self.nodes(),
            regions: self.regions(),
            client_breakers: self.gateway.admission.client_breakers.records(),
            provider_breakers: self.gateway.tables.nodes.provider_records(),
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
            next_session: self.gateway.tables.sessions.next_id().0,
            next_room: self.gateway.rooms.next_number(),
            started: self.gateway.questions.started(),
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
        let nodes = self.gateway.tables.nodes.iter().map(|node| NodeRecord {
            hop: node.hop(),
            name: node.settings.name.clone(),
            trust: node.trust_record(),
            drain: self.gateway.drains.get(node.id),
            gauge: self.gateway.tables.capacity.ledger().gauge(node.id).clone(),
        });
        nodes.collect()
    }

    fn regions(&self) -> Vec<RegionRecord> {
        let regions =
            self.gateway.tables.nodes.regions().zip(&self.gateway.tables.settings.regions);
        let breakers = &self.gateway.tables.capacity.domain_breakers;
        let breaker = |place| breakers.get(place).cloned();
        let records = regions.filter_map(|(region, name)| {
            Some(RegionRecord {
                name: name.clone(),
                drained: self.gateway.tables.nodes.is_drained(FailureDomain::Region(region)),
                drained_zones: self
                    .zones_of(region)
                    .filter(|(zone, _)| self.gateway.tables.nodes.is_drained(*zone))
                    .map(|(_, name)| name.into())
                    .collect(),
                failback: self.gateway.tables.worklists.away.failback(region),
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
        let zones = (0..).map(ZoneId).zip(self.gateway.tables.nodes.zones());
        let there = zones.filter(move |(_, zone)| zone.region == region);
        there.map(|(id, zone)| (FailureDomain::Zone(id), &*zone.name))
    }

    pub(crate) fn room(&self, room: &Room, now: Instant) -> RoomRecord {
        let Tables { worklists, effects, .. } = &self.gateway.tables;
        let is_away = worklists.away.contains(room.id());
        let due = effects.due(&Timer::RoomDue(room.id()));
        room.to_record(is_away, due, worklists.closed_ports.records(room), now)
    }

    pub(crate) fn session(&self, session: &Session, media: u32) -> SessionRecord {
        session.to_record(media, self.gateway.tables.capacity.reduced.since(session.id()))
    }

    /// See [`Gateway::handle_record`](crate::Gateway::handle_record).
    pub(crate) fn restore(
        &mut self,
        record: GatewayRecord,
        node: impl Fn(&str) -> Option<NodeId>,
        now: Instant,
    ) -> Result<HopMap, RestoreError> {
        if !self.gateway.tables.sessions.is_empty() {
            return Err(RestoreError::HasSessions);
        }
        record.check()?;
        let GatewayRecord { nodes, regions, client_breakers, provider_breakers, .. } = record;
        let GatewayRecord { rooms, sessions, media, memos, .. } = record;
        self.gateway.tables.sessions.resume_numbers(SessionId(record.next_session));
        self.gateway.rooms.resume_numbers(record.next_room);
        // States of policies refer to the time that they saw in the other process.
        self.gateway.questions.resume_clock(record.started);
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
        let Gateway { activations, tables, .. } = &mut *self.gateway;
        tables.slos.restore(record.slo, activations, &tables.settings, now);
        self.gateway.tables.nodes.restore_providers(provider_breakers);
        let events = self.gateway.admission.client_breakers.restore(client_breakers, now);
        events.into_iter().for_each(|event| self.gateway.tables.effects.event(event));
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
            let place =
                self.gateway.tables.settings.regions.iter().position(|name| *name == record.name);
            let Some(place) = place else {
                found.push(self.gateway.tables.nodes.home());
                continue;
            };
            let region = RegionId(place as u32);
            self.gateway.tables.worklists.away.set_failback(Some(region), record.failback);
            let Tables { capacity, effects, nodes, .. } = &mut self.gateway.tables;
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
            self.gateway.tables.nodes.set_drained(FailureDomain::Region(region), record.drained);
            let zones = (0..).map(ZoneId).zip(self.gateway.tables.nodes.zones());
            let drained = zones.filter(|(_, zone)| {
                zone.region == region && record.drained_zones.contains(&zone.name)
            });
            for zone in drained.map(|(id, _)| id).collect::<Vec<ZoneId>>() {
                self.gateway.tables.nodes.set_drained(FailureDomain::Zone(zone), true);
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
        let mut hops = HopMap::new(self.gateway.tables.settings.limits.nodes_max as u32);
        for NodeRecord { hop, name, trust, drain, gauge } in nodes {
            // The name of a removed node may have gone to another one.
            let replaced = trust.removed && kept.contains(&name);
            let id = node(&name).filter(|id| !replaced && !hops.leads_to(*id));
            let Some(id) = id.filter(|id| self.gateway.tables.nodes.get(*id).is_some()) else {
                continue;
            };
            let (from, drained) =
                (self.gateway.tables.nodes[id].health(), self.gateway.tables.nodes[id].drains());
            self.gateway.tables.nodes.resume(id, &trust);
            self.gateway.tables.capacity.ledger.gauge_mut(id).resume(&gauge);
            let node = &self.gateway.tables.nodes[id];
            let (to, last_heard) = (node.health(), node.detector.last_heard());
            if from != to {
                let effects = &mut self.gateway.tables.effects;
                effects.health_changed(node.hop(), from, to, Vec::new(), last_heard, 0);
            }
            if node.drains() && !drained {
                self.gateway.tables.effects.event(CoreEvent::Draining { node: id, draining: true });
            }
            if let Some(drain) = drain.filter(|_| node.drains()) {
                self.gateway.drains.resume(id, drain);
                self.gateway.tables.effects.set(Timer::Drain(id), now);
            }
            if node.loses_more_than_others() {
                self.gateway.tables.effects.set_if_idle(Timer::Cohorts, now);
            }
            hops.renumber(hop.node, id);
            // The incarnation of a cold node ended with it, even if the node was started meanwhile.
            if trust.runs() || !node.runs() {
                hops.insert(hop, node.hop());
            }
        }
        let is_new = |id: &NodeId| !hops.leads_to(*id);
        let drained = |id: &NodeId| self.gateway.tables.nodes.is_in_drained(*id);
        let new = self.gateway.tables.nodes.iter().map(|node| node.id).filter(is_new);
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
            self.restore_room(room, region.unwrap_or(self.gateway.tables.nodes.home()), hops, now);
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
        let Gateway { rooms, tables, .. } = &mut *self.gateway;
        // All rooms hold their capacity before any is weighed, so that none takes the reserve of another.
        for id in &ids {
            let Some(room) = rooms.get_mut(id) else { continue };
            let covers = unsettled.covers(*id);
            tables.apply(room.resume_holding(covers, &tables.scales(room)), room);
        }
        for id in &ids {
            let Some(room) = rooms.get_mut(id) else { continue };
            tables.apply(room.republish(&tables.scales(room)), room);
        }
        for id in unsettled.lost() {
            if let Some(room) = rooms.get_mut(id) {
                report_lost(tables, room, now);
            }
        }
        let dead: Vec<Hop> = (self.gateway.tables.nodes.iter().map(Node::hop))
            .filter(|hop| {
                !self.gateway.tables.nodes.is_up(*hop)
                    && !self.gateway.tables.worklists.by_node.at(hop.node).is_empty()
            })
            .collect();
        for hop in &dead {
            self.gateway.mark_down(*hop, now, now);
        }
        for hop in dead {
            self.gateway.fail_over(hop.node, now);
        }
        self.expect_media();
        let Gateway { rooms, tables, .. } = &mut *self.gateway;
        for id in ids {
            let Some(room) = rooms.get(&id) else { continue };
            tables.close_left_hops(room, now);
            // An opening under way at the other process is repeated.
            let mut hops = room.hops_to_open();
            hops.retain(|hop| tables.nodes.is_up(*hop));
            for session in tables.sessions_of(room, Session::is_live) {
                for &hop in &hops {
                    tables.open_at(room, session, hop, now);
                }
            }
        }
        let Worklists { stranded, changing, away, .. } = &tables.worklists;
        if !stranded.is_empty() {
            tables.effects.set(Timer::Rescue, now);
        }
        if !changing.is_empty() {
            tables.effects.set(Timer::Change, now);
        }
        if !away.is_empty() {
            tables.effects.set_if_idle(Timer::Failback, now);
        }
    }

    /// Has the nodes of rooms in which sessions hear each other accused if they are silent: one may have died with the process before.
    fn expect_media(&mut self) {
        let Gateway { rooms, tables, .. } = &mut *self.gateway;
        let mut due: BTreeMap<NodeId, u32> = BTreeMap::new();
        for room in rooms.values() {
            let live = tables.sessions_of(room, Session::is_live).len() as u32;
            if let Some(on) = room.holding().on
                && live > 1
            {
                *due.entry(on).or_default() += live;
            }
        }
        for (node, sessions) in due {
            tables.nodes[node].detector.expect_media(sessions);
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
        let port_moves = record.take_port_moves();
        let mut room = Room::of_record(record, region, hops, now);
        let tables = &mut self.gateway.tables;
        for mut port in port_moves {
            port.translate(hops);
            tables.worklists.closed_ports.restore(&room, port);
            tables.effects.set_if_idle(Timer::ClosedPorts, now + PORTS_EXPLAINED_WITHIN);
        }
        let scenario = tables.settings.scenarios.get(room.scenario());
        if scenario.is_some_and(|scenario| scenario.mode != room.mode()) {
            tables.worklists.changing.insert(id);
        }
        if let Some(stranded) = room.stranded() {
            let rescue = RescueChange::new(None, Some(stranded.attempts()));
            tables.worklists.stranded.apply(&room, rescue);
        }
        tables.worklists.note_placed();
        tables.apply(room.set_away(away), &mut room);
        if let Some(due) = due {
            tables.effects.set(Timer::RoomDue(id), due);
        }
        if waits {
            tables.effects.want_reroute(id);
        }
        self.gateway.rooms.restore(room);
    }

    fn continue_session(
        &mut self,
        record: SessionRecord,
        media: Arc<MediaDescription>,
        unsettled: &Unsettled,
    ) {
        let id = record.id;
        let Gateway { rooms, tables, admission, .. } = &mut *self.gateway;
        let Some(room) = rooms.get_mut(&record.room) else { return };
        room.join(id);
        let (hops, reduced) = (unsettled.hops(), record.reduced_since());
        let Tables { sessions, slos, .. } = &mut *tables;
        let session = sessions.of_record(record, media, room, hops, slos, unsettled.restored());
        tables.effects.push(GatewayEffect::Restore(session.installed(room)));
        tables.capacity.reduced.set(id, reduced);
        if let Some(group) = session.voice_only_for() {
            admission.client_breakers.note_voice_only(id, group.clone());
        }
        let ticks = tables.degradation_policy(session.scenario());
        tables.sessions.restore(session, ticks);
        tables.effects.notice(RoomNotice::Enrol(id));
    }
}

/// The room's node is not listed here: reports that the room is stranded.
fn report_lost(tables: &mut Tables, room: &mut Room, now: Instant) {
    let Some(stranded) = room.stranded() else { return };
    tables.want_start(room, now);
    let (cause, by) = (MoveCause::NodeDown, tables.deciders.intern(Decider::Native));
    let step = MoveStep { cause, by, from: stranded.lost(), to: None, started: stranded.since() };
    tables.moved(room, step, now);
}
