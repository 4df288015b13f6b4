//! Selects a room's nodes among the usable ones.

use evenkeel_plugin_sdk::prelude::*;

use crate::RouteNearest;
use crate::cost::UsableNode;
use crate::lot::lot;

// Rank bits of a spare, most significant first. Lower ranks are better.

/// The node is suspect or full, and not on the current route.
const AVOID: u8 = 1 << 3;

/// The node is in a zone that the route already uses.
const ZONE_TAKEN: u8 = 1 << 2;

/// The node is in another region than the first hop.
const FAR: u8 = 1 << 1;

/// The node is not on the current route.
const NEW: u8 = 1;

/// The node is already part of the route.
const TAKEN: u8 = u8::MAX;

/// Candidate nodes for a room.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) settings: &'a RouteNearest,
    pub(crate) room: RoomId,
    pub(crate) candidates: Vec<RankedNode<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RankedNode<'a> {
    /// Lower is better; compared before cost.
    pub(crate) rank: u8,
    pub(crate) cost: f64,
    /// The cost without its load.
    pub(crate) lasting: f64,
    pub(crate) seen: &'a UsableNode<'a>,
}

impl<'a> Choice<'a> {
    /// Returns `first` and its spares. Nodes in zones new to the route come first, beginning with the region of
    /// `first`; nodes in used zones come last. Among equal nodes those of `standing` are preferred.
    pub(crate) fn route(mut self, first: &'a UsableNode<'a>, standing: &[NodeId]) -> Vec<NodeId> {
        for candidate in &mut self.candidates {
            candidate.rank = candidate.seen.rank_beside(first, standing);
        }
        let length = 1 + usize::from(self.settings.spares);
        let mut route = Vec::with_capacity(length);
        route.push(first.id());
        while let Some(spare) = self.best() {
            route.push(spare.id());
            if route.len() >= length {
                break;
            }
            for candidate in &mut self.candidates {
                candidate.rank |= candidate.seen.taken_by(spare);
            }
        }
        route
    }

    /// Returns the cheapest node of the lowest rank, or an equivalent one: the room's number selects among equivalent
    /// nodes, in proportion to their free capacity.
    pub(crate) fn best(&self) -> Option<&'a UsableNode<'a>> {
        let (first, others) = self.candidates.split_first()?;
        let best = others.iter().fold(first, |best, other| {
            let ranks = other.rank < best.rank;
            if ranks || other.rank == best.rank && other.cost < best.cost { other } else { best }
        });
        if best.rank == TAKEN {
            return None;
        }
        let within = self.settings.equal_cost_within;
        let mut alike = self.candidates.iter().filter(|other| {
            let apart = (other.lasting - best.lasting).abs();
            other.rank == best.rank && (other.cost <= best.cost + within || apart <= within)
        });
        let one = alike.next()?;
        let Some(another) = alike.next() else {
            // There is usually only one such node.
            return Some(one.seen);
        };
        let drawn = [one, another].into_iter().chain(alike);
        let lots =
            drawn.map(|other| (lot(self.room, other.seen.id(), other.seen.free()), other.seen));
        lots.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, seen)| seen)
    }
}

impl UsableNode<'_> {
    /// Returns the rank as a spare of `first`.
    fn rank_beside(&self, first: &UsableNode<'_>, standing: &[NodeId]) -> u8 {
        let stands = standing.contains(&self.id());
        // A current spare has reserved capacity for the room, so the room keeps it even if the node is full or suspect.
        let avoid = if self.avoid && !stands { AVOID } else { 0 };
        let far = if self.region() == first.region() { 0 } else { FAR };
        let new = if stands { 0 } else { NEW };
        avoid | far | new | self.taken_by(first)
    }

    /// Returns the rank bits that this hop of the route sets.
    fn taken_by(&self, hop: &UsableNode<'_>) -> u8 {
        match self.zone() == hop.zone() {
            _ if self.id() == hop.id() => TAKEN,
            true => ZONE_TAKEN,
            false => 0,
        }
    }
}
