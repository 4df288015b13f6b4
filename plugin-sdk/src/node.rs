//! The nodes a routing policy chooses among.

use std::time::Duration;

use crate::catalog::{Catalog, Place};
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
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Node<'_>> {
        let mut places = self.catalog.places();
        let ids = self.frame.ids.iter().map(|&id| NodeId(id as u32));
        ids.enumerate().map(move |(row, id)| Node { nodes: self, row, id, place: places(id) })
    }

    /// The node with this number, if there is a row about it.
    pub fn node(&self, id: NodeId) -> Option<Node<'_>> {
        let row = self.frame.ids.iter().position(|&row| row == u64::from(id.0))?;
        Some(Node { nodes: self, row, id, place: self.catalog.place(id) })
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
    id: NodeId,
    /// What the catalog knows of it.
    place: Option<&'a Place>,
}

impl<'a> Node<'a> {
    /// Its number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its name in the configuration.
    pub fn name(&self) -> Option<&'a str> {
        self.place.map(Place::name)
    }

    /// What the configuration says of it.
    pub fn labels(&self) -> Labels<'a> {
        self.place.map_or(Labels(&[]), Place::labels)
    }

    /// The zone it is in.
    pub fn zone(&self) -> Option<ZoneId> {
        self.place.map(Place::zone)
    }

    /// The region it is in.
    pub fn region(&self) -> Option<RegionId> {
        self.place.and_then(Place::region)
    }

    /// A metric by its name in the registry; there is a function for each.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.nodes.frame.measured(self.row, metric)
    }
}
