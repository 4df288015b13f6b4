//! What a node can take, as measured: by what it says of its load, and by what it refuses. Its configuration's word is
//! the most; a tenth of that is the least, so that nobody is starved for ever by one who says he is full.

use std::time::{Duration, Instant};

/// What a node says of its load counts by how long it has said so: of a word that holds so long, nearly all is believed.
const SMOOTHED_OVER: Duration = Duration::from_secs(1);

/// A word that is older says nothing.
const WORD_HOLDS: Duration = Duration::from_secs(5);

/// What a node takes at least, as a part of what its configuration says.
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
    /// When it last spoke of its load.
    word: Option<Instant>,
    /// When it last refused for being full.
    refused: Option<Instant>,
    /// When it was last looked at.
    looked_at: Option<Instant>,
}

impl Gauge {
    pub(crate) fn new(claimed: u64) -> Gauge {
        Gauge { claimed, measured: claimed * 1_000, word: None, refused: None, looked_at: None }
    }

    /// Its configuration says otherwise. What was measured stands, as far as it can; where that was all that it was to take,
    /// so it is now.
    pub(crate) fn claim(&mut self, claimed: u64) {
        let all = self.measured == self.claimed * 1_000;
        self.claimed = claimed;
        self.measured = self.bounded(if all { claimed } else { self.kbps() });
    }

    /// What it can take, kbit/s.
    pub(crate) fn kbps(&self) -> u64 {
        self.measured / 1_000
    }

    /// What its configuration says, kbit/s.
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
        // Whoever refused takes no more for that it says it could.
        if says > self.measured && self.refused(now) {
            return;
        }
        let weight = since.min(SMOOTHED_OVER).as_micros() as u64;
        let over = SMOOTHED_OVER.as_micros() as u64;
        let step = says.abs_diff(self.measured) * weight / over;
        self.measured =
            if says > self.measured { self.measured + step } else { self.measured - step };
    }

    /// It drains, and says how full it is of those who leave: what it could take, it can take afterwards.
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
