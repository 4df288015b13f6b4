//! Packets between the client and the room's hop, in both directions: only the room's hop passes, and numbers and timestamps
//! towards the client continue across hops.
//!
//! In hitless mode two hops carry a session in both directions, and the first copy of a packet is sent to the client. One hop
//! leads, the other is its twin.

use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_media::continuity::{FILLED_WITHIN, StreamEpoch, SwitchCause, Withheld};
use evenkeel_media::merge::{HopPair, MergeOutcome, Settled};
use evenkeel_media::{demux, rtcp, rtp};
use evenkeel_model::forward::{self, DropReason, ForwardVerdict};
use evenkeel_model::{Hop, LeftHop, NodeId, RedundancyMode, StreamKind};

use super::key_frames::{self, FEEDBACK_SOURCES_MAX};
use super::{
    ClientKnowledge, MediaState, NodeLeg, NodePort, PacketContext, WorkerSession, declared,
};
use crate::worker::egress::Egress;
use crate::worker::report::{MediaDirection, ShedRun, WorkerReport};
use crate::worker::sockets::{ClientPath, RtpSide, SessionPorts, SourceKey};

impl WorkerSession {
    /// Returns whether the client's port is still unknown.
    pub(crate) fn learns(&self) -> bool {
        self.known == ClientKnowledge::DeclaredIp && self.address.rtp().is_none()
    }

    /// Returns whether packets from a cached source are still accepted: the client may have moved since the lookup.
    pub(crate) fn takes_from(&self, from: SourceKey) -> bool {
        let learned = matches!(self.known, ClientKnowledge::DeclaredIp | ClientKnowledge::Stun);
        !learned || self.address.checked().contains(&from)
    }

    /// Handles media from this address, which is an accepted source.
    pub(crate) fn heard_from(&mut self, from: ClientPath) {
        let nominated = || self.address.more.as_ref().is_some_and(|more| more.nominated);
        if self.known == ClientKnowledge::Awaited {
            self.send_to_declared();
        } else if self.known == ClientKnowledge::Stun && !nominated() {
            self.address.set_rtp(from.source);
        }
        self.address.follow(from);
    }

    /// Handles RTP from an accepted source of the client.
    pub(crate) fn handle_client_rtp(&mut self, packet: &[u8], cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        if let Some(validation) = &mut self.state().validation {
            validation.receive(packet);
        }
        let Ok(header) = self.parse(packet) else {
            return cx.egress.count_drop(DropReason::Malformed);
        };
        let Some((kind, payload)) = declared(&self.media, header.payload_type) else {
            return cx.egress.count_drop(DropReason::UndeclaredPayload);
        };
        let (clock_rate, repair) = (payload.clock_rate, payload.repair());
        if let Some(kind) = repair {
            let counts = self.counts.get_or_insert_default();
            counts.note_repair(kind, MediaDirection::ToNode, packet.len());
        }
        let state = self.state();
        state.totals.packets_up += 1;
        state.totals.bytes_up += packet.len() as u64;
        state.measurements.last_heard = Some(cx.now);
        state.measurements.bytes_up += packet.len() as u64;
        state.measurements.sources.receive(&header, packet.len(), clock_rate, cx.now);
        remember(&mut state.feedback.sources, header.ssrc);
        let is_picture = kind == StreamKind::Video && repair.is_none();
        if is_picture {
            remember(&mut state.feedback.video, header.ssrc);
        }
        let hop = match forward::to_node(&self.route, cx.board) {
            ForwardVerdict::Pass { hop, .. } => hop,
            ForwardVerdict::Both([hop, twin]) => {
                self.send_copy(twin, RtpSide::Rtp, kind, packet, cx);
                hop
            }
            ForwardVerdict::Drop(reason) => return cx.egress.count_drop(reason),
        };
        let state = self.state();
        state.flow.sent[kind as usize] += 1;
        // The marker ends a frame (RFC 6184, 5.1; RFC 7741, 4.1).
        if is_picture && header.marker && state.feedback.video.len() == 1 {
            state.flow.frames += 1;
        }
        if state.signs.inspects(kind) {
            self.inspect(&header, packet, cx.now);
        }
        self.send_to_node(hop, RtpSide::Rtp, kind, packet, cx);
    }

    /// Few packets are inspected, so `#[cold]` moves this code out of the packet path.
    #[cold]
    fn inspect(&mut self, header: &rtp::RtpHeader, packet: &[u8], now: Instant) {
        let declared = declared(&self.media, header.payload_type);
        if let (Some((kind, payload)), Some(state)) = (declared, self.state.as_deref_mut())
            && state.signs.inspect(kind, payload, header.payload(packet), now)
        {
            state.feedback.key_frame_came(header.ssrc);
        }
    }

    /// Handles RTCP from an accepted source of the client.
    pub(crate) fn handle_client_rtcp(&mut self, packet: &[u8], cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        let readable = self.media.srtp.is_readable();
        let home = self.home;
        let MediaState { measurements, continuity, validation, flow, totals, .. } = self.state();
        let sent = totals.packets_down;
        measurements.last_heard = Some(cx.now);
        if let Some(address) = validation {
            address.receive(packet);
            if reports(packet).any(|report| address.is_proved_by(&report)) {
                *validation = None;
                cx.egress.note_changed(home);
            }
        }
        if readable {
            measurements.read_reports(packet, |ssrc| continuity.clock_rate(ssrc), cx.now);
            flow.client_ppm = reported_loss(packet).or(flow.client_ppm);
            let jitter = voice_jitter(packet, |ssrc| continuity.clock_rate(ssrc));
            flow.client_jitter_us = jitter.or(flow.client_jitter_us);
            self.counts.get_or_insert_default().note_reports(reports(packet), sent);
        }
        let (hop, twin) = match forward::to_node(&self.route, cx.board) {
            ForwardVerdict::Pass { hop, .. } => (hop, None),
            ForwardVerdict::Both([hop, twin]) => (hop, Some(twin)),
            ForwardVerdict::Drop(reason) => return cx.egress.count_drop(reason),
        };
        // The rewrite may shorten the packet. RTCP is only a few packets a second, so the copy is cheap.
        let mut packet = packet.to_vec();
        if readable {
            self.restore_reports(&mut packet);
            let length = key_frames::coalesce(&mut packet);
            packet.truncate(length);
        }
        match self.state().continuity.rtcp_to_node(&mut packet) {
            Ok(length) => {
                packet.truncate(length);
                if readable && self.plan.device_kbps > 0 {
                    let bps = u64::from(self.plan.device_kbps) * 1_000;
                    rtcp::rewrite::limit_rates(&mut packet, bps);
                }
                let packet = &packet[..];
                if let Some(twin) = twin {
                    self.send_copy(twin, RtpSide::Rtcp, StreamKind::Audio, packet, cx);
                }
                self.send_to_node(hop, RtpSide::Rtcp, StreamKind::Audio, packet, cx);
            }
            Err(_) => cx.egress.count_drop(DropReason::Feedback),
        }
    }

    pub(crate) fn send_to_node(
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
        match leg {
            NodeLeg::Trunk(tag) => {
                cx.egress.stats.passed(MediaDirection::ToNode, packet.len());
                cx.egress.queue_on_trunk(hop.node, *tag, packet);
            }
            NodeLeg::Port(port) => {
                let port = **port;
                self.queue_to_port(hop.node, port, side, kind, packet, cx);
            }
            NodeLeg::Srtp(leg) => {
                let port = leg.port;
                self.protect_to_node(hop, port, side, kind, packet, cx);
            }
        }
    }

    pub(super) fn queue_to_port(
        &mut self,
        node: NodeId,
        port: NodePort,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        cx.egress.stats.passed(MediaDirection::ToNode, packet.len());
        let to = match side {
            RtpSide::Rtp => port.address,
            RtpSide::Rtcp => SocketAddr::new(port.address.ip(), port.rtcp_port),
        };
        let dscp = self.dscp_of(kind);
        let Some(ports) = &mut self.ports else {
            return cx.egress.count_drop(DropReason::NoHop);
        };
        let flush = |ports: &mut SessionPorts| {
            if cx.egress.permit.may_send() {
                ports.flush(&cx.egress.stats, cx.now);
            }
        };
        if ports.queue(side, (node, to), dscp, packet, flush) {
            cx.egress.ports.push(self.home);
        }
    }

    /// Sends a copy to the twin. The copy is dropped if the twin has no leg yet, because the leading hop gets the
    /// packet.
    pub(super) fn send_copy(
        &mut self,
        twin: Hop,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        if self.has_leg(twin) {
            self.state().totals.bytes_copied += packet.len() as u64;
            self.send_to_node(twin, side, kind, packet, cx);
        }
    }

    /// Handles a packet of one of the two hops; `other` is `None` if the other hop is gone. RTCP passes only from the
    /// leading hop: reports of two nodes about one stream would contradict each other.
    pub(super) fn merge_to_client(
        &mut self,
        from: Hop,
        other: Option<Hop>,
        header: Option<&rtp::RtpHeader>,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        self.settle_twin(from, other, cx);
        let state = self.state();
        let (epoch, leads) = (state.epoch(), state.current_hop == Some(from));
        if !leads {
            state.totals.bytes_copied += packet.len() as u64;
        }
        let Some(header) = header else {
            return match leads {
                true => self.rtcp_to_client(epoch, packet, cx),
                false => cx.egress.count_drop(DropReason::Duplicate),
            };
        };
        let kind = declared(&self.media, header.payload_type).map(|(kind, _)| kind);
        let state = self.state();
        let taken = match (kind, state.pair.as_deref_mut()) {
            (Some(kind), Some(pair)) => {
                let taken = pair.take(from, header, packet);
                // The leading hop delivers, even if the other copy arrived first.
                state.flow.received[kind as usize] += u32::from(leads);
                taken
            }
            _ => MergeOutcome::First,
        };
        match taken {
            MergeOutcome::First => return self.rtp_to_client(from, epoch, header, packet, cx),
            MergeOutcome::Again => {}
            MergeOutcome::Unproven => self.report_differing_copies(cx),
        }
        cx.egress.count_drop(DropReason::Duplicate);
    }

    /// Reports two hops that deliver different packets for one stream, and repeats the report while they differ. Repair
    /// streams may differ, because each node numbers them independently.
    fn report_differing_copies(&mut self, cx: &PacketContext<'_>) {
        let (id, media) = (self.id, &self.media);
        let Some(pair) = self.state.as_deref_mut().and_then(|state| state.pair.as_deref_mut())
        else {
            return;
        };
        let matters = |number| declared(media, number).is_some_and(|(_, it)| !it.repairs());
        if pair.differing().any(matters) && pair.tells(cx.now) {
            cx.egress.report(WorkerReport::CopiesDiffer { session: id, hops: pair.hops() });
        }
    }

    /// Updates the leading hop and its twin after a packet from `from`.
    fn settle_twin(&mut self, from: Hop, other: Option<Hop>, cx: &PacketContext<'_>) {
        let hitless = other.is_some() || self.mode() == RedundancyMode::Hitless;
        let state = self.state();
        match HopPair::settle(&mut state.pair, state.current_hop, (from, other), hitless) {
            Settled::Same => {}
            Settled::Turned(twin) => self.take_lead(twin, cx),
            Settled::Begins => self.switch_to(from, cx),
        }
    }

    /// Makes the twin the leading hop after the leading hop is gone. Its packets are copies, so the client sees no
    /// change. A twin with a stream that is not a copy counts as a new hop.
    fn take_lead(&mut self, twin: Hop, cx: &PacketContext<'_>) {
        let differs = |pair: &HopPair<Hop>| pair.differing().next().is_some();
        if self.state().pair.as_deref().is_some_and(differs) {
            return self.switch_to(twin, cx);
        }
        self.record_recovery(twin, cx);
        cx.egress.note_changed(self.home);
        let state = self.state();
        state.set_current_hop(twin);
        state.totals.switches += 1;
        state.continuity.switch_to_copies();
    }
}

/// Adds a source to a bounded list, newest last.
fn remember(sources: &mut Vec<u32>, ssrc: u32) {
    if !sources.contains(&ssrc) {
        if sources.len() == FEEDBACK_SOURCES_MAX {
            sources.remove(0);
        }
        sources.push(ssrc);
    }
}

/// Returns the highest fraction lost that a node or client reports for its received streams, in ppm.
pub(super) fn reported_loss(compound: &[u8]) -> Option<u32> {
    reports(compound).map(|block| u32::from(block.fraction_lost) * 1_000_000 / 256).max()
}

/// Returns the highest jitter that a client reports for its received voice, in microseconds.
fn voice_jitter(compound: &[u8], clock_rate: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    let jitter = |block: rtcp::ReportBlock| {
        let rate = clock_rate(block.ssrc).filter(|rate| *rate != rtp::VIDEO_CLOCK_HZ)?;
        (u64::from(block.jitter) * 1_000_000).checked_div(rate.into())
    };
    let jitter = reports(compound).filter_map(jitter).max()?;
    Some(jitter.try_into().unwrap_or(u32::MAX))
}

pub(super) fn reports(compound: &[u8]) -> impl Iterator<Item = rtcp::ReportBlock> {
    rtcp::packets(compound).map_while(Result::ok).flat_map(|packet| packet.blocks())
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
            demux::DatagramKind::Rtp => match self.parse(packet) {
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
        let declared = declared(&self.media, header.payload_type)
            .map(|(kind, payload)| (kind, payload.clock_rate));
        let state = self.state();
        if let Some((kind, _)) = declared {
            state.flow.received[kind as usize] += 1;
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
        let left = self.route.load().left.as_deref().copied();
        let state = self.state();
        let before = state.set_current_hop(hop);
        if before.is_some() {
            state.totals.switches += 1;
            state.feedback.want_key_frame();
        }
        state.switches += 1;
        let epoch = state.epoch();
        match left.filter(|left| before == Some(left.hop)) {
            Some(LeftHop { until, lead, .. }) => {
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
        let Some(before) = state.current_hop.filter(|before| *before != to) else { return };
        let died = cx.board.died(before);
        if let Some(last) = died.and_then(|died| state.continuity.fell_silent(died)) {
            let gap = cx.now.saturating_duration_since(last);
            cx.egress.stats.recovered(mode, gap);
            self.counts.get_or_insert_default().note_gap(gap);
        }
    }
}
