//! The route of a room: an accepted placement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::{Board, Incarnation, Mode, NodeId};

/// A node, and its incarnation, as a step of a route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hop {
    pub node: NodeId,
    /// The incarnation as which it was opened. Another incarnation of the node is another hop.
    pub incarnation: Incarnation,
}

/// Permission of packets to take a hop without the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    /// The room is admitted here: at one hop or, in hitless mode, at the first two, which both carry all packets.
    Admitted,
    /// Capacity is kept here for the death of the route's first node: free to take.
    Reserved,
    /// Packets skip it until the core admits the room here.
    Gated,
}

/// Hops a route holds at most: where it stands, and three spares.
pub const HOPS_MAX: usize = 4;

/// An accepted placement of a room. Never changes: a new one replaces it, with a higher version.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// Counts the routes of this room, from 1; 0 before it is placed.
    pub version: u64,
    pub mode: Mode,
    /// Best first, with what packets may do there; at most [`HOPS_MAX`].
    pub hops: Vec<(Hop, Grant)>,
    /// Make-before-break: what this hop still delivers passes until then.
    pub leaving: Option<(Hop, Instant)>,
    /// The first hop delivers this much sooner than the hop being left, from which packets still arrive for that time.
    /// Zero if it delivers later, or if that is unknown.
    pub lead: Duration,
}

/// The route and the hop by which a session is sent. Computed, never stored, and never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch {
    /// The route's version.
    pub version: u64,
    /// The first usable hop's place in it.
    pub index: u8,
}

/// The one place where a room's route stands; its sessions all point here, so a room is never split.
#[derive(Debug)]
pub struct RouteCell {
    route: ArcSwap<Route>,
    /// `incarnation:32 | node:32` of its first hop, where packets take that and no other; else 0, which is no incarnation.
    /// Here, so that nearly every packet reads one line of memory instead of three.
    first: AtomicU64,
}

impl Default for RouteCell {
    fn default() -> Self {
        let route = Route {
            version: 0,
            mode: Mode::default(),
            hops: Vec::new(),
            leaving: None,
            lead: Duration::ZERO,
        };
        RouteCell { route: ArcSwap::from_pointee(route), first: AtomicU64::new(0) }
    }
}

impl RouteCell {
    /// A cell with this route, for tools that forward without a core.
    pub fn holding(route: Route) -> RouteCell {
        let cell = RouteCell::default();
        cell.publish(route);
        cell
    }

    /// The route as it is now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Route>> {
        self.route.load()
    }

    /// The route as it is now, to keep.
    pub fn load_full(&self) -> Arc<Route> {
        self.route.load_full()
    }

    /// The route's first hop, if packets may take it and it is up: then it is the one that they take. Not where two carry
    /// all packets.
    pub fn first_if_usable(&self, board: &Board) -> Option<Hop> {
        let word = self.first.load(Ordering::Acquire);
        let hop = Hop { node: NodeId(word as u32), incarnation: Incarnation((word >> 32) as u32) };
        (hop.incarnation.0 > 0 && board.is_up(hop.node, hop.incarnation)).then_some(hop)
    }

    /// The hop that packets take, and in hitless mode the other one that carries all of them.
    pub fn carriers(&self, board: &Board) -> Option<(Hop, Option<Hop>)> {
        if let Some(hop) = self.first_if_usable(board) {
            return Some((hop, None));
        }
        let route = self.load();
        let (hop, _) = route.first_usable(board)?;
        Some((hop, route.twin_of(hop, board)))
    }

    pub(crate) fn publish(&self, route: Route) {
        let first = match route.hops[..] {
            [(_, Grant::Admitted), (_, Grant::Admitted), ..] => 0,
            [(hop, Grant::Admitted), ..] => {
                u64::from(hop.incarnation.0) << 32 | u64::from(hop.node.0)
            }
            _ => 0,
        };
        // A reader in between reads the route itself, the old or the new one.
        self.first.store(0, Ordering::Release);
        self.route.store(Arc::new(route));
        self.first.store(first, Ordering::Release);
    }
}

impl Route {
    /// The hop that packets take now, and the epoch it makes.
    ///
    /// The first hop that is up and that packets may take: where the room is admitted, or the second where its
    /// reserve is there for the death of this route's first node.
    pub fn first_usable(&self, board: &Board) -> Option<(Hop, Epoch)> {
        let first = self.hops.first()?.0;
        self.hops.iter().enumerate().find_map(|(index, &(hop, grant))| {
            let cell = board.cell(hop.node)?;
            let open = match grant {
                Grant::Admitted => true,
                Grant::Reserved => cell.spent_for.is_none_or(|dead| dead == first.node),
                Grant::Gated => false,
            };
            let usable = open && cell.up && cell.incarnation == hop.incarnation;
            usable.then_some((hop, Epoch { version: self.version, index: index as u8 }))
        })
    }

    /// The mode that is kept now: as its mode promises, unless the second hop is missing. A hitless room is hot if its
    /// second hop only keeps capacity; if packets may not take the second hop, or there is none, the room moves only
    /// after the death, as in cold mode.
    pub fn kept(&self) -> Mode {
        let second = self.hops.get(1).map(|(_, grant)| *grant);
        match (self.mode, second) {
            (Mode::Hitless, Some(Grant::Reserved)) => Mode::Hot,
            (Mode::Hitless | Mode::Hot | Mode::ActiveActive, None | Some(Grant::Gated)) => {
                Mode::Cold
            }
            (mode, _) => mode,
        }
    }

    /// In hitless mode, the twin of `hop`: the other hop that carries all packets while it does.
    pub fn twin_of(&self, hop: Hop, board: &Board) -> Option<Hop> {
        let carries = |(other, grant): &(Hop, Grant)| {
            *grant == Grant::Admitted && *other != hop && board.is_up(other.node, other.incarnation)
        };
        self.hops.iter().take(2).find(|other| carries(other)).map(|(other, _)| *other)
    }

    pub(crate) fn leads_to(&self, node: NodeId) -> bool {
        self.hops.iter().any(|(hop, _)| hop.node == node)
    }

    pub(crate) fn is_first(&self, hop: Hop) -> bool {
        self.hops.first().is_some_and(|&(first, _)| first == hop)
    }

    pub fn holds(&self, hop: Hop) -> bool {
        self.hops.iter().any(|&(mine, _)| mine == hop)
    }
}

#[cfg(test)]
mod tests;
