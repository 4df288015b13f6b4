//! Opening a room's sessions at its hops, at the pace of each node, and closing them.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    AcceptedOffer, CloseReason, ClosedSession, CoreEvent, Hook, Hop, MoveOutcome, NodeId, Offer,
    OfferRefusal, PolicyName, RoomId, SessionId, Strike,
};

use super::{Room, Router};
use crate::GatewayEffect;
use crate::effects::RoomNotice;
use crate::sessions::{LegState, Legs, Session, SessionOpening, SessionPhase};
use crate::timer::Timer;
use evenkeel_nodes::{OpeningClass, QueuePosition};

const RETRY_SOON: Duration = Duration::from_secs(2);

/// Retry time while stranded rooms are being rescued.
const RETRY_DURING_FAILOVER: Duration = Duration::from_secs(5);

/// Maximum retry time for an open breaker.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The driver could not open a session at a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOpened;

impl Router<'_> {
    /// Opens the session at the hops of its room's current and pending routes.
    pub(crate) fn open(&mut self, id: SessionId, now: Instant) {
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
        session.phase = SessionPhase::Opening;
        opening.by = Some(open_by);
        self.effects.set_if_idle(Timer::OpenLate(id), open_by);
        self.effects.push(GatewayEffect::Install {
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

    pub(crate) fn handle_opened(
        &mut self,
        id: SessionId,
        hop: Hop,
        result: Result<(), NotOpened>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        // An answer for a waiting leg belongs to an earlier opening.
        let Some(leg) = session.legs.get_mut(&hop).filter(|leg| **leg != LegState::Waiting) else {
            return;
        };
        let room = session.room;
        // Recorded before the room continues, so that a leg that the driver refused is not closed as well.
        match result {
            Ok(()) => {
                let before = std::mem::replace(leg, LegState::Open);
                self.legs().opened(before, hop, now);
                self.catch_up(room, now);
                self.live_if_open(id, now);
                self.pending_opened(room, id, hop, now);
            }
            Err(NotOpened) => {
                if let Some(leg) = session.legs.remove(&hop) {
                    self.legs().failed(leg, hop, now);
                }
                self.not_opened(id, hop, now);
            }
        }
        self.open_next(hop.node, now);
    }

    /// Refuses a new session that the carrying hop did not take, if other sessions are live. Any other hop leaves the
    /// room's route; so does the carrying hop while no session is live there, and the next hop is tried.
    fn not_opened(&mut self, id: SessionId, hop: Hop, now: Instant) {
        if let Some(room) = self.sessions.get(&id).map(|session| session.room) {
            self.catch_up(room, now);
        }
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (room, phase) = (session.room, session.phase);
        let carries = phase == SessionPhase::Opening && self.stands_at(room) == Some(hop);
        if carries && !self.live_sessions(room).is_empty() {
            let retry_after = self.retry_after(now);
            self.give_up(id, OfferRefusal::NotOpened { node: hop.node, retry_after }, now);
        } else {
            self.drop_hop(room, hop, (Strike::NotOpened, Some(id)), now);
            self.give_up_without_hop(room, hop, now);
        }
    }

    /// Refuses the room's sessions at once, instead of at their timeout, if no session is live, the carrying hop took
    /// none of them and no other hop is pending.
    fn give_up_without_hop(&mut self, id: RoomId, refused: Hop, now: Instant) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.pending.is_none()) else {
            return;
        };
        let Some(on) = self.stands_at(id) else {
            return;
        };
        let lost = |id: &SessionId| {
            let opening = self.sessions.get(id).filter(|s| s.phase == SessionPhase::Opening);
            opening.is_some_and(|session| !session.legs.contains_key(&on))
        };
        let sessions: Vec<SessionId> = room.sessions.iter().copied().filter(lost).collect();
        for session in sessions {
            let retry_after = self.retry_after(now);
            self.give_up(session, OfferRefusal::NotOpened { node: refused.node, retry_after }, now);
        }
    }

    /// Sets the session live if it is open at the hop that carries its room.
    pub(crate) fn live_if_open(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id).filter(|s| s.phase == SessionPhase::Opening)
        else {
            return;
        };
        let Some(hop) = self.stands_at(session.room).filter(|hop| session.is_open_at(*hop)) else {
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
            let ticks = self.ticks(id);
            self.sessions.set_live(id, ticks);
            // A room is recorded from its first live session on.
            self.rooms.changes.note(room);
            self.settle_peer_caps(room);
            self.effects.notice(RoomNotice::Enrol(id));
        }
    }

    /// Handles the opening timeout: legs not open by now count as failed, and an offer that is not live, because no hop
    /// carries its room, is refused.
    pub(crate) fn open_late(&mut self, id: SessionId, now: Instant) {
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
                self.effects.push(GatewayEffect::CloseAt { session: id, hop });
                self.legs().failed(leg, hop, now);
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
            let refused = late_at.map_or(OfferRefusal::NoNode { retry_after }, |node| {
                OfferRefusal::NotOpened { node, retry_after }
            });
            self.give_up(id, refused, now);
        } else if let Some(next) = session.next_late() {
            self.effects.set(Timer::OpenLate(id), next);
        }
    }

    pub(crate) fn give_up(&mut self, id: SessionId, reason: OfferRefusal, now: Instant) {
        self.reply_refused(id, reason);
        self.remove(id, CloseReason::NotOpened, now);
    }

    fn reply_refused(&mut self, id: SessionId, reason: OfferRefusal) {
        if let Some(session) = self.sessions.get(&id)
            && let Some(opening) = &session.opening
        {
            let (offer, room) = (Arc::clone(&opening.offer), session.room);
            self.refuse(&offer, Some((id, room)), reason);
        }
    }

    pub(crate) fn refuse(
        &mut self,
        offer: &Offer,
        session: Option<(SessionId, RoomId)>,
        reason: OfferRefusal,
    ) {
        let scenario = offer.scenario.clone();
        self.effects.event(CoreEvent::Refused {
            offer: offer.id,
            session,
            scenario,
            reason: reason.clone(),
        });
        self.effects.push(GatewayEffect::Reply { offer: offer.id, result: Err(reason) });
    }

    pub(crate) fn close(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let room = self.rooms.get(&session.room).filter(|_| session.phase == SessionPhase::Live);
        if let Some(room) = room {
            let closed = Box::new(closed(session, room, now));
            let (room, room_name) = (room.id, self.rooms.name_of(room.id));
            self.effects.event(CoreEvent::Closed { session: id, room, room_name, reason, closed });
            self.remove(id, reason, now);
        } else {
            let refused = match reason {
                CloseReason::Shutdown => OfferRefusal::Draining,
                CloseReason::Requested
                | CloseReason::MediaTimeout
                | CloseReason::NotOpened
                | CloseReason::Panicked => OfferRefusal::Closed,
            };
            self.reply_refused(id, refused);
            self.remove(id, reason, now);
        }
    }

    pub(crate) fn close_all(&mut self, reason: CloseReason, now: Instant) {
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in all {
            self.close(session, reason, now);
        }
    }

    fn remove(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        let room = session.room;
        self.effects.cancel(&Timer::OpenLate(id));
        self.capacity.set_reduced(id, None);
        for (hop, leg) in session.legs.iter() {
            self.leave_leg(id, *hop, *leg);
        }
        if session.phase >= SessionPhase::Opening {
            self.effects.push(GatewayEffect::End { session: id, reason });
        }
        self.leave_room(room, id, now);
        session.legs.iter().for_each(|(hop, _)| self.open_next(hop.node, now));
        if session.track.as_ref().is_some_and(|track| track.sends()) {
            self.forget_heard(room);
        }
        let scenario = Arc::clone(&session.request.scenario);
        self.effects.notice(RoomNotice::Ended { session: id, room, scenario });
    }

    /// A sender left, so sessions that heard it may rightly become silent.
    fn forget_heard(&mut self, id: RoomId) {
        for session in self.sessions_of(id) {
            let session = self.sessions.get_mut(&session);
            if let Some(track) = session.and_then(|session| session.track.as_deref_mut()) {
                track.forget();
            }
        }
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
        self.end_pending(id, pending, MoveOutcome::Closed, now);
        if let Some(room) = self.rooms.remove(id) {
            self.capacity.ledger_mut().release(room.holding);
            self.effects.cancel(&Timer::RoomDue(id));
            self.effects.cancel(&Timer::LeavingEnds(id));
            self.effects.notice(RoomNotice::Dissolved { room: id, scenario: room.scenario });
        }
    }

    fn legs(&mut self) -> Legs<'_> {
        Legs {
            sessions: self.sessions,
            nodes: self.nodes,
            capacity: self.capacity,
            effects: self.effects,
            open_within: self.settings.limits.open_within,
        }
    }

    pub(crate) fn open_at(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<LegState> {
        let turn = self.turn(self.sessions.get(&id)?, hop);
        self.legs().open(id, hop, turn, now)
    }

    pub(crate) fn leave_leg(&mut self, id: SessionId, hop: Hop, leg: LegState) {
        self.legs().leave(id, hop, leg);
    }

    /// Order of openings: sessions of stranded rooms before those of live ones, then new sessions, then spares; calls
    /// before streams.
    fn turn(&self, session: &Session, hop: Hop) -> QueuePosition {
        let order = self.nodes.pace(hop.node).drawn();
        let Some(room) = self.rooms.get(&session.room) else {
            return (OpeningClass::Spare, Reverse(0), order);
        };
        let carries = match &room.pending {
            Some(pending) => pending.hops[0] == hop || room.route().is_first(hop),
            None => room.route().is_first(hop),
        };
        let class = match (carries, room.stranded, session.phase) {
            (false, ..) => OpeningClass::Spare,
            (true, Some(_), _) => OpeningClass::Stranded,
            (true, None, SessionPhase::Live) => OpeningClass::Moving,
            (true, None, _) => OpeningClass::Newcomer,
        };
        (class, Reverse(room.priority), order)
    }

    /// An opening at the node ended: opens the next waiting sessions, then tries stranded rooms.
    pub(crate) fn open_next(&mut self, node: NodeId, now: Instant) {
        if self.legs().open_next(node, now) && self.rooms.paced {
            // The turn belongs to the rooms with the fewest attempts.
            (self.rooms.paced, self.rooms.rescued_last) = (false, None);
            self.effects.set(Timer::Rescue, now);
        }
    }

    /// Refuses a new session because there is no capacity now.
    pub(crate) fn turn_away(&mut self, id: SessionId, now: Instant) {
        let retry_after = self.retry_after(now);
        self.give_up(id, OfferRefusal::NoNode { retry_after }, now);
    }

    /// Retry time for clients without capacity, with jitter: 2 s; 5 s while rooms are stranded; or, if no region
    /// accepts new rooms, until the first one does, at most 60 s.
    pub(crate) fn retry_after(&mut self, now: Instant) -> Duration {
        let is_busy = self.rooms.failover.is_some() || !self.rooms.stranded.is_empty();
        let wait = if is_busy { RETRY_DURING_FAILOVER } else { RETRY_SOON };
        let opens = self.capacity.all_open_until().map(|at| at.saturating_duration_since(now));
        self.sessions.jittered(wait.max(opens.unwrap_or_default().min(RETRY_MAX)))
    }

    /// The degradation policy of the session's scenario.
    pub(crate) fn ticks(&self, id: SessionId) -> Option<PolicyName> {
        let scenario = &self.sessions.get(&id)?.request.scenario;
        let scenario = self.settings.scenarios.get(scenario)?;
        scenario.binds(Hook::Degradation).then(|| scenario.policy(Hook::Degradation))
    }

    /// In a room of two, each session receives what the other sends, so a cap limits both. In a larger room, senders
    /// are not limited for one listener.
    pub(crate) fn settle_peer_caps(&mut self, room: RoomId) {
        let live = self.live_sessions(room);
        let cap = |id: &SessionId| self.sessions[id].plan_now().cap_kbps;
        let peer_caps: Vec<u32> = match &*live {
            [first, second] => vec![cap(second), cap(first)],
            others => vec![0; others.len()],
        };
        for (id, peer_cap_kbps) in live.into_iter().zip(peer_caps) {
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            if session.plan.peer_cap_kbps != peer_cap_kbps {
                session.plan.peer_cap_kbps = peer_cap_kbps;
                let plan = session.plan_now();
                self.effects.push(GatewayEffect::Plan { session: id, plan });
            }
        }
    }
}

fn closed(session: &Session, room: &Room, now: Instant) -> ClosedSession {
    let moves = room
        .records()
        .filter(|record| record.outcome == MoveOutcome::Done && record.ended >= session.offered);
    ClosedSession {
        scenario: Arc::clone(&session.request.scenario),
        mode: room.route().mode,
        transport: session.transport,
        admitted_by: Arc::clone(&session.admitted_by),
        offered: session.offered,
        ended: now,
        moves: moves.map(|record| record.cause).collect(),
    }
}
