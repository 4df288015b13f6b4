//! The hops of a record of another gateway, here.

use std::collections::BTreeMap;

use evenkeel_model::{Hop, Incarnation, NodeId};

/// The hops of a gateway that continues the sessions of a record, by the hops in the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HopMap {
    hops: BTreeMap<Hop, Hop>,
    /// The nodes that both gateways list.
    nodes: BTreeMap<NodeId, NodeId>,
    /// Numbers from here are of nodes that this gateway does not list.
    unlisted: u32,
}

impl HopMap {
    pub(crate) fn new(unlisted: u32) -> HopMap {
        HopMap { hops: BTreeMap::new(), nodes: BTreeMap::new(), unlisted }
    }

    /// The node has another number here.
    pub(crate) fn renumber(&mut self, old: NodeId, new: NodeId) {
        self.nodes.insert(old, new);
    }

    /// The node's incarnation continues here.
    pub(crate) fn insert(&mut self, old: Hop, new: Hop) {
        self.hops.insert(old, new);
    }

    pub(crate) fn leads_to(&self, node: NodeId) -> bool {
        self.nodes.values().any(|new| *new == node)
    }

    /// `None` if the node is not listed any more, or the hop is of an earlier incarnation.
    pub fn map(&self, old: Hop) -> Option<Hop> {
        self.hops.get(&old).copied()
    }

    /// A hop for reports about the past. If it leads nowhere any more, its incarnation is 0, which no node has.
    pub(crate) fn past(&self, old: Hop) -> Hop {
        let of_node = self.nodes.get(&old.node).copied();
        let unlisted = || NodeId(old.node.0 % self.unlisted.max(1) + self.unlisted);
        let past = || Hop { node: of_node.unwrap_or_else(unlisted), incarnation: Incarnation(0) };
        self.map(old).unwrap_or_else(past)
    }
}
