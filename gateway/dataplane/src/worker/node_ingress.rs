//! Datagrams from nodes, over trunks and over sessions' own ports.

use evenkeel_media::trunk::{Tag, seal};
use evenkeel_media::{demux, trunk};
use evenkeel_model::{DropReason, NodeId};

use super::egress::{PacketContext, is_long};
use super::report::WorkerReport;
use super::session::WorkerSession;
use super::slots::SessionSlots;
use crate::mmsg::ReceiveBatch;

/// Delivers the packets of a trunk datagram. After a panic it goes on behind the packet that caused it.
#[derive(Default)]
pub(crate) struct NodeIngress {
    /// Packets of the current bundle that were handled already.
    bundle_done: usize,
    /// True if the current datagram was decrypted in place.
    is_opened: bool,
    /// Buffer for a bundle that was lost and recovered.
    recovered: Vec<u8>,
}

impl NodeIngress {
    /// Handles a trunk datagram. Returns its number of packets.
    pub(super) fn deliver(
        &mut self,
        sessions: &mut SessionSlots,
        node: NodeId,
        mut datagram: &mut [u8],
        cx: &mut PacketContext<'_>,
    ) -> u64 {
        let (mut kind, long) = (demux::classify(datagram), is_long(datagram));
        // Media that is not encrypted is refused on an encrypted trunk; signed messages prove themselves.
        if kind == demux::DatagramKind::Sealed || (is_media(kind) && cx.egress.is_sealed(node)) {
            datagram = if std::mem::take(&mut self.is_opened) {
                seal::content(datagram)
            } else {
                let Some(content) = cx.egress.open(node, datagram) else { return 0 };
                content
            };
            kind = demux::classify(datagram);
            self.is_opened = is_media(kind);
        }
        let is_open = |tag| sessions.with_tag(node, tag, |_, _| ()).is_some();
        match kind {
            demux::DatagramKind::Bundle => {
                if long {
                    cx.egress.stats.long(node);
                }
                if cx.egress.note_bundle(node, datagram, is_open, cx.now) {
                    self.deliver_bundle(sessions, node, datagram, cx);
                }
            }
            demux::DatagramKind::TrunkRepair => {
                if let Err(reason) = cx.egress.handle_repair(node, datagram, is_open, cx.now) {
                    cx.egress.count_drop(reason);
                }
            }
            demux::DatagramKind::Signed => {
                cx.egress.report(WorkerReport::Signed { node, message: Box::from(&*datagram) });
                return 0;
            }
            _ => {
                cx.egress.count_drop(DropReason::Malformed);
                return 0;
            }
        }
        let recovered = self.deliver_recovered(sessions, node, cx);
        self.is_opened = false;
        std::mem::take(&mut self.bundle_done) as u64 + recovered
    }

    fn deliver_bundle(
        &mut self,
        sessions: &mut SessionSlots,
        node: NodeId,
        bundle: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let mut entries = trunk::entries(bundle);
        entries.by_ref().take(self.bundle_done).for_each(drop);
        for entry in entries {
            let Ok((tag, packet)) = entry else {
                cx.egress.count_drop(DropReason::Malformed);
                break;
            };
            deliver_packet(sessions, node, tag, packet, cx);
            self.bundle_done += 1;
        }
    }

    /// Delivers the bundles that the datagram recovered. Returns their number of packets. After a panic the rest of them is lost.
    fn deliver_recovered(
        &mut self,
        sessions: &mut SessionSlots,
        node: NodeId,
        cx: &mut PacketContext<'_>,
    ) -> u64 {
        let (mut bundle, mut packets) = (std::mem::take(&mut self.recovered), 0);
        while cx.egress.take_recovered(node, &mut bundle) {
            for (tag, packet) in trunk::entries(&bundle).map_while(Result::ok) {
                deliver_packet(sessions, node, tag, packet, cx);
                packets += 1;
            }
        }
        self.recovered = bundle;
        packets
    }
}

/// Returns whether this is the kind of datagrams that an encrypted trunk encrypts always.
fn is_media(kind: demux::DatagramKind) -> bool {
    matches!(kind, demux::DatagramKind::Bundle | demux::DatagramKind::TrunkRepair)
}

/// Handles a datagram that was read from a session's port.
pub(super) fn deliver_from_port(
    session: &mut WorkerSession,
    inbox: &mut ReceiveBatch,
    place: usize,
    cx: &mut PacketContext<'_>,
) {
    let Some((datagram, source)) = inbox.datagram(place) else {
        return cx.egress.count_drop(DropReason::Oversize);
    };
    let Some(hop) = session.hop_at(source, cx) else {
        return cx.egress.count_drop(DropReason::UnknownSource);
    };
    match session.unprotect_from_node(hop, datagram) {
        Ok(packet) => {
            cx.egress.stats.received(hop.node, 1, cx.now);
            session.handle_node_packet(hop, packet, cx);
        }
        Err(reason) => cx.egress.count_drop(reason),
    }
}

/// Handles a packet of a trunk datagram. It waits if no session has its tag yet.
pub(super) fn deliver_packet(
    sessions: &mut SessionSlots,
    node: NodeId,
    tag: Tag,
    packet: &[u8],
    cx: &mut PacketContext<'_>,
) {
    let take = |session: &mut WorkerSession, hop| session.handle_node_packet(hop, packet, cx);
    match sessions.with_tag(node, tag, take) {
        Some(()) => {}
        None if cx.egress.early.keep_inbound(node, tag, packet) => {}
        None => cx.egress.count_drop(DropReason::UnknownTag),
    }
}
