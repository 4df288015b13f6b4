//! Changes of the node list at run time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::NodeConfig;
use evenkeel_drivers::Poster;
use evenkeel_model::{Hop, NodeId};
use evenkeel_revisions::Actor;
use serde::Serialize;

use super::equipment::{Equipment, ListedNode};
use super::guard::Shrinks;
use super::handle::{NotReloaded, ReloadRequest};
use super::messages::GatewayEvent;
use super::thread::{Control, NodeResources, NodeSignalling};
use crate::Inherited;

#[derive(Clone, PartialEq, Debug)]
pub struct NodeList {
    pub nodes: Vec<NodeConfig>,
    /// Allows more removed nodes than the guard does.
    pub force: bool,
    /// Deadline for draining removed nodes; without one their rooms move as others can take them.
    pub within: Option<Duration>,
    pub by: Actor,
}

/// Result of a list: names in the order of the list. A node with another address, driver, region or secret is removed
/// and added, and so named twice. A node that was being removed and returns with other settings is named in `added` and
/// `changed`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct ListChange {
    /// Added nodes, and nodes that were being removed and stay.
    pub added: Vec<Arc<str>>,
    /// Nodes to drain and remove. Nodes that are being removed already get the new deadline.
    pub removed: Vec<Arc<str>>,
    /// Nodes that stay with other settings.
    pub changed: Vec<Arc<str>>,
}

impl ListChange {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct NodeListUpdate {
    pub by: Actor,
    pub forced: bool,
    pub outcome: Result<ListChange, NotListed>,
}

/// Why a list was refused. A refused list changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotListed {
    #[error(transparent)]
    Shrinks(#[from] Shrinks),
    #[error(
        "{adding} nodes would come, and there is room for {room}: with those that are leaving, or left within the last 10 s, there may be 1,024"
    )]
    Full {
        adding: usize,
        /// Nodes that the limit still allows.
        room: usize,
    },
    #[error("region `{region}` of node `{node}` is new: new regions need a restart")]
    NewRegion { node: Arc<str>, region: Arc<str> },
    #[error("node `{node}`: {why}")]
    Unfit { node: Arc<str>, why: String },
}

#[derive(Default)]
struct NodeListChange {
    comes: Vec<Arc<NodeConfig>>,
    stays_after_all: Vec<(NodeId, Arc<NodeConfig>)>,
    goes: Vec<NodeId>,
    changes: Vec<(NodeId, Arc<NodeConfig>)>,
}

/// Resources of added and changed nodes, in the same order.
struct Equipments {
    comes: Vec<Equipment>,
    /// Resources of nodes whose agent or canary settings changed.
    changes: Vec<Equipment>,
}

impl Control {
    /// Applies a list, all or nothing, and emits its event.
    pub(super) fn list(&mut self, list: &NodeList, now: Instant) -> Result<ListChange, NotListed> {
        let outcome = self.take(list, now);
        if !outcome.as_ref().is_ok_and(ListChange::is_empty) {
            let outcome = outcome.clone();
            let told = NodeListUpdate { by: list.by, forced: list.force, outcome };
            self.reporting.send_event(GatewayEvent::NodeList(told));
        }
        outcome
    }

    /// Sockets are opened last, so that a refused list costs nothing. Control is blocked while many are opened.
    fn take(&mut self, list: &NodeList, now: Instant) -> Result<ListChange, NotListed> {
        let stands = self.nodes.listed.iter().flatten().filter(|listed| !listed.leaves);
        let stands: Vec<_> = stands.map(|listed| Arc::clone(&listed.node)).collect();
        let held = self.nodes.guard.check(&list.nodes, &stands, now).err();
        if let Some(shrinks) = held.filter(|_| !list.force) {
            return Err(shrinks.into());
        }
        let steps = self.nodes.steps(list);
        let (adding, room) = (steps.comes.len(), self.gateway.node_table().vacancies(now));
        if adding > room {
            return Err(NotListed::Full { adding, room });
        }
        let equipments = self.equipments(&steps)?;
        match held {
            Some(_) => self.nodes.guard.restart(),
            None => self.nodes.guard.note(stands, now),
        }
        Ok(self.take_steps(steps, equipments, list.within, now))
    }

    /// The resources of the steps, if the existing sockets can reach all nodes.
    fn equipments(&self, steps: &NodeListChange) -> Result<Equipments, NotListed> {
        let changes = || steps.changes.iter().map(|(_, node)| &**node);
        let comes = || steps.comes.iter().map(|node| &**node);
        changes().try_for_each(|node| self.fits(node, false))?;
        comes().try_for_each(|node| self.fits(node, true))?;
        let equip = |node: &NodeConfig, workers| {
            let unfit = |why: String| NotListed::Unfit { node: Arc::clone(&node.name), why };
            let equipped = crate::node_sockets::equip(
                &self.settings,
                node,
                workers,
                &mut Inherited::default(),
            );
            equipped.map_err(|failure| unfit(failure.to_string()))
        };
        let changes = changes().map(|node| equip(node, 0)).collect::<Result<_, _>>()?;
        let comes =
            comes().map(|node| equip(node, self.workers.lines.len())).collect::<Result<_, _>>()?;
        Ok(Equipments { comes, changes })
    }

    /// Checks that the existing sockets can reach the node.
    fn fits(&self, node: &NodeConfig, is_new: bool) -> Result<(), NotListed> {
        let name = || Arc::clone(&node.name);
        if !self.settings.regions.contains(&node.region) {
            return Err(NotListed::NewRegion { node: name(), region: Arc::clone(&node.region) });
        }
        let unfit = |why: &str| Err(NotListed::Unfit { node: name(), why: why.to_owned() });
        if node.has_port_legs() && is_new && !self.registry.has_ports_to(node.address) {
            return unfit(
                "open sessions have no ports towards it: ports are reserved only if a node needs them at start; restart the gateway",
            );
        }
        if crate::node_sockets::wants_briefs(node) && !self.registry.briefs {
            return unfit(
                "its driver needs descriptions of sessions, which are kept only if such a node is configured at start; restart the gateway",
            );
        }
        Ok(())
    }

    fn take_steps(
        &mut self,
        steps: NodeListChange,
        equipments: Equipments,
        within: Option<Duration>,
        now: Instant,
    ) -> ListChange {
        let (mut change, mut is_known_anew) = (ListChange::default(), false);
        let changing = steps.changes.iter().map(|(_, node)| node);
        if steps.comes.iter().chain(changing).any(|node| crate::node_sockets::has_webhooks(node)) {
            self.signalling.start_posting();
        }
        for (id, node) in steps.stays_after_all {
            // Cannot fail: the node exists and is being removed.
            let _ = self.gateway.change_nodes(now, |nodes| nodes.handle_node_kept(id, now));
            change.added.push(Arc::clone(&node.name));
            evenkeel_drivers::set(
                &mut self.nodes.listed,
                id,
                Some(ListedNode { node, leaves: false }),
            );
        }
        for ((id, node), equipment) in steps.changes.into_iter().zip(equipments.changes) {
            if let Some(core) = self.core(&node) {
                let _ = self
                    .gateway
                    .change_nodes(now, |nodes| nodes.handle_node_changed(id, core, now));
            }
            let before = self.nodes.listed(id).cloned();
            let before = before.as_ref().map(|node| (node.agent.clone(), node.canary));
            if before.as_ref().is_none_or(|(agent, _)| *agent != node.agent) {
                self.equip_agent(id, equipment.agent);
                self.gateway.change_nodes(now, |nodes| nodes.handle_agent_lost(id, now));
            }
            if before.is_none_or(|(_, canary)| canary != node.canary) {
                self.probes.equip_canary(id, equipment.canary);
            }
            change.changed.push(Arc::clone(&node.name));
            self.reporting.names.change(id, &node);
            is_known_anew = true;
            evenkeel_drivers::set(
                &mut self.nodes.listed,
                id,
                Some(ListedNode { node, leaves: false }),
            );
        }
        // Nodes are added before others are removed, so that displaced rooms can move to the new nodes.
        for (node, equipment) in steps.comes.into_iter().zip(equipments.comes) {
            let Some(core) = self.core(&node) else { continue };
            // The limit was checked before.
            let Ok(id) = self.gateway.change_nodes(now, |nodes| nodes.handle_node_added(core, now))
            else {
                continue;
            };
            change.added.push(Arc::clone(&node.name));
            if let Some(cell) = self.gateway.board().cell(id) {
                self.reporting.names.come(Hop { node: id, incarnation: cell.incarnation }, &node);
            }
            for old in self.nodes.listed_at(node.address) {
                // Cannot fail: both nodes exist.
                let _ = self.gateway.change_nodes(now, |nodes| nodes.handle_same_machine(id, old));
            }
            if let Some(old) = self.nodes.named(&node.name, &steps.goes) {
                // Cannot fail: both nodes exist.
                let _ =
                    self.gateway.change_nodes(now, |nodes| nodes.handle_takes_place(id, old, now));
            }
            is_known_anew = true;
            self.equip(id, node, equipment);
        }
        for (id, listed) in (0..).map(NodeId).zip(&mut self.nodes.listed) {
            let Some(listed) = listed else { continue };
            let goes = steps.goes.contains(&id);
            listed.leaves |= goes;
            // Nodes that are being removed already get the deadline too.
            if goes || listed.leaves && within.is_some() {
                change.removed.push(Arc::clone(&listed.node.name));
                let _ = self
                    .gateway
                    .change_nodes(now, |nodes| nodes.handle_node_removed(id, within, now));
            }
        }
        if is_known_anew {
            self.teach_policies();
        }
        change
    }

    fn core(&mut self, node: &NodeConfig) -> Option<evenkeel_model::NodeSettings> {
        let region = self.region_named(&node.region).ok()?;
        let zone = self.gateway.zone(&node.zone, region).ok()?;
        Some(node.core(zone))
    }

    /// Releases a node that the core has forgotten.
    pub(super) fn forget_node(&mut self, id: NodeId) {
        if let Some(listed) = self.unequip(id) {
            let name = Arc::clone(&listed.node.name);
            self.reporting.send_event(GatewayEvent::NodeRemoved { node: id, name });
            self.teach_policies();
        }
    }

    fn teach_policies(&mut self) {
        let regions = self.settings.regions.iter().map(|name| &**name);
        let zones = self.gateway.node_table().zones().iter().map(|zone| (zone.region, &*zone.name));
        let nodes = self.gateway.node_table().iter().filter_map(|node| {
            let (id, zone) = (node.id, node.settings.zone);
            let node = self.nodes.listed.get(id.0 as usize)?.as_ref()?;
            Some((id, zone, &*node.node.name))
        });
        let catalog =
            evenkeel_policies::catalog(self.gateway.node_table().home(), regions, zones, nodes);
        self.policies.threads.teach(catalog);
    }
}

impl NodeResources {
    fn named(&self, name: &str, of: &[NodeId]) -> Option<NodeId> {
        of.iter().copied().find(|id| self.listed(*id).is_some_and(|node| *node.name == *name))
    }

    fn steps(&self, list: &NodeList) -> NodeListChange {
        let mut steps = NodeListChange::default();
        let mut standing: BTreeMap<&Arc<str>, (NodeId, &Arc<NodeConfig>)> = BTreeMap::new();
        let mut leaving: Vec<(NodeId, &Arc<NodeConfig>)> = Vec::new();
        for (id, listed) in (0..).map(NodeId).zip(&self.listed) {
            match listed {
                Some(ListedNode { node, leaves: false }) => {
                    _ = standing.insert(&node.name, (id, node));
                }
                Some(ListedNode { node, leaves: true }) => leaving.push((id, node)),
                None => {}
            }
        }
        for node in &list.nodes {
            match standing.remove(&node.name) {
                Some((_, before)) if **before == *node => continue,
                Some((id, before)) if stays(before, node) => {
                    steps.changes.push((id, Arc::new(node.clone())));
                    continue;
                }
                Some((id, _)) => steps.goes.push(id),
                None => {}
            }
            match leaving.iter().position(|(_, left)| stays(left, node)) {
                Some(place) => {
                    let (id, left) = leaving.swap_remove(place);
                    steps.stays_after_all.push((id, Arc::clone(left)));
                    if **left != *node {
                        steps.changes.push((id, Arc::new(node.clone())));
                    }
                }
                None => steps.comes.push(Arc::new(node.clone())),
            }
        }
        steps.goes.extend(standing.into_values().map(|(id, _)| id));
        steps
    }

    /// Nodes at this address, including nodes that are being removed.
    fn listed_at(&self, address: SocketAddr) -> Vec<NodeId> {
        let is_it = |listed: &ListedNode| canonical(listed.node.address) == canonical(address);
        let listed = (0..).map(NodeId).zip(&self.listed);
        let there = listed.filter(|(_, listed)| listed.as_ref().is_some_and(is_it));
        there.map(|(id, _)| id).collect()
    }

    /// Passes a reload to the task that reads the configuration.
    pub(super) fn pass_on(&mut self, reload: ReloadRequest) {
        let Some(reloader) = &self.reloader else {
            let _ = reload.reply.send(Err(NotReloaded::NoReloader));
            return;
        };
        // If the queue is full the caller gets an error.
        let _ = reloader.try_send(reload);
    }
}

impl NodeSignalling {
    /// If the thread for webhooks cannot be started, requests fail with an error.
    fn start_posting(&mut self) {
        if self.poster.is_none() {
            match Poster::start() {
                Ok(poster) => {
                    self.start_hooks.post_by(poster.clone());
                    self.poster = Some(poster);
                }
                Err(error) => tracing::error!(%error, "no thread for webhooks"),
            }
        }
    }
}

/// The canonical form of an address that can be written in two ways.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns true if address, driver, region and secret are the same, so that the node keeps running with the new
/// settings.
fn stays(before: &NodeConfig, now: &NodeConfig) -> bool {
    // All fields are listed, so that a new setting causes a compiler error here.
    let NodeConfig {
        name,
        address,
        region,
        zone: _,
        driver,
        capacity: _,
        canary: _,
        standby: _,
        start,
        agent: _,
    } = before;
    (name, address, region, driver) == (&now.name, &now.address, &now.region, &now.driver)
        && start.is_some() == now.start.is_some()
}
