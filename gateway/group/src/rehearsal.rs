//! The rehearsal of a standby: what a takeover would need and is not there.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::{Handle, Replica, TakeoverReadiness};
use evenkeel_model::PolicyName;

use crate::task::{Task, outcome};

/// Interval of the questions to control, which answers from memory. The end of a loss is shown within it.
const EVERY: Duration = Duration::from_secs(2);

/// Interval of looks at all records: a millisecond for 64,000 sessions, and two system calls for each port that is taken.
const RECORDS_EVERY: Duration = Duration::from_secs(60);

/// Why this gateway could not continue all sessions of the owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error("no node answers the standby: its calls would have none")]
    NoNode,
    #[error(
        "the ports of a session, {0} among them, are not free at the standby's host: a takeover would open the session again with others; see `ss -lunp` there"
    )]
    PortTaken(u16),
    #[error(
        "revision {revision} of {policy} does not run at the standby: a takeover would continue with another one; see the standby's log, then push it again"
    )]
    NotLoaded { policy: PolicyName, revision: Arc<str> },
    #[error(
        "the owner has more sessions than `[limits] sessions = {0}` of the standby allows: raise it there"
    )]
    Sessions(usize),
    #[error(
        "the nodes that answer the standby have less capacity than the owner's sessions need: restore or add nodes"
    )]
    Capacity,
}

/// The needs of the owner's records at this gateway.
#[derive(Clone, Copy, Default, Debug)]
struct RecordNeeds {
    sessions: usize,
    kbps: u64,
    taken_port: Option<u16>,
}

pub(super) struct Rehearsal {
    running: Option<Task<Vec<Unready>>>,
    due: Instant,
    records_due: Instant,
    needs: RecordNeeds,
    was_whole: bool,
    losses: Vec<Unready>,
}

impl Rehearsal {
    pub(super) fn new(now: Instant) -> Rehearsal {
        let needs = RecordNeeds::default();
        Rehearsal {
            running: None,
            due: now + EVERY,
            records_due: now,
            needs,
            was_whole: false,
            losses: Vec::new(),
        }
    }

    /// Begins one if it is due.
    pub(super) fn begin(&mut self, handle: &Handle, replica: &mut Arc<Replica>, now: Instant) {
        if self.running.is_some() || now < self.due {
            return;
        }
        self.due = now + EVERY;
        let is_whole = replica.is_whole();
        if self.records_due <= now || is_whole && !self.was_whole {
            self.needs = RecordNeeds::of(Arc::make_mut(replica));
            // The end of a failure is soon seen.
            let fails = self.needs.taken_port.is_some() || !self.losses.is_empty();
            self.records_due = now + if fails { EVERY } else { RECORDS_EVERY };
        }
        self.was_whole = is_whole;
        let (handle, needs) = (handle.clone(), self.needs);
        self.running = Some(tokio::spawn(async move {
            let ready = handle.readiness().await.map_err(|_| "control ended".to_owned())?;
            Ok(needs.unmet(ready).collect())
        }));
    }

    /// Returns once it has ended.
    pub(super) async fn ended(&mut self) {
        let Some(running) = &mut self.running else { return pending().await };
        self.losses = outcome(running).await.unwrap_or_default();
        self.running = None;
    }

    /// The losses that the last one found.
    pub(super) fn losses(&self) -> &[Unready] {
        &self.losses
    }
}

impl RecordNeeds {
    fn of(replica: &mut Replica) -> RecordNeeds {
        RecordNeeds {
            sessions: replica.sessions(),
            kbps: replica.need_kbps(),
            taken_port: replica.taken_port(),
        }
    }

    fn unmet(self, ready: TakeoverReadiness) -> impl Iterator<Item = Unready> {
        let TakeoverReadiness { has_node, capacity_kbps, sessions_max, not_loaded } = ready;
        let node = (!has_node).then_some(Unready::NoNode);
        let sessions = (self.sessions > sessions_max).then_some(Unready::Sessions(sessions_max));
        // Without a node the capacity is that of none.
        let capacity = (has_node && self.kbps > capacity_kbps).then_some(Unready::Capacity);
        let revisions = not_loaded.into_iter();
        let revisions = revisions.map(|(policy, revision)| Unready::NotLoaded { policy, revision });
        let port = self.taken_port.map(Unready::PortTaken);
        node.into_iter().chain(sessions).chain(capacity).chain(port).chain(revisions)
    }
}

#[cfg(test)]
mod tests;
