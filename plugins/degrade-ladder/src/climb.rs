//! Upgrades that may fail, and the wait before the next one.

use evenkeel_plugin_sdk::prelude::*;

use crate::Memory;
use crate::ladder::Rung;

/// Consecutive failures that still double the wait: 64 times is longer than any setting allows.
const RELAPSES_MAX: u8 = 6;

/// A failed upgrade shows within this time: receivers report every 5 s (RFC 3550, 6.2), and reports
/// are smoothed.
const TOLD_WITHIN: Duration = Duration::from_secs(8);

/// An upgrade that has not held yet.
#[derive(Pack, Clone, Copy, PartialEq, Debug)]
pub(crate) struct Climb {
    at: Duration,
    /// The cap before it, if a cap was raised or lifted, kbit/s; 0 if video was restored.
    pub(crate) from: u32,
}

impl Memory {
    /// Takes this upgrade.
    pub(crate) fn climbs(&mut self, rung: Rung, now: Duration) {
        let from = if rung == Rung::RestoreVideo { 0 } else { self.cap };
        self.climb = Some(Climb { at: now, from });
    }

    /// The network is good: the last upgrade has held after long enough. If it reaches the level
    /// that failed before, the failures are forgiven.
    pub(crate) fn settle(&mut self, up_after: Duration, now: Duration) {
        if let Some(climb) = self.climb.filter(|climb| !climb.is_fresh(up_after, now)) {
            self.climb = None;
            if climb.from >= self.failed_from {
                self.relapses = 0;
            }
        }
    }

    /// The network is bad, and a downgrade is due. Returns the last upgrade, if that caused it.
    pub(crate) fn relapse(&mut self, up_after: Duration, now: Duration) -> Option<Climb> {
        let climb = self.climb.take().filter(|climb| climb.is_fresh(up_after, now))?;
        self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        self.failed_from = climb.from;
        Some(climb)
    }

    /// Time in a good network before the next upgrade.
    pub(crate) fn wait(&self, up_after: Duration, most: Duration) -> Duration {
        if self.relapses == 0 {
            return up_after;
        }
        (up_after * (1 << self.relapses.min(RELAPSES_MAX))).min(most.max(up_after))
    }
}

impl Climb {
    fn is_fresh(&self, up_after: Duration, now: Duration) -> bool {
        // A time in the future comes from another gateway, which ran longer.
        self.at <= now && now - self.at < up_after.max(TOLD_WITHIN)
    }
}
