//! Packets that a stream missed when another hop continued it.

use std::time::{Duration, Instant};

use super::FILLED_WITHIN;
use super::stream::Stream;
use crate::rtp;

/// A source is silent after this many usual packet intervals.
const FEW: u32 = 4;

/// Evidence of a node's death may be this much later than the death.
const EVIDENCE_WITHIN: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Missing {
    /// Counted for switches before the last one.
    settled: u32,
    last: Option<Gap>,
}

/// Numbers skipped at a switch.
#[derive(Clone, Copy, Debug)]
struct Gap {
    since: Instant,
    first: u32,
    length: u16,
    /// The packets that did not arrive.
    missing: u16,
}

impl Missing {
    fn open(&mut self, first: u32, length: u16, now: Instant) {
        self.settled = self.all(None);
        self.last = (length > 0).then_some(Gap { since: now, first, length, missing: length });
    }

    /// Marks a number as arrived.
    pub(super) fn fill(&mut self, number: u32, now: Instant) {
        if let Some(gap) = &mut self.last
            && number.wrapping_sub(gap.first) < gap.length.into()
            && now.saturating_duration_since(gap.since) < FILLED_WITHIN
        {
            gap.missing = gap.missing.saturating_sub(1);
        }
    }

    /// The missing numbers; with `by`, only if none can arrive any more.
    fn all(&self, by: Option<Instant>) -> u32 {
        let is_over = |gap: &&Gap| {
            by.is_none_or(|now| now.saturating_duration_since(gap.since) >= FILLED_WITHIN)
        };
        let last = self.last.as_ref().filter(is_over);
        self.settled.saturating_add(last.map_or(0, |gap| gap.missing.into()))
    }
}

impl Stream {
    /// Packets missed at switches, as known at `now`.
    pub(super) fn missed(&self, now: Instant) -> u32 {
        self.missing.all(Some(now))
    }

    /// The numbers above this one, up to the present one, were skipped.
    pub(super) fn note_skipped(&mut self, above: u32, now: Instant) {
        let skipped = self.highest.wrapping_sub(above).saturating_sub(1);
        self.missing.open(above.wrapping_add(1), skipped.try_into().unwrap_or(u16::MAX), now);
    }

    /// Another hop continues the stream by its own numbers, from this packet.
    pub(super) fn note_missing_before(&mut self, header: &rtp::Header, now: Instant) {
        self.on_copies = false;
        let missing = self.missing_before(header);
        let missing = missing.try_into().unwrap_or(u16::MAX);
        self.missing.open(self.highest.wrapping_add(1), missing, now);
    }

    /// True if the source was active when an end at `since` came.
    pub(super) fn spoke_until(&self, since: Instant) -> bool {
        self.heard + self.usually_within() + EVIDENCE_WITHIN >= since
    }

    /// True if the source paused before the hop was gone, or while a hop left as planned still
    /// delivered; then nothing is missing.
    pub(super) fn paused(&self, since: Instant, planned: bool, now: Instant) -> bool {
        let late = since + FILLED_WITHIN + self.usually_within();
        !self.spoke_until(since) || planned && now > late
    }

    /// [`FEW`] usual packet intervals.
    fn usually_within(&self) -> Duration {
        let ticks = self.pace.interval().unwrap_or_default();
        match self.clock_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) * ticks.min(rate) / rate * FEW,
        }
    }
}
