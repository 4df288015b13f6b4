//! I6: admitted and reserved load is within the limits.

use std::time::{Duration, Instant};

use super::Scene;

/// After a death, standbys carry their reservations and keep those for others until all rooms have moved.
const AFTER_DEATH: Duration = Duration::from_secs(2);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Load {
    died: Option<Instant>,
    /// Nodes that just refused a session as full.
    full: Vec<usize>,
}

impl Load {
    pub(super) fn death(&mut self, now: Instant) {
        self.died = Some(now);
    }

    /// A node refuses a session as full; drained nodes do not count.
    pub(super) fn full(&mut self, node: usize, scene: &Scene) {
        if !scene.nodes[node].draining {
            self.full.push(node);
        }
    }

    /// I6: refusals limit a node's believed capacity to the load of all rooms, placed and reserved, or a tenth of its
    /// configured capacity if that is more.
    pub(super) fn check_refusals(&mut self, scene: &Scene) -> Found {
        let most: u64 = 2 * scene.rooms.values().map(|room| room.need).sum::<u64>();
        let mut full = self.full.drain(..).map(|at| (at, &scene.nodes[at]));
        full.find_map(|(at, node)| {
            let text =
                format!("n{at} refuses as full but is believed to take {} kbit/s", node.measured);
            (node.measured > most.max(node.capacity / 10)).then_some(("I6", text))
        })
    }

    /// The highest load of a node, in thousandths of its capacity.
    pub(super) fn peak_permille(scene: &Scene) -> u64 {
        let (loads, _) = scene.loads();
        let permille =
            |(load, node): (&u64, &super::scene::SeenNode)| load * 1_000 / node.capacity.max(1);
        loads.iter().zip(&scene.nodes).map(permille).max().unwrap_or(0)
    }

    /// I6: no node carries more than its limit.
    pub(super) fn check_load(&self, scene: &Scene) -> Found {
        let (loads, _) = scene.loads();
        loads.iter().zip(&scene.nodes).enumerate().find_map(|(at, (load, node))| {
            (*load > node.limit)
                .then(|| ("I6", format!("n{at} carries {load} kbit/s of {} kbit/s", node.limit)))
        })
    }

    /// I6: the death of a node brings no other above its capacity.
    pub(super) fn check_reservations(&self, scene: &Scene, now: Instant) -> Found {
        if self.died.is_some_and(|died| now - died < AFTER_DEATH) {
            return None;
        }
        let (loads, reserved) = scene.loads();
        reserved.iter().find_map(|((standby, first), kbps)| {
            let (load, capacity) = (loads[*standby], scene.nodes[*standby].capacity);
            let text = format!("n{standby} carries {load} of {capacity} kbit/s and reserves {kbps} for the death of n{first}");
            (load + kbps > capacity).then_some(("I6", text))
        })
    }
}
