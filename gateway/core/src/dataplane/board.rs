//! The board shows to every packet which nodes are up, as which incarnation. Only the core writes it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Hop, Incarnation, NodeId};

/// Deaths are kept as times since this long before the first of them, so that none is before that.
const BEFORE_FIRST: Duration = Duration::from_secs(3_600);

/// A fixed array of atomic cells, one per node, and some for nodes to come.
///
/// Flipping one cell reroutes every session that used this node as its first usable hop: one store, no work per
/// session. A flip is for ever for that incarnation, so epochs that packets compute from the board never go back.
#[derive(Debug)]
pub struct Board {
    cells: Box<[AtomicU64]>,
    /// By node, when the last that was condemned died: microseconds since [`BEFORE_FIRST`] before `first_death`. Read once
    /// for each session of a dead node, never for a packet.
    deaths: Box<[AtomicU64]>,
    first_death: OnceLock<Instant>,
}

/// One node as the board shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The newest incarnation.
    pub incarnation: Incarnation,
    /// This incarnation carries packets. Once false, it stays false; only a new incarnation is true again.
    pub up: bool,
    /// Rooms of this dead node took the reserve kept here; rooms of another dead node find this hop gated.
    pub spent_for: Option<NodeId>,
}

/// `incarnation:32 | spent_for + 1:31 | up:1`.
impl Cell {
    fn pack(self) -> u64 {
        let spent = self.spent_for.map_or(0, |node| u64::from(node.0) + 1);
        u64::from(self.incarnation.0) << 32 | spent << 1 | u64::from(self.up)
    }

    fn unpack(word: u64) -> Cell {
        let spent = (word as u32) >> 1;
        Cell {
            incarnation: Incarnation((word >> 32) as u32),
            up: word & 1 == 1,
            spent_for: spent.checked_sub(1).map(NodeId),
        }
    }
}

impl Board {
    /// A board for nodes `0..nodes`, each up as incarnation 1.
    pub fn new(nodes: usize) -> Board {
        Board::with_room(nodes, nodes)
    }

    /// The same with room for nodes to come: `slots` in all, the others down as incarnation 0, which no node has.
    pub fn with_room(nodes: usize, slots: usize) -> Board {
        let cell =
            |up, incarnation| Cell { incarnation: Incarnation(incarnation), up, spent_for: None };
        let cell = |at| if at < nodes { cell(true, 1) } else { cell(false, 0) };
        let slots = nodes.max(slots);
        Board {
            cells: (0..slots).map(|at| AtomicU64::new(cell(at).pack())).collect(),
            deaths: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            first_death: OnceLock::new(),
        }
    }

    /// None for a number without a node.
    pub fn cell(&self, node: NodeId) -> Option<Cell> {
        let cell = self.cells.get(node.0 as usize)?;
        Some(Cell::unpack(cell.load(Ordering::Acquire)))
    }

    pub fn is_up(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.cell(node).is_some_and(|cell| cell.up && cell.incarnation == incarnation)
    }

    /// Since when the evidence says that the hop is dead; none while it carries packets, and once its node is back as
    /// another incarnation.
    pub fn died(&self, hop: Hop) -> Option<Instant> {
        let cell = self.cell(hop.node)?;
        let first = self.first_death.get()?;
        let since = self.deaths.get(hop.node.0 as usize)?.load(Ordering::Acquire);
        let (is_it, since) = (cell.incarnation == hop.incarnation, Duration::from_micros(since));
        (is_it && !cell.up).then(|| (*first + since).checked_sub(BEFORE_FIRST).unwrap_or(*first))
    }

    /// The flip: this incarnation carries nothing any more, for ever. The evidence goes back to `since`.
    pub(crate) fn mark_down(&self, node: NodeId, since: Instant) {
        let first = *self.first_death.get_or_init(|| since);
        if let Some(death) = self.deaths.get(node.0 as usize) {
            let after = (since + BEFORE_FIRST).saturating_duration_since(first);
            death.store(after.as_micros() as u64, Ordering::Release);
        }
        self.update(node, |cell| Cell { up: false, ..cell });
    }

    /// The node is back as a new incarnation, which no standing route leads to.
    pub(crate) fn reincarnate(&self, node: NodeId) -> Option<Incarnation> {
        self.update(node, |cell| Cell {
            incarnation: Incarnation(cell.incarnation.0 + 1),
            up: true,
            spent_for: None,
        });
        self.cell(node).map(|cell| cell.incarnation)
    }

    /// The reserve at `node` is taken by the rooms of `dead`, or free again.
    pub(crate) fn spend(&self, node: NodeId, dead: Option<NodeId>) {
        self.update(node, |cell| Cell { spent_for: dead, ..cell });
    }

    /// The core is the only writer, so a load and a store are enough.
    fn update(&self, node: NodeId, change: impl FnOnce(Cell) -> Cell) {
        if let Some(cell) = self.cells.get(node.0 as usize) {
            let now = Cell::unpack(cell.load(Ordering::Relaxed));
            cell.store(change(now).pack(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
