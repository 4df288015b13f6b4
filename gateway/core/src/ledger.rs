//! Who counts on which capacity: load where rooms stand, reserves where they would go.

use std::collections::BTreeMap;

use crate::NodeId;

/// What one room counts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    /// Where it stands.
    pub(crate) on: NodeId,
    /// Where capacity is reserved for the death of that node.
    pub(crate) reserve: Option<NodeId>,
    /// What it needs.
    pub(crate) kbps: u64,
}

/// Capacity, load and reserves of every node.
///
/// A node's reserve is the largest load that one other node's death would bring, not the sum over all of them.
#[derive(Debug)]
pub(crate) struct Ledger {
    capacity: Vec<u64>,
    load: Vec<u64>,
    rooms: Vec<u32>,
    /// By standby and first node.
    reserved: BTreeMap<(NodeId, NodeId), u64>,
}

impl Ledger {
    pub(crate) fn new(capacity: Vec<u64>) -> Ledger {
        let nodes = capacity.len();
        Ledger { capacity, load: vec![0; nodes], rooms: vec![0; nodes], reserved: BTreeMap::new() }
    }

    pub(crate) fn hold(&mut self, holding: Holding) {
        self.load[holding.on.0 as usize] += holding.kbps;
        self.rooms[holding.on.0 as usize] += 1;
        if let Some(standby) = holding.reserve {
            *self.reserved.entry((standby, holding.on)).or_default() += holding.kbps;
        }
    }

    pub(crate) fn release(&mut self, holding: Holding) {
        self.load[holding.on.0 as usize] -= holding.kbps;
        self.rooms[holding.on.0 as usize] -= 1;
        if let Some(standby) = holding.reserve {
            let key = (standby, holding.on);
            if let Some(kbps) = self.reserved.get_mut(&key) {
                *kbps -= holding.kbps;
                if *kbps == 0 {
                    self.reserved.remove(&key);
                }
            }
        }
    }

    /// Whether a room may stand on the node without breaking what is reserved there.
    pub(crate) fn fits(&self, node: NodeId, kbps: u64) -> bool {
        self.load[node.0 as usize] + self.reserve(node) + kbps <= self.capacity[node.0 as usize]
    }

    /// Whether the node could also carry this room if `first` died.
    pub(crate) fn fits_reserve(&self, standby: NodeId, first: NodeId, kbps: u64) -> bool {
        let brought = self.reserved.get(&(standby, first)).copied().unwrap_or(0) + kbps;
        let reserve = self.reserve(standby).max(brought);
        self.load[standby.0 as usize] + reserve <= self.capacity[standby.0 as usize]
    }

    /// Whether what is promised there can still be kept.
    pub(crate) fn keeps_its_promises(&self, node: NodeId) -> bool {
        self.fits(node, 0)
    }

    /// Nodes that keep capacity for the death of this one.
    pub(crate) fn standbys_of(&self, first: NodeId) -> Vec<NodeId> {
        self.reserved.keys().filter(|(_, of)| *of == first).map(|(standby, _)| *standby).collect()
    }

    fn reserve(&self, node: NodeId) -> u64 {
        let of_node = (node, NodeId(0))..=(node, NodeId(u32::MAX));
        self.reserved.range(of_node).map(|(_, kbps)| *kbps).max().unwrap_or(0)
    }

    /// Load and reserve against capacity.
    pub(crate) fn permille(&self, node: NodeId) -> u64 {
        let used = self.load[node.0 as usize] + self.reserve(node);
        used * 1_000 / self.capacity[node.0 as usize].max(1)
    }

    pub(crate) fn rooms(&self, node: NodeId) -> u32 {
        self.rooms[node.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const C: NodeId = NodeId(2);

    fn holding(on: NodeId, reserve: NodeId, kbps: u64) -> Holding {
        Holding { on, reserve: Some(reserve), kbps }
    }

    #[test]
    fn a_reserve_is_the_largest_load_that_one_death_would_bring() {
        let mut ledger = Ledger::new(vec![100, 100, 100]);
        ledger.hold(holding(A, C, 40));
        ledger.hold(holding(B, C, 60));
        assert!(ledger.fits(C, 40), "one death brings 60 at most");
        assert!(!ledger.fits(C, 41));
        assert!(ledger.fits_reserve(C, A, 60));
        assert!(!ledger.fits_reserve(C, A, 61));
    }

    #[test]
    fn what_is_released_was_held() {
        let mut ledger = Ledger::new(vec![100, 100, 100]);
        ledger.hold(holding(A, C, 40));
        assert_eq!(ledger.standbys_of(A), [C]);
        assert_eq!((ledger.permille(A), ledger.permille(C), ledger.rooms(A)), (400, 400, 1));
        ledger.release(holding(A, C, 40));
        assert_eq!(ledger.standbys_of(A), []);
        assert_eq!((ledger.permille(A), ledger.permille(C), ledger.rooms(A)), (0, 0, 0));
    }

    #[test]
    fn a_promise_is_broken_when_load_eats_the_reserve() {
        let mut ledger = Ledger::new(vec![100, 100, 100]);
        ledger.hold(holding(A, C, 60));
        ledger.hold(Holding { on: C, reserve: None, kbps: 40 });
        assert!(ledger.keeps_its_promises(C));
        ledger.hold(Holding { on: C, reserve: None, kbps: 1 });
        assert!(!ledger.keeps_its_promises(C));
    }
}
