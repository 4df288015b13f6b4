//! The numbers of a stream: those used recently, and those missed when another hop took over.

use crate::bytes;
use evenkeel_instant as instant;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Time for which packets missing at a switch may still arrive: the duration of a
/// make-before-break.
pub const FILLED_WITHIN: Duration = Duration::from_millis(500);

/// Limit of remembered numbers of a stream: more than a second of voice, and any reordering of video
/// that a jitter buffer would still wait for. A packet that comes again is recognised among them.
pub const WINDOW: u32 = 64;

/// The last outgoing numbers, each with a fingerprint of its packet's timestamp.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub(super) struct Recent {
    /// Bit n is set if the number n below the highest is used.
    used: u64,
    #[serde(with = "bytes")]
    traces: [u8; WINDOW as usize],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// The number is unused, or too old to be remembered.
    Free,
    /// The same packet uses the number.
    Same,
    /// Another packet uses the number.
    Other,
}

impl Recent {
    pub(super) fn new(number: u32, timestamp: u32) -> Self {
        let mut recent = Self { used: 1, traces: [0; WINDOW as usize] };
        recent.traces[place(number)] = fingerprint(timestamp);
        recent
    }

    /// Makes `number`, which is `ahead` above the last one, the highest number.
    pub(super) fn advance(&mut self, number: u32, ahead: u32, timestamp: u32) {
        self.used = self.used.checked_shl(ahead).unwrap_or(0) | 1;
        self.traces[place(number)] = fingerprint(timestamp);
    }

    /// Returns the use of the number `behind` the highest.
    pub(super) fn at(&self, number: u32, behind: u32, timestamp: u32) -> Use {
        if behind >= WINDOW || self.used >> behind & 1 == 0 {
            Use::Free
        } else if self.traces[place(number)] == fingerprint(timestamp) {
            Use::Same
        } else {
            Use::Other
        }
    }

    /// Returns how many of the highest numbers are used; `highest` is at most [`WINDOW`].
    pub(super) fn used_among(&self, highest: u32) -> u32 {
        (self.used & u64::MAX.checked_shr(WINDOW - highest).unwrap_or(0)).count_ones()
    }

    /// Marks the number `behind` the highest as used.
    pub(super) fn fill(&mut self, number: u32, behind: u32, timestamp: u32) {
        if behind < WINDOW {
            self.used |= 1 << behind;
            self.traces[place(number)] = fingerprint(timestamp);
        }
    }
}

fn place(number: u32) -> usize {
    (number % WINDOW) as usize
}

/// Reduces a timestamp to eight bits that differ between neighbouring frames, even for steps that
/// are round in binary or decimal.
fn fingerprint(timestamp: u32) -> u8 {
    (timestamp.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

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

    /// Returns whether no packet of the last switch is missing.
    pub(super) fn is_filled(&self) -> bool {
        self.last.as_ref().is_none_or(|gap| gap.missing == 0)
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

#[cfg(test)]
mod tests;
