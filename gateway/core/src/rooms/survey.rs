//! A survey of all nodes for one room: the first hop and its spares, best first.

use std::collections::BTreeSet;

use evenkeel_model::{HOPS_MAX, NodeId, RedundancyMode, RegionId};
use evenkeel_nodes::{Node, NodeTable};

use crate::capacity::LedgerView;
use crate::rooms::room::{Room, RoomNeed};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// Capacity that no room uses or reserves.
    Free,
    /// Free capacity and reserves for future deaths.
    Reserves,
}

/// The nodes that a room may take, by soundness, then nodes that are no standbys (if the mode uses standbys), then the room's
/// region, then the carrier of its clients, then the least load.
pub(crate) struct PlacementSurvey<'a> {
    pub(crate) room: &'a Room,
    pub(crate) need: RoomNeed<'a>,
    /// The carrier that the room's label names.
    pub(crate) carrier: Option<&'a str>,
    /// The capacity that the room's first node may use.
    pub(crate) takes: Takes,
    /// The current node, where the room stays, and its existing spares; empty if the room is not placed.
    pub(crate) current: &'a [NodeId],
    /// Nodes that recently refused the room.
    pub(crate) shunned: &'a [NodeId],
    pub(crate) nodes: &'a NodeTable,
    /// The ledger without the room's own holding.
    pub(crate) ledger: LedgerView<'a>,
}

impl PlacementSurvey<'_> {
    /// Hops for the room, best first; empty if no node can take it.
    pub(crate) fn hops(&self) -> Vec<NodeId> {
        let Some(first) = self.current.first().copied().or_else(|| self.first()) else {
            return Vec::new();
        };
        let spares = match self.room.mode() {
            RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive => {
                self.spares(&self.nodes[first])
            }
            RedundancyMode::Regional => self.next_regions(&self.nodes[first]),
            RedundancyMode::Cold => Vec::new(),
        };
        let spares = spares.into_iter().take(usize::from(self.room.spares()).min(HOPS_MAX - 1));
        std::iter::once(first).chain(spares).collect()
    }

    fn region(&self, node: &Node) -> RegionId {
        self.nodes.region_of(node.id)
    }

    fn takes(&self, node: &Node) -> bool {
        let here = self.current.contains(&node.id);
        let may = if here { node.takes_rooms() } else { node.welcomes_rooms() };
        may && !self.shunned.contains(&node.id)
    }

    /// Orders nodes that are equal otherwise: those of the clients' carrier first, then by load. In active-active mode,
    /// reserves at a node do not keep rooms from it.
    fn rank(&self, node: &Node) -> (bool, u64, NodeId) {
        let is_foreign = self.carrier.is_some() && node.settings.carrier.as_deref() != self.carrier;
        let load = match self.room.mode() {
            RedundancyMode::ActiveActive => self.ledger.carried_ppb(node.id),
            RedundancyMode::Hitless
            | RedundancyMode::Hot
            | RedundancyMode::Cold
            | RedundancyMode::Regional => self.ledger.used_ppb(node.id),
        };
        (is_foreign, load, node.id)
    }

    /// The node is a standby to be avoided while other nodes can take the room.
    fn stands_by(&self, node: &Node) -> bool {
        self.room.leaves_to_others(node)
    }

    /// Distance of a region from `from`. In most modes 0 or 1; in regional mode the position in the scenario's cyclic
    /// order after `from`. Regions not in that order come last.
    fn distance(&self, region: RegionId, from: RegionId) -> usize {
        let order = self.need.regions;
        let place = |region| order.iter().position(|listed| *listed == region);
        match (self.room.mode(), place(region)) {
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
            let (id, kbps) = (node.id, self.need.kbps);
            let fits = match self.takes {
                Takes::Free => self.ledger.fits(id, kbps),
                Takes::Reserves => self.ledger.carries(id, kbps),
            };
            self.takes(node) && fits
        };
        let cost = |node: &Node| {
            let unsound = !node.is_sound();
            let far = self.distance(self.region(node), self.room.region());
            (unsound, self.stands_by(node), far, self.rank(node))
        };
        self.nodes.iter().filter(fits).min_by_key(|node| cost(node)).map(|node| node.id)
    }

    /// Spares, best first. Nodes that can reserve capacity, or in hitless mode carry the room as well, come first, then
    /// existing spares; of the former those that survive the death that the scenario wants covered. Other zones come before
    /// the same zone, and standbys before other nodes.
    fn spares(&self, first: &Node) -> Vec<NodeId> {
        let PlacementSurvey { current: standing, need, .. } = *self;
        let (kbps, mode, region) = (need.kbps, self.room.mode(), self.room.region());
        let domain = self.nodes.domain_of(first.id, need.reserve);
        let reserves =
            |node: &Node, covers| self.ledger.fits_reserve(node.id, first.id, covers, kbps);
        let may = |node: &&Node| {
            let kept = standing.contains(&node.id);
            let is_outside = !self.nodes.share_domain(first.id, node.id, need.spares_outside);
            let may = node.id != first.id && self.takes(node) && is_outside;
            may && (kept || reserves(node, None))
        };
        // In active-active mode, zones of the carrying region are spares for each other, wherever the room's clients
        // are.
        let home = if mode == RedundancyMode::ActiveActive { self.region(first) } else { region };
        let cost = |node: &&Node| {
            let provides = match mode {
                RedundancyMode::Hitless => self.ledger.fits(node.id, kbps),
                _ => reserves(node, None),
            };
            let survives = self.nodes.domain_of(node.id, need.reserve) != domain;
            let covers = domain.is_none()
                || survives && (mode == RedundancyMode::Hitless || reserves(node, domain));
            let kept = standing.iter().position(|standing| *standing == node.id);
            let unsound = !node.is_sound();
            let abroad = self.distance(self.region(node), home);
            let same_zone = node.settings.zone == first.settings.zone;
            let (place, stands_by) = ((abroad, same_zone), self.stands_by(node));
            let lacks = (!provides, !covers);
            (lacks, kept.unwrap_or(usize::MAX), unsound, place, !stands_by, self.rank(node))
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
            let (new, unsound) = (!self.current.contains(&node.id), !node.is_sound());
            (turn, self.region(node), new, unsound, self.rank(node))
        };
        let fits = |node: &&Node| {
            self.region(node) != here
                && self.takes(node)
                && self.ledger.fits(node.id, self.need.kbps)
        };
        let mut nodes: Vec<&Node> = self.nodes.iter().filter(fits).collect();
        nodes.sort_by_key(cost);
        let mut seen = BTreeSet::new();
        nodes.retain(|node| seen.insert(self.region(node)));
        nodes.into_iter().map(|node| node.id).collect()
    }
}
