//! Rooms, sessions and nodes of another process's record continue here.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    CoreEvent, CoreSettings, Decider, Hop, MediaDescription, MoveCause, NodeId, RegionId, RoomId,
};
use evenkeel_nodes::{Node, NodeTable};

use super::calls::CallRooms;
use super::moves::MoveStep;
use super::{Failover, NodeController, Placement, Room, RoomTable, is_session_room_name};
use crate::capacity::{Capacity, Judged};
use crate::effects::{Effects, RoomNotice};
use crate::sessions::{LegState, Session, SessionPhase, SessionRequest, SessionTable};
use crate::small::SmallMap;
use crate::timer::Timer;
use crate::{GatewayEffect, HopMap, NodeRecord, RegionRecord, RoomRecord, SessionRecord};

/// A record of another process, before its rooms are settled.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// Sessions that do not continue yet.
    sessions: std::vec::IntoIter<SessionRecord>,
    media: Vec<Arc<MediaDescription>>,
    hops: HopMap,
    /// Rooms on nodes that are not listed here.
    lost: Vec<RoomId>,
    now: Instant,
}

impl RoomTable {
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Continues the numbers of another process.
    pub(crate) fn resume_numbers(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    pub(crate) fn drain_of(&self, node: NodeId) -> Option<super::NodeDrain> {
        self.drains.get(&node).copied()
    }

    pub(crate) fn is_away(&self, id: RoomId) -> bool {
        self.away.contains(&id)
    }

    /// Adds a placed room of another process under its own number.
    fn restore(&mut self, room: Room) {
        let id = room.id;
        self.placed += 1;
        self.by_name.insert(Arc::clone(&room.name), id);
        if let Some((call, _)) = room.name.rsplit_once(super::calls::APART)
            && is_session_room_name(&room.name)
        {
            let new =
                || CallRooms { number: room.call, scenario: Arc::clone(&room.scenario), rooms: 0 };
            self.calls.entry(call.into()).or_insert_with(new).rooms += 1;
        }
        if let Some(stranded) = room.stranded {
            self.stranded.insert((stranded.attempts, Reverse(room.priority), id));
        }
        self.all.insert(id, Box::new(room));
    }
}

/// Continues rooms, sessions and nodes of another process's record.
pub(crate) struct Restoration<'a> {
    pub(crate) settings: &'a CoreSettings,
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) rooms: &'a mut RoomTable,
    pub(crate) nodes: &'a mut NodeTable,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) effects: &'a mut Effects,
}

impl Restoration<'_> {
    pub(crate) fn placement(&self) -> Placement<'_> {
        let Self { settings, sessions, rooms, nodes, capacity, .. } = self;
        Placement { settings, sessions, rooms, nodes, capacity }
    }

    fn failover(&mut self) -> Failover<'_> {
        lend!(Failover of self)
    }

    fn nodes(&mut self) -> NodeController<'_> {
        lend!(NodeController of self)
    }

    /// Returns the regions by their numbers in the record. A region without a successor is the home region.
    pub(crate) fn restore_regions(&mut self, regions: &[RegionRecord]) -> Vec<RegionId> {
        let mut found = Vec::new();
        for record in regions {
            let place = self.settings.regions.iter().position(|name| *name == record.name);
            let Some(place) = place else {
                found.push(self.nodes.home());
                continue;
            };
            let region = RegionId(place as u32);
            self.rooms.failbacks[place] = record.failback;
            self.capacity.restore_breaker(region, &record.breaker);
            if record.drained {
                self.nodes.set_drained(region, true);
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
        let mut hops = HopMap::new(self.settings.limits.nodes_max as u32);
        for NodeRecord { hop, name, trust, drain, gauge } in nodes {
            // The name of a removed node may have gone to another one.
            let replaced = trust.removed && kept.contains(&name);
            let id = node(&name).filter(|id| !replaced && !hops.leads_to(*id));
            let Some(id) = id.filter(|id| self.nodes.get(*id).is_some()) else {
                continue;
            };
            let (from, drained) = (self.nodes[id].health(), self.nodes[id].drains());
            self.nodes.resume(id, &trust);
            self.capacity.ledger_mut().gauge_mut(id).resume(&gauge);
            let node = &self.nodes[id];
            let (to, last_heard) = (node.health(), node.detector.last_heard());
            if from != to {
                let (hop, witnesses) = (node.hop(), Vec::new());
                self.effects.event(CoreEvent::Node {
                    hop,
                    from,
                    to,
                    witnesses,
                    last_heard,
                    rooms: 0,
                });
            }
            if node.drains() && !drained {
                self.effects.event(CoreEvent::Draining { node: id, draining: true });
            }
            if let Some(drain) = drain.filter(|_| node.drains()) {
                self.rooms.drains.insert(id, drain);
                self.effects.set(Timer::Drain(id), now);
            }
            if node.loses_more_than_others() {
                self.effects.set_if_idle(Timer::Cohorts, now);
            }
            hops.renumber(hop.node, id);
            // The incarnation of a cold node ended with it, even if the node was started meanwhile.
            if trust.runs() || !node.runs() {
                hops.insert(hop, node.hop());
            }
        }
        let is_new = |id: &NodeId| !hops.leads_to(*id);
        let drained = |id: &NodeId| self.nodes.is_drained(self.nodes.region_of(*id));
        let new = self.nodes.iter().map(|node| node.id).filter(is_new);
        for id in new.filter(drained).collect::<Vec<NodeId>>() {
            self.nodes().decide_drain(id, |node| node.draining = true, now);
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
        let lost = |room: &RoomRecord| {
            let first = room.hops.first().map(|(hop, _)| *hop);
            first.filter(|hop| room.stranded.is_none() && hops.map(*hop).is_none())
        };
        let lost = rooms.iter().filter(|room| lost(room).is_some()).map(|room| room.id).collect();
        for room in rooms {
            let region = regions.get(room.region.0 as usize).copied();
            self.restore_room(room, region.unwrap_or(self.nodes.home()), hops, now);
        }
        let (sessions, hops) = (sessions.into_iter(), hops.clone());
        self.rooms.unsettled = Some(Box::new(Unsettled { sessions, media, hops, lost, now }));
    }

    /// Continues the next session. Returns true if there was one.
    pub(crate) fn restore_session(&mut self) -> bool {
        let Some(mut unsettled) = self.rooms.unsettled.take() else { return false };
        let session = unsettled.sessions.next();
        let found = session.is_some();
        session.into_iter().for_each(|session| self.continue_session(session, &unsettled));
        self.rooms.unsettled = Some(unsettled);
        found
    }

    /// Weighs and publishes the routes of restored rooms, and opens their sessions where they are not open, in the order of
    /// the rooms' priority. Rooms leave hops that died or disappeared meanwhile as they always do.
    pub(crate) fn settle_restored(&mut self, now: Instant) {
        while self.restore_session() {}
        let Some(unsettled) = self.rooms.unsettled.take() else { return };
        let mut ids: Vec<RoomId> = self.rooms.all.keys().copied().collect();
        // A driver serves openings in their order.
        ids.sort_by_cached_key(|id| Reverse(self.rooms[id].priority));
        // All rooms hold their capacity before any is weighed, so that none takes the reserve of another.
        for id in &ids {
            let kbps = self.placement().room_kbps(*id);
            if let Some(room) = self.rooms.get_mut(id) {
                room.holding = room.granted(kbps);
                self.capacity.ledger_mut().hold(room.holding);
            }
        }
        for id in &ids {
            let route = self.rooms[id].route();
            let order: Vec<Hop> = route.hops.iter().map(|(hop, _)| *hop).collect();
            self.failover().routes().publish(*id, &order, route.leaving);
        }
        for id in unsettled.lost {
            self.report_lost(id, now);
        }
        let dead: Vec<Hop> = (self.nodes.iter().map(Node::hop))
            .filter(|hop| !self.nodes.is_up(*hop) && !self.rooms.at[hop.node.0 as usize].is_empty())
            .collect();
        for hop in dead {
            self.failover().fail_over(hop, now);
        }
        for id in ids {
            self.failover().legs().close_left_hops(id, now);
            self.failover().legs().open_again(id, now);
        }
        if !self.rooms.stranded.is_empty() {
            self.effects.set(Timer::Rescue, now);
        }
        if !self.rooms.changing.is_empty() {
            self.effects.set(Timer::Change, now);
        }
        if !self.rooms.away.is_empty() {
            self.effects.set_if_idle(Timer::Failback, now);
        }
    }

    fn restore_room(&mut self, record: RoomRecord, region: RegionId, hops: &HopMap, now: Instant) {
        let (id, away, due, waits) = (record.id, record.away, record.due, record.waits);
        let room = Room::of_record(record, region, hops, now);
        if self.placement().scenario_of(&room).is_some_and(|scenario| scenario.mode != room.mode) {
            self.rooms.changing.insert(id);
        }
        self.rooms.restore(room);
        self.rooms.set_away(id, away);
        if let Some(due) = due {
            self.effects.set(Timer::RoomDue(id), due);
        }
        if waits {
            self.effects.want_reroute(id);
        }
    }

    fn continue_session(&mut self, record: SessionRecord, unsettled: &Unsettled) {
        let Unsettled { media, hops, now, .. } = unsettled;
        let id = record.id;
        let media = media.get(record.media as usize);
        let room = self.rooms.all.get_mut(&record.room);
        let (Some(media), Some(room)) = (media, room) else {
            return;
        };
        room.sessions.insert(id);
        let mut legs = SmallMap::default();
        for leg in &record.legs {
            let Some(hop) = hops.map(leg.hop) else { continue };
            // An opening under way is repeated, or closed where the room does not go any more.
            if leg.open || !room.hops_in_use(*now).contains(&hop) {
                legs.insert(hop, LegState::Open);
            }
        }
        let (labels, scenario) = (record.labels, Arc::clone(&room.scenario));
        let request = SessionRequest { scenario, labels, media: Arc::clone(media) };
        let session = Session {
            id,
            room: room.id,
            call: room.call,
            request: self.sessions.request(request),
            transport: record.transport,
            of_first_packet: record.of_first_packet,
            opening: None,
            offered: record.offered,
            phase: SessionPhase::Opening,
            bounds: record.bounds,
            close_after: record.close_after,
            plan: record.plan,
            plans: 0,
            share: record.share,
            judged: Judged::default(),
            admitted_by: self.sessions.decider(record.admitted_by),
            legs,
            measures: None,
            last_heard: record.last_heard,
            track: None,
            memory: record.memory,
        };
        self.effects.push(GatewayEffect::Restore {
            session: id,
            room: room.id,
            route: Arc::clone(&room.cell),
            plan: session.plan_now(),
            media: Arc::clone(media),
            scenario: Arc::clone(&room.scenario),
            of_first_packet: session.of_first_packet,
        });
        self.capacity.set_reduced(id, record.reduced);
        self.sessions.restore(session);
        let ticks = self.placement().ticks(id);
        self.sessions.set_live(id, ticks);
        self.effects.notice(RoomNotice::Enrol(id));
    }

    /// The room's node is not listed here: reports that the room is stranded.
    fn report_lost(&mut self, id: RoomId, now: Instant) {
        let Some(stranded) = self.rooms.get(&id).and_then(|room| room.stranded) else {
            return;
        };
        self.failover().want_start(id, now);
        let (cause, by) = (MoveCause::NodeDown, Decider::Native);
        let step = MoveStep { cause, by, from: stranded.lost, to: None, started: stranded.since };
        self.failover().moves().moved(id, step, now);
    }
}
