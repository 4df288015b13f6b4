//! A node that accepts sessions but forwards nothing is detected by canaries.

use std::time::{Duration, Instant};

use evenkeel_model::Health;

use super::Scene;

/// Twelve canaries at 100 ms, the longest round trip and slack, and the limit of one witness alone: 200 ms, or 500 in
/// other regions.
const FOUND_WITHIN: Duration = Duration::from_secs(2);

type Found = Option<(&'static str, String)>;

pub(crate) struct GrayNodes {
    /// For each node, the time since which it forwards nothing without being down.
    since: Vec<Option<Instant>>,
    /// For each node, whether a canary has returned. Before that, missing canaries mean nothing.
    forwards: Vec<bool>,
}

impl GrayNodes {
    pub(super) fn new(nodes: usize) -> GrayNodes {
        GrayNodes { since: vec![None; nodes], forwards: vec![false; nodes] }
    }

    /// The node or its canaries restart.
    pub(super) fn begin(&mut self, node: usize) {
        let nodes = self.forwards.len().max(node + 1);
        self.forwards.resize(nodes, false);
        self.since.resize(nodes, None);
        (self.forwards[node], self.since[node]) = (false, None);
    }

    pub(crate) fn passed(&mut self, node: usize) {
        self.forwards[node] = true;
    }

    /// A node that forwards nothing, without other faults, is marked down in time.
    pub(crate) fn check(
        &mut self,
        gray: &[bool],
        scene: &Scene,
        (stalled, doubted): (bool, bool),
        now: Instant,
    ) -> Found {
        let mut found = None;
        for (at, (since, node)) in self.since.iter_mut().zip(&scene.nodes).enumerate() {
            let known = matches!(node.health, Health::Down | Health::Cold);
            if !gray[at] || !self.forwards[at] || known || stalled || doubted {
                *since = None;
                continue;
            }
            let lasted = now.saturating_duration_since(*since.get_or_insert(now));
            if lasted > FOUND_WITHIN {
                let health = node.health.name();
                found.get_or_insert((
                    "late gray",
                    format!("n{at} has forwarded nothing for {lasted:?} and is still {health}"),
                ));
            }
        }
        found
    }
}
