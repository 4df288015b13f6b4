//! Stops of nodes that the gateway started and that are no longer needed.

use std::time::Instant;

use evenkeel_model::{CoreEvent, FailureScope, Health, NodeId, NodeNeed};
use evenkeel_nodes::{Node, NodeUse, StopStep};

use crate::rooms::node_controller::{GONE_AFTER, NodeController};
use crate::rooms::placement::CoreTables;

/// Highest load of a region after a stop, per cent of the capacity that is left.
const QUIET_PERCENT: u64 = 80;

/// The same once the node drains, so that a small change of the load does not end the drain. With more load, a refused offer
/// would start the node again.
const DRAINING_PERCENT: u64 = 90;

/// Drains nodes that have not been needed for long enough, stops them once they are empty, and replaces dead ones.
pub(crate) struct Stops<'a>(pub(crate) &'a mut CoreTables);

impl Stops<'_> {
    pub(crate) fn weigh(&mut self, now: Instant) {
        let settled_for = self.0.settings.limits.leave_within + GONE_AFTER;
        // A reload may have ended `stop_after`.
        let is_weighed = |node: &&Node| {
            node.settings.hook.stop_after.is_some() || node.need.is_some() || node.is_stopping()
        };
        let stoppable = self.0.nodes.iter().filter(is_weighed);
        let stoppable: Vec<NodeId> = stoppable.map(|node| node.id).collect();
        for id in stoppable {
            let used = self.use_of(id, now);
            match self.0.nodes[id].weigh_stop(used, settled_for, now) {
                StopStep::Wait => {}
                StopStep::Drain => self.set_stopping(id, true, now),
                StopStep::Keep => self.set_stopping(id, false, now),
                StopStep::Stop => self.stop(id, now),
            }
        }
        self.0.nodes.turn_hooks(now);
        self.0.effects.take(&mut self.0.nodes);
    }

    fn use_of(&mut self, id: NodeId, now: Instant) -> NodeUse {
        let is_stopping = self.0.nodes[id].trust.elastic.stopping;
        let percent = if is_stopping { DRAINING_PERCENT } else { QUIET_PERCENT };
        // Other nodes of a spare's region are outside the region of its room, as the spare is.
        let rules = self.0.settings.scenarios.values().map(|scenario| scenario.spares_outside);
        let outside = rules.filter(|rule| *rule == FailureScope::Zone).max().unwrap_or_default();
        let need = match self.0.rooms.stranded.is_empty() {
            true => self.0.capacity.need_of(id, &self.0.nodes, percent, outside, now),
            false => Some(NodeNeed::Stranded),
        };
        let is_empty = self.0.rooms.at[id.0 as usize].is_empty();
        NodeUse { need, is_empty: is_empty && NodeController(self.0).is_settled(id) }
    }

    fn set_stopping(&mut self, id: NodeId, stopping: bool, now: Instant) {
        NodeController(self.0).decide_drain(id, |node| node.trust.elastic.stopping = stopping, now);
    }

    fn stop(&mut self, id: NodeId, now: Instant) {
        let node = &self.0.nodes[id];
        let (hop, from, last_heard) = (node.hop(), node.health(), node.detector.last_heard());
        self.set_stopping(id, false, now);
        self.0.nodes.stop(id, now);
        self.0.effects.take(&mut self.0.nodes);
        let (to, witnesses) = (Health::Cold, Vec::new());
        self.0.effects.event(CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms: 0 });
    }
}
