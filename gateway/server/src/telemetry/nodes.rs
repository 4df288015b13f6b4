//! Names of nodes, for words about them.

use std::sync::{Arc, PoisonError, RwLock};

use evenkeel_core::{NodeId, RegionId};

use crate::settings::{self, Settings};

/// What is said of a node.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) region: Arc<str>,
    pub(super) zone: Arc<str>,
}

impl Named {
    fn of(node: &settings::Node) -> Named {
        Named { name: node.name.clone(), region: node.region.clone(), zone: node.zone.clone() }
    }
}

/// All nodes and regions; a [`NodeId`] and a [`RegionId`] are places in the lists. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    /// A node that is gone keeps its place until another takes it: words about it may come late.
    nodes: Arc<RwLock<Vec<Named>>>,
    regions: Arc<[Arc<str>]>,
}

impl Nodes {
    pub(super) fn new(settings: &Settings) -> Nodes {
        let named = settings.nodes.iter().map(Named::of);
        Nodes {
            nodes: Arc::new(RwLock::new(named.collect())),
            regions: settings.regions.iter().map(|name| (**name).into()).collect(),
        }
    }

    /// The node is this one from now on.
    pub(super) fn put(&self, id: NodeId, node: &settings::Node) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        while nodes.len() <= id.0 as usize {
            let number = NodeId(nodes.len() as u32);
            nodes.push(numbered(number));
        }
        nodes[id.0 as usize] = Named::of(node);
    }

    /// The region's name.
    pub(super) fn region(&self, region: RegionId) -> Arc<str> {
        let name = self.regions.get(region.0 as usize);
        name.map_or_else(|| region.to_string().into(), Arc::clone)
    }

    /// The node's names; one that nobody configured goes by its number.
    pub(super) fn of(&self, node: NodeId) -> Named {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node.0 as usize).cloned().unwrap_or_else(|| numbered(node))
    }
}

fn numbered(node: NodeId) -> Named {
    Named { name: node.to_string().into(), region: Arc::from(""), zone: Arc::from("") }
}
