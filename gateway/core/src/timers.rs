//! Timers of the core: reasons to wake up, by time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{AskId, IdMap, IdSet, NodeId, PolicyName, RoomId, SessionId};
use evenkeel_nodes::NodeTimer;

/// A reason to wake up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A node's media port is probed again.
    Probe(NodeId),
    /// The next canary goes into a node.
    Canary(NodeId),
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
    /// Moves for closed ports get the link as their cause.
    ClosedPorts,
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
    by_time: BTreeSet<(Instant, Timer)>,
    due: BTreeMap<Timer, Instant>,
    /// Rooms of [`Timer::RoomDue`]. Most rooms have one, and reviews are rounded so that many rooms are due at one time.
    rooms_by_time: BTreeMap<Instant, IdSet<RoomId>>,
    room_due: IdMap<RoomId, Instant>,
}

impl TimerQueue {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(&timer);
        if let Timer::RoomDue(room) = timer {
            self.rooms_by_time.entry(at).or_default().insert(room);
            self.room_due.insert(room, at);
        } else {
            self.by_time.insert((at, timer.clone()));
            self.due.insert(timer, at);
        }
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Timer::RoomDue(room) = *timer {
            let Some(at) = self.room_due.remove(room) else { return };
            let Some(rooms) = self.rooms_by_time.get_mut(&at) else { return };
            rooms.remove(room);
            if rooms.is_empty() {
                self.rooms_by_time.remove(&at);
            }
        } else if let Some(at) = self.due.remove(timer) {
            self.by_time.remove(&(at, timer.clone()));
        }
    }

    /// The time of this timer, if it is set.
    pub(crate) fn due(&self, timer: &Timer) -> Option<Instant> {
        match timer {
            Timer::RoomDue(room) => self.room_due.get(*room).copied(),
            timer => self.due.get(timer).copied(),
        }
    }

    /// The earliest timer. Timers of one time are ordered by reason.
    fn first(&self) -> Option<(Instant, Timer)> {
        let room = self
            .rooms_by_time
            .first_key_value()
            .and_then(|(at, rooms)| rooms.iter().next().map(|room| (*at, Timer::RoomDue(room))));
        match (room, self.by_time.first()) {
            (Some(room), Some(other)) if *other < room => Some(other.clone()),
            (Some(room), _) => Some(room),
            (None, other) => other.cloned(),
        }
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.first().map(|(at, _)| at)
    }

    /// Removes and returns the earliest timer that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (_, timer) = self.first().filter(|(at, _)| *at <= now)?;
        self.cancel(&timer);
        Some(timer)
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len() + self.room_due.len()
    }
}

#[cfg(test)]
pub(crate) mod tests;
