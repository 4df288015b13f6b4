//! Which nodes a room is given, of those that may carry it.

use evenkeel_plugin_sdk::prelude::*;

use crate::RouteNearest;
use crate::cost::Seen;
use crate::lot::lot;

// What a spare is ranked by, the heaviest first.

/// Suspect, or full, and not on the route that stands.
const AVOID: u8 = 1 << 3;

/// In a zone that the route has already.
const ZONE_TAKEN: u8 = 1 << 2;

/// In another region than the first hop.
const FAR: u8 = 1 << 1;

/// Not on the route that stands.
const NEW: u8 = 1;

/// On the route already: whatever else it is, it cannot be chosen again.
const TAKEN: u8 = u8::MAX;

/// The nodes as a room sees them.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) settings: &'a RouteNearest,
    pub(crate) room: RoomId,
    pub(crate) candidates: Vec<Candidate<'a>>,
}

/// A node in a choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// The lower the better, whatever it costs.
    pub(crate) rank: u8,
    pub(crate) cost: f64,
    /// The cost but for its load.
    pub(crate) lasting: f64,
    pub(crate) seen: &'a Seen<'a>,
}

impl<'a> Choice<'a> {
    /// `first` and its spares. Each stands in a zone that the route does not have yet, in the region of `first` while there
    /// is one, then in others; nodes in zones it has come last. Among nodes as good as each other those of `standing` stay.
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

    /// Of the nodes with the lowest rank the cheapest, or one that is alike: the room's number chooses, each as often as it
    /// has capacity free.
    pub(crate) fn best(&self) -> Option<&'a Seen<'a>> {
        let (first, others) = self.candidates.split_first()?;
        let best = others.iter().fold(first, |best, other| {
            let ranks = other.rank < best.rank;
            if ranks || other.rank == best.rank && other.cost < best.cost { other } else { best }
        });
        if best.rank == TAKEN {
            return None;
        }
        let within = self.settings.alike_within;
        let mut alike = self.candidates.iter().filter(|other| {
            let apart = (other.lasting - best.lasting).abs();
            other.rank == best.rank && (other.cost <= best.cost + within || apart <= within)
        });
        let one = alike.next()?;
        let Some(another) = alike.next() else {
            // Mostly there is nothing to draw lots for.
            return Some(one.seen);
        };
        let drawn = [one, another].into_iter().chain(alike);
        let lots =
            drawn.map(|other| (lot(self.room, other.seen.id(), other.seen.free()), other.seen));
        lots.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, seen)| seen)
    }
}

impl Seen<'_> {
    /// As a spare of `first`.
    fn rank_beside(&self, first: &Seen<'_>, standing: &[NodeId]) -> u8 {
        let stands = standing.contains(&self.id());
        // A spare that stands has its place reserved: that it is full, or under suspicion for a moment, is no reason to
        // open the room elsewhere.
        let avoid = if self.avoid && !stands { AVOID } else { 0 };
        let far = if self.region() == first.region() { 0 } else { FAR };
        let new = if stands { 0 } else { NEW };
        avoid | far | new | self.taken_by(first)
    }

    /// What is no longer free where this hop is on the route.
    fn taken_by(&self, hop: &Seen<'_>) -> u8 {
        match self.zone() == hop.zone() {
            _ if self.id() == hop.id() => TAKEN,
            true => ZONE_TAKEN,
            false => 0,
        }
    }
}
