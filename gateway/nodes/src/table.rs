//! The set of nodes, their health, and the board on which packets see them.

pub(crate) mod elastic;
pub(crate) mod watch;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Board, CoreEvent, CoreSettings, FailureDomain, FailureScope, GatewayLimits, Hop, Impossible,
    NodeId, NodeProbing, NodeSettings, NotStarted, RegionId, SessionId, StartRefusal, Timings,
    Zone, ZoneId,
};

use crate::node::Node;
use crate::providers::ProviderBreakers;

/// A slot is not reused for this long after its node left, so that late answers about that node have arrived.
const RESTS: Duration = Duration::from_secs(10);

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
            if node.health() == evenkeel_model::Health::Cold {
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

    /// Returns the nodes of the zone or region.
    pub fn in_domain(&self, domain: FailureDomain) -> impl Iterator<Item = &Node> {
        self.iter().filter(move |node| match domain {
            FailureDomain::Zone(zone) => node.settings.zone == zone,
            FailureDomain::Region(region) => self.region_of(node.id) == region,
        })
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

#[cfg(test)]
mod tests;
