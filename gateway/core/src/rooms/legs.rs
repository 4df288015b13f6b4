//! Legs: a session's openings at hops, at the pace of each node.

use std::collections::BTreeSet;
use std::time::Instant;

use evenkeel_model::{
    AcceptedOffer, CoreEvent, CoreSettings, Hop, NodeId, RedundancyMode, RoomId, SessionId,
};
use evenkeel_nodes::{ANSWERED_IN_TIME, NodeTable, QueuePosition};

use super::{Placement, Room, RoomTable, Routes};
use crate::GatewayEffect;
use crate::capacity::Capacity;
use crate::effects::{Effects, RoomNotice};
use crate::sessions::{LegState, Session, SessionOpening, SessionPhase, SessionTable};
use crate::timer::Timer;

/// Opens and closes sessions at the hops of their rooms, at the pace of each node.
pub(crate) struct Legs<'a> {
    pub(crate) settings: &'a CoreSettings,
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) rooms: &'a mut RoomTable,
    pub(crate) nodes: &'a mut NodeTable,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) effects: &'a mut Effects,
}

impl Legs<'_> {
    pub(crate) fn placement(&self) -> Placement<'_> {
        let Self { settings, sessions, rooms, nodes, capacity, .. } = self;
        Placement { settings, sessions, rooms, nodes, capacity }
    }

    fn routes(&mut self) -> Routes<'_> {
        lend!(Routes of self)
    }

    /// Restarts the silence timeout of the room's sessions, since the room has a node again.
    pub(crate) fn renew_last_heard(&mut self, id: RoomId, now: Instant) {
        let sessions = self.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold);
        for session in sessions.into_iter().flat_map(|room| room.sessions.iter()) {
            if let Some(session) = self.sessions.get_mut(session) {
                session.last_heard = session.last_heard.max(now);
            }
        }
    }

    /// Opens the room's sessions at every hop where its mode requires it.
    pub(crate) fn open_missing(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let hops = room.hops_to_open();
        for session in self.placement().sessions_from(id, SessionPhase::Opening) {
            for &hop in &hops {
                self.open_at(session, hop, now);
            }
        }
    }

    /// Opens the room's sessions at these hops. Returns the openings to wait for.
    pub(crate) fn open_all_at(
        &mut self,
        id: RoomId,
        hops: &[Hop],
        awaited: &BTreeSet<Hop>,
        now: Instant,
    ) -> BTreeSet<(SessionId, Hop)> {
        let mut waiting = BTreeSet::new();
        for session in self.placement().sessions_from(id, SessionPhase::Opening) {
            for &hop in hops {
                if self.open_at(session, hop, now) != Some(LegState::Open) && awaited.contains(&hop)
                {
                    waiting.insert((session, hop));
                }
            }
        }
        waiting
    }

    /// Sets the session live if it is open at the hop that carries its room.
    pub(crate) fn live_if_open(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id).filter(|s| s.phase == SessionPhase::Opening)
        else {
            return;
        };
        let Some(hop) =
            self.placement().stands_at(session.room).filter(|hop| session.is_open_at(*hop))
        else {
            return;
        };
        let room = &self.rooms[&session.room];
        let accepted = AcceptedOffer {
            session: id,
            room: room.id,
            route: room.cell.clone(),
            plan: session.plan_now(),
            admitted_by: (*session.admitted_by).clone(),
            routed_by: (*room.placed_by).clone(),
        };
        let opened = CoreEvent::Opened {
            session: id,
            room: room.id,
            room_name: room.name.clone(),
            scenario: room.scenario.clone(),
            hop,
            offered: session.offered,
            admitted_by: (*session.admitted_by).clone(),
            routed_by: (*room.placed_by).clone(),
        };
        self.effects.event(opened);
        if let Some(session) = self.sessions.get_mut(&id) {
            if let Some(SessionOpening { offer, .. }) = session.opening.take().as_deref() {
                let (offer, result) = (offer.id, Ok(accepted));
                self.effects.push(GatewayEffect::Reply { offer, result });
            }
            session.last_heard = now;
            let room = session.room;
            let ticks = self.placement().ticks(id);
            self.sessions.set_live(id, ticks);
            // A room is recorded from its first live session on.
            self.rooms.changes.note(room);
            self.routes().settle_peer_caps(room);
            self.effects.notice(RoomNotice::Enrol(id));
        }
    }

    pub(crate) fn open_at(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<LegState> {
        let turn = self.placement().turn(self.sessions.get(&id)?, hop);
        self.open(id, hop, turn, now)
    }

    /// An opening at the node ended: opens the next waiting sessions, then tries stranded rooms.
    pub(crate) fn open_next(&mut self, node: NodeId, now: Instant) {
        if self.start_waiting(node, now) && self.rooms.paced {
            // The turn belongs to the rooms with the fewest attempts.
            (self.rooms.paced, self.rooms.rescued_last) = (false, None);
            self.effects.set(Timer::Rescue, now);
        }
    }

    /// Opens the room's sessions at hops that are up and where they are not open.
    pub(crate) fn open_again(&mut self, id: RoomId, now: Instant) {
        let mut hops = self.rooms.get(&id).map(Room::hops_to_open).unwrap_or_default();
        hops.retain(|hop| self.nodes.is_up(*hop));
        for session in self.placement().live_sessions(id) {
            for &hop in &hops {
                self.open_at(session, hop, now);
            }
        }
    }

    /// Closes the room's sessions at hops that are in none of its routes any more.
    pub(crate) fn close_left_hops(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let used = room.hops_in_use(now);
        let mut left = Vec::new();
        for session in room.sessions.iter() {
            let Some(session) = self.sessions.get_mut(session) else {
                continue;
            };
            let legs = session.legs.extract_if(.., |hop, _| !used.contains(hop));
            left.extend(legs.map(|(hop, leg)| (session.id, hop, leg)));
        }
        for (session, hop, leg) in &left {
            self.leave(*session, *hop, *leg);
        }
        for (_, hop, _) in left {
            self.open_next(hop.node, now);
        }
    }

    /// Sets sessions live that are open at the hop that carries the room.
    pub(crate) fn activate_open(&mut self, id: RoomId, now: Instant) {
        for session in self.placement().sessions_of(id) {
            self.live_if_open(session, now);
        }
    }

    /// Opens the session at a hop as soon as the node's window allows it, unless this was requested before. Returns the
    /// state of the leg.
    fn open(
        &mut self,
        id: SessionId,
        hop: Hop,
        turn: QueuePosition,
        now: Instant,
    ) -> Option<LegState> {
        let session = self.sessions.get_mut(&id)?;
        if let Some(leg) = session.legs.get(&hop) {
            return Some(*leg);
        }
        session.legs.insert(hop, LegState::Waiting);
        let goes = self.nodes.pace_mut(hop.node).begin(turn, id, hop);
        if goes { self.open_now(id, hop, now) } else { Some(LegState::Waiting) }
    }

    fn open_now(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<LegState> {
        let until = now + self.settings.limits.open_within;
        let session = self.sessions.get_mut(&id)?;
        session.legs.insert(hop, LegState::Opening(until));
        self.effects.push(GatewayEffect::Open { session: id, room: session.call, hop });
        self.effects.set_if_idle(Timer::OpenLate(id), until);
        Some(LegState::Opening(until))
    }

    /// An opening at the node ended: starts the next ones. Returns true if no session waits there any more.
    fn start_waiting(&mut self, node: NodeId, now: Instant) -> bool {
        while let Some((id, hop)) = self.nodes.pace_mut(node).start_next() {
            let waits = |session: &Session| session.legs.get(&hop) == Some(&LegState::Waiting);
            if self.sessions.get(&id).is_some_and(waits) {
                self.open_now(id, hop, now);
            } else {
                self.nodes.pace_mut(node).end();
            }
        }
        !self.nodes.pace(node).is_busy()
    }

    pub(crate) fn opened(&mut self, before: LegState, hop: Hop, now: Instant) {
        let LegState::Opening(until) = before else {
            return;
        };
        let in_time = until - self.settings.limits.open_within + ANSWERED_IN_TIME;
        let pace = self.nodes.pace_mut(hop.node);
        pace.end();
        if now <= in_time {
            pace.faster();
        } else {
            pace.slower(now);
        }
        self.capacity.note_opening(self.nodes.region_of(hop.node), true);
    }

    /// The driver failed to open the leg, or was too late.
    pub(crate) fn failed(&mut self, leg: LegState, hop: Hop, now: Instant) {
        if let LegState::Opening(_) = leg {
            let pace = self.nodes.pace_mut(hop.node);
            pace.end();
            pace.slower(now);
            self.capacity.note_opening(self.nodes.region_of(hop.node), false);
        }
    }

    /// Ends a leg that is no longer needed; the driver closes it if it was asked to open it.
    pub(crate) fn leave(&mut self, id: SessionId, hop: Hop, leg: LegState) {
        let pace = self.nodes.pace_mut(hop.node);
        match leg {
            LegState::Waiting => return pace.forget(id, hop),
            LegState::Opening(_) => pace.end(),
            LegState::Open => {}
        }
        self.effects.push(GatewayEffect::CloseAt { session: id, hop });
    }
}
