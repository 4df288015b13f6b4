//! What each node costs.

use evenkeel_plugin_sdk::prelude::*;

use crate::RouteNearest;
use crate::choice::{Candidate, Choice};

/// A node whose delay nobody measured yet is taken for one in another region. Milliseconds.
const DELAY_UNMEASURED: f64 = 100.0;

/// Where a room would best be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) region: Option<RegionId>,
    pub(crate) zone: Option<ZoneId>,
}

/// A node that may carry a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) id: NodeId,
    pub(crate) zone: Option<ZoneId>,
    pub(crate) region: Option<RegionId>,
    /// Suspect, or full: for new rooms only where nothing else is left.
    pub(crate) avoid: bool,
    pub(crate) suspect: bool,
    /// One-way delay to it, in milliseconds, if somebody measured it.
    pub(crate) delay: Option<f64>,
    /// Part of its probes that is lost.
    pub(crate) loss: f64,
    /// What it costs anyone but for its load, in milliseconds.
    lasting: f64,
    /// Part of its capacity that is taken.
    load: f64,
    /// What it can carry, kbit/s; 1 where nobody said.
    capacity: f64,
    /// Rooms on it.
    rooms: f64,
}

/// The nodes that may carry a room: neither Down nor draining.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    pub(crate) settings: &'a RouteNearest,
    usable: Vec<Seen>,
    /// They carry what they have until it moved.
    draining: Vec<NodeId>,
}

impl<'a> Survey<'a> {
    pub(crate) fn of(settings: &'a RouteNearest, nodes: &Nodes<'_>) -> Survey<'a> {
        let nodes = nodes.iter();
        let usable = Vec::with_capacity(nodes.len());
        let mut survey = Survey { settings, usable, draining: Vec::new() };
        for node in nodes {
            let health = node.health();
            if health == Some(Health::Down) {
                continue;
            }
            if node.draining() == Some(true) {
                survey.draining.push(node.id());
            } else {
                survey.usable.push(Seen::of(settings, &node, health));
            }
        }
        survey
    }

    pub(crate) fn usable(&self, id: NodeId) -> Option<&Seen> {
        self.usable.iter().find(|seen| seen.id == id)
    }

    pub(crate) fn is_draining(&self, id: NodeId) -> bool {
        self.draining.contains(&id)
    }

    /// What a node costs a room with this wish, in milliseconds.
    pub(crate) fn cost(&self, seen: &Seen, wish: &Wish) -> f64 {
        self.lasting(seen, wish) + self.crowding(seen)
    }

    fn crowding(&self, seen: &Seen) -> f64 {
        seen.load * seen.load * self.settings.load_weight
    }

    /// The same but for its load, which changes from one moment to the next.
    fn lasting(&self, seen: &Seen, wish: &Wish) -> f64 {
        let far = if seen.region != wish.region {
            self.settings.region_cost
        } else if wish.zone.is_some() && seen.zone != wish.zone {
            self.settings.zone_cost
        } else {
            0.0
        };
        seen.lasting + far
    }

    /// A room moves: from now on both nodes have as much more and less load as a room of the first is on average.
    pub(crate) fn shift(&mut self, from: Option<NodeId>, to: Option<NodeId>) {
        let find = |id: NodeId| self.usable.iter().position(|seen| seen.id == id);
        let (Some(from), Some(to)) = (from.and_then(find), to.and_then(find)) else {
            return;
        };
        let source = &mut self.usable[from];
        if source.rooms < 1.0 || from == to {
            return;
        }
        let kbps = source.load * source.capacity / source.rooms;
        source.rooms -= 1.0;
        source.load -= kbps / source.capacity;
        let target = &mut self.usable[to];
        target.rooms += 1.0;
        target.load += kbps / target.capacity;
        target.avoid = target.suspect || target.load >= self.settings.full_at;
    }

    /// The nodes as a room with this wish sees them.
    pub(crate) fn choice(&self, wish: &Wish, room: RoomId) -> Choice<'_> {
        let option = |seen| {
            let lasting = self.lasting(seen, wish);
            let cost = lasting + self.crowding(seen);
            Candidate { rank: u8::from(seen.avoid), cost, lasting, seen }
        };
        let candidates = self.usable.iter().map(option).collect();
        Choice { settings: self.settings, room, candidates }
    }
}

impl Seen {
    fn of(settings: &RouteNearest, node: &Node<'_>, health: Option<Health>) -> Seen {
        let delay = node.delay_us().map(|us| f64::from(us) / 1000.0);
        let far = delay.unwrap_or(DELAY_UNMEASURED) * settings.delay_weight;
        let loss = f64::from(node.loss_node_ppm().unwrap_or(0)) / 1e6;
        let load = f64::from(node.load_permille().unwrap_or(0)) / 1000.0;
        let wary = if health == Some(Health::Wary) { settings.wary_cost } else { 0.0 };
        let suspect = health == Some(Health::Suspect);
        Seen {
            id: node.id(),
            zone: node.zone(),
            region: node.region(),
            avoid: suspect || load >= settings.full_at,
            suspect,
            delay,
            loss,
            lasting: far + loss * 100.0 * settings.loss_weight + wary,
            load,
            capacity: f64::from(node.capacity_kbps().unwrap_or(1).max(1)),
            rooms: f64::from(node.rooms().unwrap_or(0)),
        }
    }

    /// Capacity that nobody has, kbit/s. What is full or more has a little, so that there is a choice among the full.
    pub(crate) fn free(&self) -> f64 {
        self.capacity * (1.0 - self.load).max(0.001)
    }
}
