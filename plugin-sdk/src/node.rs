//! The nodes a routing policy chooses among.

use std::time::Duration;

use crate::catalog::Catalog;
use crate::frame::Frame;
use crate::id::{NodeId, RegionId, ZoneId};
use crate::labels::Labels;
use crate::registry::Metric;

/// The nodes there are, with what was measured of them.
#[derive(Debug)]
pub struct Nodes<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) catalog: &'a Catalog,
    pub(crate) seed: u64,
}

impl Nodes<'_> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Node<'_>> {
        (0..self.frame.len()).map(|row| Node { nodes: self, row })
    }

    /// The node with this number, if there is a row about it.
    pub fn node(&self, id: NodeId) -> Option<Node<'_>> {
        let row = self.frame.ids.iter().position(|&row| row == u64::from(id.0))?;
        Some(Node { nodes: self, row })
    }

    /// Regions, zones and nodes by name.
    pub fn catalog(&self) -> &Catalog {
        self.catalog
    }

    /// Since the gateway started: all the clock a policy gets. A state may have come from a gateway that ran longer, so that
    /// a time in it lies ahead of this one.
    pub fn now(&self) -> Duration {
        self.frame.now()
    }

    /// The only randomness a policy gets: the same for the life of a revision, recorded with it.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// A node, with what was measured of it.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    nodes: &'a Nodes<'a>,
    row: usize,
}

impl<'a> Node<'a> {
    /// Its number.
    pub fn id(&self) -> NodeId {
        NodeId(self.nodes.frame.ids[self.row] as u32)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> Option<&'a str> {
        self.nodes.catalog.node_name(self.id())
    }

    /// What the configuration says of it.
    pub fn labels(&self) -> Labels<'a> {
        self.nodes.catalog.node_labels(self.id())
    }

    /// The zone it is in.
    pub fn zone(&self) -> Option<ZoneId> {
        self.nodes.catalog.zone_of(self.id())
    }

    /// The region it is in.
    pub fn region(&self) -> Option<RegionId> {
        self.nodes.catalog.region_of(self.zone()?)
    }

    /// A metric by its name in the registry; there is a function for each.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.nodes.frame.measured(self.row, metric)
    }
}
