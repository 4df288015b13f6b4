//! Guard against shrinking node lists. A list without most nodes may be a truncated file or a failed discovery, so more
//! than a limit is removed only with `--force`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::{DriverSettings, NodeConfig};

/// Limit of nodes removed within [`WITHIN`], per cent.
const LIMIT_PERCENT: usize = 30;

/// Removals within this time are added up, so that many small steps reach the limit too.
const WITHIN: Duration = Duration::from_secs(60);

/// The guard keeps one list per this time, which bounds memory.
const TOGETHER: Duration = Duration::from_secs(1);

#[derive(Default, Debug)]
pub(super) struct DownstreamGuard {
    lately: VecDeque<Stood>,
}

/// A list, and until when it was current.
#[derive(Debug)]
struct Stood {
    until: Instant,
    nodes: Vec<Arc<NodeConfig>>,
}

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
    pub(super) fn check(
        &mut self,
        list: &[NodeConfig],
        stands: &[Arc<NodeConfig>],
        now: Instant,
    ) -> Result<(), Shrinks> {
        let lately = |stood: &Stood| now.saturating_duration_since(stood.until) < WITHIN;
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
    pub(super) fn note(&mut self, stands: Vec<Arc<NodeConfig>>, now: Instant) {
        let is_second = self.lately.len() < 2;
        match self.lately.back_mut() {
            // The first entry was current a minute ago, and stays.
            Some(last) if !is_second && now.saturating_duration_since(last.until) < TOGETHER => {
                if stands.len() > last.nodes.len() {
                    last.nodes = stands;
                }
            }
            _ => self.lately.push_back(Stood { until: now, nodes: stands }),
        }
    }

    /// Forgets earlier removals after a forced change.
    pub(super) fn restart(&mut self) {
        self.lately.clear();
    }
}

/// Drivers by address.
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

#[cfg(test)]
mod tests;
