//! Lists of nodes, and the guard against lists that shrink.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::{DriverSettings, NodeConfig};
use evenkeel_drivers::set;
use evenkeel_model::NodeId;
use evenkeel_revisions::Actor;

/// Limit of nodes removed within [`WITHIN`], per cent.
const LIMIT_PERCENT: usize = 30;

/// Removals within this time are added up, so that many small steps reach the limit too.
const WITHIN: Duration = Duration::from_secs(60);

/// The guard keeps one list per this time, which bounds memory.
const TOGETHER: Duration = Duration::from_secs(1);

/// A node of the list, until the core has forgotten it.
#[derive(Clone, Debug)]
pub(crate) struct ListedNode {
    pub(crate) node: Arc<NodeConfig>,
    /// The node is missing from the list, and its rooms move.
    pub(crate) leaves: bool,
}

/// The listed nodes, by number.
#[derive(Default)]
pub(crate) struct ListedNodes {
    nodes: Vec<Option<ListedNode>>,
    guard: DownstreamGuard,
}

impl ListedNodes {
    /// Lists a node with these settings, or changes its settings.
    pub(crate) fn put(&mut self, id: NodeId, node: Arc<NodeConfig>) {
        set(&mut self.nodes, id, Some(ListedNode { node, leaves: false }));
    }

    /// Removes a node. Returns its settings.
    pub(crate) fn take(&mut self, id: NodeId) -> Option<Arc<NodeConfig>> {
        let listed = self.nodes.get_mut(id.0 as usize)?.take();
        listed.map(|listed| listed.node)
    }

    /// The numbers in use are below this one.
    pub(crate) fn numbers(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &ListedNode)> {
        let nodes = (0..).map(NodeId).zip(&self.nodes);
        nodes.filter_map(|(id, listed)| Some((id, listed.as_ref()?)))
    }

    pub(crate) fn config(&self, id: NodeId) -> Option<&Arc<NodeConfig>> {
        self.nodes.get(id.0 as usize)?.as_ref().map(|listed| &listed.node)
    }

    /// Returns whether all these nodes send streams on with the SSRCs and sequence numbers of their senders.
    pub(crate) fn keep_ssrc(&self, nodes: &[NodeId]) -> bool {
        nodes.iter().all(|node| self.config(*node).is_some_and(|node| node.keeps_ssrc))
    }

    pub(crate) fn leaves(&self, id: NodeId) -> bool {
        self.nodes.get(id.0 as usize).and_then(Option::as_ref).is_some_and(|listed| listed.leaves)
    }

    /// The node's name; its number, if the node is gone.
    pub(crate) fn node_name(&self, id: NodeId) -> Box<str> {
        self.config(id).map_or_else(|| id.to_string().into(), |node| (*node.name).into())
    }

    /// The node with this name. A node that is being removed is returned only if no other node has the name.
    pub(crate) fn node_named(&self, name: &str) -> Option<NodeId> {
        let named = self.iter().filter(|(_, listed)| *listed.node.name == *name);
        named.map(|(id, listed)| (listed.leaves, id)).min().map(|(_, id)| id)
    }

    /// Nodes at this address, including nodes that are being removed.
    pub(crate) fn listed_at(&self, address: SocketAddr) -> Vec<NodeId> {
        let is_it = |listed: &ListedNode| canonical(listed.node.address) == canonical(address);
        self.iter().filter(|(_, listed)| is_it(listed)).map(|(id, _)| id).collect()
    }

    /// The nodes that are not being removed.
    fn standing(&self) -> Vec<Arc<NodeConfig>> {
        let stands = self.nodes.iter().flatten().filter(|listed| !listed.leaves);
        stands.map(|listed| Arc::clone(&listed.node)).collect()
    }

    /// Checks whether a list may replace the current one without `force`.
    pub(crate) fn check(&mut self, list: &[NodeConfig], now: Instant) -> Result<(), Shrinks> {
        let standing = self.standing();
        self.guard.check(list, &standing, now)
    }

    /// The changes from the current list to this one.
    pub(crate) fn changes_to(&self, list: &NodeList) -> NodeListChange {
        NodeListChange::of(list, &self.nodes)
    }

    /// Notes that a list replaces the current one; `is_forced`: although it shrinks too much.
    pub(crate) fn replace(&mut self, is_forced: bool, now: Instant) {
        if is_forced {
            self.guard.restart();
        } else {
            let standing = self.standing();
            self.guard.note(standing, now);
        }
    }

    /// Begins to remove these nodes. Returns all nodes that are being removed.
    pub(crate) fn begin_removal(&mut self, removed: &[NodeId]) -> Vec<(NodeId, Arc<NodeConfig>)> {
        let mut leaving = Vec::new();
        for (id, listed) in (0..).map(NodeId).zip(&mut self.nodes) {
            let Some(listed) = listed else { continue };
            listed.leaves |= removed.contains(&id);
            if listed.leaves {
                leaving.push((id, Arc::clone(&listed.node)));
            }
        }
        leaving
    }
}

/// A new list of nodes.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeList {
    /// All nodes.
    pub nodes: Vec<NodeConfig>,
    /// Allows more removed nodes than the guard does.
    pub force: bool,
    /// Deadline for draining removed nodes; without one their rooms move as others can take them.
    pub within: Option<Duration>,
    /// The author of the list.
    pub by: Actor,
}

/// Result of a list: names in the order of the list. A node with another address, driver, region or secret is removed
/// and added, and so named twice. A node that was being removed and returns with other settings is named in `added` and
/// `changed`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ListChange {
    /// Added nodes, and nodes that were being removed and stay.
    pub added: Vec<Arc<str>>,
    /// Nodes to drain and remove. Nodes that are being removed already get the new deadline.
    pub removed: Vec<Arc<str>>,
    /// Nodes that stay with other settings.
    pub changed: Vec<Arc<str>>,
}

impl ListChange {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// A list that was applied or refused.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeListUpdate {
    /// The author of the list.
    pub by: Actor,
    /// More removed nodes than usual were allowed.
    pub forced: bool,
    /// The changes, or the reason of the refusal.
    pub outcome: Result<ListChange, NotListed>,
}

/// Why a list was refused. A refused list changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotListed {
    /// Too many nodes would be removed.
    #[error(transparent)]
    Shrinks(#[from] Shrinks),
    /// There are too many nodes.
    #[error(
        "{adding} nodes would come, and there is room for {room}: with those that are leaving, or left within the last 10 s, there may be 1,024"
    )]
    Full {
        /// Nodes that would be added.
        adding: usize,
        /// Nodes that the limit still allows.
        room: usize,
    },
    /// A node is in a region that is not configured.
    #[error("region `{region}` of node `{node}` is new: new regions need a restart")]
    NewRegion {
        /// The name of the node.
        node: Arc<str>,
        /// The name of the region.
        region: Arc<str>,
    },
    /// The existing sockets cannot reach a node.
    #[error("node `{node}`: {why}")]
    Unfit {
        /// The name of the node.
        node: Arc<str>,
        /// The reason and the remedy.
        why: String,
    },
}

/// The difference of a list from the listed nodes.
#[derive(Default)]
pub(crate) struct NodeListChange {
    pub(crate) added: Vec<Arc<NodeConfig>>,
    /// Listed again while they are being removed.
    pub(crate) kept: Vec<(NodeId, Arc<NodeConfig>)>,
    pub(crate) removed: Vec<NodeId>,
    pub(crate) changed: Vec<(NodeId, Arc<NodeConfig>)>,
}

impl NodeListChange {
    fn of(list: &NodeList, listed: &[Option<ListedNode>]) -> NodeListChange {
        let mut steps = NodeListChange::default();
        let mut standing: BTreeMap<&Arc<str>, (NodeId, &Arc<NodeConfig>)> = BTreeMap::new();
        let mut leaving: Vec<(NodeId, &Arc<NodeConfig>)> = Vec::new();
        for (id, listed) in (0..).map(NodeId).zip(listed) {
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
                    steps.changed.push((id, Arc::new(node.clone())));
                    continue;
                }
                Some((id, _)) => steps.removed.push(id),
                None => {}
            }
            match leaving.iter().position(|(_, left)| stays(left, node)) {
                Some(place) => {
                    let (id, left) = leaving.swap_remove(place);
                    steps.kept.push((id, Arc::clone(left)));
                    if **left != *node {
                        steps.changed.push((id, Arc::new(node.clone())));
                    }
                }
                None => steps.added.push(Arc::new(node.clone())),
            }
        }
        steps.removed.extend(standing.into_values().map(|(id, _)| id));
        steps
    }
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
        carrier: _,
        driver,
        capacity: _,
        canary: _,
        standby: _,
        keeps_ssrc: _,
        start,
        agent: _,
        srtp,
    } = before;
    (name, address, region, driver) == (&now.name, &now.address, &now.region, &now.driver)
        && *srtp == now.srtp
        && start.is_some() == now.start.is_some()
}

/// Guard against shrinking node lists. A list without most nodes may be a truncated file or a failed discovery, so more
/// than a limit is removed only with `--force`.
#[derive(Default, Debug)]
struct DownstreamGuard {
    lately: VecDeque<PastNodeList>,
}

/// A list, and until when it was current.
#[derive(Debug)]
struct PastNodeList {
    until: Instant,
    nodes: Vec<Arc<NodeConfig>>,
}

/// A list that lacks too many nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{removing} of {of} nodes would be removed{} or reached in another way, more than {LIMIT_PERCENT} % within a minute; nothing changed. Nodes missing from a list may still be running; to remove them, run `evenkeel reload --force`",
    .before.checked_sub(1).map_or(String::new(), |_| format!(" after {before} removed before"))
)]
pub struct Shrinks {
    /// Nodes that the refused list would remove.
    pub removing: usize,
    /// Nodes that were removed within the last minute and not added again.
    pub before: usize,
    /// The largest number of nodes within the last minute.
    pub of: usize,
}

impl DownstreamGuard {
    /// Checks whether a list may replace the current one. Of the list a minute ago, and of the largest list since, at
    /// most [`LIMIT_PERCENT`] of the nodes may be missing. A node is missing if its address is gone or has another
    /// driver or secret, because the gateway does not know yet whether the node answers in the new way. A node with a
    /// new name or region is not missing.
    fn check(
        &mut self,
        list: &[NodeConfig],
        stands: &[Arc<NodeConfig>],
        now: Instant,
    ) -> Result<(), Shrinks> {
        let lately = |stood: &PastNodeList| now.saturating_duration_since(stood.until) < WITHIN;
        self.lately.retain(lately);
        let (listed, standing) =
            (KnownDrivers::of(list), KnownDrivers::of(stands.iter().map(|node| &**node)));
        let stood = || self.lately.iter().map(|stood| &stood.nodes[..]).chain([stands]);
        let most = stood().rev().max_by_key(|nodes| nodes.len());
        for nodes in stood().take(1).chain(most) {
            let missing = nodes.iter().filter(|node| !listed.has(node));
            let (removing, before): (Vec<_>, Vec<_>) = missing.partition(|node| standing.has(node));
            let (removing, before, of) = (removing.len(), before.len(), nodes.len());
            if removing > 0 && (removing + before) * 100 > of * LIMIT_PERCENT {
                return Err(Shrinks { removing, before, of });
            }
        }
        Ok(())
    }

    /// Records that a list replaces the current one.
    fn note(&mut self, stands: Vec<Arc<NodeConfig>>, now: Instant) {
        let is_second = self.lately.len() < 2;
        match self.lately.back_mut() {
            // The first entry was current a minute ago, and stays.
            Some(last) if !is_second && now.saturating_duration_since(last.until) < TOGETHER => {
                if stands.len() > last.nodes.len() {
                    last.nodes = stands;
                }
            }
            _ => self.lately.push_back(PastNodeList { until: now, nodes: stands }),
        }
    }

    /// Forgets earlier removals after a forced change.
    fn restart(&mut self) {
        self.lately.clear();
    }
}

struct KnownDrivers<'a>(BTreeMap<SocketAddr, Vec<&'a DriverSettings>>);

impl<'a> KnownDrivers<'a> {
    fn of(nodes: impl IntoIterator<Item = &'a NodeConfig>) -> KnownDrivers<'a> {
        let mut known = KnownDrivers(BTreeMap::new());
        for node in nodes {
            known.0.entry(node.address).or_default().push(&node.driver);
        }
        known
    }

    fn has(&self, node: &NodeConfig) -> bool {
        self.0.get(&node.address).is_some_and(|drivers| drivers.contains(&&node.driver))
    }
}

/// The canonical form of an address that can be written in two ways.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
