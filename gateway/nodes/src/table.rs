//! The set of nodes, their health, and the board on which packets see them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Board, CoreEvent, CoreSettings, EvidenceSource, FailureDomain, FailureScope, GatewayLimits,
    Health, Hop, Impossible, NodeId, NodeProbing, NodeSettings, NotStarted, RegionId, SessionId,
    Stamp, StartPhase, StartRefusal, StopPhase, Timings, Zone, ZoneId,
};

use crate::detector::{DetectorFinding, Distance};
use crate::node::trust::{ElasticState, NodeTrust};
use crate::node::{Node, NodeTransition};
use crate::providers::{ProviderBreaker, ProviderBreakerStanding, ProviderBreakers};

/// A slot is not reused for this long after its node left, so that late answers about that node have arrived.
const RESTS: Duration = Duration::from_secs(10);

/// Interval at which the workers' stamps are read.
pub const WATCH_EVERY: Duration = Duration::from_millis(2);

/// Maximum lateness of a worker that is excused. If the whole machine stalled, the control thread did too, and its own
/// lateness counts.
const WORKER_EXCUSED_MAX: Duration = Duration::from_secs(1);

/// Interval of canaries to one node.
const CANARY_EVERY: Duration = Duration::from_millis(100);

/// A node that misses its probes this soon after another node of its region died silently fell with it.
const FALLS_WITHIN: Duration = Duration::from_millis(50);

/// A node counts as fallen only if nothing came from it for two probes; one that still sends media did not fall.
const UNHEARD_FOR: Duration = Duration::from_millis(20);

/// A node heard this much later than another fell silent outlived it: the last packets before a common loss arrive
/// within this time.
const TOGETHER: Duration = Duration::from_millis(5);

/// A node that had not been heard for this many probes when another fell silent failed earlier, for a separate reason.
const HEARD_WITHIN_PROBES: u32 = 3;

/// Starts that are refused for one reason are reported this often. Rooms without a node try several times a second.
const REFUSAL_EVERY: Duration = Duration::from_secs(60);

/// Validity of an expected load, which is forecast each minute.
const EXPECTED_FOR: Duration = Duration::from_secs(5 * 60);

/// The nodes by their numbers, and the board on which packets see them.
#[derive(Debug)]
pub struct NodeTable {
    slots: Vec<Option<Node>>,
    /// Slots without a node, with the time since when, in the order in which they became free.
    free: VecDeque<(NodeId, Instant)>,
    board: Arc<Board>,
    opening_windows: Vec<OpeningWindow>,
    home: RegionId,
    regions: usize,
    zones: Vec<Zone>,
    timings: Timings,
    limits: GatewayLimits,
    /// Regions and zones that an operator drains. Nodes added there drain as well.
    drained: BTreeSet<FailureDomain>,
    next_probe: u64,
    last_watch: Option<Instant>,
    stalled: bool,
    uplink_suspect: bool,
    /// The last time at which no node was heard at all, while the uplink was suspected.
    none_heard: Option<Instant>,
    /// Regions in which a node just fell silent, with the time.
    fell: BTreeMap<RegionId, Instant>,
    /// No more nodes are started.
    shutting_down: bool,
    providers: ProviderBreakers,
    /// The last report of a refused start for each reason.
    refused_starts: BTreeMap<StartRefusal, Instant>,
    /// The highest load that is expected within the horizon of forecasts, kbit/s, with the time of the forecast.
    expected_load: BTreeMap<RegionId, (u64, Instant)>,
    outputs: VecDeque<NodeOutput>,
}

/// Outputs to the owner of the table.
#[derive(Clone, Debug)]
pub enum NodeOutput {
    /// Carry this out.
    Effect(NodeEffect),
    /// Report an event.
    Event(CoreEvent),
    /// Set a timer, which replaces an earlier time.
    Set(NodeTimer, Instant),
    /// Cancel a timer.
    Cancel(NodeTimer),
}

/// An instruction about one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeEffect {
    /// Probe the node's media port. Answers return through [`NodeEvidence::ProbeAnswered`](crate::NodeEvidence::ProbeAnswered).
    Probe {
        /// The number of the node.
        node: NodeId,
        /// The answer carries the same number.
        sequence: u64,
    },
    /// Send a packet from one canary session at the node; it must come out at the other session. The packet returns
    /// through [`NodeEvidence::CanaryPassed`](crate::NodeEvidence::CanaryPassed), and the node's confirmation that both sessions are open
    /// through [`NodeEvidence::CanaryOpen`](crate::NodeEvidence::CanaryOpen).
    Canary {
        /// The number of the node.
        node: NodeId,
        /// The packet carries the same number.
        sequence: u64,
    },
    /// Call the hook that starts a node. Its failure is reported back; otherwise the node answers probes.
    Start(NodeId),
    /// End the hook that starts a node.
    EndStart {
        /// The number of the node.
        node: NodeId,
        /// The reason for the end of the hook.
        why: NotStarted,
    },
    /// Stop a node that a hook started. It is gone once it does not answer probes.
    Stop(NodeId),
    /// End what still stops the node: its time limit has passed.
    EndStop(NodeId),
    /// A removed node is gone: no room leads there, and its slot may be reused after 10 s.
    Forget(NodeId),
}

/// A timer of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeTimer {
    /// Call [`NodeTable::probe`].
    Probe(NodeId),
    /// Call [`NodeTable::send_canary`].
    Canary(NodeId),
    /// Call [`NodeTable::start_failed`].
    StartLate(NodeId),
    /// The next rooms leave a draining node.
    Drain(NodeId),
}

/// An agent's report on its node, sent on each change and with each answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentWord {
    /// The process runs. Other evidence must show that it works.
    Serving,
    /// The node asks for its rooms to move away, and takes no new ones.
    Draining,
    /// The process died, or was never started.
    Gone,
}

/// A change of a node's health, with the evidence.
#[derive(Debug)]
pub struct NodeChange {
    /// The number of the node.
    pub node: NodeId,
    /// The change of its state.
    pub change: NodeTransition,
    /// Evidence against the node, with its time.
    pub witnesses: Vec<(EvidenceSource, Instant)>,
    /// The time of the death, by the evidence.
    pub since: Instant,
}

/// Nodes that fell silent together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CommonSilence {
    silent: u32,
    /// Number of nodes that were heard until then.
    of: u32,
    /// Every node is accused by now. Nodes that are merely not due yet would be heard soon.
    total: bool,
}

impl NodeTable {
    /// All nodes start Up until evidence says otherwise; nodes that a hook starts are Cold.
    pub fn new(settings: &mut CoreSettings, now: Instant) -> NodeTable {
        let CoreSettings { home, timings, limits, .. } = *settings;
        let mut nodes = NodeTable {
            slots: Vec::new(),
            free: VecDeque::new(),
            board: Arc::new(Board::with_room(settings.nodes.len(), limits.nodes_max)),
            opening_windows: settings
                .nodes
                .iter()
                .map(|_| OpeningWindow::new(limits.openings_at_once))
                .collect(),
            home,
            regions: settings.regions.len(),
            zones: std::mem::take(&mut settings.zones),
            timings,
            limits,
            drained: BTreeSet::new(),
            next_probe: 1,
            last_watch: None,
            stalled: false,
            uplink_suspect: false,
            none_heard: None,
            fell: BTreeMap::new(),
            shutting_down: false,
            providers: ProviderBreakers::default(),
            refused_starts: BTreeMap::new(),
            expected_load: BTreeMap::new(),
            outputs: VecDeque::new(),
        };
        for (at, node) in settings.nodes.iter().enumerate() {
            let (id, distance) = (NodeId(at as u32), nodes.distance(node.zone));
            let node = Node::new(id, node.clone(), distance, timings, now);
            if node.health() == Health::Cold {
                nodes.mark_down(node.hop(), now);
            }
            nodes.slots.push(Some(node));
        }
        nodes
    }

    /// The next output. Take all after each call that changes the table.
    pub fn poll_output(&mut self) -> Option<NodeOutput> {
        self.outputs.pop_front()
    }

    fn push(&mut self, effect: NodeEffect) {
        self.outputs.push_back(NodeOutput::Effect(effect));
    }

    fn event(&mut self, event: CoreEvent) {
        self.outputs.push_back(NodeOutput::Event(event));
    }

    fn set(&mut self, timer: NodeTimer, at: Instant) {
        self.outputs.push_back(NodeOutput::Set(timer, at));
    }

    fn cancel(&mut self, timer: NodeTimer) {
        self.outputs.push_back(NodeOutput::Cancel(timer));
    }

    /// Returns the board that packets read.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The slot for the next node: a free slot that rested long enough, or a new one.
    fn next_slot(&self, now: Instant) -> Option<NodeId> {
        let rested = |since: Instant| now.saturating_duration_since(since) >= RESTS;
        match self.free.front() {
            Some((slot, since)) if rested(*since) => Some(*slot),
            _ if self.slots.len() < self.limits.nodes_max => Some(NodeId(self.slots.len() as u32)),
            _ => None,
        }
    }

    /// Returns the number of nodes that may be added now.
    pub fn vacancies(&self, now: Instant) -> usize {
        let rested = |since: Instant| now.saturating_duration_since(since) >= RESTS;
        let free = self.free.iter().filter(|(_, since)| rested(*since)).count();
        free + self.limits.nodes_max.saturating_sub(self.slots.len())
    }

    /// Puts the node in its [slot](Nodes::next_slot).
    fn put(&mut self, node: Node) {
        let place = node.id.0 as usize;
        self.free.retain(|(slot, _)| *slot != node.id);
        if place == self.slots.len() {
            self.slots.push(Some(node));
        } else {
            self.slots[place] = Some(node);
        }
    }

    /// Returns the node; `None` if it left.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// Returns the node; `None` if it left.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    /// Returns the nodes in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.slots.iter().flatten()
    }

    /// Returns the nodes in the order of their numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.slots.iter_mut().flatten()
    }

    /// Returns the number of nodes.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Number of slots, with or without a node.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Returns the window of openings at the node.
    pub fn pace(&self, id: NodeId) -> &OpeningWindow {
        &self.opening_windows[id.0 as usize]
    }

    /// Returns the window of openings at the node.
    pub fn pace_mut(&mut self, id: NodeId) -> &mut OpeningWindow {
        &mut self.opening_windows[id.0 as usize]
    }

    /// Returns the windows of all slots.
    pub fn opening_windows(&self) -> impl Iterator<Item = &OpeningWindow> {
        self.opening_windows.iter()
    }

    /// Nodes with a queue of openings as long as their window.
    pub fn busy(&self) -> Vec<NodeId> {
        self.iter().map(|node| node.id).filter(|id| self.pace(*id).is_busy()).collect()
    }

    /// Returns the current hops of these nodes, without those that left.
    pub fn hops(&self, nodes: &[NodeId]) -> Vec<Hop> {
        nodes.iter().filter_map(|&node| self.get(node)).map(Node::hop).collect()
    }

    /// Returns true if the board shows the hop as up.
    pub fn is_up(&self, hop: Hop) -> bool {
        self.board.is_up(hop.node, hop.incarnation)
    }

    /// The node's region; the home region if the node is gone, since nothing leads there.
    pub fn region_of(&self, node: NodeId) -> RegionId {
        let zone = self.get(node).map(|node| node.settings.zone);
        zone.map_or(self.home, |zone| self.zones[zone.0 as usize].region)
    }

    /// The zone or region of the node; `None` if the scope is the node alone, or the node is gone.
    pub fn domain_of(&self, node: NodeId, scope: FailureScope) -> Option<FailureDomain> {
        let zone = self.get(node)?.settings.zone;
        match scope {
            FailureScope::Node => None,
            FailureScope::Zone => Some(FailureDomain::Zone(zone)),
            FailureScope::Region => Some(FailureDomain::Region(self.region_of(node))),
        }
    }

    /// Returns the zone and the region of the node; none if the node is gone.
    pub fn domains_of(&self, node: NodeId) -> impl Iterator<Item = FailureDomain> {
        let scopes = [FailureScope::Zone, FailureScope::Region].into_iter();
        scopes.filter_map(move |scope| self.domain_of(node, scope))
    }

    /// True if both nodes are in one zone or region. Always false if the scope is the node alone.
    pub fn share_domain(&self, one: NodeId, other: NodeId, scope: FailureScope) -> bool {
        self.domain_of(one, scope)
            .is_some_and(|domain| self.domain_of(other, scope) == Some(domain))
    }

    /// Another zone of the node's region has a permanent node that takes rooms.
    pub fn has_other_zone(&self, node: NodeId) -> bool {
        let Some(zone) = self.get(node).map(|node| node.settings.zone) else { return false };
        let region = FailureDomain::Region(self.region_of(node));
        let mut others = self.in_domain(region).filter(|other| other.settings.zone != zone);
        others.any(|other| other.is_permanent() && other.takes_rooms())
    }

    /// The zones with a permanent node that takes rooms.
    pub fn permanent_zones(&self) -> BTreeSet<ZoneId> {
        let takers = self.iter().filter(|node| node.is_permanent() && node.takes_rooms());
        takers.map(|node| node.settings.zone).collect()
    }

    /// Returns the nodes of the zone or region.
    pub fn in_domain(&self, domain: FailureDomain) -> impl Iterator<Item = &Node> {
        self.iter().filter(move |node| match domain {
            FailureDomain::Zone(zone) => node.settings.zone == zone,
            FailureDomain::Region(region) => self.region_of(node.id) == region,
        })
    }

    // Evidence of health: probes, canaries, workers' stamps, and reports of agents and the kernel.

    fn distance(&self, zone: ZoneId) -> Distance {
        let region = self.zones[zone.0 as usize].region;
        if region == self.home { Distance::Near } else { Distance::Far }
    }

    /// Sets the timers of all probes and canaries.
    pub fn start_timers(&mut self, now: Instant) {
        let probed = self.slots.iter().flatten();
        let probed = probed.filter(|node| node.settings.probed == NodeProbing::Yes);
        let timers = probed.map(|node| NodeOutput::Set(NodeTimer::Probe(node.id), now));
        self.outputs.extend(timers);
        let canaries = self.slots.iter().flatten().filter(|node| node.settings.canary);
        let timers = canaries.map(|node| NodeOutput::Set(NodeTimer::Canary(node.id), now));
        self.outputs.extend(timers);
    }

    fn next_sequence(&mut self) -> u64 {
        let sequence = self.next_probe;
        self.next_probe += 1;
        sequence
    }

    /// Sends a probe and sets the timer of the next.
    pub fn probe(&mut self, id: NodeId, now: Instant) {
        let sequence = self.next_sequence();
        if let Some(node) = self.get_mut(id) {
            node.detector.handle_probe_sent(sequence, now);
            let next = now + node.probe_every();
            self.set(NodeTimer::Probe(id), next);
            self.push(NodeEffect::Probe { node: id, sequence });
        }
    }

    /// Sends a canary packet and sets the timer of the next.
    pub fn send_canary(&mut self, id: NodeId, now: Instant) {
        let sequence = self.next_sequence();
        if let Some(node) = self.get_mut(id) {
            node.detector.handle_canary_sent(sequence, now);
            self.set(NodeTimer::Canary(id), now + CANARY_EVERY);
            self.push(NodeEffect::Canary { node: id, sequence });
        }
    }

    /// The nodes with an overdue probe. Control reads the answers that wait before the next watch.
    pub fn overdue(&self, now: Instant) -> Vec<NodeId> {
        let overdue = |node: &&Node| node.runs() && node.detector.is_overdue(now);
        self.iter().filter(overdue).map(|node| node.id).collect()
    }

    /// Reads the workers' stamps. Returns by how much this watch was late, if too late to judge, and the nodes that
    /// changed.
    pub fn watch(
        &mut self,
        stamps: &[Stamp],
        workers_late: Duration,
        now: Instant,
    ) -> (Option<Duration>, Vec<NodeChange>) {
        let since = self.last_watch.map_or(WATCH_EVERY, |last| now.saturating_duration_since(last));
        self.last_watch = Some(now);
        let own_late = since.saturating_sub(WATCH_EVERY);
        let workers_late = workers_late.min(WORKER_EXCUSED_MAX);
        let late = Some(own_late.max(workers_late)).filter(|late| *late > self.timings.own_stall);
        let before = std::mem::replace(&mut self.stalled, late.is_some());
        for node in self.iter_mut() {
            let Some(stamp) = stamps.get(node.id.0 as usize) else { continue };
            node.detector.handle_stamp(*stamp, now);
            if late.is_some() {
                node.detector.excuse(own_late, workers_late);
            }
        }
        if let Some(late) = late {
            self.event(CoreEvent::OwnStall { late });
        }
        let silent = self.silent_zones();
        let is_due = |node: &&Node| {
            let beside = silent.get(&node.settings.zone).filter(|_| node.runs()).copied();
            node.settings.probed == NodeProbing::Yes && node.detector.hastens(beside, now)
        };
        let due: Vec<NodeId> = self.iter().filter(is_due).map(|node| node.id).collect();
        for id in due {
            self.probe(id, now);
        }
        if late.is_some() && !before {
            return (late, Vec::new());
        }
        let before: Vec<_> = self.iter().map(|node| (node.id, node.detector.witnesses())).collect();
        let mut found: Vec<DetectorFinding> = self.iter_mut().map(|node| node.look(now)).collect();
        self.doubt_uplink(&mut found, now);
        self.fall_together(&mut found, now);
        let mut changed = Vec::new();
        for (found, (id, before)) in found.into_iter().zip(before) {
            if let Some(change) = self[id].conclude(found, now) {
                let witnesses = self[id].detector.witnesses();
                let since = witnesses.iter().map(|(_, since)| *since).min();
                let (witnesses, since) =
                    (with_earlier(witnesses, before), since.unwrap_or(now).min(now));
                if let NodeTransition::Started { after: Some(_), .. } = change {
                    self.judge_provider(id, true, now);
                }
                changed.push(NodeChange { node: id, change, witnesses, since });
            }
        }
        (late, changed)
    }

    /// Zones with a node that is accused by silence, and the time at which the last of these fell silent. Nodes that carry
    /// little media are probed then, since a zone fails as a whole.
    fn silent_zones(&self) -> BTreeMap<ZoneId, Instant> {
        let mut silent = BTreeMap::new();
        for node in self.iter().filter(|node| node.runs()) {
            if node.detector.suspected_by()[EvidenceSource::Silence as usize]
                && let Some(since) = node.detector.fell_silent()
            {
                let newest = silent.entry(node.settings.zone).or_insert(since);
                *newest = since.max(*newest);
            }
        }
        silent
    }

    /// Detects a whole region going down: nodes accused only by their probes, such as standbys, are dead if they fell
    /// with a dead node. Reported deaths count separately. One lost probe of a far node is not enough. No node is
    /// judged this way while the uplink is suspected.
    fn fall_together(&mut self, found: &mut [DetectorFinding], now: Instant) {
        let fell: Vec<RegionId> = (self.iter().zip(&*found))
            .filter(|(node, found)| **found == DetectorFinding::Dead && !node.detector.is_told_of())
            .map(|(node, _)| self.region_of(node.id))
            .collect();
        self.fell.extend(fell.into_iter().map(|region| (region, now)));
        self.fell.retain(|_, at| now.saturating_duration_since(*at) < FALLS_WITHIN);
        if self.fell.is_empty() || self.uplink_suspect {
            return;
        }
        for (node, found) in self.iter().zip(found) {
            let falls = || self.fell.contains_key(&self.region_of(node.id));
            let unheard = || {
                let heard = node.detector.last_heard();
                heard.is_none_or(|at| now.saturating_duration_since(at) >= UNHEARD_FOR)
            };
            if *found == DetectorFinding::Accused
                && node.detector.misses_two()
                && unheard()
                && falls()
            {
                *found = DetectorFinding::Dead;
            }
        }
    }

    /// An agent reported that the process is gone, which suffices as evidence.
    pub fn handle_gone(&mut self, id: NodeId, now: Instant) -> Option<NodeChange> {
        let node = self.get_mut(id)?;
        let before = node.detector.witnesses();
        let change = node.handle_gone(now)?;
        let witnesses = with_earlier(node.detector.witnesses(), before);
        Some(NodeChange { node: id, change, witnesses, since: now })
    }

    /// An operator marks the node Down.
    pub fn eject(&mut self, id: NodeId, now: Instant) -> Option<NodeChange> {
        let node = self.get_mut(id)?;
        let change = node.eject(now)?;
        let operator = vec![(EvidenceSource::Operator, now)];
        let witnesses = with_earlier(node.detector.witnesses(), operator);
        Some(NodeChange { node: id, change, witnesses, since: now })
    }

    /// Marks a node down on the board, where packets take their second hops at once. No other code marks nodes down.
    pub fn mark_down(&self, dead: Hop, since: Instant) {
        if self.is_up(dead) {
            self.board.mark_down(dead.node, since);
        }
    }

    /// Marks the node up as a new incarnation.
    pub fn reincarnate(&mut self, id: NodeId) {
        if let Some(incarnation) = self.board.reincarnate(id) {
            self[id].incarnation = incarnation;
            self.opening_windows[id.0 as usize].renew();
        }
    }

    /// Continues the trust of another process in a node. A node that runs there and was not heard here yet gets a new
    /// incarnation.
    pub fn resume(&mut self, id: NodeId, before: &NodeTrust) {
        let node = &mut self[id];
        let (ran, hop) = (node.runs(), node.hop());
        node.resume(before);
        match node.absent_since() {
            Some(since) => self.mark_down(hop, since),
            None if !ran => self.reincarnate(id),
            None => {}
        }
    }

    /// Calls the start hook of the node nearest to the region, unless a node is being started already. Rooms that it
    /// cannot carry are tried when it runs. The room that needs it has no node, so the budget may be exceeded if the
    /// operator allows it.
    pub fn start_nearest(&mut self, region: RegionId, now: Instant) {
        let may = self.iter().filter(|node| node.may_start(now)).map(|node| node.id);
        let mut may: Vec<NodeId> = may.collect();
        may.sort_by_key(|node| (self.region_of(*node) != region, *node));
        self.start_first(&may, true, now);
    }

    /// Calls the start hook of a node of this region, unless a node is being started already: nodes elsewhere add no
    /// capacity to it.
    pub fn start_in_region(&mut self, region: RegionId, now: Instant) {
        let may = self
            .in_domain(FailureDomain::Region(region))
            .filter(|node| node.may_start(now))
            .map(|node| node.id);
        let may: Vec<NodeId> = may.collect();
        self.start_first(&may, false, now);
    }

    /// Starts no more nodes, since the gateway shuts down.
    pub fn start_no_more(&mut self) {
        self.shutting_down = true;
    }

    /// Ends a start under way, if any, as failed.
    pub fn start_failed(&mut self, id: NodeId, why: NotStarted, now: Instant) {
        let failed = self.get_mut(id).and_then(|node| node.start_failed(now));
        if let Some(again) = failed {
            if matches!(why, NotStarted::Hook | NotStarted::Late) {
                self.judge_provider(id, false, now);
            }
            self.cancel(NodeTimer::StartLate(id));
            self.push(NodeEffect::EndStart { node: id, why });
            self.event(CoreEvent::Start { node: id, step: StartPhase::Failed { why, again } });
        }
    }

    /// Returns true while the gateway doubts its own uplink.
    pub fn doubts_uplink(&self) -> bool {
        self.uplink_suspect
    }

    /// Weakens findings of death by silence to accusations while the uplink is suspected.
    fn doubt_uplink(&mut self, found: &mut [DetectorFinding], now: Instant) {
        let mut doubted: Option<CommonSilence> = None;
        let holds: Vec<bool> = (self.iter().zip(&*found))
            .map(|(node, found)| {
                let silence =
                    (*found == DetectorFinding::Dead).then(|| self.doubt(node, now)).flatten();
                doubted = silence.or(doubted);
                silence.is_some()
            })
            .collect();
        if doubted.is_some_and(|silence| silence.total) {
            self.none_heard = Some(now);
        }
        for id in self.unasked(&holds, now) {
            self.probe(id, now);
        }
        for (found, _) in found.iter_mut().zip(holds).filter(|(_, holds)| *holds) {
            *found = DetectorFinding::Accused;
        }
        let before = std::mem::replace(&mut self.uplink_suspect, doubted.is_some());
        if before != doubted.is_some() {
            let (silent, of) = doubted.map_or((0, 0), |silence| (silence.silent, silence.of));
            self.event(CoreEvent::Uplink { doubted: doubted.is_some(), silent, of });
        }
    }

    /// Nodes without a probe since the newest silence in doubt: no answer of theirs can show that they outlived it.
    ///
    /// A node gets at most one more probe per silence, since its last probe is then later than the silence. A near node
    /// is found dead 15 to 20 ms after it fell silent: if others follow, a far node is probed at most every 10 to
    /// 15 ms.
    fn unasked(&self, in_doubt: &[bool], now: Instant) -> Vec<NodeId> {
        let in_doubt = self.iter().zip(in_doubt).filter(|(_, in_doubt)| **in_doubt);
        let newest = in_doubt.filter_map(|(node, _)| node.detector.fell_silent()).max();
        let by = newest.map(|newest| newest + TOGETHER).filter(|by| *by < now);
        let Some((newest, by)) = newest.zip(by) else { return Vec::new() };
        let unasked = |node: &&Node| {
            let probed = node.detector.last_probed();
            node.settings.probed == NodeProbing::Yes
                && node.runs()
                && was_heard(node, newest)
                && probed.is_none_or(|at| at <= by)
        };
        self.iter().filter(unasked).map(|node| node.id).collect()
    }

    /// The nodes that fell silent together with this one, if they make the uplink suspect.
    fn doubt(&self, node: &Node, now: Instant) -> Option<CommonSilence> {
        if node.detector.is_told_of() {
            return None;
        }
        let fell_silent = node.detector.fell_silent()?;
        let others = self.iter().filter(|other| other.id != node.id && other.runs());
        let (heard, unheard): (Vec<&Node>, Vec<&Node>) =
            others.partition(|other| was_heard(other, fell_silent));
        let alive = heard.iter().filter(|other| is_alive(other, fell_silent)).count() as u32;
        let of = heard.len() as u32 + 1;
        let silent = of - alive;
        // Nodes that never send anything have an unknown state, and count as an alternative.
        let somewhere = unheard.iter().any(|other| other.takes_rooms());
        let alone = of == 1 && somewhere;
        let timings = &self.timings;
        let lasted = |since: Instant| now.saturating_duration_since(since);
        // A start in vain costs less than silence. One kind of evidence alone still needs all of `down_after`.
        let starts = heard.is_empty() && self.iter().any(|other| other.health() == Health::Cold);
        let within = node.detector.down_after() / if starts { 2 } else { 1 };
        // Nodes are heard again one by one.
        let returns = self.none_heard.is_some_and(|at| lasted(at) < within);
        let most = !alone && silent * 100 > of * timings.panic_percent;
        let flows = node.detector.last_received().is_some_and(|at| lasted(at) < within);
        let doubted_for = if starts { within } else { timings.panic_for };
        let holds = match alive {
            0 => most && (flows || lasted(fell_silent) < doubted_for),
            1.. => returns || (most && lasted(fell_silent) < within),
        };
        let accused = |other: &&Node| other.detector.fell_silent().is_some();
        let total = alive == 0 && heard.iter().all(accused);
        holds.then_some(CommonSilence { silent, of, total })
    }

    // Starts within the budget, replacements, and the end of stops.

    /// Calls the start hook of the first of these nodes that the limits allow, unless a node is being started already.
    fn start_first(&mut self, nodes: &[NodeId], for_calls: bool, now: Instant) {
        if self.shutting_down || self.iter().any(Node::is_starting) {
            return;
        }
        let mut refused = None;
        for &node in nodes {
            match self.refusal(node, for_calls, now) {
                None => return self.start(node, now),
                Some(why) => refused = refused.or(Some((node, why))),
            }
        }
        if let Some((node, why)) = refused {
            self.refuse(node, why, now);
        }
    }

    /// Calls the start hook of the node.
    fn start(&mut self, node: NodeId, now: Instant) {
        let (attempt, within) = self[node].start(now);
        self.event(CoreEvent::Start { node, step: StartPhase::Begun { attempt } });
        self.push(NodeEffect::Start(node));
        self.set(NodeTimer::Probe(node), now);
        self.set(NodeTimer::StartLate(node), now + within);
    }

    /// The limit that forbids the start of the node.
    fn refusal(&self, id: NodeId, for_calls: bool, now: Instant) -> Option<StartRefusal> {
        let hook = &self[id].settings.hook;
        if self.providers.is_open(&hook.provider, now) {
            return Some(StartRefusal::Provider);
        }
        let budget = &self.limits.start_budget;
        if for_calls && budget.exceeded_for_calls {
            return None;
        }
        let started = || self.iter().filter(|node| node.is_in_budget());
        if budget.nodes_max.is_some_and(|max| started().count() >= max as usize) {
            return Some(StartRefusal::Nodes);
        }
        let cost = started()
            .fold(hook.cost_milli, |sum, node| sum.saturating_add(node.settings.hook.cost_milli));
        budget.cost_milli_max.filter(|max| cost > *max).map(|_| StartRefusal::Cost)
    }

    fn refuse(&mut self, node: NodeId, why: StartRefusal, now: Instant) {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < REFUSAL_EVERY;
        if !self.refused_starts.get(&why).is_some_and(lately) {
            self.refused_starts.insert(why, now);
            self.event(CoreEvent::Start { node, step: StartPhase::Refused { why } });
        }
    }

    /// A start of the node has succeeded or failed, which its provider is judged by.
    fn judge_provider(&mut self, node: NodeId, has_started: bool, now: Instant) {
        if let Some(node) = self.slots.get(node.0 as usize).and_then(Option::as_ref) {
            self.providers.judge(&node.settings.hook.provider, has_started, now);
        }
        self.report_providers(now);
    }

    fn report_providers(&mut self, now: Instant) {
        let NodeTable { slots, providers, .. } = self;
        let is_listed = |provider: &str| {
            slots.iter().flatten().any(|node| *node.settings.hook.provider == *provider)
        };
        let changes = providers.changes(is_listed, now);
        changes.into_iter().for_each(|change| self.event(change));
    }

    /// Returns the breakers of providers that are not closed.
    pub fn provider_breakers(&self, now: Instant) -> impl Iterator<Item = ProviderBreakerStanding> {
        self.providers.standings(now)
    }

    /// Returns the breakers of providers for the process that continues them.
    pub fn provider_records(&self) -> BTreeMap<Arc<str>, ProviderBreaker> {
        self.providers.records()
    }

    /// Continues the breakers of another process. Breakers that are not closed are reported within a second.
    pub fn restore_providers(&mut self, records: BTreeMap<Arc<str>, ProviderBreaker>) {
        self.providers.restore(records);
    }

    /// The highest load that is expected in the region within the horizon of forecasts.
    pub fn note_expected_load(&mut self, region: RegionId, kbps: u64, now: Instant) {
        self.expected_load.insert(region, (kbps, now));
    }

    /// The load that was forecast lately for the region, kbit/s; 0 without a forecast.
    pub fn expected_load(&self, region: RegionId, now: Instant) -> u64 {
        let forecast = self.expected_load.get(&region);
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < EXPECTED_FOR;
        forecast.filter(|(_, at)| is_fresh(*at)).map_or(0, |(kbps, _)| *kbps)
    }

    /// Tells the empty node to stop, and marks it down.
    pub fn stop(&mut self, id: NodeId, now: Instant) {
        let hop = self[id].hop();
        self[id].stop(now);
        self.mark_down(hop, now);
        self.push(NodeEffect::Stop(id));
        self.event(CoreEvent::Stop { node: id, step: StopPhase::Begun });
    }

    /// The process whose record was restored goes on with the nodes: it alone stops and replaces those that it started.
    pub fn forget_restored(&mut self) {
        self.providers.restore(BTreeMap::new());
        let ended = self.iter_mut().filter_map(|node| {
            let drained = node.drains();
            node.trust.elastic = ElasticState::default();
            (drained && !node.drains()).then_some(node.id)
        });
        for node in ended.collect::<Vec<_>>() {
            self.event(CoreEvent::Draining { node, draining: false });
        }
    }

    /// Replaces a dead node, ends stops, and reports breakers that became half-open. Call it each second.
    pub fn turn_hooks(&mut self, now: Instant) {
        let ended = self.iter_mut().filter_map(|node| Some((node.id, node.stop_ended(now)?)));
        for (node, step) in ended.collect::<Vec<_>>() {
            if step == StopPhase::Failed {
                self.push(NodeEffect::EndStop(node));
            }
            self.event(CoreEvent::Stop { node, step });
        }
        self.report_providers(now);
        let dead = self.iter().filter(|node| node.wants_replacement(now));
        let dead: Vec<NodeId> = dead.map(|node| node.id).collect();
        self.start_first(&dead, false, now);
    }
}

/// For nodes known to exist: something leads there, or the caller just looked it up.
impl Index<NodeId> for NodeTable {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        self.get(id).expect("the number of a node that left is looked up with `get`")
    }
}

impl IndexMut<NodeId> for NodeTable {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        self.get_mut(id).expect("the number of a node that left is looked up with `get`")
    }
}

impl NodeTable {
    /// The zone with this name in the region. A new zone takes the number of a zone that has no nodes and is not drained, or
    /// the next number. The caller must add a node to it at once.
    pub fn zone(&mut self, name: &str, region: RegionId) -> Result<ZoneId, Impossible> {
        self.check_region(region)?;
        let zone = Zone { name: name.into(), region };
        if let Some(known) = self.zones.iter().position(|known| *known == zone) {
            return Ok(ZoneId(known as u32));
        }
        let is_free = |at: &usize| {
            let zone = FailureDomain::Zone(ZoneId(*at as u32));
            self.in_domain(zone).next().is_none() && !self.is_drained(zone)
        };
        let place = (0..self.zones.len()).find(is_free).unwrap_or(self.zones.len());
        match self.zones.get_mut(place) {
            Some(left) => *left = zone,
            None => self.zones.push(zone),
        }
        Ok(ZoneId(place as u32))
    }

    /// Fails if no zone or region has this number.
    pub fn check_domain(&self, domain: FailureDomain) -> Result<(), Impossible> {
        match domain {
            FailureDomain::Region(region) => self.check_region(region),
            FailureDomain::Zone(zone) if (zone.0 as usize) < self.zones.len() => Ok(()),
            FailureDomain::Zone(_) => Err(Impossible::NoSuchZone),
        }
    }

    /// Fails if no region has this number.
    pub fn check_region(&self, region: RegionId) -> Result<(), Impossible> {
        if region.0 as usize >= self.regions { Err(Impossible::NoSuchRegion) } else { Ok(()) }
    }

    /// Returns all regions.
    pub fn regions(&self) -> impl Iterator<Item = RegionId> + use<> {
        (0..self.regions as u32).map(RegionId)
    }

    /// Returns the region of the gateway.
    pub fn home(&self) -> RegionId {
        self.home
    }

    /// Returns all zones, also those without nodes.
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// Adds a node as a new incarnation. It is Down until it answers, then Wary; a node that a hook starts is Cold.
    /// Also returns whether its region or zone drains.
    pub fn add(
        &mut self,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<(NodeId, bool), Impossible> {
        let id = self.next_slot(now).ok_or(Impossible::NoRoomForNodes)?;
        let incarnation = self.board.reincarnate(id).ok_or(Impossible::NoRoomForNodes)?;
        self.mark_down(Hop { node: id, incarnation }, now);
        let pace = OpeningWindow::new(self.limits.openings_at_once);
        match self.opening_windows.get_mut(id.0 as usize) {
            Some(left) => *left = pace,
            None => self.opening_windows.push(pace),
        }
        if settings.probed == NodeProbing::Yes {
            self.set(NodeTimer::Probe(id), now);
        }
        if settings.canary {
            self.set(NodeTimer::Canary(id), now);
        }
        let distance = self.distance(settings.zone);
        self.put(Node::added((id, incarnation), settings, distance, self.timings, now));
        Ok((id, self.is_in_drained(id)))
    }

    /// Changes a node's settings and returns the previous ones.
    pub fn change(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<NodeSettings, Impossible> {
        let node = self.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        let before = std::mem::replace(&mut node.settings, settings);
        match (before.canary, node.settings.canary) {
            (false, true) => self.set(NodeTimer::Canary(id), now),
            (true, false) => {
                node.detector.forget_canaries();
                self.cancel(NodeTimer::Canary(id));
            }
            (true, true) | (false, false) => {}
        }
        Ok(before)
    }

    /// Returns true if an operator drains the zone or region.
    pub fn is_drained(&self, domain: FailureDomain) -> bool {
        self.drained.contains(&domain)
    }

    /// Returns true if an operator drains the zone or region of the node.
    pub fn is_in_drained(&self, node: NodeId) -> bool {
        self.domains_of(node).any(|domain| self.is_drained(domain))
    }

    /// Sets whether present and future nodes of the zone or region drain. Of a region, it replaces what was set of its
    /// zones.
    pub fn set_drained(&mut self, domain: FailureDomain, draining: bool) {
        let zones = &self.zones;
        self.drained.retain(|drained| match (domain, *drained) {
            (FailureDomain::Region(region), FailureDomain::Zone(zone)) => {
                zones[zone.0 as usize].region != region
            }
            (_, drained) => drained != domain,
        });
        if draining {
            self.drained.insert(domain);
        }
    }

    /// Frees the slot of a node to which no room leads any more.
    pub fn forget(&mut self, id: NodeId, now: Instant) {
        self.start_failed(id, NotStarted::Removed, now);
        if let Some(node) = self.get(id) {
            self.mark_down(node.hop(), now);
        }
        for timer in [NodeTimer::Probe(id), NodeTimer::Canary(id), NodeTimer::Drain(id)] {
            self.cancel(timer);
        }
        if self.slots.get_mut(id.0 as usize).and_then(Option::take).is_some() {
            self.free.push_back((id, now));
        }
        self.push(NodeEffect::Forget(id));
    }
}

/// The smallest window. With no openings under way, a recovery of the node would go unnoticed.
const WINDOW_MIN: u32 = 4;

/// The largest window. Telling a node more at once gains nothing.
const WINDOW_MAX: u32 = 1_024;

/// An opening that takes longer shrinks the window.
pub const ANSWERED_IN_TIME: Duration = Duration::from_millis(250);

/// Late answers within this time shrink the window only once.
const SLOWER_EVERY: Duration = Duration::from_millis(100);

/// Order of openings when not all fit in the window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OpeningClass {
    /// The session's room is stranded.
    Stranded,
    /// The session's room moves to this node.
    Moving,
    /// The session is new.
    Newcomer,
    /// The opening is at a spare, and no client waits for it.
    Spare,
}

/// A position in the queue: by class, priority (calls before streams) and arrival.
pub type QueuePosition = (OpeningClass, Reverse<i64>, u64);

/// A node's window, as in congestion control (RFC 5681, 3.1). It grows with openings answered in time: by one for each
/// until the first late one, then by one per window. It halves on late or refused openings.
#[derive(Clone, Default, Debug)]
pub struct OpeningWindow {
    window: u32,
    start: u32,
    /// Answers in time since the window last grew.
    credit: u32,
    slowed: Option<Instant>,
    under_way: u32,
    /// The number of the next arrival in the queue.
    drawn: u64,
    waiting: BTreeMap<QueuePosition, (SessionId, Hop)>,
    turns: BTreeMap<(SessionId, Hop), QueuePosition>,
}

impl OpeningWindow {
    /// Starts with this window.
    pub fn new(start: u32) -> OpeningWindow {
        OpeningWindow { window: start.min(WINDOW_MAX), start, ..OpeningWindow::default() }
    }

    /// Returns the window without openings.
    pub fn idle(&self) -> OpeningWindow {
        let OpeningWindow { window, start, credit, slowed, .. } = *self;
        OpeningWindow { window, start, credit, slowed, ..OpeningWindow::default() }
    }

    /// Returns the number of the next place in the queue.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Returns true if this opening may start now and none waits before it; otherwise it is queued.
    pub fn begin(&mut self, turn: QueuePosition, session: SessionId, hop: Hop) -> bool {
        self.drawn += 1;
        if self.waiting.is_empty() && self.under_way < self.window {
            self.under_way += 1;
            return true;
        }
        self.waiting.insert(turn, (session, hop));
        self.turns.insert((session, hop), turn);
        false
    }

    /// The next opening that may start now.
    pub fn start_next(&mut self) -> Option<(SessionId, Hop)> {
        if self.under_way >= self.window {
            return None;
        }
        let (_, next) = self.waiting.pop_first()?;
        self.turns.remove(&next);
        self.under_way += 1;
        Some(next)
    }

    /// Removes an opening that is no longer wanted from the queue.
    pub fn forget(&mut self, session: SessionId, hop: Hop) {
        if let Some(turn) = self.turns.remove(&(session, hop)) {
            self.waiting.remove(&turn);
        }
    }

    /// An opening under way ended, for whatever reason.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// An opening was answered in time.
    pub fn faster(&mut self) {
        let in_demand = self.under_way + 1 >= self.window || !self.waiting.is_empty();
        if !in_demand || self.window >= WINDOW_MAX {
            return;
        }
        self.credit += 1;
        if self.slowed.is_none() || self.credit >= self.window {
            self.credit = 0;
            self.window += 1;
        }
    }

    /// An opening was answered late, or refused.
    pub fn slower(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < SLOWER_EVERY;
        if !self.slowed.is_some_and(lately) {
            self.slowed = Some(now);
            self.credit = 0;
            self.window = (self.window / 2).max(WINDOW_MIN.min(self.start));
        }
    }

    /// Resets the window for a new incarnation.
    pub fn renew(&mut self) {
        (self.window, self.credit, self.slowed) = (self.start.min(WINDOW_MAX), 0, None);
    }

    /// As many openings wait as may be under way. Rooms that can wait, or be placed elsewhere, should.
    pub fn is_busy(&self) -> bool {
        self.waiting.len() >= self.window as usize
    }

    /// Number of openings under way, and number that wait.
    pub fn counts(&self) -> (u32, usize) {
        (self.under_way, self.waiting.len())
    }
}

/// Adds the evidence of other sources.
fn with_earlier(
    mut witnesses: Vec<(EvidenceSource, Instant)>,
    mut before: Vec<(EvidenceSource, Instant)>,
) -> Vec<(EvidenceSource, Instant)> {
    before.retain(|(old, _)| witnesses.iter().all(|(witness, _)| witness != old));
    witnesses.extend(before);
    witnesses
}

fn was_heard(node: &Node, then: Instant) -> bool {
    let within = node.detector.probe_every() * HEARD_WITHIN_PROBES;
    node.detector.last_heard().is_some_and(|heard| heard + within >= then)
}

/// The node has been heard since `then`: by an answer, which proves both directions, or by media if it gives no
/// answers. A reported death also counts.
fn is_alive(node: &Node, then: Instant) -> bool {
    let proof = match node.settings.probed {
        NodeProbing::Yes => node.detector.last_answer(),
        NodeProbing::No => node.detector.last_received(),
    };
    node.detector.is_told_of() || proof.is_some_and(|at| at > then + TOGETHER)
}

#[cfg(test)]
mod tests;
