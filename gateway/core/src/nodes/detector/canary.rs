//! Canaries: two sessions of our own at a node, in a room of their own. A packet that goes in at one must come out at
//! the other.
//!
//! On a bad way some packets are lost, at a node that forwards nothing all are. So it takes [`MISSING`] in a row: if
//! each of the two ways loses 15 %, that many are lost once in a hundred hours; and if so much is lost the node's word
//! that the sessions are open is lost as well, without which nothing is counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Since;

/// Canaries in a row that must be missing: 1.2 s at one in 100 ms.
const MISSING: u32 = 12;

/// A canary that came out no later than this after its round trip was late, and not lost: more than jitter of ±80 ms
/// makes on both ways.
const SLACK: Duration = Duration::from_millis(200);

/// The node says twice a second that the sessions are open. One word may be lost.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(1_200);

/// Canaries on their way that are remembered.
const SENT_MAX: usize = 32;

#[derive(Default, Debug)]
pub(super) struct Canary {
    sent: VecDeque<(u64, Since)>,
    missing: u32,
    /// The time at which the first of those was sent.
    missing_since: Option<Instant>,
    /// The last time at which the node said that both sessions are open.
    confirmed: Option<Instant>,
    /// One came out: a node that keeps sessions of a room apart forwards none.
    forwards: bool,
}

impl Canary {
    /// The node says that both sessions are open. Packets lost while it did not say so mean nothing.
    pub(super) fn confirm(&mut self, now: Instant) {
        if !self.is_open(now) {
            self.forget();
        }
        self.confirmed = Some(now);
    }

    fn is_open(&self, now: Instant) -> bool {
        self.confirmed.is_some_and(|at| now.saturating_duration_since(at) < CONFIRMED_WITHIN)
    }

    pub(super) fn send(&mut self, sequence: u64, now: Instant) {
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, Since::new(now)));
    }

    /// One came out, however late. Returns the time at which it was sent, if that is remembered.
    pub(super) fn pass(&mut self, sequence: u64) -> Option<Instant> {
        let passed =
            self.sent.iter().find(|(sent, _)| *sent == sequence).map(|(_, since)| since.at);
        self.sent.retain(|(sent, _)| *sent > sequence);
        self.forwards = true;
        (self.missing, self.missing_since) = (0, None);
        passed
    }

    pub(super) fn excuse(&mut self, late: Duration) {
        self.sent.iter_mut().for_each(|(_, since)| since.excuse(late));
    }

    /// Since when canaries are missing, where enough are.
    pub(super) fn weigh(&mut self, round_trip: Duration, now: Instant) -> Option<Instant> {
        let within = round_trip + SLACK;
        while let Some((_, since)) =
            self.sent.pop_front_if(|(_, since)| since.lasted(now) >= within)
        {
            self.missing += 1;
            self.missing_since.get_or_insert(since.at);
        }
        let accuses = self.missing >= MISSING && self.forwards && self.is_open(now);
        self.missing_since.filter(|_| accuses)
    }

    fn forget(&mut self) {
        self.sent.clear();
        (self.missing, self.missing_since) = (0, None);
    }
}

#[cfg(test)]
mod tests;
