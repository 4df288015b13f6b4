//! The nodes, each in a slot: its number, by which the board and every table of nodes know it. A slot that its node left is
//! taken again by another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::pace::Pace;
use crate::{Board, Limits, NodeId, RegionId};

/// A slot that its node left is not taken again for so long: by then whatever was asked or said of that node has come.
const RESTS: Duration = Duration::from_secs(10);

/// Slots, most of them with a node.
#[derive(Debug)]
pub(crate) struct Nodes {
    slots: Vec<Option<Node>>,
    /// Those without one, and since when; the first of them was left first.
    free: VecDeque<(NodeId, Instant)>,
    /// So many there may be.
    slots_max: usize,
    pub(crate) board: Arc<Board>,
    /// How many sessions each opens at a time, by its number.
    pub(crate) paces: Vec<Pace>,
    /// Regions that an operator drains, with nodes that come there later.
    pub(crate) drained: BTreeSet<RegionId>,
    pub(crate) next_probe: u64,
    pub(crate) last_watch: Option<Instant>,
    /// Whether we or a worker came late to the last watch.
    pub(crate) stalled: bool,
    /// Whether our own uplink is doubted.
    pub(crate) uplink_doubted: bool,
    /// When no node at all was heard last, while it was doubted.
    pub(crate) nobody_heard: Option<Instant>,
    /// Regions in which a node fell silent just now, and when.
    pub(crate) fell: BTreeMap<RegionId, Instant>,
}

impl Nodes {
    pub(crate) fn new(nodes: Vec<Node>, limits: &Limits) -> Nodes {
        let slots_max = limits.nodes_max;
        Nodes {
            board: Arc::new(Board::with_room(nodes.len(), slots_max)),
            paces: nodes.iter().map(|_| Pace::new(limits.openings_at_once)).collect(),
            slots: nodes.into_iter().map(Some).collect(),
            free: VecDeque::new(),
            slots_max,
            drained: BTreeSet::new(),
            next_probe: 1,
            last_watch: None,
            stalled: false,
            uplink_doubted: false,
            nobody_heard: None,
            fell: BTreeMap::new(),
        }
    }

    /// The slot that the next node takes, if there is one: one that rested, or else a new one.
    pub(crate) fn next_slot(&self, now: Instant) -> Option<NodeId> {
        let rested = |since: Instant| now.saturating_duration_since(since) >= RESTS;
        match self.free.front() {
            Some((slot, since)) if rested(*since) => Some(*slot),
            _ if self.slots.len() < self.slots_max => Some(NodeId(self.slots.len() as u32)),
            _ => None,
        }
    }

    /// How many nodes could be added now.
    pub(crate) fn vacancies(&self, now: Instant) -> usize {
        let rested = |since: Instant| now.saturating_duration_since(since) >= RESTS;
        let free = self.free.iter().filter(|(_, since)| rested(*since)).count();
        free + self.slots_max.saturating_sub(self.slots.len())
    }

    /// The node takes its [slot](Nodes::next_slot).
    pub(crate) fn put(&mut self, node: Node) {
        let place = node.id.0 as usize;
        self.free.retain(|(slot, _)| *slot != node.id);
        if place == self.slots.len() {
            self.slots.push(Some(node));
        } else {
            self.slots[place] = Some(node);
        }
    }

    /// The node leaves its slot.
    pub(crate) fn forget(&mut self, id: NodeId, now: Instant) {
        if self.slots.get_mut(id.0 as usize).and_then(Option::take).is_some() {
            self.free.push_back((id, now));
        }
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Node> {
        self.slots.get(place)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut Node> {
        self.slots.get_mut(place)?.as_mut()
    }

    /// Those that are there, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.slots.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.slots.iter_mut().flatten()
    }

    /// How many are there.
    pub(crate) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many slots there are, with a node or without.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }
}

/// Of a node that is known to be there: it carries something, or was just looked at.
impl Index<usize> for Nodes {
    type Output = Node;

    fn index(&self, place: usize) -> &Node {
        self.get(place).expect("who has the number of a node that left looks it up")
    }
}

impl IndexMut<usize> for Nodes {
    fn index_mut(&mut self, place: usize) -> &mut Node {
        self.get_mut(place).expect("who has the number of a node that left looks it up")
    }
}
