//! The route of a room: an accepted placement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sync::{ArcSwap, AtomicU64, Guard, Ordering};
use crate::{Board, Incarnation, NodeId, RedundancyMode};

/// One step of a route: a node in one of its incarnations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Hop {
    pub node: NodeId,
    /// The node's incarnation when the hop was opened. Another incarnation of the node is another hop.
    pub incarnation: Incarnation,
}

/// The permission of packets to take a hop without asking the core.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum HopGrant {
    /// The room is admitted at this hop. In hitless mode the first two hops are admitted and both carry all packets.
    Admitted,
    /// Capacity is reserved at this hop for the death of the route's first node, and packets may use it then.
    Reserved,
    /// Packets skip the hop until the core admits the room there.
    Gated,
}

/// Maximum hops of a route: the carrying hop and three spares.
pub const HOPS_MAX: usize = 4;

/// An accepted placement of a room. Immutable: a new route with a higher version replaces it.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// Version of the room's route, from 1; 0 before placement.
    pub version: u64,
    pub mode: RedundancyMode,
    /// Hops with their grants, best first; at most [`HOPS_MAX`].
    pub hops: Vec<(Hop, HopGrant)>,
    /// Make-before-break: packets from this hop still pass until this time.
    pub leaving: Option<(Hop, Instant)>,
    /// Lead of the first hop over the hop being left: packets of the latter still arrive for this time. Zero if the
    /// first hop delivers later or the difference is unknown.
    pub lead: Duration,
}

/// The route version and hop that a session's packets take. Computed, never stored, and never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch {
    pub version: u64,
    /// The index of the first usable hop.
    pub index: u8,
}

/// The cell that holds a room's route. All sessions of the room point to it, so a room is never split.
#[derive(Debug)]
pub struct RouteCell {
    route: ArcSwap<Route>,
    /// The first hop if packets take that hop only, as `incarnation:32 | node:32`; else 0, which is no incarnation. With
    /// it, almost every packet reads one cache line instead of three.
    first: AtomicU64,
}

impl Default for RouteCell {
    fn default() -> Self {
        let route = Route {
            version: 0,
            mode: RedundancyMode::default(),
            hops: Vec::new(),
            leaving: None,
            lead: Duration::ZERO,
        };
        RouteCell { route: ArcSwap::from_pointee(route), first: AtomicU64::new(0) }
    }
}

impl RouteCell {
    /// A cell that holds this route, for tools that forward without a core.
    pub fn holding(route: Route) -> RouteCell {
        let cell = RouteCell::default();
        cell.publish(route);
        cell
    }

    pub fn load(&self) -> Guard<Arc<Route>> {
        self.route.load()
    }

    /// The current route, as an owned reference.
    pub fn load_full(&self) -> Arc<Route> {
        self.route.load_full()
    }

    /// The route's first hop if packets take it alone: it is up and granted, and the route is not hitless.
    #[inline]
    pub fn first_if_usable(&self, board: &Board) -> Option<Hop> {
        let word = self.first.load(Ordering::Acquire);
        let hop = Hop { node: NodeId(word as u32), incarnation: Incarnation((word >> 32) as u32) };
        (hop.incarnation.0 > 0 && board.is_up(hop.node, hop.incarnation)).then_some(hop)
    }

    /// The hop that packets take and, in hitless mode, the second hop that carries all of them.
    pub fn carriers(&self, board: &Board) -> Option<(Hop, Option<Hop>)> {
        if let Some(hop) = self.first_if_usable(board) {
            return Some((hop, None));
        }
        let route = self.load();
        let (hop, _) = route.first_usable(board)?;
        Some((hop, route.twin_of(hop, board)))
    }

    pub fn publish(&self, route: Route) {
        let first = match route.hops[..] {
            [(_, HopGrant::Admitted), (_, HopGrant::Admitted), ..] => 0,
            [(hop, HopGrant::Admitted), ..] => {
                u64::from(hop.incarnation.0) << 32 | u64::from(hop.node.0)
            }
            _ => 0,
        };
        // A concurrent reader that sees 0 loads the route itself, old or new.
        self.first.store(0, Ordering::Release);
        self.route.store(Arc::new(route));
        self.first.store(first, Ordering::Release);
    }
}

impl Route {
    /// The hop that packets take now, with its epoch.
    ///
    /// This is the first hop that is up and granted: one where the room is admitted, or the second hop if its reserve
    /// is available for the death of this route's first node.
    pub fn first_usable(&self, board: &Board) -> Option<(Hop, Epoch)> {
        let first = self.hops.first()?.0;
        self.hops.iter().enumerate().find_map(|(index, &(hop, grant))| {
            let cell = board.cell(hop.node)?;
            let open = match grant {
                HopGrant::Admitted => true,
                HopGrant::Reserved => cell.spent_for.is_none_or(|dead| dead == first.node),
                HopGrant::Gated => false,
            };
            let usable = open && cell.up && cell.incarnation == hop.incarnation;
            usable.then_some((hop, Epoch { version: self.version, index: index as u8 }))
        })
    }

    /// The mode that the route can keep now. A hitless room is effectively hot if its second hop only reserves
    /// capacity. If packets may not take the second hop, or none exists, the room moves only after the death, as in
    /// cold mode.
    pub fn kept(&self) -> RedundancyMode {
        let second = self.hops.get(1).map(|(_, grant)| *grant);
        match (self.mode, second) {
            (RedundancyMode::Hitless, Some(HopGrant::Reserved)) => RedundancyMode::Hot,
            (
                RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive,
                None | Some(HopGrant::Gated),
            ) => RedundancyMode::Cold,
            (mode, _) => mode,
        }
    }

    /// In hitless mode: the other hop that carries all packets besides `hop`, if it is up.
    pub fn twin_of(&self, hop: Hop, board: &Board) -> Option<Hop> {
        let carries = |(other, grant): &(Hop, HopGrant)| {
            *grant == HopGrant::Admitted
                && *other != hop
                && board.is_up(other.node, other.incarnation)
        };
        self.hops.iter().take(2).find(|other| carries(other)).map(|(other, _)| *other)
    }

    pub fn leads_to(&self, node: NodeId) -> bool {
        self.hops.iter().any(|(hop, _)| hop.node == node)
    }

    pub fn is_first(&self, hop: Hop) -> bool {
        self.hops.first().is_some_and(|&(first, _)| first == hop)
    }

    pub fn holds(&self, hop: Hop) -> bool {
        self.hops.iter().any(|&(mine, _)| mine == hop)
    }
}

#[cfg(test)]
mod tests;
