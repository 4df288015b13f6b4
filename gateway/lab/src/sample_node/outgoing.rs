//! Packets on their way out: those of trunk legs in one bundle per destination, all others as they are.

use std::net::SocketAddr;

use evenkeel_media::trunk::{Bundle, Tag};

use crate::datagrams::Outbox;

/// What fits an Ethernet frame behind IPv4 and UDP. A leg that brought a larger bundle gets bundles as large.
const BUNDLE_MAX: usize = 1_472;

/// Where a session's packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leg {
    Trunk { tag: Tag, reply_to: SocketAddr },
    Port { source: SocketAddr },
}

#[derive(Default)]
pub(super) struct Outgoing {
    /// Few: a gateway has one socket per worker and node.
    trunks: Vec<Trunk>,
}

struct Trunk {
    reply_to: SocketAddr,
    bundle: Bundle,
    size_max: usize,
}

impl Outgoing {
    /// Learns how large a bundle the way to this address can be.
    pub(super) fn came(&mut self, from: SocketAddr, size: usize, outbox: &mut Outbox) {
        let trunk = self.trunk(from);
        if size > trunk.size_max {
            trunk.flush(outbox);
            trunk.size_max = size;
            trunk.bundle = Bundle::new(size);
        }
    }

    /// Adds a packet; false if it is too large for the leg.
    pub(super) fn push(&mut self, leg: Leg, packet: &[u8], outbox: &mut Outbox) -> bool {
        let (tag, reply_to) = match leg {
            Leg::Port { source } => {
                outbox.push(source, packet);
                return true;
            }
            Leg::Trunk { tag, reply_to } => (tag, reply_to),
        };
        let trunk = self.trunk(reply_to);
        if trunk.bundle.push(tag, packet) {
            return true;
        }
        trunk.flush(outbox);
        trunk.bundle.push(tag, packet)
    }

    pub(super) fn flush(&mut self, outbox: &mut Outbox) {
        for trunk in &mut self.trunks {
            trunk.flush(outbox);
        }
    }

    /// Forgets destinations that no session has.
    pub(super) fn keep(&mut self, known: impl Fn(SocketAddr) -> bool) {
        self.trunks.retain(|trunk| !trunk.bundle.is_empty() || known(trunk.reply_to));
    }

    fn trunk(&mut self, reply_to: SocketAddr) -> &mut Trunk {
        let index = match self.trunks.iter().position(|trunk| trunk.reply_to == reply_to) {
            Some(index) => index,
            None => {
                let bundle = Bundle::new(BUNDLE_MAX);
                self.trunks.push(Trunk { reply_to, bundle, size_max: BUNDLE_MAX });
                self.trunks.len() - 1
            }
        };
        &mut self.trunks[index]
    }
}

impl Trunk {
    fn flush(&mut self, outbox: &mut Outbox) {
        if !self.bundle.is_empty() {
            outbox.push(self.reply_to, self.bundle.as_bytes());
            self.bundle.clear();
        }
    }
}
