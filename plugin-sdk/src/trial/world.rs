//! Regions, zones and nodes for tests.

use super::{Cells, Measured};
use crate::catalog::Catalog;
use crate::id::{NodeId, RegionId};
use crate::registry::{KIND_HOME, KIND_NODE, KIND_REGION, KIND_ZONE, Metric};
use crate::wit::types;

/// Regions, zones and nodes for tests.
#[derive(Clone, Debug)]
pub struct World {
    /// Names and measures of regions. A region's number is its index, from 1.
    pub(super) regions: Vec<(String, Cells)>,
    /// Names and regions of zones. A zone's number is its index, from 1.
    zones: Vec<(String, u64)>,
    /// Names, zones and measures of nodes. A node's number is its index, from 0.
    pub(super) nodes: Vec<(String, u64, Cells)>,
}

impl World {
    /// Creates a world with one region, the gateway's own.
    pub fn around(home: &str) -> World {
        World { regions: vec![(home.into(), vec![])], zones: vec![], nodes: vec![] }
    }

    /// Adds a region, or sets the measures of an existing one.
    #[must_use]
    pub fn region(mut self, name: &str, measured: &Measured) -> World {
        let region = self.region_number(name);
        self.regions[region as usize - 1].1 = measured.to_vec();
        self
    }

    /// Adds a node with its region and zone, or sets the measures of an existing one.
    #[must_use]
    pub fn node(mut self, name: &str, region: &str, zone: &str, measured: &Measured) -> World {
        let region = self.region_number(region);
        let there = self.zones.iter().position(|(name, of)| name == zone && *of == region);
        let zone = there.unwrap_or_else(|| {
            self.zones.push((zone.into(), region));
            self.zones.len() - 1
        });
        let node = (name.to_owned(), zone as u64 + 1, measured.to_vec());
        match self.nodes.iter_mut().find(|(there, ..)| there == name) {
            Some(there) => *there = node,
            None => self.nodes.push(node),
        }
        self
    }

    /// Sets one measure of a node.
    ///
    /// # Panics
    ///
    /// Panics if there is no such node.
    pub fn measure(&mut self, node: &str, metric: Metric, value: u32) {
        let at = self.node_id(node).0 as usize;
        let (.., measured) = &mut self.nodes[at];
        measured.retain(|&(there, _)| there != metric);
        measured.push((metric, value));
    }

    /// Returns the number of a node.
    ///
    /// # Panics
    ///
    /// Panics if there is no such node.
    pub fn node_id(&self, name: &str) -> NodeId {
        let node = self.nodes.iter().position(|(there, ..)| there == name);
        NodeId(node.unwrap_or_else(|| panic!("there is no node {name}")) as u32)
    }

    /// Returns the number of a region.
    ///
    /// # Panics
    ///
    /// Panics if there is no such region.
    pub fn region_id(&self, name: &str) -> RegionId {
        let region = self.regions.iter().position(|(there, _)| there == name);
        RegionId(region.unwrap_or_else(|| panic!("there is no region {name}")) as u64 + 1)
    }

    fn region_number(&mut self, name: &str) -> u64 {
        if let Some(at) = self.regions.iter().position(|(there, _)| there == name) {
            return at as u64 + 1;
        }
        self.regions.push((name.into(), vec![]));
        self.regions.len() as u64
    }

    pub(super) fn names(&self, hops: &[u32]) -> Vec<String> {
        hops.iter().map(|&hop| self.nodes[hop as usize].0.clone()).collect()
    }

    pub(super) fn catalog(&self) -> Catalog {
        let entry = |kind, id, parent, name: &str| {
            let (name, labels) = (name.to_owned(), vec![]);
            types::Entry { kind, id, parent, name, labels }
        };
        let mut entries = vec![entry(KIND_HOME, 1, 1, "home")];
        for (id, (name, _)) in (1..).zip(&self.regions) {
            entries.push(entry(KIND_REGION, id, 0, name));
        }
        for (id, (name, region)) in (1..).zip(&self.zones) {
            entries.push(entry(KIND_ZONE, id, *region, name));
        }
        for (id, (name, zone, _)) in (0..).zip(&self.nodes) {
            entries.push(entry(KIND_NODE, id, *zone, name));
        }
        Catalog::new(entries)
    }
}
