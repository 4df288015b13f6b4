//! The bundles of a node: one per destination, so that packets of many sessions share datagrams.

use std::net::SocketAddr;
use std::time::Instant;

use super::bundle::{Bundle, ENTRY_OVERHEAD};
use super::repair::{REPAIR_EXCESS, TrunkRepair};
use super::{Tag, seal};
use crate::repair::window::RepairError;

/// Payload of an Ethernet frame after IPv4 and UDP: the limit of a datagram with a single packet,
/// unless the peer has sent a longer one.
pub(crate) const BUNDLE_MAX: usize = 1_472;

/// Limit of a datagram that packets share, until the path is probed: IPv6's minimum MTU of 1,280
/// would waste capacity; 1,500 less IPv6, UDP and some tunnel headers usually fits.
pub const SHARED_MAX: usize = 1_400;

/// Bundles by destination; few, as a gateway has one socket per worker and node.
#[derive(Default, Debug)]
pub struct Bundles {
    queues: Vec<BundleQueue>,
    /// Bytes that encryption adds to each datagram.
    overhead: usize,
}

#[derive(Debug)]
struct BundleQueue {
    to: SocketAddr,
    bundle: Bundle,
    /// Limit of a datagram with a single packet.
    alone_max: usize,
    /// Limit of a datagram that packets share.
    shared_max: usize,
    /// Set if the destination reads numbered bundles.
    repair: Option<Box<TrunkRepair>>,
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

    /// Notes whether the peer reads numbered bundles, as its last question says.
    pub fn set_numbered(
        &mut self,
        to: SocketAddr,
        is_numbered: bool,
        send: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        let way = self.way(to);
        if is_numbered != way.repair.is_some() {
            way.flush(send);
            way.repair = is_numbered.then(Box::default);
        }
    }

    /// Notes a bundle from a peer. Returns false if its packets were delivered before, since the bundle was recovered.
    pub fn handle_bundle(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let repair = self.repair_of(from);
        repair.is_none_or(|repair| repair.handle_bundle(datagram, now))
    }

    /// Handles a repair datagram or a report of losses. One of an unknown peer is ignored.
    ///
    /// # Errors
    /// Returns the fault of the datagram.
    pub fn handle_repair(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), RepairError> {
        self.repair_of(from).map_or(Ok(()), |repair| repair.handle_repair(datagram, now))
    }

    /// Writes a bundle that the last datagram of this peer recovered. Returns false if there is none.
    pub fn take_recovered(&mut self, from: SocketAddr, bundle: &mut Vec<u8>) -> bool {
        self.repair_of(from).is_some_and(|repair| repair.take_recovered(bundle))
    }

    /// Sends the reports of losses that are due, and ends repair that is no longer needed.
    pub fn handle_timeout(&mut self, now: Instant, send: &mut impl FnMut(SocketAddr, &[u8])) {
        for way in &mut self.queues {
            if let Some(report) = way.repair.as_mut().and_then(|repair| repair.poll_report(now)) {
                send(way.to, &report);
            }
        }
    }

    fn repair_of(&mut self, peer: SocketAddr) -> Option<&mut TrunkRepair> {
        let way = self.queues.iter_mut().find(|way| way.to == peer)?;
        way.repair.as_deref_mut()
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
            self.queues.push(BundleQueue { to, bundle, alone_max, shared_max, repair: None });
            self.queues.len() - 1
        });
        &mut self.queues[place]
    }
}

impl BundleQueue {
    /// Returns whether a packet fits the current bundle.
    fn has_room(&self, packet: &[u8]) -> bool {
        self.bundle.len() + REPAIR_EXCESS + ENTRY_OVERHEAD + packet.len() <= self.shared_max
    }

    fn flush(&mut self, send: &mut impl FnMut(SocketAddr, &[u8])) {
        if self.bundle.is_empty() {
            return;
        }
        match &mut self.repair {
            None => send(self.to, self.bundle.as_bytes()),
            Some(repair) => repair.send(&mut self.bundle, |datagram| send(self.to, datagram)),
        }
        self.bundle.clear();
    }
}

#[cfg(test)]
mod tests;
