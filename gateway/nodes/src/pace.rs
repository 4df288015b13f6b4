//! The pace at which a node opens sessions: a window limits the openings under way, and the others queue.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_model::{Hop, SessionId};

/// The smallest window. With no openings under way, a recovery of the node would go unnoticed.
const WINDOW_MIN: u32 = 4;

/// The largest window. Telling a node more at once gains nothing.
const WINDOW_MAX: u32 = 1_024;

/// An opening that takes longer shrinks the window.
pub const ANSWERED_IN_TIME: Duration = Duration::from_millis(250);

/// Late answers within this time shrink the window only once.
const SLOWER_EVERY: Duration = Duration::from_millis(100);

/// Order of openings when not all fit in the window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OpeningClass {
    /// The session's room is stranded.
    Stranded,
    /// The session's room moves to this node.
    Moving,
    /// The session is new.
    Newcomer,
    /// The opening is at a spare, and no client waits for it.
    Spare,
}

/// A position in the queue: by class, priority (calls before streams) and arrival.
pub type QueuePosition = (OpeningClass, Reverse<i64>, u64);

/// A node's window, as in congestion control (RFC 5681, 3.1). It grows with openings answered in time: by one for each
/// until the first late one, then by one per window. It halves on late or refused openings.
#[derive(Debug)]
pub struct OpeningWindow {
    window: u32,
    start: u32,
    /// Answers in time since the window last grew.
    credit: u32,
    slowed: Option<Instant>,
    under_way: u32,
    /// The number of the next arrival in the queue.
    drawn: u64,
    waiting: BTreeMap<QueuePosition, (SessionId, Hop)>,
    turns: BTreeMap<(SessionId, Hop), QueuePosition>,
}

impl OpeningWindow {
    pub fn new(start: u32) -> OpeningWindow {
        OpeningWindow {
            window: start.min(WINDOW_MAX),
            start,
            credit: 0,
            slowed: None,
            under_way: 0,
            drawn: 0,
            waiting: BTreeMap::new(),
            turns: BTreeMap::new(),
        }
    }

    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Returns true if this opening may start now and none waits before it; otherwise it is queued.
    pub fn begin(&mut self, turn: QueuePosition, session: SessionId, hop: Hop) -> bool {
        self.drawn += 1;
        if self.waiting.is_empty() && self.under_way < self.window {
            self.under_way += 1;
            return true;
        }
        self.waiting.insert(turn, (session, hop));
        self.turns.insert((session, hop), turn);
        false
    }

    /// The next opening that may start now.
    pub fn start_next(&mut self) -> Option<(SessionId, Hop)> {
        if self.under_way >= self.window {
            return None;
        }
        let (_, next) = self.waiting.pop_first()?;
        self.turns.remove(&next);
        self.under_way += 1;
        Some(next)
    }

    /// Removes an opening that is no longer wanted from the queue.
    pub fn forget(&mut self, session: SessionId, hop: Hop) {
        if let Some(turn) = self.turns.remove(&(session, hop)) {
            self.waiting.remove(&turn);
        }
    }

    /// An opening under way ended, for whatever reason.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// An opening was answered in time.
    pub fn faster(&mut self) {
        let in_demand = self.under_way + 1 >= self.window || !self.waiting.is_empty();
        if !in_demand || self.window >= WINDOW_MAX {
            return;
        }
        self.credit += 1;
        if self.slowed.is_none() || self.credit >= self.window {
            self.credit = 0;
            self.window += 1;
        }
    }

    /// An opening was answered late, or refused.
    pub fn slower(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < SLOWER_EVERY;
        if !self.slowed.is_some_and(lately) {
            self.slowed = Some(now);
            self.credit = 0;
            self.window = (self.window / 2).max(WINDOW_MIN.min(self.start));
        }
    }

    /// Resets the window for a new incarnation.
    pub fn renew(&mut self) {
        (self.window, self.credit, self.slowed) = (self.start.min(WINDOW_MAX), 0, None);
    }

    /// As many openings wait as may be under way. Rooms that can wait, or be placed elsewhere, should.
    pub fn is_busy(&self) -> bool {
        self.waiting.len() >= self.window as usize
    }

    /// Number of openings under way, and number that wait.
    pub fn counts(&self) -> (u32, usize) {
        (self.under_way, self.waiting.len())
    }
}

#[cfg(test)]
mod tests;
