//! The circuit breakers of regions and zones, and the nodes that they shut.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_breakers::{JudgedZone, WINDOW};
use evenkeel_model::{BreakerState, CoreEvent, FailureDomain, NodeId, RoomId, ZoneId};
use evenkeel_nodes::{Node, NodeTable};

use crate::capacity::Capacity;
use crate::effects::{Effects, Timer};

impl Capacity {
    /// Ends a window. Returns true if a breaker closed.
    pub(crate) fn weigh_breakers(
        &mut self,
        nodes: &NodeTable,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        effects.set(Timer::Breakers, now + WINDOW);
        let zones: BTreeSet<ZoneId> = nodes.iter().map(|node| node.settings.zone).collect();
        let ledger = self.ledger();
        let judged = |zone| {
            let there = || nodes.in_domain(FailureDomain::Zone(zone));
            let running = || there().filter(|node| node.runs());
            let takers = there().filter(|node| node.welcomes_rooms() && !node.loses());
            JudgedZone {
                zone,
                region: nodes.zones()[zone.0 as usize].region,
                is_listed: there().any(|node| !node.trust.removed),
                load_permille: takers.map(|node| ledger.permille(node.id)).min(),
                loses: running().next().map(|_| running().all(Node::loses)),
            }
        };
        let zones: Vec<JudgedZone> = zones.into_iter().map(judged).collect();
        let events = self.domain_breakers.weigh(&zones, nodes.zones(), now);
        let closes =
            |it: &CoreEvent| matches!(it, CoreEvent::Breaker { to: BreakerState::Closed, .. });
        let closed = events.iter().any(closes);
        events.into_iter().for_each(|event| effects.event(event));
        closed
    }

    /// Ends the breakers of zones without nodes, before another zone gets the number of one.
    pub(crate) fn forget_empty_zones(&mut self, nodes: &NodeTable, effects: &mut Effects) {
        let used: BTreeSet<ZoneId> = nodes.iter().map(|node| node.settings.zone).collect();
        let events = self.domain_breakers.forget_empty(|zone| used.contains(&zone), nodes.zones());
        events.into_iter().for_each(|event| effects.event(event));
    }

    /// Counts a successful or failed opening at the node.
    pub(crate) fn note_opening(&mut self, node: NodeId, nodes: &NodeTable, opened: bool) {
        if let Some(node) = nodes.get(node) {
            self.domain_breakers.note_opening(node.settings.zone, opened);
        }
    }

    /// The breakers of the node's zone and region admit the room.
    pub(crate) fn may_enter(&self, room: RoomId, node: NodeId, nodes: &NodeTable) -> bool {
        nodes.domains_of(node).all(|place| self.domain_breakers.admits(place, room.0))
    }

    /// Nodes in zones and regions that do not accept the room, except nodes for which `kept` is true.
    pub(crate) fn shut_nodes(
        &self,
        room: RoomId,
        kept: impl Fn(NodeId) -> bool,
        nodes: &NodeTable,
    ) -> Vec<NodeId> {
        if self.domain_breakers.are_all_closed() {
            return Vec::new();
        }
        let shut = |node: &NodeId| !kept(*node) && !self.may_enter(room, *node, nodes);
        nodes.iter().map(|node| node.id).filter(shut).collect()
    }

    /// The time until the first node accepts new rooms.
    pub(crate) fn admit_in(&self, nodes: &NodeTable, now: Instant) -> Duration {
        let in_time = |node: &Node| {
            let places = nodes.domains_of(node.id);
            places.map(|place| self.domain_breakers.admits_in(place, now)).max()
        };
        nodes.iter().filter_map(in_time).min().unwrap_or_default()
    }
}
