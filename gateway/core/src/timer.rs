//! The core's timers: every reason to wake up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{AskId, NodeId, PolicyName, RoomId, SessionId};
use evenkeel_nodes::NodeTimer;

/// A reason to wake up. Limited to two words, since there is one per room; longer data is stored elsewhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A node's media port is probed again.
    Probe(NodeId),
    /// The next canary goes into a node.
    Canary(NodeId),
    /// The deadline of a question.
    AskLate(AskId),
    /// A driver has not opened a session in time.
    OpenLate(SessionId),
    /// The hop that a make-before-break left is closed.
    LeavingEnds(RoomId),
    /// The room is reviewed: its routing policy asked for it, or it has avoided a hop long enough.
    RoomDue(RoomId),
    /// Rooms wait for a question to their routing policy.
    Reroute(Arc<PolicyName>),
    /// A degradation policy's next question is due.
    Tick(Arc<PolicyName>),
    /// The next rooms leave a draining node.
    Drain(NodeId),
    /// A removed node is forgotten, because no room leads there any more.
    Forget(NodeId),
    /// The next rooms of a dead node fail over.
    Failover,
    /// Rooms without a usable hop are tried again.
    Rescue,
    /// The next rooms take changed settings of their scenarios.
    Change,
    /// A node that a hook started has not answered in time.
    StartLate(NodeId),
    /// The next room returns to its native place.
    Failback,
    Breakers,
    /// Votes about nodes are weighed.
    Cohorts,
    /// Silent sessions are judged.
    Flows,
    /// A judge's round may be over.
    Judge,
    /// Due rollout steps are taken.
    Rollouts,
    /// Sessions are checked for silence.
    Sweep,
    /// Rooms without a reserve are weighed again.
    Weigh,
    /// The shutdown's deadline: all sessions are closed.
    ShutdownEnds,
}

impl From<NodeTimer> for Timer {
    fn from(timer: NodeTimer) -> Timer {
        match timer {
            NodeTimer::Probe(node) => Timer::Probe(node),
            NodeTimer::Canary(node) => Timer::Canary(node),
            NodeTimer::StartLate(node) => Timer::StartLate(node),
            NodeTimer::Drain(node) => Timer::Drain(node),
        }
    }
}

/// Pending timers. Each reason occurs at most once.
#[derive(Default, Debug)]
pub(crate) struct TimerQueue {
    queue: BTreeSet<(Instant, Timer)>,
    due: BTreeMap<Timer, Instant>,
}

impl TimerQueue {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(&timer);
        self.queue.insert((at, timer.clone()));
        self.due.insert(timer, at);
    }

    /// Sets the timer unless it is already set for any time.
    pub(crate) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        if !self.due.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.due.remove(timer) {
            self.queue.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn due(&self, timer: &Timer) -> Option<Instant> {
        self.due.get(timer).copied()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub(crate) fn standing(&self) -> impl ExactSizeIterator<Item = &Timer> {
        self.due.keys()
    }

    /// Removes and returns the earliest timer that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.queue.first()?.0 > now {
            return None;
        }
        let (_, timer) = self.queue.pop_first()?;
        self.due.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests;
