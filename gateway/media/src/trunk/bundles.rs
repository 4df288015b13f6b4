//! Outgoing bundles of a node: one per destination, so that packets of many sessions share
//! datagrams.

use super::{Bundle, ENTRY_OVERHEAD, Tag, seal};
use std::net::SocketAddr;

/// Payload of an Ethernet frame after IPv4 and UDP: the limit of a datagram with a single packet,
/// unless the peer has sent a longer one.
pub(crate) const BUNDLE_MAX: usize = 1_472;

/// Limit of a datagram that packets share, until the path is probed: IPv6's minimum MTU of 1,280
/// would waste capacity; 1,500 less IPv6, UDP and some tunnel headers usually fits.
pub const SHARED_MAX: usize = 1_400;

/// Bundles by destination; few, as a gateway has one socket per worker and node.
#[derive(Clone, Default, Debug)]
pub struct Bundles {
    ways: Vec<BundleQueue>,
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
        Self { ways: Vec::new(), overhead: seal::OVERHEAD }
    }

    /// Notes that a peer sent a datagram of this size, so that bundles of this size may be sent back.
    pub fn came(
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
        self.ways.iter_mut().for_each(|way| way.flush(send));
    }

    /// Removes destinations that are no longer used.
    pub fn keep(&mut self, known: impl Fn(SocketAddr) -> bool) {
        self.ways.retain(|way| !way.bundle.is_empty() || known(way.to));
    }

    /// Number of addresses with a queue.
    pub fn destinations(&self) -> usize {
        self.ways.len()
    }

    fn way(&mut self, to: SocketAddr) -> &mut BundleQueue {
        let place = self.ways.iter().position(|way| way.to == to).unwrap_or_else(|| {
            let (alone_max, shared_max) = (BUNDLE_MAX, SHARED_MAX - self.overhead);
            let bundle = Bundle::new(alone_max - self.overhead);
            self.ways.push(BundleQueue { to, bundle, alone_max, shared_max });
            self.ways.len() - 1
        });
        &mut self.ways[place]
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
