//! Packets from nodes: from trunks, and from sessions' own ports.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use evenkeel_media::trunk::{Tag, seal};
use evenkeel_media::{demux, trunk};
use evenkeel_model::NodeId;
use evenkeel_model::forward::DropReason;
use rustix::event::epoll;

use super::early::Outbound;
use super::egress::is_long;
use super::report::WorkerReport;
use super::session::{PacketContext, WorkerSession};
use super::slots::SessionSlots;
use super::sockets::{RtpSide, reason};
use super::{BATCHES_PER_TURN, PacketSource, PacketWorker};
use crate::mmsg::{BATCH, ReceiveBatch, drain_errors};

/// Datagrams per read from a session's port: a video frame.
const PER_PORT: usize = 16;

impl PacketWorker {
    pub(super) fn read_trunk(&mut self, node: NodeId, flags: epoll::EventFlags, now: Instant) {
        if flags.contains(epoll::EventFlags::ERR) {
            self.read_trunk_errors(node);
        }
        for _ in 0..BATCHES_PER_TURN {
            let Some(Some(trunk)) = self.egress.trunks.get(node.0 as usize) else { return };
            // After an error that belongs to an earlier send, epoll reports the socket again.
            let Ok(count) = self.inbox.fill(trunk.socket.as_fd()) else { return };
            self.read += count;
            let mut packets = 0;
            while let Some(place) = self.inbox.first() {
                packets += self.take_trunk_datagram(node, place, now);
                self.inbox.finish_first();
            }
            if packets > 0 {
                self.egress.stats.received(node, packets, now);
            }
            if count < BATCH {
                return;
            }
        }
        self.more_ready = true;
    }

    /// Reports the node's port closed if an error quotes a bundle of one of its sessions, or an encrypted datagram that
    /// was sent. Any other `ConnectionRefused` may be forged.
    #[cold]
    fn read_trunk_errors(&mut self, node: NodeId) {
        let PacketWorker { sessions, egress, .. } = self;
        let Some(Some(trunk)) = egress.trunks.get(node.0 as usize) else { return };
        let mut refused = false;
        drain_errors(trunk.socket.as_fd(), |_, error, quoted| {
            if error.kind() != io::ErrorKind::ConnectionRefused {
                return egress.count_drop(reason(&error));
            }
            let tag = trunk::first_tag(quoted);
            let is_open = |tag| sessions.with_tag(node, tag, |_, _| ()).is_some();
            refused |= trunk.has_sealed(quoted) || tag.is_some_and(is_open);
        });
        if refused {
            egress.report(WorkerReport::Refused(node));
        }
    }

    /// Handles a trunk datagram. Returns its number of packets.
    fn take_trunk_datagram(&mut self, node: NodeId, place: usize, now: Instant) -> u64 {
        let PacketWorker { inbox, sessions, egress, board, bundle_done, is_opened, .. } = self;
        let Some((mut datagram, _)) = inbox.datagram(place) else {
            egress.count_drop(DropReason::Oversize);
            return 0;
        };
        let (mut kind, long) = (demux::classify(datagram), is_long(datagram));
        // Media that is not encrypted is refused on an encrypted trunk; signed messages prove themselves.
        if kind == demux::DatagramKind::Sealed
            || (kind == demux::DatagramKind::Bundle && egress.is_sealed(node))
        {
            datagram = if std::mem::take(is_opened) {
                seal::content(datagram)
            } else {
                let Some(content) = egress.open(node, datagram) else { return 0 };
                content
            };
            kind = demux::classify(datagram);
            *is_opened = kind == demux::DatagramKind::Bundle;
        }
        match kind {
            demux::DatagramKind::Bundle => {}
            demux::DatagramKind::Signed => {
                egress.report(WorkerReport::Signed { node, message: Box::from(&*datagram) });
                return 0;
            }
            _ => {
                egress.count_drop(DropReason::Malformed);
                return 0;
            }
        }
        if long {
            egress.stats.long(node);
        }
        let mut entries = trunk::entries(datagram);
        entries.by_ref().take(*bundle_done).for_each(drop);
        for entry in entries {
            let Ok((tag, packet)) = entry else {
                egress.count_drop(DropReason::Malformed);
                break;
            };
            take_trunk_packet(
                sessions,
                node,
                tag,
                packet,
                &mut PacketContext { egress, board, now },
            );
            *bundle_done += 1;
        }
        *is_opened = false;
        std::mem::take(bundle_done) as u64
    }

    /// Reads a session's port. Epoll reports it once, so it is read until it is empty.
    pub(super) fn read_port(
        &mut self,
        slot: u32,
        side: RtpSide,
        flags: epoll::EventFlags,
        now: Instant,
    ) {
        let PacketWorker { inbox, sessions, egress, board, .. } = self;
        let cx = &mut PacketContext { egress, board, now };
        let turn = sessions.with_slot(slot, |session| {
            let fd = session.nodes.fd(side)?;
            // Without flags the read continues an earlier pass. If a panic ended that pass, epoll does not report the
            // errors a second time.
            if flags.is_empty() || flags.contains(epoll::EventFlags::ERR) {
                drain_errors(fd, |address, error, quoted| {
                    session.send_failed(address, &error, quoted, cx);
                });
            }
            match inbox.receive_at_most(PER_PORT, fd) {
                Ok(count) => {
                    (0..count).for_each(|place| take_port_datagram(session, inbox, place, cx));
                    Some((count, count == PER_PORT))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                // The error belongs to an earlier send; datagrams may remain.
                Err(_) => Some((0, true)),
            }
        });
        let Some((count, may_have_more)) = turn.flatten() else { return };
        self.read += count;
        if may_have_more {
            self.mark_unread(PacketSource::Port(slot, side));
        }
    }

    /// Retries packets that arrived before the command that adds their tag.
    pub(super) fn retry_early(&mut self, now: Instant) {
        self.take_commands(now);
        let PacketWorker { sessions, egress, board, .. } = self;
        for _ in 0..egress.early.inbound.len() {
            if let Some(early) = egress.early.inbound.pop_front() {
                let cx = &mut PacketContext { egress, board, now };
                take_trunk_packet(sessions, early.node, early.tag, &early.packet, cx);
            }
        }
        // Packets whose tag is still unknown were queued again. They are dropped without a third attempt.
        while egress.early.inbound.pop_front().is_some() {
            egress.count_drop(DropReason::UnknownTag);
        }
    }

    /// Sends clients' packets whose leg was added meanwhile.
    pub(super) fn send_early(&mut self, now: Instant) {
        let PacketWorker { sessions, egress, board, .. } = self;
        let has_leg =
            |home, hop| sessions.with(home, |session| session.nodes.has_leg(hop)).unwrap_or(false);
        for _ in 0..egress.early.sort_out(now, has_leg) {
            egress.count_drop(DropReason::NotOpened);
        }
        while let Some(Outbound { home, hop, side, kind, packet, .. }) =
            egress.early.ready.pop_front()
        {
            let cx = &mut PacketContext { egress, board, now };
            sessions.with(home, |session| session.send_to_node(hop, side, kind, &packet, cx));
        }
    }
}

fn take_port_datagram(
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

fn take_trunk_packet(
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
