//! The state machine: `handle_*` takes inputs, `poll_*` returns outputs and the next timeout.
//!
//! After every input, drain the outputs. This module dispatches inputs to the parts; `answers` applies policy answers.

mod answers;
mod revisions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_breakers::WINDOW;
use evenkeel_model::{
    Arm, Board, BreakerMode, ClientGroup, CloseReason, CoreEvent, CoreSettings, FailureDomain,
    FlowCounts, Hook, Hop, Impossible, Measures, NodeId, NotStarted, PluginFault, RegionId, RoomId,
    Scenario, SessionId, Stamp, ZoneId,
};
use evenkeel_nodes::{NodeEvidence, NodeTable, OpeningWindow};
use evenkeel_slo::SloTable;

use crate::capacity::Capacity;
use crate::diagnosis::Diagnosis;
use crate::effects::{Effects, GatewayEffect, RoomNotice, Timer};
use crate::policy::policies::Policies;
use crate::policy::questions::{FaultSubject, QuestionsInFlight};
use crate::policy::subjects::{SubjectHistory, Subjects};
use crate::quality::Quality;
use crate::record::{Failback, GatewayRecord, HopMap, RestoreError};
use crate::records::Records;
use crate::rooms::RoomTable;
use crate::rooms::moves::{LOST_EVERY, Moves};
use crate::rooms::node_controller::NodeController;
use crate::rooms::openings::{NotOpened, Openings};
use crate::rooms::placement::CoreTables;
use crate::rooms::reroutes::Reroutes;
use crate::rooms::room::{MoveUnderWay, Room};
use crate::rooms::routes::{Routes, WEIGH_EVERY};
use crate::rooms::stops::Stops;
use crate::sessions::SessionTable;
use crate::ticks::{DegradationTurns, Ticks};
use crate::views::{TableSizes, Views};

/// Interval between two sweeps for silent sessions, and between two parts of one sweep.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_GOES_ON: Duration = Duration::from_millis(50);

/// The state machine of one gateway.
#[derive(Debug)]
pub struct Gateway {
    tables: CoreTables,
    quality: Quality,
    diagnosis: Diagnosis,
    degradation: DegradationTurns,
    questions: QuestionsInFlight,
    subject_history: SubjectHistory,
    policies: Policies,
    shutting_down: bool,
    finished: bool,
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
        let tables = CoreTables {
            sessions: SessionTable::new(),
            rooms: RoomTable::new(&settings, now),
            nodes,
            capacity: Capacity::new(&settings, now),
            slos: SloTable::new(now),
            effects,
            settings,
        };
        Gateway {
            tables,
            quality: Quality::default(),
            diagnosis: Diagnosis::new(now),
            degradation: DegradationTurns::default(),
            questions: QuestionsInFlight::new(now),
            subject_history: SubjectHistory::default(),
            policies: Policies::default(),
            shutting_down: false,
            finished: false,
        }
    }

    /// Passes the notices of `act` to the other parts.
    fn route<T>(&mut self, now: Instant, act: impl FnOnce(&mut CoreTables) -> T) -> T {
        let done = act(&mut self.tables);
        self.take_notices(now);
        done
    }

    fn ticks(&mut self) -> Ticks<'_> {
        Ticks {
            tables: &mut self.tables,
            degradation: &mut self.degradation,
            policies: &mut self.policies,
            questions: &mut self.questions,
            subject_history: &self.subject_history,
        }
    }

    fn with_nodes<T>(&mut self, change: impl FnOnce(&mut NodeTable) -> T) -> T {
        let changed = change(&mut self.tables.nodes);
        self.tables.effects.take(&mut self.tables.nodes);
        changed
    }

    fn judge<T>(&mut self, act: impl FnOnce(&mut Policies, Subjects, &mut Effects) -> T) -> T {
        let Gateway {
            tables: CoreTables { settings, sessions, rooms, effects, .. }, policies, ..
        } = self;
        act(policies, Subjects { settings, sessions, rooms }, effects)
    }

    fn enrol(&mut self, session: SessionId) {
        self.judge(|policies, subjects, _| policies.enrol(session, subjects));
    }

    fn take_notices(&mut self, now: Instant) {
        while let Some(notice) = self.tables.effects.notices.pop_front() {
            let CoreTables { settings, rooms, effects, .. } = &mut self.tables;
            match notice {
                RoomNotice::Reroute(room) => self.want_reroute(room, now),
                RoomNotice::Enrol(session) => self.enrol(session),
                RoomNotice::MoveCounted(room) => {
                    if let Some(room) = rooms.get_mut(&room) {
                        self.policies.weigh_moves(room, settings, now, effects);
                    }
                }
                RoomNotice::Ended { session, room, scenario } => {
                    let ended = FaultSubject::Session(session);
                    self.policies.leave(ended, &scenario, settings);
                    self.quality.silent.remove(&(room, session));
                    self.degradation.climbs.remove(&session);
                    self.diagnosis.end_session(session, &mut self.tables.effects);
                    self.subject_history.forget(ended);
                }
                RoomNotice::Dissolved { room, scenario } => {
                    self.policies.leave(FaultSubject::Room(room), &scenario, settings);
                    self.subject_history.forget(FaultSubject::Room(room));
                    self.questions.forget_room(room);
                    self.diagnosis.forget_room(room);
                }
            }
        }
        if self.shutting_down && self.tables.sessions.is_empty() && !self.finished {
            self.finished = true;
            self.tables.effects.cancel(&Timer::ShutdownEnds);
            self.tables.effects.push(GatewayEffect::Finished);
        }
    }

    fn subjects(&self) -> Subjects<'_> {
        let CoreTables { settings, sessions, rooms, .. } = &self.tables;
        Subjects { settings, sessions, rooms }
    }

    /// Read-only views of sessions, rooms, nodes and regions.
    pub fn views(&self) -> Views<'_> {
        let Gateway { tables, subject_history, diagnosis, .. } = self;
        Views { tables, subject_history, diagnosis }
    }

    /// Seeds the jitter of retry times. The default seed is 0.
    pub fn handle_seed(&mut self, seed: u64) {
        self.tables.sessions.rng = fastrand::Rng::with_seed(seed);
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
        self.tables.effects.timers.next_at()
    }

    /// Handles all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.tables.effects.timers.pop(now) {
            self.handle_timer(timer, now);
            self.take_notices(now);
        }
    }

    fn handle_timer(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Probe(node) => self.with_nodes(|nodes| nodes.probe(node, now)),
            Timer::Canary(node) => self.with_nodes(|nodes| nodes.send_canary(node, now)),
            Timer::AskLate(ask) => self.handle_answer(ask, Err(PluginFault::Late), now),
            Timer::OpenLate(id) => Openings(&mut self.tables).open_late(id, now),
            Timer::LeavingEnds(id) => Routes(&mut self.tables).close_left_hops(id, now),
            Timer::RoomDue(id) => Moves(&mut self.tables).room_due(id, now),
            // Rooms get new spares once all rooms of dead nodes have moved.
            Timer::Reroute(_) if self.fails_over() => {
                self.tables.effects.set(timer, now + LOST_EVERY);
            }
            Timer::Reroute(policy) => {
                Arm::ALL.into_iter().for_each(|arm| self.ask_reroute(&policy, arm, now));
            }
            Timer::Tick(policy) => self.ask_tick(&policy, now),
            Timer::Drain(node) => NodeController(&mut self.tables).drain(node, now),
            Timer::Forget(node) => {
                if NodeController(&mut self.tables).forget_node(node, now) {
                    self.quality.forget_node(node);
                }
            }
            Timer::Failover => Moves(&mut self.tables).fail_over_some(now),
            Timer::Rescue => Moves(&mut self.tables).rescue_stranded(now),
            Timer::Change => Reroutes(&mut self.tables).change_some(now),
            Timer::StartLate(node) => {
                self.with_nodes(|nodes| nodes.start_failed(node, NotStarted::Late, now));
            }
            Timer::Failback => Reroutes(&mut self.tables).failback(now),
            Timer::Breakers => {
                Routes(&mut self.tables).weigh_breakers(now);
                Openings(&mut self.tables).weigh_client_breakers(now);
                Stops(&mut self.tables).weigh(now);
            }
            Timer::ClosedPorts => Moves(&mut self.tables).settle_port_moves(now),
            Timer::Cohorts => self.quality.weigh_cohorts(&mut self.tables, now),
            Timer::Flows => self.quality.judge_flows(&mut self.tables, now),
            Timer::Judge => self.policies.turn_judges(now, &mut self.tables.effects),
            Timer::Rollouts => self.poll_rollouts(now),
            Timer::Sweep => self.sweep(now),
            Timer::Weigh => Routes(&mut self.tables).weigh_unreserved(now),
            Timer::ShutdownEnds => Openings(&mut self.tables).close_all(CloseReason::Shutdown, now),
        }
    }

    /// Returns the records as they change.
    pub fn records(&mut self) -> Records<'_> {
        let Gateway { tables, policies, questions, .. } = self;
        Records { tables, policies, questions }
    }

    /// All live sessions with their rooms, and the state of nodes and regions.
    pub fn record(&mut self, now: Instant) -> GatewayRecord {
        self.records().all(now)
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
        self.tables.effects.notices.clear();
        self.tables.rooms.forget_restored(&mut self.tables.effects);
        self.tables.sessions.forget_restored();
        self.with_nodes(NodeTable::forget_restored);
        self.tables.capacity.reduced.clear();
        self.tables.capacity.client_breakers.forget_sessions();
        self.tables.slos.forget_restored(&mut self.policies.activations);
    }

    /// Decides about the restored sessions, while their packets are served: weighs and publishes the routes, and moves
    /// rooms off a node that is down or not listed here.
    pub fn settle_restored(&mut self, now: Instant) {
        self.records().settle_restored(now);
        self.take_notices(now);
    }

    /// Admits no more sessions. The gateway finishes when the last session ends, or after this time.
    pub fn handle_shutdown(&mut self, within: Duration, now: Instant) {
        if self.finished {
            return;
        }
        if !self.shutting_down {
            self.shutting_down = true;
            self.tables.nodes.start_no_more();
            self.tables.effects.event(CoreEvent::ShuttingDown);
        }
        self.tables.effects.set(Timer::ShutdownEnds, now + within);
        self.take_notices(now);
    }

    fn sweep(&mut self, now: Instant) {
        let (silent, goes_on) = self.tables.sessions.sweep(now);
        self.route(now, |tables| Openings(tables).close_silent(silent, now));
        let CoreTables { settings, sessions, rooms, .. } = &mut self.tables;
        self.policies.forget_older_states(goes_on, settings, sessions, rooms);
        self.tables.sessions.swept_last = goes_on.unwrap_or(SessionId(0));
        self.diagnosis.forget_idle(&mut self.tables, now);
        self.questions.end_old_failures(now, &mut self.tables.effects);
        let after = if goes_on.is_some() { SWEEP_GOES_ON } else { SWEEP_EVERY };
        self.tables.effects.set(Timer::Sweep, now + after);
    }

    /// Changes the named scenarios, and adds those that are new. Other scenarios stay. Rooms take
    /// the change in batches without packet loss; affinity applies to new rooms.
    pub fn handle_scenarios(&mut self, scenarios: &BTreeMap<Arc<str>, Scenario>, now: Instant) {
        self.route(now, |tables| Reroutes(tables).take_scenarios(scenarios, now));
    }

    /// The driver opened the session at a hop, or failed. Ignored if [`GatewayEffect::CloseAt`] gave up the hop meanwhile.
    pub fn handle_opened(
        &mut self,
        id: SessionId,
        hop: Hop,
        result: Result<(), NotOpened>,
        now: Instant,
    ) {
        self.route(now, |tables| Openings(tables).handle_opened(id, hop, result, now));
    }

    /// Ends a session through the API, or has ended it before.
    pub fn handle_close(&mut self, id: SessionId, now: Instant) -> Result<(), Impossible> {
        if !self.tables.sessions.contains_key(&id) {
            // The request may be a repetition: the session has ended.
            let next = self.tables.sessions.next_id();
            let had = next.group() < id && id < next;
            return if had { Ok(()) } else { Err(Impossible::NoSuchSession) };
        }
        self.route(now, |tables| Openings(tables).close(id, CloseReason::Requested, now));
        Ok(())
    }

    /// The data plane ended this session.
    pub fn handle_session_end(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        self.route(now, |tables| Openings(tables).close(id, reason, now));
    }

    /// Moves a room for an operator, make-before-break. Fails if the room is already there, or the node cannot take it.
    pub fn handle_move(
        &mut self,
        name: &Arc<str>,
        to: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.route(now, |tables| Reroutes(tables).handle_move(name, to, now))
    }

    /// The kernel reports that no process listens at a node's port that serves one room: the hop leaves its route.
    pub fn handle_port_closed(&mut self, session: SessionId, hop: Hop, now: Instant) {
        self.route(now, |tables| Moves(tables).handle_port_closed(session, hop, now));
    }

    /// A worker found that the packets of two hops are no copies of each other. The room continues as in hot mode with
    /// the first hop of its route, while it is on these two hops.
    pub fn handle_unalike(&mut self, session: SessionId, hops: [Hop; 2], now: Instant) {
        self.route(now, |tables| Reroutes(tables).handle_unalike(session, hops, now));
    }

    /// Sets the maximum age of the workers' last report on a session.
    pub fn handle_summaries_within(&mut self, within: Duration) {
        self.tables.sessions.told_within = within;
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
            session.media.get_or_insert_default().measures = measures;
            session.last_heard = session.last_heard.max(last_heard.unwrap_or(session.last_heard));
            let room = self.tables.rooms.get(&session.room);
            if let Some(on) = room.and_then(|room| room.holding.on)
                && let Some(node) = self.tables.nodes.get(on)
            {
                let (zone, judged) = (node.settings.zone, &mut session.domain_judged);
                self.tables.capacity.domain_breakers.judge(zone, judged, &measures);
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
        let Some(flow) = self.quality.handle_flow(id, flow, &mut self.tables, now) else { return };
        self.diagnosis.handle_flow(id, &flow, &mut self.tables, now);
        let loses_by_client = self.diagnosis.loses_by_client(id);
        let CoreTables { settings, sessions, slos, capacity, .. } = &mut self.tables;
        if let Some(session) = sessions.unrecorded_mut(&id) {
            let (labels, judged) = (&session.request.labels, &mut session.client_judged);
            if let Some(is_impaired) = loses_by_client {
                capacity.client_breakers.judge(labels, judged, is_impaired, now);
            }
            if let Some((scenario, slo)) = settings.slo(&session.request.scenario) {
                let misses = session.misses(slo, flow.missed);
                if slos.note_media(scenario, &mut session.slo_marks, misses, now) {
                    sessions.changes.defer(id);
                }
            }
        }
        self.judge(|policies, subjects, effects| {
            policies.weigh_flow(id, flow.missed, subjects, now, effects);
        });
    }

    /// Takes the number of packets that this gateway has dropped since it began, for lack of room in its own queues and
    /// sockets.
    pub fn handle_own_drops(&mut self, dropped: u64, now: Instant) {
        self.diagnosis.note_dropped(dropped, now);
    }

    /// Checks the health of all nodes, every [`WATCH_EVERY`](crate::WATCH_EVERY). `stamps` come from the workers, by
    /// node number; `workers_late` is the longest delay of a worker since the last watch.
    ///
    /// Report answered probes and errors first. If control or a worker was late, all deadlines move by the delay, and
    /// no node is marked down on the first late watch. Further late watches judge as usual, since all packets that
    /// arrived were read.
    pub fn handle_watch(&mut self, stamps: &[Stamp], workers_late: Duration, now: Instant) {
        let (late, changes) = self.with_nodes(|nodes| nodes.watch(stamps, workers_late, now));
        if let Some(late) = late {
            self.quality.excuse_flows(late, &mut self.tables.sessions);
            self.diagnosis.note_late(late, now);
        }
        self.route(now, |tables| NodeController(tables).nodes_changed(changes, now));
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

    /// Changes nodes, or the list of nodes, and moves their rooms.
    pub fn change_nodes<T>(
        &mut self,
        now: Instant,
        change: impl FnOnce(&mut NodeController) -> T,
    ) -> T {
        self.route(now, |tables| change(&mut NodeController(tables)))
    }

    /// Returns the zone of this name in a region. A new zone takes the number of a zone without nodes, or the next
    /// number. Add a node to it at once, or the number may be reused.
    pub fn zone(&mut self, name: &str, region: RegionId) -> Result<ZoneId, Impossible> {
        let CoreTables { capacity, nodes, effects, .. } = &mut self.tables;
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
        Reroutes(&mut self.tables).handle_failback(region, failback, now)
    }

    /// Holds the breaker of a region or zone for an operator, or lets it judge again.
    pub fn hold_breaker(
        &mut self,
        place: FailureDomain,
        mode: BreakerMode,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.tables.nodes.check_domain(place)?;
        let CoreTables { capacity, nodes, effects, .. } = &mut self.tables;
        let event = capacity.domain_breakers.hold(place, mode, nodes.zones(), now);
        event.into_iter().for_each(|event| effects.event(event));
        Ok(())
    }

    /// Holds the breaker of a group of clients for an operator, or lets it judge again.
    pub fn hold_client_breaker(
        &mut self,
        group: &ClientGroup,
        mode: BreakerMode,
        now: Instant,
    ) -> Result<(), Impossible> {
        let event = self.tables.capacity.client_breakers.hold(group, mode, now)?;
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
        self.tables.rooms.failover.is_some()
    }

    /// Returns the number of live sessions.
    pub fn live(&self) -> usize {
        self.tables.sessions.live()
    }

    /// Returns the scenarios by their names.
    pub fn scenarios(&self) -> impl Iterator<Item = (&Arc<str>, &Scenario)> {
        self.tables.settings.scenarios.iter()
    }

    /// Returns the number of rooms that a node carries.
    pub fn standing_rooms(&self) -> usize {
        self.tables.rooms.placed
    }

    /// Returns the name of the room; `None` if the room is gone.
    pub fn room_name(&self, room: RoomId) -> Option<Arc<str>> {
        self.tables.rooms.get(&room).map(|room| room.name.clone())
    }

    /// All moves in progress. Each ends with a [`CoreEvent::Moved`] to its target, or with an [`CoreEvent::MoveEnded`].
    pub fn moves_under_way(&self) -> impl Iterator<Item = MoveUnderWay> {
        self.tables.rooms.moves_under_way()
    }

    /// Unanswered questions about offers.
    pub fn offers_asked(&self) -> usize {
        self.questions.in_flight().filter(|asked| asked.about.is_of_offer()).count()
    }

    /// Returns false once a shutdown has begun.
    pub fn is_admitting(&self) -> bool {
        !self.shutting_down
    }

    /// Sizes of everything that grows with clients. Visits every session and room.
    pub fn table_sizes(&self) -> TableSizes {
        let Gateway { tables, quality, diagnosis, policies, questions, .. } = self;
        let CoreTables { sessions, rooms, nodes, capacity, effects, .. } = tables;
        let most = |counts: &mut dyn Iterator<Item = usize>| counts.max().unwrap_or(0);
        let paces = || nodes.opening_windows().map(OpeningWindow::counts);
        let (silent, ticked) = (quality.silent.len(), sessions.most_ticked());
        let listed = [capacity.reduced.len(), silent, ticked, diagnosis.len()];
        TableSizes {
            sessions: sessions.len(),
            rooms: rooms.len(),
            calls: rooms.calls.len(),
            rooms_listed: rooms.most_listed().max(questions.most_rerouted()),
            sessions_listed: most(&mut listed.into_iter().chain([policies.most_judged()])),
            asks: questions.in_flight().len(),
            legs: most(&mut sessions.values().map(|session| session.legs.iter().count())),
            opening: most(&mut paces().map(|(under_way, _)| under_way as usize)),
            waiting: paces().map(|(_, waiting)| waiting).sum(),
            moves: most(&mut rooms.values().map(|room| room.records().count())),
            damped: most(&mut rooms.values().map(Room::moves_noted)),
            ballots: quality.ballots.len(),
            drains: rooms.drains.len(),
            slots: nodes.slots(),
            timers: effects.timers.len(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
