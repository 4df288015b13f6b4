//! Names of what control speaks of by number.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use evenkeel_core::{Hop, NodeId, RegionId, Settings};

use super::view;
use crate::settings;

/// Names of nodes and regions, as the configuration has them.
#[derive(Debug)]
pub struct Names {
    /// A node that is gone keeps its place until another takes it: words about it may come late.
    nodes: RwLock<Vec<Option<Place>>>,
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
            Some(Place { node: (*node.name).into(), region, zone: (*zone.name).into() })
        };
        Names { nodes: RwLock::new(settings.nodes.iter().map(place).collect()), regions }
    }

    fn nodes(&self) -> RwLockReadGuard<'_, Vec<Option<Place>>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node is this one from now on.
    pub(super) fn put(&self, id: NodeId, node: &settings::Node) {
        let (place, region, zone) = (id.0 as usize, node.region.clone(), node.zone.clone());
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let places = nodes.len().max(place + 1);
        nodes.resize(places, None);
        nodes[place] = Some(Place { node: node.name.clone(), region, zone });
    }

    pub(super) fn node(&self, id: NodeId) -> Arc<str> {
        self.hop_of(id).0
    }

    pub(super) fn region(&self, id: RegionId) -> Arc<str> {
        let name = self.regions.get(id.0 as usize);
        name.map_or_else(|| id.to_string().into(), Arc::clone)
    }

    /// Node, region and zone; one that nobody configured goes by its number.
    fn hop_of(&self, id: NodeId) -> (Arc<str>, Arc<str>, Arc<str>) {
        match self.nodes().get(id.0 as usize) {
            Some(Some(Place { node, region, zone })) => {
                (Arc::clone(node), Arc::clone(region), Arc::clone(zone))
            }
            Some(None) | None => (id.to_string().into(), "".into(), "".into()),
        }
    }

    pub(super) fn hop(&self, hop: Hop) -> view::Hop {
        let (node, region, zone) = self.hop_of(hop.node);
        view::Hop { node, region, zone, incarnation: hop.incarnation.0 }
    }

    pub(super) fn route(&self, hops: &[Hop]) -> Vec<view::Hop> {
        hops.iter().map(|&hop| self.hop(hop)).collect()
    }
}
