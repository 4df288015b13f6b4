//! Drains: rooms leave a node in batches, by a deadline or as soon as other nodes take them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_model::{CoreEvent, IdSet, NodeId, RoomId};
use serde::{Deserialize, Serialize};

/// Maximum rooms that leave a draining node at once, so that one wake-up stays short and no node gets all at once.
const DRAINS_AT_ONCE: usize = 256;

/// Interval between batches of rooms that leave a draining node.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// Divisor of the time until the deadline: this part is reserved for the last moves to complete.
const KEPT_FOR_ARRIVAL: u32 = 5;

/// The drains under way.
#[derive(Default, Debug)]
pub(crate) struct Drains {
    under_way: BTreeMap<NodeId, NodeDrain>,
}

/// The progress of a node's drain.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct NodeDrain {
    #[serde(with = "instant")]
    started: Instant,
    /// `None` if rooms leave as soon as other nodes can take them, and after the deadline's event was emitted.
    #[serde(with = "instant::option")]
    deadline: Option<Instant>,
    /// The last room that was moved away.
    last: RoomId,
    /// The event that reports the node empty was emitted.
    empty: bool,
}

/// The next rooms that leave a draining node.
#[derive(Debug)]
pub(crate) struct DrainBatch {
    pub(crate) rooms: Vec<RoomId>,
    /// The event at the end of a drain: the node is empty, or the deadline is over.
    pub(crate) ended: Option<CoreEvent>,
    /// The time of the next batch; `None` while the node is empty.
    pub(crate) next: Option<Instant>,
}

impl Drains {
    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<NodeDrain> {
        self.under_way.get(&node).copied()
    }

    pub(crate) fn begin(&mut self, node: NodeId, within: Option<Duration>, now: Instant) {
        let deadline = within.map(|within| now + within);
        self.resume(node, NodeDrain { started: now, deadline, last: RoomId(0), empty: false });
    }

    /// Continues the drain of a record.
    pub(crate) fn resume(&mut self, node: NodeId, drain: NodeDrain) {
        self.under_way.insert(node, drain);
    }

    pub(crate) fn end(&mut self, node: NodeId) {
        self.under_way.remove(&node);
    }

    /// Ends all drains, which go on at another process. Returns their nodes.
    pub(crate) fn forget_restored(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.under_way).into_keys().collect()
    }

    /// The next batch of the rooms that are `there`; `None` if the node does not drain.
    pub(crate) fn next_batch(
        &mut self,
        node: NodeId,
        there: &IdSet<RoomId>,
        now: Instant,
    ) -> Option<DrainBatch> {
        let drain = self.under_way.get_mut(&node)?;
        let left = there.len();
        let at_once = at_once(left, drain, now);
        let after = (Bound::Excluded(drain.last), Bound::Unbounded);
        let rooms: Vec<RoomId> = there.range(after).take(at_once).collect();
        let last = rooms.last().filter(|_| rooms.len() == at_once).copied();
        drain.last = last.unwrap_or(RoomId(0));
        let is_late = drain.deadline.is_some_and(|deadline| deadline <= now);
        let ended = (left == 0 && !drain.empty || is_late).then(|| {
            (drain.empty, drain.deadline) = (left == 0, None);
            CoreEvent::Drained { node, left: left as u32, started: drain.started }
        });
        let next = (left > 0).then(|| {
            drain.empty = false;
            let next = now + DRAIN_EVERY;
            drain.deadline.map_or(next, |at| at.min(next))
        });
        Some(DrainBatch { rooms, ended, next })
    }
}

/// The number of rooms, out of `left`, that leave in this batch: with a deadline as few as suffice, else the maximum.
fn at_once(left: usize, drain: &NodeDrain, now: Instant) -> usize {
    let Some(deadline) = drain.deadline else { return DRAINS_AT_ONCE };
    let last = deadline - (deadline - drain.started) / KEPT_FOR_ARRIVAL;
    let time = last.saturating_duration_since(now);
    let turns = (time.as_micros() / DRAIN_EVERY.as_micros()) as usize;
    left.div_ceil(turns.max(1)).clamp(1, DRAINS_AT_ONCE)
}

#[cfg(test)]
mod tests;
