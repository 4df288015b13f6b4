//! The capacity that rooms use: load where they are placed, and reserves where they would fail over.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_model::NodeId;

use super::gauge::Gauge;
use crate::small::SmallSet;

/// The capacity that one room uses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Holding {
    /// The node that carries the room; `None` before placement and while the room is stranded.
    pub(crate) on: Option<NodeId>,
    /// The node that reserves capacity for the death of `on`.
    pub(crate) reserve: Option<NodeId>,
    /// The node that the room is moving to. During the move the room counts at both nodes.
    pub(crate) heading: Option<NodeId>,
    /// In hitless mode: the second node that carries all packets.
    pub(crate) twin: Option<NodeId>,
    pub(crate) kbps: u64,
}

impl Holding {
    /// Nodes that carry the room, or are about to.
    pub(crate) fn loads(self) -> impl Iterator<Item = NodeId> {
        let heading = self.heading.filter(|heading| Some(*heading) != self.on);
        let twin = self.twin.filter(|twin| ![self.on, self.heading].contains(&Some(*twin)));
        self.on.into_iter().chain(heading).chain(twin)
    }

    /// Standby and first node. `None` if the standby already carries the room's load, or if there is no first node.
    fn reserves(self) -> Option<(NodeId, NodeId)> {
        let standby = self.reserve.filter(|standby| Some(*standby) != self.heading)?;
        let on = self.on.filter(|_| self.kbps > 0)?;
        Some((standby, on))
    }
}

/// Capacity, load and reserves of every node.
///
/// A node's reserve is the largest load that the death of one other node would bring, not the sum over all nodes.
#[derive(Debug)]
pub(crate) struct CapacityLedger {
    gauges: Vec<Gauge>,
    load: Vec<u64>,
    rooms: Vec<u32>,
    /// Other slots of the same machine. Their load uses the same capacity.
    beside: Vec<SmallSet<NodeId>>,
    /// Indexed by standby and first node.
    reserved: BTreeMap<(NodeId, NodeId), u64>,
}

impl CapacityLedger {
    pub(crate) fn new(capacity: Vec<u64>) -> CapacityLedger {
        let nodes = capacity.len();
        let gauges = capacity.into_iter().map(Gauge::new).collect();
        CapacityLedger {
            gauges,
            load: vec![0; nodes],
            rooms: vec![0; nodes],
            beside: vec![SmallSet::default(); nodes],
            reserved: BTreeMap::new(),
        }
    }

    pub(crate) fn view(&self) -> LedgerView<'_> {
        self.without(Holding::default())
    }

    pub(crate) fn without(&self, holding: Holding) -> LedgerView<'_> {
        LedgerView { ledger: self, without: holding }
    }

    /// Adds a node with its configured capacity.
    pub(crate) fn add(&mut self, node: NodeId, kbps: u64) {
        let place = node.0 as usize;
        if place == self.gauges.len() {
            self.load.push(0);
            self.rooms.push(0);
            self.beside.push(SmallSet::default());
            self.gauges.push(Gauge::new(kbps));
        } else {
            self.gauges[place] = Gauge::new(kbps);
        }
    }

    /// The two nodes are the same machine under its old and its new name, so its capacity exists once.
    pub(crate) fn is_one_machine(&mut self, nodes: [NodeId; 2]) {
        let [one, other] = nodes;
        self.beside[one.0 as usize].insert(other);
        self.beside[other.0 as usize].insert(one);
    }

    /// Removes the node. Its machine then belongs to the other slot alone.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.beside[node.0 as usize] = SmallSet::default();
        self.beside.iter_mut().for_each(|beside| beside.remove(&node));
    }

    /// Takes a node's changed configured capacity.
    pub(crate) fn claim(&mut self, node: NodeId, kbps: u64) {
        self.gauges[node.0 as usize].claim(kbps);
    }

    pub(crate) fn gauge_mut(&mut self, node: NodeId) -> &mut Gauge {
        &mut self.gauges[node.0 as usize]
    }

    /// Takes the load that a node reports.
    pub(crate) fn handle_load(&mut self, node: NodeId, permille: u16, now: Instant) {
        let ours = self.view().load(node);
        self.gauges[node.0 as usize].handle_load(permille, ours, now);
    }

    /// Takes a load report of a draining node, which does not change its capacity.
    pub(crate) fn hold_capacity(&mut self, node: NodeId, now: Instant) {
        self.gauges[node.0 as usize].hold(now);
    }

    /// Takes a node's refusal of a session because it is full.
    pub(crate) fn handle_full(&mut self, node: NodeId, now: Instant) {
        let ours = self.view().load(node);
        self.gauges[node.0 as usize].handle_full(ours, now);
    }

    /// Restores measured capacities over time.
    pub(crate) fn recover(&mut self, now: Instant) {
        self.gauges.iter_mut().for_each(|gauge| gauge.recover(now));
    }

    pub(crate) fn hold(&mut self, holding: Holding) {
        for node in holding.loads() {
            self.load[node.0 as usize] += holding.kbps;
        }
        if let Some(on) = holding.on {
            self.rooms[on.0 as usize] += 1;
        }
        if let Some(key) = holding.reserves() {
            *self.reserved.entry(key).or_default() += holding.kbps;
        }
    }

    pub(crate) fn release(&mut self, holding: Holding) {
        for node in holding.loads() {
            self.load[node.0 as usize] -= holding.kbps;
        }
        if let Some(on) = holding.on {
            self.rooms[on.0 as usize] -= 1;
        }
        if let Some(key) = holding.reserves()
            && let Some(kbps) = self.reserved.get_mut(&key)
        {
            *kbps -= holding.kbps;
            if *kbps == 0 {
                self.reserved.remove(&key);
            }
        }
    }
}

/// The ledger without one room's holding, which that room may use again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LedgerView<'a> {
    ledger: &'a CapacityLedger,
    without: Holding,
}

impl<'a> LedgerView<'a> {
    pub(crate) fn gauge(self, node: NodeId) -> &'a Gauge {
        &self.ledger.gauges[node.0 as usize]
    }

    pub(crate) fn capacity(self, node: NodeId) -> u64 {
        self.gauge(node).kbps()
    }

    pub(crate) fn rooms(self, node: NodeId) -> u32 {
        self.ledger.rooms[node.0 as usize]
    }

    /// Nodes that reserve capacity for the death of `first`.
    pub(crate) fn standbys_of(self, first: NodeId) -> Vec<NodeId> {
        self.ledger
            .reserved
            .keys()
            .filter(|(_, of)| *of == first)
            .map(|(standby, _)| *standby)
            .collect()
    }

    /// A room may stand on the node without breaking a reserve.
    pub(crate) fn fits(self, node: NodeId, kbps: u64) -> bool {
        self.load(node) + self.reserve(node) + kbps <= self.capacity(node)
    }

    /// A room may stand on the node if its reserves are given up.
    pub(crate) fn carries(self, node: NodeId, kbps: u64) -> bool {
        self.load(node) + kbps <= self.capacity(node)
    }

    /// The node could also carry this room if `first` died. Loads that other deaths would bring are not added.
    pub(crate) fn fits_reserve(self, standby: NodeId, first: NodeId, kbps: u64) -> bool {
        let brought = self.reserved((standby, first)) + kbps;
        self.load(standby) + brought <= self.capacity(standby)
    }

    /// The load of the node's machine, over all its slots.
    fn load(self, node: NodeId) -> u64 {
        let beside = self.ledger.beside[node.0 as usize].iter();
        self.slot_load(node) + beside.map(|other| self.slot_load(*other)).sum::<u64>()
    }

    fn slot_load(self, node: NodeId) -> u64 {
        let carries = self.without.loads().any(|carrier| carrier == node);
        self.ledger.load[node.0 as usize] - if carries { self.without.kbps } else { 0 }
    }

    fn reserve(self, node: NodeId) -> u64 {
        let of_node = (node, NodeId(0))..=(node, NodeId(u32::MAX));
        let deaths = self.ledger.reserved.range(of_node).map(|(key, _)| self.reserved(*key));
        deaths.max().unwrap_or(0)
    }

    /// The load that one death would bring.
    fn reserved(self, key: (NodeId, NodeId)) -> u64 {
        let own = if self.without.reserves() == Some(key) { self.without.kbps } else { 0 };
        self.ledger.reserved.get(&key).map_or(0, |kbps| kbps - own)
    }

    /// Load plus reserve, in thousandths of the capacity.
    pub(crate) fn permille(self, node: NodeId) -> u64 {
        let used = self.load(node) + self.reserve(node);
        used * 1_000 / self.capacity(node).max(1)
    }

    /// Load alone, in thousandths of the capacity.
    pub(crate) fn carried_permille(self, node: NodeId) -> u64 {
        self.load(node) * 1_000 / self.capacity(node).max(1)
    }
}

#[cfg(test)]
mod tests;
