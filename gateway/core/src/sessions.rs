//! Sessions from their offer to their end: the table, the phases of each, its plan and its share.

use std::collections::BTreeMap;
use std::ops::{Bound, Index, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_breakers::JudgedWindow;
use evenkeel_model::{
    ActionFacts, CapBounds, ClientGroup, ClientIdentity, ClientLabel, ClientTransport, Decider,
    DegradedSession, DeviceLimits, IdMap, IdSet, IngressProtocol, Labels, Measures,
    MediaDescription, MediaLimits, Metric, Offer, Op, Param, Plan, PolicyName, RegionId, RoomId,
    Scenario, ServiceObjective, SessionId, actions, lower_cap,
};
use evenkeel_revisions::StateVersions;
use evenkeel_slo::{SessionMarks, SessionMisses};

use crate::collections::{Changes, Interner, SmallSet};
use crate::effects::{GatewayEffect, InstalledSession};
use crate::flow::FlowTracker;
use crate::legs::Legs;
use crate::rooms::room::Room;
use crate::shares::{Share, WHOLE, need_kbps};

/// Maximum sessions checked for silence at a time: 20,000 per second, the rate at which workers report that many.
const SWEPT_AT_ONCE: usize = 1_024;

#[derive(Debug)]
pub(crate) struct SessionTable {
    all: IdMap<SessionId, Box<Session>>,
    next: u64,
    live: usize,
    pub(crate) requests: Interner<SessionRequest>,
    pub(crate) deciders: Interner<Decider>,
    /// The last session that was checked for silence.
    pub(crate) swept_last: SessionId,
    /// Maximum age of the workers' last report on a session.
    pub(crate) told_within: Duration,
    /// Live sessions by their degradation policy.
    ticked: BTreeMap<PolicyName, IdSet<SessionId>>,
    /// Sessions with another record.
    pub(crate) changes: Changes<SessionId>,
}

impl SessionTable {
    pub(crate) fn new() -> SessionTable {
        SessionTable {
            all: IdMap::default(),
            next: 1,
            live: 0,
            requests: Interner::default(),
            deciders: Interner::default(),
            swept_last: SessionId(0),
            told_within: Duration::ZERO,
            ticked: BTreeMap::new(),
            changes: Changes::default(),
        }
    }

    pub(crate) fn next_id(&self) -> SessionId {
        SessionId(self.next)
    }

    /// The session of an offer, under the next number. Its room is chosen by the caller.
    pub(crate) fn offered(
        &mut self,
        offer: &Arc<Offer>,
        scenario: &Scenario,
        now: Instant,
    ) -> Session {
        let mut request = SessionRequest::new(
            offer.scenario.clone(),
            offer.labels.clone(),
            offer.media.clone(),
            scenario.bounds,
            scenario.close_after,
        );
        request.bounds = request.device.lowered(scenario.bounds);
        let is_of_first_packet =
            matches!(offer.ingress, IngressProtocol::Udp(ClientIdentity::Open { .. }));
        Session {
            id: self.next_id(),
            room: RoomId(0),
            request: self.requests.intern(request),
            transport: offer.ingress.transport(),
            of_first_packet: is_of_first_packet,
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
            admitted_by: self.deciders.intern(Decider::Native),
            legs: Legs::default(),
            media: None,
            last_heard: now,
            memory: StateVersions::default(),
        }
    }

    /// Adds the session under the [next number](Self::next_id).
    pub(crate) fn insert(&mut self, session: Session) {
        self.next += 1;
        self.all.insert(session.id, Box::new(session));
    }

    pub(crate) fn follow(&mut self) {
        self.changes.follow(self.all.keys());
    }

    /// Continues the numbers of another process, or begins those of a group.
    pub(crate) fn resume_numbers(&mut self, next: SessionId) {
        let is_same = next.group() == self.next_id().group();
        self.next = if is_same { self.next.max(next.0) } else { next.0 };
    }

    /// Adds a live session of another process under its own number.
    pub(crate) fn restore(&mut self, session: Session) {
        self.all.insert(session.id, Box::new(session));
    }

    /// Removes all sessions. They go on at another process.
    pub(crate) fn forget_restored(&mut self) {
        self.all.clear();
        self.ticked.clear();
        self.live = 0;
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Box<Session>> {
        let session = self.all.remove(id)?;
        self.changes.note(id);
        if session.phase == SessionPhase::Live {
            self.live -= 1;
            self.ticked.values_mut().for_each(|ours| _ = ours.remove(id));
        }
        Some(session)
    }

    /// Marks the session live and adds it to its policy's ticks.
    pub(crate) fn set_live(&mut self, id: SessionId, ticks: Option<PolicyName>) {
        self.changes.note(id);
        if let Some(session) = self.all.get_mut(id) {
            session.phase = SessionPhase::Live;
            self.live += 1;
            if let Some(policy) = ticks {
                self.ticked.entry(policy).or_default().insert(id);
            }
        }
    }

    /// Replaces the streams of a session. Returns its plan.
    pub(crate) fn change_streams(
        &mut self,
        id: SessionId,
        media: Arc<MediaDescription>,
    ) -> Option<GatewayEffect> {
        let session = self.get(&id)?;
        let SessionRequest { scenario, labels, bounds, close_after, .. } = &*session.request;
        let (scenario, labels) = (Arc::clone(scenario), labels.clone());
        let request = SessionRequest::new(scenario, labels, media, *bounds, *close_after);
        let plan = session.plan.on(&request.media);
        let request = self.requests.intern(request);
        let session = self.get_mut(&id)?;
        (session.request, session.plan) = (request, plan);
        Some(session.replanned())
    }

    /// The load of a room's sessions, from their admission on.
    pub(crate) fn load(&self, sessions: &SmallSet<SessionId>) -> u64 {
        let admitted = sessions.iter().filter_map(|id| self.get(id));
        admitted.filter(|it| it.phase >= SessionPhase::Placing).map(Session::kbps).sum()
    }

    pub(crate) fn shares(&self, sessions: &[SessionId]) -> Vec<Share> {
        let shares = sessions.iter().filter_map(|id| self.get(id));
        shares.map(|it| Share { session: it.id, permille: it.share }).collect()
    }

    pub(crate) fn set_shares(&mut self, shares: &[Share]) {
        for Share { session, permille } in shares {
            if let Some(session) = self.get_mut(session) {
                session.share = *permille;
            }
        }
    }

    /// Reduces the sessions to a share. Returns true if any of them could be reduced.
    pub(crate) fn reduce(&mut self, sessions: &[SessionId], permille: u16) -> bool {
        let mut any = false;
        for id in sessions {
            if let Some(session) = self.get_mut(id)
                && session.can_do_with_less()
                && session.share > permille
            {
                session.share = permille;
                any = true;
            }
        }
        any
    }

    /// Limits what the live sessions of a room send, if there are two: each to what the other takes. Returns changed plans.
    pub(crate) fn settle_peer_caps(&mut self, live: &[SessionId]) -> Vec<GatewayEffect> {
        let cap = |id: &SessionId| self[id].receives_kbps();
        let peer_caps: Vec<u32> = match live {
            [first, second] => vec![cap(second), cap(first)],
            others => vec![0; others.len()],
        };
        let mut plans = Vec::new();
        for (id, peer_cap) in live.iter().zip(peer_caps) {
            let Some(session) = self.get_mut(id) else { continue };
            if session.plan.set_peer_cap(peer_cap) {
                plans.push(session.replanned());
            }
        }
        plans
    }

    /// An endpoint obeys caps on the session: its own endpoint or, in a room of two, the other one.
    pub(crate) fn obey_caps<'a>(
        &self,
        session: &Session,
        in_room: impl Iterator<Item = &'a SessionId>,
    ) -> bool {
        if session.request.media.takes_remb() {
            return true;
        }
        let live = in_room.filter_map(|id| self.get(id));
        let live = live.filter(|other| other.phase == SessionPhase::Live).take(3);
        let (count, taking) = live.fold((0, false), |(count, taking), other| {
            (count + 1, taking || other.request.media.takes_remb())
        });
        count == 2 && taking
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    pub(crate) fn ticked(&self, policy: &PolicyName) -> Option<&IdSet<SessionId>> {
        self.ticked.get(policy)
    }

    /// The largest number of sessions of one degradation policy.
    pub(crate) fn most_ticked(&self) -> usize {
        self.ticked.values().map(IdSet::len).max().unwrap_or(0)
    }

    /// The next silent sessions to handle, and the session where the sweep continues.
    pub(crate) fn sweep(&self, now: Instant) -> (Vec<SessionId>, Option<SessionId>) {
        let after = (Bound::Excluded(self.swept_last), Bound::Unbounded);
        let turn: Vec<&Session> =
            self.range(after).take(SWEPT_AT_ONCE).map(|(_, session)| session).collect();
        let goes_on = (turn.len() == SWEPT_AT_ONCE).then(|| turn[SWEPT_AT_ONCE - 1].id);
        let silent = turn.into_iter().filter(|session| session.is_silent(now, self.told_within));
        (silent.map(|session| session.id).collect(), goes_on)
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<&Session> {
        self.all.get(*id).map(|session| &**session)
    }

    /// Another part of the session's record differs.
    pub(crate) fn note_changed(&mut self, id: SessionId) {
        self.changes.note(id);
    }

    /// For a change of the session's record.
    pub(crate) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.changes.note(*id);
        self.unrecorded_mut(id)
    }

    /// For the policy's state, which may change with each tick: its record is deferred.
    pub(crate) fn deferred_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.changes.defer(*id);
        self.unrecorded_mut(id)
    }

    /// For measures, which are not in the session's record, and the time at which it was heard last, which the record
    /// may contain late.
    pub(crate) fn unrecorded_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.all.get_mut(*id).map(|session| &mut **session)
    }

    pub(crate) fn contains_key(&self, id: &SessionId) -> bool {
        self.all.contains_key(*id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = SessionId> {
        self.all.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Session> {
        self.all.values().map(|session| &**session)
    }

    pub(crate) fn range(
        &self,
        range: impl RangeBounds<SessionId>,
    ) -> impl Iterator<Item = (SessionId, &Session)> {
        self.all.range(range).map(|(id, session)| (id, &**session))
    }

    pub(crate) fn range_mut(
        &mut self,
        range: impl RangeBounds<SessionId>,
    ) -> impl Iterator<Item = (SessionId, &mut Session)> {
        let changes = &mut self.changes;
        self.all.range_mut(range).map(|(id, session)| {
            changes.note(id);
            (id, &mut **session)
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Index<&SessionId> for SessionTable {
    type Output = Session;

    fn index(&self, id: &SessionId) -> &Session {
        &self.all[*id]
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) room: RoomId,
    pub(crate) request: Arc<SessionRequest>,
    pub(crate) transport: ClientTransport,
    /// The session was opened by its first packet on a listener for trusted networks. No policy is asked then.
    pub(crate) of_first_packet: bool,
    /// Present until the session is live.
    pub(crate) opening: Option<Box<SessionOpening>>,
    pub(crate) offered: Instant,
    pub(crate) phase: SessionPhase,
    /// The plan by policies, before the share applies.
    pub(crate) plan: Plan,
    pub(crate) plans: u32,
    /// The granted share of the session's need above its floor, in thousandths; below 1,000 if capacity is short.
    pub(crate) share: u16,
    /// The last window in which the breakers of zones and regions counted the session, and that of the breakers of clients.
    pub(crate) domain_judged: JudgedWindow,
    pub(crate) client_judged: JudgedWindow,
    /// The group of clients by which the session was admitted with voice only; `None` once its breaker is closed.
    pub(crate) voice_only_for: Option<Box<ClientGroup>>,
    pub(crate) slo_marks: SessionMarks,
    pub(crate) admitted_by: Arc<Decider>,
    pub(crate) legs: Legs,
    /// Present from the workers' first report on.
    pub(crate) media: Option<Box<SessionMedia>>,
    pub(crate) last_heard: Instant,
    /// State of the degradation policy for this session.
    pub(crate) memory: StateVersions,
}

/// The workers' reports on a session.
#[derive(Default, Debug)]
pub(crate) struct SessionMedia {
    /// Values of the last report.
    pub(crate) measures: Measures,
    pub(crate) track: Option<FlowTracker>,
}

/// The request of a session, with the parameters of its scenario; many sessions share an equal one.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SessionRequest {
    pub(crate) scenario: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) media: Arc<MediaDescription>,
    pub(crate) device: DeviceLimits,
    pub(crate) bounds: CapBounds,
    pub(crate) close_after: Duration,
}

impl SessionRequest {
    pub(crate) fn new(
        scenario: Arc<str>,
        labels: Labels,
        media: Arc<MediaDescription>,
        bounds: CapBounds,
        close_after: Duration,
    ) -> SessionRequest {
        let device = DeviceLimits::new(&labels, &media);
        SessionRequest { scenario, labels, media, device, bounds, close_after }
    }

    /// The facts that bound the session's actions.
    pub(crate) fn facts(&self) -> ActionFacts<'_> {
        ActionFacts { media: &self.media, bounds: self.bounds, device: &self.device }
    }

    /// Takes a parameter of a scenario plugin, within the scenario's bounds.
    pub(crate) fn take_param(&mut self, param: Param, value: i64, within: CapBounds) {
        let CapBounds { floor_kbps, ceiling_kbps } = within;
        let kbps = u32::try_from(value).ok().map(|kbps| kbps.clamp(floor_kbps, ceiling_kbps));
        match param {
            Param::BitrateFloor => self.bounds.floor_kbps = kbps.unwrap_or(floor_kbps),
            Param::BitrateCeiling => self.bounds.ceiling_kbps = kbps.unwrap_or(ceiling_kbps),
            Param::CloseAfter => {
                self.close_after = Duration::from_millis(param.within(value) as u64);
            }
            Param::Spares | Param::Priority => {}
        }
    }
}

/// Data of a session that is not live yet.
#[derive(Debug)]
pub(crate) struct SessionOpening {
    pub(crate) offer: Arc<Offer>,
    /// The session is refused if it is not live by then; `None` before its room has a route.
    pub(crate) by: Option<Instant>,
}

/// The phase of a session's life. A closed session is removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum SessionPhase {
    /// The scenario policy is asked for parameters.
    Resolving,
    /// The admission policy is asked.
    Admitting,
    Placing,
    /// The driver opens it at the node that carries the room.
    Opening,
    Live,
}

impl Session {
    /// The facts that its worker needs.
    pub(crate) fn installed(&self, room: &Room) -> InstalledSession {
        InstalledSession {
            session: self.id,
            room: room.id(),
            route: Arc::clone(room.cell()),
            plan: self.plan_now(),
            limits: self.limits(),
            media: Arc::clone(&self.request.media),
            scenario: Arc::clone(&self.request.scenario),
            of_first_packet: self.of_first_packet,
        }
    }

    /// The session's load: its share of its need.
    pub(crate) fn kbps(&self) -> u64 {
        let need = self.need_kbps();
        let floor = u64::from(self.request.bounds.floor_kbps).min(need);
        floor + (need - floor) * u64::from(self.share) / u64::from(WHOLE)
    }

    /// The session can be reduced: its endpoint obeys caps, and its scenario allows one.
    pub(crate) fn can_do_with_less(&self) -> bool {
        let SessionRequest { media, bounds, .. } = &*self.request;
        media.takes_remb() && self.need_kbps() > u64::from(bounds.floor_kbps)
    }

    /// The plan by policies, limited by the share and by the breaker of the client's group: with voice only, the client's
    /// sending is capped at the floor, which leaves no room for video.
    pub(crate) fn plan_now(&self) -> Plan {
        let SessionRequest { media, bounds, .. } = &*self.request;
        let mut plan = self.plan;
        if self.share < WHOLE {
            plan = plan.capped(self.kbps() as u32);
        }
        if self.voice_only_for.is_some() {
            plan = plan.with(Op::VoiceOnly, 1, media);
            if media.takes_remb() {
                plan = plan.capped(bounds.floor_kbps);
            }
        }
        plan
    }

    /// The limits that workers follow.
    pub(crate) fn limits(&self) -> MediaLimits {
        self.plan_now().limits(&self.request.facts())
    }

    /// The effect of a changed plan.
    pub(crate) fn replanned(&self) -> GatewayEffect {
        GatewayEffect::Plan { session: self.id, plan: self.plan_now(), limits: self.limits() }
    }

    /// The highest rate to the session in kbit/s, by its cap and its device; 0: no limit.
    pub(crate) fn receives_kbps(&self) -> u32 {
        lower_cap(self.plan_now().cap_kbps(), self.request.device.kbps.unwrap_or(0))
    }

    /// The action would send the device more than the labels allow.
    pub(crate) fn exceeds_device(&self, op: Op, arg: u64) -> bool {
        actions::of(op).exceeds_device(arg, &self.request.device)
    }

    /// The session for steps of its degradation. `obeys_caps`: an endpoint obeys caps on it.
    pub(crate) fn degraded(&self, obeys_caps: bool) -> DegradedSession<'_> {
        DegradedSession {
            facts: self.request.facts(),
            decided: self.plan.actions(),
            in_force: self.plan_now().actions(),
            obeys_caps,
            sent_kbps: self.measured(Metric::BitrateUp),
        }
    }

    /// The session carries video that its device can decode.
    pub(crate) fn has_video(&self) -> bool {
        self.request.facts().has_video()
    }

    /// The need of the session's streams, within the scenario's bounds.
    fn need_kbps(&self) -> u64 {
        need_kbps(&self.request.media, self.request.bounds)
    }

    /// The session was silent for its scenario's limit, and a packet would have been reported by now.
    pub(crate) fn is_silent(&self, now: Instant, told_within: Duration) -> bool {
        let limit = self.request.close_after + told_within;
        self.phase == SessionPhase::Live && now.saturating_duration_since(self.last_heard) >= limit
    }

    /// The region that the label `region` names, if any.
    pub(crate) fn region(&self, regions: &[Box<str>]) -> Option<RegionId> {
        let named = ClientLabel::Region.value(&self.request.labels)?;
        let at = regions.iter().position(|region| **region == *named)?;
        Some(RegionId(at as u32))
    }

    /// A value of the workers' last report.
    pub(crate) fn measured(&self, metric: Metric) -> Option<u32> {
        self.media.as_ref()?.measures.measured(metric)
    }

    pub(crate) fn track(&self) -> Option<&FlowTracker> {
        self.media.as_ref()?.track.as_ref()
    }

    pub(crate) fn track_mut(&mut self) -> Option<&mut FlowTracker> {
        self.media.as_mut()?.track.as_mut()
    }

    /// Judges the gap and the R-factor. `missed` packets were missing when another hop took over.
    pub(crate) fn misses(&self, slo: &ServiceObjective, missed: u32) -> SessionMisses {
        let gap = self.track().map(|track| track.lasts(missed));
        [
            slo.gap.zip(gap).map(|(limit, gap)| gap >= limit),
            slo.r_factor_centi.zip(self.measured(Metric::RFactor)).map(|(limit, r)| r < limit),
        ]
    }

    pub(crate) fn measures(&self, now: Instant) -> Measures {
        let mut measures =
            self.media.as_ref().map_or_else(Measures::default, |media| media.measures);
        let plan = self.plan_now();
        measures
            .set(Metric::Rung, u64::from(plan.rung()))
            .set(Metric::Age, now.saturating_duration_since(self.offered).as_millis() as u64)
            .set(Metric::Video, u64::from(self.has_video()))
            .set(Metric::Floor, u64::from(self.request.bounds.floor_kbps))
            .set(Metric::Ceiling, u64::from(self.request.bounds.ceiling_kbps));
        for op in Op::ALL {
            if let Some(metric) = actions::of(op).metric() {
                measures.set(metric, u64::from(plan.arg(op)));
            }
        }
        measures
    }
}

#[cfg(test)]
mod tests;
