//! Windows of service level objectives for a follower: of one scenario at a time, so that no batch is large.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Gateway, SloRecord};

/// Interval of copies of one scenario each: up to 5 KiB.
const COPIED_EVERY: Duration = Duration::from_secs(1);

/// The scenario that was copied last.
pub(crate) struct SloCopies {
    scenario: Option<Arc<str>>,
    last: Instant,
}

impl SloCopies {
    pub(crate) fn new(now: Instant) -> SloCopies {
        SloCopies { scenario: None, last: now }
    }

    /// The windows of the next scenario once they are due, or those of all.
    pub(crate) fn next(
        &mut self,
        gateway: &mut Gateway,
        all: bool,
        now: Instant,
    ) -> Option<SloRecord> {
        let records = gateway.records();
        if all {
            return records.slo_record();
        }
        if now.saturating_duration_since(self.last) < COPIED_EVERY {
            return None;
        }
        self.last = now;
        records.next_slo_record(&mut self.scenario)
    }
}
