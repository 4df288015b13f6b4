//! Lateness of packets that came: usual lateness of the way is no sign of death.

use std::time::{Duration, Instant};

/// Each turn the latest is kept, of so many turns.
const TURN: Duration = Duration::from_secs(1);
const TURNS: usize = 10;

/// The latest of each of the last ten seconds.
#[derive(Default, Debug)]
pub(super) struct Lateness {
    began: Option<Instant>,
    /// The turn that the last note was of, counted from there.
    turn: u64,
    latest: [Duration; TURNS],
}

impl Lateness {
    /// Something came so late.
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

    /// The lateness that was exceeded in one second at most: one bad moment is not usual.
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
