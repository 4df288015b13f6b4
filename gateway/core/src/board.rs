//! What every packet reads: which nodes are up, as which incarnation. Written only by the core.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Incarnation, NodeId};

/// A fixed array of atomic cells, one per node, and some for nodes to come.
///
/// Flipping one cell reroutes every session whose first usable hop that node was: one store, no work per session.
/// A flip is for ever for that incarnation, so what a packet computes from the board never goes back.
#[derive(Debug)]
pub struct Board {
    cells: Box<[AtomicU64]>,
}

/// One node as the board shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The newest incarnation.
    pub incarnation: Incarnation,
    /// Whether that incarnation carries packets. Once `false`, only a new incarnation can be `true` again.
    pub up: bool,
    /// The dead node whose rooms took the reserve kept here; rooms of another dead node find this hop gated.
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

    /// The same with room for nodes to come: `slots` in all, the others down as incarnation 0, which is nobody's.
    pub fn with_room(nodes: usize, slots: usize) -> Board {
        let cell =
            |up, incarnation| Cell { incarnation: Incarnation(incarnation), up, spent_for: None };
        let cell = |at| if at < nodes { cell(true, 1) } else { cell(false, 0) };
        Board { cells: (0..nodes.max(slots)).map(|at| AtomicU64::new(cell(at).pack())).collect() }
    }

    /// What the board shows of a node; `None` for a number that is not a node's.
    pub fn cell(&self, node: NodeId) -> Option<Cell> {
        let cell = self.cells.get(node.0 as usize)?;
        Some(Cell::unpack(cell.load(Ordering::Acquire)))
    }

    /// Whether this incarnation of the node carries packets.
    pub fn is_up(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.cell(node).is_some_and(|cell| cell.up && cell.incarnation == incarnation)
    }

    /// The flip: this incarnation carries nothing any more, for ever.
    pub(crate) fn condemn(&self, node: NodeId) {
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
mod tests {
    use super::*;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);

    #[test]
    fn a_cell_survives_packing() {
        for spent_for in [None, Some(NodeId(0)), Some(NodeId(70_000))] {
            for up in [true, false] {
                let cell = Cell { incarnation: Incarnation(u32::MAX), up, spent_for };
                assert_eq!(Cell::unpack(cell.pack()), cell);
            }
        }
    }

    #[test]
    fn a_condemned_incarnation_never_returns() {
        let board = Board::new(2);
        board.condemn(A);
        assert!(!board.is_up(A, Incarnation(1)));
        assert!(board.is_up(B, Incarnation(1)));
        assert_eq!(board.reincarnate(A), Some(Incarnation(2)));
        assert!(!board.is_up(A, Incarnation(1)));
        assert!(board.is_up(A, Incarnation(2)));
    }

    #[test]
    fn a_number_that_is_no_node_is_not_up() {
        assert!(!Board::new(1).is_up(B, Incarnation(1)));
    }
}
