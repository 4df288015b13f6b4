//! Every reason to wake, one line each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::{AskId, NodeId, PolicyName, RoomId, SessionId};

/// A reason to wake. Two words long, since there is one of each room: what is longer is elsewhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A node's media port is probed again.
    Probe(NodeId),
    /// The next canary goes into a node.
    Canary(NodeId),
    /// A question's answer is late from here on.
    AskLate(AskId),
    /// A driver has not opened a session in time.
    OpenLate(SessionId),
    /// The hop that a make-before-break left has finished.
    LeavingEnds(RoomId),
    /// The room is looked at again: its routing policy wishes so, or it kept away from a hop long enough.
    RoomDue(RoomId),
    /// Rooms wait to be asked about.
    Reroute(Arc<PolicyName>),
    /// A degradation policy is asked.
    Tick(Arc<PolicyName>),
    /// The next rooms leave a draining node.
    Drain(NodeId),
    /// Nothing leads any more to a node that is to go.
    Forget(NodeId),
    /// The next rooms of a dead node go on without it.
    Herd,
    /// Rooms without a usable hop are looked at again.
    Rescue,
    /// The next rooms take what their scenarios say now.
    Change,
    /// A node that its hook starts has not answered in time.
    StartLate(NodeId),
    /// The next room goes back to where it would natively be.
    Failback,
    /// Breakers are weighed.
    Breakers,
    /// Votes about nodes are weighed.
    Cohorts,
    /// Sessions that hear nothing any more are looked at.
    Flows,
    /// Rounds of judges may be over.
    Judge,
    /// Rollouts take the steps that are due.
    Rollouts,
    /// Sessions are looked at for silence.
    Sweep,
    /// Rooms without a reserve are looked at for one.
    Weigh,
    /// The shutdown's deadline: all sessions are closed.
    ShutdownEnds,
}

/// Timers that are due. Each reason stands at most once.
#[derive(Default, Debug)]
pub(crate) struct Timers {
    queue: BTreeSet<(Instant, Timer)>,
    due: BTreeMap<Timer, Instant>,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(&timer);
        self.queue.insert((at, timer.clone()));
        self.due.insert(timer, at);
    }

    /// Sets the timer unless it stands already, for whenever.
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

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub(crate) fn standing(&self) -> impl ExactSizeIterator<Item = &Timer> {
        self.due.keys()
    }

    /// The earliest timer that is due, taken out.
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
