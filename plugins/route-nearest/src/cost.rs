//! Costs of nodes.

use evenkeel_plugin_sdk::prelude::*;

use crate::RouteNearest;
use crate::choice::{Choice, RankedNode};

/// Assumed delay of a node without a measurement: that of another region. Milliseconds.
const DELAY_UNMEASURED: f64 = 100.0;

/// The preferred place of a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreferredLocation {
    pub(crate) region: Option<RegionId>,
    pub(crate) zone: Option<ZoneId>,
}

/// A node that may carry a room. Values that every choice needs are stored; others are looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsableNode<'a> {
    node: Node<'a>,
    /// True if the node is suspect or full. It gets new rooms only if no other node is left.
    pub(crate) avoid: bool,
    pub(crate) suspect: bool,
    /// The node's cost without load and place, in milliseconds.
    lasting: f64,
    /// The node's load, as a share of its capacity.
    load: f64,
    /// Number of rooms that moved to the node since it was measured, less those that left.
    arrived: f64,
}

/// The nodes that may carry a room: neither Down nor draining.
#[derive(Debug)]
pub(crate) struct NodeSurvey<'a> {
    pub(crate) settings: &'a RouteNearest,
    usable: Vec<UsableNode<'a>>,
    /// Draining nodes, which carry their rooms until these have moved.
    draining: Vec<NodeId>,
}

impl<'a> NodeSurvey<'a> {
    pub(crate) fn of(settings: &'a RouteNearest, nodes: &'a Nodes<'_>) -> NodeSurvey<'a> {
        let nodes = nodes.iter();
        let usable = Vec::with_capacity(nodes.len());
        let mut survey = NodeSurvey { settings, usable, draining: Vec::new() };
        for node in nodes {
            let health = node.health();
            if health == Some(Health::Down) {
                continue;
            }
            if node.draining() == Some(true) {
                survey.draining.push(node.id());
            } else {
                survey.usable.push(UsableNode::of(settings, node, health));
            }
        }
        survey
    }

    pub(crate) fn usable(&self, id: NodeId) -> Option<&UsableNode<'a>> {
        self.usable.iter().find(|seen| seen.id() == id)
    }

    pub(crate) fn is_draining(&self, id: NodeId) -> bool {
        self.draining.contains(&id)
    }

    /// Returns the cost of a node for a room with this wish, in milliseconds.
    pub(crate) fn cost(&self, seen: &UsableNode<'_>, wish: &PreferredLocation) -> f64 {
        self.lasting(seen, wish) + self.crowding(seen)
    }

    fn crowding(&self, seen: &UsableNode<'_>) -> f64 {
        seen.load * seen.load * self.settings.load_weight
    }

    /// Returns the cost without load, which changes quickly.
    fn lasting(&self, seen: &UsableNode<'_>, wish: &PreferredLocation) -> f64 {
        let far = if seen.region() != wish.region {
            self.settings.region_cost
        } else if wish.zone.is_some() && seen.zone() != wish.zone {
            self.settings.zone_cost
        } else {
            0.0
        };
        seen.lasting + far
    }

    /// Accounts for the move of a room. Uses the average load of a room on its first node.
    pub(crate) fn shift(&mut self, from: Option<NodeId>, to: Option<NodeId>) {
        let find = |id: NodeId| self.usable.iter().position(|seen| seen.id() == id);
        let (Some(from), Some(to)) = (from.and_then(find), to.and_then(find)) else {
            return;
        };
        let source = &mut self.usable[from];
        let rooms = source.rooms();
        if rooms < 1.0 || from == to {
            return;
        }
        let kbps = source.load * source.capacity() / rooms;
        source.arrived -= 1.0;
        source.load -= kbps / source.capacity();
        let target = &mut self.usable[to];
        target.arrived += 1.0;
        target.load += kbps / target.capacity();
        target.avoid = target.suspect || target.load >= self.settings.full_at;
    }

    /// Returns the nodes as candidates for a room with this wish.
    pub(crate) fn choice(&self, wish: &PreferredLocation, room: RoomId) -> Choice<'_> {
        let option = |seen| {
            let lasting = self.lasting(seen, wish);
            let cost = lasting + self.crowding(seen);
            RankedNode { rank: u8::from(seen.avoid), cost, lasting, seen }
        };
        let candidates = self.usable.iter().map(option).collect();
        Choice { settings: self.settings, room, candidates }
    }
}

impl<'a> UsableNode<'a> {
    fn of(settings: &RouteNearest, node: Node<'a>, health: Option<Health>) -> UsableNode<'a> {
        let seen = UsableNode {
            node,
            avoid: false,
            suspect: health == Some(Health::Suspect),
            lasting: 0.0,
            load: f64::from(node.load_permille().unwrap_or(0)) / 1000.0,
            arrived: 0.0,
        };
        let far = seen.delay().unwrap_or(DELAY_UNMEASURED) * settings.delay_weight;
        let wary = if health == Some(Health::Wary) { settings.wary_cost } else { 0.0 };
        let decay = f64::from(node.decay_permille().unwrap_or(0)) / 1000.0;
        let decaying = decay * settings.decay_cost;
        let lasting = far + seen.loss() * 100.0 * settings.loss_weight + wary + decaying;
        UsableNode { avoid: seen.suspect || seen.load >= settings.full_at, lasting, ..seen }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.node.id()
    }

    pub(crate) fn zone(&self) -> Option<ZoneId> {
        self.node.zone()
    }

    pub(crate) fn region(&self) -> Option<RegionId> {
        self.node.region()
    }

    /// Returns the one-way delay in milliseconds, if measured.
    pub(crate) fn delay(&self) -> Option<f64> {
        self.node.delay_us().map(|us| f64::from(us) / 1000.0)
    }

    /// Returns the share of lost probes.
    pub(crate) fn loss(&self) -> f64 {
        f64::from(self.node.loss_node_ppm().unwrap_or(0)) / 1e6
    }

    /// Returns the free capacity, kbit/s. A full node has a small value, so that full nodes can be compared.
    pub(crate) fn free(&self) -> f64 {
        self.capacity() * (1.0 - self.load).max(0.001)
    }

    /// Returns the capacity, kbit/s; 1 if unknown.
    fn capacity(&self) -> f64 {
        f64::from(self.node.capacity_kbps().unwrap_or(1).max(1))
    }

    fn rooms(&self) -> f64 {
        f64::from(self.node.rooms().unwrap_or(0)) + self.arrived
    }
}
