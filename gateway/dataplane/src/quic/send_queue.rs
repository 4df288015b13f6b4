//! Packets that wait for the window of their client's connection.

use std::time::Instant;

use bytes::Bytes;
use evenkeel_media::pacer::AgedQueue;

use super::counters::{Counters, count};
use crate::ring::PacketPriority;

/// The packets of a connection by priority, each in its order. Old packets give way to new ones.
#[derive(Default)]
pub(super) struct SendQueue(AgedQueue<Bytes, { PacketPriority::COUNT }>);

impl SendQueue {
    /// Adds a packet. Beyond so many bytes the oldest packets of the least priority are dropped: of those that are not before this one.
    pub(super) fn push(
        &mut self,
        datagram: Bytes,
        priority: PacketPriority,
        until: Instant,
        bytes_max: usize,
        counters: &Counters,
    ) {
        let bytes = datagram.len();
        let dropped = self.0.push(datagram, bytes, priority as usize, until, bytes_max);
        (0..dropped).for_each(|_| count(&counters.datagrams_full));
    }

    /// Takes the next packet. Drops those that are late.
    pub(super) fn pop(&mut self, now: Instant, counters: &Counters) -> Option<Bytes> {
        self.expire(now, counters);
        self.0.pop().map(|(datagram, _)| datagram)
    }

    /// Drops the packets that are late.
    pub(super) fn expire(&mut self, now: Instant, counters: &Counters) {
        (0..self.0.expire(now)).for_each(|_| count(&counters.datagrams_late));
    }

    /// Time when the first packet is late. A packet behind one with more time may be late before, and waits for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.due()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops all packets and returns their number.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.0).len()
    }
}

#[cfg(test)]
mod tests;
