//! Packets from the client to the room's node.

use std::net::SocketAddr;

use evenkeel_core::forward::{self, Reason, Verdict};
use evenkeel_core::{Hop, Kind, Srtp};
use evenkeel_media::rtp;

use super::{MediaState, PacketContext, Session};
use crate::worker::command::Leg;
use crate::worker::early::Outbound;
use crate::worker::egress::Side;
use crate::worker::stats::Way;

impl Session {
    /// Handles RTP from an accepted source of the client.
    pub(crate) fn handle_client_rtp(&mut self, packet: &[u8], cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        let Ok(header) = rtp::Header::parse(packet) else {
            return cx.egress.count_drop(Reason::Malformed);
        };
        let Some((kind, payload)) = self.media.payload_type(header.payload_type) else {
            return cx.egress.count_drop(Reason::UndeclaredPayload);
        };
        let clock_rate = payload.clock_rate;
        let state = self.state();
        state.totals.packets_up += 1;
        state.totals.bytes_up += packet.len() as u64;
        state.measurements.received(&header, packet.len(), clock_rate, cx.now);
        state.feedback.heard(header.ssrc, kind);
        let hop = match forward::to_node(&self.route, cx.board) {
            Verdict::Pass { hop, .. } => hop,
            Verdict::Both([hop, twin]) => {
                self.send_copy(twin, Side::Rtp, kind, packet, cx);
                hop
            }
            Verdict::Drop(reason) => return cx.egress.count_drop(reason),
        };
        self.state().flow.sent[kind as usize] += 1;
        self.send_to_node(hop, Side::Rtp, kind, packet, cx);
    }

    /// Handles RTCP from an accepted source of the client.
    pub(crate) fn handle_client_rtcp(&mut self, packet: &[u8], cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        let readable = self.media.srtp == Srtp::Plain;
        let MediaState { measurements, continuity, .. } = self.state();
        measurements.heard(cx.now);
        if readable {
            measurements.read_reports(packet, |ssrc| continuity.clock_rate(ssrc), cx.now);
        }
        let (hop, twin) = match forward::to_node(&self.route, cx.board) {
            Verdict::Pass { hop, .. } => (hop, None),
            Verdict::Both([hop, twin]) => (hop, Some(twin)),
            Verdict::Drop(reason) => return cx.egress.count_drop(reason),
        };
        // The rewrite may shorten the packet. RTCP is only a few packets a second, so the copy is cheap.
        let mut packet = packet.to_vec();
        match self.state().continuity.rtcp_to_node(&mut packet) {
            Ok(length) => {
                let packet = &packet[..length];
                if let Some(twin) = twin {
                    self.send_copy(twin, Side::Rtcp, Kind::Audio, packet, cx);
                }
                self.send_to_node(hop, Side::Rtcp, Kind::Audio, packet, cx);
            }
            Err(_) => cx.egress.count_drop(Reason::Feedback),
        }
    }

    pub(super) fn send_to_node(
        &mut self,
        hop: Hop,
        side: Side,
        kind: Kind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let Some((_, leg)) = self.legs.iter().find(|(at, _)| *at == hop) else {
            let early = &mut cx.egress.early;
            if !early.keep_outbound((self.home, hop), (side, kind), packet, cx.now) {
                cx.egress.count_drop(Reason::NotOpened);
            }
            return;
        };
        cx.egress.stats.passed(Way::ToNode, packet.len());
        match leg {
            Leg::Trunk(tag) => cx.egress.queue_on_trunk(hop.node, *tag, packet),
            Leg::Port(port) => {
                let to = match side {
                    Side::Rtp => port.address,
                    Side::Rtcp => SocketAddr::new(port.address.ip(), port.rtcp_port),
                };
                self.send_from_port(hop, side, kind, to, packet, cx);
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
        cx: &mut PacketContext<'_>,
    ) {
        let dscp = self.dscp_of(kind);
        let Some(ports) = &mut self.ports else {
            return cx.egress.count_drop(Reason::NoHop);
        };
        if ports.queue(side, (hop.node, to), dscp, packet, cx.egress, cx.now) {
            cx.egress.ports.push(self.home);
        }
    }

    /// Sends a packet that waited for its leg.
    pub(crate) fn send_early(&mut self, waiting: &Outbound, cx: &mut PacketContext<'_>) {
        self.send_to_node(waiting.hop, waiting.side, waiting.kind, &waiting.packet, cx);
    }
}
