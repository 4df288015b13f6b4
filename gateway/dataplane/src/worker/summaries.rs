//! Summaries of active sessions: each every 100 ms or, where there are many, as often as a small part of a core allows. A
//! pass summarises a share of them, so that packets never wait for all. Idle sessions cost nothing.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::flows::Home;

/// Minimum interval between two summaries of a session.
const EVERY: Duration = Duration::from_millis(100);

/// Interval between two summaries of the worker, so that summaries take a bounded part of a core.
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

    /// When the next share is due, given the number of active sessions.
    pub(super) fn due(&self, places: usize) -> Instant {
        let shares = places.div_ceil(SHARE).max(1);
        let share = (self.next / SHARE + 1).min(shares);
        self.began + every(places) * share as u32 / shares as u32
    }

    /// The share that is due, if any. A share that starts at 0 starts a round.
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

/// Sessions to be summarised, in no order.
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

    /// Moves the last session into this place. It may miss its turn in this round and has one in the next.
    pub(super) fn remove(&mut self, place: usize) {
        self.0.swap_remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares within this number of half-millisecond steps, with their steps.
    fn shares(
        sweep: &mut Sweep,
        places: usize,
        start: Instant,
        steps: u32,
    ) -> Vec<(u32, Range<usize>)> {
        let at = |step| start + Duration::from_micros(500) * step;
        (1..=steps).filter_map(|step| Some((step, sweep.take(places, at(step))?))).collect()
    }

    #[test]
    fn few_sessions_are_summarised_every_100_ms() {
        let start = Instant::now();
        for places in [0, 1, SHARE] {
            let taken = shares(&mut Sweep::new(start), places, start, 600);
            assert_eq!(taken, [200, 400, 600].map(|step| (step, 0..places)));
        }
    }

    #[test]
    fn many_sessions_are_summarised_in_shares() {
        let start = Instant::now();
        let (places, mut sweep) = (30_000, Sweep::new(start));
        let round = every(places);
        assert_eq!(round, Duration::from_millis(1_500), "20,000 a second");
        for number in 0..3 {
            let taken = shares(&mut sweep, places, start + round * number, 3_000);
            assert!(taken.iter().all(|(_, share)| share.len() <= SHARE));
            let covered: Vec<_> = taken.into_iter().flat_map(|(_, share)| share).collect();
            assert_eq!(covered, (0..places).collect::<Vec<_>>());
        }
        assert_eq!(every(2_000), EVERY);
    }

    #[test]
    fn late_sweep_skips_missed_rounds() {
        let start = Instant::now();
        let mut sweep = Sweep::new(start);
        let late = start + EVERY * 50;
        assert_eq!(sweep.take(10, late), Some(0..10));
        assert_eq!(sweep.take(10, late), None);
        assert_eq!(sweep.due(10), late + EVERY);
    }

    #[test]
    fn session_count_may_change_within_a_round() {
        let start = Instant::now();
        let mut sweep = Sweep::new(start);
        assert_eq!(sweep.take(1_000, start + EVERY / 4), Some(0..SHARE));
        assert_eq!(sweep.take(2_000, start + EVERY), Some(SHARE..2 * SHARE));
        assert!(sweep.due(2_000) < start + EVERY);
    }

    #[test]
    fn removal_keeps_every_other_session() {
        let home = |slot| Home { worker: 0, slot, generation: 1 };
        let mut active = ActiveSessions::default();
        (0..10).for_each(|slot| active.add(home(slot)));
        for place in (2..6).rev() {
            assert_eq!(active.at(place), home(place as u32), "each has its turn");
            if place % 2 == 0 {
                active.remove(place);
            }
        }
        let mut left: Vec<u32> = active.0.iter().map(|home| home.slot).collect();
        left.sort_unstable();
        assert_eq!((active.len(), left), (8, vec![0, 1, 3, 5, 6, 7, 8, 9]));
    }
}
