//! The native default of routing: near, sound, and least loaded; spares where they would not fail together.

use crate::ledger::Ledger;
use crate::node::Node;
use crate::{HOPS_MAX, Health, NodeId, RegionId, Zone};

/// What a room needs of a placement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Where its people are.
    pub(crate) region: RegionId,
    /// What it needs.
    pub(crate) kbps: u64,
    /// Spares it should have.
    pub(crate) spares: u8,
    /// Where it stands and will stay, and spares it has already; empty where it stands nowhere.
    pub(crate) standing: &'a [NodeId],
    /// Nodes that did not take it.
    pub(crate) shunned: &'a [NodeId],
}

/// Hops for a room, best first; empty where no node can take it. `ledger` is without the room.
///
/// First soundness, then the room's region, then the least load. Spares that it has stay; those in other zones come
/// before those in the same zone, and those that keep capacity for it before those that would be gated.
pub(crate) fn native(wish: Wish, nodes: &[Node], zones: &[Zone], ledger: &Ledger) -> Vec<NodeId> {
    let region = |node: &Node| zones[node.settings.zone.0 as usize].region;
    let takes = |node: &Node| {
        let here = wish.standing.contains(&node.id);
        let may = if here { node.takes_rooms() } else { node.welcomes_rooms() };
        may && !wish.shunned.contains(&node.id)
    };
    let cost = |node: &Node| {
        let abroad = region(node) != wish.region;
        let unsound = node.health() != Health::Up;
        (unsound, abroad, ledger.permille(node.id), node.id)
    };
    let first = wish.standing.first().copied().or_else(|| {
        nodes
            .iter()
            .filter(|node| takes(node) && ledger.fits(node.id, wish.kbps))
            .min_by_key(|node| cost(node))
            .map(|node| node.id)
    });
    let Some(first) = first else {
        return Vec::new();
    };
    let zone = nodes[first.0 as usize].settings.zone;
    let mut spares: Vec<&Node> = nodes
        .iter()
        .filter(|node| node.id != first && takes(node))
        .filter(|node| {
            let kept = wish.standing.contains(&node.id);
            kept || ledger.fits_reserve(node.id, first, wish.kbps)
        })
        .collect();
    spares.sort_by_key(|node| {
        let gated = !ledger.fits_reserve(node.id, first, wish.kbps);
        let kept = wish.standing.iter().position(|standing| *standing == node.id);
        let (unsound, abroad, load, id) = cost(node);
        let same_zone = node.settings.zone == zone;
        (gated, kept.unwrap_or(usize::MAX), unsound, abroad, same_zone, load, id)
    });
    let spares = spares.into_iter().take(usize::from(wish.spares).min(HOPS_MAX - 1));
    std::iter::once(first).chain(spares.map(|node| node.id)).collect()
}
