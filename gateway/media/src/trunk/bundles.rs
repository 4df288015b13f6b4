//! Outgoing bundles of a node: one per destination, so that packets of many sessions share
//! datagrams.

use super::{Bundle, ENTRY_OVERHEAD, Tag};
use std::net::SocketAddr;

/// Payload of an Ethernet frame after IPv4 and UDP: the limit of a datagram with a single packet,
/// unless a longer one arrived from there.
pub const BUNDLE_MAX: usize = 1_472;

/// Limit of a datagram that packets share, until the path is probed: IPv6's minimum MTU of 1,280
/// would waste capacity; 1,500 less IPv6, UDP and some tunnel headers usually fits.
pub const SHARED_MAX: usize = 1_400;

/// Bundles by destination; few, as a gateway has one socket per worker and node.
#[derive(Clone, Default, Debug)]
pub struct Bundles {
    ways: Vec<Way>,
}

#[derive(Clone, Debug)]
struct Way {
    to: SocketAddr,
    bundle: Bundle,
    /// Limit of a datagram with a single packet.
    alone_max: usize,
    /// Limit of a datagram that packets share.
    shared_max: usize,
}

impl Bundles {
    /// A bundle of this size arrived from there, so that as large ones may be sent back.
    pub fn came(
        &mut self,
        from: SocketAddr,
        size: usize,
        send: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        let way = self.way(from);
        if size > way.alone_max {
            way.flush(send);
            way.alone_max = size;
            way.bundle = Bundle::new(size);
        }
    }

    /// Sets the limit of shared datagrams, from a path probe.
    pub fn limit(&mut self, to: SocketAddr, shared_max: usize) {
        self.way(to).shared_max = shared_max;
    }

    /// Adds a packet, and sends the bundle first if it is full. False if the packet is too large
    /// for the path.
    #[must_use]
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

    #[must_use]
    pub fn destinations(&self) -> usize {
        self.ways.len()
    }

    fn way(&mut self, to: SocketAddr) -> &mut Way {
        let place = self.ways.iter().position(|way| way.to == to).unwrap_or_else(|| {
            let (alone_max, shared_max) = (BUNDLE_MAX, SHARED_MAX);
            self.ways.push(Way { to, bundle: Bundle::new(alone_max), alone_max, shared_max });
            self.ways.len() - 1
        });
        &mut self.ways[place]
    }
}

impl Way {
    /// True if a packet fits the current bundle.
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
mod tests {
    use super::*;
    use crate::trunk::entries;

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// Destination and number of packets of each bundle sent.
    fn sent(act: impl FnOnce(&mut dyn FnMut(SocketAddr, &[u8]))) -> Vec<(u16, usize)> {
        let mut sent = Vec::new();
        act(&mut |to, bundle| sent.push((to.port(), entries(bundle).count())));
        sent
    }

    #[test]
    fn packets_of_one_destination_share_a_bundle() {
        let mut bundles = Bundles::default();
        let sent = sent(|mut send| {
            for (port, tag) in [(1, 1), (2, 2), (1, 3)] {
                assert!(bundles.push(address(port), Tag(tag), b"packet", &mut send));
            }
            bundles.flush(&mut send);
            bundles.flush(&mut send);
        });
        assert_eq!(sent, [(1, 2), (2, 1)]);
    }

    #[test]
    fn full_bundle_is_sent_and_the_next_begins() {
        let mut bundles = Bundles::default();
        let sent = sent(|mut send| {
            assert!(bundles.push(address(1), Tag(1), &[0; 800], &mut send));
            assert!(bundles.push(address(1), Tag(2), &[0; 800], &mut send));
            assert!(!bundles.push(address(1), Tag(3), &[0; 1_500], &mut send), "it never fits");
        });
        assert_eq!(sent, [(1, 1), (1, 1)]);
    }

    #[test]
    fn path_takes_bundles_as_large_as_received() {
        let mut bundles = Bundles::default();
        let sent = sent(|mut send| {
            assert!(bundles.push(address(1), Tag(1), &[0; 100], &mut send));
            bundles.came(address(1), 2_000, &mut send);
            assert!(bundles.push(address(1), Tag(1), &[0; 1_900], &mut send));
        });
        assert_eq!(sent, [(1, 1)]);
    }

    #[test]
    fn shared_bundles_respect_the_path_limit() {
        let mut bundles = Bundles::default();
        bundles.limit(address(1), 500);
        let sent = sent(|mut send| {
            for length in [200, 200, 200, 700] {
                assert!(bundles.push(address(1), Tag(1), &vec![0; length], &mut send));
            }
            assert!(bundles.push(address(2), Tag(1), &[0; 600], &mut send), "another way");
            assert!(bundles.push(address(2), Tag(1), &[0; 600], &mut send));
            bundles.flush(&mut send);
        });
        assert_eq!(sent, [(1, 2), (1, 1), (1, 1), (2, 2)]);
    }

    #[test]
    fn unused_destinations_are_forgotten() {
        let mut bundles = Bundles::default();
        let _ = sent(|mut send| {
            bundles.came(address(1), 1, &mut send);
            bundles.came(address(2), 1, &mut send);
        });
        bundles.keep(|to| to == address(2));
        assert_eq!(bundles.destinations(), 1);
    }
}
