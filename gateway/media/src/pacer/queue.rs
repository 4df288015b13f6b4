//! Packets that wait to leave, by class and for a limited time.

use std::collections::VecDeque;
use std::time::Instant;

#[derive(Debug)]
struct WaitingPacket<P> {
    packet: P,
    bytes: usize,
    /// From then on the receiver has no use for it.
    until: Instant,
}

/// Packets by class, each class in its order. Old packets give way to new ones.
#[derive(Debug)]
pub struct AgedQueue<P, const CLASSES: usize> {
    packets: [VecDeque<WaitingPacket<P>>; CLASSES],
    bytes: usize,
}

impl<P, const CLASSES: usize> Default for AgedQueue<P, CLASSES> {
    fn default() -> AgedQueue<P, CLASSES> {
        AgedQueue { packets: std::array::from_fn(|_| VecDeque::new()), bytes: 0 }
    }
}

impl<P, const CLASSES: usize> AgedQueue<P, CLASSES> {
    /// Adds a packet of this length to a class. Beyond `bytes_max` the oldest packets of the last class are dropped, of those that are not
    /// before this one, or else the packet. Returns the number of dropped packets.
    pub fn push(
        &mut self,
        packet: P,
        bytes: usize,
        class: usize,
        until: Instant,
        bytes_max: usize,
    ) -> usize {
        let mut dropped = 0;
        while self.bytes + bytes > bytes_max {
            dropped += 1;
            let mut last = self.packets[class..].iter_mut().rev();
            let Some(oldest) = last.find_map(VecDeque::pop_front) else { return dropped };
            self.bytes -= oldest.bytes;
        }
        self.bytes += bytes;
        self.packets[class].push_back(WaitingPacket { packet, bytes, until });
        dropped
    }

    /// Takes the next packet, with its length.
    pub fn pop(&mut self) -> Option<(P, usize)> {
        let WaitingPacket { packet, bytes, .. } =
            self.packets.iter_mut().find_map(VecDeque::pop_front)?;
        self.bytes -= bytes;
        Some((packet, bytes))
    }

    /// Drops the packets that are late and returns their number.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        for packets in &mut self.packets {
            while packets.front().is_some_and(|packet| packet.until <= now)
                && let Some(late) = packets.pop_front()
            {
                self.bytes -= late.bytes;
                dropped += 1;
            }
        }
        dropped
    }

    /// Time when the first packet is late. A packet behind one with more time may be late before, and waits for it.
    pub fn due(&self) -> Option<Instant> {
        self.packets.iter().filter_map(|packets| packets.front()).map(|packet| packet.until).min()
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.packets.iter().map(VecDeque::len).sum()
    }

    /// Returns whether no packet waits.
    pub fn is_empty(&self) -> bool {
        self.packets.iter().all(VecDeque::is_empty)
    }
}
