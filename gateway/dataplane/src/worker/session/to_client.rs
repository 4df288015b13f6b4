//! Packets from a node to the client: only the room's hop passes, with numbers and timestamps continued across hops.

use evenkeel_media::continuity::{FILLED_WITHIN, Pass, StreamEpoch, SwitchCause, Withheld};
use evenkeel_media::{demux, rtcp, rtp};
use evenkeel_model::forward::{DropReason, ForwardVerdict};
use evenkeel_model::{Hop, RtcpPort, Srtp, StreamKind, forward};

use super::{ClientKnowledge, PacketContext, WorkerSession};
use crate::worker::egress::Egress;
use crate::worker::ports::RtpSide;
use crate::worker::report::{ShedRun, WorkerReport};
use crate::worker::stats::MediaDirection;

/// Returns the highest fraction lost that a node reports for its received streams, in ppm.
fn reported_loss(compound: &[u8]) -> Option<u32> {
    let worst = |blocks: &mut dyn Iterator<Item = rtcp::ReportBlock>| {
        blocks.map(|block| u32::from(block.fraction_lost) * 1_000_000 / 256).max()
    };
    rtcp::packets(compound)
        .map_while(Result::ok)
        .filter_map(|packet| match packet {
            rtcp::RtcpPacket::SenderReport(report) => worst(&mut report.blocks()),
            rtcp::RtcpPacket::ReceiverReport(report) => worst(&mut report.blocks()),
            _ => None,
        })
        .max()
}

impl WorkerSession {
    /// Handles a packet that a hop sent for the client.
    pub(crate) fn handle_node_packet(
        &mut self,
        from: Hop,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        self.mark_active(cx);
        let kind = demux::classify(packet);
        let header = match kind {
            demux::DatagramKind::Rtp => match rtp::RtpHeader::parse(packet) {
                Ok(header) => Some(header),
                Err(_) => return cx.egress.count_drop(DropReason::Malformed),
            },
            demux::DatagramKind::Rtcp => None,
            _ => return cx.egress.count_drop(DropReason::Malformed),
        };
        let payload_type = header.as_ref().map(|header| header.payload_type);
        let verdict =
            forward::to_client(from, payload_type, &self.plan, &self.route, cx.board, cx.now);
        let leaving = match verdict {
            ForwardVerdict::Pass { leaving, .. } => leaving,
            ForwardVerdict::Both([from, other]) => {
                return self.merge_to_client(from, Some(other), header.as_ref(), packet, cx);
            }
            ForwardVerdict::Drop(reason) => {
                if let (DropReason::Shed, Some(header)) = (reason, &header) {
                    self.state().totals.shed += 1;
                    self.record_shed(from, header, cx);
                }
                return cx.egress.count_drop(reason);
            }
        };
        let state = self.state();
        let hears = state.current_hop == Some(from);
        if state.pair.is_some() && !leaving {
            return self.merge_to_client(from, None, header.as_ref(), packet, cx);
        }
        if !leaving && !hears {
            self.switch_to(from, cx);
        }
        // Packets of the previous hop belong to the previous epoch.
        let left = leaving && !hears;
        let epoch = StreamEpoch(self.state().epoch().0.saturating_sub(u64::from(left)));
        match header {
            Some(header) => self.rtp_to_client(from, epoch, &header, packet, cx),
            None => self.rtcp_to_client(epoch, packet, cx),
        }
    }

    /// Records a shed packet by number, so that it does not count as lost and leaves no gap in the client's sequence
    /// numbers.
    fn record_shed(&mut self, from: Hop, header: &rtp::RtpHeader, cx: &mut PacketContext<'_>) {
        let state = self.state();
        if state.current_hop != Some(from) {
            if state.pair.is_some() {
                // In hitless mode only packets of the leading hop are counted.
                return;
            }
            self.switch_to(from, cx);
        }
        let declared = self.media.payload_type(header.payload_type);
        let declared = declared.map(|(kind, payload)| (kind, payload.clock_rate));
        let state = self.state();
        if let Some((kind, _)) = declared {
            state.flow.came[kind as usize] += 1;
        }
        let epoch = state.epoch();
        let Some(Withheld { ssrc, after, ahead }) =
            declared.and_then(|(_, rate)| state.continuity.withhold(epoch, header, rate, cx.now))
        else {
            return;
        };
        if let Some((run, _)) = &mut state.shed
            && (run.ssrc, run.after) == (ssrc, after)
            && run.first + run.packets == ahead
        {
            run.packets += 1;
            return;
        }
        self.report_shed(cx.egress);
        self.state().shed = Some((ShedRun { ssrc, after, first: ahead, packets: 1 }, cx.now));
    }

    pub(crate) fn report_shed(&mut self, egress: &Egress) {
        if let Some((run, _)) = self.state.as_deref_mut().and_then(|state| state.shed.take()) {
            egress.report(WorkerReport::Shed { session: self.id, run });
        }
    }

    /// Makes packets of this hop reach the client from now on.
    pub(super) fn switch_to(&mut self, hop: Hop, cx: &PacketContext<'_>) {
        self.record_recovery(hop, cx);
        cx.egress.note_changed(self.home);
        let (leaving, lead) = {
            let route = self.route.load();
            (route.leaving, route.lead)
        };
        let state = self.state();
        let before = state.set_current_hop(hop);
        if before.is_some() {
            state.totals.switches += 1;
            state.feedback.want_key_frame();
        }
        state.switches += 1;
        let epoch = state.epoch();
        match leaving.filter(|(left, _)| before == Some(*left)) {
            Some((_, until)) => {
                state.continuity.switched(epoch, SwitchCause::Planned { lead });
                let since = until.checked_sub(FILLED_WITHIN).unwrap_or(until);
                state.continuity.left(since.min(cx.now), true);
            }
            None => {
                state.continuity.switched(epoch, SwitchCause::Failover);
                state.continuity.close_previous();
                // A previous hop that is still up was left by the move before the last.
                let died = before.and_then(|before| cx.board.died(before));
                state.continuity.left(died.unwrap_or(cx.now), died.is_none());
            }
        }
    }

    /// Records, when a hop replaces one that died, for how long the client received nothing. A stream that was silent
    /// before the hop died is skipped: it might have remained silent.
    pub(super) fn record_recovery(&mut self, to: Hop, cx: &PacketContext<'_>) {
        let (mode, state) = (self.route.load().mode, self.state());
        let Some(before) = state.current_hop.filter(|before| *before != to) else {
            return;
        };
        let died = cx.board.died(before);
        if let Some(last) = died.and_then(|died| state.continuity.fell_silent(died)) {
            cx.egress.stats.recovered(mode, cx.now.saturating_duration_since(last));
        }
    }

    pub(super) fn rtp_to_client(
        &mut self,
        from: Hop,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let Some((kind, payload)) = self.media.payload_type(header.payload_type) else {
            return cx.egress.count_drop(DropReason::UndeclaredPayload);
        };
        let clock_rate = payload.clock_rate;
        let state = self.state();
        // `merge_to_client` counts merged packets.
        if state.current_hop == Some(from) && state.pair.is_none() {
            state.flow.came[kind as usize] += 1;
        }
        let rewrite = match state.continuity.pass(epoch, header, clock_rate, cx.now) {
            Pass::Untouched => None,
            Pass::Rewrite { ssrc, sequence, timestamp } => Some((ssrc, sequence, timestamp)),
            Pass::Stale | Pass::Duplicate => return cx.egress.count_drop(DropReason::Stale),
        };
        state.totals.packets_down += 1;
        state.totals.bytes_down += packet.len() as u64;
        state.measurements.sent(packet.len());
        if kind == StreamKind::Video
            && let Some(request) = state.feedback.key_frame_request(header.ssrc)
        {
            cx.egress.stats.asked_key_frame(MediaDirection::ToNode);
            self.send_to_node(from, RtpSide::Rtcp, StreamKind::Video, &request, cx);
        }
        self.send_to_client(RtpSide::Rtp, kind, packet, cx, |bytes| {
            if let Some((ssrc, sequence, timestamp)) = rewrite {
                rtp::set_ssrc(bytes, ssrc);
                rtp::set_sequence(bytes, sequence);
                rtp::set_timestamp(bytes, timestamp);
            }
        });
    }

    pub(super) fn rtcp_to_client(
        &mut self,
        epoch: StreamEpoch,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let plain = self.media.srtp == Srtp::Plain;
        // Reports of the previous hop are not counted.
        let state = self.state();
        if plain && epoch == state.epoch() {
            state.flow.reported_ppm = reported_loss(packet).or(state.flow.reported_ppm);
        }
        let mut packet = packet.to_vec();
        let Ok(length) = self.state().continuity.rtcp_to_client(epoch, &mut packet) else {
            return cx.egress.count_drop(DropReason::Feedback);
        };
        packet.truncate(length);
        let cap = self.plan.send_cap_kbps();
        let state = self.state();
        state.feedback.limit(&mut packet, cap, cx.now);
        if plain {
            state.measurements.note_sender_report(&packet, cx.now);
        }
        self.send_to_client(RtpSide::Rtcp, StreamKind::Audio, &packet, cx, |_| {});
    }

    pub(super) fn send_to_client(
        &mut self,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        if let ClientKnowledge::Quic { flow_from_gateway } = self.known {
            // The ring copies the bytes, so the header is rewritten first.
            let mut bytes = [0; crate::mmsg::DATAGRAM_MAX];
            let Some(bytes) = bytes.get_mut(..packet.len()) else {
                return cx.egress.count_drop(DropReason::Oversize);
            };
            bytes.copy_from_slice(packet);
            rewrite(bytes);
            cx.egress.queue_to_quic(self.home, flow_from_gateway, side, bytes);
            cx.egress.stats.passed(MediaDirection::ToClient, packet.len());
            return;
        }
        let address = match side {
            RtpSide::Rtp => self.address.rtp,
            RtpSide::Rtcp => self.address.rtcp(),
        };
        let consent = self.known != ClientKnowledge::Stun || self.address.has_consent(cx.now);
        let Some(address) = address.filter(|_| consent) else {
            return cx.egress.count_drop(DropReason::NoAddress);
        };
        match cx.egress.queue_to_client(address, self.side(side), self.dscp_of(kind), packet) {
            Some(bytes) => {
                rewrite(bytes);
                cx.egress.stats.passed(MediaDirection::ToClient, packet.len());
            }
            None => cx.egress.count_drop(DropReason::NoAddress),
        }
    }

    /// The listener's RTCP port is used only for clients that do not multiplex RTCP.
    fn side(&self, side: RtpSide) -> RtpSide {
        match self.media.rtcp {
            RtcpPort::Mux => RtpSide::Rtp,
            RtcpPort::Own => side,
        }
    }
}
