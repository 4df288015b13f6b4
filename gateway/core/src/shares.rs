//! Shares: sessions that get less than they need while capacity is short, and their way back.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::SessionId;

/// The whole of a session's need, in thousandths.
pub(crate) const WHOLE: u16 = 1_000;

/// Steps of reduction: shares of a session's need above its scenario's floor, in thousandths.
pub(crate) const STEPS: [u16; 2] = [500, 0];

/// Minimum time before a reduced session is raised again.
const RAISED_AFTER: Duration = Duration::from_secs(8);

/// Reduced sessions checked per call, which bounds the call's duration.
const REDUCED_AT_ONCE: usize = 256;

/// The step above this share.
pub(crate) fn raised(share: u16) -> u16 {
    STEPS.into_iter().filter(|step| *step > share).min().unwrap_or(WHOLE)
}

/// The share of one session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    pub(crate) session: SessionId,
    pub(crate) permille: u16,
}

/// Sessions with a reduced share, with the time since when.
#[derive(Debug)]
pub(crate) struct ReducedSessions {
    since: BTreeMap<SessionId, Instant>,
    /// The last session that was checked for a raise.
    last: SessionId,
}

impl Default for ReducedSessions {
    fn default() -> Self {
        ReducedSessions { since: BTreeMap::new(), last: SessionId(0) }
    }
}

impl ReducedSessions {
    pub(crate) fn len(&self) -> usize {
        self.since.len()
    }

    pub(crate) fn since(&self, session: SessionId) -> Option<Instant> {
        self.since.get(&session).copied()
    }

    pub(crate) fn set(&mut self, session: SessionId, since: Option<Instant>) {
        match since {
            Some(since) => _ = self.since.insert(session, since),
            None => _ = self.since.remove(&session),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.since.clear();
    }

    /// The next sessions that have been reduced for long enough to be raised.
    pub(crate) fn next_due(&mut self, now: Instant) -> Vec<SessionId> {
        let from = (Bound::Excluded(self.last), Bound::Unbounded);
        let turn: Vec<(SessionId, Instant)> =
            self.since.range(from).take(REDUCED_AT_ONCE).map(|(id, at)| (*id, *at)).collect();
        let goes_on = turn.last().filter(|_| turn.len() == REDUCED_AT_ONCE);
        self.last = goes_on.map_or(SessionId(0), |(id, _)| *id);
        let due = |since: Instant| now.saturating_duration_since(since) >= RAISED_AFTER;
        turn.into_iter().filter(|(_, since)| due(*since)).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests;
