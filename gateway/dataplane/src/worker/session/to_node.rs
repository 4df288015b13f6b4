//! From the client to the room's node: parse, measure, take the hop, send by the leg there.

use std::net::SocketAddr;

use evenkeel_core::forward::{self, Reason, Verdict};
use evenkeel_core::{Hop, Kind, Srtp};
use evenkeel_media::{demux, rtp};

use super::{Loan, Session, Talk};
use crate::worker::command::Leg;
use crate::worker::early::Outbound;
use crate::worker::egress::Side;
use crate::worker::stats::Way;

impl Session {
    /// A packet of the client's, from a source that may send.
    pub(crate) fn handle_client_packet(&mut self, packet: &[u8], loan: &mut Loan<'_>) {
        self.stir(loan);
        match demux::classify(packet) {
            demux::Kind::Rtp => self.rtp_from_client(packet, loan),
            demux::Kind::Rtcp => self.rtcp_from_client(packet, loan),
            _ => loan.ways.drop(Reason::Malformed),
        }
    }

    fn rtp_from_client(&mut self, packet: &[u8], loan: &mut Loan<'_>) {
        let Ok(header) = rtp::Header::parse(packet) else {
            return loan.ways.drop(Reason::Malformed);
        };
        let Some((kind, payload)) = self.media.payload_type(header.payload_type) else {
            return loan.ways.drop(Reason::UndeclaredPayload);
        };
        let clock_rate = payload.clock_rate;
        let talk = self.talk();
        talk.totals.packets_up += 1;
        talk.totals.bytes_up += packet.len() as u64;
        talk.measure.received(&header, packet.len(), clock_rate, loan.now);
        talk.feedback.heard(header.ssrc, kind);
        let hop = match forward::to_node(&self.route, loan.board) {
            Verdict::Pass { hop, .. } => hop,
            Verdict::Both([hop, twin]) => {
                self.send_copy(twin, Side::Rtp, kind, packet, loan);
                hop
            }
            Verdict::Drop(reason) => return loan.ways.drop(reason),
        };
        self.talk().flow.sent[kind as usize] += 1;
        self.send_to_node(hop, Side::Rtp, kind, packet, loan);
    }

    fn rtcp_from_client(&mut self, packet: &[u8], loan: &mut Loan<'_>) {
        // What is encrypted says nothing.
        let plain = self.media.srtp == Srtp::Plain;
        let Talk { measure, continuity, .. } = self.talk();
        measure.heard(loan.now);
        if plain {
            measure.read_reports(packet, |ssrc| continuity.clock_rate(ssrc), loan.now);
        }
        let (hop, twin) = match forward::to_node(&self.route, loan.board) {
            Verdict::Pass { hop, .. } => (hop, None),
            Verdict::Both([hop, twin]) => (hop, Some(twin)),
            Verdict::Drop(reason) => return loan.ways.drop(reason),
        };
        // Rewriting needs bytes of our own; RTCP is some packets a second.
        let mut packet = packet.to_vec();
        match self.talk().continuity.rtcp_to_node(&mut packet) {
            Ok(length) => {
                let packet = &packet[..length];
                if let Some(twin) = twin {
                    self.send_copy(twin, Side::Rtcp, Kind::Audio, packet, loan);
                }
                self.send_to_node(hop, Side::Rtcp, Kind::Audio, packet, loan);
            }
            Err(_) => loan.ways.drop(Reason::Feedback),
        }
    }

    pub(super) fn send_to_node(
        &mut self,
        hop: Hop,
        side: Side,
        kind: Kind,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        let Some((_, leg)) = self.legs.iter().find(|(at, _)| *at == hop) else {
            let early = &mut loan.ways.early;
            if !early.keep_outbound((self.home, hop), (side, kind), packet, loan.now) {
                loan.ways.drop(Reason::NotOpened);
            }
            return;
        };
        loan.ways.stamps.passed(Way::ToNode, packet.len());
        match leg {
            Leg::Trunk(tag) => loan.ways.on_trunk(hop.node, *tag, packet),
            Leg::Port(port) => {
                let to = match side {
                    Side::Rtp => port.address,
                    Side::Rtcp => SocketAddr::new(port.address.ip(), port.rtcp_port),
                };
                self.send_from_port(hop, side, kind, to, packet, loan);
            }
        }
    }

    fn send_from_port(
        &mut self,
        hop: Hop,
        side: Side,
        kind: Kind,
        to: SocketAddr,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        let dscp = self.dscp_of(kind);
        let Some(ports) = &mut self.ports else {
            return loan.ways.drop(Reason::NoHop);
        };
        let stamps = (&*loan.ways.stamps, loan.now);
        if ports.queue(side, (hop.node, to), dscp, packet, stamps) {
            loan.ways.ports.push(self.home);
        }
    }

    /// A packet that waited for its leg.
    pub(crate) fn send_early(&mut self, waiting: &Outbound, loan: &mut Loan<'_>) {
        self.send_to_node(waiting.hop, waiting.side, waiting.kind, &waiting.packet, loan);
    }
}
