//! The native default of routing: near, sound, and least loaded; spares where they would not fail together.

use std::collections::BTreeSet;

use crate::ledger::Ledger;
use crate::node::Node;
use crate::nodes::Nodes;
use crate::{HOPS_MAX, Mode, NodeId, RegionId, Role, Zone};

/// What a room may take of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// What nobody counts on.
    Free,
    /// What is kept free for deaths to come as well.
    Reserves,
}

/// What a room needs of a placement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Where its people are.
    pub(crate) region: RegionId,
    /// How it survives the death of its node.
    pub(crate) mode: Mode,
    /// In regional mode: where it goes next, in this order.
    pub(crate) regions: &'a [RegionId],
    /// What it needs.
    pub(crate) kbps: u64,
    /// Of what it may take it, where it goes first.
    pub(crate) takes: Takes,
    /// Spares it should have.
    pub(crate) spares: u8,
    /// Where it stands and will stay, and spares it has already; empty where it stands nowhere.
    pub(crate) standing: &'a [NodeId],
    /// Nodes that did not take it.
    pub(crate) shunned: &'a [NodeId],
}

/// Hops for a room, best first; empty where no node can take it. `ledger` is without the room.
///
/// First soundness, then, where some stand by, those that do not, then the room's region, then the least load.
pub(crate) fn native(wish: Wish, nodes: &Nodes, zones: &[Zone], ledger: &Ledger) -> Vec<NodeId> {
    let survey = Survey { wish, nodes, zones, ledger };
    let Some(first) = wish.standing.first().copied().or_else(|| survey.first()) else {
        return Vec::new();
    };
    let spares = match wish.mode {
        Mode::Hitless | Mode::Hot | Mode::ActiveActive => survey.spares(&nodes[first.0 as usize]),
        Mode::Regional => survey.next_regions(&nodes[first.0 as usize]),
        Mode::Cold => Vec::new(),
    };
    let spares = spares.into_iter().take(usize::from(wish.spares).min(HOPS_MAX - 1));
    std::iter::once(first).chain(spares).collect()
}

struct Survey<'a> {
    wish: Wish<'a>,
    nodes: &'a Nodes,
    zones: &'a [Zone],
    ledger: &'a Ledger,
}

impl Survey<'_> {
    fn region(&self, node: &Node) -> RegionId {
        self.zones[node.settings.zone.0 as usize].region
    }

    fn takes(&self, node: &Node) -> bool {
        let here = self.wish.standing.contains(&node.id);
        let may = if here { node.takes_rooms() } else { node.welcomes_rooms() };
        may && !self.wish.shunned.contains(&node.id)
    }

    /// Where all carry alike, what a node keeps for others does not keep rooms from it.
    fn load(&self, node: &Node) -> (u64, NodeId) {
        let load = match self.wish.mode {
            Mode::ActiveActive => self.ledger.carried_permille(node.id),
            Mode::Hitless | Mode::Hot | Mode::Cold | Mode::Regional => {
                self.ledger.permille(node.id)
            }
        };
        (load, node.id)
    }

    /// Whether it is to be left to others as long as they can.
    fn stands_by(&self, node: &Node) -> bool {
        self.wish.mode.leaves_standbys() && node.settings.role == Role::Standby
    }

    /// How many regions lie before this one: for most modes home or not, in regional mode the order of the scenario, which
    /// goes around, beginning at `from`; those that it does not name come last.
    fn distance(&self, region: RegionId, from: RegionId) -> usize {
        let order = self.wish.regions;
        let place = |region| order.iter().position(|listed| *listed == region);
        match (self.wish.mode, place(region)) {
            _ if region == from => 0,
            (Mode::Regional, None) => order.len() + 1,
            (Mode::Regional, Some(at)) => {
                let start = place(from).map_or(0, |from| from + 1);
                1 + (at + order.len() - start) % order.len()
            }
            (Mode::Hitless | Mode::Hot | Mode::ActiveActive | Mode::Cold, _) => 1,
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

    /// Spares that it has stay; those in other zones come before those in the same zone, those that stand by before
    /// others, and before all those that keep capacity for it, or carry it as well, where that is the mode.
    fn spares(&self, first: &Node) -> Vec<NodeId> {
        let Wish { kbps, standing, mode, region, .. } = self.wish;
        let reserves = |node: &Node| self.ledger.fits_reserve(node.id, first.id, kbps);
        let may = |node: &&Node| {
            let kept = standing.contains(&node.id);
            node.id != first.id && self.takes(node) && (kept || reserves(node))
        };
        // Zones of its own region stand in for each other in active-active mode, wherever its people are.
        let home = if mode == Mode::ActiveActive { self.region(first) } else { region };
        let cost = |node: &&Node| {
            let provides = match mode {
                Mode::Hitless => self.ledger.fits(node.id, kbps),
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

    /// The best node of each region behind the one where it stands, in the scenario's order. Nothing is kept there.
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
