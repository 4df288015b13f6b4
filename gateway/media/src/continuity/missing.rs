//! Numbers of packets that a stream missed when another hop took over.

use super::FILLED_WITHIN;
use crate::instant;
use serde::{Deserialize, Serialize};
use std::time::Instant;

#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub(super) struct MissingNumbers {
    /// Missing packets at switches before the last one.
    settled: u32,
    last: Option<SwitchGap>,
}

/// Numbers skipped at a switch.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct SwitchGap {
    #[serde(with = "instant")]
    since: Instant,
    first: u32,
    length: u16,
    /// Number of packets that have not arrived.
    missing: u16,
}

impl MissingNumbers {
    pub(super) fn open(&mut self, first: u32, length: u16, now: Instant) {
        self.settled = self.all(None);
        self.last =
            (length > 0).then_some(SwitchGap { since: now, first, length, missing: length });
    }

    pub(super) fn fill(&mut self, number: u32, now: Instant) {
        if let Some(gap) = &mut self.last
            && number.wrapping_sub(gap.first) < gap.length.into()
            && now.saturating_duration_since(gap.since) < FILLED_WITHIN
        {
            gap.missing = gap.missing.saturating_sub(1);
        }
    }

    /// Number of missing packets; with `by`, only if no more can arrive.
    pub(super) fn all(&self, by: Option<Instant>) -> u32 {
        let is_over = |gap: &&SwitchGap| {
            by.is_none_or(|now| now.saturating_duration_since(gap.since) >= FILLED_WITHIN)
        };
        let last = self.last.as_ref().filter(is_over);
        self.settled.saturating_add(last.map_or(0, |gap| gap.missing.into()))
    }
}
