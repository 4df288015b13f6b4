//! The last packets of a path, found by SSRC and sequence number.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of the smallest ring: half a second of voice.
const RING_MIN: usize = 4_096;

/// Bytes of the ring for each packet in the index. Most packets of voice have fewer, those of video have more.
const BYTES_PER_PACKET: usize = 128;

/// Bytes of the index for each packet.
const INDEX_LEN: usize = size_of::<KeptPacket>() + size_of::<u32>();

/// Offsets have 32 bits.
const BYTES_LIMIT: usize = 1 << 31;

/// The last packets of a path, bounded in bytes and age. No allocation per packet: the ring grows by doubling up to its bound.
///
/// A ring has the bytes of the packets, each in one piece, and an index. Before packets that are young enough give way, the ring
/// doubles, unless it would exceed the bound.
#[derive(Debug)]
pub struct PacketCache {
    bytes_max: usize,
    kept_for: Duration,
    ring: Vec<u8>,
    /// In order of arrival. Packets are numbered from the first one of the cache on.
    packets: VecDeque<KeptPacket>,
    /// The number of the oldest packet.
    first: u32,
    /// The number of the last packet with each hash. As many as the index has places, a power of two.
    last_with_hash: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct KeptPacket {
    at: Instant,
    answered: Option<Instant>,
    ssrc: u32,
    offset: u32,
    /// The number of the packet before with the same hash, which may be forgotten.
    before: u32,
    sequence: u16,
    length: u16,
}

impl KeptPacket {
    fn end(&self) -> usize {
        self.offset as usize + usize::from(self.length)
    }
}

/// A packet of a [`PacketCache`].
#[derive(Clone, Copy, Debug)]
pub struct CachedPacket<'a> {
    pub ssrc: u32,
    pub sequence: u16,
    /// The time at which it was kept.
    pub at: Instant,
    /// The time of [`PacketCache::note_answered`].
    pub answered: Option<Instant>,
    pub packet: &'a [u8],
}

/// Bytes of a ring with its index.
fn allocation(ring: usize) -> usize {
    ring + ring / BYTES_PER_PACKET * INDEX_LEN
}

impl PacketCache {
    /// Allocates nothing before the first packet.
    pub fn new(bytes_max: usize, kept_for: Duration) -> PacketCache {
        PacketCache {
            bytes_max: bytes_max.min(BYTES_LIMIT),
            kept_for,
            ring: Vec::new(),
            packets: VecDeque::new(),
            first: 0,
            last_with_hash: Vec::new(),
        }
    }

    /// The ring grows up to this bound from now on.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max.min(BYTES_LIMIT);
    }

    pub fn set_kept_for(&mut self, kept_for: Duration) {
        self.kept_for = kept_for;
    }

    /// Forgets all packets. The ring remains.
    pub fn clear(&mut self) {
        while !self.packets.is_empty() {
            self.forget_first();
        }
    }

    /// Bytes of the ring and its index.
    pub fn allocated(&self) -> usize {
        allocation(self.ring.len())
    }

    /// The time of the last packet.
    pub fn last_at(&self) -> Option<Instant> {
        self.packets.back().map(|packet| packet.at)
    }

    /// Returns the bytes that [`keep`](PacketCache::keep) would allocate for a packet of this length.
    pub fn growth(&mut self, length: usize, now: Instant) -> usize {
        self.forget_old(now);
        self.larger_ring(length).map_or(0, |ring| allocation(ring) - self.allocated())
    }

    /// Keeps a packet. It replaces one with the same numbers. A packet that exceeds the bound is not kept.
    pub fn keep(&mut self, ssrc: u32, sequence: u16, packet: &[u8], now: Instant) {
        let Ok(length @ 1..) = u16::try_from(packet.len()) else { return };
        self.forget_old(now);
        if let Some(ring) = self.larger_ring(packet.len()) {
            self.grow(ring);
        }
        if packet.len() > self.ring.len() {
            return;
        }
        let offset = loop {
            match self.room(packet.len()) {
                Some(offset) => break offset,
                None => self.forget_first(),
            }
        };
        self.ring[offset..offset + packet.len()].copy_from_slice(packet);
        let offset = offset as u32;
        self.push(KeptPacket {
            at: now,
            answered: None,
            ssrc,
            offset,
            before: 0,
            sequence,
            length,
        });
    }

    /// Returns the last packet with these numbers, unless it is too old.
    pub fn find(&self, ssrc: u32, sequence: u16, now: Instant) -> Option<CachedPacket<'_>> {
        let packet = &self.packets[self.position(ssrc, sequence)?];
        let is_young = now.saturating_duration_since(packet.at) <= self.kept_for;
        is_young.then(|| self.cached(packet))
    }

    /// Notes that the packet was sent again now.
    pub fn note_answered(&mut self, ssrc: u32, sequence: u16, now: Instant) {
        if let Some(at) = self.position(ssrc, sequence) {
            self.packets[at].answered = Some(now);
        }
    }

    /// Returns the packets kept at this time or later, in order of arrival.
    pub fn since(&self, at: Instant) -> impl Iterator<Item = CachedPacket<'_>> {
        let first = self.packets.partition_point(|packet| packet.at < at);
        self.packets.range(first..).map(|packet| self.cached(packet))
    }

    fn cached(&self, packet: &KeptPacket) -> CachedPacket<'_> {
        let &KeptPacket { at, answered, ssrc, sequence, .. } = packet;
        let bytes = &self.ring[packet.offset as usize..packet.end()];
        CachedPacket { ssrc, sequence, at, answered, packet: bytes }
    }

    /// Returns the place in `packets` of the last one with these numbers.
    fn position(&self, ssrc: u32, sequence: u16) -> Option<usize> {
        let place = |number: u32| number.wrapping_sub(self.first) as usize;
        let mut at = place(*self.last_with_hash.get(self.hash(ssrc, sequence))?);
        loop {
            let packet = self.packets.get(at)?;
            if (packet.ssrc, packet.sequence) == (ssrc, sequence) {
                return Some(at);
            }
            // Places fall along the chain; it ends at a packet that is forgotten.
            let before = place(packet.before);
            if before >= at {
                return None;
            }
            at = before;
        }
    }

    fn hash(&self, ssrc: u32, sequence: u16) -> usize {
        let hash = u32::from(sequence).wrapping_add(ssrc.wrapping_mul(0x9e37_79b1) >> 8);
        hash as usize & self.last_with_hash.len().saturating_sub(1)
    }

    /// Appends a packet for which the index has a place.
    fn push(&mut self, packet: KeptPacket) {
        let number = self.first.wrapping_add(self.packets.len() as u32);
        let hash = self.hash(packet.ssrc, packet.sequence);
        let before = std::mem::replace(&mut self.last_with_hash[hash], number);
        self.packets.push_back(KeptPacket { before, ..packet });
    }

    fn forget_first(&mut self) {
        if self.packets.pop_front().is_some() {
            self.first = self.first.wrapping_add(1);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let kept_for = self.kept_for;
        let is_old = |packet: &KeptPacket| now.saturating_duration_since(packet.at) > kept_for;
        while self.packets.front().is_some_and(is_old) {
            self.forget_first();
        }
    }

    /// Returns the offset at which a packet of this length has room.
    fn room(&self, length: usize) -> Option<usize> {
        let (Some(oldest), Some(newest)) = (self.packets.front(), self.packets.back()) else {
            return (length <= self.ring.len()).then_some(0);
        };
        if self.packets.len() == self.last_with_hash.len() {
            return None;
        }
        let (start, end) = (oldest.offset as usize, newest.end());
        if newest.offset < oldest.offset {
            (end + length <= start).then_some(end)
        } else if end + length <= self.ring.len() {
            Some(end)
        } else {
            (length <= start).then_some(0)
        }
    }

    /// Returns the length of a ring with room for this packet beside all others; `None` if the ring has it, or the bound is reached.
    fn larger_ring(&self, length: usize) -> Option<usize> {
        let mut ring = (2 * self.ring.len()).max(RING_MIN);
        if allocation(ring) > self.bytes_max || self.room(length).is_some() {
            return None;
        }
        while ring < self.ring.len() + length {
            ring *= 2;
        }
        (allocation(ring) <= self.bytes_max).then_some(ring)
    }

    #[cold]
    fn grow(&mut self, length: usize) {
        let places = length / BYTES_PER_PACKET;
        let ring = std::mem::replace(&mut self.ring, vec![0; length]);
        let packets = std::mem::replace(&mut self.packets, VecDeque::with_capacity(places));
        self.last_with_hash = vec![0; places];
        let mut end = 0;
        for packet in packets {
            let bytes = &ring[packet.offset as usize..packet.end()];
            self.ring[end..end + bytes.len()].copy_from_slice(bytes);
            self.push(KeptPacket { offset: end as u32, ..packet });
            end += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests;
