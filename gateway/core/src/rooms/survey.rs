//! The native default of routing: the nodes for a room, best first.

use std::collections::BTreeSet;

use evenkeel_model::{HOPS_MAX, NodeId, RedundancyMode, RegionId, RegionRole};
use evenkeel_nodes::{Node, NodeTable};

use crate::capacity::LedgerView;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// Capacity that no room uses or reserves.
    Free,
    /// Free capacity and reserves for future deaths.
    Reserves,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PlacementRequest<'a> {
    pub(super) region: RegionId,
    pub(super) mode: RedundancyMode,
    /// In regional mode: the regions that the room tries next, in order.
    pub(super) regions: &'a [RegionId],
    pub(super) kbps: u64,
    /// The capacity that the room's first node may use.
    pub(super) takes: Takes,
    /// Number of spares that the room should have.
    pub(super) spares: u8,
    /// The current node, where the room stays, and its existing spares; empty if the room is not placed.
    pub(super) standing: &'a [NodeId],
    /// Nodes that recently refused the room.
    pub(super) shunned: &'a [NodeId],
}

/// Hops for a room, best first; empty if no node can take it. `ledger` excludes the room's own holding.
///
/// Sorted by soundness, then nodes that are no standbys (if the mode uses standbys), then the room's region, then the
/// least load.
pub(super) fn native(wish: PlacementRequest, nodes: &NodeTable, ledger: LedgerView) -> Vec<NodeId> {
    let survey = PlacementSurvey { wish, nodes, ledger };
    let Some(first) = wish.standing.first().copied().or_else(|| survey.first()) else {
        return Vec::new();
    };
    let spares = match wish.mode {
        RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive => {
            survey.spares(&nodes[first])
        }
        RedundancyMode::Regional => survey.next_regions(&nodes[first]),
        RedundancyMode::Cold => Vec::new(),
    };
    let spares = spares.into_iter().take(usize::from(wish.spares).min(HOPS_MAX - 1));
    std::iter::once(first).chain(spares).collect()
}

struct PlacementSurvey<'a> {
    wish: PlacementRequest<'a>,
    nodes: &'a NodeTable,
    ledger: LedgerView<'a>,
}

impl PlacementSurvey<'_> {
    fn region(&self, node: &Node) -> RegionId {
        self.nodes.region_of(node.id)
    }

    fn takes(&self, node: &Node) -> bool {
        let here = self.wish.standing.contains(&node.id);
        let may = if here { node.takes_rooms() } else { node.welcomes_rooms() };
        may && !self.wish.shunned.contains(&node.id)
    }

    /// In active-active mode, reserves at a node do not keep rooms from it.
    fn load(&self, node: &Node) -> (u64, NodeId) {
        let load = match self.wish.mode {
            RedundancyMode::ActiveActive => self.ledger.carried_permille(node.id),
            RedundancyMode::Hitless
            | RedundancyMode::Hot
            | RedundancyMode::Cold
            | RedundancyMode::Regional => self.ledger.permille(node.id),
        };
        (load, node.id)
    }

    /// The node is a standby to be avoided while other nodes can take the room.
    fn stands_by(&self, node: &Node) -> bool {
        self.wish.mode.leaves_standbys() && node.settings.role == RegionRole::Standby
    }

    /// Distance of a region from `from`. In most modes 0 or 1; in regional mode the position in the scenario's cyclic
    /// order after `from`. Regions not in that order come last.
    fn distance(&self, region: RegionId, from: RegionId) -> usize {
        let order = self.wish.regions;
        let place = |region| order.iter().position(|listed| *listed == region);
        match (self.wish.mode, place(region)) {
            _ if region == from => 0,
            (RedundancyMode::Regional, None) => order.len() + 1,
            (RedundancyMode::Regional, Some(at)) => {
                let start = place(from).map_or(0, |from| from + 1);
                1 + (at + order.len() - start) % order.len()
            }
            (
                RedundancyMode::Hitless
                | RedundancyMode::Hot
                | RedundancyMode::ActiveActive
                | RedundancyMode::Cold,
                _,
            ) => 1,
        }
    }

    fn first(&self) -> Option<NodeId> {
        let fits = |node: &&Node| {
            let (id, kbps) = (node.id, self.wish.kbps);
            let fits = match self.wish.takes {
                Takes::Free => self.ledger.fits(id, kbps),
                Takes::Reserves => self.ledger.carries(id, kbps),
            };
            self.takes(node) && fits
        };
        let cost = |node: &Node| {
            let unsound = !node.is_sound();
            let far = self.distance(self.region(node), self.wish.region);
            (unsound, self.stands_by(node), far, self.load(node))
        };
        self.nodes.iter().filter(fits).min_by_key(|node| cost(node)).map(|node| node.id)
    }

    /// Spares, best first. Nodes that can reserve capacity, or in hitless mode carry the room as well, come first, then
    /// existing spares. Other zones come before the same zone, and standbys before other nodes.
    fn spares(&self, first: &Node) -> Vec<NodeId> {
        let PlacementRequest { kbps, standing, mode, region, .. } = self.wish;
        let reserves = |node: &Node| self.ledger.fits_reserve(node.id, first.id, kbps);
        let may = |node: &&Node| {
            let kept = standing.contains(&node.id);
            node.id != first.id && self.takes(node) && (kept || reserves(node))
        };
        // In active-active mode, zones of the carrying region are spares for each other, wherever the room's clients
        // are.
        let home = if mode == RedundancyMode::ActiveActive { self.region(first) } else { region };
        let cost = |node: &&Node| {
            let provides = match mode {
                RedundancyMode::Hitless => self.ledger.fits(node.id, kbps),
                _ => reserves(node),
            };
            let kept = standing.iter().position(|standing| *standing == node.id);
            let unsound = !node.is_sound();
            let abroad = self.distance(self.region(node), home);
            let same_zone = node.settings.zone == first.settings.zone;
            let (place, stands_by) = ((abroad, same_zone), self.stands_by(node));
            (!provides, kept.unwrap_or(usize::MAX), unsound, place, !stands_by, self.load(node))
        };
        let mut spares: Vec<&Node> = self.nodes.iter().filter(may).collect();
        spares.sort_by_key(cost);
        spares.into_iter().map(|node| node.id).collect()
    }

    /// The best node of each region after the current one, in the scenario's order. No capacity is reserved there.
    fn next_regions(&self, first: &Node) -> Vec<NodeId> {
        let here = self.region(first);
        let cost = |node: &&Node| {
            let turn = self.distance(self.region(node), here);
            let (new, unsound) = (!self.wish.standing.contains(&node.id), !node.is_sound());
            (turn, self.region(node), new, unsound, self.load(node))
        };
        let fits = |node: &&Node| {
            self.region(node) != here
                && self.takes(node)
                && self.ledger.fits(node.id, self.wish.kbps)
        };
        let mut nodes: Vec<&Node> = self.nodes.iter().filter(fits).collect();
        nodes.sort_by_key(cost);
        let mut seen = BTreeSet::new();
        nodes.retain(|node| seen.insert(self.region(node)));
        nodes.into_iter().map(|node| node.id).collect()
    }
}
