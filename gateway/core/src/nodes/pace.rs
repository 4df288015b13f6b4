//! The pace at which a node opens sessions: so many may be under way at once, and the others wait in their turn.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{Hop, SessionId};

/// The smallest window: with none under way it would never be found out that the node opens faster again.
const WINDOW_MIN: u32 = 4;

/// However well it goes, no more than this: the rest gains nothing from being told at once.
const WINDOW_MAX: u32 = 1_024;

/// An opening that took longer says that the node takes no more at a time.
pub(crate) const ANSWERED_IN_TIME: Duration = Duration::from_millis(250);

/// Late answers within this are one reason to slow down.
const SLOWER_EVERY: Duration = Duration::from_millis(100);

/// Order of openings, if not all can go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// Its room has nowhere to go.
    Stranded,
    /// Its room moves there.
    Moving,
    /// It comes in.
    Newcomer,
    /// No client waits for it: a spare.
    Spare,
}

/// A place in the queue: by class, by priority (calls before streams), by arrival.
pub(crate) type Turn = (Class, Reverse<i64>, u64);

/// A node's window, as congestion control has them (RFC 5681, 3.1): grows with openings answered in time, by one each
/// until the first that was not, and by one per window after that; halves with late and refused ones.
#[derive(Debug)]
pub(crate) struct Pace {
    window: u32,
    start: u32,
    /// Answers in time since the window grew last.
    credit: u32,
    slowed: Option<Instant>,
    under_way: u32,
    /// The number of the next arrival.
    drawn: u64,
    waiting: BTreeMap<Turn, (SessionId, Hop)>,
    turns: BTreeMap<(SessionId, Hop), Turn>,
}

impl Pace {
    pub(crate) fn new(start: u32) -> Pace {
        Pace {
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

    pub(crate) fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Tells if this one may go now, with none waiting before it; else it waits.
    pub(crate) fn begin(&mut self, turn: Turn, session: SessionId, hop: Hop) -> bool {
        self.drawn += 1;
        if self.waiting.is_empty() && self.under_way < self.window {
            self.under_way += 1;
            return true;
        }
        self.waiting.insert(turn, (session, hop));
        self.turns.insert((session, hop), turn);
        false
    }

    /// The next that may go now.
    pub(crate) fn next(&mut self) -> Option<(SessionId, Hop)> {
        if self.under_way >= self.window {
            return None;
        }
        let (_, next) = self.waiting.pop_first()?;
        self.turns.remove(&next);
        self.under_way += 1;
        Some(next)
    }

    /// It waits no longer, since it is wanted no longer.
    pub(crate) fn forget(&mut self, session: SessionId, hop: Hop) {
        if let Some(turn) = self.turns.remove(&(session, hop)) {
            self.waiting.remove(&turn);
        }
    }

    /// One that was under way is not any more, for whatever reason.
    pub(crate) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// One of them was answered in time.
    pub(crate) fn faster(&mut self) {
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

    /// One of them was answered late, or refused.
    pub(crate) fn slower(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < SLOWER_EVERY;
        if !self.slowed.is_some_and(lately) {
            self.slowed = Some(now);
            self.credit = 0;
            self.window = (self.window / 2).max(WINDOW_MIN.min(self.start));
        }
    }

    /// It is a new incarnation: what the one before could take says nothing.
    pub(crate) fn renew(&mut self) {
        (self.window, self.credit, self.slowed) = (self.start.min(WINDOW_MAX), 0, None);
    }

    /// As many wait as may be under way: rooms that can wait or be placed elsewhere are.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.len() >= self.window as usize
    }

    #[cfg(test)]
    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    /// Sessions under way, and sessions that wait.
    pub(crate) fn counts(&self) -> (u32, usize) {
        (self.under_way, self.waiting.len())
    }
}

#[cfg(test)]
mod tests;
