//! Rungs up that may turn out to be one too many, and how long to wait with the next.

use evenkeel_plugin_sdk::prelude::*;

use crate::Memory;
use crate::ladder::Rung;

/// Failures in a row that still double the wait: 64 times as long is longer than any setting bears.
const RELAPSES_MAX: u8 = 6;

/// What was wrong with a rung up is known after so long: receivers report every 5 s (RFC 3550, 6.2), and what they say is
/// smoothed.
const TOLD_WITHIN: Duration = Duration::from_secs(8);

/// A rung up that has not held yet.
#[derive(Pack, Clone, Copy, PartialEq, Debug)]
pub(crate) struct Climb {
    /// When it was taken.
    at: Duration,
    /// The cap before it, which held, where a cap was raised or lifted, kbit/s; 0 where video was given back.
    pub(crate) from: u32,
}

impl Memory {
    /// This rung up is taken.
    pub(crate) fn climbs(&mut self, rung: Rung, now: Duration) {
        let from = if rung == Rung::RestoreVideo { 0 } else { self.cap };
        self.climb = Some(Climb { at: now, from });
    }

    /// It is well: the last rung up has held once that is so for long enough. If it is at least what failed before, that is
    /// forgiven.
    pub(crate) fn settle(&mut self, up_after: Duration, now: Duration) {
        if let Some(climb) = self.climb.filter(|climb| !climb.is_fresh(up_after, now)) {
            self.climb = None;
            if climb.from >= self.failed_from {
                self.relapses = 0;
            }
        }
    }

    /// It is bad, and a rung down is due. The last rung up, if that is what did it.
    pub(crate) fn relapse(&mut self, up_after: Duration, now: Duration) -> Option<Climb> {
        let climb = self.climb.take().filter(|climb| climb.is_fresh(up_after, now))?;
        self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        self.failed_from = climb.from;
        Some(climb)
    }

    /// How long it must have been well before the next rung up.
    pub(crate) fn wait(&self, up_after: Duration, most: Duration) -> Duration {
        if self.relapses == 0 {
            return up_after;
        }
        (up_after * (1 << self.relapses.min(RELAPSES_MAX))).min(most.max(up_after))
    }
}

impl Climb {
    fn is_fresh(&self, up_after: Duration, now: Duration) -> bool {
        // A time that this gateway has not seen yet is that of another one, which ran longer.
        self.at <= now && now - self.at < up_after.max(TOLD_WITHIN)
    }
}
