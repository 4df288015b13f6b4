//! Nodes of a routing question.

use std::time::Duration;

use crate::catalog::{Catalog, Place};
use crate::frame::Frame;
use crate::id::{NodeId, RegionId, ZoneId};
use crate::labels::Labels;
use crate::registry::Metric;

/// Nodes with their measures.
#[derive(Debug)]
pub struct Nodes<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) catalog: &'a Catalog,
    pub(crate) seed: u64,
}

impl Nodes<'_> {
    /// Iterates over all nodes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Node<'_>> {
        let mut places = self.catalog.places();
        let ids = self.frame.ids.iter().map(|&id| NodeId(id as u32));
        ids.enumerate().map(move |(row, id)| Node { nodes: self, row, id, place: places(id) })
    }

    /// The node with this number, if it has a row.
    pub fn node(&self, id: NodeId) -> Option<Node<'_>> {
        let row = self.frame.ids.iter().position(|&row| row == u64::from(id.0))?;
        Some(Node { nodes: self, row, id, place: self.catalog.place(id) })
    }

    /// Names of regions, zones and nodes.
    pub fn catalog(&self) -> &Catalog {
        self.catalog
    }

    /// Time since the gateway started: a policy's only clock. A state may come from a gateway that
    /// ran longer, so that a time in it may lie in the future.
    pub fn now(&self) -> Duration {
        self.frame.now()
    }

    /// A policy's only randomness: constant for the life of a revision, and recorded.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// A node with its measures.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    nodes: &'a Nodes<'a>,
    row: usize,
    id: NodeId,
    /// Its catalog entry.
    place: Option<&'a Place>,
}

impl<'a> Node<'a> {
    /// Its number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its configured name.
    pub fn name(&self) -> Option<&'a str> {
        self.place.map(Place::name)
    }

    /// Its configured labels.
    pub fn labels(&self) -> Labels<'a> {
        self.place.map_or(Labels(&[]), Place::labels)
    }

    /// Its zone.
    pub fn zone(&self) -> Option<ZoneId> {
        self.place.map(Place::zone)
    }

    /// Its region.
    pub fn region(&self) -> Option<RegionId> {
        self.place.and_then(Place::region)
    }

    /// A metric by its registry name; each metric also has a function.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.nodes.frame.measured(self.row, metric)
    }
}
