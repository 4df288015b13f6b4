//! The nodes of rooms, by arm: a routing revision whose rooms crowd on one node spends the others.
//!
//! A hash that knows nothing of the nodes draws the cohort, so rooms of a harmless candidate are on the fullest node with at most
//! the share that the rest has on its own. By Chernoff's bound a cohort of `n` rooms exceeds a share `q` as far as `p` with a
//! probability of at most `exp(-n D(p||q))`, where `D` is the relative entropy.

use std::collections::BTreeMap;

use evenkeel_model::{Arm, Breach, BreachCount, Figure, NodeId};

use crate::judging::Judging;

/// Minimum of `n D(p||q)`: a chance of one in a million for each look, of which there is one per room and move.
const EVIDENCE_MIN: f64 = 14.0;

/// Part of the share that the rest has on other nodes. The canary has to crowd at least as much of its rooms on its fullest node
/// in addition.
const CROWDED_MIN: f64 = 1.0 / 3.0;

/// Rooms of each arm, by node.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct RoomSpread {
    nodes: BTreeMap<NodeId, [u32; 2]>,
    rooms: [u32; 2],
}

impl RoomSpread {
    pub(crate) fn add(&mut self, arm: Arm, on: NodeId) {
        self.nodes.entry(on).or_default()[arm as usize] += 1;
        self.rooms[arm as usize] += 1;
    }

    /// Removes a room that was added.
    pub(crate) fn remove(&mut self, arm: Arm, on: NodeId) {
        let rooms = self.nodes.get_mut(&on).map(|arms| &mut arms[arm as usize]);
        if let Some(rooms) = rooms.filter(|rooms| **rooms > 0) {
            *rooms -= 1;
            self.rooms[arm as usize] -= 1;
        }
    }

    /// Rooms of the arm, and those on its fullest node.
    fn count(&self, arm: Arm) -> BreachCount {
        let fullest = self.nodes.values().map(|arms| arms[arm as usize]).max().unwrap_or(0);
        BreachCount { of: self.rooms[arm as usize], worse: fullest }
    }

    /// Returns a breach if the canary crowds its rooms on one node and the rest does not.
    pub(crate) fn breach(&self, judging: &Judging) -> Option<Breach> {
        let (canary, rest) = (self.count(Arm::Canary), self.count(Arm::Standing));
        let is_judged = canary.of >= judging.cohort_min && rest.of >= judging.cohort_min;
        let is_crowded = u64::from(canary.worse) * 100
            >= u64::from(canary.of) * u64::from(judging.one_node_percent);
        if !is_judged || !is_crowded {
            return None;
        }
        let share = f64::from(canary.worse) / f64::from(canary.of);
        // One more room on the fullest node and one elsewhere: a small rest proves little.
        let usual = (f64::from(rest.worse) + 1.0) / (f64::from(rest.of) + 2.0);
        let is_proven = share >= usual + (1.0 - usual) * CROWDED_MIN
            && f64::from(canary.of) * relative_entropy(share, usual) >= EVIDENCE_MIN;
        is_proven.then_some(Breach { figure: Figure::Spread, canary, rest })
    }
}

/// The relative entropy of a coin with probability `p` to one with `q`, which is neither 0 nor 1.
fn relative_entropy(p: f64, q: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    part(p, q) + part(1.0 - p, 1.0 - q)
}

#[cfg(test)]
mod tests;
