//! The board shows to the packet path which nodes are up, and as which incarnation. Only the core writes it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering};
use crate::{Hop, Incarnation, NodeId};

/// Death times are stored relative to this long before the first death, so that no stored time is negative.
const BEFORE_FIRST: Duration = Duration::from_secs(3_600);

/// A fixed array of atomic cells, one per node, plus spare cells for nodes added later.
///
/// One store to a cell reroutes every session that used the node as its first usable hop, without work per session. A
/// cell never returns to `up` for the same incarnation, so epochs that packets compute from the board never go back.
#[derive(Debug)]
pub struct Board {
    cells: Box<[AtomicU64]>,
    /// Indexed by node: the time of the last death in microseconds since [`BEFORE_FIRST`] before `first_death`. Read
    /// once per session of a dead node, never per packet.
    deaths: Box<[AtomicU64]>,
    first_death: OnceLock<Instant>,
}

/// One node's state on the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The newest incarnation.
    pub incarnation: Incarnation,
    /// This incarnation carries packets. Once false, it stays false; only a new incarnation sets it to true.
    pub up: bool,
    /// The dead node: its rooms took the reserve at this node. For rooms of any other dead node this hop is gated.
    pub spent_for: Option<NodeId>,
}

/// `incarnation:32 | spent_for + 1:31 | up:1`.
impl Cell {
    fn pack(self) -> u64 {
        let spent = self.spent_for.map_or(0, |node| u64::from(node.0) + 1);
        u64::from(self.incarnation.0) << 32 | spent << 1 | u64::from(self.up)
    }

    #[inline]
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
    /// Creates a board for nodes `0..nodes`, each up as incarnation 1.
    pub fn new(nodes: usize) -> Board {
        Board::with_room(nodes, nodes)
    }

    /// Creates a board with `slots` cells in all. Cells without a node are down with incarnation 0, which no node uses.
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

    /// `None` if no node has this number.
    #[inline]
    pub fn cell(&self, node: NodeId) -> Option<Cell> {
        let cell = self.cells.get(node.0 as usize)?;
        Some(Cell::unpack(cell.load(Ordering::Acquire)))
    }

    #[inline]
    pub fn is_up(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.cell(node).is_some_and(|cell| cell.up && cell.incarnation == incarnation)
    }

    /// The time of death of the hop, by the evidence. `None` while it carries packets, and after its node returns as
    /// another incarnation.
    pub fn died(&self, hop: Hop) -> Option<Instant> {
        let is_down = || {
            let cell = self.cell(hop.node)?;
            (cell.incarnation == hop.incarnation && !cell.up).then_some(())
        };
        is_down()?;
        let first = self.first_death.get()?;
        let since =
            Duration::from_micros(self.deaths.get(hop.node.0 as usize)?.load(Ordering::Acquire));
        // Else the time may be of the next incarnation, which has died as well.
        is_down()?;
        Some((*first + since).checked_sub(BEFORE_FIRST).unwrap_or(*first))
    }

    /// Marks this incarnation down for good. `since` is the time of death by the evidence.
    pub fn mark_down(&self, node: NodeId, since: Instant) {
        let first = *self.first_death.get_or_init(|| since);
        if let Some(death) = self.deaths.get(node.0 as usize) {
            let after = (since + BEFORE_FIRST).saturating_duration_since(first);
            death.store(after.as_micros() as u64, Ordering::Release);
        }
        self.update(node, |cell| Cell { up: false, ..cell });
    }

    /// Brings the node back as a new incarnation, which no existing route contains.
    pub fn reincarnate(&self, node: NodeId) -> Option<Incarnation> {
        self.update(node, |cell| Cell {
            incarnation: Incarnation(cell.incarnation.0 + 1),
            up: true,
            spent_for: None,
        });
        self.cell(node).map(|cell| cell.incarnation)
    }

    /// Assigns the reserve at `node` to the rooms of the node `dead`, or frees the reserve.
    pub fn spend(&self, node: NodeId, dead: Option<NodeId>) {
        self.update(node, |cell| Cell { spent_for: dead, ..cell });
    }

    /// A load and a store suffice because the core is the only writer.
    fn update(&self, node: NodeId, change: impl FnOnce(Cell) -> Cell) {
        if let Some(cell) = self.cells.get(node.0 as usize) {
            let now = Cell::unpack(cell.load(Ordering::Relaxed));
            cell.store(change(now).pack(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
