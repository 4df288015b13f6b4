//! What comes in: from clients, other workers, the QUIC thread and nodes, a batch at a time, to the session it is for.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use evenkeel_core::NodeId;
use evenkeel_core::forward::Reason;
use evenkeel_media::trunk::Tag;
use evenkeel_media::{demux, trunk};
use rustix::event::epoll;

use super::arrival::{Arrival, Kind};
use super::command::Report;
use super::egress::{Side, Ways};
use super::session::{Loan, Session};
use super::sessions::Sessions;
use super::source::Source;
use super::{Worker, egress, tags};
use crate::flows::Home;
use crate::mmsg::{BATCH, Inbox, drain_errors};
use crate::ring;

/// Batches read from one socket or ring before others get their turn.
const BATCHES_PER_TURN: usize = 4;

/// Datagrams read at a time from a port of one session: a video frame.
const PER_PORT: usize = 16;

impl Worker {
    pub(super) fn read_listener(&mut self, listener: u8, side: Side, now: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let (rtp, rtcp) = &self.ways.listeners[usize::from(listener)];
            let port = match side {
                Side::Rtp => rtp,
                Side::Rtcp => rtcp.as_ref().unwrap_or(rtp),
            };
            let Ok(count) = self.inbox.fill(port.socket.as_fd()) else {
                return;
            };
            self.read += count;
            while let Some(place) = self.inbox.first() {
                self.take_client_datagram(listener, side, place, now);
                self.inbox.done();
            }
            if count < BATCH {
                return;
            }
        }
        self.more_ready = true;
    }

    fn take_client_datagram(&mut self, listener: u8, side: Side, place: usize, now: Instant) {
        let Some((datagram, source)) = self.inbox.datagram(place) else {
            return self.ways.drop(Reason::Oversize);
        };
        let from = (listener, source);
        let Some((home, kind)) = self.ingress.judge(from, side, datagram, &self.ways, now) else {
            return;
        };
        let arrival = Arrival { listener, source, kind };
        if home.worker != self.number {
            return self.ways.carry(home, arrival, datagram);
        }
        self.deliver(home, arrival, place, now);
    }

    /// Hands a datagram of the inbox to its session at home here.
    fn deliver(&mut self, home: Home, arrival: Arrival, place: usize, now: Instant) {
        if !self.sessions.has(home) {
            // Its client was told of it before we were: control's word is waiting.
            self.take_commands(now);
        }
        let Worker { number, inbox, sessions, ways, board, ingress, .. } = self;
        let Some((datagram, _)) = inbox.datagram(place) else {
            return;
        };
        let loan = &mut Loan { ways, board, now };
        let deliver = |session: &mut Session| ingress.deliver(session, arrival, datagram, loan);
        match sessions.lend(home, deliver) {
            Some(None) => {}
            Some(Some(before)) => take_address(sessions, ways, *number, before, arrival),
            None => {
                ingress.forget_source((arrival.listener, arrival.source));
                ways.drop(Reason::UnknownSource);
            }
        }
    }

    pub(super) fn read_worker(&mut self, number: u16, now: Instant) {
        // As above: what is in the ring may be of a session that control's word is waiting of.
        self.take_commands(now);
        let Worker { number: own, from_workers, sessions, ways, board, ingress, .. } = self;
        let Some(ring) = from_workers.get_mut(usize::from(number)) else {
            return;
        };
        let more = drain(ring, |meta, bytes| {
            let Some((arrival, datagram)) = Arrival::read(bytes) else {
                return;
            };
            let loan = &mut Loan { ways, board, now };
            let deliver = |session: &mut Session| ingress.deliver(session, arrival, datagram, loan);
            match sessions.lend(meta.home, deliver) {
                Some(None) => {}
                Some(Some(before)) => take_address(sessions, ways, *own, before, arrival),
                None => ways.drop(Reason::UnknownSource),
            }
        });
        if more {
            self.go_on_with(Source::Worker(number));
        }
    }

    pub(super) fn read_quic(&mut self, now: Instant) {
        self.take_commands(now);
        let Worker { from_quic, sessions, ways, board, .. } = self;
        let Some(ring) = from_quic else {
            return;
        };
        let more = drain(ring, |meta, packet| {
            let loan = &mut Loan { ways, board, now };
            let known = sessions.lend(meta.home, |session| match meta.kind {
                ring::Kind::Media => session.handle_client_packet(packet, loan),
                ring::Kind::Feedback { rtt_us, lost, sent } => {
                    session.quic_path((rtt_us, lost, sent), loan);
                }
                ring::Kind::Attached => session.heard(loan),
                // Another connection may come; silence ends the session if none does.
                ring::Kind::Detached => {}
            });
            if known.is_none() {
                ways.drop(Reason::UnknownFlow);
            }
        });
        if more {
            self.go_on_with(Source::Quic);
        }
    }

    pub(super) fn read_trunk(&mut self, node: NodeId, now: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let Some(Some(trunk)) = self.ways.trunks.get(node.0 as usize) else {
                return;
            };
            let count = match self.inbox.fill(trunk.socket.as_fd()) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        self.ways.trunk_refused(node);
                    }
                    return;
                }
            };
            self.read += count;
            let mut packets = 0;
            while let Some(place) = self.inbox.first() {
                packets += self.take_trunk_datagram(node, place, now);
                self.inbox.done();
            }
            if packets > 0 {
                self.ways.stamps.received(node, packets, now);
            }
            if count < BATCH {
                return;
            }
        }
        self.more_ready = true;
    }

    /// How many packets were in it.
    fn take_trunk_datagram(&mut self, node: NodeId, place: usize, now: Instant) -> u64 {
        let Worker { inbox, sessions, ways, board, handed_on, .. } = self;
        let Some((datagram, _)) = inbox.datagram(place) else {
            ways.drop(Reason::Oversize);
            return 0;
        };
        match demux::classify(datagram) {
            demux::Kind::Bundle => {}
            demux::Kind::Signed => {
                ways.report(Report::Signed { node, message: Box::from(&*datagram) });
                return 0;
            }
            _ => {
                ways.drop(Reason::Malformed);
                return 0;
            }
        }
        if egress::is_long(datagram) {
            ways.stamps.long(node);
        }
        let mut entries = trunk::entries(datagram);
        entries.by_ref().take(*handed_on).for_each(drop);
        for entry in entries {
            let Ok((tag, packet)) = entry else {
                ways.drop(Reason::Malformed);
                break;
            };
            hand_on(sessions, node, tag, packet, &mut Loan { ways, board, now });
            *handed_on += 1;
        }
        std::mem::take(handed_on) as u64
    }

    fn take_trunk_packet(&mut self, node: NodeId, tag: Tag, packet: &[u8], now: Instant) {
        let Worker { sessions, ways, board, .. } = self;
        hand_on(sessions, node, tag, packet, &mut Loan { ways, board, now });
    }

    /// A port tells once that something came: it is read until there is no more.
    pub(super) fn read_port(
        &mut self,
        slot: u32,
        side: Side,
        flags: epoll::EventFlags,
        now: Instant,
    ) {
        let Worker { inbox, sessions, ways, board, .. } = self;
        let loan = &mut Loan { ways, board, now };
        let turn = sessions.lend_slot(slot, |session| {
            let fd = session.ports.as_ref().and_then(|ports| ports.fd(side))?;
            // Read on unasked, it may be for a pass that broke off: then nobody says a second time that there are errors.
            if flags.is_empty() || flags.contains(epoll::EventFlags::ERR) {
                drain_errors(fd, |address, error| session.accused(address, &error, loan));
            }
            match inbox.receive_at_most(PER_PORT, fd) {
                Ok(count) => {
                    (0..count).for_each(|place| take_port_datagram(session, inbox, place, loan));
                    Some((count, count == PER_PORT))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                // It told of something sent before; what came is still there.
                Err(_) => Some((0, true)),
            }
        });
        let Some((count, may_have_more)) = turn.flatten() else {
            return;
        };
        self.read += count;
        if may_have_more {
            self.go_on_with(Source::Port(slot, side));
        }
    }

    /// What came before its way was there: by now control may have told of it.
    pub(super) fn serve_early(&mut self, now: Instant) {
        self.take_commands(now);
        for _ in 0..self.ways.early.inbound() {
            if let Some(packet) = self.ways.early.take_inbound() {
                self.take_trunk_packet(packet.node, packet.tag, &packet.packet, now);
            }
        }
        // Those with a tag that is still unknown came back; they do not get a third look.
        while self.ways.early.take_inbound().is_some() {
            self.ways.drop(Reason::UnknownTag);
        }
    }

    /// Sends the clients' packets whose leg is there now.
    pub(super) fn send_waiting(&mut self, now: Instant) {
        let Worker { sessions, ways, board, .. } = self;
        let has_leg =
            |home, hop| sessions.lend(home, |session| session.has_leg(hop)).unwrap_or(false);
        for _ in 0..ways.early.sort_out(now, has_leg) {
            ways.drop(Reason::NotOpened);
        }
        while let Some(waiting) = ways.early.take_ready() {
            let loan = &mut Loan { ways, board, now };
            sessions.lend(waiting.home, |session| session.send_early(&waiting, loan));
        }
    }
}

/// The client that this came from was that session's until now.
fn take_address(
    sessions: &mut Sessions,
    ways: &mut Ways,
    number: u16,
    before: Home,
    arrival: Arrival,
) {
    if before.worker != number {
        return ways.carry(before, Arrival { kind: Kind::Taken, ..arrival }, &[]);
    }
    sessions.lend(before, |session| session.lost((arrival.listener, arrival.source)));
}

/// Hands a datagram that came to the session's own port to it.
fn take_port_datagram(session: &mut Session, inbox: &mut Inbox, place: usize, loan: &mut Loan<'_>) {
    let Some((datagram, source)) = inbox.datagram(place) else {
        return loan.ways.drop(Reason::Oversize);
    };
    let Some(hop) = session.hop_at(source, loan) else {
        return loan.ways.drop(Reason::UnknownSource);
    };
    loan.ways.stamps.received(hop.node, 1, loan.now);
    session.handle_node_packet(hop, datagram, loan);
}

/// Hands a node's packet to the session with its tag.
fn hand_on(sessions: &mut Sessions, node: NodeId, tag: Tag, packet: &[u8], loan: &mut Loan<'_>) {
    let take = |session: &mut Session, hop| session.handle_node_packet(hop, packet, loan);
    match tags::lend(sessions, node, tag, take) {
        Some(()) => {}
        None if loan.ways.early.keep_inbound(node, tag, packet) => {}
        None => loan.ways.drop(Reason::UnknownTag),
    }
}

/// Takes a turn's batches out of a ring. Whether there may be more: only an empty one wakes us again.
fn drain(ring: &mut ring::Receiver, mut take: impl FnMut(&ring::Meta, &[u8])) -> bool {
    (0..BATCHES_PER_TURN).all(|_| ring.pop_batch(BATCH, &mut take) == BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_full_gives_others_their_turn() {
        let (mut sender, mut receiver) = ring::channel(1_024).unwrap();
        let home = Home { worker: 0, slot: 0, generation: 1 };
        let meta = ring::Meta { home, kind: ring::Kind::Media, flow: 0 };
        let all = BATCH * BATCHES_PER_TURN + 1;
        (0..all).for_each(|_| sender.push(meta, b"packet").unwrap());
        let mut taken = 0;
        assert!(drain(&mut receiver, |_, _| taken += 1));
        assert_eq!(taken, all - 1);
        assert!(!drain(&mut receiver, |_, _| taken += 1), "and then it is empty, and wakes us");
        assert_eq!(taken, all);
    }
}
