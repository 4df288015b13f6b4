use std::time::{Duration, Instant};

/// The start of a time span, with the gateway's own lateness during it.
///
/// Of several stalls only the longest counts, because between two stalls the gateway read all that had arrived.
/// Constant lateness therefore delays a judgement by one stall only.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// The start of the span.
    pub at: Instant,
    late: Duration,
}

impl Since {
    /// Starts a span without lateness.
    pub fn new(at: Instant) -> Since {
        Since { at, late: Duration::ZERO }
    }

    /// Notes that the gateway itself was late by this time during the span.
    pub fn excuse(&mut self, late: Duration) {
        self.late = self.late.max(late);
    }

    /// The time elapsed until `now`, less the gateway's own lateness.
    pub fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at).saturating_sub(self.late)
    }
}
