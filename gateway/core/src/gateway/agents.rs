//! What agents beside nodes say.

use std::time::Instant;

use super::Gateway;
use crate::NodeId;

/// What an agent says of the node that it is beside: unasked when it changes, and with each answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentWord {
    /// Its process runs. That it works, others have to show.
    Serving,
    /// It wants its rooms moved away, and takes no new ones.
    Draining,
    /// Its process died, or was not started.
    Gone,
}

impl Gateway {
    /// An agent's word on its node. That the process is gone condemns the node alone, and at once; the others take that
    /// back, and let rooms go or come.
    pub fn handle_agent_word(&mut self, id: NodeId, word: AgentWord, now: Instant) {
        let place = id.0 as usize;
        let Some(node) = self.nodes.get_mut(place) else {
            return;
        };
        if word == AgentWord::Gone {
            let before = node.detector.witnesses();
            if let Some(change) = node.handle_gone(now) {
                self.node_changed(place, change, before, now);
            }
            return;
        }
        node.detector.handle_agent(true, now);
        let leaving = word == AgentWord::Draining;
        self.decide_drain(id, |node| node.leaving = leaving, now);
    }

    /// Who spoke for the node does so no longer: nothing that he said counts any more.
    pub fn handle_agent_lost(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_agent(true, now);
        }
        self.decide_drain(id, |node| node.leaving = false, now);
    }

    /// The agent that ends a node's trunk answered a probe, and does not know whether the media port behind it would: that
    /// is no word against silence.
    pub fn handle_agent_answered(&mut self, id: NodeId, sequence: u64, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_agent_answered(sequence, now);
        }
    }

    /// A node said how loaded it is, in thousandths of its capacity. Believed for 5 s; it says so with each answer. It
    /// corrects what we believe that it can take, and never beyond what its configuration says. While it drains that stands.
    pub fn handle_load(&mut self, id: NodeId, permille: u16, now: Instant) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else {
            return;
        };
        node.handle_load(permille, now);
        if node.drains() {
            return self.capacity.ledger.hold_capacity(id, now);
        }
        self.capacity.ledger.handle_load(id, permille, now);
        self.gate_what_no_longer_fits(id, now);
    }
}
