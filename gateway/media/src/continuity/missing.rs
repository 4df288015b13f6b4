//! Packets that a stream missed when another hop took over.

use super::FILLED_WITHIN;
use super::stream::OutgoingStream;
use crate::{instant, rtp};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Number of usual packet intervals after which a source counts as silent.
const FEW: u32 = 4;

/// Evidence of a node's death may come this much later than the death.
const EVIDENCE_WITHIN: Duration = Duration::from_millis(250);

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
    fn open(&mut self, first: u32, length: u16, now: Instant) {
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
    fn all(&self, by: Option<Instant>) -> u32 {
        let is_over = |gap: &&SwitchGap| {
            by.is_none_or(|now| now.saturating_duration_since(gap.since) >= FILLED_WITHIN)
        };
        let last = self.last.as_ref().filter(is_over);
        self.settled.saturating_add(last.map_or(0, |gap| gap.missing.into()))
    }
}

impl OutgoingStream {
    /// Number of packets missed at switches, as known at `now`.
    pub(super) fn missed(&self, now: Instant) -> u32 {
        self.missing.all(Some(now))
    }

    /// Notes that the numbers above this one, up to the present one, were skipped.
    pub(super) fn note_skipped(&mut self, above: u32, now: Instant) {
        let skipped = self.highest.wrapping_sub(above).saturating_sub(1);
        self.missing.open(above.wrapping_add(1), skipped.try_into().unwrap_or(u16::MAX), now);
    }

    /// Notes that another hop continues the stream with its own numbers from this packet.
    pub(super) fn note_missing_before(&mut self, header: &rtp::RtpHeader, now: Instant) {
        self.on_copies = false;
        if self.elsewhere {
            return self.begin_above(header);
        }
        let missing = self.missing_before(header);
        let missing = missing.try_into().unwrap_or(u16::MAX);
        self.missing.open(self.highest.wrapping_add(1), missing, now);
    }

    /// Returns whether the source was active when its hop ended at `since`.
    pub(super) fn spoke_until(&self, since: Instant) -> bool {
        self.heard + self.usually_within() + EVIDENCE_WITHIN >= since
    }

    /// Returns whether the source paused before the hop ended, or while a hop left as planned still
    /// delivered. In both cases no packet is missing.
    pub(super) fn paused(&self, since: Instant, planned: bool, now: Instant) -> bool {
        let late = since + FILLED_WITHIN + self.usually_within();
        !self.spoke_until(since) || planned && now > late
    }

    /// Time after which the source counts as silent: [`FEW`] usual packet intervals.
    fn usually_within(&self) -> Duration {
        let ticks = self.pace.interval().unwrap_or_default();
        match self.clock_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) * ticks.min(rate) / rate * FEW,
        }
    }
}
