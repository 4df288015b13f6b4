//! Selection of a room's nodes among the usable ones.

use evenkeel_plugin_sdk::prelude::*;

use crate::RouteNearest;
use crate::cost::Seen;
use crate::lot::lot;

// Ranks of a spare, the most significant first.

/// Suspect, or full, and not on the current route.
const AVOID: u8 = 1 << 3;

/// In a zone that the route already uses.
const ZONE_TAKEN: u8 = 1 << 2;

/// In another region than the first hop.
const FAR: u8 = 1 << 1;

/// Not on the current route.
const NEW: u8 = 1;

/// Already chosen for the route.
const TAKEN: u8 = u8::MAX;

/// The nodes from a room's point of view.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) settings: &'a RouteNearest,
    pub(crate) room: RoomId,
    pub(crate) candidates: Vec<Candidate<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Lower is better, before cost.
    pub(crate) rank: u8,
    pub(crate) cost: f64,
    /// The cost without its load.
    pub(crate) lasting: f64,
    pub(crate) seen: &'a Seen<'a>,
}

impl<'a> Choice<'a> {
    /// `first` and its spares. Each is in a zone new to the route, in the region of `first` while
    /// there is one, then in others; nodes in used zones come last. Among equal nodes those of
    /// `standing` stay.
    pub(crate) fn route(mut self, first: &'a Seen<'a>, standing: &[NodeId]) -> Vec<NodeId> {
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

    /// The cheapest node of the lowest rank, or one equivalent to it: the room's number selects
    /// among those, in proportion to their free capacity.
    pub(crate) fn best(&self) -> Option<&'a Seen<'a>> {
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
            // Usually there is a single one.
            return Some(one.seen);
        };
        let drawn = [one, another].into_iter().chain(alike);
        let lots =
            drawn.map(|other| (lot(self.room, other.seen.id(), other.seen.free()), other.seen));
        lots.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, seen)| seen)
    }
}

impl Seen<'_> {
    /// The rank as a spare of `first`.
    fn rank_beside(&self, first: &Seen<'_>, standing: &[NodeId]) -> u8 {
        let stands = standing.contains(&self.id());
        // A current spare has its capacity reserved, so that a full or suspect node is no reason to
        // open the room elsewhere.
        let avoid = if self.avoid && !stands { AVOID } else { 0 };
        let far = if self.region() == first.region() { 0 } else { FAR };
        let new = if stands { 0 } else { NEW };
        avoid | far | new | self.taken_by(first)
    }

    /// The rank bits that this hop of the route sets.
    fn taken_by(&self, hop: &Seen<'_>) -> u8 {
        match self.zone() == hop.zone() {
            _ if self.id() == hop.id() => TAKEN,
            true => ZONE_TAKEN,
            false => 0,
        }
    }
}
