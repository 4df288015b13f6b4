//! A session from the first hop that opens it to its end.

use std::sync::Arc;
use std::time::Instant;

use super::noting::Subject;
use super::{Gateway, Impossible, Output};
use crate::session::{Leg, Opening, Phase};
use crate::timer::Timer;
use crate::{
    Accepted, CloseReason, Event, Hop, MoveOutcome, NodeId, Offer, Refused, RoomId, SessionId,
    Strike,
};

impl Gateway {
    /// Its room has a route: it is opened at the hops of it, and of the one under way.
    pub(super) fn open(&mut self, id: SessionId, now: Instant) {
        let open_by = now + self.settings.limits.open_within;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(&session.room) else {
            return;
        };
        let Some(opening) = session.opening.as_deref_mut() else {
            return;
        };
        session.phase = Phase::Opening;
        opening.by = Some(open_by);
        self.effects.set_if_idle(Timer::OpenLate(id), open_by);
        self.effects.push(Output::Install {
            session: id,
            room: room.id,
            offer: Arc::clone(&opening.offer),
            route: room.cell.clone(),
            plan: session.plan_now(),
        });
        if let Some(pending) = &mut room.pending {
            pending.waiting.extend(pending.awaited.iter().map(|hop| (id, *hop)));
        }
        let (hops, room) = (room.hops_to_open(), room.id);
        for hop in hops {
            self.open_at(id, hop, now);
        }
        self.regrant(room);
    }

    /// The driver opened the session at a hop, or could not. Where the hop was given up meanwhile, and
    /// [`Output::CloseAt`] said so, its word changes nothing.
    pub fn handle_opened(
        &mut self,
        id: SessionId,
        hop: Hop,
        result: Result<(), NotOpened>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        // What it was not told to open yet it has no word on: that is about an earlier time.
        let Some(leg) = session.legs.get_mut(&hop).filter(|leg| **leg != Leg::Waiting) else {
            return;
        };
        let room = session.room;
        // Written down before the room goes on: what the driver refused is not closed as well.
        match result {
            Ok(()) => {
                let before = std::mem::replace(leg, Leg::Open);
                self.opened_in(before, hop, now);
                self.catch_up(room, now);
                self.live_if_open(id, now);
                self.pending_opened(room, id, hop, now);
            }
            Err(NotOpened) => {
                if let Some(leg) = session.legs.remove(&hop) {
                    self.failed_in(leg, hop, now);
                }
                self.not_opened(id, hop, now);
            }
        }
        self.open_next(hop.node, now);
    }

    /// Where others talk already, a newcomer that the carrying hop did not take is refused. Any other hop leaves the
    /// room's route, and so does the carrying one while nobody talks there: the next has its turn.
    fn not_opened(&mut self, id: SessionId, hop: Hop, now: Instant) {
        if let Some(room) = self.sessions.get(&id).map(|session| session.room) {
            self.catch_up(room, now);
        }
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (room, phase) = (session.room, session.phase);
        let carries = phase == Phase::Opening && self.stands_at(room) == Some(hop);
        if carries && !self.live_sessions(room).is_empty() {
            let retry_after = self.retry_after(now);
            self.give_up(id, Refused::NotOpened { node: hop.node, retry_after }, now);
        } else {
            self.strike(room, hop, (Strike::NotOpened, Some(id)), now);
            self.give_up_without_hop(room, hop, now);
        }
    }

    /// Nobody talks in the room, the hop that carries it took none of them, and no other is on its way: its sessions
    /// are refused now, not when their time is up.
    fn give_up_without_hop(&mut self, id: RoomId, refused: Hop, now: Instant) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.pending.is_none()) else {
            return;
        };
        let Some(on) = self.stands_at(id) else {
            return;
        };
        let lost = |id: &SessionId| {
            let opening = self.sessions.get(id).filter(|s| s.phase == Phase::Opening);
            opening.is_some_and(|session| !session.legs.contains_key(&on))
        };
        let sessions: Vec<SessionId> = room.sessions.iter().copied().filter(lost).collect();
        for session in sessions {
            let retry_after = self.retry_after(now);
            self.give_up(session, Refused::NotOpened { node: refused.node, retry_after }, now);
        }
    }

    /// Live as soon as it is open where its room's packets go.
    pub(super) fn live_if_open(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id).filter(|s| s.phase == Phase::Opening) else {
            return;
        };
        let Some(hop) = self.stands_at(session.room).filter(|hop| session.is_open_at(*hop)) else {
            return;
        };
        let room = &self.rooms[&session.room];
        let accepted = Accepted {
            session: id,
            room: room.id,
            route: room.cell.clone(),
            plan: session.plan_now(),
            admitted_by: (*session.admitted_by).clone(),
            routed_by: (*room.placed_by).clone(),
        };
        let opened = Event::Opened {
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
            if let Some(Opening { offer, .. }) = session.opening.take().as_deref() {
                let (offer, result) = (offer.id, Ok(accepted));
                self.effects.push(Output::Reply { offer, result });
            }
            session.phase = Phase::Live;
            session.last_heard = now;
            let room = session.room;
            self.sessions.live += 1;
            self.settle_peer_caps(room);
            self.begin_ticking(id);
        }
    }

    /// The driver's time is up: what is not open by now counts as not opened. An offer that is not live by now, for
    /// want of a hop that carries its room, is refused.
    pub(super) fn open_late(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let late = session.late_legs(now);
        let late_at = late.first().map(|hop| hop.node);
        for hop in late {
            let Some(session) = self.sessions.get_mut(&id) else {
                return;
            };
            if let Some(leg) = session.legs.remove(&hop) {
                self.effects.push(Output::CloseAt { session: id, hop });
                self.failed_in(leg, hop, now);
                self.not_opened(id, hop, now);
                self.open_next(hop.node, now);
            }
        }
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let by = session.opening.as_ref().and_then(|opening| opening.by);
        if by.is_some_and(|by| by <= now) {
            let retry_after = self.retry_after(now);
            let refused = late_at.map_or(Refused::NoNode { retry_after }, |node| {
                Refused::NotOpened { node, retry_after }
            });
            self.give_up(id, refused, now);
        } else if let Some(next) = session.next_late() {
            self.effects.set(Timer::OpenLate(id), next);
        }
    }

    pub(super) fn give_up(&mut self, id: SessionId, reason: Refused, now: Instant) {
        self.reply_refused(id, reason);
        self.remove(id, CloseReason::NotOpened, now);
    }

    fn reply_refused(&mut self, id: SessionId, reason: Refused) {
        if let Some(session) = self.sessions.get(&id)
            && let Some(opening) = &session.opening
        {
            let (offer, room) = (Arc::clone(&opening.offer), session.room);
            self.refuse(&offer, Some((id, room)), reason);
        }
    }

    pub(super) fn refuse(
        &mut self,
        offer: &Offer,
        session: Option<(SessionId, RoomId)>,
        reason: Refused,
    ) {
        let scenario = offer.scenario.clone();
        self.effects.event(Event::Refused {
            offer: offer.id,
            session,
            scenario,
            reason: reason.clone(),
        });
        self.effects.push(Output::Reply { offer: offer.id, result: Err(reason) });
    }

    /// Ends a session through the API.
    ///
    /// # Errors
    /// [`Impossible::NoSuchSession`].
    pub fn handle_close(&mut self, id: SessionId, now: Instant) -> Result<(), Impossible> {
        if !self.sessions.contains_key(&id) {
            return Err(Impossible::NoSuchSession);
        }
        self.close(id, CloseReason::Asked, now);
        Ok(())
    }

    /// A worker failed over one of its packets, and dropped it.
    pub fn handle_panicked(&mut self, id: SessionId, now: Instant) {
        self.close(id, CloseReason::Panicked, now);
    }

    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if session.phase == Phase::Live {
            let room = session.room;
            let room_name = self.name_of(room);
            self.effects.event(Event::Closed { session: id, room, room_name, reason });
            self.remove(id, reason, now);
        } else {
            let refused = match reason {
                CloseReason::Shutdown => Refused::Draining,
                CloseReason::Asked
                | CloseReason::Silent
                | CloseReason::NotOpened
                | CloseReason::Panicked => Refused::Closed,
            };
            self.reply_refused(id, refused);
            self.remove(id, reason, now);
        }
    }

    pub(super) fn close_all(&mut self, reason: CloseReason, now: Instant) {
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in all {
            self.close(session, reason, now);
        }
        self.finish_if_empty();
    }

    fn remove(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.sessions.all.remove(&id) else {
            return;
        };
        self.sessions.live -= usize::from(session.phase == Phase::Live);
        self.end_ticking(&session);
        self.leave_judges(&session);
        self.effects.cancel(&Timer::OpenLate(id));
        self.capacity.sparing.remove(&id);
        self.quality.silent.remove(&(session.room, id));
        self.quality.climbs.remove(&id);
        self.policy.noted.forget(Subject::Session(id));
        for (hop, leg) in session.legs.iter() {
            self.leave_leg(id, *hop, *leg);
        }
        let nodes: Vec<NodeId> = session.legs.into_keys().map(|hop| hop.node).collect();
        if session.phase >= Phase::Opening {
            self.effects.push(Output::End { session: id, reason });
        }
        self.leave_room(session.room, id, now);
        nodes.into_iter().for_each(|node| self.open_next(node, now));
        if session.track.is_some_and(|track| track.sends()) {
            self.forget_what_was_heard(session.room);
        }
        self.finish_if_empty();
    }

    fn leave_room(&mut self, room_id: RoomId, id: SessionId, now: Instant) {
        self.catch_up(room_id, now);
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        room.sessions.remove(&id);
        if let Some(pending) = &mut room.pending {
            pending.waiting.retain(|(session, _)| *session != id);
        }
        if room.sessions.is_empty() {
            self.dissolve(room_id, now);
        } else {
            self.regrant(room_id);
            self.publish_pending_if_open(room_id, now);
            self.settle_peer_caps(room_id);
        }
    }

    fn dissolve(&mut self, id: RoomId, now: Instant) {
        let pending = self.rooms.get_mut(&id).and_then(|room| room.pending.take());
        self.given_up(id, pending, MoveOutcome::Closed, now);
        self.rooms.unstrand(id);
        self.rooms.away.remove(&id);
        let Some(room) = self.rooms.all.remove(&id) else {
            return;
        };
        self.rooms.placed -= usize::from(room.is_placed());
        self.capacity.ledger.release(room.holding);
        self.rooms.unreserved.remove(&id);
        for node in room.listed.iter() {
            self.rooms.at[node.0 as usize].remove(&id);
        }
        self.rooms.by_name.remove(&room.name);
        self.leave_call(&room);
        self.rooms.changing.remove(&id);
        self.policy.noted.forget(Subject::Room(id));
        self.effects.cancel(&Timer::RoomDue(id));
        self.effects.cancel(&Timer::LeavingEnds(id));
        for waiting in self.policy.reroutes.values_mut() {
            waiting.remove(&id);
        }
        self.leave_judge(&room);
    }
}

/// The driver could not open a session at a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOpened;
