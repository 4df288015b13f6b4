//! The numbers that a stream used recently.

use crate::bytes;
use serde::{Deserialize, Serialize};

/// Limit of remembered numbers: more than a second of voice, and any reordering of video that a
/// jitter buffer would still wait for.
const WINDOW: u32 = 64;

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

#[cfg(test)]
mod tests;
