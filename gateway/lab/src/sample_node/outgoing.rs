//! Outgoing packets: bundled per destination on trunk legs, one by one on port legs.

use std::net::SocketAddr;

use evenkeel_media::trunk::{Bundles, Tag};

use crate::datagrams::Outbox;

/// The destination of a session's packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leg {
    Trunk { tag: Tag, reply_to: SocketAddr },
    Port { source: SocketAddr },
}

#[derive(Default)]
pub(super) struct Outgoing {
    bundles: Bundles,
}

impl Outgoing {
    /// Learns the largest bundle for this destination from a received one.
    pub(super) fn came(&mut self, from: SocketAddr, size: usize, outbox: &mut Outbox) {
        self.bundles.came(from, size, &mut |to, bundle| outbox.push(to, bundle));
    }

    /// Learns how long shared datagrams to this address may be.
    pub(super) fn limit(&mut self, to: SocketAddr, bundle_max: u16) {
        self.bundles.limit(to, bundle_max.into());
    }

    /// Adds a packet. Returns false if it is too large for the leg.
    pub(super) fn push(&mut self, leg: Leg, packet: &[u8], outbox: &mut Outbox) -> bool {
        match leg {
            Leg::Port { source } => {
                outbox.push(source, packet);
                true
            }
            Leg::Trunk { tag, reply_to } => {
                let send = &mut |to: SocketAddr, bundle: &[u8]| outbox.push(to, bundle);
                self.bundles.push(reply_to, tag, packet, send)
            }
        }
    }

    pub(super) fn flush(&mut self, outbox: &mut Outbox) {
        self.bundles.flush(&mut |to, bundle| outbox.push(to, bundle));
    }

    /// Forgets destinations that no session has.
    pub(super) fn keep(&mut self, known: impl Fn(SocketAddr) -> bool) {
        self.bundles.keep(known);
    }

    #[cfg(test)]
    pub(super) fn destinations(&self) -> usize {
        self.bundles.destinations()
    }
}
