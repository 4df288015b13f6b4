//! The times of a takeover, as a metric.

use std::time::{Duration, Instant};

use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Histogram};

/// A takeover from another owner.
pub(super) struct TakeoverTimes {
    /// The last beat of that owner.
    pub(super) owner_heard: Option<Instant>,
    /// This gateway owns from then on.
    pub(super) owned: Instant,
}

impl TakeoverTimes {
    /// `now`: the sessions continue.
    pub(super) fn record(&self, instruments: &Instruments, now: Instant) {
        let add = |phase: &str, took: Duration| {
            instruments.time(Histogram::Takeover, took, &[(Attribute::Phase, phase)]);
        };
        if let Some(heard) = self.owner_heard {
            add("decision", self.owned.saturating_duration_since(heard));
        }
        add("continuation", now.saturating_duration_since(self.owned));
    }
}

#[cfg(test)]
mod tests;
