//! Packets of many sessions in one datagram.
//!
//! Format: `0xE0`, then entries of tag (8 bytes), length (2 bytes) and packet; big endian.
//!
//! A node has one outgoing bundle per destination, so that packets of many sessions share datagrams.

use std::net::SocketAddr;

use super::{Tag, seal};
use crate::demux;

/// Bytes before the first entry.
pub const OVERHEAD: usize = 1;
/// Bytes of an entry besides its packet: tag and length.
pub const ENTRY_OVERHEAD: usize = 10;

/// A datagram being filled with packets. Keeps its memory when cleared.
#[derive(Clone, Debug)]
pub struct Bundle {
    bytes: Vec<u8>,
    size_max: usize,
}

impl Bundle {
    /// Creates an empty bundle for datagrams of at most `size_max` bytes (the path MTU less IP and
    /// UDP).
    pub fn new(size_max: usize) -> Self {
        let mut bytes = Vec::with_capacity(size_max);
        bytes.push(demux::BUNDLE);
        Self { bytes, size_max }
    }

    /// Adds a packet. Returns whether it fits; if not, the bundle remains unchanged.
    ///
    /// A packet that does not fit an empty bundle never fits; an empty packet is refused.
    pub fn push(&mut self, tag: Tag, packet: &[u8]) -> bool {
        let Ok(length) = u16::try_from(packet.len()) else { return false };
        if length == 0 || self.bytes.len() + ENTRY_OVERHEAD + packet.len() > self.size_max {
            return false;
        }
        self.bytes.extend_from_slice(&tag.0.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(packet);
        true
    }

    /// Limit of the datagram, bytes.
    pub fn size_max(&self) -> usize {
        self.size_max
    }

    /// The datagram so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True without a packet.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == OVERHEAD
    }

    /// Removes all packets.
    pub fn clear(&mut self) {
        self.bytes.truncate(OVERHEAD);
    }
}

/// Reason why a datagram, or the rest of it, is not a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleError {
    /// The first byte is not 0xE0, or no entry follows it.
    #[error("no bundle")]
    Mark,
    /// An entry ends within its tag or length.
    #[error("bundle ends within an entry's tag or length")]
    Entry,
    /// A packet exceeds the datagram.
    #[error("bundled packet exceeds its datagram")]
    Packet,
    /// A packet of length 0.
    #[error("bundled packet is empty")]
    Empty,
}

/// Returns the packets in a datagram, in order; the first malformed entry is the last item.
pub fn entries(datagram: &[u8]) -> BundleEntries<'_> {
    match datagram.split_first() {
        Some((&demux::BUNDLE, rest)) if !rest.is_empty() => BundleEntries { rest: Ok(rest) },
        _ => BundleEntries { rest: Err(BundleError::Mark) },
    }
}

/// Returns the tag of the first packet of a bundle that may be cut after it, as in an ICMP error.
pub fn first_tag(start: &[u8]) -> Option<Tag> {
    let entry = start.strip_prefix(&[demux::BUNDLE])?;
    entry.first_chunk().map(|tag| Tag(u64::from_be_bytes(*tag)))
}

/// The packets of a datagram, in order.
#[derive(Clone, Debug)]
pub struct BundleEntries<'a> {
    rest: Result<&'a [u8], BundleError>,
}

impl<'a> Iterator for BundleEntries<'a> {
    type Item = Result<(Tag, &'a [u8]), BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = match std::mem::replace(&mut self.rest, Ok(&[])) {
            Ok([]) => return None,
            Ok(rest) => rest,
            Err(reason) => return Some(Err(reason)),
        };
        Some(head(rest).map(|(tag, length)| {
            let (packet, rest) = rest[ENTRY_OVERHEAD..].split_at(length);
            self.rest = Ok(rest);
            (tag, packet)
        }))
    }
}

/// Reads tag and length of the first entry, which must lie whole in `rest`.
fn head(rest: &[u8]) -> Result<(Tag, usize), BundleError> {
    let Some((head, packet)) = rest.split_first_chunk::<ENTRY_OVERHEAD>() else {
        return Err(BundleError::Entry);
    };
    let [t0, t1, t2, t3, t4, t5, t6, t7, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    match length {
        0 => Err(BundleError::Empty),
        _ if length > packet.len() => Err(BundleError::Packet),
        _ => Ok((Tag(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7])), length)),
    }
}

/// Payload of an Ethernet frame after IPv4 and UDP: the limit of a datagram with a single packet,
/// unless the peer has sent a longer one.
pub(crate) const BUNDLE_MAX: usize = 1_472;

/// Limit of a datagram that packets share, until the path is probed: IPv6's minimum MTU of 1,280
/// would waste capacity; 1,500 less IPv6, UDP and some tunnel headers usually fits.
pub const SHARED_MAX: usize = 1_400;

/// Bundles by destination; few, as a gateway has one socket per worker and node.
#[derive(Clone, Default, Debug)]
pub struct Bundles {
    queues: Vec<BundleQueue>,
    /// Bytes that encryption adds to each datagram.
    overhead: usize,
}

#[derive(Clone, Debug)]
struct BundleQueue {
    to: SocketAddr,
    bundle: Bundle,
    /// Limit of a datagram with a single packet.
    alone_max: usize,
    /// Limit of a datagram that packets share.
    shared_max: usize,
}

impl Bundles {
    /// Bundles that will be encrypted ([`seal`](super::seal)).
    pub fn sealed() -> Self {
        Self { queues: Vec::new(), overhead: seal::OVERHEAD }
    }

    /// Notes that a peer sent a datagram of this size, so that bundles of this size may be sent back.
    pub fn handle_size(
        &mut self,
        from: SocketAddr,
        size: usize,
        send: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        let overhead = self.overhead;
        let way = self.way(from);
        if size > way.alone_max {
            way.flush(send);
            way.alone_max = size;
            way.bundle = Bundle::new(size.saturating_sub(overhead));
        }
    }

    /// Sets the limit of shared datagrams, from a path probe.
    pub fn limit(&mut self, to: SocketAddr, shared_max: usize) {
        self.way(to).shared_max = shared_max.saturating_sub(self.overhead);
    }

    /// Adds a packet, after sending a full bundle. Returns whether the packet fits the path.
    pub fn push(
        &mut self,
        to: SocketAddr,
        tag: Tag,
        packet: &[u8],
        send: &mut impl FnMut(SocketAddr, &[u8]),
    ) -> bool {
        let way = self.way(to);
        if way.has_room(packet) && way.bundle.push(tag, packet) {
            return true;
        }
        way.flush(send);
        way.bundle.push(tag, packet)
    }

    /// Sends the packets collected so far.
    pub fn flush(&mut self, send: &mut impl FnMut(SocketAddr, &[u8])) {
        self.queues.iter_mut().for_each(|way| way.flush(send));
    }

    /// Removes destinations that are no longer used.
    pub fn keep(&mut self, known: impl Fn(SocketAddr) -> bool) {
        self.queues.retain(|way| !way.bundle.is_empty() || known(way.to));
    }

    /// Number of addresses with a queue.
    pub fn destinations(&self) -> usize {
        self.queues.len()
    }

    fn way(&mut self, to: SocketAddr) -> &mut BundleQueue {
        let place = self.queues.iter().position(|way| way.to == to).unwrap_or_else(|| {
            let (alone_max, shared_max) = (BUNDLE_MAX, SHARED_MAX - self.overhead);
            let bundle = Bundle::new(alone_max - self.overhead);
            self.queues.push(BundleQueue { to, bundle, alone_max, shared_max });
            self.queues.len() - 1
        });
        &mut self.queues[place]
    }
}

impl BundleQueue {
    /// Returns whether a packet fits the current bundle.
    fn has_room(&self, packet: &[u8]) -> bool {
        self.bundle.as_bytes().len() + ENTRY_OVERHEAD + packet.len() <= self.shared_max
    }

    fn flush(&mut self, send: &mut impl FnMut(SocketAddr, &[u8])) {
        if !self.bundle.is_empty() {
            send(self.to, self.bundle.as_bytes());
            self.bundle.clear();
        }
    }
}

#[cfg(test)]
mod tests;
