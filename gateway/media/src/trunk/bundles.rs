//! The bundles of a node: one per destination, so that packets of many sessions share datagrams.

use std::net::SocketAddr;
use std::time::Instant;

use super::bundle::{self, Bundle, ENTRY_OVERHEAD};
use super::repair::{REPAIR_EXCESS, TrunkRepair};
use super::{Tag, seal};
use crate::demux::{self, DatagramKind};

/// Payload of an Ethernet frame after IPv4 and UDP: the limit of a datagram with a single packet,
/// unless the peer has sent a longer one.
pub(crate) const BUNDLE_MAX: usize = 1_472;

/// Limit of a datagram that packets share, until the path is probed: IPv6's minimum MTU of 1,280
/// would waste capacity; 1,500 less IPv6, UDP and some tunnel headers usually fits.
pub const SHARED_MAX: usize = 1_400;

/// Bundles by destination; few, as a gateway has one socket per worker and node.
#[derive(Debug)]
pub struct Bundles {
    queues: Vec<BundleQueue>,
    /// The number of the first numbered bundle to each destination.
    first_number: u16,
    /// Bytes that encryption adds to each datagram.
    overhead: usize,
    /// Buffer for a bundle that was lost and recovered.
    recovered: Vec<u8>,
}

/// A bundle, a repair datagram, or a report of losses, as a node received it.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedDatagram<'a> {
    /// Decrypted, if it was encrypted.
    pub content: &'a [u8],
    /// Bytes on the path.
    pub length: usize,
    pub source: SocketAddr,
    /// Encryption proves the sender.
    pub is_sealed: bool,
}

/// The packets that a datagram brought for sessions of a node, and the number of those that were refused. Keeps its memory when it is
/// filled again.
#[derive(Default, Debug)]
pub struct ReceivedPackets {
    /// A bundle of them.
    accepted: Vec<u8>,
    /// Bundles that were lost on the way and restored.
    pub bundles_recovered: u64,
    pub unknown_tag: u64,
    /// From another address than that of the session's gateway.
    pub unknown_source: u64,
    pub malformed: u64,
}

impl ReceivedPackets {
    /// The accepted packets, in order, those of restored bundles last.
    pub fn packets(&self) -> impl Iterator<Item = (Tag, &[u8])> {
        bundle::entries(&self.accepted).map_while(Result::ok)
    }

    fn clear(&mut self) {
        let mut accepted = std::mem::take(&mut self.accepted);
        accepted.clear();
        accepted.push(demux::BUNDLE);
        *self = ReceivedPackets { accepted, ..ReceivedPackets::default() };
    }
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
    /// `first_number` is random ([`TrunkRepair::new`]).
    pub fn new(first_number: u16) -> Self {
        Self { queues: Vec::new(), first_number, overhead: 0, recovered: Vec::new() }
    }

    /// Bundles that will be encrypted ([`seal`](super::seal)).
    pub fn sealed(first_number: u16) -> Self {
        Self { overhead: seal::OVERHEAD, ..Self::new(first_number) }
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
        let first_number = self.first_number;
        let way = self.way(to);
        if is_numbered != way.repair.is_some() {
            way.flush(send);
            way.repair = is_numbered.then(|| Box::new(TrunkRepair::new(first_number)));
        }
    }

    /// Handles a bundle, a repair datagram, or a report of losses. `reply_to` returns the address of the gateway of a session: bundles are
    /// not signed, so an unencrypted one has to come from there.
    pub fn receive(
        &mut self,
        datagram: &ReceivedDatagram<'_>,
        reply_to: impl Fn(Tag) -> Option<SocketAddr>,
        now: Instant,
        received: &mut ReceivedPackets,
        send: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        received.clear();
        let ReceivedDatagram { content, source, .. } = *datagram;
        let first_tag = bundle::first_tag(content);
        let is_of_session = first_tag.and_then(&reply_to) == Some(source);
        if demux::classify(content) == DatagramKind::Bundle {
            let repair = self.repair_of(source).filter(|_| is_of_session);
            if repair.is_none_or(|repair| repair.handle_bundle(content, now)) {
                self.accept(datagram, &reply_to, received, send);
            }
        } else if first_tag.is_some() && !is_of_session {
            // A report has the tag of a session, as a bundle has. Repair datagrams are of use only with bundles.
            received.unknown_source += 1;
            return;
        } else if let Some(repair) = self.repair_of(source)
            && repair.handle_repair(content, now).is_err()
        {
            received.malformed += 1;
        }
        let mut recovered = std::mem::take(&mut self.recovered);
        while self.repair_of(source).is_some_and(|repair| repair.take_recovered(&mut recovered)) {
            received.bundles_recovered += 1;
            let (content, length) = (&recovered[..], recovered.len());
            let restored = ReceivedDatagram { content, length, ..*datagram };
            self.accept(&restored, &reply_to, received, send);
        }
        self.recovered = recovered;
    }

    /// Adds the packets of a bundle that sessions of its sender may get.
    fn accept(
        &mut self,
        datagram: &ReceivedDatagram<'_>,
        reply_to: &impl Fn(Tag) -> Option<SocketAddr>,
        received: &mut ReceivedPackets,
        send: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        for entry in bundle::entries(datagram.content) {
            let Ok((tag, packet)) = entry else {
                received.malformed += 1;
                return;
            };
            match reply_to(tag) {
                None => received.unknown_tag += 1,
                Some(gateway) if gateway != datagram.source && !datagram.is_sealed => {
                    received.unknown_source += 1;
                }
                Some(gateway) => {
                    self.handle_size(gateway, datagram.length, send);
                    bundle::write_entry(tag, packet, &mut received.accepted);
                }
            }
        }
    }

    /// Notes that a peer sent a datagram of this size, so that bundles of this size may be sent back.
    fn handle_size(
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
