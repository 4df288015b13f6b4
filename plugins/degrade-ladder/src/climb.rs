//! Upgrades that may fail, and the wait before the next one.

use evenkeel_plugin_sdk::prelude::*;

use crate::LadderStep;
use crate::memory::PathMemory;

/// Limit of consecutive failures that double the wait: 64 times is longer than any setting allows.
const RELAPSES_MAX: u8 = 6;

/// Time within which a failed upgrade becomes visible: receivers report every 5 s (RFC 3550, 6.2), and reports are
/// smoothed.
const TOLD_WITHIN: Duration = Duration::from_secs(8);

/// An upgrade whose success is not certain yet.
#[derive(Pack, Clone, Copy, PartialEq, Debug)]
pub(crate) struct UpgradeAttempt {
    pub(crate) at: Duration,
    /// The step that it undid, or a part of it.
    pub(crate) step: LadderStep,
    /// The argument of the step's action before: the cap in kbit/s, the level of `thin`.
    pub(crate) from: u32,
    /// The place of the upgrade on the way up, to compare it with others.
    pub(crate) height: u32,
}

impl PathMemory {
    /// Handles a good network: an upgrade that has lasted long enough was successful. If it reaches the level that
    /// failed before, earlier failures are forgotten.
    pub(crate) fn settle(&mut self, up_after: Duration, now: Duration) {
        if let Some(climb) = self.climb.filter(|climb| !climb.is_fresh(up_after, now)) {
            self.climb = None;
            if climb.height >= self.failed_height {
                self.relapses = 0;
            }
        }
    }

    /// Handles a bad network when a downgrade is due. Returns the last upgrade, if that caused it.
    pub(crate) fn relapse(&mut self, up_after: Duration, now: Duration) -> Option<UpgradeAttempt> {
        let climb = self.climb.take().filter(|climb| climb.is_fresh(up_after, now))?;
        self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        self.failed_height = climb.height;
        Some(climb)
    }

    /// Returns the time in a good network before the next upgrade.
    pub(crate) fn wait(&self, up_after: Duration, most: Duration) -> Duration {
        if self.relapses == 0 {
            return up_after;
        }
        (up_after * (1 << self.relapses.min(RELAPSES_MAX))).min(most.max(up_after))
    }
}

impl UpgradeAttempt {
    fn is_fresh(&self, up_after: Duration, now: Duration) -> bool {
        // A time in the future comes from another gateway that ran longer.
        self.at <= now && now - self.at < up_after.max(TOLD_WITHIN)
    }
}
