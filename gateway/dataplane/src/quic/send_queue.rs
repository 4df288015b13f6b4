//! Packets that wait for the window of their client's connection.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::counters::{Counters, count};
use crate::ring::PacketPriority;

struct WaitingPacket {
    datagram: Bytes,
    /// From then on the client has no use for it.
    until: Instant,
}

/// The packets of a connection by priority, each in its order. Old packets give way to new ones.
#[derive(Default)]
pub(super) struct SendQueue {
    packets: [VecDeque<WaitingPacket>; PacketPriority::COUNT],
    bytes: usize,
}

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
        while self.bytes + datagram.len() > bytes_max {
            let mut least = self.packets[priority as usize..].iter_mut().rev();
            let Some(oldest) = least.find_map(VecDeque::pop_front) else {
                return count(&counters.datagrams_full);
            };
            self.bytes -= oldest.datagram.len();
            count(&counters.datagrams_full);
        }
        self.bytes += datagram.len();
        self.packets[priority as usize].push_back(WaitingPacket { datagram, until });
    }

    /// Takes the next packet. Drops those that are late.
    pub(super) fn pop(&mut self, now: Instant, counters: &Counters) -> Option<Bytes> {
        self.expire(now, counters);
        let packet = self.packets.iter_mut().find_map(VecDeque::pop_front)?;
        self.bytes -= packet.datagram.len();
        Some(packet.datagram)
    }

    /// Drops the packets that are late.
    pub(super) fn expire(&mut self, now: Instant, counters: &Counters) {
        for packets in &mut self.packets {
            while packets.front().is_some_and(|packet| packet.until <= now)
                && let Some(late) = packets.pop_front()
            {
                self.bytes -= late.datagram.len();
                count(&counters.datagrams_late);
            }
        }
    }

    /// Time when the first packet is late. A packet behind one with more time may be late before, and waits for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.packets.iter().filter_map(|packets| packets.front()).map(|packet| packet.until).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.iter().all(VecDeque::is_empty)
    }

    /// Drops all packets and returns their number.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).packets.iter().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests;
