//! A hold-down after takeovers by silence that follow each other, as on a host that is starved of processor time.
//!
//! An owner leaves its standby disarmed meanwhile, so that it needs no lease and its own pauses change nothing. The end of its
//! process is followed by a takeover all the same. Owners tell their standby the number of such takeovers, so that it
//! outlives processes.

use std::time::{Duration, Instant};

/// Time without a takeover by silence after the second one in a row; doubled after each further one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldDown {
    /// After the second takeover.
    pub first: Duration,
    /// At most. An ownership that lasted as long ends the count.
    pub longest: Duration,
}

#[derive(Debug)]
pub(crate) struct Damping {
    settings: HoldDown,
    /// Takeovers by silence that followed each other, up to the ownership of this member or of the peer that it follows.
    takeovers: u8,
    /// The start of this member's ownership or process.
    since: Instant,
}

impl Damping {
    /// `takeovers`: those of the process that this one replaces.
    pub(crate) fn new(settings: HoldDown, takeovers: u8, now: Instant) -> Damping {
        Damping { settings, takeovers, since: now }
    }

    /// The owner that this member follows told its number.
    pub(crate) fn handle_told(&mut self, takeovers: u8) {
        self.takeovers = takeovers;
    }

    /// This member owns from now on.
    pub(crate) fn handle_takeover(&mut self, by_silence: bool, now: Instant) {
        self.takeovers = self.takeovers.saturating_add(u8::from(by_silence));
        self.since = now;
    }

    /// Returns the time since this member owns, or since its process started.
    pub(crate) fn owned_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
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
