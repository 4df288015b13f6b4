//! A session from its offer to its admission.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use super::asking::{About, mismatched};
use super::calls::apart;
use crate::breaker::Judged;
use crate::few::FewMap;
use crate::rollout::{Memory, unit};
use crate::room::{Founding, Room};
use crate::session::{Opening, Phase, Session, WHOLE, Wanted};
use crate::settings::{AdmitOnFault, Scenario};
use crate::{
    AdmitVerdict, Affinity, Answer, Bounds, Decider, Fault, Guard, Hook, Identity, Ingress, Offer,
    Outcome, Param, Plan, Question, Refused, RegionId, RoomId, SessionId,
};

/// When somebody may try again whom a policy that failed keeps out.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Gateway {
    /// A client wants a session. The reply comes out by [`Output::Reply`](crate::Output::Reply), at once or after policies were asked.
    pub fn handle_offer(&mut self, offer: Offer, now: Instant) {
        // Who comes to a room that is there calls it by its name, which is kept once.
        let room = self.rooms.by_name.get_key_value(&offer.room).map(|(name, _)| Arc::clone(name));
        let offer = Arc::new(Offer { room: room.unwrap_or(offer.room), ..offer });
        if let Err(reason) = self.begin(&offer, now) {
            self.refuse(&offer, None, reason);
        }
    }

    fn begin(&mut self, offer: &Arc<Offer>, now: Instant) -> Result<(), Refused> {
        if let Some(&room) = self.rooms.by_name.get(&offer.room) {
            self.catch_up(room, now);
        }
        if self.shutting_down {
            return Err(Refused::Draining);
        }
        if self.sessions.len() >= self.settings.limits.sessions_max {
            return Err(Refused::Full { retry_after: self.retry_after(now) });
        }
        let Some(scenario) = self.settings.scenarios.get(&offer.scenario).cloned() else {
            return Err(Refused::UnknownScenario(offer.scenario.clone()));
        };
        let id = SessionId(self.sessions.next);
        let mut session = Session {
            id,
            room: RoomId(0),
            wanted: self.sessions.wants.share(Wanted {
                scenario: offer.scenario.clone(),
                labels: offer.labels.clone(),
                media: offer.media.clone(),
            }),
            transport: offer.ingress.transport(),
            of_first_packet: matches!(offer.ingress, Ingress::Udp(Identity::Open { .. })),
            opening: Some(Box::new(Opening { offer: Arc::clone(offer), by: None })),
            offered: now,
            phase: Phase::Resolving,
            bounds: scenario.bounds,
            close_after: scenario.close_after,
            plan: Plan::default(),
            plans: 0,
            share: WHOLE,
            judged: Judged::default(),
            admitted_by: self.rooms.deciders.share(Decider::Native),
            legs: FewMap::default(),
            measures: None,
            last_heard: now,
            track: None,
            memory: Memory::default(),
        };
        session.room = self.enter_room(&session, offer, &scenario)?;
        self.sessions.next += 1;
        let unasked = session.of_first_packet;
        self.sessions.all.insert(id, Box::new(session));
        if unasked {
            self.admit(id, None, Decider::Native, now);
        } else {
            self.ask_scenario(id, now);
        }
        Ok(())
    }

    /// What its scenario asks of the data plane, where a plugin says so.
    pub(super) fn ask_scenario(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let wanted = Arc::clone(&session.wanted);
        let Some(scenario) = self.settings.scenarios.get(&wanted.scenario) else {
            return;
        };
        if !scenario.binds(Hook::Scenario) {
            self.ask_admission(id, now);
            return;
        }
        let set = Arc::clone(&scenario.set);
        let arm =
            self.arm(&scenario.policy(Hook::Scenario), unit(Hook::Scenario, session.room, id));
        let (scenario, labels) = (wanted.scenario.clone(), wanted.labels.clone());
        let question = Question::Resolve { scenario, labels };
        self.ask(&set, arm, About::Resolve(id), question, now);
    }

    /// The room with the offer's name, founded if there is none; where each session is placed by itself, one of its own.
    /// The session counts there once it is admitted.
    fn enter_room(
        &mut self,
        session: &Session,
        offer: &Offer,
        scenario: &Scenario,
    ) -> Result<RoomId, Refused> {
        let name = match scenario.affinity {
            Affinity::Room => offer.room.clone(),
            Affinity::Session => apart(&offer.room, session.id),
        };
        if let Some(&room) = self.rooms.by_name.get(&name) {
            let standing = &self.rooms[&room].scenario;
            if *standing != offer.scenario {
                return Err(Refused::ScenarioOfRoom(standing.clone()));
            }
            self.join(room, session.id);
            return Ok(room);
        }
        let id = RoomId(self.rooms.next);
        let call = self.enter_call(&offer.room, &offer.scenario, id, scenario.affinity)?;
        self.rooms.next += 1;
        let founding = Founding {
            name: name.clone(),
            scenario: offer.scenario.clone(),
            labels: offer.labels.clone(),
            region: session.region(&self.settings.regions).unwrap_or(self.settings.home),
            spares: scenario.spares,
            mode: scenario.mode,
            call,
            priority: scenario.priority,
        };
        self.rooms.by_name.insert(name, id);
        self.rooms.all.insert(id, Box::new(Room::new(id, founding)));
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
        let before = session.bounds;
        let close_after = session.close_after;
        let mut room = self.rooms.get_mut(&session.room).filter(|room| !room.is_placed());
        let of_room = room.as_ref().map(|room| (room.spares, room.priority));
        let mut known_one = false;
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
                    session.close_after = Duration::from_millis(param.within(value) as u64);
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
        let Bounds { floor_kbps, ceiling_kbps } = session.bounds;
        session.bounds.ceiling_kbps = ceiling_kbps.max(floor_kbps);
        let differs = (before, close_after) != (session.bounds, session.close_after)
            || of_room != room.map(|room| (room.spares, room.priority));
        if known_one { Outcome::Applied { differs } } else { Outcome::Abstained }
    }

    pub(super) fn ask_admission(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.phase = Phase::Admitting;
        let (room, wanted) = (session.room, Arc::clone(&session.wanted));
        let Some(scenario) = self.settings.scenarios.get(&wanted.scenario).cloned() else {
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
            scenario: wanted.scenario.clone(),
            labels: wanted.labels.clone(),
            regions: self.region_rows(),
        };
        let arm = self.arm(&scenario.policy(Hook::Admission), unit(Hook::Admission, room, id));
        self.ask(&scenario.set, arm, About::Admit(id), question, now);
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
                self.admission_failed(id, Outcome::Guarded(Guard::CapOutOfBounds), now)
            }
            AdmitVerdict::Redirect(region) if self.may_redirect(id, region) => {
                self.give_up(id, Refused::Redirected(region), now);
                Outcome::Applied { differs: true }
            }
            AdmitVerdict::Redirect(_) => {
                self.admission_failed(id, Outcome::Guarded(Guard::UnusableRegion), now)
            }
            AdmitVerdict::Reject(retry_after_ms) => {
                let wait = Duration::from_millis(u64::from(retry_after_ms));
                let retry_after = self.jittered(wait);
                self.give_up(id, Refused::Rejected { retry_after }, now);
                Outcome::Applied { differs: true }
            }
        }
    }

    /// It failed us, or broke a rule: its scenario says what happens to newcomers then.
    fn admission_failed(&mut self, id: SessionId, outcome: Outcome, now: Instant) -> Outcome {
        let Some(session) = self.sessions.get(&id) else {
            return outcome;
        };
        let scenario = self.settings.scenarios.get(&session.wanted.scenario);
        match scenario.map_or(AdmitOnFault::Admit, |scenario| scenario.on_admission_fault) {
            AdmitOnFault::Admit => self.admit(id, None, Decider::Native, now),
            AdmitOnFault::AdmitCapped => {
                let floor = session.bounds.floor_kbps;
                self.admit(id, Some(floor), Decider::Native, now);
            }
            AdmitOnFault::Reject => {
                let retry_after = self.jittered(RETRY_AFTER);
                self.give_up(id, Refused::Rejected { retry_after }, now);
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
        let room = self.rooms.get(&room)?;
        let on = room.holding.on.or(room.stranded.map(|stranded| stranded.lost.node))?;
        Some(self.region_of(on))
    }

    /// It may come in, if there is capacity for it where its room stands and goes; the room is placed if it was not.
    /// Those who are stranded go before newcomers.
    fn admit(&mut self, id: SessionId, cap_kbps: Option<u32>, by: Decider, now: Instant) {
        if self.shutting_down {
            self.give_up(id, Refused::Draining, now);
            return;
        }
        if let Some(room) = self.sessions.get(&id).map(|session| session.room) {
            self.catch_up(room, now);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.admitted_by = self.rooms.deciders.share(by);
        session.plan.cap_kbps = cap_kbps.unwrap_or(0);
        session.phase = Phase::Placing;
        let (room, unasked) = (session.room, session.of_first_packet);
        if self.rooms.get(&room).is_some_and(|room| room.is_placed()) {
            if self.make_room_for(id, now) {
                self.open(id, now);
            } else {
                self.turn_away(id, now);
            }
        } else if self.stranded_go_first() && !self.rooms.paced {
            // Nobody has looked yet where they could go.
            self.turn_away(id, now);
        } else {
            self.place(room, unasked, now);
        }
    }
}
