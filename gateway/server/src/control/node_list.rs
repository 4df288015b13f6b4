//! The list of nodes, as it changes while packets flow: who comes, who goes, who changes, and who refuses that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, NodeId};

use super::equipment::{Equipment, Listed};
use super::guard::Shrinks;
use super::handle::{NotReloaded, Reload};
use super::messages::Happened;
use super::thread::Control;
use crate::policy;
use crate::run;
use crate::settings::Node;
use crate::webhook::Poster;

/// Nodes as they are to be.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeList {
    /// All of them.
    pub nodes: Vec<Node>,
    /// More may go than the guard lets go.
    pub force: bool,
    /// By when those that go, or leave already, are to be empty; none: as soon as others can take their rooms.
    pub within: Option<Duration>,
    /// Who says so.
    pub by: Actor,
}

/// Who has something changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    /// A file changed.
    File,
    /// SIGHUP.
    Signal,
    /// A person, by command or API.
    Operator,
    /// The gateway itself.
    Gateway,
}

impl Actor {
    /// The word in records: `file`.
    pub fn name(self) -> &'static str {
        match self {
            Actor::File => "file",
            Actor::Signal => "signal",
            Actor::Operator => "operator",
            Actor::Gateway => "gateway",
        }
    }
}

/// What became of a list: names, in the order of the list. A node whose address, driver, region or secret changed goes and
/// comes, and is named twice; so is one that stays after all, and otherwise than before.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ListChange {
    /// They come, or stay after all.
    pub added: Vec<Arc<str>>,
    /// They go, as soon as they are empty; or they left already, and have a deadline now.
    pub removed: Vec<Arc<str>>,
    /// They stay, otherwise than before.
    pub changed: Vec<Arc<str>>,
}

impl ListChange {
    /// Whether the list says what stands.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// A list was taken, or was not.
#[derive(Clone, PartialEq, Debug)]
pub struct ListTold {
    /// Who wanted it.
    pub by: Actor,
    /// Whether they wanted it whatever the guard says.
    pub forced: bool,
    /// What became of it.
    pub outcome: Result<ListChange, NotListed>,
}

/// Why a list was not taken. Nothing of it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotListed {
    /// The guard holds it.
    #[error(transparent)]
    Shrinks(#[from] Shrinks),
    /// There is no room for so many.
    #[error(
        "{adding} nodes would come, and there is room for {room}: with those that are leaving, or left within the last 10 s, there may be 1,024"
    )]
    Full {
        /// So many would come.
        adding: usize,
        /// So many may.
        room: usize,
    },
    /// A node is somewhere where none was.
    #[error("node `{node}` is in the region `{region}`, which is new: regions wait for a restart")]
    NewRegion {
        /// Its name.
        node: Arc<str>,
        /// Where it is.
        region: Arc<str>,
    },
    /// A node cannot be reached by what is there.
    #[error("node `{node}`: {why}")]
    Unfit {
        /// Its name.
        node: Arc<str>,
        /// Why, in words.
        why: String,
    },
}

/// What a list comes to.
#[derive(Default)]
struct Steps {
    comes: Vec<Arc<Node>>,
    stays_after_all: Vec<(NodeId, Arc<Node>)>,
    goes: Vec<NodeId>,
    changes: Vec<(NodeId, Arc<Node>)>,
}

/// What it takes to reach those who come and change, in the same order.
struct Equipments {
    comes: Vec<Equipment>,
    /// What is new about the agents beside them and their canaries.
    changes: Vec<Equipment>,
}

impl Control {
    /// Takes a list, all of it or nothing, and tells of it.
    pub(super) fn list(&mut self, list: &NodeList, now: Instant) -> Result<ListChange, NotListed> {
        let outcome = self.take(list, now);
        if !outcome.as_ref().is_ok_and(ListChange::is_empty) {
            let outcome = outcome.clone();
            let told = ListTold { by: list.by, forced: list.force, outcome };
            self.tell_happened(Happened::NodeList(told));
        }
        outcome
    }

    /// Sockets are opened last, so that what is refused costs nothing; where many come at once, control does nothing else
    /// meanwhile.
    fn take(&mut self, list: &NodeList, now: Instant) -> Result<ListChange, NotListed> {
        let stands = self.listed.iter().flatten().filter(|listed| !listed.leaves);
        let stands: Vec<_> = stands.map(|listed| Arc::clone(&listed.node)).collect();
        let held = self.guard.check(&list.nodes, &stands, now).err();
        if let Some(shrinks) = held.filter(|_| !list.force) {
            return Err(shrinks.into());
        }
        let steps = self.steps(list);
        let (adding, room) = (steps.comes.len(), self.gateway.vacancies(now));
        if adding > room {
            return Err(NotListed::Full { adding, room });
        }
        let equipments = self.equipments(&steps)?;
        match held {
            Some(_) => self.guard.begin_anew(),
            None => self.guard.note(stands, now),
        }
        Ok(self.take_steps(steps, equipments, list.within, now))
    }

    /// What is to be done.
    fn steps(&self, list: &NodeList) -> Steps {
        let mut steps = Steps::default();
        let mut standing: BTreeMap<&Arc<str>, (NodeId, &Arc<Node>)> = BTreeMap::new();
        let mut leaving: Vec<(NodeId, &Arc<Node>)> = Vec::new();
        for (id, listed) in (0..).map(NodeId).zip(&self.listed) {
            match listed {
                Some(Listed { node, leaves: false }) => _ = standing.insert(&node.name, (id, node)),
                Some(Listed { node, leaves: true }) => leaving.push((id, node)),
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

    /// What it takes to reach them, where what is there is enough for all of them.
    fn equipments(&self, steps: &Steps) -> Result<Equipments, NotListed> {
        let changes = || steps.changes.iter().map(|(_, node)| &**node);
        let comes = || steps.comes.iter().map(|node| &**node);
        changes().try_for_each(|node| self.fits(node, false))?;
        comes().try_for_each(|node| self.fits(node, true))?;
        let equip = |node: &Node, workers| {
            let unfit = |why: String| NotListed::Unfit { node: Arc::clone(&node.name), why };
            run::equip(&self.settings, node, workers).map_err(|failure| unfit(failure.to_string()))
        };
        let changes = changes().map(|node| equip(node, 0)).collect::<Result<_, _>>()?;
        let comes =
            comes().map(|node| equip(node, self.workers.len())).collect::<Result<_, _>>()?;
        Ok(Equipments { comes, changes })
    }

    /// Whether the node can be reached by what is there.
    fn fits(&self, node: &Node, is_new: bool) -> Result<(), NotListed> {
        let name = || Arc::clone(&node.name);
        if !self.settings.regions.contains(&node.region) {
            return Err(NotListed::NewRegion { node: name(), region: Arc::clone(&node.region) });
        }
        let unfit = |why: &str| Err(NotListed::Unfit { node: name(), why: why.to_owned() });
        if let Some(family) = run::port_leg(node).filter(|_| is_new)
            && !self.registry.port_legs.is_some_and(|open| open.serves(family))
        {
            return unfit(
                "sessions that stand have no ports of their own towards it, since no node like it was there when the gateway began; it waits for a restart",
            );
        }
        if run::wants_briefs(node) && !self.registry.briefs {
            return unfit(
                "its driver wants to be told what sessions are, which was not kept, since no node like it was there when the gateway began; it waits for a restart",
            );
        }
        Ok(())
    }

    fn take_steps(
        &mut self,
        steps: Steps,
        equipments: Equipments,
        within: Option<Duration>,
        now: Instant,
    ) -> ListChange {
        let (mut change, mut is_known_anew) = (ListChange::default(), false);
        let changing = steps.changes.iter().map(|(_, node)| node);
        if steps.comes.iter().chain(changing).any(|node| run::has_webhooks(node)) {
            self.start_posting();
        }
        for (id, node) in steps.stays_after_all {
            // It is there, and leaves: it was just found so.
            let _ = self.gateway.handle_node_kept(id, now);
            change.added.push(Arc::clone(&node.name));
            super::equipment::set(&mut self.listed, id, Some(Listed { node, leaves: false }));
        }
        for ((id, node), equipment) in steps.changes.into_iter().zip(equipments.changes) {
            if let Some(core) = self.core(&node) {
                let _ = self.gateway.handle_node_changed(id, core, now);
            }
            let before = self.listed(id).cloned();
            let before = before.as_ref().map(|node| (node.agent.clone(), node.canary));
            if before.as_ref().is_none_or(|(agent, _)| *agent != node.agent) {
                self.equip_agent(id, equipment.agent);
                self.gateway.handle_agent_lost(id, now);
            }
            if before.is_none_or(|(_, canary)| canary != node.canary) {
                self.equip_canary(id, equipment.canary);
            }
            change.changed.push(Arc::clone(&node.name));
            self.names.change(id, &node);
            is_known_anew = true;
            super::equipment::set(&mut self.listed, id, Some(Listed { node, leaves: false }));
        }
        // Who comes is there before others go, so that rooms have somewhere to go.
        for (node, equipment) in steps.comes.into_iter().zip(equipments.comes) {
            let Some(core) = self.core(&node) else { continue };
            // Room for it was counted before.
            let Ok(id) = self.gateway.handle_node_added(core, now) else { continue };
            change.added.push(Arc::clone(&node.name));
            if let Some(cell) = self.gateway.board().cell(id) {
                self.names.come(Hop { node: id, incarnation: cell.incarnation }, &node);
            }
            for old in self.listed_at(node.address) {
                // Both are there: one was just added, the other is listed.
                let _ = self.gateway.handle_same_machine(id, old);
            }
            if let Some(old) = self.named(&node.name, &steps.goes) {
                // Both are there.
                let _ = self.gateway.handle_takes_place(id, old, now);
            }
            is_known_anew = true;
            self.equip(id, node, equipment);
        }
        for (id, listed) in (0..).map(NodeId).zip(&mut self.listed) {
            let Some(listed) = listed else { continue };
            let goes = steps.goes.contains(&id);
            listed.leaves |= goes;
            // A deadline is for those too that leave already.
            if goes || listed.leaves && within.is_some() {
                change.removed.push(Arc::clone(&listed.node.name));
                let _ = self.gateway.handle_node_removed(id, within, now);
            }
        }
        if is_known_anew {
            self.teach_policies();
        }
        change
    }

    /// Of these, the one of this name.
    fn named(&self, name: &str, of: &[NodeId]) -> Option<NodeId> {
        of.iter().copied().find(|id| self.listed(*id).is_some_and(|node| *node.name == *name))
    }

    /// Nodes of this address, which leave, or are about to: no list has it twice.
    fn listed_at(&self, address: SocketAddr) -> Vec<NodeId> {
        let is_it = |listed: &Listed| canonical(listed.node.address) == canonical(address);
        let listed = (0..).map(NodeId).zip(&self.listed);
        let there = listed.filter(|(_, listed)| listed.as_ref().is_some_and(is_it));
        there.map(|(id, _)| id).collect()
    }

    /// The node as the core wants it.
    fn core(&mut self, node: &Node) -> Option<evenkeel_core::NodeSettings> {
        let region = self.region_named(&node.region).ok()?;
        let zone = self.gateway.zone(&node.zone, region).ok()?;
        Some(node.core(zone))
    }

    /// There are webhooks from now on. Where the system gives no thread for them, what is posted fails, and says so.
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

    /// The core has no more to do with it.
    pub(super) fn forget_node(&mut self, id: NodeId) {
        if let Some(listed) = self.unequip(id) {
            let name = Arc::clone(&listed.node.name);
            self.tell_happened(Happened::NodeGone { node: id, name });
            self.teach_policies();
        }
    }

    /// Policies are told where nodes are now.
    fn teach_policies(&mut self) {
        let regions = self.settings.regions.iter().map(|name| &**name);
        let zones = self.gateway.zones().iter().map(|zone| (zone.region, &*zone.name));
        let nodes = self.gateway.zones_of_nodes().filter_map(|(id, zone)| {
            let node = self.listed.get(id.0 as usize)?.as_ref()?;
            Some((id, zone, &*node.node.name))
        });
        let catalog = policy::catalog(self.gateway.home(), regions, zones, nodes);
        self.policies.teach(catalog);
    }

    /// A reload is for who reads the configuration.
    pub(super) fn pass_on(&mut self, reload: Reload) {
        let Some(reloader) = &self.reloader else {
            let _ = reload.reply.send(Err(NotReloaded::Nobody));
            return;
        };
        // As many wait as may; whoever asked is told that nobody answers.
        let _ = reloader.try_send(reload);
    }
}

/// The address in one way, where it may be written in two.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether the node stays while it becomes this one: what leads to it is the same.
fn stays(before: &Node, now: &Node) -> bool {
    // Named one by one, so that a key that is added is not forgotten here.
    let Node {
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
