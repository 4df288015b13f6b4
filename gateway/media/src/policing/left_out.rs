//! The numbers of a stream from which packets are left out: a receiver takes a gap for a loss, and asks for the packets.

use std::collections::VecDeque;

use crate::rtp::sequence_ahead;

/// Ranges of a stream that are remembered: four seconds in which every other of 30 frames is left out.
const RANGES_MAX: usize = 64;

/// The cycles of sequence numbers before the first one: numbers below it have no negative extension.
const BEFORE_FIRST: u64 = 1 << 16;

/// Maps the numbers of a stream to those of the packets that pass, which follow one another, and back.
#[derive(Debug)]
pub struct LeftOutNumbers {
    /// The highest number of the sender, extended.
    highest: u64,
    /// The last ranges, in their order.
    ranges: VecDeque<LeftOutRange>,
    /// The end of the last range that was forgotten; lower numbers have no mapping any more.
    oldest: u64,
    /// Numbers left out before the first range.
    forgotten: u64,
}

/// Consecutive numbers that are left out.
#[derive(Clone, Copy, Debug)]
struct LeftOutRange {
    first: u64,
    /// The number after the last one.
    end: u64,
    /// Numbers left out below `end`.
    before_end: u64,
}

impl LeftOutNumbers {
    /// A stream of which nothing was left out before this number.
    pub fn new(sequence: u16) -> LeftOutNumbers {
        let highest = BEFORE_FIRST + u64::from(sequence) - 1;
        LeftOutNumbers { highest, ranges: VecDeque::new(), oldest: 0, forgotten: 0 }
    }

    /// The highest number of the sender.
    pub fn highest(&self) -> u16 {
        self.highest as u16
    }

    /// Nothing was left out.
    pub fn is_unchanged(&self) -> bool {
        self.left_out() == 0
    }

    /// Leaves out a packet. `joins`: it belongs to the frame of the highest number, which was left out, so that those between, which did
    /// not come, are left out as well. A number below the highest remains missing: later ones have passed.
    pub fn leave_out(&mut self, sequence: u16, joins: bool) {
        let number = self.extended(sequence);
        if number <= self.highest {
            return;
        }
        let first = if joins { self.highest + 1 } else { number };
        let (end, before_end) = (number + 1, self.left_out() + number + 1 - first);
        match self.ranges.back_mut().filter(|last| last.end == first) {
            Some(last) => (last.end, last.before_end) = (end, before_end),
            None => self.ranges.push_back(LeftOutRange { first, end, before_end }),
        }
        if self.ranges.len() > RANGES_MAX
            && let Some(range) = self.ranges.pop_front()
        {
            (self.oldest, self.forgotten) = (range.end, range.before_end);
        }
        self.highest = number;
    }

    /// Returns the number of a packet that passes; `None` if it was left out, or if that is not remembered any more.
    pub fn pass(&mut self, sequence: u16) -> Option<u16> {
        let number = self.extended(sequence);
        self.highest = self.highest.max(number);
        self.passing(number)
    }

    /// Returns the number that a packet which is repeated had, as [`pass`](Self::pass) does.
    pub fn passed(&self, sequence: u16) -> Option<u16> {
        self.passing(self.extended(sequence))
    }

    /// Returns the sender's number of a packet that passed; `None` if that is not remembered any more.
    pub fn of_sender(&self, passed: u16) -> Option<u16> {
        let highest = self.highest - self.left_out();
        let number = highest.checked_add_signed(sequence_ahead(passed, highest as u16).into())?;
        let above = |range: &&LeftOutRange| number >= range.end - range.before_end;
        let before = self.ranges.iter().rev().find(above).map(|range| range.before_end);
        let original = number + before.unwrap_or(self.forgotten);
        (original >= self.oldest).then_some(original as u16)
    }

    fn passing(&self, number: u64) -> Option<u16> {
        let range = self.ranges.iter().rev().find(|range| number >= range.first);
        let left_out = match range {
            Some(range) if number < range.end => return None,
            Some(range) => range.before_end,
            None if number < self.oldest => return None,
            None => self.forgotten,
        };
        Some((number - left_out) as u16)
    }

    fn left_out(&self) -> u64 {
        self.ranges.back().map_or(self.forgotten, |range| range.before_end)
    }

    fn extended(&self, sequence: u16) -> u64 {
        let ahead = sequence_ahead(sequence, self.highest as u16);
        self.highest.saturating_add_signed(ahead.into())
    }
}

#[cfg(test)]
mod tests;
