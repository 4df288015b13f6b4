//! The set of nodes, their health, and the board on which packets see them.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod detector;
mod list;
mod node;
mod pace;
mod uplink;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use detector::DetectorFinding;
use evenkeel_model::{
    Board, CoreEvent, CoreSettings, GatewayLimits, Hop, NodeId, NotStarted, RegionId, Timings, Zone,
};
pub use node::{Node, NodeEvidence, NodeTransition, NodeTrust};
pub use pace::{ANSWERED_IN_TIME, OpeningClass, OpeningWindow, QueuePosition};
pub use watch::NodeChange;
pub use watch::{AgentWord, WATCH_EVERY};

/// A slot is not reused for this long after its node left, so that late answers about that node have arrived.
const RESTS: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct NodeTable {
    slots: Vec<Option<Node>>,
    /// Slots without a node, with the time since when, in the order in which they became free.
    free: VecDeque<(NodeId, Instant)>,
    board: Arc<Board>,
    paces: Vec<OpeningWindow>,
    home: RegionId,
    regions: usize,
    zones: Vec<Zone>,
    timings: Timings,
    limits: GatewayLimits,
    /// Regions that an operator drains. Nodes added there drain as well.
    drained: BTreeSet<RegionId>,
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
    effects: VecDeque<NodeEffect>,
}

/// Instructions to the owner of the table.
#[derive(Clone, Debug)]
pub enum NodeEffect {
    Event(CoreEvent),
    /// Probe the node's media port.
    Probe {
        node: NodeId,
        sequence: u64,
    },
    /// Send a packet between the node's canary sessions.
    Canary {
        node: NodeId,
        sequence: u64,
    },
    /// Call the hook that starts the node.
    Start {
        node: NodeId,
    },
    /// End that hook.
    EndStart {
        node: NodeId,
        why: NotStarted,
    },
    /// The node left the table.
    Forget {
        node: NodeId,
    },
    Set(NodeTimer, Instant),
    Cancel(NodeTimer),
}

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
            paces: settings
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
            effects: VecDeque::new(),
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

    /// The next effect. Take all after each call that changes the table.
    pub fn poll_effect(&mut self) -> Option<NodeEffect> {
        self.effects.pop_front()
    }

    fn event(&mut self, event: CoreEvent) {
        self.effects.push_back(NodeEffect::Event(event));
    }

    fn set(&mut self, timer: NodeTimer, at: Instant) {
        self.effects.push_back(NodeEffect::Set(timer, at));
    }

    fn cancel(&mut self, timer: NodeTimer) {
        self.effects.push_back(NodeEffect::Cancel(timer));
    }

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

    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.slots.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.slots.iter_mut().flatten()
    }

    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Number of slots, with or without a node.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn pace(&self, id: NodeId) -> &OpeningWindow {
        &self.paces[id.0 as usize]
    }

    pub fn pace_mut(&mut self, id: NodeId) -> &mut OpeningWindow {
        &mut self.paces[id.0 as usize]
    }

    pub fn paces(&self) -> impl Iterator<Item = &OpeningWindow> {
        self.paces.iter()
    }

    /// Nodes with a queue of openings as long as their window.
    pub fn busy(&self) -> Vec<NodeId> {
        self.iter().map(|node| node.id).filter(|id| self.pace(*id).is_busy()).collect()
    }

    pub fn hops(&self, nodes: &[NodeId]) -> Vec<Hop> {
        nodes.iter().filter_map(|&node| self.get(node)).map(Node::hop).collect()
    }

    pub fn is_up(&self, hop: Hop) -> bool {
        self.board.is_up(hop.node, hop.incarnation)
    }

    /// The node's region; the home region if the node is gone, since nothing leads there.
    pub fn region_of(&self, node: NodeId) -> RegionId {
        let zone = self.get(node).map(|node| node.settings.zone);
        zone.map_or(self.home, |zone| self.zones[zone.0 as usize].region)
    }

    pub fn in_region(&self, region: RegionId) -> impl Iterator<Item = &Node> {
        self.iter().filter(move |node| self.region_of(node.id) == region)
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

#[cfg(test)]
mod tests;
