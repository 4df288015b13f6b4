//! A session from its offer to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asking::{About, mismatched};
use super::{Gateway, Impossible, Output};
use crate::room::{Founding, Room};
use crate::session::{Phase, Session};
use crate::settings::AdmitOnFault;
use crate::timer::Timer;
use crate::{
    Accepted, AdmitVerdict, Answer, Bounds, CloseReason, Decider, Event, Fault, Guard, Hook, Hop,
    Measures, Offer, Outcome, Param, Plan, Question, Refused, RegionId, RoomId, SessionId,
};

/// A scenario plugin may set how long silence is borne within these.
const CLOSE_AFTER: std::ops::RangeInclusive<i64> = 1_000..=3_600_000;

/// When somebody refused for want of capacity may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Gateway {
    /// A client wants a session. The reply comes out by [`Output::Reply`], at once or after policies were asked.
    pub fn handle_offer(&mut self, offer: Offer, now: Instant) {
        let offer = Arc::new(offer);
        if let Err(reason) = self.begin(&offer, now) {
            self.refuse(&offer, reason);
        }
    }

    fn begin(&mut self, offer: &Arc<Offer>, now: Instant) -> Result<(), Refused> {
        if self.shutting_down {
            return Err(Refused::Draining);
        }
        if self.sessions.len() >= self.settings.limits.sessions_max {
            return Err(Refused::Full);
        }
        let Some(scenario) = self.settings.scenarios.get(&offer.scenario).cloned() else {
            return Err(Refused::UnknownScenario(offer.scenario.clone()));
        };
        let id = SessionId(self.next_session);
        let mut session = Session {
            id,
            room: RoomId(0),
            offer: offer.clone(),
            offered: now,
            phase: Phase::Resolving,
            bounds: scenario.bounds,
            close_after: scenario.close_after,
            plan: Plan::default(),
            admitted_by: Decider::Native,
            opened_at: Default::default(),
            measures: Measures::default(),
            last_heard: now,
            memory: None,
        };
        session.room = self.enter_room(&session, scenario.spares)?;
        self.next_session += 1;
        self.sessions.insert(id, session);
        if scenario.binds(Hook::Scenario) {
            let question = Question::Resolve {
                scenario: offer.scenario.clone(),
                labels: offer.labels.clone(),
            };
            self.ask(&scenario.set, About::Resolve(id), question, now);
        } else {
            self.ask_admission(id, now);
        }
        Ok(())
    }

    /// The room with the offer's name, founded if there is none. The session counts there once it is admitted.
    fn enter_room(&mut self, session: &Session, spares: u8) -> Result<RoomId, Refused> {
        let offer = &session.offer;
        if let Some(&room) = self.rooms_by_name.get(&offer.room) {
            let standing = &self.rooms[&room].scenario;
            if *standing != offer.scenario {
                return Err(Refused::ScenarioOfRoom(standing.clone()));
            }
            self.join(room, session.id);
            return Ok(room);
        }
        let id = RoomId(self.next_room);
        self.next_room += 1;
        let founding = Founding {
            name: offer.room.clone(),
            scenario: offer.scenario.clone(),
            labels: offer.labels.clone(),
            region: session.region(&self.settings.regions).unwrap_or(self.settings.home),
            spares,
        };
        self.rooms_by_name.insert(offer.room.clone(), id);
        self.rooms.insert(id, Room::new(id, founding));
        self.join(id, session.id);
        Ok(id)
    }

    fn join(&mut self, room: RoomId, session: SessionId) {
        if let Some(room) = self.rooms.get_mut(&room) {
            room.sessions.insert(session);
        }
    }

    /// The scenario plugin said what it asks of the data plane. It overrides the text within the text's bounds.
    pub(super) fn resolved(
        &mut self,
        id: SessionId,
        answer: Result<Answer, Fault>,
        now: Instant,
    ) -> Outcome {
        let outcome = match answer {
            Ok(Answer::Params(params)) => self.take_params(id, &params),
            Ok(_) => mismatched(),
            Err(fault) => Outcome::Faulted(fault),
        };
        self.ask_admission(id, now);
        outcome
    }

    fn take_params(&mut self, id: SessionId, params: &[(Box<str>, i64)]) -> Outcome {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Outcome::Stale;
        };
        let text = session.bounds;
        let within = |value: i64| {
            u32::try_from(value).ok().map(|kbps| kbps.clamp(text.floor_kbps, text.ceiling_kbps))
        };
        let mut differs = false;
        let known = params.iter().filter_map(|(key, value)| Some((Param::from_key(key)?, *value)));
        for (param, value) in known {
            match param {
                Param::BitrateFloor => {
                    session.bounds.floor_kbps = within(value).unwrap_or(text.floor_kbps);
                }
                Param::BitrateCeiling => {
                    session.bounds.ceiling_kbps = within(value).unwrap_or(text.ceiling_kbps);
                }
                Param::CloseAfter => {
                    let value = value.clamp(*CLOSE_AFTER.start(), *CLOSE_AFTER.end());
                    session.close_after = Duration::from_millis(value as u64);
                }
                Param::Spares => {
                    if let Some(room) =
                        self.rooms.get_mut(&session.room).filter(|room| !room.is_placed())
                    {
                        room.spares = value.clamp(1, 3) as u8;
                    }
                }
                Param::Priority => continue,
            }
            differs = true;
        }
        let Bounds { floor_kbps, ceiling_kbps } = session.bounds;
        session.bounds.ceiling_kbps = ceiling_kbps.max(floor_kbps);
        if differs { Outcome::Applied { differs } } else { Outcome::Abstained }
    }

    fn ask_admission(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.phase = Phase::Admitting;
        let (room, offer) = (session.room, session.offer.clone());
        let Some(scenario) = self.settings.scenarios.get(&offer.scenario).cloned() else {
            return;
        };
        if !scenario.binds(Hook::Admission) {
            self.admit(id, None, Decider::Native, now);
            return;
        }
        let question = Question::Admit {
            session: id,
            room,
            standing: self.region_of_room(room),
            scenario: offer.scenario.clone(),
            labels: offer.labels.clone(),
            regions: self.region_rows(),
        };
        self.ask(&scenario.set, About::Admit(id), question, now);
    }

    pub(super) fn admission_said(
        &mut self,
        id: SessionId,
        answer: Result<Answer, Fault>,
        by: Decider,
        now: Instant,
    ) -> Outcome {
        let Some(session) = self.sessions.get(&id) else {
            return Outcome::Stale;
        };
        let bounds = session.bounds;
        let verdict = match answer {
            Ok(Answer::Admit { verdict, .. }) => verdict,
            Ok(_) => return self.admission_failed(id, mismatched(), now),
            Err(fault) => return self.admission_failed(id, Outcome::Faulted(fault), now),
        };
        match verdict {
            AdmitVerdict::Abstain => {
                self.admit(id, None, Decider::Native, now);
                Outcome::Abstained
            }
            AdmitVerdict::Accept => {
                self.admit(id, None, by, now);
                Outcome::Applied { differs: false }
            }
            AdmitVerdict::AcceptCapped(kbps)
                if kbps >= bounds.floor_kbps && kbps <= bounds.ceiling_kbps =>
            {
                self.admit(id, Some(kbps), by, now);
                Outcome::Applied { differs: true }
            }
            AdmitVerdict::AcceptCapped(_) => {
                self.admit(id, None, Decider::Native, now);
                Outcome::Guarded(Guard::CapOutOfBounds)
            }
            AdmitVerdict::Redirect(region) if self.may_redirect(id, region) => {
                self.give_up(id, Refused::Redirected(region), now);
                Outcome::Applied { differs: true }
            }
            AdmitVerdict::Redirect(_) => {
                self.admit(id, None, Decider::Native, now);
                Outcome::Guarded(Guard::UnusableRegion)
            }
            AdmitVerdict::Reject(retry_after_ms) => {
                let retry_after = Duration::from_millis(u64::from(retry_after_ms));
                self.give_up(id, Refused::Rejected { retry_after }, now);
                Outcome::Applied { differs: true }
            }
        }
    }

    fn admission_failed(&mut self, id: SessionId, outcome: Outcome, now: Instant) -> Outcome {
        let Some(session) = self.sessions.get(&id) else {
            return outcome;
        };
        let scenario = self.settings.scenarios.get(&session.offer.scenario);
        match scenario.map_or(AdmitOnFault::Admit, |scenario| scenario.on_admission_fault) {
            AdmitOnFault::Admit => self.admit(id, None, Decider::Native, now),
            AdmitOnFault::AdmitCapped => {
                let floor = session.bounds.floor_kbps;
                self.admit(id, Some(floor), Decider::Native, now);
            }
            AdmitOnFault::Reject => {
                self.give_up(id, Refused::Rejected { retry_after: RETRY_AFTER }, now);
            }
        }
        outcome
    }

    /// A room that stands stays where it is; and the region must be one of ours, and another one.
    fn may_redirect(&self, id: SessionId, region: RegionId) -> bool {
        let standing = self.sessions.get(&id).and_then(|session| self.region_of_room(session.room));
        standing.is_none()
            && (region.0 as usize) < self.settings.regions.len()
            && region != self.settings.home
    }

    fn region_of_room(&self, room: RoomId) -> Option<RegionId> {
        let holding = self.rooms.get(&room)?.holding?;
        Some(self.region_of(holding.on))
    }

    /// It may come in, if its room's node has capacity for it; the room is placed if it was not.
    fn admit(&mut self, id: SessionId, cap_kbps: Option<u32>, by: Decider, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.admitted_by = by;
        session.plan.cap_kbps = cap_kbps.unwrap_or(0);
        session.phase = Phase::Placing;
        let (room, kbps) = (session.room, session.kbps());
        match self.rooms.get(&room).and_then(|room| room.holding) {
            None => self.place(room, now),
            Some(holding) if self.ledger.fits(holding.on, kbps) => self.open(id, now),
            Some(_) => self.give_up(id, Refused::NoNode, now),
        }
    }

    /// Its room has a route: it is opened at every hop of it.
    pub(super) fn open(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(room) = self.rooms.get(&session.room) else {
            return;
        };
        session.phase = Phase::Opening;
        self.outputs.push_back(Output::Install {
            session: id,
            room: room.id,
            offer: session.offer.clone(),
            route: room.cell.clone(),
            plan: session.plan,
        });
        let mut hops: Vec<Hop> = room.route().hops.iter().map(|(hop, _)| *hop).collect();
        hops.extend(room.pending.iter().flat_map(|pending| pending.hops.iter().copied()));
        hops.sort_unstable();
        hops.dedup();
        let room = room.id;
        for hop in hops {
            self.outputs.push_back(Output::Open { session: id, room, hop });
        }
        if let Some(pending) = self.rooms.get_mut(&room).and_then(|room| room.pending.as_mut()) {
            pending.waiting.extend(pending.hops.iter().map(|hop| (id, *hop)));
        }
        self.timers.set(Timer::OpenLate(id), now + self.settings.limits.open_within);
        self.regrant(room);
    }

    /// The driver opened the session at a hop, or could not.
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
        let room = session.room;
        match result {
            Ok(()) => {
                session.opened_at.insert(hop);
                self.live_if_open(id, now);
                self.pending_opened(room, id, hop, now);
            }
            Err(NotOpened)
                if session.phase == Phase::Opening && self.stands_at(room) == Some(hop) =>
            {
                self.give_up(id, Refused::NotOpened(hop.node), now);
            }
            Err(NotOpened) => self.strike(room, hop, now),
        }
    }

    /// Live as soon as it is open where its room's packets go.
    pub(super) fn live_if_open(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Some(hop) = self.stands_at(session.room) else {
            return;
        };
        if session.phase != Phase::Opening || !session.opened_at.contains(&hop) {
            return;
        }
        let room = &self.rooms[&session.room];
        let accepted = Accepted {
            session: id,
            room: room.id,
            route: room.cell.clone(),
            plan: session.plan,
            admitted_by: session.admitted_by.clone(),
            routed_by: room.placed_by.clone(),
        };
        let opened = Event::Opened {
            session: id,
            room: room.id,
            room_name: room.name.clone(),
            scenario: room.scenario.clone(),
            hop,
            offered: session.offered,
            admitted_by: session.admitted_by.clone(),
            routed_by: room.placed_by.clone(),
        };
        let offer = session.offer.id;
        self.event(opened);
        self.outputs.push_back(Output::Reply { offer, result: Ok(accepted) });
        if let Some(session) = self.sessions.get_mut(&id) {
            session.phase = Phase::Live;
            session.last_heard = now;
        }
    }

    /// The driver's time is up: what is not open by now counts as not opened.
    pub(super) fn open_late(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let route = self.rooms[&session.room].route();
        let missing: Vec<Hop> = route
            .hops
            .iter()
            .map(|(hop, _)| *hop)
            .filter(|hop| !session.opened_at.contains(hop))
            .collect();
        for hop in missing {
            self.handle_opened(id, hop, Err(NotOpened), now);
        }
    }

    pub(super) fn give_up(&mut self, id: SessionId, reason: Refused, now: Instant) {
        if let Some(session) = self.sessions.get(&id) {
            let offer = session.offer.clone();
            self.refuse(&offer, reason);
            self.remove(id, CloseReason::NotOpened, now);
        }
    }

    fn refuse(&mut self, offer: &Offer, reason: Refused) {
        self.event(Event::Refused { scenario: offer.scenario.clone(), reason: reason.clone() });
        self.outputs.push_back(Output::Reply { offer: offer.id, result: Err(reason) });
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

    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if session.phase == Phase::Live {
            let room = session.room;
            self.event(Event::Closed { session: id, room, reason });
            self.remove(id, reason, now);
        } else {
            self.give_up(id, Refused::Draining, now);
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
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.timers.cancel(&Timer::OpenLate(id));
        for hop in session.opened_at {
            self.outputs.push_back(Output::CloseAt { session: id, hop });
        }
        self.outputs.push_back(Output::End { session: id, reason });
        self.leave_room(session.room, id, now);
        self.finish_if_empty();
    }

    fn leave_room(&mut self, room_id: RoomId, id: SessionId, now: Instant) {
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        room.sessions.remove(&id);
        if let Some(pending) = &mut room.pending {
            pending.waiting.retain(|(session, _)| *session != id);
        }
        if !room.sessions.is_empty() {
            self.regrant(room_id);
            self.publish_pending_if_open(room_id, now);
            return;
        }
        let name = room.name.clone();
        if let Some(holding) = room.holding.take() {
            self.ledger.release(holding);
        }
        self.rooms.remove(&room_id);
        self.rooms_by_name.remove(&name);
        self.stranded.remove(&room_id);
        self.timers.cancel(&Timer::RoomDue(room_id));
        self.timers.cancel(&Timer::LeavingEnds(room_id));
        for waiting in self.reroutes.values_mut() {
            waiting.remove(&room_id);
        }
    }
}

/// The driver could not open a session at a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOpened;
