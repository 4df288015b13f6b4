//! Offers: sessions begin, enter their rooms, and are admitted if there is capacity.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CapBounds, ClientIdentity, Decider, DecisionOutcome, IngressProtocol, Offer, OfferRefusal,
    Param, Plan, RegionId, RoomId, SessionId,
};
use evenkeel_revisions::StateVersions;

use super::{Room, Router};
use crate::capacity::Judged;
use crate::sessions::{Session, SessionOpening, SessionPhase, SessionRequest, WHOLE};
use crate::small::SmallMap;

impl Router<'_> {
    /// Begins the session. Fails if there are too many sessions, or the scenario or room does not match.
    pub(crate) fn begin(
        &mut self,
        offer: &Arc<Offer>,
        now: Instant,
    ) -> Result<SessionId, OfferRefusal> {
        if self.sessions.len() >= self.settings.limits.sessions_max {
            return Err(OfferRefusal::Full { retry_after: self.retry_after(now) });
        }
        let Some(scenario) = self.settings.scenarios.get(&offer.scenario) else {
            return Err(OfferRefusal::UnknownScenario(offer.scenario.clone()));
        };
        let id = self.sessions.next_id();
        let mut session = Session {
            id,
            room: RoomId(0),
            call: RoomId(0),
            request: self.sessions.request(SessionRequest {
                scenario: offer.scenario.clone(),
                labels: offer.labels.clone(),
                media: offer.media.clone(),
            }),
            transport: offer.ingress.transport(),
            of_first_packet: matches!(
                offer.ingress,
                IngressProtocol::Udp(ClientIdentity::Open { .. })
            ),
            opening: Some(Box::new(SessionOpening { offer: Arc::clone(offer), by: None })),
            offered: now,
            phase: SessionPhase::Resolving,
            bounds: scenario.bounds,
            close_after: scenario.close_after,
            plan: Plan::default(),
            plans: 0,
            share: WHOLE,
            judged: Judged::default(),
            admitted_by: self.sessions.decider(Decider::Native),
            legs: SmallMap::default(),
            measures: None,
            last_heard: now,
            track: None,
            memory: StateVersions::default(),
        };
        let region = session.region(&self.settings.regions).unwrap_or(self.nodes.home());
        session.room = self.rooms.enter(id, offer, scenario, region)?;
        session.call = self.rooms[&session.room].call;
        self.sessions.insert(session);
        Ok(id)
    }

    /// Applies a scenario plugin's parameters, which override those of the configuration within its bounds.
    pub(crate) fn take_params(
        &mut self,
        id: SessionId,
        params: &[(Box<str>, i64)],
    ) -> DecisionOutcome {
        let Some(session) = self.sessions.get_mut(&id) else {
            return DecisionOutcome::Stale;
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
        let CapBounds { floor_kbps, ceiling_kbps } = session.bounds;
        session.bounds.ceiling_kbps = ceiling_kbps.max(floor_kbps);
        let differs = (before, close_after) != (session.bounds, session.close_after)
            || of_room != room.map(|room| (room.spares, room.priority));
        if known_one { DecisionOutcome::Applied { differs } } else { DecisionOutcome::Abstained }
    }

    /// A new session may be redirected to the region: its room is not placed, and the region is another one of this
    /// gateway.
    pub(crate) fn may_redirect(&self, id: SessionId, region: RegionId) -> bool {
        let session = self.sessions.get(&id);
        let standing = session.and_then(|session| self.region_of_room(session.room));
        standing.is_none()
            && (region.0 as usize) < self.settings.regions.len()
            && region != self.nodes.home()
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
        let room = self.sessions.get(&id)?.room;
        self.catch_up(room, now);
        let by = self.sessions.decider(by);
        let session = self.sessions.get_mut(&id)?;
        session.admitted_by = by;
        session.plan.cap_kbps = cap_kbps.unwrap_or(0);
        session.phase = SessionPhase::Placing;
        if self.rooms.get(&room).is_some_and(Room::is_placed) {
            if self.make_room_for(id, now) {
                self.open(id, now);
            } else {
                self.turn_away(id, now);
            }
            return None;
        }
        if self.rooms.stranded_go_first() && !self.rooms.is_paced() {
            // The stranded rooms have no place yet.
            self.turn_away(id, now);
            return None;
        }
        Some(room)
    }
}
