//! Names of what control speaks of by number.

use std::sync::Arc;

use evenkeel_core::{Hop, NodeId, RegionId, Settings};

use super::view;

/// Names of nodes and regions, as the configuration has them.
#[derive(Clone, Debug)]
pub struct Names {
    nodes: Vec<Place>,
    regions: Vec<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Place {
    node: Arc<str>,
    region: Arc<str>,
    zone: Arc<str>,
}

impl Names {
    /// The names of these settings.
    pub fn of(settings: &Settings) -> Names {
        let regions: Vec<Arc<str>> = settings.regions.iter().map(|name| (**name).into()).collect();
        let place = |node: &evenkeel_core::NodeSettings| {
            let zone = &settings.zones[node.zone.0 as usize];
            let region = Arc::clone(&regions[zone.region.0 as usize]);
            Place { node: (*node.name).into(), region, zone: (*zone.name).into() }
        };
        Names { nodes: settings.nodes.iter().map(place).collect(), regions }
    }

    pub(super) fn node(&self, id: NodeId) -> Arc<str> {
        let place = self.nodes.get(id.0 as usize);
        place.map_or_else(|| id.to_string().into(), |place| Arc::clone(&place.node))
    }

    pub(super) fn region(&self, id: RegionId) -> Arc<str> {
        let name = self.regions.get(id.0 as usize);
        name.map_or_else(|| id.to_string().into(), Arc::clone)
    }

    pub(super) fn hop(&self, hop: Hop) -> view::Hop {
        let node = self.node(hop.node);
        let (region, zone) = match self.nodes.get(hop.node.0 as usize) {
            Some(place) => (Arc::clone(&place.region), Arc::clone(&place.zone)),
            None => ("".into(), "".into()),
        };
        view::Hop { node, region, zone, incarnation: hop.incarnation.0 }
    }

    pub(super) fn route(&self, hops: &[Hop]) -> Vec<view::Hop> {
        hops.iter().map(|&hop| self.hop(hop)).collect()
    }
}
