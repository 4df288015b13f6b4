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

    /// Returns the node with this number, if it has a row.
    pub fn node(&self, id: NodeId) -> Option<Node<'_>> {
        let row = self.frame.ids.iter().position(|&row| row == u64::from(id.0))?;
        Some(Node { nodes: self, row, id, place: self.catalog.place(id) })
    }

    /// Returns the names of regions, zones and nodes.
    pub fn catalog(&self) -> &Catalog {
        self.catalog
    }

    /// Returns the time since the gateway started. A policy has no other clock. A state may come from a gateway that
    /// ran longer, so that a time in it may be in the future.
    pub fn now(&self) -> Duration {
        self.frame.now()
    }

    /// Returns the policy's only source of randomness: constant for the lifetime of a revision, and recorded.
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
    /// The node's catalog entry.
    place: Option<&'a Place>,
}

impl<'a> Node<'a> {
    /// Returns the node's number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the node's configured name.
    pub fn name(&self) -> Option<&'a str> {
        self.place.map(Place::name)
    }

    /// Returns the node's configured labels.
    pub fn labels(&self) -> Labels<'a> {
        self.place.map_or(Labels(&[]), Place::labels)
    }

    /// Returns the node's zone.
    pub fn zone(&self) -> Option<ZoneId> {
        self.place.map(Place::zone)
    }

    /// Returns the node's region.
    pub fn region(&self) -> Option<RegionId> {
        self.place.and_then(Place::region)
    }

    /// Returns a metric by its registry name. Each metric also has a function.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.nodes.frame.measured(self.row, metric)
    }
}
