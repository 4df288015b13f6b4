//! The limits of packets that are sent again to a client that asks for them.

use std::time::{Duration, Instant};

use super::PathTiming;
use super::cache::CachedPacket;

/// Packets that are sent again have at most this part of the stream's bytes.
const PART: u64 = 4;

const SLOT: Duration = Duration::from_millis(100);
const SLOTS: usize = 10;

/// The sum of values over the last second, in steps of 100 ms.
#[derive(Clone, Copy, Default, Debug)]
pub struct LastSecond {
    slots: [u32; SLOTS],
    newest: usize,
    /// The start of the newest slot.
    began: Option<Instant>,
}

impl LastSecond {
    pub fn add(&mut self, value: u32, now: Instant) {
        self.advance(now);
        let slot = &mut self.slots[self.newest];
        *slot = slot.saturating_add(value);
    }

    pub fn sum(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.slots.iter().map(|slot| u64::from(*slot)).sum()
    }

    fn advance(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed < SLOT {
            return;
        }
        let steps = passed.as_millis() / SLOT.as_millis();
        for _ in 0..steps.min(SLOTS as u128) {
            self.newest = (self.newest + 1) % SLOTS;
            self.slots[self.newest] = 0;
        }
        self.began = Some(began + SLOT * u32::try_from(steps).unwrap_or(u32::MAX));
    }
}

/// Decides which packets of a stream are sent again: each one once per round trip, and in all at most a quarter of the bytes that
/// the stream had in the last second. One packet in a second is always sent again, since a stream that begins, or is silent, has
/// few bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct Answers {
    sent: LastSecond,
    again: LastSecond,
}

impl Answers {
    /// Counts a packet of the stream.
    pub fn note_sent(&mut self, bytes: usize, now: Instant) {
        self.sent.add(bytes as u32, now);
    }

    /// Returns how often the packet is to be sent now, and counts it.
    ///
    /// If no later request of the client could help, the packet is sent twice: the round trip after this one ends when the packet
    /// is due.
    pub fn copies(&mut self, packet: &CachedPacket<'_>, timing: PathTiming, now: Instant) -> u32 {
        let PathTiming { round_trip, is_measured, latency } = timing;
        let is_under_way =
            |sent: Instant| now.saturating_duration_since(sent) < timing.repeated_after();
        // The request for a packet that came late, from its sender, left before the packet could arrive.
        let is_premature = is_measured && is_under_way(packet.at);
        if is_premature || packet.answered.is_some_and(is_under_way) {
            return 0;
        }
        let due = packet.at + latency;
        // This request may have crossed the answer to the one before.
        let is_certain = packet
            .answered
            .is_none_or(|sent| now.saturating_duration_since(sent) >= round_trip * 5 / 4);
        let is_last = now <= due && due < now + round_trip;
        let wanted = if is_last && is_certain { 2 } else { 1 };
        let (length, allowed) = (packet.packet.len() as u64, self.sent.sum(now) / PART);
        let mut again = self.again.sum(now);
        let mut copies = 0;
        while copies < wanted && (again == 0 || again + length <= allowed) {
            again += length;
            copies += 1;
        }
        self.again.add(copies * length as u32, now);
        copies
    }
}

#[cfg(test)]
mod tests;
