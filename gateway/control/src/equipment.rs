//! Resources to reach a node, installed when the node is added and released when it is removed.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use evenkeel_dataplane::worker::{TrunkSocket, WorkerCommand};
use evenkeel_drivers::socket::connected;
use evenkeel_drivers::{DriverConfig, NgSocket, set};
use evenkeel_model::NodeId;

use super::canary::{CanaryNode, CanaryProbe};
use super::prober::{ProbeMethod, Prober};
use super::thread::{Control, NodeResources, Probes};
use crate::{NamedSockets, SocketName};
use evenkeel_process::random::draw;

pub struct Equipment {
    pub driver: DriverConfig,
    pub probe: Option<(SocketAddr, ProbeMethod)>,
    /// Address of the NG protocol, for rtpengine.
    pub line: Option<SocketAddr>,
    pub agent: Option<(SocketAddr, ProbeMethod)>,
    /// Set if the node has canary sessions.
    pub canary: Option<CanaryNode>,
    /// For trunk legs: a connected socket for each worker that has no socket to the node yet.
    pub trunks: Vec<TrunkSocket>,
    /// Duplicates of the trunks' sockets, by worker, for the process that replaces this one.
    pub duplicates: Vec<OwnedFd>,
}

#[derive(Clone, Debug)]
pub(crate) struct ListedNode {
    pub node: Arc<evenkeel_config::NodeConfig>,
    pub leaves: bool,
}

impl Control {
    pub(super) fn equip(
        &mut self,
        id: NodeId,
        node: Arc<evenkeel_config::NodeConfig>,
        equipment: Equipment,
    ) {
        let Equipment { driver, probe, line, agent, canary, trunks, duplicates } = equipment;
        set(&mut self.nodes.listed, id, Some(ListedNode { node, leaves: false }));
        self.signalling.drivers.put(id, Some(driver));
        let prober = self.prober(id, probe);
        set(&mut self.probes.probers, id, prober);
        let line = line.map(|ng| {
            NgSocket::start(id, self.signalling.ng_replies.clone(), move || connected(ng))
        });
        set(&mut self.signalling.ng_sockets, id, line);
        self.equip_agent(id, agent);
        self.probes.equip_canary(id, canary);
        set(&mut self.nodes.trunks, id, duplicates);
        for (worker, trunk) in (0..).zip(trunks) {
            self.workers.command(worker, WorkerCommand::AddTrunk { node: id, trunk });
        }
    }

    /// Replaces the agent beside a node that stays in the list.
    pub(super) fn equip_agent(&mut self, id: NodeId, agent: Option<(SocketAddr, ProbeMethod)>) {
        let agent = self.prober(id, agent);
        set(&mut self.probes.agents, id, agent);
    }

    fn prober(&self, id: NodeId, probe: Option<(SocketAddr, ProbeMethod)>) -> Option<Prober> {
        let (address, way) = probe?;
        let first = draw();
        let way = (way, Arc::clone(&self.replication.fencing));
        Some(Prober::start(id, way, first, self.probes.events.clone(), move || connected(address)))
    }

    pub(super) fn unequip(&mut self, id: NodeId) -> Option<ListedNode> {
        self.signalling.drivers.put(id, None);
        self.signalling.start_hooks.release(id);
        set(&mut self.probes.probers, id, None);
        set(&mut self.signalling.ng_sockets, id, None);
        set(&mut self.probes.agents, id, None);
        set(&mut self.probes.canaries, id, None);
        set(&mut self.nodes.trunks, id, Vec::new());
        for worker in 0..self.workers.lines.len() as u16 {
            self.workers.command(worker, WorkerCommand::RemoveNode { node: id });
        }
        self.nodes.listed.get_mut(id.0 as usize).and_then(Option::take)
    }
}

impl Probes {
    /// Starts or stops canary sessions at a node that stays in the list.
    pub(super) fn equip_canary(&mut self, id: NodeId, canary: Option<CanaryNode>) {
        let told = self.events.clone();
        let canary = canary.map(|node| CanaryProbe::start(id, node, told, &mut draw));
        set(&mut self.canaries, id, canary);
    }
}

impl NodeResources {
    pub(super) fn listed(&self, id: NodeId) -> Option<&Arc<evenkeel_config::NodeConfig>> {
        self.listed.get(id.0 as usize)?.as_ref().map(|listed| &listed.node)
    }

    pub(super) fn leaves(&self, id: NodeId) -> bool {
        self.listed.get(id.0 as usize).and_then(Option::as_ref).is_some_and(|listed| listed.leaves)
    }

    /// Duplicates of the sockets of all trunks.
    pub(super) fn duplicate_trunks(&self) -> io::Result<NamedSockets> {
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

    /// The node's name; its number, if the node is gone.
    pub(super) fn node_name(&self, id: NodeId) -> Box<str> {
        name(&self.listed, id)
    }

    /// The node with this name. A node that is being removed is returned only if no other node has the name.
    pub(super) fn node_named(&self, name: &str) -> Option<NodeId> {
        let nodes = (0..).map(NodeId).zip(&self.listed);
        let named = nodes.filter_map(|(id, listed)| {
            let listed = listed.as_ref().filter(|listed| *listed.node.name == *name)?;
            Some((listed.leaves, id))
        });
        named.min().map(|(_, id)| id)
    }
}

/// The node's name; its number, if the node is gone.
pub(super) fn name(listed: &[Option<ListedNode>], id: NodeId) -> Box<str> {
    let listed = listed.get(id.0 as usize).and_then(Option::as_ref);
    listed.map_or_else(|| id.to_string().into(), |listed| (*listed.node.name).into())
}
