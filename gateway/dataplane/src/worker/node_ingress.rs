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
        if kind == demux::DatagramKind::Sealed
            || (kind == demux::DatagramKind::Bundle && cx.egress.is_sealed(node))
        {
            datagram = if std::mem::take(&mut self.is_opened) {
                seal::content(datagram)
            } else {
                let Some(content) = cx.egress.open(node, datagram) else { return 0 };
                content
            };
            kind = demux::classify(datagram);
            self.is_opened = kind == demux::DatagramKind::Bundle;
        }
        match kind {
            demux::DatagramKind::Bundle => {}
            demux::DatagramKind::Signed => {
                cx.egress.report(WorkerReport::Signed { node, message: Box::from(&*datagram) });
                return 0;
            }
            _ => {
                cx.egress.count_drop(DropReason::Malformed);
                return 0;
            }
        }
        if long {
            cx.egress.stats.long(node);
        }
        let mut entries = trunk::entries(datagram);
        entries.by_ref().take(self.bundle_done).for_each(drop);
        for entry in entries {
            let Ok((tag, packet)) = entry else {
                cx.egress.count_drop(DropReason::Malformed);
                break;
            };
            deliver_packet(sessions, node, tag, packet, cx);
            self.bundle_done += 1;
        }
        self.is_opened = false;
        std::mem::take(&mut self.bundle_done) as u64
    }
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
