//! Sessions from their offer to their end: admitted, placed, opened at their hops, and closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_breakers::JudgedWindow;
use evenkeel_model::{
    CapBounds, ClientGroup, ClientIdentity, CloseReason, ClosedMove, ClosedSession, CoreEvent,
    Decider, DecisionOutcome, Hop, IngressProtocol, MoveOutcome, NewcomerAction, NodeId, Offer,
    OfferRefusal, Op, Param, Plan, RoomId, SessionId, Strike,
};
use evenkeel_revisions::StateVersions;
use evenkeel_slo::SessionMarks;

use crate::collections::SmallMap;
use crate::effects::{GatewayEffect, InstalledSession, RoomNotice, Timer};
use crate::flow::FlowTracker;
use crate::rooms::moves::Moves;
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::room::Room;
use crate::rooms::routes::Routes;
use crate::sessions::{LegState, Session, SessionOpening, SessionPhase, SessionRequest, WHOLE};

const RETRY_SOON: Duration = Duration::from_secs(2);

/// Retry time while stranded rooms are being rescued.
const RETRY_DURING_FAILOVER: Duration = Duration::from_secs(5);

/// Maximum retry time for an open breaker.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The driver could not open a session at a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOpened;

/// Admits, places, opens and closes sessions.
pub(crate) struct Openings<'a>(pub(crate) &'a mut CoreTables);

impl Openings<'_> {
    /// Begins the session. Fails if there are too many sessions, or the scenario or room does not match.
    pub(crate) fn begin(
        &mut self,
        offer: &Arc<Offer>,
        now: Instant,
    ) -> Result<SessionId, OfferRefusal> {
        if self.0.sessions.len() >= self.0.settings.limits.sessions_max {
            return Err(OfferRefusal::Full { retry_after: self.retry_after(now) });
        }
        let Some(scenario) = self.0.settings.scenarios.get(&offer.scenario) else {
            return Err(OfferRefusal::UnknownScenario(offer.scenario.clone()));
        };
        let id = self.0.sessions.next_id();
        let mut request = SessionRequest::new(
            offer.scenario.clone(),
            offer.labels.clone(),
            offer.media.clone(),
            scenario.bounds,
            scenario.close_after,
        );
        request.bounds = request.device.lowered(scenario.bounds);
        let mut session = Session {
            id,
            room: RoomId(0),
            request: self.0.sessions.requests.intern(request),
            transport: offer.ingress.transport(),
            of_first_packet: matches!(
                offer.ingress,
                IngressProtocol::Udp(ClientIdentity::Open { .. })
            ),
            opening: Some(Box::new(SessionOpening { offer: Arc::clone(offer), by: None })),
            offered: now,
            phase: SessionPhase::Resolving,
            plan: Plan::default(),
            plans: 0,
            share: WHOLE,
            domain_judged: JudgedWindow::default(),
            client_judged: JudgedWindow::default(),
            voice_only_for: None,
            slo_marks: SessionMarks::default(),
            admitted_by: self.0.sessions.deciders.intern(Decider::Native),
            legs: SmallMap::default(),
            media: None,
            last_heard: now,
            memory: StateVersions::default(),
        };
        let region = session.region(&self.0.settings.regions).unwrap_or(self.0.nodes.home());
        session.room = self.0.rooms.enter(id, offer, scenario, region)?;
        self.0.sessions.insert(session);
        Ok(id)
    }

    /// Applies a scenario plugin's parameters, which override those of the configuration within its bounds.
    pub(crate) fn take_params(
        &mut self,
        id: SessionId,
        params: &[(Box<str>, i64)],
    ) -> DecisionOutcome {
        let Some(session) = self.0.sessions.get_mut(&id) else { return DecisionOutcome::Stale };
        let mut request = SessionRequest::clone(&session.request);
        let text = request.bounds;
        let within = |value: i64| {
            u32::try_from(value).ok().map(|kbps| kbps.clamp(text.floor_kbps, text.ceiling_kbps))
        };
        let mut room = self.0.rooms.get_mut(&session.room).filter(|room| !room.is_placed());
        let of_room = room.as_ref().map(|room| (room.spares, room.priority));
        let mut known_one = false;
        let known = params.iter().filter_map(|(key, value)| Some((Param::from_key(key)?, *value)));
        for (param, value) in known {
            match param {
                Param::BitrateFloor => {
                    request.bounds.floor_kbps = within(value).unwrap_or(text.floor_kbps);
                }
                Param::BitrateCeiling => {
                    request.bounds.ceiling_kbps = within(value).unwrap_or(text.ceiling_kbps);
                }
                Param::CloseAfter => {
                    request.close_after = Duration::from_millis(param.within(value) as u64);
                }
                Param::Spares => {
                    if let Some(room) = &mut room {
                        room.spares = param.within(value) as u8;
                    }
                }
                Param::Priority => {
                    if let Some(room) = &mut room {
                        room.priority = param.within(value);
                    }
                }
            }
            known_one = true;
        }
        let CapBounds { floor_kbps, ceiling_kbps } = request.bounds;
        request.bounds.ceiling_kbps = ceiling_kbps.max(floor_kbps);
        let differs =
            request != *session.request || of_room != room.map(|room| (room.spares, room.priority));
        let request = self.0.sessions.requests.intern(request);
        if let Some(session) = self.0.sessions.unrecorded_mut(&id) {
            session.request = request;
        }
        if known_one { DecisionOutcome::Applied { differs } } else { DecisionOutcome::Abstained }
    }

    /// Admits the session if its room's current and pending nodes have capacity. Returns its room if that must be
    /// placed first. Stranded rooms go before new sessions.
    pub(crate) fn admit(
        &mut self,
        id: SessionId,
        cap_kbps: Option<u32>,
        by: Decider,
        now: Instant,
    ) -> Option<RoomId> {
        let room = self.0.sessions.get(&id)?.room;
        Moves(self.0).catch_up(room, now);
        let by = self.0.sessions.deciders.intern(by);
        let session = self.0.sessions.get_mut(&id)?;
        session.admitted_by = by;
        session.plan.cap_kbps = cap_kbps.unwrap_or(0);
        session.phase = SessionPhase::Placing;
        match self.0.capacity.client_breakers.limit(&session.request.labels, id) {
            Some((NewcomerAction::Refuse, group)) => {
                self.turn_away_clients(id, group, now);
                return None;
            }
            Some((NewcomerAction::VoiceOnly, group)) if session.has_video() => {
                session.voice_only_for = Some(Box::new(group.clone()));
                self.0.capacity.client_breakers.note_voice_only(id, group);
            }
            Some((NewcomerAction::VoiceOnly | NewcomerAction::Admit, _)) | None => {}
        }
        if self.0.rooms.get(&room).is_some_and(Room::is_placed) {
            if Routes(self.0).make_room_for(id, now) {
                self.open(id, now);
            } else {
                self.turn_away(id, now);
            }
            return None;
        }
        if self.0.rooms.stranded_go_first() && !self.0.rooms.paced {
            // The stranded rooms have no place yet.
            self.turn_away(id, now);
            return None;
        }
        Some(room)
    }

    /// Opens the session at the hops of its room's current and pending routes.
    pub(crate) fn open(&mut self, id: SessionId, now: Instant) {
        let open_by = now + self.0.settings.limits.open_within;
        let Some(session) = self.0.sessions.get_mut(&id) else { return };
        let Some(room) = self.0.rooms.get_mut(&session.room) else { return };
        let Some(opening) = session.opening.as_deref_mut() else { return };
        session.phase = SessionPhase::Opening;
        opening.by = Some(open_by);
        self.0.effects.set_if_idle(Timer::OpenLate(id), open_by);
        let offer = Arc::clone(&opening.offer);
        let installed = installed(session, room);
        self.0.effects.push(GatewayEffect::Install(installed, offer));
        if let Some(pending) = &mut room.pending {
            pending.waiting.extend(pending.awaited.iter().map(|hop| (id, *hop)));
        }
        let (hops, room) = (room.hops_to_open(), room.id);
        for hop in hops {
            Routes(self.0).open_at(id, hop, now);
        }
        Routes(self.0).regrant(room);
    }

    pub(crate) fn handle_opened(
        &mut self,
        id: SessionId,
        hop: Hop,
        result: Result<(), NotOpened>,
        now: Instant,
    ) {
        let Some(session) = self.0.sessions.get_mut(&id) else { return };
        // An answer for a waiting leg belongs to an earlier opening.
        let Some(leg) = session.legs.get_mut(&hop).filter(|leg| **leg != LegState::Waiting) else {
            return;
        };
        let room = session.room;
        // Recorded before the room continues, so that a leg that the driver refused is not closed as well.
        match result {
            Ok(()) => {
                let before = std::mem::replace(leg, LegState::Open);
                Routes(self.0).opened(before, hop, now);
                Moves(self.0).catch_up(room, now);
                Routes(self.0).live_if_open(id, now);
                let pending = self.0.rooms.get_mut(&room).and_then(|room| room.pending.as_mut());
                if let Some(pending) = pending {
                    pending.waiting.remove(&(id, hop));
                    Moves(self.0).publish_pending_if_open(room, now);
                }
            }
            Err(NotOpened) => {
                if let Some(leg) = session.legs.remove(&hop) {
                    Routes(self.0).failed(leg, hop, now);
                }
                self.not_opened(id, hop, now);
            }
        }
        Routes(self.0).open_next(hop.node, now);
    }

    /// Refuses a new session that the carrying hop did not take, if other sessions are live. Any other hop leaves the
    /// room's route; so does the carrying hop while no session is live there, and the next hop is tried.
    fn not_opened(&mut self, id: SessionId, hop: Hop, now: Instant) {
        if let Some(room) = self.0.sessions.get(&id).map(|session| session.room) {
            Moves(self.0).catch_up(room, now);
        }
        let Some(session) = self.0.sessions.get(&id) else { return };
        let (room, phase) = (session.room, session.phase);
        let carries =
            phase == SessionPhase::Opening && Placement(self.0).stands_at(room) == Some(hop);
        if carries && !Placement(self.0).live_sessions(room).is_empty() {
            let retry_after = self.retry_after(now);
            self.give_up(id, OfferRefusal::NotOpened { node: hop.node, retry_after }, now);
        } else {
            Moves(self.0).drop_hop(room, hop, (Strike::NotOpened, Some(id)), now);
            self.give_up_without_hop(room, hop, now);
        }
    }

    /// Refuses the room's sessions at once, instead of at their timeout, if no session is live, the carrying hop took
    /// none of them and no other hop is pending.
    fn give_up_without_hop(&mut self, id: RoomId, refused: Hop, now: Instant) {
        let Some(room) = self.0.rooms.get(&id).filter(|room| room.pending.is_none()) else {
            return;
        };
        let Some(on) = Placement(self.0).stands_at(id) else { return };
        let lost = |id: &SessionId| {
            let opening = self.0.sessions.get(id).filter(|s| s.phase == SessionPhase::Opening);
            opening.is_some_and(|session| !session.legs.contains_key(&on))
        };
        let sessions: Vec<SessionId> = room.sessions.iter().copied().filter(lost).collect();
        for session in sessions {
            let retry_after = self.retry_after(now);
            self.give_up(session, OfferRefusal::NotOpened { node: refused.node, retry_after }, now);
        }
    }

    /// Handles the opening timeout: legs not open by now count as failed, and an offer that is not live, because no hop
    /// carries its room, is refused.
    pub(crate) fn open_late(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.0.sessions.get_mut(&id) else { return };
        let late = session.late_legs(now);
        let late_at = late.first().map(|hop| hop.node);
        for hop in late {
            let Some(session) = self.0.sessions.get_mut(&id) else { return };
            if let Some(leg) = session.legs.remove(&hop) {
                self.0.effects.push(GatewayEffect::CloseAt { session: id, hop });
                Routes(self.0).failed(leg, hop, now);
                self.not_opened(id, hop, now);
                Routes(self.0).open_next(hop.node, now);
            }
        }
        let Some(session) = self.0.sessions.get(&id) else { return };
        let by = session.opening.as_ref().and_then(|opening| opening.by);
        if by.is_some_and(|by| by <= now) {
            let retry_after = self.retry_after(now);
            let refused = late_at.map_or(OfferRefusal::NoNode { retry_after }, |node| {
                OfferRefusal::NotOpened { node, retry_after }
            });
            self.give_up(id, refused, now);
        } else if let Some(next) = session.next_late() {
            self.0.effects.set(Timer::OpenLate(id), next);
        }
    }

    pub(crate) fn give_up(&mut self, id: SessionId, reason: OfferRefusal, now: Instant) {
        self.want_node(id, &reason, now);
        self.reply_refused(id, reason, now);
        self.remove(id, CloseReason::NotOpened, now);
    }

    /// With `early_start`, an offer for a region without capacity starts a node there. A policy may have refused it before
    /// it was placed.
    fn want_node(&mut self, id: SessionId, reason: &OfferRefusal, now: Instant) {
        let session = self.0.sessions.get(&id);
        let room = session.and_then(|session| self.0.rooms.get(&session.room));
        let early = self.0.settings.limits.early_start;
        let Some(region) = room.map(|room| room.region).filter(|_| early) else { return };
        let is_short = match reason {
            OfferRefusal::NoNode { .. }
            | OfferRefusal::PlacementRefused { .. }
            | OfferRefusal::Rejected { .. } => self.0.capacity.is_short(region, &self.0.nodes),
            _ => false,
        };
        if is_short {
            self.0.nodes.start_in_region(region, now);
            self.0.effects.take(&mut self.0.nodes);
        }
    }

    fn reply_refused(&mut self, id: SessionId, reason: OfferRefusal, now: Instant) {
        if let Some(session) = self.0.sessions.get(&id)
            && let Some(opening) = &session.opening
        {
            let (offer, room) = (Arc::clone(&opening.offer), session.room);
            self.refuse(&offer, Some((id, room)), reason, now);
        }
    }

    pub(crate) fn refuse(
        &mut self,
        offer: &Offer,
        session: Option<(SessionId, RoomId)>,
        reason: OfferRefusal,
        now: Instant,
    ) {
        self.0.slos.note_refused(&offer.scenario, &reason, &self.0.settings, now);
        let (offer, scenario, result) = (offer.id, offer.scenario.clone(), Err(reason.clone()));
        self.0.effects.event(CoreEvent::Refused { offer, session, scenario, reason });
        self.0.effects.push(GatewayEffect::Reply { offer, result });
    }

    pub(crate) fn close(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.0.sessions.get(&id) else { return };
        let room = self.0.rooms.get(&session.room).filter(|_| session.phase == SessionPhase::Live);
        if let Some(room) = room {
            let closed = Box::new(closed(session, room, now));
            let (room, room_name) = (room.id, self.0.rooms.name_of(room.id));
            let closed = CoreEvent::Closed { session: id, room, room_name, reason, closed };
            self.0.effects.event(closed);
        } else {
            let refused = match reason {
                CloseReason::Shutdown => OfferRefusal::Draining,
                CloseReason::Requested
                | CloseReason::MediaTimeout
                | CloseReason::NotOpened
                | CloseReason::Panicked
                | CloseReason::ClientClosed
                | CloseReason::HandshakeFailed
                | CloseReason::HandshakeLost
                | CloseReason::SrtpCountersLost => OfferRefusal::Closed,
            };
            self.reply_refused(id, refused, now);
        }
        self.remove(id, reason, now);
    }

    pub(crate) fn close_all(&mut self, reason: CloseReason, now: Instant) {
        let all: Vec<SessionId> = self.0.sessions.keys().collect();
        for session in all {
            self.close(session, reason, now);
        }
    }

    fn remove(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.0.sessions.remove(id) else { return };
        let room = session.room;
        if let Some(group) = &session.voice_only_for {
            self.0.capacity.client_breakers.forget(id, group);
        }
        self.0.slos.leave(&session.request.scenario, &session.slo_marks, now);
        self.0.effects.cancel(&Timer::OpenLate(id));
        self.0.capacity.set_reduced(id, None);
        for (hop, leg) in session.legs.iter() {
            Routes(self.0).leave(id, *hop, *leg);
        }
        if session.phase >= SessionPhase::Opening {
            self.0.effects.push(GatewayEffect::End { session: id, reason });
        }
        self.leave_room(room, id, now);
        session.legs.iter().for_each(|(hop, _)| Routes(self.0).open_next(hop.node, now));
        if session.track().is_some_and(FlowTracker::sends) {
            self.forget_heard(room);
        }
        let scenario = Arc::clone(&session.request.scenario);
        self.0.effects.notice(RoomNotice::Ended { session: id, room, scenario });
    }

    /// A sender left, so sessions that heard it may rightly become silent.
    fn forget_heard(&mut self, id: RoomId) {
        for session in Placement(self.0).sessions_of(id) {
            let session = self.0.sessions.get_mut(&session);
            if let Some(track) = session.and_then(Session::track_mut) {
                track.forget();
            }
        }
    }

    fn leave_room(&mut self, room_id: RoomId, id: SessionId, now: Instant) {
        Moves(self.0).catch_up(room_id, now);
        let Some(room) = self.0.rooms.get_mut(&room_id) else { return };
        room.sessions.remove(&id);
        if let Some(pending) = &mut room.pending {
            pending.waiting.retain(|(session, _)| *session != id);
        }
        if room.sessions.is_empty() {
            self.dissolve(room_id, now);
        } else {
            Routes(self.0).regrant(room_id);
            Moves(self.0).publish_pending_if_open(room_id, now);
            Routes(self.0).settle_peer_caps(room_id);
        }
    }

    fn dissolve(&mut self, id: RoomId, now: Instant) {
        let pending = self.0.rooms.get_mut(&id).and_then(|room| room.pending.take());
        Moves(self.0).end_pending(id, pending, MoveOutcome::Closed, now);
        if let Some(room) = self.0.rooms.remove(id) {
            self.0.capacity.ledger.release(room.holding);
            self.0.effects.cancel(&Timer::RoomDue(id));
            self.0.effects.cancel(&Timer::LeavingEnds(id));
            self.0.effects.notice(RoomNotice::Dissolved { room: id, scenario: room.scenario });
        }
    }

    /// Refuses the sessions of a room to which the routing policy gives no node, for `wait_ms`; 0: as without capacity.
    pub(crate) fn refuse_room(
        &mut self,
        id: RoomId,
        reason: Option<&Arc<str>>,
        wait_ms: u32,
        now: Instant,
    ) {
        for session in Placement(self.0).waiting_for_placement(id) {
            let retry_after = match wait_ms {
                0 => self.retry_after(now),
                wait_ms => self.0.sessions.jittered(Duration::from_millis(wait_ms.into())),
            };
            let reason = reason.cloned();
            self.give_up(session, OfferRefusal::PlacementRefused { reason, retry_after }, now);
        }
    }

    /// Refuses a new session because there is no capacity now.
    pub(crate) fn turn_away(&mut self, id: SessionId, now: Instant) {
        let retry_after = self.retry_after(now);
        self.give_up(id, OfferRefusal::NoNode { retry_after }, now);
    }

    /// Ends a window of the breakers of clients. Sessions of clients that have recovered get their video back.
    pub(crate) fn weigh_client_breakers(&mut self, now: Instant) {
        let changes = self.0.capacity.client_breakers.weigh(now);
        changes.into_iter().for_each(|change| self.0.effects.event(change));
        for session in self.0.capacity.client_breakers.restore_video() {
            self.restore_video(session);
        }
    }

    fn restore_video(&mut self, id: SessionId) {
        let Some(session) = self.0.sessions.get_mut(&id) else { return };
        session.voice_only_for = None;
        let (room, plan) = (session.room, session.plan_now());
        let is_opened = session.phase >= SessionPhase::Opening;
        if is_opened {
            let in_force = session.plan_in_force();
            self.0.effects.push(GatewayEffect::Plan { session: id, plan: in_force });
        }
        Routes(self.0).settle_peer_caps(room);
        if plan.shed != 0 {
            // A policy drops the video as well.
            return;
        }
        if is_opened {
            self.0.request_key_frames(room, &[id]);
        }
        let (op, arg, rung) = (Op::VoiceOnly, 0, plan.rung());
        let (room_name, by) = (self.0.rooms.name_of(room), Decider::Native);
        self.0.effects.event(CoreEvent::Degraded { session: id, room_name, op, arg, rung, by });
    }

    /// Refuses a new session while the breaker of its clients is open, at least until it is half-open.
    fn turn_away_clients(&mut self, id: SessionId, group: ClientGroup, now: Instant) {
        let wait = self.0.capacity.client_breakers.admits_in(&group, now);
        let retry_after = self.0.sessions.jittered(wait.clamp(RETRY_SOON, RETRY_MAX));
        self.give_up(id, OfferRefusal::ClientsImpaired { group, retry_after }, now);
    }

    /// Retry time for clients without capacity, with jitter: 2 s; 5 s while rooms are stranded; or, if no node
    /// accepts new rooms, until the first one does, at most 60 s.
    pub(crate) fn retry_after(&mut self, now: Instant) -> Duration {
        let is_busy = self.0.rooms.failover.is_some() || !self.0.rooms.stranded.is_empty();
        let wait = if is_busy { RETRY_DURING_FAILOVER } else { RETRY_SOON };
        let opens = self.0.capacity.admit_in(&self.0.nodes, now);
        self.0.sessions.jittered(wait.max(opens.min(RETRY_MAX)))
    }

    pub(crate) fn place_natively(&mut self, id: RoomId, now: Instant) {
        let busy = self.0.nodes.busy();
        let mut nodes = Placement(self.0).native_hops_but(id, &[], &busy, now);
        // Stranded rooms wait for the busy nodes, so a new room only takes others.
        let waits = if self.0.rooms.stranded_go_first() { &busy[..] } else { &[] };
        if nodes.is_empty() && !busy.is_empty() && waits.is_empty() {
            nodes = Placement(self.0).native_hops(id, &[], now);
        }
        if nodes.is_empty() {
            nodes = Routes(self.0).place_with_less(id, waits, now);
        }
        self.settle(id, &nodes, Decider::Native, now);
    }

    /// Publishes the room's first route and opens its sessions.
    pub(crate) fn settle(&mut self, id: RoomId, nodes: &[NodeId], by: Decider, now: Instant) {
        let hops = self.0.nodes.hops(nodes);
        let waiting = Placement(self.0).waiting_for_placement(id);
        if hops.is_empty() {
            Moves(self.0).want_start(id, now);
            for session in waiting {
                self.turn_away(session, now);
            }
            return;
        }
        let unchosen = by == Decider::Native;
        self.0.rooms.set_placed_by(id, by);
        Routes(self.0).admit_at(id, &hops, None);
        Moves(self.0).note_away(id, nodes.first().copied().filter(|_| unchosen), now);
        Routes(self.0).set_due(id, now);
        for session in waiting {
            self.open(session, now);
        }
    }

    /// Closes the silent sessions, except in rooms that wait for a node to start.
    pub(crate) fn close_silent(&mut self, mut sessions: Vec<SessionId>, now: Instant) {
        sessions.retain(|id| !Placement(self.0).is_held(self.0.sessions[id].room, now));
        for session in sessions {
            self.close(session, CloseReason::MediaTimeout, now);
        }
    }
}

pub(crate) fn installed(session: &Session, room: &Room) -> InstalledSession {
    InstalledSession {
        session: session.id,
        room: room.id,
        route: Arc::clone(&room.cell),
        plan: session.plan_in_force(),
        media: Arc::clone(&session.request.media),
        scenario: Arc::clone(&session.request.scenario),
        of_first_packet: session.of_first_packet,
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
        moves: moves
            .map(|record| ClosedMove {
                cause: record.cause,
                by: Arc::clone(&record.by),
                from: record.from,
                to: record.to,
                ended: record.ended,
            })
            .collect(),
    }
}
