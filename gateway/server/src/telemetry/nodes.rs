//! Names of nodes, for words about them.

use std::sync::Arc;

use evenkeel_core::{NodeId, RegionId};

use crate::settings::Settings;

/// What is said of a node.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) region: Arc<str>,
    pub(super) zone: Arc<str>,
}

/// All nodes and regions; a [`NodeId`] and a [`RegionId`] are places in the lists.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    nodes: Arc<[Named]>,
    regions: Arc<[Arc<str>]>,
}

impl Nodes {
    pub(super) fn new(settings: &Settings) -> Nodes {
        let named = settings.nodes.iter().map(|node| Named {
            name: node.name.clone(),
            region: node.region.clone(),
            zone: node.zone.clone(),
        });
        Nodes {
            nodes: named.collect(),
            regions: settings.regions.iter().map(|name| (**name).into()).collect(),
        }
    }

    /// The region's name.
    pub(super) fn region(&self, region: RegionId) -> Arc<str> {
        let name = self.regions.get(region.0 as usize);
        name.map_or_else(|| region.to_string().into(), Arc::clone)
    }

    /// The node's names; one that nobody configured goes by its number.
    pub(super) fn of(&self, node: NodeId) -> Named {
        self.nodes.get(node.0 as usize).cloned().unwrap_or_else(|| Named {
            name: node.to_string().into(),
            region: Arc::from(""),
            zone: Arc::from(""),
        })
    }
}
