//! Canaries: two sessions of the gateway at a node, in a room of their own. A packet sent in at one must come out at
//! the other.
//!
//! A bad path loses some packets; a node that forwards nothing loses all. [`MISSING`] canaries in a row must
//! therefore be lost. If each direction loses 15 %, that happens once in a hundred hours. At such loss the node's
//! confirmations that the sessions are open are lost as well, and without them nothing is counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_model::Since;

/// Canaries that must be missing in a row: 1.2 s at one per 100 ms.
const MISSING: u32 = 12;

/// A canary that comes out within this time after its round trip was late, not lost. It exceeds what jitter of ±80 ms
/// on both directions causes.
const SLACK: Duration = Duration::from_millis(200);

/// The node confirms twice a second that the sessions are open. One confirmation may be lost.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(1_200);

/// Number of canaries in flight that are remembered.
const SENT_MAX: usize = 32;

#[derive(Default, Debug)]
pub(super) struct CanaryPacket {
    sent: VecDeque<(u64, Since)>,
    missing: u32,
    /// The time at which the first of the missing canaries was sent.
    missing_since: Option<Instant>,
    /// The time at which the node last confirmed that both sessions are open.
    confirmed: Option<Instant>,
    /// A canary came out once. A node that never forwards between sessions of a room is not judged by canaries.
    forwards: bool,
}

impl CanaryPacket {
    /// The node confirms that both sessions are open. Packets lost without a valid confirmation are not counted.
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

    /// A canary came out, even if late. Returns when it was sent, if that is remembered.
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

    /// The time at which the first missing canary was sent, if enough are missing.
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
