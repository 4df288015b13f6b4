//! The measured capacity of a node, from the load that it reports and the sessions that it refuses. It lies between a
//! tenth of the configured capacity and all of it. The minimum keeps a node that reports itself full from being starved
//! forever.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Time constant of smoothing: a load reported for this long is almost fully believed.
const SMOOTHED_OVER: Duration = Duration::from_secs(1);

/// An older report is ignored.
const WORD_HOLDS: Duration = Duration::from_secs(5);

/// The minimum capacity is the configured one divided by this.
const LEAST: u64 = 10;

/// Without a load report or a refusal, the full configured capacity is restored within this time.
const RECOVERS_IN: Duration = Duration::from_secs(8);

/// Upper bound on the elapsed time of one recovery step, so that rare calls do not restore much at once.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Gauge {
    claimed: u64,
    /// In bit/s, because smoothing takes steps smaller than 1 kbit/s.
    measured: u64,
    #[serde(with = "evenkeel_media::instant::option")]
    word: Option<Instant>,
    #[serde(with = "evenkeel_media::instant::option")]
    refused: Option<Instant>,
    #[serde(with = "evenkeel_media::instant::option")]
    looked_at: Option<Instant>,
}

impl Gauge {
    pub(crate) fn new(claimed: u64) -> Gauge {
        Gauge { claimed, measured: claimed * 1_000, word: None, refused: None, looked_at: None }
    }

    /// Takes a changed configured capacity. A measurement is kept within the new bounds; an unmeasured node takes the
    /// new capacity.
    pub(crate) fn claim(&mut self, claimed: u64) {
        let all = self.measured == self.claimed * 1_000;
        self.claimed = claimed;
        self.measured = self.bounded(if all { claimed } else { self.kbps() });
    }

    /// Continues another process's measurement under the present configured capacity.
    pub(crate) fn resume(&mut self, before: &Gauge) {
        let (claimed, said) = (self.claimed, before.claimed.min(u64::MAX / 1_000));
        *self = Gauge { claimed: said, measured: before.measured.min(said * 1_000), ..*before };
        if claimed != said {
            self.claim(claimed);
        }
    }

    pub(crate) fn kbps(&self) -> u64 {
        self.measured / 1_000
    }

    /// Takes the node's reported load. `ours` is the load that the ledger places there; the free capacity in the report
    /// comes on top of it.
    pub(crate) fn handle_load(&mut self, permille: u16, ours: u64, now: Instant) {
        let free = u64::from(1_000_u16.saturating_sub(permille));
        let says = self.bounded(ours + self.claimed * free / 1_000);
        let since = self.word.map_or(Duration::ZERO, |word| now.saturating_duration_since(word));
        self.word = Some(now);
        // A node that refused a session recently gets no more load, even if it reports free capacity.
        if says > self.measured && self.refused(now) {
            return;
        }
        let weight = since.min(SMOOTHED_OVER).as_micros() as u64;
        let over = SMOOTHED_OVER.as_micros() as u64;
        let step = says.abs_diff(self.measured) * weight / over;
        self.measured =
            if says > self.measured { self.measured + step } else { self.measured - step };
    }

    /// Keeps the capacity of a draining node: its falling load says nothing about capacity.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.word = Some(now);
    }

    /// It refused a session since it is full, while we counted on it for `ours`.
    pub(crate) fn handle_full(&mut self, ours: u64, now: Instant) {
        self.measured = self.measured.min(self.bounded(ours));
        self.refused = Some(now);
    }

    /// Restores configured capacity over time.
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

    /// The capacity within its bounds, in bit/s.
    fn bounded(&self, kbps: u64) -> u64 {
        kbps.clamp(self.claimed / LEAST, self.claimed) * 1_000
    }
}

#[cfg(test)]
mod tests;
