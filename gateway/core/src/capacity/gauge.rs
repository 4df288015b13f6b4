//! The capacity of a node as measured: by the load that it reports, and by what it refuses. Its configured capacity is
//! the most; a tenth of that is the least, so that a node that reports itself full is not starved for ever.

use std::time::{Duration, Instant};

/// A reported load counts by how long it has been reported: after so long, nearly all of it is believed.
const SMOOTHED_OVER: Duration = Duration::from_secs(1);

/// A word that is older says nothing.
const WORD_HOLDS: Duration = Duration::from_secs(5);

/// The least capacity, as a part of the configured one.
const LEAST: u64 = 10;

/// Without a word of load and without a refusal, all that its configuration says comes back within this.
const RECOVERS_IN: Duration = Duration::from_secs(8);

/// However seldom it is looked at, no more of that comes back at once.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(1);

/// One node's.
#[derive(Debug)]
pub(crate) struct Gauge {
    claimed: u64,
    /// Bit/s: what is smoothed moves in steps smaller than kilobits.
    measured: u64,
    /// The last report.
    word: Option<Instant>,
    /// The last refusal.
    refused: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Gauge {
    pub(crate) fn new(claimed: u64) -> Gauge {
        Gauge { claimed, measured: claimed * 1_000, word: None, refused: None, looked_at: None }
    }

    /// The configured capacity changed. A measurement stands, as far as it can; an unmeasured node takes the new
    /// capacity.
    pub(crate) fn claim(&mut self, claimed: u64) {
        let all = self.measured == self.claimed * 1_000;
        self.claimed = claimed;
        self.measured = self.bounded(if all { claimed } else { self.kbps() });
    }

    pub(crate) fn kbps(&self) -> u64 {
        self.measured / 1_000
    }

    #[cfg(test)]
    pub(crate) fn claimed(&self) -> u64 {
        self.claimed
    }

    /// It says how full it is, while we count on it for `ours`: what is free by its word can come on top of that.
    pub(crate) fn handle_load(&mut self, permille: u16, ours: u64, now: Instant) {
        let free = u64::from(1_000_u16.saturating_sub(permille));
        let says = self.bounded(ours + self.claimed * free / 1_000);
        let since = self.word.map_or(Duration::ZERO, |word| now.saturating_duration_since(word));
        self.word = Some(now);
        // A node that refused a session takes no more, though it reports that it could.
        if says > self.measured && self.refused(now) {
            return;
        }
        let weight = since.min(SMOOTHED_OVER).as_micros() as u64;
        let over = SMOOTHED_OVER.as_micros() as u64;
        let step = says.abs_diff(self.measured) * weight / over;
        self.measured =
            if says > self.measured { self.measured + step } else { self.measured - step };
    }

    /// A draining node reports a falling load: its capacity stays as it was.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.word = Some(now);
    }

    /// It refused a session since it is full, while we counted on it for `ours`.
    pub(crate) fn handle_full(&mut self, ours: u64, now: Instant) {
        self.measured = self.measured.min(self.bounded(ours));
        self.refused = Some(now);
    }

    /// Time has passed.
    pub(crate) fn recover(&mut self, now: Instant) {
        let before = self.looked_at.replace(now).unwrap_or(now);
        let since = now.saturating_duration_since(before).min(LOOKED_AT_WITHIN);
        let speaks = self.word.is_some_and(|at| now.saturating_duration_since(at) < WORD_HOLDS);
        if !speaks && !self.refused(now) {
            let share = since.as_millis() as u64 * 1_000 / RECOVERS_IN.as_millis() as u64;
            self.measured = (self.measured + self.claimed * share).min(self.claimed * 1_000);
        }
    }

    fn refused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|at| now.saturating_duration_since(at) < WORD_HOLDS)
    }

    /// In bit/s.
    fn bounded(&self, kbps: u64) -> u64 {
        kbps.clamp(self.claimed / LEAST, self.claimed) * 1_000
    }
}

#[cfg(test)]
mod tests;
