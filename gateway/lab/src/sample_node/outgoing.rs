//! Outgoing packets: bundled per destination on trunk legs, one by one on port legs.

use std::net::SocketAddr;

use evenkeel_media::trunk::seal::{self, SealError, SealSender};
use evenkeel_media::trunk::{Bundles, Tag};

use crate::datagrams::DatagramOutbox;

/// The destination of a session's packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionLeg {
    Trunk { tag: Tag, reply_to: SocketAddr },
    Port { source: SocketAddr },
}

#[derive(Default)]
pub(super) struct Outgoing {
    bundles: Bundles,
    /// Set if trunk legs are encrypted.
    seal: Option<seal::NodeSeal>,
}

impl Outgoing {
    pub(super) fn sealed(seal: seal::NodeSeal) -> Self {
        Self { bundles: Bundles::sealed(), seal: Some(seal) }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Decrypts a datagram in place.
    pub(super) fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        source: SocketAddr,
    ) -> Result<(&'a mut [u8], SealSender), SealError> {
        self.seal.as_mut().ok_or(SealError::Forged)?.open(datagram, source)
    }

    /// Learns the sender of an encrypted message that was accepted.
    pub(super) fn learn(&mut self, sender: SealSender) {
        if let Some(seal) = &mut self.seal {
            seal.learn(sender);
        }
    }

    /// Sends an answer, encrypted as its question was.
    pub(super) fn answer(
        &mut self,
        to: SocketAddr,
        answer: &[u8],
        sealed: bool,
        outbox: &mut DatagramOutbox,
    ) {
        send(self.seal.as_mut().filter(|_| sealed), to, answer, outbox);
    }

    /// Learns the largest datagram for this destination from a received one.
    pub(super) fn came(&mut self, from: SocketAddr, size: usize, outbox: &mut DatagramOutbox) {
        let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, outbox);
        self.bundles.came(from, size, send);
    }

    /// Learns how long shared datagrams to this address may be.
    pub(super) fn limit(&mut self, to: SocketAddr, bundle_max: u16) {
        self.bundles.limit(to, bundle_max.into());
    }

    /// Adds a packet. Returns false if it is too large for the leg.
    pub(super) fn push(
        &mut self,
        leg: SessionLeg,
        packet: &[u8],
        outbox: &mut DatagramOutbox,
    ) -> bool {
        match leg {
            SessionLeg::Port { source } => {
                outbox.push(source, packet);
                true
            }
            SessionLeg::Trunk { tag, reply_to } => {
                let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, outbox);
                self.bundles.push(reply_to, tag, packet, send)
            }
        }
    }

    pub(super) fn flush(&mut self, outbox: &mut DatagramOutbox) {
        self.bundles.flush(&mut |to, bundle| send(self.seal.as_mut(), to, bundle, outbox));
    }

    /// Forgets destinations that no session has.
    pub(super) fn keep(&mut self, known: impl Fn(SocketAddr) -> bool) {
        self.bundles.keep(&known);
        if let Some(seal) = &mut self.seal {
            seal.keep(known);
        }
    }

    #[cfg(test)]
    pub(super) fn destinations(&self) -> usize {
        self.bundles.destinations()
    }
}

/// Sends a datagram, encrypted if there is a key. A socket without sessions may be unknown; it gets nothing.
fn send(
    seal: Option<&mut seal::NodeSeal>,
    to: SocketAddr,
    datagram: &[u8],
    outbox: &mut DatagramOutbox,
) {
    match seal.map(|seal| seal.seal(to, datagram)) {
        None => outbox.push(to, datagram),
        Some(Some(sealed)) => outbox.push(to, sealed),
        Some(None) => {}
    }
}
