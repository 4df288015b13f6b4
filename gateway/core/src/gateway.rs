//! The state machine: `handle_*` takes inputs, `poll_*` returns outputs and the next timeout. After every input, drain the
//! outputs.
//!
//! The parts own their state, change themselves, and return what changed. [`Gateway`] dispatches inputs to them: in this order
//! general inputs, sessions from their offer to their end, lists of rooms, nodes, and revisions. The flows of one room, which change its
//! sessions, legs and capacity as well, stand at `Tables`: the routes of rooms, moves, failover and rescue, other reasons to
//! move, legs and shares, and the application of changes.

pub(crate) mod blast;
pub(crate) mod copy;
mod hooks;
pub(crate) mod records;
pub(crate) mod views;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_breakers::WINDOW;
use evenkeel_diagnosis::DeviceSlot;
use evenkeel_model::{
    AcceptedOffer, Arm, Board, BreachCount, BreakerMode, ClientGroup, ClientLabel, CloseReason,
    CoreEvent, CoreSettings, Decider, FailureDomain, FailureScope, FlowCounts, GuardRule, Health,
    Hook, Hop, Impossible, LeftHop, Measures, MediaDescription, Metric, ModeChange, MoveCause,
    MoveOutcome, NewcomerAction, NodeId, NodeNeed, NodeSettings, NotStarted, Offer, OfferRefusal,
    Op, PluginFault, PolicyName, PortMove, RedundancyMode, RegionId, RoomId, Scenario, SessionId,
    Stamp, StartPhase, Starts, Strike, ZoneId,
};
use evenkeel_nodes::{
    ANSWERED_IN_TIME, AgentWord, Node, NodeChange, NodeEvidence, NodeTable, NodeTransition,
    NodeUse, StopStep,
};
use evenkeel_revisions::{
    CohortSize, Effect, Lifecycle, LifecycleRecord, Revision, Revisions, RolloutOutcome,
    RolloutReport, RolloutRules, WallClock,
};
use evenkeel_slo::{ActivationJudges, SloTable};

use crate::admission::Admission;
use crate::advice::SessionAdvice;
use crate::capacity::Capacity;
use crate::collections::Interner;
use crate::degradation::{DegradationTurns, Replans};
use crate::diagnosis::Diagnosis;
use crate::drains::Drains;
use crate::effects::{Effects, GatewayEffect, RoomNotice, Timer};
use crate::flow::FlowTracker;
use crate::hop_map::HopMap;
use crate::legs::{LeftLeg, LegState};
use crate::policy::policies::Policies;
use crate::policy::questions::{FaultSubject, PartOutcome, QuestionsInFlight};
use crate::policy::subjects::{ArmStatistics, ArmTally, SubjectHistory, Subjects};
use crate::quality::{FlowVerdict, Quality};
use crate::record::{Failback, GatewayRecord, RestoreError, Unsettled};
use crate::rooms::RoomTable;
use crate::rooms::placement::{self, NodeChoice};
use crate::rooms::reviews::Reviews;
use crate::rooms::room::{
    MoveStep, MoveUnderWay, PendingRoute, Room, RoomChange, RoomNeed, RoomScales,
};
use crate::rooms::worklists::{Death, PORTS_EXPLAINED_WITHIN, Worklists};
use crate::sessions::{PlanInForce, Session, SessionChange, SessionTable, ShareChange, Sweep};
use crate::shares::STEPS;

/// Interval between two sweeps for silent sessions, and between two parts of one sweep.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_GOES_ON: Duration = Duration::from_millis(50);

/// Interval at which rooms without a reserve are weighed again.
const WEIGH_EVERY: Duration = Duration::from_millis(500);

/// Maximum rooms weighed again per batch, which bounds the call's duration.
const WEIGHED_AGAIN_MAX: usize = 256;

/// Maximum rooms per batch with a reserve that covers less than their scenario wants. Without a node elsewhere these are all rooms.
const COVERED_AGAIN_MAX: usize = 64;

/// Interval to the next batch if there are many rooms and weighing helps.
const WEIGH_GOES_ON: Duration = Duration::from_millis(50);

/// Interval of checks while no room can return to its native place.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The time for which a room avoids a hop that did not take it.
const KEEP_AWAY: Duration = Duration::from_secs(10);

/// Time after which a hop that a room cannot leave is asked again to open the room's sessions.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// Interval between batches of rooms that fail over, which leaves time for other work, such as finding another death.
const LOST_EVERY: Duration = Duration::from_micros(250);

const RESCUE_EVERY: Duration = Duration::from_millis(50);

/// Longest wait of a stranded room for the next search, which those of several batches share.
const RESCUE_WITHIN: Duration = Duration::from_millis(5);

/// Interval at which moves off nodes that did not die get their final cause.
const PORTS_SETTLED_EVERY: Duration = Duration::from_millis(100);

/// Maximum rooms per batch that take changed scenario settings, so that one wake-up stays short.
const CHANGED_AT_ONCE: usize = 256;

/// Interval between batches, which leaves time for other work.
const CHANGE_EVERY: Duration = Duration::from_millis(1);

/// Legs at a left node are closed after `leave_within`, and gone for certain after this additional time.
const GONE_AFTER: Duration = Duration::from_millis(100);

/// Highest load of a region after a stop, per cent of the capacity that is left.
const QUIET_PERCENT: u64 = 80;

/// The same once the node drains, so that a small change of the load does not end the drain. With more load, a refused offer
/// would start the node again.
const DRAINING_PERCENT: u64 = 90;

/// The driver could not open a session at a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOpened;

/// The state machine of one gateway.
#[derive(Debug)]
pub struct Gateway {
    rooms: RoomTable,
    tables: Tables,
    drains: Drains,
    admission: Admission,
    /// Revisions that replaced another one.
    activations: ActivationJudges,
    quality: Quality,
    diagnosis: Diagnosis,
    advice: SessionAdvice,
    degradation: DegradationTurns,
    questions: QuestionsInFlight,
    subject_history: SubjectHistory,
    policies: Policies,
    default_reserves: DefaultReserves,
    /// Scenarios that the configuration no longer has, of rooms that are open. They take no offers.
    retired: BTreeSet<Arc<str>>,
    /// The record of another process, before its rooms are settled.
    unsettled: Option<Box<Unsettled>>,
}

/// The zones that reserves cover by default.
#[derive(Debug)]
struct DefaultReserves {
    /// Zones with a permanent node that takes rooms.
    zones: BTreeSet<ZoneId>,
    /// Rooms after this one are still to be weighed, since there is another zone.
    after: Option<RoomId>,
}

/// The tables that a change of a room reads and changes. The rooms are apart from them: an input takes its room once, and
/// passes it on.
#[derive(Debug)]
struct Tables {
    settings: CoreSettings,
    sessions: SessionTable,
    nodes: NodeTable,
    capacity: Capacity,
    worklists: Worklists,
    reviews: Reviews,
    slos: SloTable,
    effects: Effects,
    /// Authors of routes and moves, which rooms share.
    deciders: Interner<Decider>,
    /// The time from which reviews of rooms are counted.
    began: Instant,
}

impl Gateway {
    /// Starts a gateway. All nodes are Up until evidence says otherwise.
    pub fn new(mut settings: CoreSettings, now: Instant) -> Gateway {
        let mut effects = Effects::default();
        let mut nodes = NodeTable::new(&mut settings, now);
        nodes.start_timers(now);
        effects.take(&mut nodes);
        effects.set(Timer::Sweep, now + SWEEP_EVERY);
        effects.set(Timer::Weigh, now + WEIGH_EVERY);
        effects.set(Timer::Breakers, now + WINDOW);
        for scenario in settings.scenarios.values().filter(|it| it.binds(Hook::Degradation)) {
            let policy = Arc::new(scenario.policy(Hook::Degradation));
            effects.set_if_idle(Timer::Tick(policy), now + settings.limits.tick_every);
        }
        Gateway {
            rooms: RoomTable::default(),
            drains: Drains::default(),
            admission: Admission::new(&settings, now),
            activations: ActivationJudges::default(),
            quality: Quality::default(),
            diagnosis: Diagnosis::new(now),
            advice: SessionAdvice::default(),
            degradation: DegradationTurns::default(),
            questions: QuestionsInFlight::new(now),
            subject_history: SubjectHistory::default(),
            policies: Policies::default(),
            default_reserves: DefaultReserves { zones: nodes.permanent_zones(), after: None },
            retired: BTreeSet::new(),
            unsettled: None,
            tables: Tables {
                sessions: SessionTable::new(),
                nodes,
                capacity: Capacity::new(&settings, now),
                worklists: Worklists::new(settings.nodes.len(), settings.regions.len()),
                reviews: Reviews::default(),
                slos: SloTable::new(now),
                effects,
                deciders: Interner::default(),
                began: now,
                settings,
            },
        }
    }

    fn judge<T>(&mut self, act: impl FnOnce(&mut Policies, Subjects, &mut Effects) -> T) -> T {
        let Gateway { rooms, policies, tables, .. } = self;
        let Tables { settings, sessions, effects, .. } = tables;
        act(policies, Subjects::new(settings, sessions, rooms), effects)
    }

    fn enrol(&mut self, session: SessionId) {
        self.judge(|policies, subjects, _| policies.enrol(session, subjects));
    }

    fn take_notices(&mut self, now: Instant) {
        while let Some(notice) = self.tables.effects.take_notice() {
            match notice {
                RoomNotice::Reroute(room) => self.want_reroute(room, now),
                RoomNotice::Enrol(session) => self.enrol(session),
                RoomNotice::End(session) => self.close(session, CloseReason::EndedByPolicy, now),
                RoomNotice::MoveCounted(room) => {
                    if let Some(room) = self.rooms.get_mut(&room) {
                        self.tables.apply(room.forget_old_moves(now), room);
                        let Tables { settings, effects, .. } = &mut self.tables;
                        self.policies.weigh_moves(room, settings, effects);
                    }
                }
                RoomNotice::Ended { session, room, scenario } => {
                    let ended = FaultSubject::Session(session);
                    self.policies.leave(ended, &scenario, &self.tables.settings);
                    self.quality.forget_session(room, session);
                    self.degradation.end_climb(session);
                    self.diagnosis.end_session(session, &mut self.tables.effects);
                    self.advice.end_session(session);
                    self.subject_history.forget(ended);
                }
                RoomNotice::Dissolved { room, scenario } => {
                    self.policies.leave(FaultSubject::Room(room), &scenario, &self.tables.settings);
                    self.subject_history.forget(FaultSubject::Room(room));
                    self.questions.forget_room(room);
                    self.diagnosis.forget_room(room);
                }
            }
        }
        if self.tables.sessions.is_empty() && self.admission.finish() {
            self.tables.effects.cancel(&Timer::ShutdownEnds);
            self.tables.effects.push(GatewayEffect::Finished);
        }
    }

    fn subjects(&self) -> Subjects<'_> {
        let Tables { settings, sessions, .. } = &self.tables;
        Subjects::new(settings, sessions, &self.rooms)
    }

    /// Seeds the jitter of retry times. The default seed is 0.
    pub fn handle_seed(&mut self, seed: u64) {
        self.admission.seed(seed);
    }

    /// The board that workers read for each packet.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(self.tables.nodes.board())
    }

    /// The next output. Drain the outputs after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<GatewayEffect> {
        self.tables.effects.pop().or_else(|| {
            // A session of a record is new in the caches of the processor when its output is executed.
            self.records().restore_session().then(|| self.tables.effects.pop()).flatten()
        })
    }

    /// The time of the next [`handle_timeout`](Gateway::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tables.effects.next_timer_at()
    }

    /// Handles all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.tables.effects.take_timer(now) {
            self.handle_timer(timer, now);
            self.take_notices(now);
        }
    }

    fn handle_timer(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Probe(node) => self.tables.with_nodes(|nodes| nodes.probe(node, now)),
            Timer::Canary(node) => self.tables.with_nodes(|nodes| nodes.send_canary(node, now)),
            Timer::AskLate(ask) => self.handle_answer(ask, Err(PluginFault::Late), now),
            Timer::OpenLate(id) => self.open_late(id, now),
            Timer::LeavingEnds(id) => {
                if let Some(room) = self.rooms.get(&id) {
                    self.tables.close_left_hops(room, now);
                }
            }
            Timer::RoomDue(id) => {
                if let Some(room) = self.rooms.get_mut(&id) {
                    self.tables.room_due(room, now);
                }
            }
            // Rooms get new spares once all rooms of dead nodes have moved.
            Timer::Reroute(_) if self.fails_over() => {
                self.tables.effects.set(timer, now + LOST_EVERY);
            }
            Timer::Reroute(policy) => {
                Arm::ALL.into_iter().for_each(|arm| self.ask_reroute(&policy, arm, now));
            }
            Timer::Tick(policy) => self.ask_tick(&policy, now),
            Timer::Drain(node) => self.drain_some(node, now),
            Timer::Forget(node) => self.forget_node(node, now),
            Timer::Failover => self.fail_over_some(now),
            Timer::Rescue => self.rescue_stranded(now),
            Timer::Change => self.change_some(now),
            Timer::StartLate(node) => {
                self.tables.with_nodes(|nodes| nodes.start_failed(node, NotStarted::Late, now));
            }
            Timer::Failback => self.fail_back(now),
            Timer::Breakers => {
                self.weigh_breakers(now);
                self.weigh_client_breakers(now);
                self.weigh_stops(now);
            }
            Timer::ClosedPorts => self.settle_port_moves(now),
            Timer::Cohorts => self.weigh_cohorts(now),
            Timer::Flows => self.judge_flows(now),
            Timer::Judge => self.policies.turn_judges(now, &mut self.tables.effects),
            Timer::Rollouts => self.poll_rollouts(now),
            Timer::Sweep => self.sweep(now),
            Timer::Weigh => {
                self.weigh_unprotected(now);
                let Tables { reviews, capacity, nodes, .. } = &mut self.tables;
                reviews.note_nodes(&capacity.node_rows(nodes));
            }
            Timer::ShutdownEnds => self.close_all(CloseReason::Shutdown, now),
        }
    }

    /// Continues the sessions of another process's record. For each a [`GatewayEffect::Restore`](crate::GatewayEffect::Restore)
    /// follows, in their order, before other outputs about it. Its packets may be served then. `node` finds a listed node
    /// by its name. [`Gateway::settle_restored`] is the next input.
    ///
    /// # Errors
    /// If this gateway has sessions, or the record contradicts itself. Nothing has changed then.
    pub fn handle_record(
        &mut self,
        record: GatewayRecord,
        node: impl Fn(&str) -> Option<NodeId>,
        now: Instant,
    ) -> Result<HopMap, RestoreError> {
        self.records().restore(record, node, now)
    }

    /// Forgets the sessions of another process's record, which goes on with them, instead of [`Gateway::settle_restored`].
    pub fn forget_restored(&mut self) {
        self.tables.effects.forget_notices();
        for room in self.rooms.forget_restored() {
            self.tables.effects.cancel(&Timer::RoomDue(room));
        }
        // Their owner drains the nodes.
        for node in self.drains.forget_restored() {
            self.tables.effects.cancel(&Timer::Drain(node));
        }
        self.tables.worklists.forget_restored();
        self.tables.reviews.clear();
        self.unsettled = None;
        self.tables.sessions.forget_restored();
        self.tables.with_nodes(NodeTable::forget_restored);
        self.tables.capacity.reduced.clear();
        self.admission.client_breakers.forget_sessions();
        self.tables.slos.forget_restored(&mut self.activations);
    }

    /// Decides about the restored sessions, while their packets are served: weighs and publishes the routes, and moves
    /// rooms off a node that is down or not listed here.
    pub fn settle_restored(&mut self, now: Instant) {
        self.records().settle_restored(now);
        self.take_notices(now);
    }

    /// Admits no more sessions. The gateway finishes when the last session ends, or after this time.
    pub fn handle_shutdown(&mut self, within: Duration, now: Instant) {
        if self.admission.is_finished() {
            return;
        }
        if self.admission.shut_down() {
            self.tables.nodes.start_no_more();
            self.tables.effects.event(CoreEvent::ShuttingDown);
        }
        self.tables.effects.set(Timer::ShutdownEnds, now + within);
        self.take_notices(now);
    }

    fn sweep(&mut self, now: Instant) {
        let Sweep { silent, checked, goes_on } = self.tables.sessions.sweep(now);
        self.close_silent(silent, now);
        self.take_notices(now);
        self.forget_older_states(checked);
        let Tables { sessions, effects, .. } = &mut self.tables;
        self.diagnosis.forget_idle(sessions, &self.rooms, effects, now);
        self.questions.end_old_failures(now, effects);
        self.forget_retired();
        let Tables { effects, .. } = &mut self.tables;
        let after = if goes_on { SWEEP_GOES_ON } else { SWEEP_EVERY };
        effects.set(Timer::Sweep, now + after);
    }

    /// These sessions, and their rooms, keep only states that a revision may still read.
    fn forget_older_states(&mut self, swept: RangeInclusive<SessionId>) {
        if !self.policies.keep_older_states() || swept.is_empty() {
            return;
        }
        let Tables { sessions, settings, .. } = &mut self.tables;
        let mut settled = Vec::new();
        for (_, session) in sessions.range_mut(swept) {
            let Some(scenario) = settings.scenarios.get(session.scenario()) else { continue };
            if session.memory().keeps_other()
                && let Some(active) = self.policies.settled(&scenario.policy(Hook::Degradation))
            {
                session.settle_memory(active);
            }
            if let Some(room) = self.rooms.get_mut(&session.room())
                && room.memory().keeps_other()
                && let Some(active) = self.policies.settled(&scenario.policy(Hook::Routing))
            {
                settled.push((room.id(), room.settle_memory(active)));
            }
        }
        for (id, change) in settled {
            if let Some(room) = self.rooms.get_mut(&id) {
                self.tables.apply(change, room);
            }
        }
    }

    /// Replaces the scenarios. Rooms take a change in batches without packet loss; affinity applies to new rooms. A scenario
    /// that is gone takes no offers, and stays as it was until its last room ends; see [`Gateway::retired_scenarios`]. A policy that no
    /// scenario binds any more is forgotten: the native default decides about its rooms and sessions.
    pub fn handle_scenarios(&mut self, scenarios: &BTreeMap<Arc<str>, Scenario>, now: Instant) {
        self.take_scenarios(scenarios, now);
        self.take_notices(now);
    }

    /// The driver opened the session at a hop, or failed. Ignored if [`GatewayEffect::CloseAt`] gave up the hop meanwhile.
    pub fn handle_opened(
        &mut self,
        id: SessionId,
        hop: Hop,
        result: Result<(), NotOpened>,
        now: Instant,
    ) {
        self.leg_answered(id, hop, result, now);
        self.take_notices(now);
    }

    /// The hop joins no further session of the room. A session that is being opened is refused alone: the hop stays in the route of
    /// the others, which may be opening, too.
    pub fn handle_room_full(&mut self, id: SessionId, hop: Hop, now: Instant) {
        let Some(session) = self.tables.sessions.get_mut(&id) else { return };
        if !session.is_opening() {
            return self.handle_opened(id, hop, Err(NotOpened), now);
        }
        let Some(before) = session.legs_mut().failed(hop) else { return };
        // The node is well: it opens further sessions at its pace.
        if let LegState::Opening(_) = before {
            self.tables.nodes.pace_mut(hop.node).end();
        }
        let retry_after = self.retry_after(now);
        self.give_up(id, OfferRefusal::NotOpened { node: hop.node, retry_after }, now);
        self.tables.open_next(hop.node, now);
        self.take_notices(now);
    }

    /// Ends a session for the API. Succeeds also if the session has ended before.
    pub fn handle_close(&mut self, id: SessionId, now: Instant) -> Result<(), Impossible> {
        if !self.tables.sessions.contains_key(&id) {
            // The request may be a repetition.
            let next = self.tables.sessions.next_id();
            let had = next.group() < id && id < next;
            return if had { Ok(()) } else { Err(Impossible::NoSuchSession) };
        }
        self.handle_session_end(id, CloseReason::Requested, now);
        Ok(())
    }

    /// The data plane ended this session.
    pub fn handle_session_end(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        self.close(id, reason, now);
        self.take_notices(now);
    }

    /// Moves a room for an operator, make-before-break. Fails if the room is already there, or the node cannot take it.
    pub fn handle_move(
        &mut self,
        name: &Arc<str>,
        to: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let room = self.rooms.named(name).map(|(_, id)| id);
        let room = room.and_then(|id| self.rooms.get_mut(&id)).ok_or(Impossible::NoSuchRoom);
        let moved = room.and_then(|room| self.tables.move_by_operator(room, to, now));
        self.take_notices(now);
        moved
    }

    /// The kernel reports that no process listens at a node's port that serves one room: the hop leaves its route.
    pub fn handle_port_closed(&mut self, session: SessionId, hop: Hop, now: Instant) {
        if let Some(room) = self.rooms.of_session(session, &self.tables.sessions) {
            self.tables.port_closed(room, session, hop, now);
        }
        self.take_notices(now);
    }

    /// A worker found that the packets of two hops are no copies of each other. The room continues as in hot mode with
    /// the first hop of its route, while it is on these two hops.
    pub fn handle_unalike(&mut self, session: SessionId, hops: [Hop; 2], now: Instant) {
        if let Some(room) = self.rooms.of_session(session, &self.tables.sessions) {
            self.tables.copies_differ(room, hops, now);
        }
        self.take_notices(now);
    }

    /// Sets the maximum age of the workers' last report on a session.
    pub fn handle_summaries_within(&mut self, within: Duration) {
        self.tables.sessions.note_reports_within(within);
        self.diagnosis.note_reports_within(within);
    }

    /// Takes the measures of a session, and the time at which the session was last heard.
    pub fn handle_summary(
        &mut self,
        id: SessionId,
        measures: Measures,
        last_heard: Option<Instant>,
    ) {
        self.enrol(id);
        if let Some(session) = self.tables.sessions.unrecorded_mut(&id) {
            let woke = session.take_summary(measures, last_heard);
            let room = self.rooms.get(&session.room());
            if let Some(on) = room.and_then(|room| room.holding().on)
                && let Some(node) = self.tables.nodes.get(on)
            {
                session.judge_zone(node.settings.zone, &mut self.tables.capacity.domain_breakers);
            }
            if woke {
                self.tables.sessions.wake(id);
            }
            self.judge(|policies, subjects, effects| {
                policies.weigh_measures(id, subjects, effects);
            });
        }
    }

    /// The server refused an offer of this scenario for lack of capacity.
    pub fn handle_turned_away(&mut self, scenario: &str, now: Instant) {
        self.tables.slos.note_turned_away(scenario, &self.tables.settings, now);
    }

    /// Counts packets between a session and its node since the last report.
    pub fn handle_flow(&mut self, id: SessionId, flow: &FlowCounts, now: Instant) {
        let Gateway { rooms, quality, diagnosis, advice, .. } = self;
        let Tables { sessions, nodes, effects, settings, slos, .. } = &mut self.tables;
        let flow = quality.handle_flow(id, flow, sessions, rooms, nodes, effects, now);
        let Some(flow) = flow else { return };
        let device = diagnosis.handle_flow(id, &flow, sessions, rooms, nodes, effects, now);
        let impairment = diagnosis.impairment(id);
        advice.handle_flow(id, impairment, sessions, rooms, settings, effects, now);
        let loses_by_client = diagnosis.loses_by_client(id);
        if let Some(is_impaired) = loses_by_client
            && let Some(session) = sessions.unrecorded_mut(&id)
        {
            session.judge_clients(is_impaired, &mut self.admission.client_breakers, now);
        }
        if let Some(session) = sessions.unrecorded_mut(&id)
            && session.take_policing(flow.policing)
            && let Some(room) = rooms.get(&session.room())
        {
            let (room_name, scenario) = (room.name().clone(), session.scenario().clone());
            let policing = flow.policing;
            effects.event(CoreEvent::Policed { session: id, room_name, scenario, policing });
        }
        sessions.judge_objective(id, flow.missed, settings, slos, now);
        if let Some(slot) = device {
            self.follow_device(id, &slot);
        }
        self.judge(|policies, subjects, effects| {
            policies.weigh_flow(id, flow.missed, subjects, now, effects);
        });
    }

    /// Asks a device that cannot keep up for less, or lets it send more again.
    fn follow_device(&mut self, id: SessionId, slot: &DeviceSlot) {
        let Some(session) = self.tables.sessions.unrecorded_mut(&id) else { return };
        let Some(change) = session.follow_device(slot) else { return };
        let (room_name, plan) = (self.rooms.name_of(session.room()), session.plan_now());
        self.tables.apply_to_session(id, change);
        let (op, arg, rung) = (Op::CapUp, u64::from(plan.arg(Op::CapUp)), plan.rung());
        let by = Decider::Native;
        let event = CoreEvent::Degraded { session: id, room_name, op, arg, rung, by };
        self.tables.effects.event(event);
    }

    /// Takes the number of packets that this gateway has dropped since it began, for lack of room in its own queues and
    /// sockets.
    pub fn handle_own_drops(&mut self, dropped: u64, now: Instant) {
        self.diagnosis.note_dropped(dropped, now);
    }

    /// Checks the health of all nodes, every [`WATCH_EVERY`](evenkeel_nodes::WATCH_EVERY). `stamps` come from the workers, by
    /// node number; `workers_late` is the longest delay of a worker since the last watch.
    ///
    /// Report answered probes and errors first. If control or a worker was late, all deadlines move by the delay, and
    /// no node is marked down on the first late watch. Further late watches judge as usual, since all packets that
    /// arrived were read.
    pub fn handle_watch(&mut self, stamps: &[Stamp], workers_late: Duration, now: Instant) {
        let (late, changes) =
            self.tables.with_nodes(|nodes| nodes.watch(stamps, workers_late, now));
        if let Some(late) = late {
            self.quality.excuse_flows(late, &mut self.tables.sessions);
            self.diagnosis.note_late(late, now);
        }
        self.nodes_changed(changes, now);
        self.take_notices(now);
    }

    /// Returns the table of nodes.
    pub fn node_table(&self) -> &NodeTable {
        &self.tables.nodes
    }

    /// Takes evidence about a node.
    pub fn handle_evidence(&mut self, id: NodeId, evidence: NodeEvidence, now: Instant) {
        if let Some(node) = self.tables.nodes.get_mut(id) {
            node.handle_evidence(evidence, now);
        }
    }

    /// Changes nodes, or the list of nodes, and moves their rooms. Policies are told of the rooms after the last change.
    pub fn change_nodes<T>(&mut self, now: Instant, change: impl FnOnce(&mut Gateway) -> T) -> T {
        let changed = change(self);
        self.take_notices(now);
        changed
    }

    /// Returns the zone of this name in a region. A new zone takes the number of a zone without nodes, or the next
    /// number. Add a node to it at once, or the number may be reused.
    pub fn zone(&mut self, name: &str, region: RegionId) -> Result<ZoneId, Impossible> {
        let Tables { capacity, nodes, effects, .. } = &mut self.tables;
        if !nodes.zones().iter().any(|zone| *zone.name == *name && zone.region == region) {
            capacity.forget_empty_zones(nodes, effects);
        }
        nodes.zone(name, region)
    }

    /// Sets how rooms return to a region, or to all regions.
    pub fn handle_failback(
        &mut self,
        region: Option<RegionId>,
        failback: Failback,
        now: Instant,
    ) -> Result<(), Impossible> {
        if !self.tables.worklists.away.set_failback(region, failback) {
            return Err(Impossible::NoSuchRegion);
        }
        if !self.tables.worklists.away.is_empty() {
            self.tables.effects.set(Timer::Failback, now);
        }
        Ok(())
    }

    /// Holds the breaker of a region or zone for an operator, or lets it judge again.
    pub fn hold_breaker(
        &mut self,
        place: FailureDomain,
        mode: BreakerMode,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.tables.nodes.check_domain(place)?;
        let event =
            self.tables.capacity.domain_breakers.hold(place, mode, self.tables.nodes.zones(), now);
        event.into_iter().for_each(|event| self.tables.effects.event(event));
        Ok(())
    }

    /// Holds the breaker of a group of clients for an operator, or lets it judge again.
    pub fn hold_client_breaker(
        &mut self,
        group: &ClientGroup,
        mode: BreakerMode,
        now: Instant,
    ) -> Result<(), Impossible> {
        let event = self.admission.client_breakers.hold(group, mode, now)?;
        event.into_iter().for_each(|event| self.tables.effects.event(event));
        Ok(())
    }

    /// Gives sessions numbers from this one on, unless its group has given larger ones.
    pub fn resume_numbers(&mut self, next: SessionId) {
        self.tables.sessions.resume_numbers(next);
    }

    /// The number of the next session.
    pub fn next_session(&self) -> SessionId {
        self.tables.sessions.next_id()
    }

    /// Returns true while rooms of dead nodes wait to be moved. The next batch moves at the next timeout.
    pub fn fails_over(&self) -> bool {
        self.tables.worklists.failover.is_under_way()
    }

    /// Returns the number of live sessions.
    pub fn live(&self) -> usize {
        self.tables.sessions.live()
    }

    /// Returns true from the first offer on, until no session is left.
    pub fn has_sessions(&self) -> bool {
        !self.tables.sessions.is_empty()
    }

    /// Returns the scenarios by their names.
    pub fn scenarios(&self) -> impl Iterator<Item = (&Arc<str>, &Scenario)> {
        self.tables.settings.scenarios.iter()
    }

    /// Returns the number of rooms that a node carries.
    pub fn standing_rooms(&self) -> usize {
        self.tables.worklists.placed()
    }

    /// Returns the scenarios that the configuration no longer has, with the number of their open rooms.
    pub fn retired_scenarios(&self) -> BTreeMap<Arc<str>, usize> {
        let rooms =
            |name: &Arc<str>| self.rooms.values().filter(|room| room.scenario() == name).count();
        self.retired.iter().map(|name| (Arc::clone(name), rooms(name))).collect()
    }

    /// Returns the name of the room; `None` if the room is gone.
    pub fn room_name(&self, room: RoomId) -> Option<Arc<str>> {
        self.rooms.get(&room).map(|room| Arc::clone(room.name()))
    }

    /// All moves in progress. Each ends with a [`CoreEvent::Moved`] to its target, or with an [`CoreEvent::MoveEnded`].
    pub fn moves_under_way(&self) -> impl Iterator<Item = MoveUnderWay> {
        self.rooms.moves_under_way()
    }

    /// Unanswered questions about offers.
    pub fn offers_asked(&self) -> usize {
        self.questions.in_flight().filter(|asked| asked.about.is_of_offer()).count()
    }

    /// Returns false once a shutdown has begun.
    pub fn is_admitting(&self) -> bool {
        self.admission.is_open()
    }

    // Sessions, from their offer to their end.

    /// A client offers other streams for its session, which is live. Its room stays on its node, and the load of the node
    /// follows.
    ///
    /// # Errors
    /// If there is no such session.
    pub fn handle_streams(
        &mut self,
        id: SessionId,
        media: Arc<MediaDescription>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let live = self.tables.sessions.get(&id).filter(|session| session.is_live());
        let session = live.ok_or(Impossible::NoSuchSession)?;
        if *session.media() != media
            && let Some(room) = self.rooms.get_mut(&session.room())
        {
            let change = self.tables.sessions.change_streams(id, media);
            self.tables.apply_to_session(id, change);
            self.tables.settle_peer_caps(room);
            self.tables.regrant(room);
        }
        self.take_notices(now);
        Ok(())
    }

    /// A client requests a session. [`GatewayEffect::Reply`](crate::GatewayEffect::Reply) follows, at once or after policies.
    pub fn handle_offer(&mut self, offer: Offer, now: Instant) {
        // Sessions of a room share one copy of its name.
        let room = self.rooms.named(&offer.room).map(|(name, id)| (Arc::clone(name), id));
        let (name, room) = room.unzip();
        let offer = Arc::new(Offer { room: name.unwrap_or(offer.room), ..offer });
        if let Some(room) = room.and_then(|id| self.rooms.get_mut(&id)) {
            self.tables.catch_up(room, now);
            self.take_notices(now);
        }
        let begun = if self.admission.is_open() {
            let begun = self.begin_session(&offer, now);
            self.take_notices(now);
            begun
        } else {
            Err(OfferRefusal::Draining)
        };
        match begun {
            Err(reason) => self.refuse(&offer, None, reason, now),
            Ok(id) if self.tables.sessions[&id].is_of_first_packet() => {
                self.admit(id, None, Decider::Native, now);
            }
            Ok(id) => self.ask_scenario(id, now),
        }
    }

    /// Begins the session. Fails if there are too many sessions, or the scenario or room does not match.
    fn begin_session(
        &mut self,
        offer: &Arc<Offer>,
        now: Instant,
    ) -> Result<SessionId, OfferRefusal> {
        if self.tables.sessions.len() >= self.tables.settings.limits.sessions_max {
            return Err(OfferRefusal::Full { retry_after: self.retry_after(now) });
        }
        let Tables { settings, sessions, nodes, .. } = &mut self.tables;
        let scenario = settings.scenarios.get(&offer.scenario);
        let Some(scenario) = scenario.filter(|_| !self.retired.contains(&offer.scenario)) else {
            return Err(OfferRefusal::UnknownScenario(offer.scenario.clone()));
        };
        let id = sessions.next_id();
        let named = ClientLabel::Region.value(&offer.labels);
        let named =
            named.and_then(|named| settings.regions.iter().position(|region| **region == *named));
        let region = named.map_or(nodes.home(), |place| RegionId(place as u32));
        let room = self.rooms.enter(id, offer, scenario, region)?;
        sessions.begin(offer, scenario, room, now);
        Ok(id)
    }

    /// Admits the session if its room's current and pending nodes have capacity. Returns its room if that must be
    /// placed first. Stranded rooms go before new sessions.
    fn admit_to_room(
        &mut self,
        id: SessionId,
        cap_kbps: Option<u32>,
        by: Decider,
        now: Instant,
    ) -> Option<RoomId> {
        let room = self.rooms.of_session(id, &self.tables.sessions)?;
        self.tables.catch_up(room, now);
        let session = self.tables.sessions.admit(id, cap_kbps, by)?;
        match self.admission.client_breakers.limit(session.labels(), id) {
            Some((NewcomerAction::Refuse, group)) => {
                self.turn_away_clients(id, group, now);
                return None;
            }
            Some((NewcomerAction::VoiceOnly, group)) if session.has_video() => {
                session.limit_to_voice(group.clone());
                self.admission.client_breakers.note_voice_only(id, group);
            }
            Some((NewcomerAction::VoiceOnly | NewcomerAction::Admit, _)) | None => {}
        }
        if room.is_placed() {
            if self.tables.make_room_for(room, id, now) {
                self.tables.open_session(room, id, now);
            } else {
                self.turn_away(id, now);
            }
            return None;
        }
        let stranded = &self.tables.worklists.stranded;
        if stranded.go_first() && !stranded.is_paced() {
            // The stranded rooms have no place yet.
            self.turn_away(id, now);
            return None;
        }
        Some(room.id())
    }

    /// The driver answered about a leg.
    fn leg_answered(
        &mut self,
        id: SessionId,
        hop: Hop,
        result: Result<(), NotOpened>,
        now: Instant,
    ) {
        let Some(session) = self.tables.sessions.get_mut(&id) else { return };
        // Recorded before the room continues, so that a leg that the driver refused is not closed as well.
        match result {
            Ok(()) => {
                let Some(before) = session.legs_mut().opened(hop) else { return };
                let Some(room) = self.rooms.get_mut(&session.room()) else { return };
                self.tables.leg_opened(before, hop, now);
                self.tables.catch_up(room, now);
                self.tables.live_if_open(room, id, now);
                if room.opened_at(id, hop) {
                    self.tables.publish_heading_if_open(room, now);
                }
            }
            Err(NotOpened) => {
                let Some(before) = session.legs_mut().failed(hop) else { return };
                self.tables.leg_failed(before, hop, now);
                self.handle_not_opened(id, hop, now);
            }
        }
        self.tables.open_next(hop.node, now);
    }

    /// Refuses a new session that the carrying hop did not take, if other sessions are live. Any other hop leaves the
    /// room's route; so does the carrying hop while no session is live there, and the next hop is tried.
    fn handle_not_opened(&mut self, id: SessionId, hop: Hop, now: Instant) {
        let Some(room) = self.rooms.of_session(id, &self.tables.sessions) else { return };
        self.tables.catch_up(room, now);
        let is_opening = self.tables.sessions[&id].is_opening();
        let carries = is_opening && room.stands_at(self.tables.nodes.board()) == Some(hop);
        let refused = if carries && !self.tables.sessions_of(room, Session::is_live).is_empty() {
            vec![id]
        } else {
            self.tables.drop_hop(room, hop, Strike::NotOpened, Some(id), now);
            self.tables.sessions_without_hop(room)
        };
        for session in refused {
            let retry_after = self.retry_after(now);
            self.give_up(session, OfferRefusal::NotOpened { node: hop.node, retry_after }, now);
        }
    }

    /// Handles the opening timeout: legs not open by now count as failed, and an offer that is not live, because no hop
    /// carries its room, is refused.
    fn open_late(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.tables.sessions.get(&id) else { return };
        let late = session.legs().late(now);
        let late_at = late.first().map(|hop| hop.node);
        for hop in late {
            let Some(session) = self.tables.sessions.get_mut(&id) else { return };
            if let Some(leg) = session.legs_mut().give_up(hop) {
                self.tables.effects.push(GatewayEffect::CloseAt { session: id, hop });
                self.tables.leg_failed(leg, hop, now);
                self.handle_not_opened(id, hop, now);
                self.tables.open_next(hop.node, now);
            }
        }
        let Some(session) = self.tables.sessions.get(&id) else { return };
        let by = session.opens_by();
        if by.is_some_and(|by| by <= now) {
            let retry_after = self.retry_after(now);
            let refused = late_at.map_or(OfferRefusal::NoNode { retry_after }, |node| {
                OfferRefusal::NotOpened { node, retry_after }
            });
            self.give_up(id, refused, now);
        } else if let Some(next) = session.legs().next_late().into_iter().chain(by).min() {
            self.tables.effects.set(Timer::OpenLate(id), next);
        }
    }

    fn give_up(&mut self, id: SessionId, reason: OfferRefusal, now: Instant) {
        self.want_node(id, &reason, now);
        self.reply_refused(id, reason, now);
        self.remove_session(id, CloseReason::NotOpened, now);
    }

    /// With `early_start`, an offer for a region without capacity starts a node there. A policy may have refused it before
    /// it was placed.
    fn want_node(&mut self, id: SessionId, reason: &OfferRefusal, now: Instant) {
        let session = self.tables.sessions.get(&id);
        let room = session.and_then(|session| self.rooms.get(&session.room()));
        let early = self.tables.settings.limits.early_start;
        let Some(region) = room.map(Room::region).filter(|_| early) else { return };
        let is_short = match reason {
            OfferRefusal::NoNode { .. }
            | OfferRefusal::PlacementRefused { .. }
            | OfferRefusal::Rejected { .. } => {
                self.tables.capacity.is_short(region, &self.tables.nodes)
            }
            _ => false,
        };
        if is_short {
            self.tables.with_nodes(|nodes| nodes.start_in_region(region, now));
        }
    }

    fn reply_refused(&mut self, id: SessionId, reason: OfferRefusal, now: Instant) {
        if let Some(session) = self.tables.sessions.get(&id)
            && let Some(offer) = session.offer()
        {
            let (offer, room) = (Arc::clone(offer), session.room());
            self.refuse(&offer, Some((id, room)), reason, now);
        }
    }

    fn refuse(
        &mut self,
        offer: &Offer,
        session: Option<(SessionId, RoomId)>,
        reason: OfferRefusal,
        now: Instant,
    ) {
        self.tables.slos.note_refused(&offer.scenario, &reason, &self.tables.settings, now);
        let (offer, scenario, result) = (offer.id, offer.scenario.clone(), Err(reason.clone()));
        self.tables.effects.event(CoreEvent::Refused { offer, session, scenario, reason });
        self.tables.effects.push(GatewayEffect::Reply { offer, result });
    }

    /// Refuses a new session because there is no capacity now.
    fn turn_away(&mut self, id: SessionId, now: Instant) {
        let retry_after = self.retry_after(now);
        self.give_up(id, OfferRefusal::NoNode { retry_after }, now);
    }

    /// Refuses a new session while the breaker of its clients is open, at least until it is half-open.
    fn turn_away_clients(&mut self, id: SessionId, group: ClientGroup, now: Instant) {
        let retry_after = self.admission.retry_of_clients(&group, now);
        self.give_up(id, OfferRefusal::ClientsImpaired { group, retry_after }, now);
    }

    /// Retry time for clients without capacity.
    fn retry_after(&mut self, now: Instant) -> Duration {
        let is_busy = self.fails_over() || !self.tables.worklists.stranded.is_empty();
        let opens = self.tables.capacity.admit_in(&self.tables.nodes, now);
        self.admission.retry_after(is_busy, opens)
    }

    fn close(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.tables.sessions.get(&id) else { return };
        let room = self.rooms.get(&session.room()).filter(|_| session.is_live());
        if let Some(room) = room {
            let closed = Box::new(session.closed(room, now));
            let (room, room_name) = (room.id(), Arc::clone(room.name()));
            let closed = CoreEvent::Closed { session: id, room, room_name, reason, closed };
            self.tables.effects.event(closed);
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
                | CloseReason::SrtpCountersLost
                | CloseReason::EndedByPolicy => OfferRefusal::Closed,
            };
            self.reply_refused(id, refused, now);
        }
        self.remove_session(id, reason, now);
    }

    fn close_all(&mut self, reason: CloseReason, now: Instant) {
        let all: Vec<SessionId> = self.tables.sessions.keys().collect();
        for session in all {
            self.close(session, reason, now);
        }
    }

    /// Closes the silent sessions, except in rooms that wait for a node to start.
    fn close_silent(&mut self, mut sessions: Vec<SessionId>, now: Instant) {
        let is_held = |id: &SessionId| {
            self.rooms.get(&self.tables.sessions[id].room()).is_some_and(|room| room.is_held(now))
        };
        sessions.retain(|id| !is_held(id));
        for session in sessions {
            self.close(session, CloseReason::MediaTimeout, now);
        }
    }

    fn remove_session(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(session) = self.tables.sessions.remove(id) else { return };
        let room = session.room();
        if let Some(group) = session.voice_only_for() {
            self.admission.client_breakers.forget(id, group);
        }
        session.leave_objective(&mut self.tables.slos, now);
        self.tables.effects.cancel(&Timer::OpenLate(id));
        self.tables.capacity.reduced.set(id, None);
        for leg in session.legs().all() {
            self.tables.leave_leg(id, leg);
        }
        if session.is_installed() {
            self.tables.effects.push(GatewayEffect::End { session: id, reason });
        }
        self.leave_room(&session, now);
        session.legs().all().for_each(|leg| self.tables.open_next(leg.hop.node, now));
        if session.track().is_some_and(FlowTracker::sends)
            && let Some(room) = self.rooms.get(&room)
        {
            self.tables.sessions.forget_heard(room);
        }
        let scenario = Arc::clone(session.scenario());
        self.tables.effects.notice(RoomNotice::Ended { session: id, room, scenario });
    }

    /// The session leaves its room, which is dissolved after the last one.
    fn leave_room(&mut self, session: &Session, now: Instant) {
        let Some(room) = self.rooms.get_mut(&session.room()) else { return };
        self.tables.catch_up(room, now);
        if !room.leave(session.id()) {
            self.tables.apply(room.note_live_changed(), room);
            self.tables.regrant(room);
            self.tables.publish_heading_if_open(room, now);
            self.tables.settle_peer_caps(room);
            return;
        }
        self.tables.apply(room.dissolve(now), room);
        let id = room.id();
        if let Some(room) = self.rooms.remove(id) {
            self.tables.worklists.forget(&room);
            self.tables.reviews.forget(id);
            self.tables.capacity.ledger.release(room.holding());
            self.tables.effects.cancel(&Timer::RoomDue(id));
            self.tables.effects.cancel(&Timer::LeavingEnds(id));
            let scenario = Arc::clone(room.scenario());
            self.tables.effects.notice(RoomNotice::Dissolved { room: id, scenario });
        }
    }

    /// Ends a window of the breakers of clients. Sessions of clients that have recovered get their video back.
    fn weigh_client_breakers(&mut self, now: Instant) {
        let changes = self.admission.client_breakers.weigh(now);
        changes.into_iter().for_each(|change| self.tables.effects.event(change));
        for session in self.admission.client_breakers.restore_video() {
            if let Some(room) = self.rooms.of_session(session, &self.tables.sessions) {
                self.tables.restore_video(room, session);
            }
        }
    }

    fn apply_action(
        &mut self,
        id: SessionId,
        op: u32,
        arg: u64,
        by: &Decider,
    ) -> Result<PartOutcome, GuardRule> {
        let mut replans = Replans::default();
        let part = self.replan(id, op, arg, &mut replans)?;
        self.put_in_force(replans, by);
        Ok(part)
    }

    /// Returns the effect of the action, or the rule that it broke. `differs` is true, since the native default changes
    /// no session's quality.
    fn replan(
        &mut self,
        id: SessionId,
        op: u32,
        arg: u64,
        replans: &mut Replans,
    ) -> Result<PartOutcome, GuardRule> {
        let Some(session) = self.tables.sessions.get(&id) else {
            return Replans::known(op).map(|_| PartOutcome::Kept);
        };
        let after = Replans::after(session, op, arg, || self.obeys_caps(session))?;
        if replans.end(id, op, arg) {
            return Ok(PartOutcome::Applied { differs: true });
        }
        let Some((op, plan)) = after else { return Ok(PartOutcome::Kept) };
        self.enrol(id);
        if let Some(session) = self.tables.sessions.get_mut(&id) {
            replans.replan(session, op, arg, plan);
        }
        Ok(PartOutcome::Applied { differs: true })
    }

    /// Puts the changed plans of an answer in force, once per session and room, however many plans it changed: rooms may be
    /// as large as a batch.
    fn put_in_force(&mut self, mut replans: Replans, by: &Decider) {
        let (mut capped, mut see_again) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        let ending = replans.take_ending();
        for replanned in replans.put_in_force(&mut self.tables.sessions) {
            let (session, room) = (replanned.session(), replanned.room());
            self.tables.apply_to_session(session, replanned.change());
            let room_name = self.rooms.name_of(room);
            let events = replanned.events(&room_name, by);
            events.for_each(|event| self.tables.effects.event(event));
            if replanned.cap_down_differs() {
                capped.insert(room);
            }
            if replanned.sees_again() {
                see_again.entry(room).or_default().push(session);
            }
        }
        for room in capped.iter().filter_map(|id| self.rooms.get(id)) {
            self.tables.settle_peer_caps(room);
        }
        for (room, receivers) in see_again {
            if let Some(room) = self.rooms.get(&room) {
                self.tables.request_key_frames(room, &receivers);
            }
        }
        for id in ending {
            let Some(session) = self.tables.sessions.get(&id) else { continue };
            let (room_name, rung) = (self.rooms.name_of(session.room()), session.plan_now().rung());
            let (op, by) = (Op::End, by.clone());
            let event = CoreEvent::Degraded { session: id, room_name, op, arg: 1, rung, by };
            self.tables.effects.event(event);
            // The rest of the answer is about sessions that are there.
            self.tables.effects.notice(RoomNotice::End(id));
        }
    }

    // Rooms: their capacity, failover and rescue, returns, and changed settings.

    /// Gates second hops of other nodes' rooms as far as the new load has used their reserves, until those rooms have others. A node
    /// to which rooms fail over is checked once all have arrived.
    fn gate_unfit_reserves(&mut self, node: NodeId) {
        let Tables { worklists, capacity, .. } = &self.tables;
        if worklists.failover.concerns(node) || capacity.ledger().fits(node, 0) {
            return;
        }
        for id in self.holders_of(node) {
            let Some(room) = self.rooms.get_mut(&id) else { continue };
            self.tables.regrant(room);
            if room.holding().reserve().is_none() {
                self.tables.effects.want_reroute(id);
            }
        }
    }

    /// Gates second hops at the standby of rooms of the dead node, until the standby can carry the others.
    fn gate_excess(&mut self, standby: NodeId, dead: NodeId) {
        let carries = |tables: &Tables| tables.capacity.ledger().carries(standby, 0);
        if carries(&self.tables) {
            return;
        }
        for id in self.holders_of(standby) {
            if carries(&self.tables) {
                return;
            }
            let room = self.rooms.get_mut(&id);
            if let Some(room) = room.filter(|room| room.holding().on == Some(dead)) {
                self.tables.regrant(room);
            }
        }
    }

    /// Rooms of other nodes with a reserve at this one, lowest priority first.
    fn holders_of(&self, node: NodeId) -> Vec<RoomId> {
        let there =
            self.tables.worklists.by_node.at(node).iter().filter_map(|id| self.rooms.get(&id));
        let mut holders: Vec<&Room> =
            there.filter(|room| room.holding().reserve() == Some(node)).collect();
        holders.sort_unstable_by_key(|room| (room.priority(), Reverse(room.id())));
        holders.into_iter().map(Room::id).collect()
    }

    /// Capacity may have become free: weighs the next rooms without a usable second hop, and some with a reserve that
    /// covers less than their scenario wants.
    fn weigh_unprotected(&mut self, now: Instant) {
        let turn = self.tables.worklists.unreserved.next(WEIGHED_AGAIN_MAX);
        let uncovered = self.tables.worklists.uncovered.next(COVERED_AGAIN_MAX);
        let goes_on = turn.len() == WEIGHED_AGAIN_MAX;
        self.tables.capacity.ledger.recover(now);
        self.raise_shares(now);
        let before = self.tables.worklists.unreserved.len();
        self.trim_reserves();
        self.follow_zones();
        for id in turn.into_iter().chain(uncovered) {
            let Some(room) = self.rooms.get_mut(&id) else { continue };
            self.tables.regrant(room);
            if !self.tables.worklists.is_unprotected(id) {
                continue;
            }
            let scenario = self.tables.settings.scenarios.get(room.scenario());
            let policy_decides = scenario.is_some_and(|it| it.binds(Hook::Routing));
            if self.tables.node_choice(room, now).can_gain_reserve(policy_decides) {
                self.tables.effects.want_reroute(id);
            }
        }
        let helps = goes_on && self.tables.worklists.unreserved.len() < before;
        let goes_on = helps || self.default_reserves.after.is_some();
        let next = if goes_on { WEIGH_GOES_ON } else { WEIGH_EVERY };
        self.tables.effects.set(Timer::Weigh, now + next);
    }

    /// Weighs the next rooms that reserve by default again, once a zone takes rooms that took none before.
    fn follow_zones(&mut self) {
        let zones = self.tables.nodes.permanent_zones();
        if !zones.is_subset(&self.default_reserves.zones) {
            self.default_reserves.after = Some(RoomId(0));
        }
        self.default_reserves.zones = zones;
        let Some(after) = self.default_reserves.after else { return };
        let next = self.rooms.after(after).map(Room::id).take(WEIGHED_AGAIN_MAX);
        let next: Vec<RoomId> = next.collect();
        let is_last = next.len() < WEIGHED_AGAIN_MAX;
        self.default_reserves.after = next.last().copied().filter(|_| !is_last);
        for id in next {
            let Some(room) = self.rooms.get_mut(&id) else { continue };
            let scenario = self.tables.settings.scenarios.get(room.scenario());
            if scenario.is_some_and(|scenario| scenario.reserve.is_none()) {
                self.tables.regrant(room);
            }
        }
    }

    /// Gives up reserves that yield, at nodes with too much load for all of them, until the others fit. A node to which rooms fail over
    /// is checked once all have arrived.
    fn trim_reserves(&mut self) {
        let nodes: Vec<NodeId> = self.tables.nodes.iter().map(|node| node.id).collect();
        for node in nodes {
            let Tables { worklists, capacity, .. } = &self.tables;
            if worklists.failover.concerns(node) || !capacity.ledger().is_overdrawn(node) {
                continue;
            }
            let yields = |id: &RoomId| {
                let holding = self.rooms.get(id).map(Room::holding).unwrap_or_default();
                let covers = holding.covers().is_some_and(|cover| cover.yields);
                covers && holding.reserve() == Some(node)
            };
            let there = worklists.by_node.at(node).iter().filter(yields);
            let there: Vec<RoomId> = there.take(WEIGHED_AGAIN_MAX).collect();
            for id in there {
                if !self.tables.capacity.ledger().is_overdrawn(node) {
                    break;
                }
                if let Some(room) = self.rooms.get_mut(&id) {
                    self.tables.regrant(room);
                }
            }
        }
    }

    fn weigh_breakers(&mut self, now: Instant) {
        let Tables { capacity, nodes, effects, .. } = &mut self.tables;
        if capacity.weigh_breakers(nodes, now, effects) {
            self.want_reroute_of_short_rooms();
        }
    }

    /// A node may take spares again, so rooms with too few are rerouted.
    fn want_reroute_of_short_rooms(&mut self) {
        for room in self.rooms.values().filter(|room| room.is_short_of_spares()) {
            self.tables.effects.want_reroute(room.id());
        }
    }

    /// Marks the node down: packets of its rooms take their second hops. The reserves for this death are load from now on.
    /// Before, second hops are gated at a standby that lacks capacity because it carries rooms of other dead nodes.
    fn mark_down(&mut self, dead: Hop, since: Instant, now: Instant) {
        let standbys = self.tables.capacity.ledger().standbys_of(dead.node);
        self.tables.capacity.ledger.note_death(dead.node);
        for standby in &standbys {
            self.gate_excess(*standby, dead.node);
        }
        self.tables.nodes.mark_down(dead, since);
        self.tables.worklists.failover.note_death(Death::new(dead, now), standbys);
    }

    /// Fails the rooms of a dead node over in batches. Their packets have taken their second hops since the node was marked
    /// down. Returns the number of rooms that the node carried.
    fn fail_over(&mut self, dead: NodeId, now: Instant) -> u32 {
        self.tables.worklists.failover.begin(dead);
        self.tables.effects.set_if_idle(Timer::Failover, now);
        self.tables.capacity.ledger().rooms(dead)
    }

    /// Fails over the next rooms of dead nodes. Between batches the control thread reads its inputs, which may report
    /// another death.
    fn fail_over_some(&mut self, now: Instant) {
        let Tables { worklists, nodes, .. } = &mut self.tables;
        let Worklists { failover, by_node, .. } = worklists;
        failover.list_next(by_node, |id| self.rooms.get(&id), nodes.board());
        for _ in 0..self.tables.settings.limits.lost_at_once {
            let failover = &mut self.tables.worklists.failover;
            if !failover.is_under_way() {
                return;
            }
            match failover.next() {
                Some(id) => {
                    if let Some(room) = self.rooms.get_mut(&id) {
                        self.tables.leave_dead_hops(room, now);
                    }
                }
                None if failover.is_listed() => return self.end_failover(),
                None => break,
            }
        }
        self.tables.effects.set(Timer::Failover, now + LOST_EVERY);
    }

    /// All rooms of the dead nodes have failed over.
    fn end_failover(&mut self) {
        let standbys = self.tables.worklists.failover.end();
        self.tables.capacity.ledger.forget_deaths();
        for standby in standbys {
            self.gate_unfit_reserves(standby);
        }
    }

    /// Gives moves off the dead node for closed ports, a moment ago, its death as their cause. Returns them.
    fn explain_port_moves(&mut self, dead: Hop, now: Instant) -> Vec<PortMove> {
        if self.tables.loss_of(dead.node) != MoveCause::NodeDown {
            return Vec::new();
        }
        let moves = self.tables.worklists.closed_ports.take_explained(dead, now);
        for PortMove { room, .. } in &moves {
            if let Some(room) = self.rooms.get_mut(room) {
                self.tables.apply(room.explain_port_move(dead), room);
            }
        }
        moves
    }

    /// Moves for closed ports of nodes that did not die in time were due to the link.
    fn settle_port_moves(&mut self, now: Instant) {
        for (hop, moves) in self.tables.worklists.closed_ports.take_settled(now) {
            for PortMove { room, .. } in &moves {
                if let Some(room) = self.rooms.get_mut(room) {
                    self.tables.apply(room.settle_port_move(), room);
                }
            }
            let cause = MoveCause::Link;
            self.tables.effects.event(CoreEvent::MoveCauseFound { hop, cause, moves });
        }
        if !self.tables.worklists.closed_ports.is_empty() {
            self.tables.effects.set(Timer::ClosedPorts, now + PORTS_SETTLED_EVERY);
        }
    }

    /// Moves stranded rooms to a hop of their route where they are open, else natively to any node with capacity, at
    /// the pace at which it opens sessions. A room that waits for one node's queue does not block nodes without a queue: if
    /// a whole batch only waits, the next batch starts after it.
    fn rescue_stranded(&mut self, now: Instant) {
        let batch = self.tables.worklists.stranded.begin_batch();
        let mut none_left = false;
        for id in batch.rooms() {
            let Some(room) = self.rooms.get_mut(&id) else { continue };
            if self.tables.take_own_hop(room, now) {
                continue;
            }
            let is_paced = self.tables.worklists.stranded.is_paced();
            none_left = none_left || is_paced && !self.tables.has_free_node();
            if none_left || is_paced && !self.tables.node_choice(room, now).has_free_node() {
                continue;
            }
            let Some(nodes) = self.tables.rescue(room, now) else {
                self.tables.worklists.stranded.pace();
                continue;
            };
            if let Some(taken) = nodes.first() {
                self.gate_unfit_reserves(*taken);
            }
            if let Some(room) = self.rooms.get_mut(&id) {
                self.tables.apply(room.count_attempt(), room);
            }
        }
        // If only nodes with queues are left, the first rooms have the next turn.
        self.tables.worklists.stranded.end_batch(&batch, none_left);
        if !self.tables.worklists.stranded.is_empty() {
            self.tables.effects.set(Timer::Rescue, now + RESCUE_EVERY);
        }
    }

    /// The next rooms leave a node that loses more than others.
    fn leave_worse(&mut self, node: NodeId, now: Instant) {
        for id in self.tables.worklists.by_node.next_to_leave(node) {
            if let Some(room) = self.rooms.get_mut(&id) {
                self.tables.leave_lossy_node(room, node, now);
            }
        }
    }

    /// Weighs the votes about nodes, and lets rooms leave worse nodes.
    fn weigh_cohorts(&mut self, now: Instant) {
        for node in self.quality.weigh_cohorts(&mut self.tables.nodes, now) {
            self.leave_worse(node, now);
        }
        let Tables { nodes, effects, .. } = &mut self.tables;
        self.quality.weigh_again(nodes, effects, now);
    }

    /// Judges the sessions that receive nothing any more. Rooms leave hops that do not deliver.
    fn judge_flows(&mut self, now: Instant) {
        for (room, session) in self.quality.take_silent() {
            let Some(room) = self.rooms.get_mut(&room) else { continue };
            self.tables.catch_up(room, now);
            let Tables { sessions, nodes, .. } = &mut self.tables;
            let verdict = self.quality.judge_flow(room, session, sessions, nodes, now);
            if let FlowVerdict::Lost(hop) = verdict {
                self.tables.drop_hop(room, hop, Strike::FlowLost, Some(session), now);
            }
        }
        self.quality.judge_again(&mut self.tables.effects, now);
    }

    /// Returns the next room to its native place, if one can go.
    fn fail_back(&mut self, now: Instant) {
        let turn = self.tables.worklists.away.turn();
        let found = turn
            .iter()
            .copied()
            .find(|id| self.rooms.get_mut(id).is_some_and(|room| self.tables.send_back(room, now)));
        let Tables { worklists, settings, effects, .. } = &mut self.tables;
        let is_whole = worklists.away.end_turn(&turn, found);
        if !worklists.away.is_empty() {
            let every = Duration::from_secs(1) / settings.limits.failbacks_per_second.max(1);
            let next = if is_whole { every.max(LOOK_AGAIN) } else { every };
            effects.set(Timer::Failback, now + next);
        }
    }

    /// Applies changed settings of scenarios and adds new ones. Rooms follow in batches with their mode, regions and spares;
    /// bit rates, silence and priority are those of the rooms and sessions that open later.
    fn take_scenarios(&mut self, scenarios: &BTreeMap<Arc<str>, Scenario>, now: Instant) {
        let before = bound_policies(&self.tables.settings.scenarios);
        for (name, new) in scenarios {
            self.retired.remove(name);
            let old = self.tables.settings.scenarios.insert(Arc::clone(name), new.clone());
            if new.binds(Hook::Degradation) {
                let policy = Arc::new(new.policy(Hook::Degradation));
                let next = now + self.tables.settings.limits.tick_every;
                self.tables.effects.set_if_idle(Timer::Tick(policy), next);
            }
            let Some(old) = old else { continue };
            let redundancy = |it: &Scenario| {
                (it.mode, it.regions.clone(), it.spares, it.reserve, it.spares_outside)
            };
            if redundancy(&old) == redundancy(new) {
                continue;
            }
            for room in self.rooms.values_mut().filter(|room| room.scenario() == name) {
                if old.spares != new.spares {
                    self.tables.apply(room.set_spares(new.spares), room);
                }
                self.tables.worklists.changing.insert(room.id());
            }
        }
        self.change_some(now);
        self.retire_scenarios(scenarios);
        let bound = bound_policies(&self.tables.settings.scenarios);
        before.difference(&bound).for_each(|policy| self.remove_policy(policy, now));
    }

    /// Scenarios that are not among these take no offers. The hooks that their sets bind now decide about their rooms.
    fn retire_scenarios(&mut self, scenarios: &BTreeMap<Arc<str>, Scenario>) {
        for (name, scenario) in &mut self.tables.settings.scenarios {
            if !scenarios.contains_key(name) {
                let of_set = scenarios.values().find(|it| it.set == scenario.set);
                scenario.bound = of_set.map_or([false; 4], |it| it.bound);
                self.retired.insert(Arc::clone(name));
            }
        }
        self.forget_retired();
    }

    /// Forgets retired scenarios without a room.
    fn forget_retired(&mut self) {
        let Gateway { rooms, retired, tables, .. } = self;
        retired.retain(|name| {
            let is_used = rooms.values().any(|room| room.scenario() == name);
            if !is_used {
                tables.settings.scenarios.remove(name);
            }
            is_used
        });
    }

    /// Forgets a policy that no scenario binds any more. Questions that it has not answered are decided natively, and so are the routes of
    /// its rooms; its sessions get whole plans, some at a time.
    fn remove_policy(&mut self, policy: &PolicyName, now: Instant) {
        self.policies.remove(policy);
        self.questions.note_standing(policy, None, now, &mut self.tables.effects);
        self.ask_again(self.questions.of_policy(policy), now);
        self.ask_about_all(policy, None, now);
        if policy.hook == Hook::Degradation {
            self.tables.effects.set(Timer::Tick(Arc::new(policy.clone())), now);
        }
    }

    /// The next sessions of a degradation policy that no scenario binds any more get whole plans.
    fn release_sessions(&mut self, policy: &PolicyName, now: Instant) {
        let mut replans = Replans::default();
        for id in self.tables.sessions.release_ticked(policy, CHANGED_AT_ONCE) {
            self.degradation.end_climb(id);
            let Some(plan) = self.tables.sessions.get(&id).map(Session::plan) else { continue };
            for op in Op::ALL.into_iter().filter(|op| plan.arg(*op) > 0) {
                // An action may always end.
                let _ = self.replan(id, op as u32, 0, &mut replans);
            }
        }
        self.put_in_force(replans, &Decider::Native);
        if self.tables.sessions.ticked(policy).is_some() {
            self.tables.effects.set(Timer::Tick(Arc::new(policy.clone())), now + CHANGE_EVERY);
        }
    }

    /// Some scenario binds the policy.
    fn binds(&self, policy: &PolicyName) -> bool {
        let mut scenarios = self.tables.settings.scenarios.values();
        scenarios.any(|it| it.set == policy.set && it.binds(policy.hook))
    }

    fn change_some(&mut self, now: Instant) {
        for _ in 0..CHANGED_AT_ONCE {
            let Some(id) = self.tables.worklists.changing.pop_first() else { return };
            if let Some(room) = self.rooms.get_mut(&id) {
                self.tables.change_mode(room, now);
            }
        }
        self.tables.effects.set(Timer::Change, now + CHANGE_EVERY);
    }

    // Nodes: drains, ejections, changes of the list, stops, and the rooms that follow.

    /// Begins or ends an operator's drain. A draining node takes no new rooms, and its rooms move within the given
    /// time. Rooms that fit on no other node stay until they do. [`CoreEvent::Drained`] reports that the node is empty, or
    /// the number of rooms left at the deadline.
    ///
    /// A drain does not end while the node is being removed ([`Impossible::NodeLeaves`]), or while its agent drains it
    /// ([`Impossible::NodeDrains`]).
    pub fn handle_drain(
        &mut self,
        node: NodeId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let found = self.tables.nodes.get_mut(node).ok_or(Impossible::NoSuchNode)?;
        if found.trust.removed && !draining {
            return Err(Impossible::NodeLeaves);
        }
        found.trust.draining = draining;
        found.trust.elastic.stopping &= draining;
        // The node would repeat its request with its next answer.
        if found.trust.leaving && !draining {
            return Err(Impossible::NodeDrains);
        }
        match within {
            // The node list may have set a deadline.
            None if draining && found.trust.removed => self.drain_some(node, now),
            Some(_) | None => self.set_drain(node, draining, within, now),
        }
        Ok(())
    }

    /// Starts or ends the drain of a node.
    fn set_drain(&mut self, node: NodeId, draining: bool, within: Option<Duration>, now: Instant) {
        self.tables.effects.event(CoreEvent::Draining { node, draining });
        if draining {
            self.drains.begin(node, within, now);
            self.drain_some(node, now);
        } else {
            self.tables.effects.cancel(&Timer::Drain(node));
            self.drains.end(node);
            self.want_reroute_of_short_rooms();
        }
    }

    /// Changes a reason to drain, and starts or ends the drain if the outcome changes.
    fn decide_drain(&mut self, id: NodeId, change: impl FnOnce(&mut Node), now: Instant) {
        let Some(node) = self.tables.nodes.get_mut(id) else { return };
        let before = node.drains();
        change(node);
        let drains = node.drains();
        if before != drains {
            self.set_drain(id, drains, None, now);
        }
    }

    /// Begins or ends the drain of a zone or region: of all its nodes, including those that are added later. Nodes that
    /// an agent drains stay drained.
    pub fn handle_drain_domain(
        &mut self,
        domain: FailureDomain,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.tables.nodes.check_domain(domain)?;
        let mut nodes: Vec<NodeId> =
            self.tables.nodes.in_domain(domain).map(|node| node.id).collect();
        self.tables.nodes.set_drained(domain, draining);
        nodes.retain(|node| draining || !self.tables.nodes[*node].trust.removed);
        // All nodes are marked first, so that rooms do not move from one to another.
        for node in &nodes {
            self.tables.nodes[*node].trust.draining = draining;
        }
        for node in nodes {
            match self.handle_drain(node, draining, within, now) {
                Ok(()) | Err(Impossible::NodeDrains) => {}
                Err(impossible) => return Err(impossible),
            }
        }
        Ok(())
    }

    /// Moves the next rooms away from the node and schedules the rest.
    fn drain_some(&mut self, node: NodeId, now: Instant) {
        let there = self.tables.worklists.by_node.at(node);
        let Some(batch) = self.drains.next_batch(node, there, now) else { return };
        batch.ended.into_iter().for_each(|ended| self.tables.effects.event(ended));
        match batch.next {
            Some(next) => self.tables.effects.set(Timer::Drain(node), next),
            None => self.forget_soon(node, now),
        }
        for id in batch.rooms {
            if let Some(room) = self.rooms.get_mut(&id) {
                self.tables.leave_draining_node(room, node, now);
            }
        }
    }

    /// Adds a node as a new incarnation. It is Down until it answers, then Wary. A node that a hook starts is Cold.
    ///
    /// Nodes that are being removed, or were removed within the last 10 s, count towards the limit
    /// ([`Impossible::NoRoomForNodes`]).
    pub fn handle_node_added(
        &mut self,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<NodeId, Impossible> {
        let kbps = settings.capacity_kbps;
        let (id, drained) = self.tables.nodes.add(settings, now)?;
        self.tables.effects.take(&mut self.tables.nodes);
        self.tables.capacity.ledger.add(id, kbps);
        self.tables.worklists.by_node.add_node(id);
        if drained {
            self.decide_drain(id, |node| node.trust.draining = true, now);
        }
        Ok(id)
    }

    /// A node that was just added replaces one that is about to be removed, as after a change of key or address. An
    /// operator's drain or eject of the old node applies to the new one, and so does its start by the gateway.
    pub fn handle_takes_place(
        &mut self,
        new: NodeId,
        old: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let before = self.tables.nodes.get(old).ok_or(Impossible::NoSuchNode)?.trust;
        self.tables.nodes.get_mut(new).ok_or(Impossible::NoSuchNode)?.take_place(&before);
        if before.draining {
            self.decide_drain(new, |node| node.trust.draining = true, now);
        }
        if before.ejected {
            self.handle_eject(new, now)?;
        }
        Ok(())
    }

    /// An earlier process of this gateway started the node, if a hook still starts it.
    pub fn handle_started(&mut self, id: NodeId) {
        let node = self.tables.nodes.get_mut(id);
        if let Some(node) = node.filter(|node| node.settings.starts != Starts::ByItself) {
            node.resume_start();
        }
    }

    /// An operator ejects the node. Its rooms leave it at once, and it stays Down until
    /// [`handle_return`](Self::handle_return). Fails if the node is already ejected.
    pub fn handle_eject(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        let node = self.tables.nodes.get(id).ok_or(Impossible::NoSuchNode)?;
        if node.trust.ejected {
            return Err(Impossible::AlreadyEjected);
        }
        let change = self.tables.nodes.eject(id, now);
        self.nodes_changed(change.into_iter().collect(), now);
        Ok(())
    }

    /// An operator ejects all nodes of the zone at once, so that no room moves from one to another. Fails if all are
    /// ejected already.
    pub fn handle_eject_zone(&mut self, zone: ZoneId, now: Instant) -> Result<(), Impossible> {
        let nodes = self.nodes_of_zone(zone, |node| !node.trust.ejected)?;
        if nodes.is_empty() {
            return Err(Impossible::AlreadyEjected);
        }
        let changes = nodes.into_iter().filter_map(|id| self.tables.nodes.eject(id, now)).collect();
        self.nodes_changed(changes, now);
        Ok(())
    }

    /// Ends the ejection of the zone's nodes. Fails if none is ejected.
    pub fn handle_return_zone(&mut self, zone: ZoneId) -> Result<(), Impossible> {
        let nodes = self.nodes_of_zone(zone, |node| node.trust.ejected)?;
        if nodes.is_empty() {
            return Err(Impossible::NotDown);
        }
        nodes.into_iter().try_for_each(|id| self.handle_return(id))
    }

    fn nodes_of_zone(
        &self,
        zone: ZoneId,
        matches: impl Fn(&Node) -> bool,
    ) -> Result<Vec<NodeId>, Impossible> {
        let zone = FailureDomain::Zone(zone);
        self.tables.nodes.check_domain(zone)?;
        let nodes = self.tables.nodes.in_domain(zone).filter(|node| matches(node));
        Ok(nodes.map(|node| node.id).collect())
    }

    /// Ends the ejection of a node that is Down. The node is Wary as soon as it answers.
    pub fn handle_return(&mut self, id: NodeId) -> Result<(), Impossible> {
        let node = self.tables.nodes.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        if node.health() != Health::Down {
            return Err(Impossible::NotDown);
        }
        node.let_back();
        Ok(())
    }

    /// The nodes die in one moment, by certain evidence such as the reports of their agents, so that no room moves from one to
    /// another. Returns those that ran.
    pub fn lose(
        &mut self,
        nodes: impl IntoIterator<Item = NodeId>,
        now: Instant,
    ) -> BTreeSet<NodeId> {
        let changes = nodes.into_iter().filter_map(|id| self.tables.nodes.handle_gone(id, now));
        let changes: Vec<NodeChange> = changes.collect();
        let died = changes.iter().map(|change| change.node).collect();
        self.nodes_changed(changes, now);
        died
    }

    /// A node that was just added is the machine of another node under a new name. The load of the old node counts
    /// against the capacity of both.
    pub fn handle_same_machine(&mut self, new: NodeId, old: NodeId) -> Result<(), Impossible> {
        let there = [new, old].iter().all(|id| self.tables.nodes.get(*id).is_some());
        if new == old || !there {
            return Err(Impossible::NoSuchNode);
        }
        self.tables.capacity.ledger.is_one_machine([new, old]);
        Ok(())
    }

    /// Changes a node's capacity, zone within its region, role, hook or canary. No room leaves the node. If its load
    /// exceeds the new capacity, only reservations are given up.
    pub fn handle_node_changed(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<(), Impossible> {
        let (capacity, zone) = (settings.capacity_kbps, settings.zone);
        let before = self.tables.nodes.change(id, settings, now)?;
        self.tables.effects.take(&mut self.tables.nodes);
        if before.zone != zone {
            // Reserves may not cover the new zone. A drain of the old one goes on.
            let Worklists { changing, by_node, .. } = &mut self.tables.worklists;
            changing.extend(by_node.at(id).iter());
            self.tables.effects.set_if_idle(Timer::Change, now);
            // A drain of the region reached the node in its old zone, unless an operator ended it there.
            if self.tables.nodes.is_drained(FailureDomain::Zone(zone)) {
                self.decide_drain(id, |node| node.trust.draining = true, now);
            }
        }
        if before.capacity_kbps != capacity {
            self.tables.capacity.ledger.gauge_mut(id).claim(capacity);
            self.gate_unfit_reserves(id);
        }
        self.want_reroute_of_short_rooms();
        Ok(())
    }

    /// Removes a node. The node is drained, whatever its agent or an operator says, and forgotten with
    /// [`NodeEffect::Forget`](evenkeel_nodes::NodeEffect::Forget) when it is empty. A drain in progress continues unless there is a new deadline.
    pub fn handle_node_removed(
        &mut self,
        id: NodeId,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = self.tables.nodes.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        node.trust.removed = true;
        match within {
            None if self.drains.get(id).is_some() => self.drain_some(id, now),
            Some(_) | None => self.set_drain(id, true, within, now),
        }
        Ok(())
    }

    /// Cancels the removal of a node. It takes rooms again unless it drains for another reason. Fails if the node is
    /// gone, or is not being removed.
    pub fn handle_node_kept(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        let removed = |node: &&Node| node.trust.removed;
        self.tables.nodes.get(id).filter(removed).ok_or(Impossible::NoSuchNode)?;
        self.tables.effects.cancel(&Timer::Forget(id));
        self.decide_drain(id, |node| node.trust.removed = false, now);
        Ok(())
    }

    /// Forgets the node after its legs had time to close, since no room leads there any more.
    fn forget_soon(&mut self, id: NodeId, now: Instant) {
        if self.tables.nodes.get(id).is_some_and(|node| node.trust.removed) {
            let after = self.tables.settings.limits.leave_within + GONE_AFTER;
            self.tables.effects.set(Timer::Forget(id), now + after);
        }
    }

    /// Forgets the node unless something leads there again.
    fn forget_node(&mut self, id: NodeId, now: Instant) {
        if !self.tables.nodes.get(id).is_some_and(|node| node.trust.removed) {
            return;
        }
        if !self.tables.worklists.by_node.at(id).is_empty() {
            return self.drain_some(id, now);
        }
        if !self.is_settled(id) {
            return self.forget_soon(id, now);
        }
        self.drains.end(id);
        self.tables.worklists.by_node.forget_node(id);
        self.tables.capacity.ledger.forget(id);
        self.tables.with_nodes(|nodes| nodes.forget(id, now));
        self.quality.forget_node(id);
    }

    /// No session is being opened at the node, and no failover concerns it.
    fn is_settled(&self, id: NodeId) -> bool {
        self.tables.nodes.pace(id).counts() == (0, 0)
            && !self.tables.worklists.failover.concerns(id)
    }

    /// A node reported its load in thousandths of its capacity; valid for 5 s. The report corrects the measured
    /// capacity, up to the configured one. A draining node's measured capacity is unchanged.
    pub fn handle_load(&mut self, id: NodeId, permille: u16, now: Instant) {
        let Some(node) = self.tables.nodes.get_mut(id) else { return };
        node.handle_load(permille, now);
        if node.drains() {
            return self.tables.capacity.ledger.gauge_mut(id).hold(now);
        }
        self.tables.capacity.ledger.handle_load(id, permille, now);
        self.gate_unfit_reserves(id);
    }

    /// A node refused a session because it is full. Its present load counts as its capacity for now. A draining node
    /// refuses sessions because it drains, so its capacity is unchanged.
    pub fn handle_full(&mut self, id: NodeId, now: Instant) {
        let Some(node) = self.tables.nodes.get(id) else { return };
        if !node.drains() {
            self.tables.capacity.ledger.handle_full(id, now);
            self.gate_unfit_reserves(id);
        }
        if let Some(node) = self.tables.nodes.get_mut(id) {
            node.handle_willing(false, now);
        }
    }

    /// An agent reported the state of its node. [`AgentWord::Gone`] marks the node down at once. The other reports
    /// withdraw that evidence, and begin or end the agent's drain.
    pub fn handle_agent_word(&mut self, id: NodeId, word: AgentWord, now: Instant) {
        let Some(node) = self.tables.nodes.get_mut(id) else { return };
        if word == AgentWord::Gone {
            self.lose([id], now);
            return;
        }
        node.detector.handle_agent(true, now);
        let leaving = word == AgentWord::Draining;
        self.decide_drain(id, |node| node.trust.leaving = leaving, now);
    }

    /// The connection to the node's agent is lost. All reports of the agent are withdrawn.
    pub fn handle_agent_lost(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.tables.nodes.get_mut(id) {
            node.detector.handle_agent(true, now);
        }
        self.decide_drain(id, |node| node.trust.leaving = false, now);
    }

    /// Takes the changes of nodes. All dead nodes are marked down on the board before any room fails over, since a node
    /// that died in the same watch is no target.
    fn nodes_changed(&mut self, changes: Vec<NodeChange>, now: Instant) {
        for NodeChange { node, change, since, .. } in &changes {
            if let NodeTransition::Died { .. } = change {
                let hop = self.tables.nodes[*node].hop();
                self.mark_down(hop, *since, now);
            }
        }
        for change in changes {
            self.node_changed(change, now);
        }
    }

    fn node_changed(&mut self, changed: NodeChange, now: Instant) {
        let NodeChange { node: id, change, witnesses, .. } = changed;
        let node = &mut self.tables.nodes[id];
        let last_heard = node.detector.last_heard();
        let (from, to) = match change {
            NodeTransition::Health { from, to } => (from, to),
            NodeTransition::Died { from } => (from, Health::Down),
            NodeTransition::Returned => (Health::Down, node.health()),
            NodeTransition::Started { to, .. } => (Health::Cold, to),
        };
        match change {
            NodeTransition::Health { .. } => {}
            NodeTransition::Died { .. } => {
                let hop = node.hop();
                node.detector.absolve();
                // A node that dies before it ran was ejected.
                self.tables.with_nodes(|nodes| nodes.start_failed(id, NotStarted::Ejected, now));
                let moves = self.explain_port_moves(hop, now);
                let rooms = self.fail_over(id, now) + moves.len() as u32;
                self.tables.effects.health_changed(hop, from, to, witnesses, last_heard, rooms);
                if !moves.is_empty() {
                    let cause = MoveCause::NodeDown;
                    self.tables.effects.event(CoreEvent::MoveCauseFound { hop, cause, moves });
                }
                return;
            }
            NodeTransition::Returned | NodeTransition::Started { .. } => {
                self.tables.nodes.reincarnate(id);
            }
        }
        let hop = self.tables.nodes[id].hop();
        self.tables.effects.health_changed(hop, from, to, witnesses, last_heard, 0);
        if let NodeTransition::Started { after, .. } = change {
            self.node_started(id, after, now);
        }
        if matches!(change, NodeTransition::Returned | NodeTransition::Started { .. }) {
            // The node's request to drain was made by its previous incarnation.
            self.decide_drain(id, |node| node.trust.leaving = false, now);
        }
        if matches!(to, Health::Wary | Health::Up) && from != Health::Suspect {
            self.want_reroute_of_short_rooms();
        }
    }

    /// The node is running, so stranded rooms are tried again.
    fn node_started(&mut self, id: NodeId, after: Option<Duration>, now: Instant) {
        self.tables.effects.cancel(&Timer::StartLate(id));
        self.tables.effects.set(Timer::Probe(id), now);
        if let Some(took) = after {
            self.tables
                .effects
                .event(CoreEvent::Start { node: id, step: StartPhase::Done { took } });
        }
        if !self.tables.worklists.stranded.is_empty() {
            self.tables.effects.set(Timer::Rescue, now);
        }
    }

    /// The capacity of the region will be exhausted: with `early_start`, starts one of its nodes, unless a node is being
    /// started.
    pub fn handle_exhaustion(&mut self, region: RegionId, now: Instant) {
        if self.tables.settings.limits.early_start {
            self.tables.with_nodes(|nodes| nodes.start_in_region(region, now));
        }
    }

    /// The highest load that is expected in the region within the horizon of forecasts: nodes that it needs are not stopped.
    pub fn handle_expected_load(&mut self, region: RegionId, kbps: u64, now: Instant) {
        self.tables.nodes.note_expected_load(region, kbps, now);
    }

    /// The trend of the node reaches its limit, in thousandths; 0: it has none.
    pub fn handle_decay(&mut self, id: NodeId, permille: u16) {
        if let Some(node) = self.tables.nodes.get_mut(id) {
            node.decay_permille = permille;
        }
    }

    /// The hook that starts the node failed. It is called again later if the node is still needed.
    pub fn handle_start_failed(&mut self, id: NodeId, now: Instant) {
        self.tables.with_nodes(|nodes| nodes.start_failed(id, NotStarted::Hook, now));
    }

    /// Drains nodes that the gateway started and that have not been needed for long enough, stops them once they are empty,
    /// and replaces dead ones.
    fn weigh_stops(&mut self, now: Instant) {
        let settled_for = self.tables.settings.limits.leave_within + GONE_AFTER;
        // A reload may have ended `stop_after`.
        let is_weighed = |node: &&Node| {
            node.settings.hook.stop_after.is_some() || node.need.is_some() || node.is_stopping()
        };
        let stoppable = self.tables.nodes.iter().filter(is_weighed);
        let stoppable: Vec<NodeId> = stoppable.map(|node| node.id).collect();
        for id in stoppable {
            let used = self.use_of(id, now);
            match self.tables.nodes[id].weigh_stop(used, settled_for, now) {
                StopStep::Wait => {}
                StopStep::Drain => self.set_stopping(id, true, now),
                StopStep::Keep => self.set_stopping(id, false, now),
                StopStep::Stop => self.stop(id, now),
            }
        }
        self.tables.with_nodes(|nodes| nodes.turn_hooks(now));
    }

    fn use_of(&self, id: NodeId, now: Instant) -> NodeUse {
        let is_stopping = self.tables.nodes[id].trust.elastic.stopping;
        let percent = if is_stopping { DRAINING_PERCENT } else { QUIET_PERCENT };
        // Other nodes of a spare's region are outside the region of its room, as the spare is.
        let rules = self.tables.settings.scenarios.values().map(|scenario| scenario.spares_outside);
        let outside = rules.filter(|rule| *rule == FailureScope::Zone).max().unwrap_or_default();
        let need = match self.tables.worklists.stranded.is_empty() {
            true => self.tables.capacity.need_of(id, &self.tables.nodes, percent, outside, now),
            false => Some(NodeNeed::Stranded),
        };
        let is_empty = self.tables.worklists.by_node.at(id).is_empty() && self.is_settled(id);
        NodeUse { need, is_empty }
    }

    fn set_stopping(&mut self, id: NodeId, stopping: bool, now: Instant) {
        self.decide_drain(id, |node| node.trust.elastic.stopping = stopping, now);
    }

    fn stop(&mut self, id: NodeId, now: Instant) {
        let node = &self.tables.nodes[id];
        let (hop, from, last_heard) = (node.hop(), node.health(), node.detector.last_heard());
        self.set_stopping(id, false, now);
        self.tables.with_nodes(|nodes| nodes.stop(id, now));
        self.tables.effects.health_changed(hop, from, Health::Cold, Vec::new(), last_heard, 0);
    }

    /// Raises sessions that were reduced long enough ago by one step, if no room is stranded.
    fn raise_shares(&mut self, now: Instant) {
        if self.tables.worklists.stranded.is_empty() && !self.fails_over() {
            for id in self.tables.capacity.reduced.next_due(now) {
                if let Some(room) = self.rooms.of_session(id, &self.tables.sessions) {
                    self.tables.raise_share(room, id, now);
                }
            }
        }
    }

    /// An endpoint obeys caps on the session: its own endpoint or, in a room of two, the other one.
    fn obeys_caps(&self, session: &Session) -> bool {
        let room = self.rooms.get(&session.room());
        self.tables
            .sessions
            .obey_caps(session, room.into_iter().flat_map(|room| room.sessions().iter()))
    }

    // Revisions of policies, and the consequences of their changes for rooms and sessions.

    /// Adds a policy that has no revision yet.
    pub fn handle_policy(&mut self, policy: &PolicyName, rules: RolloutRules, clock: WallClock) {
        let life = Lifecycle::new(policy.clone(), rules, clock);
        self.policies.add(policy.clone(), life);
    }

    /// Returns the record of a policy's revisions; `None` if the policy is unknown.
    pub fn policy_record(&self, policy: &PolicyName) -> Option<LifecycleRecord> {
        self.policies.record(policy)
    }

    /// Continues a policy's revisions of another process, those that are loaded here.
    pub fn restore_policy(
        &mut self,
        policy: &PolicyName,
        record: LifecycleRecord,
        is_loaded: impl Fn(&Revision) -> bool,
        now: Instant,
    ) {
        let effects = &mut self.tables.effects;
        let follows = self.policies.restore(policy, record, is_loaded, now, effects);
        self.follow(policy, follows, now);
    }

    /// Another process decides about revisions until [`Gateway::release_rollouts`]: no step of a rollout is taken here.
    pub fn hold_rollouts(&mut self) {
        self.policies.hold();
    }

    /// Takes the steps of rollouts from now on.
    pub fn release_rollouts(&mut self, now: Instant) {
        self.policies.release();
        self.tables.effects.set_if_idle(Timer::Rollouts, now);
    }

    /// Returns true if another process decides about revisions.
    pub fn holds_rollouts(&self) -> bool {
        self.policies.are_held()
    }

    /// Follows steps of the wall clock. Changes from now on are stamped by this clock.
    pub fn handle_wall_clock(&mut self, clock: WallClock) {
        self.policies.set_clock(clock);
    }

    /// Returns the lifecycle of the policy; `None` if the policy is unknown.
    pub fn policy(&self, policy: &PolicyName) -> Option<&Lifecycle> {
        self.policies.get(policy)
    }

    /// Changes a policy's revisions and applies the consequences. Returns `None` if the policy is unknown.
    pub fn change_policy<T>(
        &mut self,
        policy: &PolicyName,
        now: Instant,
        change: impl FnOnce(&mut Lifecycle) -> T,
    ) -> Option<T> {
        let (result, follows) =
            self.policies.change(policy, now, &mut self.tables.effects, change)?;
        self.follow(policy, follows, now);
        Some(result)
    }

    fn follow(&mut self, policy: &PolicyName, effects: Vec<Effect>, now: Instant) {
        for effect in effects {
            match effect {
                Effect::Report(rollout) => {
                    self.judge_activation(&rollout, now);
                    self.tables.effects.push(GatewayEffect::Rollout(rollout));
                }
                Effect::RecordChanged => {
                    self.tables.effects.push(GatewayEffect::PolicyChanged(policy.clone()));
                }
                Effect::Unload(name) => {
                    let (unloaded, revision) = (policy.clone(), Arc::clone(&name));
                    self.tables.effects.push(GatewayEffect::Unload { policy: unloaded, revision });
                    self.ask_again(self.questions.of_revision(policy, &name), now);
                }
                Effect::CanaryChanged => {
                    self.degradation.restart_canary(policy);
                }
                Effect::DecidersChanged(before) => self.ask_about_all(policy, Some(&before), now),
            }
        }
    }

    /// Has a revision that replaced another one judged by the objectives of its scenarios.
    fn judge_activation(&mut self, report: &RolloutReport, now: Instant) {
        if report.outcome == RolloutOutcome::Activated
            && report.previous.is_some()
            && let Some(revision) = &report.revision
        {
            let Tables { slos, settings, nodes, .. } = &mut self.tables;
            let (policy, revision) = (report.policy.clone(), Arc::clone(revision));
            self.activations.begin(policy, revision, slos, settings, nodes_up(nodes), now);
        }
    }

    /// A revision answered differently from a fresh instance. After repeated mismatches it is removed, if it is a
    /// candidate or another revision can take over.
    pub fn handle_hidden_state(
        &mut self,
        policy: &PolicyName,
        revision: &Arc<str>,
        differs: Box<str>,
        answers: BreachCount,
    ) {
        let effects = &mut self.tables.effects;
        self.policies.handle_hidden_state(policy, revision, differs, answers, effects);
    }

    /// A policy was replaced. The new one is asked about every room of its scenarios.
    pub fn handle_policy_changed(&mut self, policy: &PolicyName, now: Instant) {
        self.ask_about_all(policy, None, now);
    }

    /// Asks a routing policy about its rooms; with `before`, only about rooms that have another revision now. The next tick of
    /// a degradation policy is about all its sessions.
    fn ask_about_all(&mut self, policy: &PolicyName, before: Option<&Revisions>, now: Instant) {
        if policy.hook != Hook::Routing {
            self.tables.sessions.wake_all(policy);
            return;
        }
        let is_concerned = |room: &&Room| {
            let (Some(before), Some(after)) = (before, self.policies.revisions(policy)) else {
                return true;
            };
            before.name_for(room.id().0) != after.name_for(room.id().0)
        };
        let placed = self.subjects().rooms_of(policy).filter(|room| room.is_placed());
        let concerned: Vec<RoomId> = placed.filter(is_concerned).map(Room::id).collect();
        for room in concerned {
            self.want_reroute(room, now);
        }
    }

    /// Removes harmful revisions, takes rollout steps that are due, and ends rollback windows.
    fn poll_rollouts(&mut self, now: Instant) {
        let Tables { slos, settings, nodes, effects, .. } = &mut self.tables;
        let with_canary = self.policies.sets_with_canary();
        let breaches = self.activations.judge(slos, settings, nodes_up(nodes), &with_canary, now);
        for breach in breaches {
            self.policies.activation_breached(breach, effects);
        }
        for harmful in self.policies.take_harmful() {
            self.change_policy(harmful.policy(), now, |life| harmful.remove_from(life, now));
        }
        for policy in self.policies.changing() {
            let follows = self.policies.poll(&policy, now, &mut self.tables.effects);
            self.follow(&policy, follows, now);
        }
    }

    /// Adds sessions after this one to the tallies of policies in the canary stage. Returns the session to continue
    /// after, until all are counted.
    pub fn tally(
        &self,
        tallies: &mut BTreeMap<PolicyName, ArmTally>,
        after: SessionId,
    ) -> Option<SessionId> {
        self.policies.tally(tallies, after, self.subjects())
    }

    /// The part of a policy's canary that was judged in its present step; `None` without a canary.
    pub fn judged(&self, policy: &PolicyName) -> Option<CohortSize> {
        self.policies.judged(policy)
    }

    /// Statistics of both cohorts of a policy during a canary, from a complete tally.
    pub fn cohorts(&self, policy: &PolicyName, tally: &ArmTally) -> Option<[ArmStatistics; 2]> {
        self.policies.cohorts(policy, tally)
    }
}

impl Tables {
    fn with_nodes<T>(&mut self, change: impl FnOnce(&mut NodeTable) -> T) -> T {
        let changed = change(&mut self.nodes);
        self.effects.take(&mut self.nodes);
        changed
    }

    /// Opens the session at the hops of its room's current and pending routes.
    fn open_session(&mut self, room: &mut Room, id: SessionId, now: Instant) {
        let open_by = now + self.settings.limits.open_within;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(offer) = session.open(open_by) else { return };
        self.effects.set_if_idle(Timer::OpenLate(id), open_by);
        self.effects.push(GatewayEffect::Install(session.installed(room), offer));
        room.await_session(id);
        for hop in room.hops_to_open() {
            self.open_at(room, id, hop, now);
        }
        self.regrant(room);
    }

    /// The room's sessions to be refused at once, instead of at their timeout: no session is live, the carrying hop took
    /// none of them and no other hop is pending.
    fn sessions_without_hop(&self, room: &Room) -> Vec<SessionId> {
        let on = room.stands_at(self.nodes.board()).filter(|_| room.heading().is_none());
        let Some(on) = on else { return Vec::new() };
        self.sessions_of(room, |session| session.is_opening() && !session.legs().contains(&on))
    }

    /// Sets the session live if it is open at the hop that carries its room.
    fn live_if_open(&mut self, room: &mut Room, id: SessionId, now: Instant) {
        let opening = self.sessions.get(&id).filter(|session| session.is_opening());
        let Some(session) = opening else { return };
        let is_open = |hop: &Hop| session.legs().is_open(hop);
        let Some(hop) = room.stands_at(self.nodes.board()).filter(is_open) else { return };
        let accepted = AcceptedOffer {
            session: id,
            room: room.id(),
            route: Arc::clone(room.cell()),
            plan: session.plan_now(),
            admitted_by: Decider::clone(session.admitted_by()),
            routed_by: room.placed_by().clone(),
        };
        let opened = CoreEvent::Opened {
            session: id,
            room: room.id(),
            room_name: Arc::clone(room.name()),
            scenario: Arc::clone(room.scenario()),
            hop,
            offered: session.offered(),
            admitted_by: Decider::clone(session.admitted_by()),
            routed_by: room.placed_by().clone(),
        };
        let took = now.saturating_duration_since(session.offered());
        self.slos.note_opened(room.scenario(), took, &self.settings, now);
        self.effects.event(opened);
        let ticks = self.degradation_policy(session.scenario());
        if let Some(offer) = self.sessions.go_live(id, ticks, now) {
            let (offer, result) = (offer.id, Ok(accepted));
            self.effects.push(GatewayEffect::Reply { offer, result });
            self.apply(room.note_live_changed(), room);
            self.settle_peer_caps(room);
            self.effects.notice(RoomNotice::Enrol(id));
        }
    }

    fn restore_video(&mut self, room: &Room, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let change = session.lift_voice_only();
        let (plan, is_installed) = (session.plan_now(), session.is_installed());
        self.apply_to_session(id, change);
        self.settle_peer_caps(room);
        if plan.arg(Op::VoiceOnly) > 0 {
            // A policy drops the video as well.
            return;
        }
        if is_installed {
            self.request_key_frames(room, &[id]);
        }
        let (op, arg, rung) = (Op::VoiceOnly, 0, plan.rung());
        let (room_name, by) = (Arc::clone(room.name()), Decider::Native);
        self.effects.event(CoreEvent::Degraded { session: id, room_name, op, arg, rung, by });
    }

    /// Requests key frames from the senders in a room for sessions that receive its video again.
    fn request_key_frames(&mut self, room: &Room, receivers: &[SessionId]) {
        let mut senders = self.sessions_of(room, Session::is_live);
        // No session receives its own media.
        senders.retain(|sender| *receivers != [*sender]);
        if !senders.is_empty() {
            self.effects.push(GatewayEffect::KeyFrame(senders));
        }
    }

    /// Sets the time of the policy's next review of the room.
    fn plan_review(&mut self, room: &mut Room, now: Instant) {
        self.apply(room.plan_review(self.began, now), room);
    }

    // The routes of rooms.

    /// A hop that is left now: its packets pass for a while.
    fn leaving(&self, hop: Hop, now: Instant) -> LeftHop {
        let until = now + self.settings.limits.leave_within;
        LeftHop { hop, until, lead: Duration::ZERO }
    }

    /// Notes that the room is away from its native place without anyone's choice, so that it returns when possible.
    fn note_away(&mut self, room: &mut Room, on: Option<NodeId>, now: Instant) {
        let is_away = on.is_some_and(|on| room.is_away(on, &self.nodes));
        self.apply(room.set_away(is_away), room);
        if is_away {
            self.effects.set_if_idle(Timer::Failback, now + LOOK_AGAIN);
        }
    }

    // Moves, make-before-break.

    /// Gives the room this route: its sessions are opened at the new hops, and then the route is published. Does nothing if
    /// `nodes` is empty.
    fn head_for(
        &mut self,
        room: &mut Room,
        nodes: &[NodeId],
        cause: MoveCause,
        by: Decider,
        now: Instant,
    ) {
        let hops = self.nodes.hops(nodes);
        if hops.is_empty() {
            return;
        }
        let by = self.deciders.intern(by);
        let stands = room.stands_at(self.nodes.board());
        self.apply(room.head_for(hops, cause, by, stands, now), room);
        self.open_heading(room, now);
        self.regrant(room);
        self.close_left_hops(room, now);
        self.publish_heading_if_open(room, now);
    }

    /// Opens the room's sessions at the hops for which it heads; the route waits for the awaited ones.
    fn open_heading(&mut self, room: &mut Room, now: Instant) {
        let Some(heading) = room.heading() else { return };
        let opened = if room.mode().opens_ahead() { heading.hops().len() } else { 1 };
        let (hops, awaited) = (heading.hops()[..opened].to_vec(), heading.awaited().clone());
        let mut waiting = Vec::new();
        for session in self.sessions_of(room, Session::is_installed) {
            for &hop in &hops {
                let leg = self.open_at(room, session, hop, now);
                if leg != Some(LegState::Open) && awaited.contains(&hop) {
                    waiting.push((session, hop));
                }
            }
        }
        room.await_openings(waiting);
    }

    /// Publishes the pending route once all sessions are open. Packets from the old hop still pass.
    fn publish_heading_if_open(&mut self, room: &mut Room, now: Instant) {
        if !room.is_opened() {
            return;
        }
        let from = room.stands_at(self.nodes.board());
        let damped = self.is_damped(room, now);
        let stranded = room.stranded();
        let Some(left) = from.or(stranded.map(|stranded| stranded.lost())) else { return };
        let Some(heading) = room.take_opened() else { return };
        let target = heading.target();
        if from == Some(target) {
            let (hops, by) = (heading.hops().to_vec(), Decider::clone(heading.by()));
            let left = room.route().left.as_deref().copied();
            self.apply(room.admit_at(&hops, left, &self.scales(room)), room);
            self.effects.event(CoreEvent::Rerouted { room: room.id(), hops, by });
            self.close_left_hops(room, now);
            for session in self.sessions_of(room, Session::is_opening) {
                self.live_if_open(room, session, now);
            }
            return;
        }
        if stranded.is_none() && **heading.by() != Decider::Operator && damped {
            self.end_damped_move(room, heading, now);
            return;
        }
        let (cause, started) = match stranded {
            Some(stranded) => (self.loss_of(stranded.lost().node), stranded.since()),
            None => (heading.cause(), heading.started()),
        };
        let by = Arc::clone(heading.by());
        let (placed_by, leaving) = (Arc::clone(&by), from.map(|from| self.leaving(from, now)));
        self.apply(room.place(placed_by, heading.hops(), leaving, &self.scales(room)), room);
        self.moved(room, MoveStep { cause, by, from: left, to: Some(target), started }, now);
        self.close_left_hops(room, now);
    }

    /// The room has moved too often to take the route that it headed for.
    fn end_damped_move(&mut self, room: &mut Room, heading: PendingRoute, now: Instant) {
        if let Decider::Policy { policy, .. } = &**heading.by() {
            let (policy, guard) = (policy.clone(), GuardRule::MovedTooOften);
            self.effects.event(CoreEvent::Guarded { policy, guard, times: 1 });
        }
        self.apply(room.end_move(heading, MoveOutcome::Damped, now), room);
        self.regrant(room);
        self.close_left_hops(room, now);
    }

    /// Completes a move: asks the room's senders for key frames, and sets sessions live that waited for this hop.
    fn moved(&mut self, room: &mut Room, step: MoveStep, now: Instant) {
        let MoveStep { cause, ref by, from, to, started } = step;
        let by = Decider::clone(by);
        let sessions = self.sessions_of(room, Session::is_live);
        if to.is_some() && cause.is_loss() {
            self.sessions.renew_silence(room, now);
        }
        if to.is_some() && !sessions.is_empty() {
            self.effects.push(GatewayEffect::KeyFrame(sessions.clone()));
        }
        self.apply(room.moved(step, self.settings.limits.moves_per_minute, now), room);
        // A move by a policy or an operator is deliberate.
        let unchosen = cause.is_loss() || matches!(cause, MoveCause::Link | MoveCause::Drain);
        self.note_away(room, to.map(|to| to.node).filter(|_| unchosen), now);
        if let Some(session) = sessions.first() {
            self.effects.notice(RoomNotice::Enrol(*session));
        }
        let (id, room_name) = (room.id(), Arc::clone(room.name()));
        let scenario = Arc::clone(room.scenario());
        let is_final = cause != MoveCause::Link || to.is_none() || {
            let (room_name, scenario) = (Arc::clone(&room_name), Arc::clone(&scenario));
            let (sessions, took) = (sessions.clone(), now.saturating_duration_since(started));
            let moved = PortMove { room: id, room_name, scenario, sessions, took };
            self.worklists.closed_ports.note_move(from, moved, now)
        };
        self.effects.event(CoreEvent::Moved {
            room: id,
            room_name,
            scenario,
            sessions,
            cause,
            by,
            from,
            to,
            started,
            is_final,
        });
        if !cause.is_loss() {
            self.effects.notice(RoomNotice::MoveCounted(id));
        }
        for session in self.sessions_of(room, Session::is_opening) {
            self.live_if_open(room, session, now);
        }
    }

    /// The room has reached its limit of moves: only the death of its node, or a hop that did not open a live session, may move it.
    fn is_damped(&mut self, room: &mut Room, now: Instant) -> bool {
        self.apply(room.forget_old_moves(now), room);
        if room.moves_noted() < self.settings.limits.moves_per_minute {
            return false;
        }
        let stands = room.stands_at(self.nodes.board());
        stands.is_none_or(|hop| self.sessions.are_all_at(room, hop))
    }

    // Hops that are lost: dead nodes, closed ports, legs that are not opened.

    /// Fails the room over now if it still waits for that, because something else is about to change it.
    fn catch_up(&mut self, room: &mut Room, now: Instant) {
        if self.worklists.failover.waits(room) {
            self.worklists.failover.unlist(room);
            self.leave_dead_hops(room, now);
        }
    }

    fn leave_dead_hops(&mut self, room: &mut Room, now: Instant) {
        for death in self.worklists.failover.deaths() {
            self.fail_over_room(room, death, now);
        }
    }

    /// Moves the room off the dead hop. If it is at another hop that died meanwhile, it fails over with that one.
    fn fail_over_room(&mut self, room: &mut Room, death: Death, now: Instant) {
        let dead = death.hop();
        if !room.leads_to(dead) {
            return;
        }
        let stood_there = room.holding().on == Some(dead.node);
        let route = room.route();
        self.apply(room.lose_hop(dead, MoveOutcome::TargetLost, now), room);
        if stood_there {
            let next = route.first_usable(self.nodes.board()).map(|(hop, _)| hop);
            let others = route.hops.iter().map(|(hop, _)| *hop);
            let others = others.filter(|hop| Some(*hop) != next && self.nodes.is_up(*hop));
            let hops: Vec<Hop> = next.into_iter().chain(others).collect();
            match next {
                Some(_) => self.apply(room.admit_at(&hops, None, &self.scales(room)), room),
                None => {
                    self.apply(room.strand(dead, death.at(), &hops, &self.scales(room)), room);
                    let due = self.effects.due(&Timer::Rescue);
                    let next = due.map_or(now, |due| due.min(now + RESCUE_WITHIN));
                    self.effects.set(Timer::Rescue, next);
                }
            }
            self.want_start(room, now);
            let (cause, by) = (self.loss_of(dead.node), self.author_of_loss(dead.node));
            let by = self.deciders.intern(by);
            let step = MoveStep { cause, by, from: dead, to: next, started: death.at() };
            self.moved(room, step, now);
        } else {
            self.apply(room.drop_spare(dead, &self.scales(room)), room);
        }
        self.close_left_hops(room, now);
        let first = room.route().hops.first().map(|(hop, _)| *hop);
        // A room at another dead hop fails over with that one.
        if room.stranded().is_some() || first.is_none_or(|hop| self.nodes.is_up(hop)) {
            self.publish_heading_if_open(room, now);
        }
        self.effects.want_reroute(room.id());
    }

    /// The cause of moves off this node, which is lost.
    fn loss_of(&self, node: NodeId) -> MoveCause {
        let is_ejected = self.nodes.get(node).is_some_and(|node| node.trust.ejected);
        if is_ejected { MoveCause::Ejected } else { MoveCause::NodeDown }
    }

    fn author_of_loss(&self, node: NodeId) -> Decider {
        match self.loss_of(node) {
            MoveCause::Ejected => Decider::Operator,
            _ => Decider::Native,
        }
    }

    fn port_closed(&mut self, room: &mut Room, session: SessionId, hop: Hop, now: Instant) {
        self.catch_up(room, now);
        if !room.leads_to(hop) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(hop.node)
            && node.hop() == hop
        {
            node.handle_port_closed(room.id(), now);
        }
        self.worklists.closed_ports.note(room.id(), hop, now);
        self.effects.set_if_idle(Timer::ClosedPorts, now + PORTS_EXPLAINED_WITHIN);
        self.drop_hop(room, hop, Strike::PortClosed, Some(session), now);
    }

    /// The hop does not carry the room although its node is up: it leaves the room's route if there is another hop.
    fn drop_hop(
        &mut self,
        room: &mut Room,
        hop: Hop,
        why: Strike,
        session: Option<SessionId>,
        now: Instant,
    ) {
        if !room.leads_to(hop) {
            return;
        }
        let stands = room.stands_at(self.nodes.board());
        let is_new = room.shunned(now).all(|shunned| shunned != hop);
        self.apply(room.keep_away(hop, now + KEEP_AWAY, now), room);
        self.apply(room.lose_hop(hop, MoveOutcome::NotOpened, now), room);
        if is_new {
            let (id, room_name) = (room.id(), Arc::clone(room.name()));
            self.effects.event(CoreEvent::HopRemoved { room: id, room_name, hop, why, session });
            self.effects.set_if_idle(Timer::RoomDue(id), now + KEEP_AWAY);
            self.effects.want_reroute(id);
        }
        if stands == Some(hop) {
            self.regrant(room);
            self.leave_carrying_hop(room, hop, why, now);
        } else {
            self.apply(room.drop_spare(hop, &self.scales(room)), room);
        }
        self.close_left_hops(room, now);
        self.publish_heading_if_open(room, now);
    }

    /// The carrying hop does not carry all of the room although its node is up, so the room leaves it. Packets from it
    /// still pass for a while.
    fn leave_carrying_hop(&mut self, room: &mut Room, hop: Hop, why: Strike, now: Instant) {
        if self.is_damped(room, now) {
            return;
        }
        let choice = self.node_choice(room, now);
        let (cause, by) = (MoveCause::Link, Decider::Native);
        let own = choice.own_next(Some(hop.node));
        if let Some(nodes) = own.filter(|_| room.mode().opens_ahead()) {
            let hops = self.nodes.hops(&nodes);
            let left = (why == Strike::FlowLost).then(|| self.leaving(hop, now));
            self.apply(room.admit_at(&hops, left, &self.scales(room)), room);
            let (to, by) = (hops.first().copied(), self.deciders.intern(by));
            self.moved(room, MoveStep { cause, by, from: hop, to, started: now }, now);
        } else if room.heading().is_none() {
            let nodes = choice.native_hops(&[]);
            if nodes.is_empty() {
                self.want_start(room, now);
                let (timer, again) = (Timer::RoomDue(room.id()), now + OPEN_AGAIN);
                if self.effects.due(&timer).is_none_or(|due| due > again) {
                    self.effects.set(timer, again);
                }
            }
            self.head_for(room, &nodes, cause, by, now);
        }
    }

    // Stranded rooms.

    /// Some node without a queue of openings has capacity.
    fn has_free_node(&self) -> bool {
        placement::has_free_node(1, &[], &self.nodes, &self.capacity)
    }

    /// Moves the room to a hop of its route where its sessions are open, which needs no queue. Returns true if it
    /// moved.
    fn take_own_hop(&mut self, room: &mut Room, now: Instant) -> bool {
        let Some(lost) = room.stranded().filter(|_| room.mode().opens_ahead()) else {
            return false;
        };
        let Some(nodes) = self.node_choice(room, now).own_next(None) else { return false };
        self.apply(room.stay(MoveOutcome::Superseded, now), room);
        let hops = self.nodes.hops(&nodes);
        self.apply(room.admit_at(&hops, None, &self.scales(room)), room);
        let (from, to) = (lost.lost(), hops.first().copied());
        let (cause, by) = (self.loss_of(from.node), self.deciders.intern(Decider::Native));
        self.moved(room, MoveStep { cause, by, from, to, started: lost.since() }, now);
        self.close_left_hops(room, now);
        self.effects.want_reroute(room.id());
        true
    }

    /// Returns the nodes for which the room heads, or none if no node has capacity. `None`: every node with capacity for the
    /// room has a full queue of openings.
    fn rescue(&mut self, room: &mut Room, now: Instant) -> Option<Vec<NodeId>> {
        if room.stranded().is_none() || room.heading().is_some() {
            return Some(Vec::new());
        }
        let (choice, busy) = (self.node_choice(room, now), self.nodes.busy());
        let mut nodes = choice.native_hops_but(&[], &busy);
        if nodes.is_empty() && !choice.native_hops(&[]).is_empty() {
            return None;
        }
        if nodes.is_empty() {
            nodes = choice.hops_of_reserves(&busy);
        }
        if nodes.is_empty() {
            nodes = self.place_with_less(room, &busy, now);
        }
        if nodes.is_empty() {
            self.want_start(room, now);
        }
        self.head_for(room, &nodes, MoveCause::NodeDown, Decider::Native, now);
        Some(nodes)
    }

    /// The room lost its node, must leave it, or found none. In cold mode this starts the node nearest to its region,
    /// if some session in the room is not silent.
    fn want_start(&mut self, room: &Room, now: Instant) {
        if room.mode() != RedundancyMode::Cold {
            return;
        }
        let is_heard = |it: &Session| !self.sessions.is_silent(it, now);
        if room.sessions().iter().filter_map(|id| self.sessions.get(id)).any(is_heard) {
            self.with_nodes(|nodes| nodes.start_nearest(room.region(), now));
        }
    }

    // Moves off hops that work: asked for by policies, operators, loss, failback and changed modes.

    /// The room's policy asked for a review, or the room has avoided a refusing hop long enough. Requests a reroute and opens
    /// missing sessions, unless the review can wait: then the route has not changed since the sessions were opened there.
    fn room_due(&mut self, room: &mut Room, now: Instant) {
        let rooms = self.worklists.placed();
        if self.reviews.can_wait(room, || self.room_measures(room), rooms, now) {
            return self.plan_review(room, now);
        }
        self.catch_up(room, now);
        if !room.is_placed() {
            return;
        }
        let hops = room.hops_to_open();
        for session in self.sessions_of(room, Session::is_installed) {
            for &hop in &hops {
                self.open_at(room, session, hop, now);
            }
        }
        self.effects.want_reroute(room.id());
    }

    /// The room leaves a node that loses more than others, if it stands there and a sound node has capacity.
    fn leave_lossy_node(&mut self, room: &mut Room, node: NodeId, now: Instant) {
        self.catch_up(room, now);
        let stands = room.stands_at(self.nodes.board());
        let stays = stands.is_some_and(|hop| hop.node == node) && room.heading().is_none();
        if !stays || self.is_damped(room, now) {
            return;
        }
        let nodes = self.node_choice(room, now).native_hops(&[]);
        let sound = |node: &NodeId| self.nodes.get(*node).is_some_and(Node::is_sound);
        if nodes.first().is_some_and(|first| *first != node && sound(first)) {
            self.head_for(room, &nodes, MoveCause::Link, Decider::Native, now);
        }
    }

    /// Moves the room back make-before-break if its limits allow it and a node has capacity.
    fn send_back(&mut self, room: &mut Room, now: Instant) -> bool {
        self.catch_up(room, now);
        if room.heading().is_some() {
            return false;
        }
        let (region, stands) = (room.region(), room.stands_at(self.nodes.board()));
        if stands.is_some_and(|hop| !room.is_away(hop.node, &self.nodes)) {
            self.apply(room.set_away(false), room);
            return false;
        }
        let abroad = stands.is_some_and(|hop| self.nodes.region_of(hop.node) != region);
        let home = FailureDomain::Region(region);
        let shut = abroad && !self.capacity.domain_breakers.admits(home, room.id().0);
        let failback = self.worklists.away.failback(region);
        let by = match failback {
            Failback::Forbid => return false,
            Failback::Auto if shut || self.is_damped(room, now) => return false,
            Failback::Auto => Decider::Native,
            Failback::Force => Decider::Operator,
        };
        let forced = failback == Failback::Force;
        let trusted = |node: &Node| match node.health() {
            Health::Up => forced || !node.loses(),
            Health::Wary => forced,
            Health::Suspect | Health::Down | Health::Cold => false,
        };
        let unfit = |node: &&Node| {
            room.is_away(node.id, &self.nodes)
                || !trusted(node)
                || self.nodes.pace(node.id).is_busy()
        };
        let but: Vec<NodeId> = self.nodes.iter().filter(unfit).map(|node| node.id).collect();
        if stands.is_none() || but.len() == self.nodes.count() {
            return false;
        }
        let choice = self.node_choice(room, now);
        let Some(home) = choice.native_hops_but(&[], &but).first().copied() else {
            return false;
        };
        let nodes = choice.native_hops(&[home]);
        self.head_for(room, &nodes, MoveCause::Failback, by, now);
        true
    }

    /// Applies the scenario's current mode to the room: spares are opened before packets may take them, and closed when
    /// they may not.
    fn change_mode(&mut self, room: &mut Room, now: Instant) {
        self.catch_up(room, now);
        let Some(scenario) = self.settings.scenarios.get(room.scenario()) else { return };
        let mode = scenario.mode;
        self.sessions.renew_silence(room, now);
        self.apply(room.take_mode(mode), room);
        if room.is_placed() {
            let unchosen = *room.placed_by() == Decider::Native;
            self.renew(room, ModeChange::Scenario, now);
            self.publish_heading_if_open(room, now);
            self.effects.want_reroute(room.id());
            let stands = room.stands_at(self.nodes.board());
            if let Some(hop) = stands.filter(|_| unchosen) {
                self.note_away(room, Some(hop.node), now);
            }
        }
    }

    /// Applies another mode to the same hops. Hops behind the first that were not opened ahead are removed, since
    /// packets may not take a hop that is not open; a reroute adds spares again. Packets from the second hop of a
    /// hitless room pass for a moment.
    fn renew(&mut self, room: &mut Room, why: ModeChange, now: Instant) {
        let before = room.route();
        let mut hops: Vec<Hop> = before.hops.iter().map(|(hop, _)| *hop).collect();
        if room.mode().opens_ahead() && !before.mode.opens_ahead() {
            hops.truncate(1);
        }
        let is_left = |twin| {
            room.mode_over(&hops) != RedundancyMode::Hitless && room.holding().on != Some(twin)
        };
        let twin = room.holding().twin().filter(|twin| is_left(*twin));
        let twin = hops.iter().find(|hop| Some(hop.node) == twin);
        let left = before.left.as_deref().filter(|left| now < left.until).copied();
        let left = left.or(twin.map(|twin| self.leaving(*twin, now)));
        self.apply(room.publish(&hops, left, &self.scales(room)), room);
        self.close_left_hops(room, now);
        let (from, to) = (before.mode, room.route().mode);
        if from != to {
            let room_name = Arc::clone(room.name());
            self.effects.event(CoreEvent::Mode { room: room.id(), room_name, from, to, why });
            let kept = room.kept(RedundancyMode::Hitless);
            kept.into_iter().for_each(|kept| self.effects.event(kept));
        }
    }

    fn copies_differ(&mut self, room: &mut Room, hops: [Hop; 2], now: Instant) {
        self.catch_up(room, now);
        let (route, holding) = (room.route(), room.holding());
        let carries =
            |hop: &Hop| route.holds(*hop) && [holding.on, holding.twin()].contains(&Some(hop.node));
        if route.mode == RedundancyMode::Hitless
            && hops.iter().all(carries)
            && let Some(change) = room.note_unalike(hops)
        {
            self.apply(change, room);
            self.renew(room, ModeChange::CopiesDiffer { hops }, now);
        }
    }

    fn move_by_operator(
        &mut self,
        room: &mut Room,
        to: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.catch_up(room, now);
        if !room.is_placed() {
            return Err(Impossible::NoSuchRoom);
        }
        let node = self.nodes.get(to).ok_or(Impossible::NoSuchNode)?;
        if room.stands_at(self.nodes.board()).is_some_and(|hop| hop.node == to) {
            return Err(Impossible::AlreadyThere);
        }
        let choice = self.node_choice(room, now);
        if !node.takes_rooms() || !choice.fits(to) {
            return Err(Impossible::NodeUnfit);
        }
        let nodes = choice.native_hops(&[to]);
        self.head_for(room, &nodes, MoveCause::Manual, Decider::Operator, now);
        Ok(())
    }

    fn leave_draining_node(&mut self, room: &mut Room, node: NodeId, now: Instant) {
        self.catch_up(room, now);
        let stands = room.stands_at(self.nodes.board()).map(|hop| hop.node);
        let by = match self.nodes.get(node).map(|node| node.trust) {
            Some(trust) if trust.draining || trust.removed => Decider::Operator,
            Some(trust) if trust.elastic.stopping => Decider::Native,
            Some(_) | None => Decider::Node,
        };
        if by == Decider::Node && stands == Some(node) && self.is_damped(room, now) {
            return;
        }
        let choice = self.node_choice(room, now);
        let heads_there =
            |heading: &PendingRoute| heading.hops().iter().any(|hop| hop.node == node);
        if room.heading().is_some_and(|heading| !heads_there(heading)) {
            return;
        }
        let nodes = if stands == Some(node) {
            let own = choice.own_next(Some(node)).filter(|_| room.mode().opens_ahead());
            choice.native_hops(&own.unwrap_or_default())
        } else {
            let standing = room.nodes_of_route().into_iter();
            let stays: Vec<NodeId> = standing.filter(|on| *on != node).collect();
            match stands {
                Some(_) => choice.native_hops(&stays),
                // The rescue will find a place, and knows that the node takes no rooms.
                None => Vec::new(),
            }
        };
        if nodes.is_empty() {
            self.want_start(room, now);
        }
        self.head_for(room, &nodes, MoveCause::Drain, by, now);
    }

    // Legs, at the pace of each node.

    /// Opens the room's session at a hop as soon as the node's window allows it, unless this was requested before. Returns the
    /// state of the leg.
    fn open_at(&mut self, room: &Room, id: SessionId, hop: Hop, now: Instant) -> Option<LegState> {
        let session = self.sessions.get(&id)?;
        if let Some(leg) = session.legs().get(&hop) {
            return Some(leg);
        }
        // By the need of the room; calls before streams.
        let class = room.opening_class(hop, session.is_live());
        let waiting = self.sessions.get_mut(&id)?.legs_mut().wait(hop, room.call());
        let pace = self.nodes.pace_mut(hop.node);
        let turn = (class, Reverse(room.priority()), pace.drawn());
        let goes = pace.begin(turn, id, hop);
        if goes { self.open_now(id, hop, room.call(), now) } else { Some(waiting) }
    }

    /// `call`: the number of the session's room at nodes.
    fn open_now(
        &mut self,
        id: SessionId,
        hop: Hop,
        call: RoomId,
        now: Instant,
    ) -> Option<LegState> {
        let until = now + self.settings.limits.open_within;
        self.sessions.get_mut(&id)?.legs_mut().begin(hop, until);
        self.effects.push(GatewayEffect::Open { session: id, room: call, hop });
        self.effects.set_if_idle(Timer::OpenLate(id), until);
        Some(LegState::Opening(until))
    }

    /// An opening at the node ended: opens the next waiting sessions, then tries stranded rooms.
    fn open_next(&mut self, node: NodeId, now: Instant) {
        while let Some((id, hop)) = self.nodes.pace_mut(node).start_next() {
            let leg = self.sessions.get(&id).and_then(|session| session.legs().get(&hop));
            if let Some(LegState::Waiting { call }) = leg {
                self.open_now(id, hop, call, now);
            } else {
                self.nodes.pace_mut(node).end();
            }
        }
        if !self.nodes.pace(node).is_busy() && self.worklists.stranded.take_free_queue() {
            self.effects.set(Timer::Rescue, now);
        }
    }

    fn leg_opened(&mut self, before: LegState, hop: Hop, now: Instant) {
        let LegState::Opening(until) = before else { return };
        let in_time = until - self.settings.limits.open_within + ANSWERED_IN_TIME;
        let pace = self.nodes.pace_mut(hop.node);
        pace.end();
        if now <= in_time {
            pace.faster();
        } else {
            pace.slower(now);
        }
        self.capacity.note_opening(hop.node, &self.nodes, true);
    }

    /// The driver failed to open the leg, or was too late.
    fn leg_failed(&mut self, leg: LegState, hop: Hop, now: Instant) {
        if let LegState::Opening(_) = leg {
            let pace = self.nodes.pace_mut(hop.node);
            pace.end();
            pace.slower(now);
            self.capacity.note_opening(hop.node, &self.nodes, false);
        }
    }

    /// Ends a leg that is no longer needed; the driver closes it if it was asked to open it.
    fn leave_leg(&mut self, id: SessionId, LeftLeg { hop, state }: LeftLeg) {
        let pace = self.nodes.pace_mut(hop.node);
        match state {
            LegState::Waiting { .. } => return pace.forget(id, hop),
            LegState::Opening(_) => pace.end(),
            LegState::Open => {}
        }
        self.effects.push(GatewayEffect::CloseAt { session: id, hop });
    }

    /// Closes the room's sessions at hops that are in none of its routes any more.
    fn close_left_hops(&mut self, room: &Room, now: Instant) {
        let used = room.hops_in_use(now);
        let mut left = Vec::new();
        for session in room.sessions().iter() {
            let Some(session) = self.sessions.get_mut(session) else { continue };
            let legs = session.legs_mut().leave_unused(|hop| used.contains(hop)).into_iter();
            left.extend(legs.map(|leg| (session.id(), leg)));
        }
        for (session, leg) in &left {
            self.leave_leg(*session, *leg);
        }
        for (_, leg) in left {
            self.open_next(leg.hop.node, now);
        }
    }

    // Shares: when capacity is short, sessions that obey caps get smaller ones before new sessions are refused.

    /// The native placement. If no node has enough capacity, the room's sessions are reduced to smaller shares.
    fn place_with_less(&mut self, room: &Room, but: &[NodeId], now: Instant) -> Vec<NodeId> {
        let sessions = self.sessions_of(room, Session::is_admitted);
        let before = self.sessions.shares(&sessions);
        for permille in STEPS {
            if self.sessions.reduce(&sessions, permille) {
                let nodes = self.node_choice(room, now).native_hops_but(&[], but);
                if !nodes.is_empty() {
                    for session in self.sessions.with_other_shares(&before) {
                        self.report_share(room, session, now);
                    }
                    return nodes;
                }
            }
        }
        self.sessions.restore_shares(&before);
        Vec::new()
    }

    /// Frees capacity for the new session at its room's current and pending nodes, with smaller shares if necessary.
    fn make_room_for(&mut self, room: &Room, id: SessionId, now: Instant) -> bool {
        if self.fits_its_room(room, id, now) {
            return true;
        }
        let before = self.sessions.shares(&[id]);
        for permille in STEPS {
            if self.sessions.reduce(&[id], permille) && self.fits_its_room(room, id, now) {
                self.report_share(room, id, now);
                return true;
            }
        }
        self.sessions.restore_shares(&before);
        false
    }

    fn fits_its_room(&self, room: &Room, id: SessionId, now: Instant) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|it| self.node_choice(room, now).takes_session(it.kbps()))
    }

    fn report_share(&mut self, room: &Room, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (plan, change) = (session.plan_now(), session.reshared(now));
        self.apply_to_session(id, change);
        let (op, arg, rung) = (Op::Cap, u64::from(plan.arg(Op::Cap)), plan.rung());
        let (room_name, by) = (Arc::clone(room.name()), Decider::Native);
        self.effects.event(CoreEvent::Degraded { session: id, room_name, op, arg, rung, by });
        self.settle_peer_caps(room);
    }

    fn raise_share(&mut self, room: &mut Room, id: SessionId, now: Instant) {
        let Some(more) = self.sessions.get(&id).and_then(Session::raise_adds) else { return };
        if self.node_choice(room, now).leaves_room_for(more) {
            self.sessions.get_mut(&id).into_iter().for_each(Session::raise);
            self.regrant(room);
            self.report_share(room, id, now);
        }
    }

    /// In a room of two, each session receives what the other sends, so the limit of either limits what the other sends. In a larger
    /// room, senders are not limited for one listener.
    fn settle_peer_caps(&mut self, room: &Room) {
        let live = self.sessions_of(room, Session::is_live);
        for (session, change) in self.sessions.settle_peer_caps(&live) {
            self.apply_to_session(session, change);
        }
    }

    // Rooms with their sessions and scenarios.

    fn sessions_of(&self, room: &Room, matches: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        let sessions = room.sessions().iter().copied();
        sessions.filter(|id| self.sessions.get(id).is_some_and(&matches)).collect()
    }

    /// The need of a room, by its sessions and its scenario.
    fn need_of(&self, room: &Room) -> RoomNeed<'_> {
        let scenario = self.settings.scenarios.get(room.scenario());
        RoomNeed::new(self.sessions.load(room.sessions()), scenario)
    }

    /// The figures of a room that routing policies read, beside its age and the burn rate of its scenario.
    fn room_measures(&self, room: &Room) -> Measures {
        let mut measures = Measures::default();
        measures.set(Metric::Sessions, room.sessions().len() as u64);
        let sessions = || room.sessions().iter().filter_map(|id| self.sessions.get(id));
        let worst = [
            Metric::LossUp,
            Metric::LossDown,
            Metric::JitterUp,
            Metric::JitterDown,
            Metric::RttClient,
        ];
        for metric in worst {
            if let Some(value) = sessions().filter_map(|session| session.measured(metric)).max() {
                measures.set(metric, u64::from(value));
            }
        }
        measures
    }

    /// The choice of nodes for a room.
    fn node_choice<'a>(&'a self, room: &'a Room, now: Instant) -> NodeChoice<'a> {
        NodeChoice::new(room, self.need_of(room), &self.nodes, &self.capacity, now)
    }

    /// The degradation policy of a scenario that binds one.
    fn degradation_policy(&self, scenario: &str) -> Option<PolicyName> {
        let scenario = self.settings.scenarios.get(scenario)?;
        scenario.binds(Hook::Degradation).then(|| scenario.policy(Hook::Degradation))
    }

    // Consequences.

    /// The facts by which a room is weighed.
    fn scales(&self, room: &Room) -> RoomScales<'_> {
        let takes_reserves = !self.worklists.stranded.go_before(room.id());
        let (ledger, leave_within) = (&self.capacity.ledger, self.settings.limits.leave_within);
        RoomScales::new(self.need_of(room), takes_reserves, &self.nodes, ledger, leave_within)
    }

    /// Weighs the room again, because its sessions, its target or the capacity of its nodes changed.
    fn regrant(&mut self, room: &mut Room) {
        self.apply(room.regrant(&self.scales(room)), room);
    }

    /// Applies the consequences of a room's change to the ledger, the lists of rooms, the marks of changed records, the events
    /// and the timers.
    fn apply(&mut self, change: RoomChange, room: &mut Room) {
        if change.is_recorded {
            self.worklists.changed.note(room.id());
        }
        change.move_ended.into_iter().for_each(|ended| self.effects.event(ended));
        if change.is_first_route {
            self.worklists.note_placed();
        }
        change.capacity.into_iter().for_each(|capacity| self.capacity.ledger.apply(capacity));
        if let Some(protection) = change.protection {
            self.worklists.set_protection(room.id(), protection);
        }
        if let Some(rescue) = change.rescue {
            self.worklists.stranded.apply(room, rescue);
        }
        if let Some(is_away) = change.away {
            self.worklists.away.set(room, is_away);
        }
        if change.hops_differ {
            self.worklists.by_node.relist(room);
        }
        change.kept.into_iter().for_each(|kept| self.effects.event(kept));
        if let Some(until) = change.leaves_until {
            self.effects.set(Timer::LeavingEnds(room.id()), until);
        }
        if let Some(due) = change.review_at {
            self.effects.set(Timer::RoomDue(room.id()), due);
        }
    }

    /// Applies the consequences of a session's change to the next tick, the list of reduced sessions and its worker.
    fn apply_to_session(&mut self, id: SessionId, change: SessionChange) {
        self.sessions.wake(id);
        match change.share {
            Some(ShareChange::ReducedAt(since)) => self.capacity.reduced.set(id, Some(since)),
            Some(ShareChange::Whole) => self.capacity.reduced.set(id, None),
            None => {}
        }
        if let Some(PlanInForce { plan, limits }) = change.plan {
            self.effects.push(GatewayEffect::Plan { session: id, plan, limits });
        }
    }
}

/// The policies that these scenarios bind.
fn bound_policies(scenarios: &BTreeMap<Arc<str>, Scenario>) -> BTreeSet<PolicyName> {
    let bound = scenarios.values().flat_map(|it| {
        let hooks = Hook::ALL.into_iter().filter(move |hook| it.binds(*hook));
        hooks.map(move |hook| it.policy(hook))
    });
    bound.collect()
}

/// The nodes that are up and not drained, as by an operator: without one, offers may be refused.
fn nodes_up(nodes: &NodeTable) -> usize {
    let is_up = |node: &&Node| node.health() == Health::Up && node.takes_rooms();
    nodes.iter().filter(is_up).count()
}

#[cfg(test)]
pub(crate) mod tests;
