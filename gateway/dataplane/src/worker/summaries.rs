//! Summaries of active sessions. Each is summarised every 100 ms or, with many sessions, less often, so that summaries
//! take a small part of a core. A pass summarises a share of the sessions, so that packets never wait for all. Idle
//! sessions cost nothing.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::flows::Home;

/// Minimum interval between two summaries of a session.
const EVERY: Duration = Duration::from_millis(100);

/// Average interval between two summaries of a worker with many sessions: summaries take a bounded part of a core.
const APART: Duration = Duration::from_micros(50);

/// Sessions per share: about half a millisecond.
const SHARE: usize = 256;

#[derive(Debug)]
pub(super) struct Sweep {
    began: Instant,
    next: usize,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Sweep {
        Sweep { began: now, next: 0 }
    }

    /// Time of the next share, given the number of active sessions.
    pub(super) fn due(&self, places: usize) -> Instant {
        let shares = places.div_ceil(SHARE).max(1);
        let share = (self.next / SHARE + 1).min(shares);
        self.began + every(places) * share as u32 / shares as u32
    }

    /// Takes the share that is due, if any. A share that starts at 0 starts a round.
    pub(super) fn take(&mut self, places: usize, now: Instant) -> Option<Range<usize>> {
        if now < self.due(places) {
            return None;
        }
        let share = self.next.min(places)..places.min(self.next + SHARE);
        self.next = share.end;
        if share.end == places {
            self.next = 0;
            // Missed rounds are skipped.
            let every = every(places);
            let next = self.began + every;
            self.began = if now < next + every { next } else { now };
        }
        Some(share)
    }
}

/// Interval between two summaries of a session.
pub(super) fn every(places: usize) -> Duration {
    EVERY.max(APART * places as u32)
}

/// Sessions to be summarised, unordered.
#[derive(Default, Debug)]
pub(super) struct ActiveSessions(Vec<Home>);

impl ActiveSessions {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, home: Home) {
        self.0.push(home);
    }

    pub(super) fn at(&self, place: usize) -> Home {
        self.0[place]
    }

    /// Removes a session and moves the last one into its place. The moved session may miss its turn in this round; the
    /// next round summarises it.
    pub(super) fn remove(&mut self, place: usize) {
        self.0.swap_remove(place);
    }
}

#[cfg(test)]
mod tests;
