//! The listed nodes, and operations on nodes and regions.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use evenkeel_config::{DriverSettings, GatewayConfig, NodeConfig};
use evenkeel_core::{Failback, Gateway, GatewayRecord, Impossible};
use evenkeel_model::{CatalogEntry, NodeId, RegionId};
use evenkeel_process::sha256;
use tokio::sync::mpsc;

use crate::inherited::{NamedSockets, SocketName};
use crate::messages::ControlError;
use crate::node_list::{DownstreamGuard, ListedNode, NotReloaded, ReloadRequest};

/// An operator's operation on a node or region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A draining place takes no new rooms, and its rooms move, by the deadline if other nodes have capacity.
    Drain {
        /// Node or region that the operation changes.
        place: OperationTarget,
        /// True to drain, false to end the drain.
        draining: bool,
        /// Deadline of a drain. Without a deadline rooms move once other nodes have capacity.
        within: Option<Duration>,
    },
    /// Marks the node down until it is returned.
    Eject(Box<str>),
    /// Ends the ejection of a node.
    Return(Box<str>),
    /// Sets failback of a region, or of all regions.
    Failback(Option<Box<str>>, Failback),
}

/// The place of a drain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OperationTarget {
    /// Node with this name.
    Node(Box<str>),
    /// Region with this name.
    Region(Box<str>),
}

/// The listed nodes, and what was installed to reach them.
#[derive(Default)]
pub(crate) struct NodeResources {
    /// Indexed by node.
    pub(crate) listed: Vec<Option<ListedNode>>,
    pub(crate) guard: DownstreamGuard,
    /// The task that reloads the configuration.
    pub(crate) reloader: Option<mpsc::Sender<ReloadRequest>>,
    /// Duplicates of the trunks' sockets, by node and worker.
    pub(crate) trunks: Vec<Vec<OwnedFd>>,
}

impl NodeResources {
    pub(crate) fn listed(&self, id: NodeId) -> Option<&Arc<NodeConfig>> {
        self.listed.get(id.0 as usize)?.as_ref().map(|listed| &listed.node)
    }

    pub(crate) fn leaves(&self, id: NodeId) -> bool {
        self.listed.get(id.0 as usize).and_then(Option::as_ref).is_some_and(|listed| listed.leaves)
    }

    /// The node's name; its number, if the node is gone.
    pub(crate) fn node_name(&self, id: NodeId) -> Box<str> {
        self.listed(id).map_or_else(|| id.to_string().into(), |node| (*node.name).into())
    }

    /// The node with this name. A node that is being removed is returned only if no other node has the name.
    pub(crate) fn node_named(&self, name: &str) -> Option<NodeId> {
        let nodes = (0..).map(NodeId).zip(&self.listed);
        let named = nodes.filter_map(|(id, listed)| {
            let listed = listed.as_ref().filter(|listed| *listed.node.name == *name)?;
            Some((listed.leaves, id))
        });
        named.min().map(|(_, id)| id)
    }

    /// The node of these with this name.
    pub(crate) fn named_among(&self, name: &str, nodes: &[NodeId]) -> Option<NodeId> {
        let is_it = |id: &NodeId| self.listed(*id).is_some_and(|node| *node.name == *name);
        nodes.iter().copied().find(is_it)
    }

    /// Nodes at this address, including nodes that are being removed.
    pub(crate) fn listed_at(&self, address: SocketAddr) -> Vec<NodeId> {
        let is_it = |listed: &ListedNode| canonical(listed.node.address) == canonical(address);
        let listed = (0..).map(NodeId).zip(&self.listed);
        let there = listed.filter(|(_, listed)| listed.as_ref().is_some_and(is_it));
        there.map(|(id, _)| id).collect()
    }

    /// Finds the nodes at which an offer names the client's addresses. All sessions share the copy of a name in the node
    /// list.
    pub(crate) fn find_named(
        &self,
        named: &mut [(Arc<str>, SocketAddr)],
        settings: &GatewayConfig,
    ) -> Result<Vec<(NodeId, SocketAddr)>, ControlError> {
        let mut nodes = Vec::new();
        for (name, address) in named {
            let node = self.node_named(name);
            let node = node.ok_or_else(|| ControlError::UnknownNode((**name).into()))?;
            nodes.push((node, *address));
            if let Some(listed) = self.listed(node) {
                let networks = &settings.gateway.node_networks;
                let is_own = listed.address.ip().to_canonical() == address.ip().to_canonical();
                if !is_own && !networks.iter().any(|network| network.contains(address.ip())) {
                    let (node, address) = ((**name).into(), *address);
                    return Err(ControlError::OutsideNetworks { node, address });
                }
                *name = Arc::clone(&listed.name);
            }
        }
        Ok(nodes)
    }

    /// Regions, zones and nodes, as policies know them.
    pub(crate) fn catalog(&self, settings: &GatewayConfig, gateway: &Gateway) -> Vec<CatalogEntry> {
        let regions = settings.regions.iter().map(|name| &**name);
        let table = gateway.node_table();
        let zones = table.zones().iter().map(|zone| (zone.region, &*zone.name));
        let nodes = table.iter().filter_map(|node| {
            let listed = self.listed(node.id)?;
            Some((node.id, node.settings.zone, &*listed.name))
        });
        evenkeel_policies::catalog(table.home(), regions, zones, nodes)
    }

    /// Duplicates of the sockets of all trunks.
    pub(crate) fn duplicate_trunks(&self) -> io::Result<NamedSockets> {
        let mut duplicates = NamedSockets::new();
        for (listed, trunks) in self.listed.iter().zip(&self.trunks) {
            let Some(ListedNode { node, leaves: false }) = listed else { continue };
            for (worker, trunk) in trunks.iter().enumerate() {
                let (node, address) = (Arc::clone(&node.name), node.address);
                let name = SocketName::Trunk { node, address, worker };
                duplicates.push((name, trunk.try_clone()?));
            }
        }
        Ok(duplicates)
    }

    /// Passes a reload to the task that reads the configuration.
    pub(crate) fn pass_on(&mut self, reload: ReloadRequest) {
        let Some(reloader) = &self.reloader else {
            let _ = reload.reply.send(Err(NotReloaded::NoReloader));
            return;
        };
        // If the queue is full the caller gets an error.
        let _ = reloader.try_send(reload);
    }

    /// Starts an operation.
    pub(crate) fn operate(
        &self,
        operation: Operation,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = |name: &str| self.node_named(name).ok_or(Impossible::NoSuchNode);
        match operation {
            Operation::Drain { place: OperationTarget::Node(name), draining, within } => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_drain(node, draining, within, now))
            }
            Operation::Drain { place: OperationTarget::Region(name), draining, within } => {
                let region = region_named(settings, &name)?;
                gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_region(region, draining, within, now)
                })
            }
            Operation::Eject(name) => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_eject(node, now))
            }
            Operation::Return(name) => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_return(node))
            }
            Operation::Failback(name, failback) => {
                let region = name.map(|name| region_named(settings, &name)).transpose()?;
                gateway.handle_failback(region, failback, now)
            }
        }
    }

    /// The error of an operation, with the facts that its caller needs.
    pub(crate) fn why_impossible(
        &self,
        reason: Impossible,
        node: Option<NodeId>,
        settings: &GatewayConfig,
        gateway: &Gateway,
    ) -> ControlError {
        match reason {
            Impossible::NoSuchNode => {
                let nodes = self.listed.iter().flatten();
                let known = nodes.map(|listed| (*listed.node.name).into()).collect();
                ControlError::Unfound { reason, known }
            }
            Impossible::NoSuchRegion => {
                let regions = settings.regions.iter();
                ControlError::Unfound {
                    reason,
                    known: regions.map(|name| (**name).into()).collect(),
                }
            }
            Impossible::NodeUnfit => {
                let standing =
                    gateway.views().nodes().find(|standing| Some(standing.hop.node) == node);
                standing.map_or(ControlError::Impossible(reason), |standing| ControlError::Unfit {
                    health: standing.health,
                    draining: standing.draining,
                    load_permille: standing.load_permille,
                    capacity_kbps: standing.capacity_kbps,
                })
            }
            reason => ControlError::Impossible(reason),
        }
    }

    /// Names the nodes as another process identifies them.
    pub(crate) fn name_nodes(&self, core: &mut GatewayRecord) {
        for node in &mut core.nodes {
            if let Some(listed) = self.listed(node.hop.node) {
                node.name = identity(listed).into();
            }
        }
    }

    /// The nodes that stay, by their identities.
    pub(crate) fn by_identity(&self) -> BTreeMap<String, NodeId> {
        let nodes = (0..).map(NodeId).zip(&self.listed);
        let stays = nodes.filter_map(|(id, listed)| Some((id, listed.as_ref()?)));
        let stays = stays.filter(|(_, listed)| !listed.leaves);
        stays.map(|(id, listed)| (identity(&listed.node), id)).collect()
    }
}

pub(crate) fn region_named(settings: &GatewayConfig, name: &str) -> Result<RegionId, Impossible> {
    let place = settings.regions.iter().position(|known| **known == *name);
    place.map(|place| RegionId(place as u32)).ok_or(Impossible::NoSuchRegion)
}

/// The canonical form of an address that can be written in two ways.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The properties of a node on which its sessions depend, as one text. A node of another process with the same text has
/// the sessions of this one.
pub(crate) fn identity(node: &NodeConfig) -> String {
    let (driver, facts) = match &node.driver {
        DriverSettings::Plain { .. } => ("plain", Vec::new()),
        DriverSettings::Agent { secret, encrypt } => {
            ("agent", [secret.bytes(), &[u8::from(*encrypt)]].concat())
        }
        DriverSettings::Rtpengine => ("rtpengine", Vec::new()),
        DriverSettings::Webhook { hook, .. } => ("webhook", hook.url.to_string().into_bytes()),
    };
    let facts = HEXLOWER.encode(&sha256(&facts)[..8]);
    format!("{} {} {driver} {facts}", node.name, node.address)
}

#[cfg(test)]
mod tests;
