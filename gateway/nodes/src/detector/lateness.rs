//! Lateness of arrived packets. The path's usual lateness is no sign of death.

use std::time::{Duration, Instant};

/// Length of a turn. Each turn keeps its greatest lateness.
const TURN: Duration = Duration::from_secs(1);
const TURNS: usize = 10;

/// The greatest lateness in each of the last ten seconds.
#[derive(Default, Debug)]
pub(super) struct Lateness {
    began: Option<Instant>,
    /// The turn of the last note, from which turns are counted.
    turn: u64,
    latest: [Duration; TURNS],
}

impl Lateness {
    /// Notes an arrival that was this late.
    pub(super) fn note(&mut self, late: Duration, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let turn = now.saturating_duration_since(began).as_secs() / TURN.as_secs();
        for passed in (self.turn + 1..=turn).take(TURNS) {
            self.latest[passed as usize % TURNS] = Duration::ZERO;
        }
        self.turn = self.turn.max(turn);
        let latest = &mut self.latest[turn as usize % TURNS];
        *latest = late.max(*latest);
    }

    /// The lateness exceeded in at most one of these seconds: a single bad moment is not usual.
    pub(super) fn usual(&self) -> Duration {
        let mut latest = self.latest;
        latest.sort_unstable();
        latest[TURNS - 2]
    }

    pub(super) fn forget(&mut self) {
        *self = Lateness::default();
    }
}

#[cfg(test)]
mod tests;
