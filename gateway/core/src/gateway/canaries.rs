//! Canaries: packets of two sessions of our own at each node that is to have them.

use std::time::{Duration, Instant};

use super::{Gateway, Output};
use crate::NodeId;
use crate::timer::Timer;

/// Between two canaries of a node.
const CANARY_EVERY: Duration = Duration::from_millis(100);

impl Gateway {
    pub(super) fn start_canaries(&mut self, now: Instant) {
        for node in self.nodes.iter().filter(|node| node.settings.canary) {
            self.effects.set(Timer::Canary(node.id), now);
        }
    }

    pub(super) fn send_canary(&mut self, id: NodeId, now: Instant) {
        let sequence = self.nodes.next_probe;
        self.nodes.next_probe += 1;
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_canary_sent(sequence, now);
            self.effects.set(Timer::Canary(id), now + CANARY_EVERY);
            self.effects.push(Output::Canary { node: id, sequence });
        }
    }

    /// What went in at one canary session of a node came out at the other.
    pub fn handle_canary_passed(&mut self, id: NodeId, sequence: u64) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_canary_passed(sequence);
        }
    }

    /// A node says that both canary sessions are open.
    pub fn handle_canary_open(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_canary_open(now);
        }
    }
}
