//! A region's breaker: closed, open on media that is worse than elsewhere or on openings that fail, half-open for a
//! share of newcomers, and closed again, or open for longer.

use std::time::{Duration, Instant};

use crate::{BreakerState, Breakers, Measures, Metric, RoomId};

/// Bad windows in a row that open it.
const OPENS_AFTER: u32 = 2;

/// Windows in a row without a bad one that close it again.
const CLOSES_AFTER: u32 = 5;

/// A breaker that was closed so long is forgiven what it did before.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Openings that still lengthen the time; past it the longest applies anyway.
const RELAPSES_MAX: u32 = 16;

/// Evidence about one region in a window of a second.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Evidence {
    /// Sessions that were measured.
    pub(crate) sessions: u32,
    /// Sessions with bad media.
    pub(crate) bad: u32,
    /// Sessions that were opened there.
    pub(crate) opened: u32,
    /// Sessions that were not, though they should have been.
    pub(crate) failed: u32,
}

/// The last window in which a session was counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Judged {
    window: u32,
    bad: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Too few to say anything.
    Unknown,
    /// Nothing out of the ordinary.
    Sound,
    /// Too much of it is bad.
    Bad,
}

/// One region's.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    /// Bad windows in a row; half-open: windows in a row that were not.
    row: u32,
    /// Openings lately, which lengthen the next one.
    relapses: u32,
    pub(crate) evidence: Evidence,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed { since: Instant },
    Open { until: Instant },
    HalfOpen,
}

/// Media is so bad that a user would notice.
pub(crate) fn is_bad(measures: &Measures, settings: &Breakers) -> bool {
    let lossy = |metric| measures.measured(metric).is_some_and(|loss| loss >= settings.loss_ppm);
    let poor = measures.measured(Metric::RFactor).is_some_and(|r| r < settings.r_factor_centi);
    lossy(Metric::LossDown) || poor
}

impl Evidence {
    /// Counts a session once in each window: as bad if ever it was.
    pub(crate) fn hear(&mut self, judged: &mut Judged, window: u32, bad: bool) {
        if judged.window != window {
            *judged = Judged { window, bad };
            self.sessions += 1;
            self.bad += u32::from(bad);
        } else if bad && !judged.bad {
            judged.bad = true;
            self.bad += 1;
        }
    }

    /// Without what was measured.
    pub(crate) fn of_openings(&self) -> Evidence {
        Evidence { sessions: 0, bad: 0, ..*self }
    }

    /// A few say nothing: their own ways may be bad.
    pub(crate) fn verdict(&self, settings: &Breakers) -> Verdict {
        let most = |bad: u32, all: u32| bad * 100 >= all * settings.share_percent;
        let tried = self.opened + self.failed;
        let (heard, tried_enough) =
            (self.sessions >= settings.sessions_min, tried >= settings.sessions_min);
        match (heard, tried_enough) {
            (true, _) if most(self.bad, self.sessions) => Verdict::Bad,
            (_, true) if most(self.failed, tried) => Verdict::Bad,
            (false, false) => Verdict::Unknown,
            _ => Verdict::Sound,
        }
    }
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Breaker {
        let state = State::Closed { since: now };
        Breaker { state, row: 0, relapses: 0, evidence: Evidence::default() }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// A room that stands nowhere may go there. The share of a half-open breaker is drawn by lot, once for each room.
    pub(crate) fn admits(&self, room: RoomId, settings: &Breakers) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { .. } => false,
            State::HalfOpen => {
                let lot = fastrand::Rng::with_seed(room.0).u32(0..100);
                lot < settings.half_open_percent
            }
        }
    }

    pub(crate) fn opens_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed { .. } | State::HalfOpen => None,
        }
    }

    /// A window ended, with this verdict on the region as compared with others. Returns the change.
    pub(crate) fn weigh(
        &mut self,
        verdict: Verdict,
        settings: &Breakers,
        now: Instant,
    ) -> Option<(BreakerState, BreakerState)> {
        let from = self.state();
        match (self.state, verdict) {
            (State::Closed { .. }, Verdict::Bad) => {
                self.row += 1;
                if self.row >= OPENS_AFTER {
                    self.open(settings, now);
                }
            }
            (State::Closed { since }, _) => {
                self.row = 0;
                if now.saturating_duration_since(since) >= FORGIVEN_AFTER {
                    self.relapses = 0;
                }
            }
            (State::Open { until }, _) if until <= now => {
                (self.state, self.row) = (State::HalfOpen, 0);
            }
            (State::Open { .. }, _) => {}
            (State::HalfOpen, Verdict::Bad) => self.open(settings, now),
            (State::HalfOpen, _) => {
                self.row += 1;
                if self.row >= CLOSES_AFTER {
                    (self.state, self.row) = (State::Closed { since: now }, 0);
                }
            }
        }
        let to = self.state();
        (from != to).then_some((from, to))
    }

    /// For twice as long as the last time, where that is not long ago.
    fn open(&mut self, settings: &Breakers, now: Instant) {
        let longer = settings.open_for.saturating_mul(1 << self.relapses);
        self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        self.state = State::Open { until: now + longer.min(settings.open_for_max) };
        self.row = 0;
    }
}

#[cfg(test)]
mod tests;
