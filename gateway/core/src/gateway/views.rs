//! Read-only views of the state, for people and their tools.

use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_breakers::ClientBreakerStanding;
use evenkeel_model::{
    Advice, Affinity, Arm, BreakerMode, BreakerState, ClientGroup, ClientTransport, Decider,
    DegradationLimit, EvidenceSource, FailureDomain, Health, Hook, Hop, HopGrant, Impairment,
    Labels, Measures, MediaDescription, MoveCause, NodeId, NodeNeed, NodeProbing, Op, Plan,
    Policing, PolicyName, RedundancyMode, RegionId, RoomId, Scenario, SessionId, actions,
};
use evenkeel_nodes::{Node, OpeningWindow, ProcessState, ProviderBreakerStanding};
use evenkeel_revisions::unit;
use evenkeel_slo::SloStanding;

use crate::gateway::{Gateway, Tables};
use crate::policy::questions::FaultSubject;
use crate::policy::subjects::{SubjectDecision, SubjectQuarantine};
use crate::record::Failback;
use crate::rooms::room::{MoveRecord, Room};
use crate::sessions::Session;

/// A live session.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionStanding {
    /// The number of the session.
    pub session: SessionId,
    /// The name of the room.
    pub room: Arc<str>,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The labels of its offer.
    pub labels: Labels,
    /// The transport of the client.
    pub transport: ClientTransport,
    /// The redundancy mode in force.
    pub mode: RedundancyMode,
    /// See [`Route::effective_mode`](evenkeel_model::Route::effective_mode).
    pub kept: RedundancyMode,
    /// The hop that carries the room; `None` while it is stranded.
    pub hop: Option<Hop>,
    /// The degradation decision in force.
    pub plan: Plan,
    /// The values of the metrics.
    pub measures: Measures,
    /// The impairment of the media, if any.
    pub impairment: Option<Impairment>,
    /// The advice to its user, if any.
    pub advice: Option<Advice>,
    /// The policing of the client, if it sends more than it may.
    pub policing: Option<Policing>,
    /// The mean R-factor of its voice, times 100; `None` if it was not measured.
    pub mean_r_centi: Option<u32>,
    /// Time since the offer.
    pub age: Duration,
}

/// A placed room.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomStanding {
    /// The number of the room.
    pub room: RoomId,
    /// The unique name.
    pub name: Arc<str>,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The redundancy mode in force.
    pub mode: RedundancyMode,
    /// See [`Route::effective_mode`](evenkeel_model::Route::effective_mode).
    pub kept: RedundancyMode,
    /// The numbers of the sessions.
    pub sessions: Vec<SessionId>,
    /// Best first.
    pub route: Vec<Hop>,
    /// The hop that carries the room; `None` while it is stranded.
    pub hop: Option<Hop>,
    /// The author of the placement.
    pub placed_by: Decider,
}

/// A node, with its load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeStanding {
    /// The node with its newest incarnation.
    pub hop: Hop,
    /// The health of the node.
    pub health: Health,
    /// In the order of [`EvidenceSource::ALL`].
    pub suspected_by: [bool; EvidenceSource::ALL.len()],
    /// The node takes no rooms, and its rooms leave.
    pub draining: bool,
    /// The node was removed from the list. It is forgotten when it is empty.
    pub leaves: bool,
    /// An operator ejected the node.
    pub ejected: bool,
    /// The gateway starts the node, or started it: it counts in the budget.
    pub started: bool,
    /// The node drains in order to be stopped, or was told to stop.
    pub stopping: bool,
    /// The reason why the node, which could be stopped, is not.
    pub need: Option<NodeNeed>,
    /// Measured capacity, which may be below the configured one.
    pub capacity_kbps: u64,
    /// Openings under way.
    pub opening: u32,
    /// Openings in the queue.
    pub waiting: u32,
    /// Load and reservations, thousandths of its capacity.
    pub load_permille: u32,
    /// Load alone.
    pub carried_kbps: u64,
    /// The load that the node reported lately, thousandths of its capacity.
    pub reported_permille: Option<u16>,
    /// The node's process, as its agent reported lately.
    pub process: Option<ProcessState>,
    /// The number of rooms.
    pub rooms: u32,
    /// Smoothed; `None` before the first answer to a probe.
    pub round_trip: Option<Duration>,
    /// Recent share of unanswered probes, ppm.
    pub loss_ppm: u32,
    /// Sessions that the node impairs, by itself or by the leg to it.
    pub impaired_sessions: u32,
    /// False with `probe = "none"`.
    pub is_probed: bool,
    /// The state of the circuit breaker of its zone.
    pub zone_breaker: BreakerState,
    /// How that state is decided.
    pub zone_breaker_mode: BreakerMode,
}

/// A session, and the decisions that led to its state.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// The state of the session.
    pub state: SessionStanding,
    /// The author of the admission.
    pub admitted_by: Decider,
    /// Thousandths of the bitrate that the session needs above its floor. Below 1,000 the node is overcommitted.
    pub share_permille: u16,
    /// Limits that keep a degradation policy from lowering the session's quality.
    pub degradation_limits: Vec<DegradationLimit>,
    /// The group of clients by which the session was admitted with voice only, until its breaker is closed.
    pub voice_only_for: Option<ClientGroup>,
    /// The decisions about its room, and those of policies about the session.
    pub room: RoomDecisions,
}

/// A room, and the decisions that led to its state.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomExplanation {
    /// The state of the room.
    pub state: RoomStanding,
    /// The decisions about it.
    pub decisions: RoomDecisions,
}

/// The decisions about a room, and their reasons.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomDecisions {
    /// The author of the placement.
    pub placed_by: Decider,
    /// Rooms of higher priority are placed first.
    pub priority: i64,
    /// The room's hops, best first.
    pub route: Vec<(Hop, HopGrant)>,
    /// Evidence against the node that carries the room, with its age.
    pub witnesses: Vec<(EvidenceSource, Duration)>,
    /// The move under way; `None` without one.
    pub heading: Option<Heading>,
    /// All other nodes.
    pub candidates: Vec<NodeCandidate>,
    /// The last moves of the room, the oldest first.
    pub moves: Vec<MoveRecord>,
    /// The last decisions of policies about the room, and about the session that is explained.
    pub answers: Vec<SubjectDecision>,
    /// Revisions that fault on the room, or on that session, and are no longer asked about it.
    pub quarantines: Vec<SubjectQuarantine>,
    /// The revisions that are asked about the sessions that are explained, in the order of the hooks.
    pub asked: Vec<AskedRevision>,
}

/// A revision that is asked about sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedRevision {
    /// The policy, by set and hook.
    pub policy: PolicyName,
    /// The arm of the sessions.
    pub arm: Arm,
    /// The revision of the arm; `None`: the native default decides.
    pub revision: Option<Arc<str>>,
    /// The number of the sessions.
    pub sessions: u32,
}

/// A move under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Heading {
    /// The hop after the move.
    pub to: Hop,
    /// The reason of the move.
    pub cause: MoveCause,
    /// The author of the decision.
    pub by: Decider,
    /// The time since the move began.
    pub since: Duration,
    /// Pending openings.
    pub waiting: usize,
}

/// Another node for the room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeCandidate {
    /// The node, in its newest incarnation.
    pub hop: Hop,
    /// The reason why the room is not there.
    pub why: CandidateReason,
    /// Load and reservations, thousandths of its capacity.
    pub load_permille: u32,
    /// Load alone, thousandths of its capacity.
    pub carried_permille: u32,
}

evenkeel_model::named! {
    /// The reason why a node does not carry the room.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum CandidateReason {
        /// The node is down.
        Down = "down",
        /// The node does not run; no room has needed it yet.
        Cold = "cold",
        /// The node is no longer needed, and is being stopped.
        Stopping = "stopping",
        /// The node is being drained.
        Draining = "draining",
        /// The node accepts no new sessions.
        NodeRefused = "node-refused",
        /// The breaker of the zone or region accepts no new rooms.
        BreakerOpen = "breaker-open",
        /// The node recently failed to take the room.
        BackingOff = "backing-off",
        /// The node lacks capacity for the room.
        Full = "full",
        /// The node is suspect or wary, or its path loses many packets.
        Unhealthy = "unhealthy",
        /// The node is in another region than the room's clients.
        OutsideRegion = "outside-region",
        /// The node is a standby, and other nodes can take the room.
        Standby = "standby",
        /// The node is a spare of the room.
        Spare = "spare",
        /// The node could take the room; the routing policy chose another one.
        NotChosen = "not-chosen",
        /// The node is as good; the native default preferred the other one.
        EqualCost = "equal-cost",
    }
}

/// A region, with counts of its nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionStanding {
    /// The number of the region.
    pub region: RegionId,
    /// The state of the circuit breaker.
    pub breaker: BreakerState,
    /// How that state is decided.
    pub breaker_mode: BreakerMode,
    /// The time until an open breaker is half-open.
    pub half_open_in: Option<Duration>,
    /// How rooms return to the region.
    pub failback: Failback,
    /// The number of nodes.
    pub nodes: u32,
    /// Nodes that take rooms.
    pub nodes_up: u32,
    /// Nodes that are being drained.
    pub nodes_draining: u32,
    /// Capacity of the nodes that accept new rooms, kbit/s.
    pub capacity_kbps: u64,
    /// Load and reserves of these nodes, kbit/s.
    pub load_kbps: u64,
    /// The number of rooms.
    pub rooms: u32,
    /// Rooms that belong in this region but are placed in other regions, or at standbys.
    pub away: u32,
}

/// Sizes of everything that grows with clients.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TableSizes {
    /// Includes sessions that are not live yet.
    pub sessions: usize,
    /// Includes rooms that are not placed yet.
    pub rooms: usize,
    /// Calls with one room per session.
    pub calls: usize,
    /// Entries of the longest list of rooms, which contains a room at most once.
    pub rooms_listed: usize,
    /// Entries of the longest list of sessions.
    pub sessions_listed: usize,
    /// Questions in flight.
    pub asks: usize,
    /// The largest number of hops of one session.
    pub legs: usize,
    /// The largest number of openings in progress at one node.
    pub opening: usize,
    /// Queued openings at all nodes.
    pub waiting: usize,
    /// The largest number of recorded moves of one room.
    pub moves: usize,
    /// The largest number of moves that damping counts for one room.
    pub damped: usize,
    /// Pairs of a node and a scenario.
    pub ballots: usize,
    /// Drains under way.
    pub drains: usize,
    /// Node numbers, including those that wait for reuse.
    pub slots: usize,
    /// Timers that are set.
    pub timers: usize,
}

/// Views of the state at one time.
#[derive(Clone, Copy)]
pub struct Views<'a> {
    pub(super) gateway: &'a Gateway,
}

impl Gateway {
    /// Read-only views of sessions, rooms, nodes and regions.
    pub fn views(&self) -> Views<'_> {
        Views { gateway: self }
    }
}

impl<'a> Views<'a> {
    /// Sizes of everything that grows with clients. Visits every session and room.
    pub fn table_sizes(self) -> TableSizes {
        let Gateway { rooms, quality, diagnosis, advice, policies, questions, .. } = self.gateway;
        let Tables { sessions, nodes, capacity, effects, worklists, reviews, .. } =
            &self.gateway.tables;
        let most = |counts: &mut dyn Iterator<Item = usize>| counts.max().unwrap_or(0);
        let paces = || nodes.opening_windows().map(OpeningWindow::counts);
        let (silent, ticked) = (quality.silent(), sessions.most_ticked());
        let listed = [capacity.reduced.len(), silent, ticked, diagnosis.len(), advice.len()];
        TableSizes {
            sessions: sessions.len(),
            rooms: rooms.len(),
            calls: rooms.calls(),
            rooms_listed: most(
                &mut [worklists.longest(), rooms.len(), questions.most_rerouted(), reviews.len()]
                    .into_iter(),
            ),
            sessions_listed: most(&mut listed.into_iter().chain([policies.most_judged()])),
            asks: questions.in_flight().len(),
            legs: most(&mut sessions.values().map(|session| session.legs().iter().count())),
            opening: most(&mut paces().map(|(under_way, _)| under_way as usize)),
            waiting: paces().map(|(_, waiting)| waiting).sum(),
            moves: most(&mut rooms.values().map(|room| room.records().count())),
            damped: most(&mut rooms.values().map(Room::moves_noted)),
            ballots: quality.ballots(),
            drains: self.gateway.drains.len(),
            slots: nodes.slots(),
            timers: effects.timers_set(),
        }
    }

    /// Returns the view of a live session.
    pub fn session(&self, id: SessionId, now: Instant) -> Option<SessionStanding> {
        let session = self.gateway.tables.sessions.get(&id).filter(|session| session.is_live())?;
        let room = self.gateway.rooms.get(&session.room())?;
        let route = room.route();
        Some(SessionStanding {
            session: session.id(),
            room: room.name().clone(),
            scenario: session.scenario().clone(),
            labels: session.labels().clone(),
            mode: route.mode,
            kept: route.effective_mode(),
            transport: session.transport(),
            hop: room.stands_at(self.gateway.tables.nodes.board()),
            plan: session.plan_now(),
            measures: session.measures(now),
            impairment: self.gateway.diagnosis.impairment(id),
            advice: self.gateway.advice.standing(id),
            policing: session.policing(),
            mean_r_centi: session.mean_r_centi(),
            age: now.saturating_duration_since(session.offered()),
        })
    }

    /// Sessions after this one in order of their ids. A session that is not live yet has no standing.
    pub fn sessions_after(
        self,
        after: SessionId,
        now: Instant,
    ) -> impl Iterator<Item = (SessionId, Option<SessionStanding>)> + use<'a> {
        let rest = self.gateway.tables.sessions.range((Bound::Excluded(after), Bound::Unbounded));
        rest.map(move |(id, _)| (id, self.session(id, now)))
    }

    /// Rooms after this one in order of their ids. A room that is not placed yet has no standing.
    pub fn rooms_after(
        self,
        after: RoomId,
    ) -> impl Iterator<Item = (RoomId, Option<RoomStanding>)> + use<'a> {
        let rest = self.gateway.rooms.after(after);
        rest.map(move |room| (room.id(), room.is_placed().then(|| self.room(room))))
    }

    /// Tells if an offer with these names creates a room that sessions share.
    pub fn creates_room(self, scenario: &str, room: &str) -> bool {
        let shared = |scenario: &Scenario| scenario.affinity == Affinity::Room;
        self.gateway.tables.settings.scenarios.get(scenario).is_some_and(shared)
            && self.gateway.rooms.named(room).is_none()
    }

    /// The number of sessions in the room with this name, live or opening, and the hop that carries it.
    pub fn occupancy(self, room: &str) -> Option<(usize, Hop)> {
        let (_, id) = self.gateway.rooms.named(room)?;
        let room = self.gateway.rooms.get(&id)?;
        Some((room.sessions().len(), room.stands_at(self.gateway.tables.nodes.board())?))
    }

    /// Returns the indicators of all scenarios that have a service level objective.
    pub fn slos(self, now: Instant) -> impl Iterator<Item = SloStanding> + use<'a> {
        self.gateway.tables.slos.standings(&self.gateway.tables.settings, now)
    }

    /// Returns the breakers of clients that are not closed, or held, or that have sessions with voice only.
    pub fn client_breakers(
        self,
        now: Instant,
    ) -> impl Iterator<Item = ClientBreakerStanding> + use<'a> {
        self.gateway.admission.client_breakers.standings(now)
    }

    /// Returns the breakers of providers of nodes that are not closed.
    pub fn provider_breakers(
        self,
        now: Instant,
    ) -> impl Iterator<Item = ProviderBreakerStanding> + use<'a> {
        self.gateway.tables.nodes.provider_breakers(now)
    }

    /// Returns all nodes in the order of their numbers.
    pub fn nodes(self) -> impl Iterator<Item = NodeStanding> + use<'a> {
        self.gateway.tables.nodes.iter().map(move |node| self.node(node))
    }

    /// Returns all regions in the order of their numbers.
    pub fn regions(self, now: Instant) -> impl Iterator<Item = RegionStanding> + use<'a> {
        self.gateway.tables.nodes.regions().map(move |id| self.region(id, now))
    }

    /// The mode in force for a session, and the number of hops at which it is open or opening.
    pub fn mode_of(&self, id: SessionId) -> Option<(RedundancyMode, usize)> {
        let session = self.gateway.tables.sessions.get(&id)?;
        Some((self.gateway.rooms.get(&session.room())?.route().mode, session.legs().iter().count()))
    }

    /// The labels of a session, and the streams of its client.
    pub fn streams(self, id: SessionId) -> Option<(&'a Labels, &'a Arc<MediaDescription>)> {
        let session = self.gateway.tables.sessions.get(&id)?;
        Some((session.labels(), session.media()))
    }

    /// The sessions of a room, live or opening, in the order of their offers.
    pub fn sessions_of(self, room: RoomId) -> impl Iterator<Item = SessionId> + use<'a> {
        let room = self.gateway.rooms.get(&room);
        room.into_iter().flat_map(|room| room.sessions().iter().copied())
    }

    /// The nodes of a room's route, the one that carries it first.
    pub fn nodes_of(self, room: RoomId) -> Vec<NodeId> {
        let route = self.gateway.rooms.get(&room).map(Room::route);
        route.iter().flat_map(|route| route.hops.iter().map(|(hop, _)| hop.node)).collect()
    }

    /// The room of a session.
    pub fn room_of(self, id: SessionId) -> Option<RoomId> {
        self.gateway.tables.sessions.get(&id).map(Session::room)
    }

    /// The scenario of a session.
    pub fn scenario_of(self, id: SessionId) -> Option<&'a Arc<str>> {
        self.gateway.tables.sessions.get(&id).map(Session::scenario)
    }

    pub(crate) fn room(&self, room: &Room) -> RoomStanding {
        let route = room.route();
        RoomStanding {
            room: room.id(),
            name: room.name().clone(),
            scenario: room.scenario().clone(),
            mode: route.mode,
            kept: route.effective_mode(),
            sessions: room.sessions().iter().copied().collect(),
            route: route.hops.iter().map(|(hop, _)| *hop).collect(),
            hop: room.stands_at(self.gateway.tables.nodes.board()),
            placed_by: room.placed_by().clone(),
        }
    }

    pub(crate) fn node(&self, node: &Node) -> NodeStanding {
        let (opening, waiting) = self.gateway.tables.nodes.pace(node.id).counts();
        let ledger = self.gateway.tables.capacity.ledger();
        let (breakers, zone) = (
            &self.gateway.tables.capacity.domain_breakers,
            FailureDomain::Zone(node.settings.zone),
        );
        NodeStanding {
            hop: node.hop(),
            health: node.health(),
            suspected_by: node.detector.suspected_by(),
            draining: node.drains(),
            leaves: node.trust.removed,
            ejected: node.trust.ejected,
            started: node.is_in_budget(),
            stopping: node.is_stopping(),
            need: node.need,
            capacity_kbps: ledger.capacity(node.id),
            opening,
            waiting: waiting as u32,
            load_permille: ledger.permille(node.id) as u32,
            carried_kbps: ledger.carried(node.id),
            reported_permille: node.reported_permille(),
            process: node.process.state(),
            rooms: ledger.rooms(node.id),
            round_trip: node.detector.round_trip().map(|(smoothed, _)| smoothed),
            loss_ppm: node.detector.loss_ppm(),
            impaired_sessions: self.gateway.diagnosis.impaired_by(node.id),
            is_probed: node.settings.probed == NodeProbing::Yes,
            zone_breaker: breakers.state(zone),
            zone_breaker_mode: breakers.mode(zone),
        }
    }

    pub(crate) fn region(&self, region: RegionId, now: Instant) -> RegionStanding {
        let nodes = || self.gateway.tables.nodes.in_domain(FailureDomain::Region(region));
        let (breakers, place) =
            (&self.gateway.tables.capacity.domain_breakers, FailureDomain::Region(region));
        let (load, capacity_kbps) =
            self.gateway.tables.capacity.region_load(region, &self.gateway.tables.nodes);
        RegionStanding {
            region,
            breaker: breakers.state(place),
            breaker_mode: breakers.mode(place),
            half_open_in: breakers.get(place).and_then(|breaker| breaker.half_open_in(now)),
            failback: self.gateway.tables.worklists.away.failback(region),
            nodes: nodes().count() as u32,
            nodes_up: nodes().filter(|node| node.takes_rooms()).count() as u32,
            nodes_draining: nodes().filter(|node| node.drains()).count() as u32,
            capacity_kbps,
            load_kbps: capacity_kbps * load / 1_000,
            rooms: nodes().map(|node| self.gateway.tables.capacity.ledger().rooms(node.id)).sum(),
            away: self.gateway.tables.worklists.away.of_region(region) as u32,
        }
    }

    /// Explains the placement of a live session.
    pub fn explain(&self, id: SessionId, now: Instant) -> Option<Explanation> {
        let standing = self.session(id, now)?;
        let session = self.gateway.tables.sessions.get(&id)?;
        let room = self.gateway.rooms.get(&session.room())?;
        let subjects = [FaultSubject::Session(id), FaultSubject::Room(room.id())];
        Some(Explanation {
            admitted_by: Decider::clone(session.admitted_by()),
            share_permille: session.share_permille(),
            degradation_limits: self.degradation_limits(session),
            voice_only_for: session.voice_only_for().cloned(),
            room: self.decisions(room, &subjects, &[id], now),
            state: standing,
        })
    }

    /// Explains the placement of the room with this name.
    pub fn explain_room(&self, name: &str, now: Instant) -> Option<RoomExplanation> {
        let (_, id) = self.gateway.rooms.named(name)?;
        let room = self.gateway.rooms.get(&id).filter(|room| room.is_placed())?;
        let state = self.room(room);
        let subjects = [FaultSubject::Room(id)];
        let decisions = self.decisions(room, &subjects, &state.sessions, now);
        Some(RoomExplanation { state, decisions })
    }

    fn decisions(
        &self,
        room: &Room,
        subjects: &[FaultSubject],
        sessions: &[SessionId],
        now: Instant,
    ) -> RoomDecisions {
        let on = room.stands_at(self.gateway.tables.nodes.board()).map(|hop| hop.node);
        let since = |at: Instant| now.saturating_duration_since(at);
        let witnesses = on
            .and_then(|on| self.gateway.tables.nodes.get(on))
            .map(|node| node.detector.witnesses());
        let witnesses = witnesses.into_iter().flatten().map(|(witness, at)| (witness, since(at)));
        let others = self.gateway.tables.nodes.iter().filter(|node| Some(node.id) != on);
        RoomDecisions {
            placed_by: room.placed_by().clone(),
            priority: room.priority(),
            route: room.route().hops.to_vec(),
            witnesses: witnesses.collect(),
            heading: room.heading().map(|heading| Heading {
                to: heading.target(),
                cause: heading.cause(),
                by: Decider::clone(heading.by()),
                since: since(heading.started()),
                waiting: heading.waits_for(),
            }),
            candidates: others.map(|node| self.candidate(room, node, now)).collect(),
            moves: room.records().cloned().collect(),
            answers: self.gateway.subject_history.decisions(subjects, now),
            quarantines: self.gateway.subject_history.quarantines(subjects, now),
            asked: self.asked(room, sessions),
        }
    }

    /// The revisions of the room's policies that are asked about these sessions of it.
    fn asked(&self, room: &Room, sessions: &[SessionId]) -> Vec<AskedRevision> {
        let scenario = self.gateway.tables.settings.scenarios.get(room.scenario());
        let hooks = Hook::ALL.into_iter();
        let policies = hooks.filter_map(|hook| {
            scenario.filter(|scenario| scenario.binds(hook)).map(|scenario| scenario.policy(hook))
        });
        let mut asked = Vec::new();
        for policy in policies {
            let arm_of = |id: SessionId| {
                self.gateway.policies.arm(&policy, unit(policy.hook, room.id(), id))
            };
            for arm in [Arm::Standing, Arm::Canary] {
                let sessions = sessions.iter().filter(|id| arm_of(**id) == arm).count() as u32;
                if sessions > 0 {
                    let revision = self.gateway.policies.revision(&policy, arm);
                    let revision = revision.map(|revision| Arc::clone(&revision.name));
                    asked.push(AskedRevision { policy: policy.clone(), arm, revision, sessions });
                }
            }
        }
        asked
    }

    fn degradation_limits(&self, session: &Session) -> Vec<DegradationLimit> {
        let scenario = self.gateway.tables.settings.scenarios.get(session.scenario());
        if !scenario.is_some_and(|scenario| scenario.binds(Hook::Degradation)) {
            return vec![DegradationLimit::NoPolicy];
        }
        let session = session.degraded(self.gateway.obeys_caps(session));
        Op::ALL.into_iter().filter_map(|op| actions::of(op).exhausted(&session)).collect()
    }

    fn candidate(&self, room: &Room, node: &Node, now: Instant) -> NodeCandidate {
        let ledger = self.gateway.tables.capacity.ledger();
        let why = self.why_not(room, node, now);
        let load_permille = ledger.permille(node.id) as u32;
        let carried_permille = ledger.carried_permille(node.id) as u32;
        NodeCandidate { hop: node.hop(), why, load_permille, carried_permille }
    }

    fn why_not(&self, room: &Room, node: &Node, now: Instant) -> CandidateReason {
        let ledger = self.gateway.tables.capacity.ledger();
        let stays = room.holding().on.is_some_and(|on| {
            let holding = room.holding();
            let reserved = [holding.reserve(), holding.twin()].contains(&Some(node.id));
            reserved && ledger.fits_reserve(node.id, on, holding.firm_cover(), 0)
        });
        let fits = stays || ledger.fits(node.id, room.holding().kbps);
        match node.health() {
            Health::Down => CandidateReason::Down,
            _ if node.is_stopping() => CandidateReason::Stopping,
            Health::Cold => CandidateReason::Cold,
            _ if node.drains() => CandidateReason::Draining,
            _ if !node.welcomes_rooms() => CandidateReason::NodeRefused,
            _ if room.shunned_nodes(&self.gateway.tables.nodes, now).contains(&node.id) => {
                CandidateReason::BackingOff
            }
            _ if room.nodes_of_route().contains(&node.id) => CandidateReason::Spare,
            _ if !self.gateway.tables.capacity.may_enter(
                room.id(),
                node.id,
                &self.gateway.tables.nodes,
            ) =>
            {
                CandidateReason::BreakerOpen
            }
            _ if !fits => CandidateReason::Full,
            _ if matches!(room.placed_by(), Decider::Policy { .. }) => CandidateReason::NotChosen,
            Health::Suspect | Health::Wary => CandidateReason::Unhealthy,
            Health::Up if node.loses() => CandidateReason::Unhealthy,
            Health::Up if room.leaves_to_others(node) => CandidateReason::Standby,
            Health::Up if room.is_away(node.id, &self.gateway.tables.nodes) => {
                CandidateReason::OutsideRegion
            }
            Health::Up => CandidateReason::EqualCost,
        }
    }
}
