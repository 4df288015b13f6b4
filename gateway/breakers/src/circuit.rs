//! The state machine of a circuit breaker. It opens if media is bad or openings fail, becomes half-open for a share of
//! newcomers, and then closes, or opens again for longer.

use std::time::{Duration, Instant};

use evenkeel_model::{BreakerMode, BreakerState, CircuitSettings};
use serde::{Deserialize, Serialize};

/// Interval at which breakers weigh their evidence.
pub const WINDOW: Duration = Duration::from_secs(1);

/// Consecutive bad windows that open the breaker.
const OPENS_AFTER: u32 = 2;

/// Consecutive windows without a bad one that close a half-open breaker.
const CLOSES_AFTER: u32 = 5;

/// A breaker that stayed closed this long starts again with the shortest open time.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Relapses that still double the open time; beyond them the maximum applies anyway.
const RELAPSES_MAX: u32 = 16;

/// Evidence about a region, a zone or a group of clients in one window.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BreakerEvidence {
    /// Sessions with measured media.
    pub sessions: u32,
    /// Sessions with bad media.
    pub bad: u32,
    /// Sessions that were opened.
    pub opened: u32,
    /// Sessions that could not be opened.
    pub failed: u32,
}

/// The last window in which a session was counted, as `window:31 | bad:1`: windows of 68 years. Each session has two.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct JudgedWindow(u32);

impl JudgedWindow {
    /// Counts a session once per window. It counts as bad if any of its reports in the window was bad. Returns what the
    /// report adds.
    pub fn count(&mut self, window: u32, bad: bool) -> BreakerEvidence {
        let is_new = self.0 >> 1 != window;
        let was_bad = !is_new && self.0 & 1 == 1;
        let turned_bad = bad && !was_bad;
        *self = JudgedWindow(window << 1 | u32::from(bad || was_bad));
        BreakerEvidence {
            sessions: u32::from(is_new),
            bad: u32::from(turned_bad),
            ..BreakerEvidence::default()
        }
    }
}

/// The judgement of a window's evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerVerdict {
    /// Too few sessions to judge.
    Unknown,
    /// The shares are below the limit.
    Sound,
    /// The share of bad sessions or failed openings exceeds the limit.
    Bad,
}

/// A circuit breaker.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Breaker {
    state: CircuitState,
    /// Consecutive bad windows; if half-open, consecutive windows that were not bad.
    row: u32,
    /// Recent openings of the breaker, which lengthen the next one.
    relapses: u32,
    #[serde(default)]
    mode: BreakerMode,
}

/// A change of a breaker's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerChange {
    /// The state before.
    pub from: BreakerState,
    /// The state after.
    pub to: BreakerState,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
enum CircuitState {
    Closed {
        #[serde(with = "evenkeel_instant")]
        since: Instant,
    },
    Open {
        #[serde(with = "evenkeel_instant")]
        until: Instant,
    },
    HalfOpen,
}

impl BreakerEvidence {
    /// Adds sessions.
    pub fn add(&mut self, other: BreakerEvidence) {
        self.sessions += other.sessions;
        self.bad += other.bad;
        self.opened += other.opened;
        self.failed += other.failed;
    }

    /// The evidence of openings alone, without media.
    #[must_use]
    pub fn of_openings(&self) -> BreakerEvidence {
        BreakerEvidence { sessions: 0, bad: 0, ..*self }
    }

    /// Judges the evidence. Few sessions prove nothing: their own access networks may be bad.
    pub fn verdict(&self, settings: &CircuitSettings) -> BreakerVerdict {
        let most = |bad: u32, all: u32| bad * 100 >= all * settings.share_percent;
        let tried = self.opened + self.failed;
        let (heard, tried_enough) =
            (self.sessions >= settings.sessions_min, tried >= settings.sessions_min);
        match (heard, tried_enough) {
            (true, _) if most(self.bad, self.sessions) => BreakerVerdict::Bad,
            (_, true) if most(self.failed, tried) => BreakerVerdict::Bad,
            (false, false) => BreakerVerdict::Unknown,
            _ => BreakerVerdict::Sound,
        }
    }
}

impl Breaker {
    /// A closed breaker.
    pub fn new(now: Instant) -> Breaker {
        let (state, mode) = (CircuitState::Closed { since: now }, BreakerMode::Auto);
        Breaker { state, row: 0, relapses: 0, mode }
    }

    /// Returns how the state is decided.
    pub fn mode(&self) -> BreakerMode {
        self.mode
    }

    /// Returns the state.
    pub fn state(&self) -> BreakerState {
        match self.state {
            CircuitState::Closed { .. } => BreakerState::Closed,
            CircuitState::Open { .. } => BreakerState::Open,
            CircuitState::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// True if a newcomer is admitted. A half-open breaker admits its share at random, decided once per number of a
    /// newcomer.
    pub fn admits(&self, newcomer: u64, settings: &CircuitSettings) -> bool {
        match self.state {
            CircuitState::Closed { .. } => true,
            CircuitState::Open { .. } => false,
            CircuitState::HalfOpen => {
                let lot = fastrand::Rng::with_seed(newcomer).u32(0..100);
                lot < settings.half_open_percent
            }
        }
    }

    /// It is closed and not held, and would open for the shortest time: as a new one.
    pub fn is_at_rest(&self) -> bool {
        self.state() == BreakerState::Closed && self.relapses == 0 && self.mode == BreakerMode::Auto
    }

    /// The time until an open breaker is half-open; `None` if an operator holds it open.
    pub fn half_open_in(&self, now: Instant) -> Option<Duration> {
        match self.state {
            CircuitState::Open { until } if self.mode == BreakerMode::Auto => {
                Some(until.saturating_duration_since(now))
            }
            _ => None,
        }
    }

    /// The time until a newcomer may be admitted.
    pub fn admits_in(&self, now: Instant) -> Duration {
        match self.state() {
            BreakerState::Open => self.half_open_in(now).unwrap_or(Duration::MAX),
            BreakerState::Closed | BreakerState::HalfOpen => Duration::ZERO,
        }
    }

    /// Holds the breaker for an operator, or lets it judge again: one that was held open is half-open first. Returns the
    /// change of state.
    pub fn hold(&mut self, mode: BreakerMode, now: Instant) -> Option<BreakerChange> {
        let from = self.state();
        self.mode = mode;
        match mode {
            BreakerMode::Auto => {}
            BreakerMode::Open => (self.state, self.row) = (CircuitState::Open { until: now }, 0),
            BreakerMode::Closed => {
                (self.state, self.row) = (CircuitState::Closed { since: now }, 0);
            }
        }
        self.change_since(from)
    }

    /// Admits all newcomers again, unless an operator holds the breaker. Returns the change of state.
    pub(crate) fn close(&mut self, now: Instant) -> Option<BreakerChange> {
        let from = self.state();
        if self.mode == BreakerMode::Auto && from != BreakerState::Closed {
            (self.state, self.row) = (CircuitState::Closed { since: now }, 0);
        }
        self.change_since(from)
    }

    /// Continues the breaker of another process. Returns the change of state.
    pub fn restore(&mut self, other: &Breaker) -> Option<BreakerChange> {
        let from = self.state();
        *self = Breaker { relapses: other.relapses.min(RELAPSES_MAX), ..other.clone() };
        self.change_since(from)
    }

    fn change_since(&self, from: BreakerState) -> Option<BreakerChange> {
        let to = self.state();
        (from != to).then_some(BreakerChange { from, to })
    }

    /// Ends a window with the verdict on its evidence. Returns the change of state.
    pub fn weigh(
        &mut self,
        verdict: BreakerVerdict,
        settings: &CircuitSettings,
        now: Instant,
    ) -> Option<BreakerChange> {
        if self.mode != BreakerMode::Auto {
            return None;
        }
        let from = self.state();
        match (self.state, verdict) {
            (CircuitState::Closed { .. }, BreakerVerdict::Bad) => {
                self.row += 1;
                if self.row >= OPENS_AFTER {
                    self.open(settings, now);
                }
            }
            (CircuitState::Closed { since }, _) => {
                self.row = 0;
                if now.saturating_duration_since(since) >= FORGIVEN_AFTER {
                    self.relapses = 0;
                }
            }
            (CircuitState::Open { until }, _) if until <= now => {
                (self.state, self.row) = (CircuitState::HalfOpen, 0);
            }
            (CircuitState::Open { .. }, _) => {}
            (CircuitState::HalfOpen, BreakerVerdict::Bad) => self.open(settings, now),
            (CircuitState::HalfOpen, _) => {
                self.row += 1;
                if self.row >= CLOSES_AFTER {
                    (self.state, self.row) = (CircuitState::Closed { since: now }, 0);
                }
            }
        }
        self.change_since(from)
    }

    /// Opens for twice as long as the last time if that was recent.
    fn open(&mut self, settings: &CircuitSettings, now: Instant) {
        let longer = settings.open_for.saturating_mul(1 << self.relapses);
        self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        self.state = CircuitState::Open { until: now + longer.min(settings.open_for_max) };
        self.row = 0;
    }
}

#[cfg(test)]
mod tests;
