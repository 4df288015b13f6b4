//! Packets from the client to the room's node.

use std::net::SocketAddr;

use evenkeel_media::rtp;
use evenkeel_model::forward::{DropReason, ForwardVerdict};
use evenkeel_model::{Hop, Srtp, StreamKind, forward};

use super::{MediaState, NodeLeg, PacketContext, WorkerSession};
use crate::worker::early::Outbound;
use crate::worker::ports::{RtpSide, SessionPorts};
use crate::worker::stats::MediaDirection;

impl WorkerSession {
    /// Handles RTP from an accepted source of the client.
    pub(crate) fn handle_client_rtp(&mut self, packet: &[u8], cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        let Ok(header) = rtp::RtpHeader::parse(packet) else {
            return cx.egress.count_drop(DropReason::Malformed);
        };
        let Some((kind, payload)) = self.media.payload_type(header.payload_type) else {
            return cx.egress.count_drop(DropReason::UndeclaredPayload);
        };
        let clock_rate = payload.clock_rate;
        let state = self.state();
        state.totals.packets_up += 1;
        state.totals.bytes_up += packet.len() as u64;
        state.measurements.received(&header, packet.len(), clock_rate, cx.now);
        state.feedback.heard(header.ssrc, kind);
        let hop = match forward::to_node(&self.route, cx.board) {
            ForwardVerdict::Pass { hop, .. } => hop,
            ForwardVerdict::Both([hop, twin]) => {
                self.send_copy(twin, RtpSide::Rtp, kind, packet, cx);
                hop
            }
            ForwardVerdict::Drop(reason) => return cx.egress.count_drop(reason),
        };
        self.state().flow.sent[kind as usize] += 1;
        self.send_to_node(hop, RtpSide::Rtp, kind, packet, cx);
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
            ForwardVerdict::Pass { hop, .. } => (hop, None),
            ForwardVerdict::Both([hop, twin]) => (hop, Some(twin)),
            ForwardVerdict::Drop(reason) => return cx.egress.count_drop(reason),
        };
        // The rewrite may shorten the packet. RTCP is only a few packets a second, so the copy is cheap.
        let mut packet = packet.to_vec();
        match self.state().continuity.rtcp_to_node(&mut packet) {
            Ok(length) => {
                let packet = &packet[..length];
                if let Some(twin) = twin {
                    self.send_copy(twin, RtpSide::Rtcp, StreamKind::Audio, packet, cx);
                }
                self.send_to_node(hop, RtpSide::Rtcp, StreamKind::Audio, packet, cx);
            }
            Err(_) => cx.egress.count_drop(DropReason::Feedback),
        }
    }

    pub(super) fn send_to_node(
        &mut self,
        hop: Hop,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let Some((_, leg)) = self.legs.iter().find(|(at, _)| *at == hop) else {
            let early = &mut cx.egress.early;
            if !early.keep_outbound((self.home, hop), (side, kind), packet, cx.now) {
                cx.egress.count_drop(DropReason::NotOpened);
            }
            return;
        };
        cx.egress.stats.passed(MediaDirection::ToNode, packet.len());
        match leg {
            NodeLeg::Trunk(tag) => cx.egress.queue_on_trunk(hop.node, *tag, packet),
            NodeLeg::Port(port) => {
                let to = match side {
                    RtpSide::Rtp => port.address,
                    RtpSide::Rtcp => SocketAddr::new(port.address.ip(), port.rtcp_port),
                };
                self.send_from_port(hop, side, kind, to, packet, cx);
            }
        }
    }

    fn send_from_port(
        &mut self,
        hop: Hop,
        side: RtpSide,
        kind: StreamKind,
        to: SocketAddr,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let dscp = self.dscp_of(kind);
        let Some(ports) = &mut self.ports else {
            return cx.egress.count_drop(DropReason::NoHop);
        };
        let flush = |ports: &mut SessionPorts| {
            if cx.egress.permit.may_send() {
                ports.flush(&cx.egress.stats, cx.now);
            }
        };
        if ports.queue(side, (hop.node, to), dscp, packet, flush) {
            cx.egress.ports.push(self.home);
        }
    }

    /// Sends a packet that waited for its leg.
    pub(crate) fn send_early(&mut self, waiting: &Outbound, cx: &mut PacketContext<'_>) {
        self.send_to_node(waiting.hop, waiting.side, waiting.kind, &waiting.packet, cx);
    }
}
