//! When sessions that something happens to are summed up: each once in 100 ms, or where there are many as often as they
//! can be for a small part of a core; a share of them at a time, so that packets never wait for them all.

use std::ops::Range;
use std::time::{Duration, Instant};

/// Between two summaries of a session, at least.
const EVERY: Duration = Duration::from_millis(100);

/// What a summary may cost: so long until the next one, or it takes more of a core than packets can spare.
const APART: Duration = Duration::from_micros(50);

/// Places summed up at a time: about half a millisecond.
const SHARE: usize = 256;

/// Where it has come to.
#[derive(Debug)]
pub(super) struct Sweep {
    began: Instant,
    next: usize,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Sweep {
        Sweep { began: now, next: 0 }
    }

    /// When the next share of so many places has its turn.
    pub(super) fn due(&self, places: usize) -> Instant {
        let shares = places.div_ceil(SHARE).max(1);
        let share = (self.next / SHARE + 1).min(shares);
        self.began + every(places) * share as u32 / shares as u32
    }

    /// The share that has its turn, if one has; the one that begins at 0 begins a round.
    pub(super) fn take(&mut self, places: usize, now: Instant) -> Option<Range<usize>> {
        if now < self.due(places) {
            return None;
        }
        let share = self.next.min(places)..places.min(self.next + SHARE);
        self.next = share.end;
        if share.end == places {
            self.next = 0;
            // What was missed is not made up for.
            let every = every(places);
            let next = self.began + every;
            self.began = if now < next + every { next } else { now };
        }
        Some(share)
    }
}

/// Between two summaries of a session where there are so many.
pub(super) fn every(places: usize) -> Duration {
    EVERY.max(APART * places as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares in so many steps of half a millisecond, each with when it was taken.
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
    fn few_sessions_are_summed_up_together_every_100_ms() {
        let start = Instant::now();
        for places in [0, 1, SHARE] {
            let taken = shares(&mut Sweep::new(start), places, start, 600);
            assert_eq!(taken, [200, 400, 600].map(|step| (step, 0..places)));
        }
    }

    #[test]
    fn many_sessions_have_their_turn_once_in_a_round_and_never_all_at_once() {
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
    fn who_slept_does_not_make_up_for_it() {
        let start = Instant::now();
        let mut sweep = Sweep::new(start);
        let late = start + EVERY * 50;
        assert_eq!(sweep.take(10, late), Some(0..10));
        assert_eq!(sweep.take(10, late), None);
        assert_eq!(sweep.due(10), late + EVERY);
    }

    #[test]
    fn sessions_that_come_and_go_in_the_middle_of_a_round_do_no_harm() {
        let start = Instant::now();
        let mut sweep = Sweep::new(start);
        assert_eq!(sweep.take(1_000, start + EVERY / 4), Some(0..SHARE));
        assert_eq!(sweep.take(2_000, start + EVERY), Some(SHARE..2 * SHARE));
        assert!(sweep.due(2_000) < start + EVERY);
    }
}
