//! Rounds of path reports. Each round reports every session once, in shares, so that packets wait neither for all
//! reports nor for space in a ring full of reports.

use std::time::{Duration, Instant};

use crate::flows::Home;

/// Sessions per share: a sixteenth of a ring, some 20 µs.
const SHARE: usize = 128;

pub(super) struct Round {
    every: Duration,
    began: Instant,
    /// The sessions at the start of the round.
    homes: Vec<Home>,
    /// Sessions reported in this round.
    done: usize,
}

impl Round {
    /// The first round begins one interval after `now`.
    pub(super) fn new(every: Duration, now: Instant) -> Round {
        Round { every, began: now, homes: Vec::new(), done: 0 }
    }

    /// Time of the next share or, between rounds, of the next round.
    pub(super) fn due(&self) -> Instant {
        if self.is_over() {
            return self.began + self.every;
        }
        let shares = self.homes.len().div_ceil(SHARE);
        self.began + self.every.mul_f64((self.done / SHARE) as f64 / shares as f64)
    }

    pub(super) fn is_over(&self) -> bool {
        self.done == self.homes.len()
    }

    /// Begins a round with these sessions. Missed rounds are skipped.
    pub(super) fn begin(&mut self, homes: impl Iterator<Item = Home>, now: Instant) {
        let due = self.due();
        self.began = if now < due + self.every { due } else { now };
        self.homes.clear();
        self.homes.extend(homes);
        self.done = 0;
    }

    /// Takes the next share.
    pub(super) fn share(&mut self) -> &[Home] {
        let first = self.done;
        self.done = self.homes.len().min(first + SHARE);
        &self.homes[first..self.done]
    }
}

#[cfg(test)]
mod tests;
