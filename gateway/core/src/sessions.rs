//! Sessions from their offer to their end: the table, the steps of an offer, the plan and the share of each, and its record.

use std::collections::BTreeMap;
use std::ops::{Bound, Index, RangeBounds, RangeInclusive};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_breakers::{ClientBreakers, DomainBreakers, JudgedWindow};
use evenkeel_diagnosis::{DeviceLoad, DeviceSlot};
use evenkeel_instant as instant;
use evenkeel_model::{
    ActionFacts, CapBounds, ClientGroup, ClientIdentity, ClientTransport, ClosedMove,
    ClosedSession, CoreSettings, Decider, DegradedSession, DeviceLimits, Hop, IdMap, IdSet,
    IngressProtocol, Labels, Measures, MediaDescription, MediaLimits, Metric, MoveOutcome, Offer,
    Op, Param, Plan, PlanRecord, PluginState, Policing, PolicyName, RedundancyMode, RoomId,
    Scenario, ServiceObjective, SessionId, ZoneId, actions, lower_cap,
};
use evenkeel_revisions::{Revision, Revisions, StateVersions};
use evenkeel_slo::{SessionMarks, SessionMisses, SloTable};
use serde::{Deserialize, Serialize};

use crate::collections::{Changes, Interner, SmallSet};
use crate::effects::InstalledSession;
use crate::flow::FlowTracker;
use crate::hop_map::HopMap;
use crate::legs::{LegState, Legs};
use crate::rooms::room::Room;
use crate::shares::{WHOLE, need_kbps, raised};

/// Maximum sessions checked for silence at a time: 20,000 per second, the rate at which workers report that many.
const SWEPT_AT_ONCE: usize = 1_024;

#[derive(Debug)]
pub(crate) struct SessionTable {
    all: IdMap<SessionId, Box<Session>>,
    next: u64,
    live: usize,
    requests: Interner<SessionRequest>,
    deciders: Interner<Decider>,
    /// The last session that was checked for silence.
    swept_last: SessionId,
    /// Maximum age of the workers' last report on a session.
    reports_within: Duration,
    /// Live sessions by their degradation policy.
    ticked: BTreeMap<PolicyName, TickedSessions>,
    /// Sessions with another record.
    changes: Changes<SessionId>,
}

/// The live sessions of one degradation policy.
#[derive(Default, Debug)]
pub(crate) struct TickedSessions {
    /// Sessions that each tick is about.
    awake: IdSet<SessionId>,
    /// Idle sessions that the policy left as they are, and that have not changed since.
    resting: IdSet<SessionId>,
}

impl TickedSessions {
    pub(crate) fn awake(&self) -> &IdSet<SessionId> {
        &self.awake
    }

    pub(crate) fn resting(&self) -> &IdSet<SessionId> {
        &self.resting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.awake.len() + self.resting.len()
    }

    fn rest(&mut self, id: SessionId) {
        if self.awake.remove(id) {
            self.resting.insert(id);
        }
    }

    fn wake(&mut self, id: SessionId) {
        if self.resting.remove(id) {
            self.awake.insert(id);
        }
    }

    fn remove(&mut self, id: SessionId) {
        self.awake.remove(id);
        self.resting.remove(id);
    }
}

/// Sessions that were checked for silence.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) silent: Vec<SessionId>,
    pub(crate) checked: RangeInclusive<SessionId>,
    /// The sweep has not reached the last session.
    pub(crate) goes_on: bool,
}

/// The shares of sessions at one time.
#[derive(Debug)]
pub(crate) struct Shares(Vec<(SessionId, u16)>);

impl SessionTable {
    pub(crate) fn new() -> SessionTable {
        SessionTable {
            all: IdMap::default(),
            next: 1,
            live: 0,
            requests: Interner::default(),
            deciders: Interner::default(),
            swept_last: SessionId(0),
            reports_within: Duration::ZERO,
            ticked: BTreeMap::new(),
            changes: Changes::default(),
        }
    }

    pub(crate) fn next_id(&self) -> SessionId {
        SessionId(self.next)
    }

    /// Begins the session of an offer in this room, under the [next number](Self::next_id).
    pub(crate) fn begin(
        &mut self,
        offer: &Arc<Offer>,
        scenario: &Scenario,
        room: &Room,
        now: Instant,
    ) {
        let mut request = SessionRequest::new(
            offer.scenario.clone(),
            offer.labels.clone(),
            offer.media.clone(),
            scenario.bounds,
            scenario.close_after,
        );
        request.bounds = request.device.lowered(scenario.bounds);
        let id = self.next_id();
        let session = Session {
            id,
            room: room.id(),
            request: self.requests.intern(request),
            transport: offer.ingress.transport(),
            of_first_packet: matches!(
                offer.ingress,
                IngressProtocol::Udp(ClientIdentity::Open { .. })
            ),
            stage: Stage::Offered(Box::new(OfferedSession {
                offer: Arc::clone(offer),
                step: OfferStep::Scenario,
            })),
            offered: now,
            plan: Plan::default(),
            plan_version: 0,
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
        };
        self.next += 1;
        self.all.insert(id, Box::new(session));
    }

    /// Takes the parameters of a scenario plugin. Returns true if they change the session's request.
    pub(crate) fn resolve(&mut self, id: SessionId, params: &[(Param, i64)]) -> bool {
        let Some(session) = self.get_mut(&id) else { return false };
        let before = Arc::clone(&session.request);
        let request = self.requests.intern(before.resolved(params));
        let differs = *request != *before;
        if let Some(session) = self.unrecorded_mut(&id) {
            session.request = request;
        }
        differs
    }

    /// The offer is admitted, with this cap.
    pub(crate) fn admit(
        &mut self,
        id: SessionId,
        cap_kbps: Option<u32>,
        by: Decider,
    ) -> Option<&mut Session> {
        let by = self.deciders.intern(by);
        let session = self.get_mut(&id)?;
        session.admitted_by = by;
        session.plan = session.plan.capped(cap_kbps.unwrap_or(0));
        session.take_step(OfferStep::admit);
        Some(session)
    }

    /// The session is live, and its policy is asked about it from now on. Returns its offer.
    pub(crate) fn go_live(
        &mut self,
        id: SessionId,
        ticks: Option<PolicyName>,
        now: Instant,
    ) -> Option<Arc<Offer>> {
        let session = self.get_mut(&id)?;
        let offer = session.go_live(now)?;
        self.count_live(id, ticks);
        Some(offer)
    }

    fn count_live(&mut self, id: SessionId, ticks: Option<PolicyName>) {
        self.live += 1;
        if let Some(policy) = ticks {
            self.ticked.entry(policy).or_default().awake.insert(id);
        }
    }

    /// Makes the live session of a record, for [`Self::restore`].
    pub(crate) fn of_record(
        &mut self,
        record: SessionRecord,
        media: Arc<MediaDescription>,
        room: &Room,
        hops: &HopMap,
        slos: &mut SloTable,
        now: Instant,
    ) -> Session {
        let mut legs = Legs::default();
        for leg in &record.legs {
            let Some(hop) = hops.map(leg.hop) else { continue };
            // An opening under way is repeated, or closed where the room does not go any more.
            if leg.open || !room.hops_in_use(now).contains(&hop) {
                legs.resume(hop);
            }
        }
        let (scenario, labels) = (Arc::clone(room.scenario()), record.labels);
        let slo_marks = slos.resume(&scenario, record.slo_marks, now);
        let (bounds, close_after) = (record.bounds, record.close_after);
        let request = SessionRequest::new(scenario, labels, media, bounds, close_after);
        Session {
            id: record.id,
            room: room.id(),
            request: self.requests.intern(request),
            transport: record.transport,
            of_first_packet: record.of_first_packet,
            stage: Stage::Live,
            offered: record.offered,
            plan: record.plan.plan(),
            plan_version: 0,
            share: record.share,
            domain_judged: JudgedWindow::default(),
            client_judged: JudgedWindow::default(),
            voice_only_for: record.voice_only_for,
            slo_marks,
            admitted_by: self.deciders.intern(record.admitted_by),
            legs,
            media: None,
            last_heard: record.last_heard,
            memory: record.memory,
        }
    }

    /// Adds a live session of another process under its own number.
    pub(crate) fn restore(&mut self, session: Session, ticks: Option<PolicyName>) {
        let id = session.id;
        self.all.insert(id, Box::new(session));
        self.changes.note(id);
        self.count_live(id, ticks);
    }

    /// Removes all sessions. They go on at another process.
    pub(crate) fn forget_restored(&mut self) {
        self.all.clear();
        self.ticked.clear();
        self.live = 0;
    }

    /// Continues the numbers of another process, or begins those of a group.
    pub(crate) fn resume_numbers(&mut self, next: SessionId) {
        let is_same = next.group() == self.next_id().group();
        self.next = if is_same { self.next.max(next.0) } else { next.0 };
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Box<Session>> {
        let session = self.all.remove(id)?;
        self.changes.note(id);
        if session.is_live() {
            self.live -= 1;
            self.ticked.values_mut().for_each(|ours| ours.remove(id));
        }
        Some(session)
    }

    /// Replaces the streams of a session.
    pub(crate) fn change_streams(
        &mut self,
        id: SessionId,
        media: Arc<MediaDescription>,
    ) -> SessionChange {
        let Some(session) = self.get(&id) else { return SessionChange::default() };
        let SessionRequest { scenario, labels, bounds, close_after, .. } = &*session.request;
        let (scenario, labels) = (Arc::clone(scenario), labels.clone());
        let request = SessionRequest::new(scenario, labels, media, *bounds, *close_after);
        let request = self.requests.intern(request);
        let session = self.get_mut(&id);
        session.map(|session| session.take_request(request)).unwrap_or_default()
    }

    /// The room has a node again. In cold mode its sessions were kept while they were silent, so their silence counts from now.
    pub(crate) fn renew_silence(&mut self, room: &Room, now: Instant) {
        if room.mode() != RedundancyMode::Cold {
            return;
        }
        for id in room.sessions().iter() {
            if let Some(session) = self.get_mut(id) {
                session.excuse_silence(now);
            }
        }
    }

    /// A sender left the room, so sessions that heard it may rightly become silent.
    pub(crate) fn forget_heard(&mut self, room: &Room) {
        for id in room.sessions().iter() {
            if let Some(track) = self.unrecorded_mut(id).and_then(Session::track_mut) {
                track.forget();
            }
        }
    }

    /// All live sessions of the room are open at the hop, or are being opened there.
    pub(crate) fn are_all_at(&self, room: &Room, hop: Hop) -> bool {
        let sessions = room.sessions().iter().filter_map(|id| self.get(id));
        sessions.filter(|session| session.is_live()).all(|session| session.legs.contains(&hop))
    }

    /// The load of a room's sessions, from their admission on.
    pub(crate) fn load(&self, sessions: &SmallSet<SessionId>) -> u64 {
        let admitted = sessions.iter().filter_map(|id| self.get(id));
        admitted.filter(|it| it.is_admitted()).map(Session::kbps).sum()
    }

    pub(crate) fn shares(&self, sessions: &[SessionId]) -> Shares {
        let shares = sessions.iter().filter_map(|id| self.get(id));
        Shares(shares.map(|it| (it.id, it.share)).collect())
    }

    /// Gives the sessions the shares that they had.
    pub(crate) fn restore_shares(&mut self, Shares(before): &Shares) {
        for (id, share) in before {
            if let Some(session) = self.get_mut(id) {
                session.share = *share;
            }
        }
    }

    /// The sessions that have other shares now.
    pub(crate) fn with_other_shares(&self, Shares(before): &Shares) -> Vec<SessionId> {
        let differs = |(id, share): &&(SessionId, u16)| {
            self.get(id).is_some_and(|session| session.share != *share)
        };
        before.iter().filter(differs).map(|(id, _)| *id).collect()
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

    /// Limits what the live sessions of a room send, if there are two: each to what the other takes. Returns the changes.
    pub(crate) fn settle_peer_caps(
        &mut self,
        live: &[SessionId],
    ) -> Vec<(SessionId, SessionChange)> {
        let cap = |id: &SessionId| self[id].receives_kbps();
        let peer_caps: Vec<u32> = match live {
            // A session alone in its room may hear itself.
            [only] => vec![self[only].plan_now().arg(Op::CapDown)],
            [first, second] => vec![cap(second), cap(first)],
            others => vec![0; others.len()],
        };
        let mut changes = Vec::new();
        for (id, peer_cap) in live.iter().zip(peer_caps) {
            let Some(session) = self.get_mut(id) else { continue };
            if session.plan.set_peer_cap(peer_cap) {
                changes.push((*id, session.replanned()));
            }
        }
        changes
    }

    /// An endpoint obeys caps on the session: its own endpoint or, in a room of two, the other one.
    pub(crate) fn obey_caps<'a>(
        &self,
        session: &Session,
        in_room: impl Iterator<Item = &'a SessionId>,
    ) -> bool {
        if session.request.media.takes_caps() {
            return true;
        }
        let live = in_room.filter_map(|id| self.get(id));
        let live = live.filter(|other| other.is_live()).take(3);
        let (count, taking) = live.fold((0, false), |(count, taking), other| {
            (count + 1, taking || other.request.media.takes_caps())
        });
        count == 2 && taking
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    pub(crate) fn ticked(&self, policy: &PolicyName) -> Option<&TickedSessions> {
        self.ticked.get(policy)
    }

    /// The policy left the session as it is. If the session is idle, not each tick is about it any more.
    pub(crate) fn rest(&mut self, policy: &PolicyName, id: SessionId) {
        if self.get(&id).is_some_and(Session::is_idle)
            && let Some(ours) = self.ticked.get_mut(policy)
        {
            ours.rest(id);
        }
    }

    /// The session has changed: the next tick of its policy is about it.
    pub(crate) fn wake(&mut self, id: SessionId) {
        self.ticked.values_mut().for_each(|ours| ours.wake(id));
    }

    /// The policy has changed: its next tick is about all its sessions.
    pub(crate) fn wake_all(&mut self, policy: &PolicyName) {
        if let Some(ours) = self.ticked.get_mut(policy) {
            let resting = std::mem::take(&mut ours.resting);
            resting.iter().for_each(|id| _ = ours.awake.insert(id));
        }
    }

    /// Takes the next sessions from those that the policy decides about.
    pub(crate) fn release_ticked(&mut self, policy: &PolicyName, at_most: usize) -> Vec<SessionId> {
        let Some(ours) = self.ticked.get_mut(policy) else { return Vec::new() };
        let next: Vec<SessionId> =
            ours.awake.iter().chain(ours.resting.iter()).take(at_most).collect();
        next.iter().for_each(|id| ours.remove(*id));
        if ours.is_empty() {
            self.ticked.remove(policy);
        }
        next
    }

    /// The largest number of sessions of one degradation policy.
    pub(crate) fn most_ticked(&self) -> usize {
        self.ticked.values().map(TickedSessions::len).max().unwrap_or(0)
    }

    /// Sets the maximum age of the workers' last report on a session.
    pub(crate) fn note_reports_within(&mut self, within: Duration) {
        self.reports_within = within;
    }

    pub(crate) fn reports_within(&self) -> Duration {
        self.reports_within
    }

    /// The session was silent for its scenario's limit, and a packet would have been reported by now.
    pub(crate) fn is_silent(&self, session: &Session, now: Instant) -> bool {
        let limit = session.request.close_after + self.reports_within;
        session.is_live() && now.saturating_duration_since(session.last_heard) >= limit
    }

    /// Checks the next sessions for silence.
    pub(crate) fn sweep(&mut self, now: Instant) -> Sweep {
        let after = (Bound::Excluded(self.swept_last), Bound::Unbounded);
        let turn: Vec<&Session> =
            self.range(after).take(SWEPT_AT_ONCE).map(|(_, session)| session).collect();
        let last = turn.last().map(|last| last.id).filter(|_| turn.len() == SWEPT_AT_ONCE);
        let silent = turn.into_iter().filter(|session| self.is_silent(session, now));
        let silent = silent.map(|session| session.id).collect();
        let first = SessionId(self.swept_last.0.saturating_add(1));
        self.swept_last = last.unwrap_or(SessionId(0));
        let checked = first..=last.unwrap_or(SessionId(u64::MAX));
        Sweep { silent, checked, goes_on: last.is_some() }
    }

    /// Counts a session's media for the objective of its scenario. The mark in its record is deferred.
    pub(crate) fn judge_objective(
        &mut self,
        id: SessionId,
        missed: u32,
        settings: &CoreSettings,
        slos: &mut SloTable,
        now: Instant,
    ) {
        let Some(session) = self.unrecorded_mut(&id) else { return };
        let Some((scenario, slo)) = settings.slo(&session.request.scenario) else { return };
        let misses = session.misses(slo, missed);
        if slos.note_media(scenario, &mut session.slo_marks, misses, now) {
            self.changes.defer(id);
        }
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<&Session> {
        self.all.get(*id).map(|session| &**session)
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

    pub(crate) fn follow(&mut self) {
        self.changes.follow(self.all.keys());
    }

    pub(crate) fn unfollow(&mut self) {
        self.changes.unfollow();
    }

    /// Sessions with another record than the one that was taken last.
    pub(crate) fn changes(&self) -> &Changes<SessionId> {
        &self.changes
    }

    /// A part of the session's record differs that is not in the session.
    pub(crate) fn note_changed(&mut self, id: SessionId) {
        self.changes.note(id);
    }

    /// Has the deferred changes of the next turn taken.
    pub(crate) fn release_deferred(&mut self) {
        self.changes.release();
    }

    /// Takes up to this many sessions with another record, or all.
    pub(crate) fn take_changed(&mut self, at_most: Option<usize>) -> Vec<SessionId> {
        self.changes.take(at_most)
    }
}

impl Index<&SessionId> for SessionTable {
    type Output = Session;

    fn index(&self, id: &SessionId) -> &Session {
        &self.all[*id]
    }
}

/// The request of a session, with the parameters of its scenario; many sessions share an equal one.
#[derive(Clone, PartialEq, Debug)]
struct SessionRequest {
    scenario: Arc<str>,
    labels: Labels,
    media: Arc<MediaDescription>,
    device: DeviceLimits,
    bounds: CapBounds,
    close_after: Duration,
}

impl SessionRequest {
    fn new(
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
    fn facts(&self) -> ActionFacts<'_> {
        ActionFacts { media: &self.media, bounds: self.bounds, device: &self.device }
    }

    /// The request with parameters of a scenario plugin, within the scenario's bounds.
    fn resolved(&self, params: &[(Param, i64)]) -> SessionRequest {
        let mut request = self.clone();
        let CapBounds { floor_kbps, ceiling_kbps } = self.bounds;
        for &(param, value) in params {
            let kbps = u32::try_from(value).ok().map(|kbps| kbps.clamp(floor_kbps, ceiling_kbps));
            match param {
                Param::BitrateFloor => request.bounds.floor_kbps = kbps.unwrap_or(floor_kbps),
                Param::BitrateCeiling => {
                    request.bounds.ceiling_kbps = kbps.unwrap_or(ceiling_kbps);
                }
                Param::CloseAfter => {
                    request.close_after = Duration::from_millis(param.within(value) as u64);
                }
                Param::Spares | Param::Priority => {}
            }
        }
        request.bounds.ceiling_kbps = request.bounds.ceiling_kbps.max(request.bounds.floor_kbps);
        request
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    room: RoomId,
    request: Arc<SessionRequest>,
    transport: ClientTransport,
    /// The session was opened by its first packet on a listener for trusted networks. No policy is asked then.
    of_first_packet: bool,
    stage: Stage,
    offered: Instant,
    /// The plan by policies, before the share applies.
    plan: Plan,
    plan_version: u32,
    /// The granted share of the session's need above its floor, in thousandths; below 1,000 if capacity is short.
    share: u16,
    /// The last window in which the breakers of zones and regions counted the session, and that of the breakers of clients.
    domain_judged: JudgedWindow,
    client_judged: JudgedWindow,
    /// The group of clients by which the session was admitted with voice only; `None` once its breaker is closed.
    voice_only_for: Option<Box<ClientGroup>>,
    slo_marks: SessionMarks,
    admitted_by: Arc<Decider>,
    legs: Legs,
    /// Present from the workers' first report on.
    media: Option<Box<SessionMedia>>,
    last_heard: Instant,
    /// State of the degradation policy for this session.
    memory: StateVersions,
}

/// The stage of a session's life. A closed session is removed.
#[derive(Debug)]
enum Stage {
    Offered(Box<OfferedSession>),
    Live,
}

impl Stage {
    /// The session is open at the hop that carries its room. Returns its offer, if it was being opened.
    fn go_live(self) -> (Stage, Option<Arc<Offer>>) {
        match self {
            Stage::Offered(offered) if matches!(offered.step, OfferStep::Opening { .. }) => {
                (Stage::Live, Some(offered.offer))
            }
            Stage::Offered(_) | Stage::Live => (self, None),
        }
    }
}

#[derive(Debug)]
struct OfferedSession {
    offer: Arc<Offer>,
    step: OfferStep,
}

/// The answers for which an offer waits, in this order.
#[derive(Debug)]
enum OfferStep {
    /// The parameters of the scenario policy.
    Scenario,
    /// The admission policy.
    Admission,
    /// The route of the room.
    Route,
    /// The driver, which opens the session at the node that carries the room. After this time, the offer is refused.
    Opening { by: Instant },
}

impl OfferStep {
    /// The session has its parameters. A repeated question changes nothing.
    fn ask_admission(self) -> OfferStep {
        match self {
            OfferStep::Scenario | OfferStep::Admission => OfferStep::Admission,
            OfferStep::Route | OfferStep::Opening { .. } => self,
        }
    }

    /// The session is admitted. Without a policy, admission was not asked about.
    fn admit(self) -> OfferStep {
        match self {
            OfferStep::Scenario | OfferStep::Admission | OfferStep::Route => OfferStep::Route,
            OfferStep::Opening { .. } => self,
        }
    }

    /// The room has a route.
    fn open(self, by: Instant) -> OfferStep {
        match self {
            OfferStep::Scenario | OfferStep::Admission => self,
            OfferStep::Route | OfferStep::Opening { .. } => OfferStep::Opening { by },
        }
    }
}

/// The workers' reports on a session.
#[derive(Default, Debug)]
struct SessionMedia {
    /// Values of the last report.
    measures: Measures,
    /// The sum of the R-factors of all reports, times 100, and the number of those that have one.
    r_centi_sum: u64,
    r_reports: u32,
    track: Option<FlowTracker>,
    /// The sum of the rates of the client's media in the reports of this slot of the diagnosis, in kbit/s, and their number.
    sent_kbps_sum: u64,
    sent_reports: u32,
    /// The load of the client's device.
    load: DeviceLoad,
    /// The policing of the client by its worker.
    policing: Option<Policing>,
}

/// The consequences of a change of a session, for the tables beside it.
#[must_use = "the gateway applies it"]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct SessionChange {
    pub(crate) plan: Option<PlanInForce>,
    pub(crate) share: Option<ShareChange>,
}

/// A plan, and the limits that workers follow from now on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanInForce {
    pub(crate) plan: Plan,
    pub(crate) limits: MediaLimits,
}

/// The session has another share.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ShareChange {
    ReducedAt(Instant),
    Whole,
}

impl SessionChange {
    pub(crate) fn to_plan(in_force: PlanInForce) -> SessionChange {
        SessionChange { plan: Some(in_force), ..SessionChange::default() }
    }
}

impl Session {
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// The number of the room.
    pub(crate) fn room(&self) -> RoomId {
        self.room
    }

    pub(crate) fn scenario(&self) -> &Arc<str> {
        &self.request.scenario
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.request.labels
    }

    pub(crate) fn media(&self) -> &Arc<MediaDescription> {
        &self.request.media
    }

    /// The bounds of bit rates, by the scenario and its policy.
    pub(crate) fn bounds(&self) -> CapBounds {
        self.request.bounds
    }

    pub(crate) fn transport(&self) -> ClientTransport {
        self.transport
    }

    /// The session was opened by its first packet, so no policy is asked.
    pub(crate) fn is_of_first_packet(&self) -> bool {
        self.of_first_packet
    }

    /// The time of the offer.
    pub(crate) fn offered(&self) -> Instant {
        self.offered
    }

    pub(crate) fn admitted_by(&self) -> &Arc<Decider> {
        &self.admitted_by
    }

    pub(crate) fn legs(&self) -> &Legs {
        &self.legs
    }

    pub(crate) fn legs_mut(&mut self) -> &mut Legs {
        &mut self.legs
    }

    /// State of the degradation policy for this session.
    pub(crate) fn memory(&self) -> &StateVersions {
        &self.memory
    }

    /// Keeps the state that the degradation policy wrote about the session.
    pub(crate) fn remember(&mut self, state: Arc<PluginState>, revisions: Option<&Revisions>) {
        self.memory.write(state, revisions);
    }

    /// Forgets states of other revisions.
    pub(crate) fn settle_memory(&mut self, active: &Revision) {
        self.memory.settle(active);
    }

    // The offer.

    /// The offer, until the session is live.
    pub(crate) fn offer(&self) -> Option<&Arc<Offer>> {
        match &self.stage {
            Stage::Offered(offered) => Some(&offered.offer),
            Stage::Live => None,
        }
    }

    fn step(&self) -> Option<&OfferStep> {
        match &self.stage {
            Stage::Offered(offered) => Some(&offered.step),
            Stage::Live => None,
        }
    }

    /// The session counts as load: it is admitted.
    pub(crate) fn is_admitted(&self) -> bool {
        !matches!(self.step(), Some(OfferStep::Scenario | OfferStep::Admission))
    }

    /// The session is admitted, and its room has no route yet.
    pub(crate) fn awaits_route(&self) -> bool {
        matches!(self.step(), Some(OfferStep::Route))
    }

    /// The session is not live, and is being opened at nodes.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.step(), Some(OfferStep::Opening { .. }))
    }

    /// A worker has the session: it is being opened at nodes, or live.
    pub(crate) fn is_installed(&self) -> bool {
        matches!(self.step(), None | Some(OfferStep::Opening { .. }))
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live)
    }

    /// The offer is refused if the session is not live by then; `None` before it is opened, and once it is live.
    pub(crate) fn opens_by(&self) -> Option<Instant> {
        match self.step()? {
            OfferStep::Opening { by } => Some(*by),
            OfferStep::Scenario | OfferStep::Admission | OfferStep::Route => None,
        }
    }

    fn take_step(&mut self, change: impl FnOnce(OfferStep) -> OfferStep) {
        if let Stage::Offered(offered) = &mut self.stage {
            offered.step = change(std::mem::replace(&mut offered.step, OfferStep::Scenario));
        }
    }

    /// The session has its parameters.
    pub(crate) fn ask_admission(&mut self) {
        self.take_step(OfferStep::ask_admission);
    }

    /// The room has a route, and the session is opened at its hops. Returns the offer; `None` if the session is live.
    pub(crate) fn open(&mut self, by: Instant) -> Option<Arc<Offer>> {
        self.take_step(|step| step.open(by));
        self.offer().map(Arc::clone)
    }

    /// The session is open at the hop that carries its room. Returns its offer, if it was being opened.
    fn go_live(&mut self, now: Instant) -> Option<Arc<Offer>> {
        let (stage, offer) = std::mem::replace(&mut self.stage, Stage::Live).go_live();
        self.stage = stage;
        if offer.is_some() {
            self.last_heard = now;
        }
        offer
    }

    /// The facts that its worker needs.
    pub(crate) fn installed(&self, room: &Room) -> InstalledSession {
        let PlanInForce { plan, limits } = self.plan_in_force();
        InstalledSession {
            session: self.id,
            room: room.id(),
            route: Arc::clone(room.cell()),
            plan,
            limits,
            media: Arc::clone(&self.request.media),
            scenario: Arc::clone(&self.request.scenario),
            of_first_packet: self.of_first_packet,
        }
    }

    // Load, shares and plans.

    /// The session's load: its share of its need.
    pub(crate) fn kbps(&self) -> u64 {
        self.kbps_of(self.share)
    }

    fn kbps_of(&self, share: u16) -> u64 {
        let need = self.need_kbps();
        let floor = u64::from(self.request.bounds.floor_kbps).min(need);
        floor + (need - floor) * u64::from(share) / u64::from(WHOLE)
    }

    /// The need of the session's streams, within the scenario's bounds.
    fn need_kbps(&self) -> u64 {
        need_kbps(&self.request.media, self.request.bounds)
    }

    /// The session can be reduced: its endpoint obeys caps, and its scenario allows one.
    fn can_do_with_less(&self) -> bool {
        let SessionRequest { media, bounds, .. } = &*self.request;
        media.takes_caps() && self.need_kbps() > u64::from(bounds.floor_kbps)
    }

    /// The granted share of the session's need above its floor, in thousandths.
    pub(crate) fn share_permille(&self) -> u16 {
        self.share
    }

    /// The load that the next larger share adds; `None` for a session that is not reduced.
    pub(crate) fn raise_adds(&self) -> Option<u64> {
        (self.share < WHOLE).then(|| self.kbps_of(raised(self.share)) - self.kbps())
    }

    /// Raises a reduced session by one step.
    pub(crate) fn raise(&mut self) {
        self.share = raised(self.share);
    }

    /// The consequences of another share.
    pub(crate) fn reshared(&self, now: Instant) -> SessionChange {
        let plan = self.is_installed().then(|| self.plan_in_force());
        let is_reduced = self.share < WHOLE;
        let share = if is_reduced { ShareChange::ReducedAt(now) } else { ShareChange::Whole };
        SessionChange { plan, share: Some(share) }
    }

    /// The consequences of another plan.
    fn replanned(&self) -> SessionChange {
        SessionChange::to_plan(self.plan_in_force())
    }

    /// The client changes its streams. Actions in force hold for the new ones as well.
    fn take_request(&mut self, request: Arc<SessionRequest>) -> SessionChange {
        self.plan = self.plan.on(&request.media);
        self.request = request;
        self.replanned()
    }

    /// The session is admitted with voice only, while the breaker of this group of clients is open.
    pub(crate) fn limit_to_voice(&mut self, group: ClientGroup) {
        self.voice_only_for = Some(Box::new(group));
    }

    /// The group of clients by which the session was admitted with voice only, until its breaker is closed.
    pub(crate) fn voice_only_for(&self) -> Option<&ClientGroup> {
        self.voice_only_for.as_deref()
    }

    /// The breaker of the session's clients is closed.
    pub(crate) fn lift_voice_only(&mut self) -> SessionChange {
        self.voice_only_for = None;
        let plan = self.is_installed().then(|| self.plan_in_force());
        SessionChange { plan, ..SessionChange::default() }
    }

    /// The plan by policies, before the share applies.
    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    /// Takes a policy's plan. Its consequences follow with [`Self::confirm_plan`].
    pub(crate) fn replan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// Policies that were asked about the plan before answer too late.
    pub(crate) fn confirm_plan(&mut self) {
        self.plan_version = self.plan_version.wrapping_add(1);
    }

    /// The number of policies' changes of the plan.
    pub(crate) fn plan_version(&self) -> u32 {
        self.plan_version
    }

    /// The plan by policies, limited by the share, by the breaker of the client's group and by the load of its device.
    pub(crate) fn plan_now(&self) -> Plan {
        let plan = self.plan_without_load();
        match self.media.as_ref().map_or(0, |media| media.load.cap_kbps()) {
            0 => plan,
            kbps => {
                let cap = lower_cap(plan.arg(Op::CapUp), kbps);
                plan.with(Op::CapUp, cap, &self.request.media)
            }
        }
    }

    /// The plan whatever the load of the device is. With voice only, the client's sending is capped at the floor, which leaves no room for
    /// video.
    fn plan_without_load(&self) -> Plan {
        let SessionRequest { media, bounds, .. } = &*self.request;
        let mut plan = self.plan;
        if self.share < WHOLE {
            plan = plan.capped(self.kbps() as u32);
        }
        if self.voice_only_for.is_some() {
            plan = plan.with(Op::VoiceOnly, 1, media);
            if media.takes_caps() {
                plan = plan.capped(bounds.floor_kbps);
            }
        }
        plan
    }

    /// The plan of now, with the limits that workers follow.
    pub(crate) fn plan_in_force(&self) -> PlanInForce {
        let plan = self.plan_now();
        PlanInForce { plan, limits: plan.limits(&self.facts()) }
    }

    /// Something else than the load of its device caps the rate of the client.
    pub(crate) fn is_capped(&self) -> bool {
        self.plan_without_load().limits(&self.facts()).send_kbps > 0
    }

    /// Judges by a slot that ended whether the client's device keeps up. Returns the consequences if it is asked for another rate.
    pub(crate) fn follow_device(&mut self, slot: &DeviceSlot) -> Option<SessionChange> {
        let can_ask = self.request.media.takes_caps() && !self.is_capped();
        let floor_kbps = self.request.bounds.floor_kbps;
        let media = self.media.as_mut()?;
        let (sum, reports) = (media.sent_kbps_sum, media.sent_reports);
        (media.sent_kbps_sum, media.sent_reports) = (0, 0);
        let sent_kbps = sum.checked_div(reports.into()).filter(|_| can_ask);
        let before = media.load.cap_kbps();
        media.load.judge(slot, sent_kbps.map(|kbps| kbps as u32), floor_kbps);
        let is_other = media.load.cap_kbps() != before;
        is_other.then(|| self.replanned())
    }

    /// The facts that bound the session's actions.
    pub(crate) fn facts(&self) -> ActionFacts<'_> {
        self.request.facts()
    }

    /// The highest rate to the session in kbit/s, by its cap and its device; 0: no limit.
    fn receives_kbps(&self) -> u32 {
        lower_cap(self.plan_now().cap_down_kbps(), self.request.device.kbps.unwrap_or(0))
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

    // Media and measures.

    /// Takes the measures of the workers, and the time at which the client was last heard. Returns true if the session was idle,
    /// and is not any more.
    pub(crate) fn take_summary(&mut self, measures: Measures, last_heard: Option<Instant>) -> bool {
        let was_idle = self.is_idle();
        let media = self.media.get_or_insert_default();
        media.measures = measures;
        if let Some(r_centi) = measures.measured(Metric::RFactor) {
            media.r_centi_sum += u64::from(r_centi);
            media.r_reports += 1;
        }
        if let Some(kbps) = measures.measured(Metric::BitrateUp) {
            media.sent_kbps_sum += u64::from(kbps);
            media.sent_reports += 1;
        }
        last_heard.into_iter().for_each(|heard| self.excuse_silence(heard));
        was_idle && !self.is_idle()
    }

    /// Takes the policing of the client by its worker. Returns whether it is another step, begins or ends.
    pub(crate) fn take_policing(&mut self, policing: Option<Policing>) -> bool {
        let media = self.media.get_or_insert_default();
        let before = std::mem::replace(&mut media.policing, policing);
        before.map(|it| it.step) != policing.map(|it| it.step)
    }

    /// The policing of the client, if it sends more than it may.
    pub(crate) fn policing(&self) -> Option<Policing> {
        self.media.as_ref()?.policing
    }

    /// The workers' last report has neither packets nor a measured value, or there was none.
    pub(crate) fn is_idle(&self) -> bool {
        let Some(media) = &self.media else { return true };
        Metric::ALL.iter().all(|&metric| match (metric, media.measures.measured(metric)) {
            (_, None) => true,
            (Metric::BitrateUp | Metric::BitrateDown, Some(kbps)) => kbps == 0,
            (_, Some(_)) => false,
        })
    }

    /// The silence of the client counts from this time on.
    pub(crate) fn excuse_silence(&mut self, until: Instant) {
        self.last_heard = self.last_heard.max(until);
    }

    /// Counts the measures at the breakers of the zone that carries the session.
    pub(crate) fn judge_zone(&mut self, zone: ZoneId, breakers: &mut DomainBreakers) {
        if let Some(media) = &self.media {
            breakers.judge(zone, &mut self.domain_judged, &media.measures);
        }
    }

    /// Counts at the breakers of its clients whether the session loses packets on their side.
    pub(crate) fn judge_clients(
        &mut self,
        is_impaired: bool,
        breakers: &mut ClientBreakers,
        now: Instant,
    ) {
        breakers.judge(&self.request.labels, &mut self.client_judged, is_impaired, now);
    }

    /// The session ended: it leaves the windows of its scenario's objective.
    pub(crate) fn leave_objective(&self, slos: &mut SloTable, now: Instant) {
        slos.leave(&self.request.scenario, &self.slo_marks, now);
    }

    /// A value of the workers' last report.
    pub(crate) fn measured(&self, metric: Metric) -> Option<u32> {
        self.media.as_ref()?.measures.measured(metric)
    }

    /// The loss from the session and that to it, ppm, each after repair.
    pub(crate) fn losses_after_repair(&self) -> [Option<u32>; 2] {
        self.media.as_ref().map_or([None; 2], |media| media.measures.losses_after_repair())
    }

    /// The mean R-factor of the workers' reports to this process, times 100.
    pub(crate) fn mean_r_centi(&self) -> Option<u32> {
        let media = self.media.as_ref()?;
        media.r_centi_sum.checked_div(media.r_reports.into()).map(|mean| mean as u32)
    }

    pub(crate) fn track(&self) -> Option<&FlowTracker> {
        self.media.as_ref()?.track.as_ref()
    }

    pub(crate) fn track_mut(&mut self) -> Option<&mut FlowTracker> {
        self.media.as_mut()?.track.as_mut()
    }

    /// Tracks the media from the hop that carries the session.
    pub(crate) fn track_at(&mut self, hop: Hop, now: Instant) -> &mut FlowTracker {
        let media = self.media.get_or_insert_default();
        let track = media.track.get_or_insert_with(|| FlowTracker::new(hop, now));
        if track.hop() != hop {
            track.goes_to(hop, now);
        }
        track
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

    // The end, and records.

    /// The facts of a live session for the event of its end.
    pub(crate) fn closed(&self, room: &Room, now: Instant) -> ClosedSession {
        let moves = room
            .records()
            .filter(|record| record.outcome == MoveOutcome::Done && record.ended >= self.offered);
        ClosedSession {
            scenario: Arc::clone(&self.request.scenario),
            labels: self.labels().clone(),
            media: Arc::clone(self.media()),
            mode: room.route().mode,
            transport: self.transport,
            admitted_by: Arc::clone(&self.admitted_by),
            routed_by: room.placed_by().clone(),
            node: room.holding().on,
            mean_r_centi: self.mean_r_centi(),
            offered: self.offered,
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

    /// The session's record. `media` is the place of its streams, `reduced` the time since which its share is below the whole.
    pub(crate) fn to_record(&self, media: u32, reduced: Option<Instant>) -> SessionRecord {
        let legs = self.legs.iter().filter_map(|(hop, leg)| match leg {
            LegState::Waiting { .. } => None,
            LegState::Opening(_) => Some(LegRecord { hop: *hop, open: false }),
            LegState::Open => Some(LegRecord { hop: *hop, open: true }),
        });
        SessionRecord {
            id: self.id,
            room: self.room,
            labels: Arc::clone(&self.request.labels),
            media,
            transport: self.transport,
            of_first_packet: self.of_first_packet,
            offered: self.offered,
            bounds: self.request.bounds,
            close_after: self.request.close_after,
            plan: PlanRecord::new(self.plan, &self.request.media),
            share: self.share,
            reduced,
            voice_only_for: self.voice_only_for.clone(),
            slo_marks: self.slo_marks,
            admitted_by: (*self.admitted_by).clone(),
            legs: legs.collect(),
            last_heard: self.last_heard,
            memory: self.memory.clone(),
        }
    }
}

/// A live session.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct SessionRecord {
    /// The number, which the other process continues.
    pub id: SessionId,
    /// The number of the room.
    pub room: RoomId,
    /// Labels of the offer, which policies may read.
    pub labels: Labels,
    /// Index in [`GatewayRecord::media`](crate::GatewayRecord::media).
    pub media: u32,
    transport: ClientTransport,
    of_first_packet: bool,
    #[serde(with = "instant")]
    offered: Instant,
    bounds: CapBounds,
    close_after: Duration,
    /// The plan by policies, before the share applies.
    plan: PlanRecord,
    /// The granted share of the need above the floor, in thousandths.
    share: u16,
    /// The time since which the share is below the whole.
    #[serde(with = "instant::option")]
    reduced: Option<Instant>,
    /// The group of clients by which the session was admitted with voice only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voice_only_for: Option<Box<ClientGroup>>,
    #[serde(default, skip_serializing_if = "SessionMarks::are_empty")]
    slo_marks: SessionMarks,
    admitted_by: Decider,
    /// The hops where the session is open or opening.
    pub legs: Vec<LegRecord>,
    /// The time of the last packet of the client.
    #[serde(with = "instant")]
    pub last_heard: Instant,
    memory: StateVersions,
}

/// A hop where the driver was asked to open the session and not yet to close it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct LegRecord {
    /// The node, in one incarnation.
    pub hop: Hop,
    /// The driver has opened it. Otherwise the session is opened there again, or closed.
    pub open: bool,
}

impl SessionRecord {
    /// The bit rate that the session of these streams needs, kbit/s.
    pub fn need_kbps(&self, media: &MediaDescription) -> u64 {
        need_kbps(media, self.bounds)
    }

    /// The time since which the session has less than its need.
    pub(crate) fn reduced_since(&self) -> Option<Instant> {
        self.reduced
    }

    pub(crate) fn has_share_within_whole(&self) -> bool {
        self.share <= WHOLE
    }

    /// States of revisions that are no longer loaded may be among those of the policy.
    pub(crate) fn keeps_other_states(&self) -> bool {
        self.memory.keeps_other()
    }
}

#[cfg(test)]
mod tests;
