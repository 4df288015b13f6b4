//! A node that accepts and does not forward is found by its canaries.

use std::time::{Duration, Instant};

use evenkeel_core::Health;

use super::Scene;

/// Twelve canaries of 100 ms, the latest round trip and slack, and what one witness takes alone: 200 ms, across 500.
const FOUND_WITHIN: Duration = Duration::from_secs(2);

type Found = Option<(&'static str, String)>;

pub(crate) struct Grays {
    /// Since when each node forwards nothing, and is trusted all the same.
    since: Vec<Option<Instant>>,
    /// Whether a canary ever came out there: before that they say nothing.
    forwards: Vec<bool>,
}

impl Grays {
    pub(super) fn new(nodes: usize) -> Grays {
        Grays { since: vec![None; nodes], forwards: vec![false; nodes] }
    }

    /// The node, or its canaries, begin anew.
    pub(super) fn begin(&mut self, node: usize) {
        let nodes = self.forwards.len().max(node + 1);
        self.forwards.resize(nodes, false);
        self.since.resize(nodes, None);
        (self.forwards[node], self.since[node]) = (false, None);
    }

    /// A canary came out.
    pub(crate) fn passed(&mut self, node: usize) {
        self.forwards[node] = true;
    }

    /// A node that forwards nothing, where nothing else is wrong, is Down in time.
    pub(crate) fn in_time(
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
                    format!("n{at} forwards nothing for {lasted:?}, and is still {health}"),
                ));
            }
        }
        found
    }
}
