//! A hold-down after takeovers by silence that follow each other, as on a host that is starved of processor time.
//!
//! An owner leaves its standby disarmed meanwhile, so that it needs no lease and its own pauses change nothing. The end of its
//! process is followed by a takeover all the same. Owners tell their standby the number of such takeovers, so that it
//! outlives processes.

use std::time::{Duration, Instant};

/// How long a standby takes nothing over by silence after the second of such takeovers, twice as long after each further
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldDown {
    /// After the second takeover.
    pub first: Duration,
    /// At most. An ownership that lasted as long ends the count.
    pub longest: Duration,
}

impl Default for HoldDown {
    fn default() -> HoldDown {
        HoldDown { first: Duration::from_secs(5), longest: Duration::from_secs(300) }
    }
}

#[derive(Debug)]
pub(crate) struct Damping {
    settings: HoldDown,
    /// Takeovers by silence that followed each other, the ownership of this member included.
    takeovers: u8,
    /// Since when this member owns.
    since: Instant,
}

impl Damping {
    pub(crate) fn new(settings: HoldDown, now: Instant) -> Damping {
        Damping { settings, takeovers: 0, since: now }
    }

    /// This member owns from now on. `before`: the number that the former owner told.
    pub(crate) fn handle_takeover(&mut self, before: u8, by_silence: bool, now: Instant) {
        (self.takeovers, self.since) = (before.saturating_add(u8::from(by_silence)), now);
    }

    /// Returns the number to tell the standby.
    pub(crate) fn takeovers(&self, now: Instant) -> u8 {
        let has_lasted = now.saturating_duration_since(self.since) >= self.settings.longest;
        if has_lasted { 0 } else { self.takeovers }
    }

    /// Returns the time for which the standby must not take over by silence yet.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        let HoldDown { first, longest } = self.settings;
        let held = match self.takeovers {
            0 | 1 => Duration::ZERO,
            more => first.saturating_mul(1 << u32::from(more - 2).min(16)).min(longest),
        };
        held.saturating_sub(now.saturating_duration_since(self.since))
    }
}
