//! Names and places of regions, zones and nodes.

use crate::id::{NodeId, RegionId, ZoneId};
use crate::labels::Labels;
use crate::registry::{KIND_HOME, KIND_NODE, KIND_REGION, KIND_ZONE};
use crate::wit::types::{Entry, Label};

/// Names and places of regions, zones and nodes, and the gateway's own region.
#[derive(Default, Debug)]
pub struct Catalog {
    home: Option<RegionId>,
    /// Regions, by id.
    regions: Vec<Place>,
    /// Zones, by id; the parent is the region.
    zones: Vec<Place>,
    /// Nodes, by id; the parent is the zone.
    nodes: Vec<Place>,
}

#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    parent: u64,
    /// The region of a node's zone; nodes only.
    region: Option<RegionId>,
    name: String,
    labels: Vec<Label>,
}

impl Place {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn labels(&self) -> Labels<'_> {
        Labels(&self.labels)
    }

    /// Returns the zone of a node.
    pub(crate) fn zone(&self) -> ZoneId {
        ZoneId(self.parent)
    }

    /// Returns the region of a node.
    pub(crate) fn region(&self) -> Option<RegionId> {
        self.region
    }
}

impl Catalog {
    pub(crate) fn new(entries: Vec<Entry>) -> Catalog {
        let mut catalog = Catalog::default();
        for entry in entries {
            let Entry { kind, id, parent, name, labels } = entry;
            let place = Place { id, parent, region: None, name, labels };
            match kind {
                KIND_REGION => catalog.regions.push(place),
                KIND_ZONE => catalog.zones.push(place),
                KIND_NODE => catalog.nodes.push(place),
                KIND_HOME => catalog.home = Some(RegionId(parent)),
                // A newer gateway may send other kinds.
                _ => {}
            }
        }
        for places in [&mut catalog.regions, &mut catalog.zones, &mut catalog.nodes] {
            places.sort_unstable_by_key(|place| place.id);
        }
        for node in &mut catalog.nodes {
            node.region = find(&catalog.zones, node.parent).map(|zone| RegionId(zone.parent));
        }
        catalog
    }

    /// Returns the gateway's own region.
    pub fn home(&self) -> Option<RegionId> {
        self.home
    }

    /// Returns the region with this name.
    pub fn region(&self, name: &str) -> Option<RegionId> {
        named(&self.regions, name).map(RegionId)
    }

    /// Returns the first zone with this name in a region.
    pub fn zone(&self, region: RegionId, name: &str) -> Option<ZoneId> {
        let mut zones = self.zones.iter().filter(|zone| zone.parent == region.0);
        zones.find(|zone| zone.name == name).map(|zone| ZoneId(zone.id))
    }

    /// Returns the node with this name.
    pub fn node(&self, name: &str) -> Option<NodeId> {
        named(&self.nodes, name).map(|id| NodeId(id as u32))
    }

    /// Iterates over all regions, by number.
    pub fn regions(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.regions.iter().map(|region| RegionId(region.id))
    }

    /// Returns the name of a region.
    pub fn region_name(&self, region: RegionId) -> Option<&str> {
        find(&self.regions, region.0).map(|region| region.name.as_str())
    }

    /// Returns the name of a zone.
    pub fn zone_name(&self, zone: ZoneId) -> Option<&str> {
        find(&self.zones, zone.0).map(|zone| zone.name.as_str())
    }

    /// Returns the name of a node.
    pub fn node_name(&self, node: NodeId) -> Option<&str> {
        self.place(node).map(Place::name)
    }

    /// Returns the configured labels of a node.
    pub fn node_labels(&self, node: NodeId) -> Labels<'_> {
        self.place(node).map_or(Labels(&[]), Place::labels)
    }

    /// Returns the configured labels of a region.
    pub fn region_labels(&self, region: RegionId) -> Labels<'_> {
        Labels(find(&self.regions, region.0).map_or(&[], |region| &region.labels))
    }

    /// Returns the zone of a node.
    pub fn zone_of(&self, node: NodeId) -> Option<ZoneId> {
        self.place(node).map(Place::zone)
    }

    /// Returns the region of a zone.
    pub fn region_of(&self, zone: ZoneId) -> Option<RegionId> {
        find(&self.zones, zone.0).map(|zone| RegionId(zone.parent))
    }

    pub(crate) fn place(&self, node: NodeId) -> Option<&Place> {
        find(&self.nodes, node.0.into())
    }

    /// Looks up nodes one after the other. Tables and the catalog have the same order, so that the
    /// next node is usually the next entry.
    pub(crate) fn places<'a>(&'a self) -> impl FnMut(NodeId) -> Option<&'a Place> {
        let mut next = self.nodes.iter();
        move |node| {
            let id = u64::from(node.0);
            next.next().filter(|place| place.id == id).or_else(|| {
                let at = self.nodes.partition_point(|place| place.id < id);
                next = self.nodes[at..].iter();
                next.next().filter(|place| place.id == id)
            })
        }
    }
}

fn named(places: &[Place], name: &str) -> Option<u64> {
    places.iter().find(|place| place.name == name).map(|place| place.id)
}

/// Finds the place with this id. Ids are usually consecutive, so that the first guess is correct.
fn find(places: &[Place], id: u64) -> Option<&Place> {
    let guess = id.checked_sub(places.first()?.id)?;
    match usize::try_from(guess).ok().and_then(|guess| places.get(guess)) {
        Some(place) if place.id == id => Some(place),
        _ => places.binary_search_by_key(&id, |place| place.id).ok().map(|at| &places[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_in_any_order() {
        let entry = |kind, id, parent| Entry {
            kind,
            id,
            parent,
            name: format!("{kind}-{id}"),
            labels: Vec::new(),
        };
        let catalog = Catalog::new(vec![
            entry(KIND_NODE, 5, 11),
            entry(KIND_NODE, 2, 10),
            entry(KIND_NODE, 3, 12),
            entry(KIND_ZONE, 10, 1),
            entry(KIND_ZONE, 11, 7),
            entry(KIND_REGION, 1, 0),
            entry(KIND_REGION, 7, 0),
        ]);
        let mut places = catalog.places();
        for id in [2, 3, 5, 4, 5, 2, 0, 9, 3, 3] {
            let place = places(NodeId(id)).map(|place| (place.zone(), place.region()));
            let expected = match id {
                2 => Some((ZoneId(10), Some(RegionId(1)))),
                // The catalog has no such zone.
                3 => Some((ZoneId(12), None)),
                5 => Some((ZoneId(11), Some(RegionId(7)))),
                _ => None,
            };
            assert_eq!(place, expected, "{id}");
        }
    }
}
