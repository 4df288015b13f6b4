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
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Says this every 10 ms for a while.
    fn says(gauge: &mut Gauge, permille: u16, ours: u64, start: Instant) {
        for ms in (0..8_000).step_by(10) {
            gauge.handle_load(permille, ours, start + MS * ms);
        }
    }

    #[test]
    fn reported_load_corrects_estimate_smoothly() {
        let start = Instant::now();
        let mut gauge = Gauge::new(1_000);
        gauge.handle_load(900, 200, start);
        gauge.handle_load(900, 200, start + 10 * MS);
        assert!(gauge.kbps() > 980, "one word is no fact: {}", gauge.kbps());
        says(&mut gauge, 900, 200, start);
        assert!((300..320).contains(&gauge.kbps()), "{}: 200 of ours, 100 free", gauge.kbps());
        says(&mut gauge, 200, 200, start + 8_000 * MS);
        assert!(gauge.kbps() > 950, "{}", gauge.kbps());
    }

    #[test]
    fn false_load_report_is_bounded() {
        let start = Instant::now();
        let mut gauge = Gauge::new(1_000);
        says(&mut gauge, 0, 900, start);
        assert_eq!(gauge.kbps(), 1_000);
        says(&mut gauge, 60_000, 0, start);
        assert!((100..130).contains(&gauge.kbps()), "{}", gauge.kbps());
    }

    #[test]
    fn measured_capacity_overrides_config() {
        let start = Instant::now();
        let mut gauge = Gauge::new(1_600);
        gauge.claim(2_000);
        assert_eq!(gauge.kbps(), 2_000, "nobody said less");
        gauge.handle_full(400, start);
        for (claimed, takes) in [(1_600, 400), (8_000, 800), (300, 300)] {
            gauge.claim(claimed);
            assert_eq!(gauge.kbps(), takes, "{claimed}: a tenth at least");
        }
        gauge.claim(2_000);
        gauge.handle_full(400, start);
        gauge.claim(1_600);
        says(&mut gauge, 0, 400, start - 4_000 * MS);
        assert_eq!(gauge.kbps(), 400, "it refused, and is believed in that still");
    }

    #[test]
    fn refusal_outweighs_reports_and_expires() {
        let start = Instant::now();
        let mut gauge = Gauge::new(1_600);
        gauge.handle_full(400, start);
        assert_eq!(gauge.kbps(), 400);
        says(&mut gauge, 0, 400, start - 4_000 * MS);
        assert_eq!(gauge.kbps(), 400, "it says that it is empty, and refuses");
        gauge.recover(start + 4_999 * MS);
        assert_eq!(gauge.kbps(), 400);
        for half in 0..20 {
            gauge.recover(start + 10_000 * MS + half * 500 * MS);
        }
        assert_eq!(gauge.kbps(), 1_600);
    }
}
