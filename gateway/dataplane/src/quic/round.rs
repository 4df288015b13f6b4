//! Rounds of path reports: each session once per interval, a share of them at a time, so that packets never wait for
//! all of them nor for room in a ring full of reports.

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

    /// When the next share is due, or the next round begins.
    pub(super) fn due(&self) -> Instant {
        if self.is_over() {
            return self.began + self.every;
        }
        let shares = self.homes.len().div_ceil(SHARE);
        self.began + self.every.mul_f64((self.done / SHARE) as f64 / shares as f64)
    }

    /// Whether all sessions of the round were reported.
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

    /// The next share.
    pub(super) fn share(&mut self) -> &[Home] {
        let first = self.done;
        self.done = self.homes.len().min(first + SHARE);
        &self.homes[first..self.done]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    fn homes(count: u32) -> impl Iterator<Item = Home> {
        (0..count).map(|slot| Home { worker: 0, slot, generation: 1 })
    }

    #[test]
    fn each_session_is_reported_once_per_round() {
        let start = Instant::now();
        let mut round = Round::new(EVERY, start);
        for number in 1..=3 {
            assert!(round.is_over());
            assert_eq!(round.due(), start + EVERY * number);
            round.begin(homes(1_000), round.due());
            let mut seen = Vec::new();
            while !round.is_over() {
                assert!(round.due() < start + EVERY * (number + 1));
                let (due, share) = (round.due(), round.share().to_vec());
                assert!((1..=128).contains(&share.len()));
                assert!(round.due() >= due + EVERY / 8);
                seen.extend(share);
            }
            assert_eq!(seen, homes(1_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn empty_round_waits_and_missed_rounds_are_skipped() {
        let start = Instant::now();
        let mut round = Round::new(EVERY, start);
        round.begin(homes(0), round.due());
        assert!(round.is_over() && round.share().is_empty());
        assert_eq!(round.due(), start + EVERY * 2);
        let late = start + EVERY * 50;
        round.begin(homes(3), late);
        assert_eq!(round.share().len(), 3);
        assert_eq!(round.due(), late + EVERY);
    }
}
