//! Names of nodes, for words about them.

use std::sync::Arc;

use evenkeel_core::NodeId;

use crate::settings::Settings;

/// What is said of a node.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) region: Arc<str>,
    pub(super) zone: Arc<str>,
}

/// All nodes; a [`NodeId`] is a place in the list.
#[derive(Clone, Debug)]
pub(super) struct Nodes(Arc<[Named]>);

impl Nodes {
    pub(super) fn new(settings: &Settings) -> Nodes {
        let named = settings.nodes.iter().map(|node| Named {
            name: node.name.clone(),
            region: node.region.clone(),
            zone: node.zone.clone(),
        });
        Nodes(named.collect())
    }

    /// The node's names; one that nobody configured goes by its number.
    pub(super) fn of(&self, node: NodeId) -> Named {
        self.0.get(node.0 as usize).cloned().unwrap_or_else(|| Named {
            name: node.to_string().into(),
            region: Arc::from(""),
            zone: Arc::from(""),
        })
    }
}
