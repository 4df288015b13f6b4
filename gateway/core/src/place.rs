//! The native default of routing: near, sound, and least loaded; spares where they would not fail together.

use crate::ledger::Ledger;
use crate::node::Node;
use crate::{HOPS_MAX, Health, NodeId, RegionId, Zone};

/// What a room needs of a placement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Where its people are.
    pub(crate) region: RegionId,
    /// What it needs.
    pub(crate) kbps: u64,
    /// Spares it should have.
    pub(crate) spares: u8,
    /// Where it stands and will stay, if it stands.
    pub(crate) standing: Option<NodeId>,
}

/// Hops for a room, best first; empty where no node can take it.
///
/// First the room's region, then soundness, then the least load. Spares in other zones come before those in the same
/// zone, and those in the region before others.
pub(crate) fn native(wish: Wish, nodes: &[Node], zones: &[Zone], ledger: &Ledger) -> Vec<NodeId> {
    let region = |node: &Node| zones[node.settings.zone.0 as usize].region;
    let cost = |node: &Node| {
        let abroad = region(node) != wish.region;
        let unsound = node.health() != Health::Up;
        (unsound, abroad, ledger.permille(node.id), node.id)
    };
    let first = wish.standing.or_else(|| {
        nodes
            .iter()
            .filter(|node| node.takes_rooms() && ledger.fits(node.id, wish.kbps))
            .min_by_key(|node| cost(node))
            .map(|node| node.id)
    });
    let Some(first) = first else {
        return Vec::new();
    };
    let zone = nodes[first.0 as usize].settings.zone;
    let mut spares: Vec<&Node> = nodes
        .iter()
        .filter(|node| node.id != first && node.takes_rooms())
        .filter(|node| ledger.fits_reserve(node.id, first, wish.kbps))
        .collect();
    spares.sort_by_key(|node| {
        let (unsound, abroad, load, id) = cost(node);
        (unsound, abroad, node.settings.zone == zone, load, id)
    });
    let spares = spares.into_iter().take(usize::from(wish.spares).min(HOPS_MAX - 1));
    std::iter::once(first).chain(spares.map(|node| node.id)).collect()
}
