//! I6: what is admitted, and what is reserved, is within the limit.

use std::time::{Duration, Instant};

use super::Scene;

/// After a death standbys carry what they kept free, and still keep for others, until all rooms have gone on.
const AFTER_DEATH: Duration = Duration::from_secs(2);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Load {
    died: Option<Instant>,
    /// Nodes that just refused a session since they are full.
    full: Vec<usize>,
}

impl Load {
    pub(super) fn death(&mut self, now: Instant) {
        self.died = Some(now);
    }

    /// A node refuses a session since it is full, and is not just emptied.
    pub(super) fn full(&mut self, node: usize, scene: &Scene) {
        if !scene.nodes[node].draining {
            self.full.push(node);
        }
    }

    /// I6: what a node refuses counts, and not what it says it could take: no more than all rooms there are, standing and
    /// kept, can be there, or the tenth that it is given at least.
    pub(super) fn refusals_are_believed(&mut self, scene: &Scene) -> Found {
        let most: u64 = 2 * scene.rooms.values().map(|room| room.need).sum::<u64>();
        let mut full = self.full.drain(..).map(|at| (at, &scene.nodes[at]));
        full.find_map(|(at, node)| {
            let text =
                format!("n{at} refuses as full, and is believed to take {} kbit/s", node.measured);
            (node.measured > most.max(node.capacity / 10)).then_some(("I6", text))
        })
    }

    /// The load of the fullest node, thousandths of what it can carry.
    pub(super) fn peak_permille(scene: &Scene) -> u64 {
        let (loads, _) = scene.loads();
        let permille =
            |(load, node): (&u64, &super::scene::SeenNode)| load * 1_000 / node.capacity.max(1);
        loads.iter().zip(&scene.nodes).map(permille).max().unwrap_or(0)
    }

    /// I6: no node carries more than it can, herd or not.
    pub(super) fn within_limit(&self, scene: &Scene) -> Found {
        let (loads, _) = scene.loads();
        loads.iter().zip(&scene.nodes).enumerate().find_map(|(at, (load, node))| {
            (*load > node.limit)
                .then(|| ("I6", format!("n{at} carries {load} kbit/s of {} kbit/s", node.limit)))
        })
    }

    /// I6: no death brings a node more than it can carry.
    pub(super) fn reserves_within_limit(&self, scene: &Scene, now: Instant) -> Found {
        if self.died.is_some_and(|died| now - died < AFTER_DEATH) {
            return None;
        }
        let (loads, reserved) = scene.loads();
        reserved.iter().find_map(|((standby, first), kbps)| {
            let (load, capacity) = (loads[*standby], scene.nodes[*standby].capacity);
            let text = format!("n{standby} carries {load} of {capacity} kbit/s, and keeps {kbps} for n{first}'s death");
            (load + kbps > capacity).then_some(("I6", text))
        })
    }
}
