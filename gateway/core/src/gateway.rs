//! The state machine: `handle_*` takes inputs, `poll_*` returns outputs and the next timeout.
//!
//! After every input, drain the outputs. This module dispatches inputs to the parts; `answers` applies policy answers.

mod answers;
mod record;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, Board, CloseReason, CoreEvent, CoreSettings, FlowCounts, Hook, Hop, Impossible, Measures,
    NodeId, NodeSettings, NotStarted, PluginFault, PolicyName, RedundancyMode, RegionId, RoomId,
    Scenario, SessionId, Stamp, Zone, ZoneId,
};
use evenkeel_revisions::{Effect, Lifecycle, Remembered, RolloutRules, WallClock};
pub use record::Records;

use crate::capacity::{Capacity, WINDOW};
use crate::effects::{Effects, GatewayEffect, RoomNotice};
use crate::policy::{FaultSubject, HarmfulRevision, Policies, QuestionsInFlight, Subjects};
use crate::quality::Quality;
use crate::rooms::{Failback, MoveUnderWay, NotOpened, RoomTable, Router, WEIGH_EVERY};
use crate::sessions::SessionTable;
use crate::timer::Timer;
use crate::views::{
    Explanation, NodeStanding, RegionStanding, RoomStanding, SessionStanding, TableSizes, Views,
};
use crate::{ArmStatistics, ArmTally, GatewayRecord, HopMap, RestoreError};
use evenkeel_nodes::{AgentWord, NodeTable};

/// Interval between two sweeps for silent sessions, and between two parts of one sweep.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_GOES_ON: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Gateway {
    settings: CoreSettings,
    sessions: SessionTable,
    rooms: RoomTable,
    nodes: NodeTable,
    capacity: Capacity,
    quality: Quality,
    questions: QuestionsInFlight,
    policies: Policies,
    effects: Effects,
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
        Gateway {
            sessions: SessionTable::new(),
            rooms: RoomTable::new(&settings, now),
            nodes,
            capacity: Capacity::new(&settings, now),
            quality: Quality::default(),
            questions: QuestionsInFlight::new(now),
            policies: Policies::default(),
            effects,
            shutting_down: false,
            finished: false,
            settings,
        }
    }

    fn router(&mut self) -> Router<'_> {
        Router {
            settings: &self.settings,
            sessions: &mut self.sessions,
            rooms: &mut self.rooms,
            nodes: &mut self.nodes,
            capacity: &mut self.capacity,
            effects: &mut self.effects,
        }
    }

    /// Runs `act` on the router, then passes its notices to the other parts.
    fn route<T>(&mut self, now: Instant, act: impl FnOnce(&mut Router) -> T) -> T {
        let done = act(&mut self.router());
        self.take_notices(now);
        done
    }

    /// Runs `act` on quality and the router, then passes their notices to the other parts.
    fn route_quality<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Quality, &mut Router) -> T,
    ) -> T {
        let mut router = Router {
            settings: &self.settings,
            sessions: &mut self.sessions,
            rooms: &mut self.rooms,
            nodes: &mut self.nodes,
            capacity: &mut self.capacity,
            effects: &mut self.effects,
        };
        let done = act(&mut self.quality, &mut router);
        self.take_notices(now);
        done
    }

    fn change_nodes<T>(&mut self, change: impl FnOnce(&mut NodeTable) -> T) -> T {
        let changed = change(&mut self.nodes);
        self.effects.take(&mut self.nodes);
        changed
    }

    fn judge<T>(&mut self, act: impl FnOnce(&mut Policies, Subjects, &mut Effects) -> T) -> T {
        let Gateway { settings, sessions, rooms, policies, effects, .. } = self;
        act(policies, Subjects { settings, sessions, rooms }, effects)
    }

    fn enrol(&mut self, session: SessionId) {
        self.judge(|policies, subjects, _| policies.enrol(session, subjects));
    }

    fn take_notices(&mut self, now: Instant) {
        while let Some(notice) = self.effects.pop_notice() {
            match notice {
                RoomNotice::Reroute(room) => self.want_reroute(room, now),
                RoomNotice::Enrol(session) => self.enrol(session),
                RoomNotice::MoveCounted(room) => {
                    if let Some(room) = self.rooms.get_mut(&room) {
                        self.policies.weigh_moves(room, &self.settings, now, &mut self.effects);
                    }
                }
                RoomNotice::Ended { session, room, scenario } => {
                    self.policies.leave(FaultSubject::Session(session), &scenario, &self.settings);
                    self.quality.forget_session(room, session);
                    self.questions.noted.forget(FaultSubject::Session(session));
                }
                RoomNotice::Dissolved { room, scenario } => {
                    self.policies.leave(FaultSubject::Room(room), &scenario, &self.settings);
                    self.questions.forget_room(room);
                }
            }
        }
        if self.shutting_down && self.sessions.is_empty() && !self.finished {
            self.finished = true;
            self.effects.cancel(&Timer::ShutdownEnds);
            self.effects.push(GatewayEffect::Finished);
        }
    }

    fn subjects(&self) -> Subjects<'_> {
        Subjects { settings: &self.settings, sessions: &self.sessions, rooms: &self.rooms }
    }

    fn views(&self) -> Views<'_> {
        Views {
            sessions: &self.sessions,
            rooms: &self.rooms,
            nodes: &self.nodes,
            capacity: &self.capacity,
            noted: &self.questions.noted,
        }
    }

    /// Seeds the jitter of retry times. The default seed is 0.
    pub fn handle_seed(&mut self, seed: u64) {
        self.sessions.seed(seed);
    }

    /// The board that workers read for each packet.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(self.nodes.board())
    }

    /// The next output. Drain the outputs after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<GatewayEffect> {
        self.effects.pop().or_else(|| record::restore_next(self))
    }

    /// The time of the next [`handle_timeout`](Gateway::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.effects.timers().next()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.effects.pop_timer(now) {
            match timer {
                Timer::Probe(node) => self.change_nodes(|nodes| nodes.probe(node, now)),
                Timer::Canary(node) => self.change_nodes(|nodes| nodes.send_canary(node, now)),
                Timer::AskLate(ask) => self.handle_answer(ask, Err(PluginFault::Late), now),
                Timer::OpenLate(id) => self.route(now, |router| router.open_late(id, now)),
                Timer::LeavingEnds(id) => self.route(now, |router| router.close_left_hops(id, now)),
                Timer::RoomDue(id) => self.route(now, |router| router.room_due(id, now)),
                Timer::Reroute(policy) => {
                    Arm::ALL.into_iter().for_each(|arm| self.ask_reroute(&policy, arm, now));
                }
                Timer::Tick(policy) => self.ask_tick(&policy, now),
                Timer::Drain(node) => self.route(now, |router| router.drain(node, now)),
                Timer::Forget(node) => {
                    if self.route(now, |router| router.forget_node(node, now)) {
                        self.quality.forget_node(node);
                    }
                }
                Timer::Failover => self.route(now, |router| router.fail_over_some(now)),
                Timer::Rescue => self.route(now, |router| router.rescue_stranded(now)),
                Timer::Change => self.route(now, |router| router.change_some(now)),
                Timer::StartLate(node) => {
                    self.change_nodes(|nodes| nodes.start_failed(node, NotStarted::Late, now));
                }
                Timer::Failback => self.route(now, |router| router.failback(now)),
                Timer::Breakers => self.route(now, |router| router.weigh_breakers(now)),
                Timer::Cohorts => {
                    self.route_quality(now, |quality, router| quality.weigh_cohorts(router, now));
                }
                Timer::Flows => {
                    self.route_quality(now, |quality, router| quality.judge_flows(router, now));
                }
                Timer::Judge => self.policies.turn_judges(now, &mut self.effects),
                Timer::Rollouts => self.poll_rollouts(now),
                Timer::Sweep => self.sweep(now),
                Timer::Weigh => self.route(now, |router| router.weigh_unreserved(now)),
                Timer::ShutdownEnds => {
                    self.route(now, |router| router.close_all(CloseReason::Shutdown, now));
                }
            }
        }
    }

    pub fn records(&mut self) -> Records<'_> {
        Records(self)
    }

    /// All live sessions with their rooms, and the state of nodes and regions.
    pub fn record(&self, now: Instant) -> GatewayRecord {
        record::record(self, now)
    }

    /// Continues the sessions of another process's record. For each a [`GatewayEffect::Restore`](crate::GatewayEffect::Restore)
    /// follows, in their order, before other outputs about it. Its packets may be served then. `node` finds a listed node
    /// by its name. [`Records::settle`] is the next input.
    ///
    /// # Errors
    /// If this gateway has sessions, or the record contradicts itself. Nothing has changed then.
    pub fn handle_record(
        &mut self,
        record: GatewayRecord,
        node: impl Fn(&str) -> Option<NodeId>,
        now: Instant,
    ) -> Result<HopMap, RestoreError> {
        record::restore(self, record, node, now)
    }

    /// Admits no more sessions. The gateway finishes when the last session ends, or after this time.
    pub fn handle_shutdown(&mut self, within: Duration, now: Instant) {
        if self.finished {
            return;
        }
        if !self.shutting_down {
            self.shutting_down = true;
            self.nodes.start_no_more();
            self.effects.event(CoreEvent::ShuttingDown);
        }
        self.effects.set(Timer::ShutdownEnds, now + within);
        self.take_notices(now);
    }

    fn sweep(&mut self, now: Instant) {
        let (silent, goes_on) = self.sessions.sweep(now);
        self.route(now, |router| router.close_silent(silent, now));
        let Gateway { settings, sessions, rooms, .. } = self;
        self.policies.forget_older_states(goes_on, settings, sessions, rooms);
        self.sessions.swept_last = goes_on.unwrap_or(SessionId(0));
        let after = if goes_on.is_some() { SWEEP_GOES_ON } else { SWEEP_EVERY };
        self.effects.set(Timer::Sweep, now + after);
    }

    /// Changes mode, regions, spares and affinity of the named scenarios. Other scenarios and settings stay. Rooms take
    /// the change in batches without packet loss; affinity applies to new rooms.
    pub fn handle_scenarios(&mut self, scenarios: &BTreeMap<Arc<str>, Scenario>, now: Instant) {
        for (name, new) in scenarios {
            let Some(old) = self.settings.scenarios.get_mut(name) else {
                continue;
            };
            let Scenario { mode, affinity, ref regions, spares, .. } = *new;
            let same = (old.mode, &old.regions, old.spares) == (mode, regions, spares);
            let changed = (old.spares != spares).then_some(spares);
            (old.mode, old.affinity, old.regions, old.spares) =
                (mode, affinity, regions.clone(), spares);
            if !same {
                self.rooms.scenario_changed(name, changed);
            }
        }
        self.route(now, |router| router.change_some(now));
    }

    /// The driver opened the session at a hop, or failed. Ignored if [`GatewayEffect::CloseAt`] gave up the hop meanwhile.
    pub fn handle_opened(
        &mut self,
        id: SessionId,
        hop: Hop,
        result: Result<(), NotOpened>,
        now: Instant,
    ) {
        self.route(now, |router| router.handle_opened(id, hop, result, now));
    }

    /// Ends a session through the API.
    pub fn handle_close(&mut self, id: SessionId, now: Instant) -> Result<(), Impossible> {
        if !self.sessions.contains_key(&id) {
            return Err(Impossible::NoSuchSession);
        }
        self.route(now, |router| router.close(id, CloseReason::Requested, now));
        Ok(())
    }

    /// A worker panicked on a packet of this session and dropped the session.
    pub fn handle_panicked(&mut self, id: SessionId, now: Instant) {
        self.route(now, |router| router.close(id, CloseReason::Panicked, now));
    }

    /// Moves a room for an operator, make-before-break. Fails if the room is already there, or the node cannot take it.
    pub fn handle_move(
        &mut self,
        name: &Arc<str>,
        to: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.route(now, |router| router.handle_move(name, to, now))
    }

    /// The kernel reports that no process listens at a node's port that serves one room: the hop leaves its route.
    pub fn handle_port_closed(&mut self, session: SessionId, hop: Hop, now: Instant) {
        self.route(now, |router| router.handle_port_closed(session, hop, now));
    }

    /// A worker found that the packets of two hops are no copies of each other. The room continues as in hot mode with
    /// the first hop of its route, while it is on these two hops.
    pub fn handle_unalike(&mut self, session: SessionId, hops: [Hop; 2], now: Instant) {
        self.route(now, |router| router.handle_unalike(session, hops, now));
    }

    /// Sets the maximum age of the workers' last report on a session.
    pub fn handle_summaries_within(&mut self, within: Duration) {
        self.sessions.told_within = within;
    }

    /// Takes the measures of a session, and the time at which the session was last heard.
    pub fn handle_summary(
        &mut self,
        id: SessionId,
        measures: Measures,
        last_heard: Option<Instant>,
    ) {
        self.enrol(id);
        if let Some(session) = self.sessions.unrecorded_mut(&id) {
            match &mut session.measures {
                Some(standing) => **standing = measures,
                None => session.measures = Some(Box::new(measures)),
            }
            session.last_heard =
                last_heard.map_or(session.last_heard, |at| at.max(session.last_heard));
            if let Some(on) = self.rooms.get(&session.room).and_then(|room| room.holding.on) {
                let region = self.nodes.region_of(on);
                self.capacity.judge(region, &mut session.judged, &measures);
            }
            self.judge(|policies, subjects, effects| {
                policies.weigh_measures(id, subjects, effects);
            });
        }
    }

    /// Counts packets between a session and its node since the last report.
    pub fn handle_flow(&mut self, id: SessionId, flow: &FlowCounts, now: Instant) {
        if self.route_quality(now, |quality, router| quality.handle_flow(id, flow, router, now)) {
            self.judge(|policies, subjects, effects| {
                policies.weigh_flow(id, flow.missed, subjects, now, effects);
            });
        }
    }

    /// Checks the health of all nodes, every [`WATCH_EVERY`](crate::WATCH_EVERY). `stamps` come from the workers, by
    /// node number; `workers_late` is the longest delay of a worker since the last watch.
    ///
    /// Report answered probes and errors first. If control or a worker was late, all deadlines move by the delay, and
    /// no node is marked down on the first late watch. Further late watches judge as usual, since all packets that
    /// arrived were read.
    pub fn handle_watch(&mut self, stamps: &[Stamp], workers_late: Duration, now: Instant) {
        let (late, changes) = self.change_nodes(|nodes| nodes.watch(stamps, workers_late, now));
        if let Some(late) = late {
            self.quality.excuse_flows(late, &mut self.sessions);
        }
        self.route(now, |router| router.nodes_changed(changes, now));
    }

    /// A node's media port answered.
    pub fn handle_probe_answered(&mut self, id: NodeId, sequence: u64, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.detector.handle_probe_answered(sequence, now);
        }
    }

    /// The agent at the end of a node's trunk answered a probe. It does not know the state of the media port behind it,
    /// so its answer does not refute silence.
    pub fn handle_agent_answered(&mut self, id: NodeId, sequence: u64, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.detector.handle_agent_answered(sequence, now);
        }
    }

    /// A node reported whether it accepts new sessions, with its answer to a probe or to an opening.
    pub fn handle_willing(&mut self, id: NodeId, willing: bool, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.handle_willing(willing, now);
        }
    }

    /// The kernel reports that no process listens at a node's media port. The caller has checked that the error quotes a
    /// packet that was sent there.
    pub fn handle_kernel_error(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.detector.handle_kernel_error(now);
        }
    }

    /// The kernel reports that no process listens at a node's media port. The error quotes this probe.
    pub fn handle_probe_refused(&mut self, id: NodeId, sequence: u64, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.detector.handle_probe_refused(sequence, now);
        }
    }

    /// A packet that entered one canary session of a node came out at the other.
    pub fn handle_canary_passed(&mut self, id: NodeId, sequence: u64) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.detector.handle_canary_passed(sequence);
        }
    }

    /// A node confirmed that both canary sessions are open.
    pub fn handle_canary_open(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.detector.handle_canary_open(now);
        }
    }

    /// A node refused a session because it is full. Its present load counts as its capacity for now. A draining node
    /// refuses sessions because it drains, so its capacity is unchanged.
    pub fn handle_full(&mut self, id: NodeId, now: Instant) {
        self.route(now, |router| router.handle_full(id, now));
    }

    /// A node reported its load in thousandths of its capacity; valid for 5 s. The report corrects the measured
    /// capacity, up to the configured one. A draining node's measured capacity is unchanged.
    pub fn handle_load(&mut self, id: NodeId, permille: u16, now: Instant) {
        self.route(now, |router| router.handle_load(id, permille, now));
    }

    /// An agent reported the state of its node. [`AgentWord::Gone`] marks the node down at once. The other reports
    /// withdraw that evidence, and begin or end the agent's drain.
    pub fn handle_agent_word(&mut self, id: NodeId, word: AgentWord, now: Instant) {
        self.route(now, |router| router.handle_agent_word(id, word, now));
    }

    /// The connection to the node's agent is lost. All reports of the agent are withdrawn.
    pub fn handle_agent_lost(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.detector.handle_agent(true, now);
        }
        self.route(now, |router| router.decide_drain(id, |node| node.leaving = false, now));
    }

    /// The hook that starts the node failed. It is called again later if the node is still needed.
    pub fn handle_start_failed(&mut self, id: NodeId, now: Instant) {
        self.change_nodes(|nodes| nodes.start_failed(id, NotStarted::Hook, now));
    }

    /// True if the uplink of the gateway is suspected because most nodes fell silent at once.
    pub fn doubts_uplink(&self) -> bool {
        self.nodes.doubts_uplink()
    }

    /// Number of nodes that can be added now.
    pub fn vacancies(&self, now: Instant) -> usize {
        self.nodes.vacancies(now)
    }

    /// Returns the zone of this name in a region. A new zone takes the number of a zone without nodes, or the next
    /// number. Add a node to it at once, or the number may be reused.
    pub fn zone(&mut self, name: &str, region: RegionId) -> Result<ZoneId, Impossible> {
        self.nodes.zone(name, region)
    }

    pub fn home(&self) -> RegionId {
        self.nodes.home()
    }

    pub fn zones_of_nodes(&self) -> impl Iterator<Item = (NodeId, ZoneId)> {
        self.nodes.iter().map(|node| (node.id, node.settings.zone))
    }

    pub fn zones(&self) -> &[Zone] {
        self.nodes.zones()
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
        self.route(now, |router| router.handle_node_added(settings, now))
    }

    /// A node that was just added replaces one that is about to be removed, as after a change of key or address. An
    /// operator's drain or eject of the old node applies to the new one.
    pub fn handle_takes_place(
        &mut self,
        new: NodeId,
        old: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.route(now, |router| router.handle_takes_place(new, old, now))
    }

    /// A node that was just added is the machine of another node under a new name. The load of the old node counts
    /// against the capacity of both.
    pub fn handle_same_machine(&mut self, new: NodeId, old: NodeId) -> Result<(), Impossible> {
        self.router().handle_same_machine(new, old)
    }

    /// Changes a node's capacity, zone within its region, role, hook or canary. No room leaves the node. If its load
    /// exceeds the new capacity, only reservations are given up.
    pub fn handle_node_changed(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.route(now, |router| router.handle_node_changed(id, settings, now))
    }

    /// Removes a node. The node is drained, whatever its agent or an operator says, and forgotten with
    /// [`GatewayEffect::Forget`] when it is empty. A drain in progress continues unless there is a new deadline.
    pub fn handle_node_removed(
        &mut self,
        id: NodeId,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.route(now, |router| router.handle_node_removed(id, within, now))
    }

    /// Cancels the removal of a node. It takes rooms again unless it drains for another reason. Fails if the node is
    /// gone, or is not being removed.
    pub fn handle_node_kept(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        self.route(now, |router| router.handle_node_kept(id, now))
    }

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
        self.route(now, |router| router.handle_drain(node, draining, within, now))
    }

    /// Begins or ends the drain of a region: of all its nodes, including those that are added later. Nodes that
    /// an agent drains stay drained.
    pub fn handle_drain_region(
        &mut self,
        region: RegionId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.route(now, |router| router.handle_drain_region(region, draining, within, now))
    }

    /// Sets how rooms return to a region, or to all regions.
    pub fn handle_failback(
        &mut self,
        region: Option<RegionId>,
        failback: Failback,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.router().handle_failback(region, failback, now)
    }

    /// An operator ejects the node. Its rooms leave it at once, and it stays Down until
    /// [`handle_return`](Gateway::handle_return). Fails if the node is already ejected.
    pub fn handle_eject(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        self.route(now, |router| router.handle_eject(id, now))
    }

    /// Ends the ejection of a node that is Down. The node is Wary as soon as it answers.
    pub fn handle_return(&mut self, id: NodeId) -> Result<(), Impossible> {
        let node = self.nodes.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        if node.health() != evenkeel_model::Health::Down {
            return Err(Impossible::NotDown);
        }
        node.let_back();
        Ok(())
    }

    /// Adds a policy that has no revision yet.
    pub fn handle_policy(
        &mut self,
        policy: &PolicyName,
        rules: RolloutRules,
        remembered: Remembered,
        clock: WallClock,
    ) {
        let life = Lifecycle::new(policy.clone(), rules, remembered, clock);
        self.policies.add(policy.clone(), life);
    }

    /// Follows steps of the wall clock. Changes from now on are stamped by this clock.
    pub fn handle_wall_clock(&mut self, clock: WallClock) {
        self.policies.set_clock(clock);
    }

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
        let (result, follows) = self.policies.change(policy, now, &mut self.effects, change)?;
        self.follow(policy, follows, now);
        Some(result)
    }

    fn follow(&mut self, policy: &PolicyName, effects: Vec<Effect>, now: Instant) {
        for effect in effects {
            match effect {
                Effect::Report(rollout) => self.effects.push(GatewayEffect::Rollout(rollout)),
                Effect::Remember(remembered) => {
                    let policy = policy.clone();
                    self.effects.push(GatewayEffect::Remember { policy, remembered });
                }
                Effect::Unload(revision) => {
                    let (policy, unloaded) = (policy.clone(), Arc::clone(&revision));
                    self.effects
                        .push(GatewayEffect::Unload { policy: policy.clone(), revision: unloaded });
                    self.ask_again(&policy, &revision, now);
                }
                Effect::CanaryChanged => self.quality.restart_ticks(policy, Arm::Canary),
                Effect::DecidersChanged(before) => self.reroute_all(policy, Some(&before), now),
            }
        }
    }

    /// Removes harmful revisions, takes rollout steps that are due, and ends rollback windows.
    fn poll_rollouts(&mut self, now: Instant) {
        for HarmfulRevision { policy, revision, reason } in self.policies.take_harmful() {
            self.change_policy(&policy, now, |life| life.remove_harmful(&revision, &reason, now));
        }
        for policy in self.policies.changing() {
            let follows = self.judge(|policies, subjects, effects| {
                policies.poll(&policy, subjects, now, effects)
            });
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

    /// Statistics of both cohorts of a policy during a canary, from a complete tally.
    pub fn cohorts(&self, policy: &PolicyName, tally: &ArmTally) -> Option<[ArmStatistics; 2]> {
        self.policies.cohorts(policy, tally)
    }

    /// Sessions after this one in order of their ids. A session that is not live yet has no standing.
    pub fn sessions_after(
        &self,
        after: SessionId,
        now: Instant,
    ) -> impl Iterator<Item = (SessionId, Option<SessionStanding>)> {
        let (views, rest) = (self.views(), (Bound::Excluded(after), Bound::Unbounded));
        self.sessions.range(rest).map(move |(id, _)| (*id, views.session(*id, now)))
    }

    pub fn live(&self) -> usize {
        self.sessions.live()
    }

    pub fn session(&self, id: SessionId, now: Instant) -> Option<SessionStanding> {
        self.views().session(id, now)
    }

    /// The mode in force for a session, and the number of hops at which it is open or opening.
    pub fn mode_of(&self, id: SessionId) -> Option<(RedundancyMode, usize)> {
        let session = self.sessions.get(&id)?;
        Some((self.rooms.get(&session.room)?.route().mode, session.legs.iter().count()))
    }

    /// Explains the placement of a live session.
    pub fn explain(&self, id: SessionId, now: Instant) -> Option<Explanation> {
        self.views().explain(id, now)
    }

    pub fn scenarios(&self) -> impl Iterator<Item = (&Arc<str>, &Scenario)> {
        self.settings.scenarios.iter()
    }

    pub fn standing_rooms(&self) -> usize {
        self.rooms.placed()
    }

    /// Rooms after this one in order of their ids. A room that is not placed yet has no standing.
    pub fn rooms_after(
        &self,
        after: RoomId,
    ) -> impl Iterator<Item = (RoomId, Option<RoomStanding>)> {
        let views = self.views();
        self.rooms
            .after(after)
            .map(move |room| (room.id, room.is_placed().then(|| views.room(room))))
    }

    pub fn room_name(&self, room: RoomId) -> Option<Arc<str>> {
        self.rooms.get(&room).map(|room| room.name.clone())
    }

    /// All moves in progress. Each ends with a [`CoreEvent::Moved`] to its target, or with an [`CoreEvent::MoveEnded`].
    pub fn moves_under_way(&self) -> impl Iterator<Item = MoveUnderWay> {
        self.rooms.moves_under_way()
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeStanding> {
        let views = self.views();
        self.nodes.iter().map(move |node| views.node(node))
    }

    pub fn regions(&self, now: Instant) -> impl Iterator<Item = RegionStanding> {
        let views = self.views();
        self.nodes.regions().map(move |id| views.region(id, now))
    }

    /// Unanswered questions about offers.
    pub fn offers_asked(&self) -> usize {
        self.questions.in_flight().filter(|asked| asked.about.is_of_offer()).count()
    }

    pub fn is_admitting(&self) -> bool {
        !self.shutting_down
    }

    /// Sizes of everything that grows with clients. Visits every session and room.
    pub fn kept(&self) -> TableSizes {
        let views = self.views().kept();
        TableSizes {
            rooms_listed: self.rooms.most_listed().max(self.questions.most_rerouted()),
            sessions_listed: [
                self.capacity.reduced(),
                self.quality.silent(),
                self.sessions.most_ticked(),
                self.policies.most_judged(),
            ]
            .into_iter()
            .max()
            .unwrap_or(0),
            asks: self.questions.in_flight().len(),
            ballots: self.quality.ballots(),
            timers: self.effects.timers().standing().len(),
            ..views
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
