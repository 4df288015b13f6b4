//! A session at its home worker, which alone writes its continuity, statistics and client address.
//!
//! The whole carries packets between its [`ClientSide`] and its [`NodeSide`], in both directions: only the room's hop passes, and
//! numbers and timestamps towards the client continue across hops. In hitless mode two hops carry a session in both directions,
//! and the first copy of a packet is sent to the client. One hop leads, the other is its twin.

mod address;
mod client;
mod counts;
mod estimate;
mod fec;
mod feedback;
mod followed;
mod layers;
mod measurements;
mod media;
mod node;
mod policing;
mod reachability;
mod record;
mod redundancy;
mod repair;
mod replay;
mod rtx;
mod srtp;
#[cfg(test)]
pub(super) mod tests;
mod thinning;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use address::CheckReceipt;
use address::CheckedAddress;
pub(crate) use client::Admission;
use client::ClientSide;
use counts::SessionCounts;
use estimate::DownlinkEstimate;
use evenkeel_dtls::HandshakeFailure;
use evenkeel_media::continuity::{OriginalNumbers, Pass, StreamEpoch, Withheld};
use evenkeel_media::loss::RepairPacket;
use evenkeel_media::merge::{HopPair, MergeOutcome, Settled};
use evenkeel_media::pacer::PacedClass;
use evenkeel_media::repair::cache::CachedPacket;
use evenkeel_media::repair::missing::RetransmittedPacket;
use evenkeel_media::srtp::{GrantView, SrtpKeys};
use evenkeel_media::stun::{StunKey, Username};
use evenkeel_media::{demux, key_frame, retransmission, rtcp, rtp};
use evenkeel_model::{
    DropReason, ForwardVerdict, Hop, MediaDescription, MediaLimits, PayloadType, RedundancyMode,
    RepairKind, ReplayedMedia, RouteCell, SessionId, Srtp, StreamKind, lower_cap,
};
use fec::ClientFec;
use layers::{LayerVerdict, ReceivedLayers, SentLayers};
use measurements::{reported_loss, reports, voice_jitter};
use media::{MediaState, RunningMedia, voice};
use node::NodeSide;
pub use node::{NodeLeg, NodePort, SrtpPort};
use policing::{SenderPolicing, SentBytes, StreamRequest};
use record::Learned;
pub use record::{ClientAddressing, Install, SessionState};
use redundancy::Redundancy;
use repair::{ClientRepair, KeptForm, KeptStream};
use replay::Replay;
use rtx::{ClientRtx, DuePacket};
use srtp::SrtpEnds;
pub use srtp::{AnsweredMedia, ClientPassword, ClientStream, SrtpKeying};
use thinning::Thinning;

use super::dtls::{DtlsSession, HandshakeDatagram, InputKind};
use super::egress::{Egress, PacketContext};
use super::pacing::{self, HeldPacket, SessionPacing};
use super::report::{MediaCounts, MediaDirection, ShedRun, Summary, Totals, WorkerReport};
use super::sockets::{ClientPath, RtpSide, SourceKey, reason};
use crate::flows::{FlowEntry, FlowKey, Flows, Home};
use crate::ring::PathReport;

/// A shorter interval does not tell the rate of a client.
const RATE_OVER: Duration = Duration::from_millis(50);

/// Interval between reports of shed packets. Receivers of the reports need the count, not the time of each packet.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct WorkerSession {
    pub(crate) home: Home,
    pub(crate) id: SessionId,
    pub(crate) client: ClientSide,
    pub(crate) nodes: NodeSide,
    /// The streams that client and room exchange.
    media: Arc<MediaDescription>,
    /// The room's one route.
    route: Arc<RouteCell>,
    limits: MediaLimits,
    /// The media of which a node gets the packets that its dead predecessor swallowed.
    replayed: ReplayedMedia,
    /// Allocated with the first packet, because most sessions are silent.
    running: Option<Box<RunningMedia>>,
    /// Seeds SSRC, sequence numbers and CNAME.
    seed: u64,
    activity: Activity,
    /// True if the session has changed since its last copy.
    pub(crate) uncopied: bool,
    /// True if the next packet panics.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) panics: bool,
}

/// Whether the worker summarises a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Activity {
    /// There is nothing to summarise.
    Idle,
    /// The session is summarised, and was not used since its last summary.
    Quiet,
    /// The session is summarised, and was used since its last summary.
    Used,
}

/// Returns the declared payload type of this number, with the kind of its stream.
fn declared(media: &MediaDescription, number: u8) -> Option<(StreamKind, &PayloadType)> {
    media.streams.iter().find_map(|stream| {
        let found = stream.payload_types.iter().find(|payload| payload.number == number)?;
        Some((stream.kind, found))
    })
}

/// Writes the client's numbers into a packet of a hop. `original`: those of the packet that a retransmission repeats.
#[inline]
fn write_numbers(
    bytes: &mut [u8],
    header: &rtp::RtpHeader,
    rewrite: Option<(u32, u16, u32)>,
    original: Option<OriginalNumbers>,
) {
    let Some((ssrc, sequence, timestamp)) = rewrite else { return };
    rtp::set_ssrc(bytes, ssrc);
    rtp::set_sequence(bytes, sequence);
    rtp::set_timestamp(bytes, timestamp);
    if let Some(OriginalNumbers { sequence, timestamp, .. }) = original {
        rtp::set_timestamp(bytes, timestamp);
        retransmission::set_original_sequence(header, bytes, sequence);
    }
}

impl WorkerSession {
    pub(crate) fn new(install: Install) -> WorkerSession {
        let Install { client, media, dscp, await_first_packet, await_report, .. } = &install;
        let client = ClientSide::new(client, media, *dscp, *await_first_packet, *await_report);
        let mut session = WorkerSession {
            home: install.home,
            id: install.session,
            client,
            nodes: NodeSide::new(install.ports),
            route: install.route,
            limits: install.limits,
            replayed: install.replay,
            running: None,
            seed: install.seed,
            activity: match install.limits.send_kbps {
                0 => Activity::Idle,
                // The cap is sent before the client's first packet.
                _ => Activity::Quiet,
            },
            uncopied: true,
            #[cfg(any(test, feature = "fault-injection"))]
            panics: false,
            media: install.media,
        };
        if let Some(keying) = install.srtp {
            let RunningMedia { state, srtp, .. } = session.running();
            srtp.set_client(keying);
            srtp.announce(&mut state.continuity);
        }
        install.state.into_iter().for_each(|state| session.go_on(*state));
        session.follow_thinning();
        session.follow_layers();
        session
    }

    fn running(&mut self) -> &mut RunningMedia {
        let (seed, media, needs_report) = (self.seed, &*self.media, self.client.needs_report());
        self.running.get_or_insert_with(|| RunningMedia::new(seed, media, needs_report))
    }

    fn state(&mut self) -> &mut MediaState {
        &mut self.running().state
    }

    fn state_ref(&self) -> Option<&MediaState> {
        self.running.as_deref().map(|running| &running.state)
    }

    fn counts(&mut self) -> &mut SessionCounts {
        self.running().counts.get_or_insert_default()
    }

    /// Returns whether the session is summarised.
    pub(crate) fn is_active(&self) -> bool {
        self.activity != Activity::Idle
    }

    /// Marks a session that handles a packet, so that it is summarised until it is idle.
    fn mark_active(&mut self, cx: &mut PacketContext<'_>) {
        #[cfg(any(test, feature = "fault-injection"))]
        assert!(!self.panics, "injected panic of {}", self.id);
        let was_idle = !self.is_active();
        let since = &mut self.state().measurements.since;
        if was_idle || since.is_none() {
            *since = Some(cx.now);
        }
        self.wake(cx);
    }

    fn wake(&mut self, cx: &mut PacketContext<'_>) {
        self.uncopied = true;
        if std::mem::replace(&mut self.activity, Activity::Used) == Activity::Idle {
            cx.egress.active.push(self.home);
        }
    }

    /// Returns whether the session has nothing left to summarise. Called after each summary.
    pub(crate) fn went_idle(&mut self, now: Instant) -> bool {
        let was_used = self.activity == Activity::Used;
        let cap = self.told_kbps();
        let is_quiet = |state: &MediaState| {
            state.shed.is_none()
                && state.measurements.is_quiet(now)
                && !state.feedback.repeats(cap, now)
        };
        let repair = self.running.as_deref().and_then(|running| running.repair.as_deref());
        let repairs = repair.is_some_and(|repair| repair.is_active(now));
        let estimate = self.running.as_deref().and_then(|running| running.estimate.as_deref());
        let estimates = estimate.is_some_and(|estimate| estimate.kbps(now).is_some());
        let policing = self.running.as_deref().and_then(|running| running.policing.as_deref());
        let is_policed = policing.is_some_and(|policing| policing.standing().is_some());
        let is_busy = was_used || repairs || estimates || is_policed;
        let is_idle = !is_busy && self.state_ref().map_or(cap == 0, is_quiet);
        if is_idle && let Some(running) = self.running.as_deref_mut() {
            // Its packets are too old, and its memory is shared.
            running.replay = None;
            DownlinkEstimate::release(&mut running.estimate);
            running.fec.iter_mut().for_each(|fec| fec.release());
        }
        self.activity = if is_idle { Activity::Idle } else { Activity::Quiet };
        // The summary took the last counts.
        self.uncopied |= was_used || is_idle;
        is_idle
    }

    /// Handles input from the client other than media.
    pub(crate) fn handle_other_input(&mut self, cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        self.state().measurements.last_heard = Some(cx.now);
    }

    pub(crate) fn handle_quic_path(&mut self, path: PathReport, cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        self.counts().note_lost(path.lost);
        self.state().measurements.quic_path(path, cx.now);
    }

    /// Parses an RTP packet of this session, or an SRTP packet: its padding is encrypted. Few packets have padding, so its
    /// flag is tested first.
    #[inline]
    fn parse(&self, packet: &[u8]) -> Result<rtp::RtpHeader, rtp::RtpError> {
        let header = rtp::RtpHeader::parse_opaque(packet)?;
        if rtp::is_padded(packet) && self.media.srtp.is_readable() {
            return header.without_padding(packet);
        }
        Ok(header)
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
            self.counts().note_repair(kind, MediaDirection::ToNode, packet.len());
        }
        let has_repair = self.running.as_deref().is_some_and(|running| running.repair.is_some());
        let was_lost = has_repair && self.note_number(&header, packet.len(), cx.now);
        let state = self.state();
        state.totals.packets_up += 1;
        state.totals.bytes_up += packet.len() as u64;
        state.measurements.last_heard = Some(cx.now);
        state.measurements.bytes_up += packet.len() as u64;
        if was_lost {
            state.measurements.sources.filled(header.ssrc, header.sequence);
        } else {
            state.measurements.sources.receive(&header, packet.len(), clock_rate, cx.now);
        }
        state.feedback.note_source(header.ssrc);
        if kind == StreamKind::Video && repair.is_none() {
            state.feedback.note_video(header.ssrc);
        } else if has_repair
            && repair == Some(RepairKind::Retransmission)
            && self.handle_client_rtx(kind, &header, packet, cx)
        {
            return;
        }
        self.admit(kind, repair, has_repair, &header, packet, cx);
    }

    /// Handles a packet of the client, which was counted. `has_repair`: the client is asked for what is missing.
    #[inline(always)]
    fn admit(
        &mut self,
        kind: StreamKind,
        repair: Option<RepairKind>,
        has_repair: bool,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        if self.limits.parked {
            self.end_replay();
            return cx.egress.count_drop(DropReason::Shed);
        }
        if self.running.as_deref().is_some_and(|running| running.policing.is_some()) {
            return self.police(kind, header, packet, has_repair, cx);
        }
        self.pass_to_nodes(kind, repair, header, packet, has_repair, cx);
    }

    /// Handles a packet of a client that sends, or sent, more than it may. Few sessions do, so this code stands apart from the packet path of
    /// others.
    #[inline(never)]
    fn police(
        &mut self,
        kind: StreamKind,
        header: &rtp::RtpHeader,
        packet: &[u8],
        has_repair: bool,
        cx: &mut PacketContext<'_>,
    ) {
        let media = Arc::clone(&self.media);
        let Some((_, payload)) = declared(&media, header.payload_type) else { return };
        let Some(mut policing) = self.running().policing.take() else { return };
        let repair = payload.repair();
        match policing.admit(kind, payload, header, packet, cx.now) {
            Some(admitted) => {
                if let Ok(header) = self.parse(admitted) {
                    self.pass_to_nodes(kind, repair, &header, admitted, has_repair, cx);
                }
            }
            None => {
                let state = self.state();
                // The device sent the frame.
                let ends_frame = kind == StreamKind::Video && repair.is_none() && header.marker;
                state.flow.frames += u32::from(ends_frame && state.feedback.has_one_video());
                self.counts().note_policed();
                cx.egress.count_drop(DropReason::Shed);
            }
        }
        self.running().policing = Some(policing);
    }

    /// Sends a packet of the client to the nodes that get it now.
    #[inline(always)]
    fn pass_to_nodes(
        &mut self,
        kind: StreamKind,
        repair: Option<RepairKind>,
        header: &rtp::RtpHeader,
        packet: &[u8],
        has_repair: bool,
        cx: &mut PacketContext<'_>,
    ) {
        let (hop, twin) = match self.route.forward_to_node(cx.board) {
            ForwardVerdict::Pass { hop, .. } => {
                if self.replayed != ReplayedMedia::Off {
                    self.replay_to(hop, kind, header, packet, cx);
                }
                (hop, None)
            }
            ForwardVerdict::Both([hop, twin]) => (hop, Some(twin)),
            ForwardVerdict::Drop(reason) => {
                self.end_replay();
                return cx.egress.count_drop(reason);
            }
        };
        if self.has_redundancy(kind, repair) {
            let recovered = match kind {
                StreamKind::Audio => self.recover_lost(hop, twin, header, packet, cx),
                StreamKind::Video => self.recover_by_parity(hop, twin, header, packet, cx),
            };
            if let Err(reason) = recovered {
                return cx.egress.count_drop(reason);
            }
        }
        if has_repair {
            self.ask_for_missing(cx);
        }
        if let Some(twin) = twin {
            self.send_copy(twin, RtpSide::Rtp, kind, packet, cx);
        }
        let state = self.state();
        state.flow.sent[kind as usize] += 1;
        // The marker ends a frame (RFC 6184, 5.1; RFC 7741, 4.1).
        let is_picture = kind == StreamKind::Video && repair.is_none();
        if is_picture && header.marker && state.feedback.has_one_video() {
            state.flow.frames += 1;
        }
        if state.signs.inspects(kind) {
            self.inspect(header, packet, cx.now);
        }
        self.send_to_node(hop, RtpSide::Rtp, kind, packet, cx);
    }

    /// Handles a retransmission of the client in a stream of its own (RFC 4588). Nodes get the packet in it, if that was asked for. Returns
    /// false if the retransmission itself is to follow.
    #[inline(never)]
    fn handle_client_rtx(
        &mut self,
        kind: StreamKind,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> bool {
        let RunningMedia { state, repair: Some(repair), rtx, .. } = self.running() else {
            return false;
        };
        let sources = &mut state.measurements.sources;
        let Some(rtx) = rtx.as_deref_mut().filter(|rtx| rtx.reads(header.payload_type)) else {
            // The offer did not tell what it repairs.
            if let Some(sequence) = retransmission::original_sequence(header, packet)
                && let RetransmittedPacket::Missing(ssrc) =
                    repair.missing.receive_retransmission(sequence, None)
            {
                sources.filled(ssrc, sequence);
            }
            return false;
        };
        let restored = match rtx.restore(header, packet, &mut repair.missing) {
            Ok(Some(restored)) => restored,
            Ok(None) => return false,
            Err(reason) => {
                cx.egress.count_drop(reason);
                return true;
            }
        };
        if let Ok(header) = rtp::RtpHeader::parse(&restored) {
            sources.filled(header.ssrc, header.sequence);
            self.admit(kind, None, true, &header, &restored, cx);
        }
        if let Some(rtx) = &mut self.running().rtx {
            rtx.reuse(restored);
        }
        true
    }

    /// Returns whether the client negotiated redundancy for a packet of this kind: repeated frames of voice, or parity of video.
    #[inline]
    fn has_redundancy(&self, kind: StreamKind, repair: Option<RepairKind>) -> bool {
        self.running.as_deref().is_some_and(|running| match kind {
            StreamKind::Audio => running.redundancy.is_some() && repair.is_none(),
            StreamKind::Video => running.fec.is_some(),
        })
    }

    /// This packet repeats frames of earlier ones. Sends those that were lost to the node, before it. Fails if it is not to follow.
    #[inline(never)]
    fn recover_lost(
        &mut self,
        hop: Hop,
        twin: Option<Hop>,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> Result<(), DropReason> {
        let Some(mut redundancy) = self.running().redundancy.take() else { return Ok(()) };
        let found = redundancy.find_lost(header, packet, |lost| {
            self.counts().note_recovered();
            self.send_recovered(hop, twin, StreamKind::Audio, lost, cx);
        });
        self.running().redundancy = Some(redundancy);
        found
    }

    /// Handles a packet of video, or of its parity. Sends packets of the client that are recovered now to the nodes, before it. Fails if it is not
    /// to follow.
    #[inline(never)]
    fn recover_by_parity(
        &mut self,
        hop: Hop,
        twin: Option<Hop>,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> Result<(), DropReason> {
        let running = self.running();
        if running.srtp.has_own_numbers() {
            // The parity covers the client's numbers, which the packet no longer has.
            return Ok(());
        }
        let Some(mut fec) = running.fec.take() else { return Ok(()) };
        let memory = &cx.egress.repair_memory;
        let received = fec.receive(header, packet, &mut running.counts, memory, cx.now);
        while let Some(found) = fec.next_recovered() {
            let Ok(lost) = found else {
                cx.egress.count_drop(DropReason::Malformed);
                continue;
            };
            self.counts().note_repaired();
            let ends_frame = lost.get(1).is_some_and(|second| second & 0x80 != 0);
            let state = self.state();
            state.flow.frames += u32::from(ends_frame && state.feedback.has_one_video());
            self.send_recovered(hop, twin, StreamKind::Video, lost, cx);
        }
        self.running().fec = Some(fec);
        received
    }

    /// Sends a packet of the client that was recovered to the nodes.
    fn send_recovered(
        &mut self,
        hop: Hop,
        twin: Option<Hop>,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        if let Some((ssrc, sequence)) = rtp::ssrc_and_sequence(packet) {
            self.state().measurements.sources.filled(ssrc, sequence);
            if let Some(repair) = &mut self.running().repair {
                repair.note_recovered(ssrc, sequence);
            }
        }
        self.state().flow.sent[kind as usize] += 1;
        if let Some(twin) = twin {
            self.send_copy(twin, RtpSide::Rtp, kind, packet, cx);
        }
        self.send_to_node(hop, RtpSide::Rtp, kind, packet, cx);
    }

    /// Few packets are inspected, so `#[cold]` moves this code out of the packet path.
    #[cold]
    fn inspect(&mut self, header: &rtp::RtpHeader, packet: &[u8], now: Instant) {
        let declared = declared(&self.media, header.payload_type);
        let (Some((kind, payload)), Some(running)) = (declared, self.running.as_deref_mut()) else {
            return;
        };
        let MediaState { signs, feedback, .. } = &mut running.state;
        match signs.inspect(kind, payload, header.payload(packet), now) {
            Some(true) => feedback.key_frame_came(header.ssrc),
            Some(false) => {}
            // In the packets of an unknown codec no key frame is found.
            None => feedback.stop_awaiting(header.ssrc),
        }
        if feedback.awaits_key_frame_of_client() {
            signs.go_on_inspecting();
        }
    }

    /// Handles RTCP from an accepted source of the client.
    pub(crate) fn handle_client_rtcp(&mut self, packet: &[u8], cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        let readable = self.media.srtp.is_readable();
        let home = self.home;
        let RunningMedia { state, counts, srtp, rtx, .. } = self.running();
        let MediaState { measurements, continuity, validation, flow, totals, .. } = state;
        let sent = totals.packets_down;
        measurements.last_heard = Some(cx.now);
        if let Some(address) = validation {
            address.receive(packet);
            if reports(packet).any(|report| address.is_proved_by(&report)) {
                *validation = None;
                cx.egress.note_changed(home);
            }
        }
        // RTCP is only a few packets a second, so the copy is cheap.
        let mut packet = packet.to_vec();
        if rtx.is_some() {
            let length = rtcp::rewrite::retain_reports(&mut packet, |ssrc| {
                !srtp.is_of_retransmissions(ssrc)
            });
            packet.truncate(length);
            if length == 0 {
                return;
            }
        }
        if readable {
            continuity.excuse_skipped(&mut packet);
            let lost_ppm = measurements.read_reports(
                &packet,
                |ssrc| continuity.clock_rate(ssrc),
                |block| continuity.unsent(block),
                cx.now,
            );
            // The diagnosis itself subtracts the losses before the gateway.
            flow.client_ppm = reported_loss(&packet).or(flow.client_ppm);
            let jitter = voice_jitter(&packet, |ssrc| continuity.clock_rate(ssrc));
            flow.client_jitter_us = jitter.or(flow.client_jitter_us);
            let behind = reports(&packet).map(|block| rtcp::ReportBlock {
                lost: block.lost.wrapping_sub(continuity.unsent(&block).cast_signed()),
                ..block
            });
            counts.get_or_insert_default().note_reports(behind, sent);
            if !self.answer_nacks(&mut packet, cx) {
                return;
            }
            if !self.running().follow_downlink(lost_ppm, &mut packet, cx.now) {
                return;
            }
        }
        let (hop, twin) = match self.route.forward_to_node(cx.board) {
            ForwardVerdict::Pass { hop, .. } => (hop, None),
            ForwardVerdict::Both([hop, twin]) => (hop, Some(twin)),
            ForwardVerdict::Drop(reason) => return cx.egress.count_drop(reason),
        };
        // The rewrite may shorten the packet.
        if readable {
            self.client.restore_reports(&mut packet);
            let measurements = &self.state().measurements;
            let length = rtcp::rewrite::extended::retain_answers(&mut packet, |reference| {
                measurements.has_sent_reference(reference)
            });
            packet.truncate(length);
            let length = feedback::coalesce(&mut packet);
            packet.truncate(length);
        }
        match self.state().continuity.rtcp_to_node(&mut packet) {
            Ok(length) => {
                packet.truncate(length);
                let running = self.running.as_deref();
                let estimate = running.and_then(|running| running.estimate.as_deref());
                let limit = DownlinkEstimate::limit(estimate, self.limits.receive_kbps, cx.now);
                if readable && let Some(kbps) = limit {
                    rtcp::rewrite::limit_rates(&mut packet, u64::from(kbps) * 1_000);
                }
                let packet = &packet[..];
                if readable {
                    self.state().feedback.note_requests_to_hop(packet, cx.now);
                }
                if let Some(twin) = twin {
                    self.send_copy(twin, RtpSide::Rtcp, StreamKind::Audio, packet, cx);
                }
                self.send_to_node(hop, RtpSide::Rtcp, StreamKind::Audio, packet, cx);
            }
            Err(_) => cx.egress.count_drop(DropReason::Feedback),
        }
    }

    /// Sends a copy to the twin. The copy is dropped if the twin has no leg yet, because the leading hop gets the
    /// packet.
    fn send_copy(
        &mut self,
        twin: Hop,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        if self.nodes.has_leg(twin) {
            self.state().totals.bytes_copied += packet.len() as u64;
            self.send_to_node(twin, side, kind, packet, cx);
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
        let running = self.running.as_deref();
        if running.is_some_and(|running| running.state.has_layers(side, kind)) {
            return self.send_layers_to_node(hop, side, kind, packet, cx);
        }
        self.queue_to_node(hop, side, kind, packet, cx);
    }

    #[inline]
    fn queue_to_node(
        &mut self,
        hop: Hop,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let srtp = self.running.as_deref_mut().map(|running| &mut running.srtp);
        let dscp = self.client.dscp;
        // The next copy must have the counters.
        self.uncopied |=
            self.nodes.send(hop, side, kind, dscp, packet, self.home, self.id, srtp, cx);
    }

    /// Sends a packet of the client's video with the names of its layer, or RTCP about the layers that the client gets. Few sessions have layers,
    /// so this code stands apart from the packet path of others.
    #[inline(never)]
    fn send_layers_to_node(
        &mut self,
        hop: Hop,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        if side == RtpSide::Rtcp {
            let mut packet = packet.to_vec();
            let layers = self.state().layers.as_deref_mut();
            if layers.is_none_or(|layers| layers.rtcp_to_node(&mut packet, cx.now)) {
                self.queue_to_node(hop, side, kind, &packet, cx);
            }
            return;
        }
        let header = self.parse(packet).ok();
        let repair = header.and_then(|header| declared(&self.media, header.payload_type));
        let repair = repair.and_then(|(_, payload)| payload.repair());
        let again = repair == Some(RepairKind::Retransmission);
        let named = match (header, self.state().sent_layers.as_deref_mut()) {
            (Some(header), Some(layers)) => layers.name(&header, packet, again),
            _ => None,
        };
        let Some(named) = named else { return self.queue_to_node(hop, side, kind, packet, cx) };
        self.queue_to_node(hop, side, kind, &named, cx);
        if let Some(layers) = self.state().sent_layers.as_deref_mut() {
            layers.reuse(named);
        }
    }

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
            self.route.forward_to_client(from, payload_type, &self.limits, cx.board, cx.now);
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
            Some(header) if self.state().layers.is_some() => {
                self.choose_layer(from, epoch, &header, packet, cx);
            }
            Some(header) => self.rtp_to_client(from, epoch, &header, packet, cx),
            None => self.rtcp_to_client(epoch, packet, cx),
        }
    }

    /// Handles a packet of a hop to a client that gets video in layers. Few sessions do, so this code stands apart from the packet path of others.
    #[inline(never)]
    fn choose_layer(
        &mut self,
        from: Hop,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let media = Arc::clone(&self.media);
        let verdict = match (declared(&media, header.payload_type), &mut self.state().layers) {
            (Some((StreamKind::Video, payload)), Some(layers)) => {
                layers.pass(epoch, header, packet, payload, cx.now)
            }
            _ => LayerVerdict::Unread,
        };
        match verdict {
            LayerVerdict::Unread => self.rtp_to_client(from, epoch, header, packet, cx),
            LayerVerdict::Passes { header, packet } => {
                self.rtp_to_client(from, epoch, &header, &packet, cx);
                if let Some(layers) = self.state().layers.as_deref_mut() {
                    layers.reuse(packet);
                }
            }
            LayerVerdict::Withheld => {
                let state = self.state();
                // `merge_to_client` counts merged packets.
                if state.current_hop == Some(from) && state.pair.is_none() {
                    state.flow.received[StreamKind::Video as usize] += 1;
                }
                cx.egress.count_drop(DropReason::Layer);
            }
        }
    }

    /// Looks for the names of a layer in the first packet of a source, and returns the packet without them. It passes; from the next layer on,
    /// one of them is chosen.
    #[cold]
    fn look_for_layers(
        &mut self,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        packet: &[u8],
    ) -> Option<Vec<u8>> {
        if self.state().layers.is_some() {
            return None;
        }
        let layers = ReceivedLayers::begin(&self.media, epoch, header, packet)?;
        let without_names = layers.without_names(packet);
        self.state().layers = Some(layers);
        Some(without_names)
    }

    /// Follows the layers that the client describes.
    fn follow_layers(&mut self) {
        if !self.media.simulcast.is_empty() || self.running.is_some() {
            let (seed, media) = (self.seed, Arc::clone(&self.media));
            SentLayers::follow(&mut self.state().sent_layers, seed, &media);
        }
    }

    /// Chooses the layers to the client, and requests key frames of those that are to pass. Called every 100 ms.
    #[inline(never)]
    fn tick_layers(&mut self, cx: &mut PacketContext<'_>) {
        let limits = self.limits;
        let Some(RunningMedia { state, estimate, .. }) = self.running.as_deref_mut() else {
            return;
        };
        let MediaState { layers: Some(layers), feedback, totals, current_hop, .. } = state else {
            return;
        };
        let path_kbps = estimate.as_deref().and_then(|estimate| estimate.kbps(cx.now));
        layers.choose(path_kbps, &limits, totals.bytes_down, cx.now);
        let Some(hop) = *current_hop else { return };
        let due = layers.due_requests(cx.now).into_iter().map(|ssrc| feedback.layer_request(ssrc));
        for request in due.collect::<Vec<_>>() {
            cx.egress.stats.asked_key_frame(MediaDirection::ToNode);
            // By the SSRC of the hop.
            self.queue_to_node(hop, RtpSide::Rtcp, StreamKind::Video, &request, cx);
        }
    }

    /// Makes packets of this hop reach the client from now on.
    fn switch_to(&mut self, hop: Hop, cx: &PacketContext<'_>) {
        cx.egress.note_changed(self.home);
        let route = self.route.load();
        self.running().switch_to(hop, route.mode, route.left.as_deref().copied(), cx);
    }

    /// Handles a packet of one of the two hops; `other` is `None` if the other hop is gone. RTCP passes only from the
    /// leading hop: reports of two nodes about one stream would contradict each other.
    fn merge_to_client(
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
        let kind = kind.or_else(|| redundancy::stripped_kind(header.payload_type));
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
            MergeOutcome::First if self.state().layers.is_some() => {
                return self.choose_layer(from, epoch, header, packet, cx);
            }
            MergeOutcome::First => return self.rtp_to_client(from, epoch, header, packet, cx),
            MergeOutcome::Again => {}
            MergeOutcome::Unproven => self.report_differing_copies(cx),
        }
        cx.egress.count_drop(DropReason::Duplicate);
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
        let mode = self.mode();
        self.running().record_recovery(twin, mode, cx);
        cx.egress.note_changed(self.home);
        let state = self.state();
        state.set_current_hop(twin);
        state.totals.switches += 1;
        state.continuity.switch_to_copies();
    }

    /// Reports two hops that deliver different packets for one stream, and repeats the report while they differ. Repair
    /// streams may differ, because each node numbers them independently.
    fn report_differing_copies(&mut self, cx: &PacketContext<'_>) {
        let (id, media) = (self.id, &self.media);
        let running = self.running.as_deref_mut();
        let Some(pair) = running.and_then(|running| running.state.pair.as_deref_mut()) else {
            return;
        };
        let matters = |number| declared(media, number).is_some_and(|(_, it)| !it.is_repair());
        if pair.differing().any(matters) && pair.tells(cx.now) {
            cx.egress.report(WorkerReport::CopiesDiffer { session: id, hops: pair.hops() });
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
        let header = match &mut state.layers {
            Some(layers) => layers.pass_withheld(epoch, header, cx.now),
            None => Some(*header),
        };
        let withheld = declared.zip(header).and_then(|((_, rate), header)| {
            state.continuity.withhold(epoch, &header, rate, cx.now)
        });
        let Some(Withheld { ssrc, after, ahead }) = withheld else {
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
        let running = self.running.as_deref_mut();
        if let Some((run, _)) = running.and_then(|running| running.state.shed.take()) {
            egress.report(WorkerReport::Shed { session: self.id, run });
        }
    }

    fn rtp_to_client(
        &mut self,
        from: Hop,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let Some((kind, payload)) = declared(&self.media, header.payload_type) else {
            return self.pass_own_frame(from, epoch, header, packet, cx);
        };
        let (clock_rate, repair) = (payload.clock_rate, payload.repair());
        let RunningMedia { state, srtp, thinning, .. } = self.running();
        if kind == StreamKind::Video && repair.is_none() && thinning.is_some() {
            return self.thin(from, epoch, header, packet, cx);
        }
        if !srtp.may_receive() {
            // The client's numbers go on without a gap once it receives.
            let _withheld = state.continuity.withhold(epoch, header, clock_rate, cx.now);
            return cx.egress.count_drop(DropReason::UndeclaredPayload);
        }
        // `merge_to_client` counts merged packets.
        let (hears, merges) = (state.current_hop == Some(from), state.pair.is_some());
        if hears && !merges {
            state.flow.received[kind as usize] += 1;
        }
        // Retransmissions have the timestamps of the lost packets.
        if kind == StreamKind::Audio && repair.is_none() && (hears || merges) {
            state.signs.receive_voice(header, clock_rate, cx.egress.stats.pass_began_us());
        }
        let (pass, original) = match repair {
            Some(RepairKind::Retransmission) => {
                self.repeat(epoch, header, clock_rate, packet, cx.now)
            }
            _ => (state.continuity.pass(epoch, header, clock_rate, cx.now), None),
        };
        let first;
        let packet = if kind == StreamKind::Video
            && self.state().continuity.take_joined()
            && let Some(without_names) = self.look_for_layers(epoch, header, packet)
        {
            first = without_names;
            &first[..]
        } else {
            packet
        };
        let state = self.state();
        let rewrite = match pass {
            Pass::Untouched if original.is_none() => None,
            Pass::Untouched => Some((header.ssrc, header.sequence, header.timestamp)),
            Pass::Rewrite { ssrc, sequence, timestamp } => Some((ssrc, sequence, timestamp)),
            Pass::Stale | Pass::Duplicate => return cx.egress.count_drop(DropReason::Stale),
            Pass::Surplus => {
                state.feedback.want_key_frame_of(header.ssrc);
                return cx.egress.count_drop(DropReason::SurplusStream);
            }
        };
        state.totals.packets_down += 1;
        state.totals.bytes_down += packet.len() as u64;
        state.measurements.bytes_down += packet.len() as u64;
        if let Some(OriginalNumbers { ssrc, .. }) = original {
            state.measurements.down(Some(ssrc)).losses.note_repair(RepairPacket::Separate);
        }
        if kind == StreamKind::Video && state.feedback.looks_for_key_frame(header.ssrc) {
            self.look_for_key_frame(from, header, packet, cx);
        }
        if let Some(kind) = repair {
            self.counts().note_repair(kind, MediaDirection::ToClient, packet.len());
        } else if kind == StreamKind::Video {
            let (ssrc, timestamp) = rewrite
                .map_or((header.ssrc, header.timestamp), |(ssrc, _, timestamp)| (ssrc, timestamp));
            self.counts().note_picture(ssrc, timestamp, cx.now);
        }
        if kind == StreamKind::Video && self.running().pacing.is_some() {
            let write = move |bytes: &mut [u8]| write_numbers(bytes, header, rewrite, original);
            if self.hold_video(header, repair, packet, cx, write) {
                return;
            }
        }
        if self.has_redundancy(kind, repair) {
            let (ssrc, sequence, timestamp) =
                rewrite.unwrap_or((header.ssrc, header.sequence, header.timestamp));
            let sent = rtp::RtpHeader { ssrc, sequence, timestamp, ..*header };
            let is_sent = match kind {
                StreamKind::Audio => self.send_with_redundancy(&sent, packet, cx),
                StreamKind::Video => self.send_with_parity(&sent, packet, cx),
            };
            if is_sent {
                return;
            }
        }
        self.send_to_client(RtpSide::Rtp, kind, packet, cx, |bytes| {
            write_numbers(bytes, header, rewrite, original);
        });
    }

    /// Handles a packet of thinned video to the client. Few sessions have it, so this code stands apart from the packet path of others.
    #[inline(never)]
    fn thin(
        &mut self,
        from: Hop,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let media = Arc::clone(&self.media);
        let Some((kind, payload)) = declared(&media, header.payload_type) else { return };
        let Some(mut thinning) = self.running().thinning.take() else { return };
        let frame = thinning.decide(&payload.codec, header, packet);
        let state = self.state();
        if !frame.passes && state.continuity.withhold_between(epoch, header, cx.now) {
            // `merge_to_client` counts merged packets.
            if state.current_hop == Some(from) && state.pair.is_none() {
                state.flow.received[kind as usize] += 1;
            }
            state.totals.shed += 1;
            self.counts().note_thinned();
            cx.egress.count_drop(DropReason::Shed);
        } else if let Some(renumbered) =
            thinning.renumber(&payload.codec, header, packet, frame.withheld)
        {
            self.rtp_to_client(from, epoch, header, &renumbered, cx);
            thinning.reuse(renumbered);
        } else {
            self.rtp_to_client(from, epoch, header, packet, cx);
        }
        self.running().thinning = Some(thinning);
    }

    /// Thins the client's video by the description and the limits of now.
    fn follow_thinning(&mut self) {
        let (media, level) = (Arc::clone(&self.media), self.limits.thin);
        if level > 0 || self.running.is_some() {
            Thinning::follow(&mut self.running().thinning, &media, level);
        }
    }

    /// Sends a packet of voice with earlier frames, under these numbers. Returns false if none are repeated now. Few sessions have
    /// redundancy, so this code stands apart from the packet path of others.
    #[inline(never)]
    fn send_with_redundancy(
        &mut self,
        sent: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> bool {
        let Some(buffer) = self.running().repeat_frames(sent, packet, cx.now) else { return false };
        self.send_to_client(RtpSide::Rtp, StreamKind::Audio, &buffer, cx, |bytes| {
            rtp::set_ssrc(bytes, sent.ssrc);
            rtp::set_sequence(bytes, sent.sequence);
            rtp::set_timestamp(bytes, sent.timestamp);
        });
        if let Some(redundancy) = &mut self.running().redundancy {
            redundancy.reuse(buffer);
        }
        true
    }

    /// Sends the frame of a packet with redundancy that the client did not negotiate. Drops a packet with another payload type.
    #[cold]
    fn pass_own_frame(
        &mut self,
        from: Hop,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let mut buffer = std::mem::take(&mut cx.egress.stripped);
        match redundancy::strip(&self.media, header, packet, &mut buffer) {
            Some(plain) => {
                if let Ok(header) = self.parse(plain) {
                    self.rtp_to_client(from, epoch, &header, plain, cx);
                }
            }
            None => cx.egress.count_drop(DropReason::UndeclaredPayload),
        }
        cx.egress.stripped = buffer;
    }

    /// Sends a packet of video under these numbers, and the parity that is due after it. Returns false if none is made now. As above, this code
    /// stands apart.
    #[inline(never)]
    fn send_with_parity(
        &mut self,
        sent: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> bool {
        let seed = self.seed;
        let RunningMedia { state, fec: place, .. } = self.running();
        let Some(mut fec) = place.take() else { return false };
        let announced = state.continuity.parity_ssrc(sent.ssrc);
        let ssrc = announced.unwrap_or_else(|| fec::parity_ssrc(seed, sent.ssrc));
        let Some(mut covered) = fec.note_sent(sent, &mut state.measurements, cx.now) else {
            *place = Some(fec);
            return false;
        };
        let rewrite = |bytes: &mut [u8]| {
            rtp::set_ssrc(bytes, sent.ssrc);
            rtp::set_sequence(bytes, sent.sequence);
            rtp::set_timestamp(bytes, sent.timestamp);
        };
        let show = |bytes: &[u8]| covered.extend_from_slice(bytes);
        self.send_shown(RtpSide::Rtp, StreamKind::Video, packet, cx, rewrite, show);
        let running = self.running();
        if running.srtp.map_to_client(&mut covered).is_ok()
            && !fec.keep(sent, covered, &cx.egress.repair_memory, cx.now)
        {
            running.counts.get_or_insert_default().note_cache_refused();
        }
        while let Some(parity) = fec.next_parity(sent, ssrc, &self.running().srtp, cx.now) {
            self.running().note_parity(parity.len());
            if !self.hold_repair(parity, cx) {
                self.send_to_client(RtpSide::Rtp, StreamKind::Video, parity, cx, |_| {});
            }
        }
        self.running().fec = Some(fec);
        true
    }

    /// Has a packet of video wait, unless it may leave at once. Returns whether it waits. Few sessions are paced, so this code stands apart from
    /// the packet path of others.
    #[inline(never)]
    fn hold_video(
        &mut self,
        header: &rtp::RtpHeader,
        repair: Option<RepairKind>,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
        write_numbers: impl FnOnce(&mut [u8]),
    ) -> bool {
        let until = cx.now + self.media.latency.duration();
        let begins = declared(&self.media, header.payload_type).and_then(|(_, payload)| {
            key_frame::begins_key_frame(&payload.codec, header.payload(packet))
        });
        let Some(running) = self.running.as_deref_mut() else { return false };
        let RunningMedia { pacing: Some(pacing), estimate, counts, .. } = running else {
            return false;
        };
        if let Some(kbps) = estimate.as_deref().and_then(|estimate| estimate.kbps(cx.now)) {
            pacing.set_rate(kbps, cx.now);
        }
        let class = match repair {
            Some(RepairKind::Retransmission) => PacedClass::VideoRepair,
            // ULPFEC may have the numbers of the media.
            Some(RepairKind::Fec) => PacedClass::Video,
            None => pacing.class_of(header, begins == Some(true)),
        };
        if pacing.admits(packet.len(), cx.now) {
            return false;
        }
        let was_short = pacing.is_short;
        if !pacing.reserve(&cx.egress.repair_memory) {
            if !was_short {
                counts.get_or_insert_default().note_cache_refused();
            }
            // A retransmission has its number already, and may overtake others.
            if repair != Some(RepairKind::Retransmission) {
                self.send_all_paced(cx);
            }
            return false;
        }
        pacing.hold(packet, false, class, until, write_numbers);
        pacing.list(self.home, &mut cx.egress.paced, cx.now);
        counts.get_or_insert_default().note_paced();
        true
    }

    /// Has a packet of parity, or a retransmission in a stream of its own, wait, unless it may leave at once. Returns whether it waits.
    #[inline(never)]
    fn hold_repair(&mut self, packet: &[u8], cx: &mut PacketContext<'_>) -> bool {
        let (latency, home) = (self.media.latency.duration(), self.home);
        let Some(running) = self.running.as_deref_mut() else { return false };
        let Some(pacing) = running.pacing.as_deref_mut() else { return false };
        let waits = pacing.hold_repair(packet, false, latency, &cx.egress.repair_memory, cx.now);
        if waits {
            pacing.list(home, &mut cx.egress.paced, cx.now);
            running.counts.get_or_insert_default().note_paced();
        }
        waits
    }

    /// Sends the packets of video that may leave now. Returns whether others wait.
    pub(crate) fn send_paced(&mut self, cx: &mut PacketContext<'_>) -> bool {
        self.send_held(false, cx);
        let running = self.running.as_deref_mut();
        let pacing = running.and_then(|running| running.pacing.as_deref_mut());
        pacing.is_some_and(SessionPacing::stays_listed)
    }

    /// Sends all packets of video that wait for their turn.
    pub(crate) fn send_all_paced(&mut self, cx: &mut PacketContext<'_>) {
        self.send_held(true, cx);
    }

    fn send_held(&mut self, all: bool, cx: &mut PacketContext<'_>) {
        loop {
            let running = self.running.as_deref_mut();
            let pacing = running.and_then(|running| running.pacing.as_deref_mut());
            let held = pacing.and_then(|pacing| pacing.next(all, &cx.egress.stats, cx.now));
            let Some(HeldPacket { mut bytes, is_repeated }) = held else { return };
            let (kind, latency) = (StreamKind::Video, self.media.latency);
            if is_repeated {
                let dscp = self.client.dscp.of(kind);
                self.client.send_again(kind, dscp, &bytes, latency, self.home, cx);
            } else if let Ok(header) = self.parse(&bytes) {
                let RunningMedia { srtp, rtx, .. } = self.running();
                if rtx.is_some() && srtp.is_of_retransmissions(header.ssrc) {
                    // Others have left with the number that was the next one when this packet began to wait.
                    rtp::set_sequence(&mut bytes, srtp.next_number(header.ssrc));
                }
                let is_sent =
                    self.has_redundancy(kind, None) && self.send_with_parity(&header, &bytes, cx);
                if !is_sent {
                    self.send_to_client(RtpSide::Rtp, kind, &bytes, cx, |_| {});
                }
            }
            let running = self.running.as_deref_mut();
            if let Some(pacing) = running.and_then(|running| running.pacing.as_deref_mut()) {
                pacing.reuse(bytes);
            }
        }
    }

    /// Begins, follows and ends pacing by the estimated rate. Called every 100 ms.
    fn tick_pacing(&mut self, cx: &mut PacketContext<'_>) {
        let is_possible = self.media.has_video()
            && self.media.latency.duration() >= pacing::LATENCY_MIN
            && self.client.address().flow().is_none();
        let Some(running) = self.running.as_deref_mut() else { return };
        let estimate = running.estimate.as_deref().filter(|_| is_possible);
        let kbps = estimate.and_then(|estimate| estimate.kbps(cx.now));
        if kbps.is_none() && running.pacing.is_some() {
            self.send_all_paced(cx);
        }
        SessionPacing::follow(&mut self.running().pacing, kbps, cx.now);
    }

    /// Assigns numbers to a retransmission, and to the packet that it contains.
    #[cold]
    fn repeat(
        &mut self,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        clock_rate: u32,
        packet: &[u8],
        now: Instant,
    ) -> (Pass, Option<OriginalNumbers>) {
        let media = Arc::clone(&self.media);
        let RunningMedia { state, srtp, rtx, .. } = self.running();
        let continuity = &mut state.continuity;
        let is_own = rtx.is_some() && srtp.has_retransmissions();
        let lost = retransmission::original_sequence(header, packet);
        let Some(sequence) = lost.filter(|_| media.srtp.is_readable()) else {
            if is_own {
                // The gateway sends the stream, and probes the path by no padding.
                return (Pass::Stale, None);
            }
            return (continuity.pass(epoch, header, clock_rate, now), None);
        };
        let is_repaired =
            |number| declared(&media, number).is_some_and(|(_, other)| !other.is_repair());
        if is_own {
            let original = continuity.original(epoch, header, sequence, clock_rate, is_repaired);
            let ssrc = original.and_then(|it| srtp.retransmissions_of(it.ssrc));
            let Some((original, ssrc)) = original.zip(ssrc) else { return (Pass::Stale, None) };
            let (sequence, timestamp) = (srtp.next_number(ssrc), original.timestamp);
            return (Pass::Rewrite { ssrc, sequence, timestamp }, Some(original));
        }
        continuity.pass_retransmission(epoch, header, sequence, clock_rate, is_repaired, now)
    }

    /// Looks for a key frame in a packet of the hop. Requests one, or requests it again, unless one begins or the client lacks nothing.
    #[cold]
    fn look_for_key_frame(
        &mut self,
        hop: Hop,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let (ssrc, now) = (header.ssrc, cx.now);
        let begins = declared(&self.media, header.payload_type).and_then(|(_, payload)| {
            key_frame::begins_key_frame(&payload.codec, header.payload(packet))
        });
        let lacks_nothing = self.state().feedback.wants_key_frame(ssrc) && self.lacks_nothing(ssrc);
        let MediaState { feedback, continuity, .. } = self.state();
        if begins == Some(true) {
            continuity.note_key_frame(ssrc);
        }
        if begins == Some(true) || lacks_nothing {
            if let Some(after) = feedback.key_frame_of_hop_came(ssrc, now) {
                self.counts().note_key_frame(after);
            }
            return;
        }
        let mut request = feedback.key_frame_request(ssrc);
        match begins {
            // In the packets of an unknown codec no key frame is found.
            None => {
                feedback.key_frame_of_hop_came(ssrc, now);
            }
            Some(_) if request.is_some() => feedback.await_key_frame_of_hop(ssrc, now),
            Some(_) => request = feedback.repeat_to_hop(ssrc, now),
        }
        if let Some(request) = request {
            cx.egress.stats.asked_key_frame(MediaDirection::ToNode);
            self.send_to_node(hop, RtpSide::Rtcp, StreamKind::Video, &request, cx);
        }
    }

    fn rtcp_to_client(&mut self, epoch: StreamEpoch, packet: &[u8], cx: &mut PacketContext<'_>) {
        let plain = self.media.srtp.is_readable();
        let mut packet = packet.to_vec();
        let RunningMedia { state, rtx, .. } = self.running();
        if rtx.as_deref().is_some_and(|rtx| !rtx.retain_reports(&mut packet)) {
            return;
        }
        // Reports of the previous hop are not counted.
        if plain && epoch == state.epoch() {
            state.flow.reported_ppm = reported_loss(&packet).or(state.flow.reported_ppm);
        }
        if let Some(layers) = &state.layers
            && !layers.rtcp_to_client(epoch, &mut packet)
        {
            return;
        }
        let Ok(length) = self.state().continuity.rtcp_to_client(epoch, &mut packet) else {
            return cx.egress.count_drop(DropReason::Feedback);
        };
        packet.truncate(length);
        let cap = self.told_kbps();
        let state = self.state();
        state.feedback.limit(&mut packet, cap, cx.now);
        if plain {
            self.client.shift_reports(&mut packet);
            let state = self.state();
            let length = state.feedback.thin_requests(&mut packet, cx.now);
            if length == 0 {
                return;
            }
            packet.truncate(length);
            if !self.translate_nacks(&mut packet, cx) || !self.suppress_nacks(&mut packet, cx.now) {
                return;
            }
            let state = self.state();
            state.measurements.note_sender_report(&packet, cx.now);
            if state.feedback.is_asked_for_key_frame(&packet) {
                state.signs.note_key_frame_request(cx.now);
            }
        }
        self.send_to_client(RtpSide::Rtcp, StreamKind::Audio, &packet, cx, |_| {});
    }

    fn send_to_client(
        &mut self,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        self.send_shown(side, kind, packet, cx, rewrite, |_| {});
    }

    /// Sends a packet to the client. `show` gets it with all numbers, by the room's ones for payload types and extensions, before encryption.
    #[inline(always)]
    fn send_shown(
        &mut self,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
        rewrite: impl FnOnce(&mut [u8]),
        show: impl FnOnce(&[u8]),
    ) {
        // The next copy must have the counters.
        self.uncopied |= self.has_srtp();
        let (dscp, running) = (self.client.dscp.of(kind), self.running.as_deref_mut());
        if let Some(RunningMedia { estimate: Some(estimate), .. }) = &running
            && estimate.has_arrivals()
        {
            return self.send_numbered(side, kind, packet, cx, rewrite, show);
        }
        self.client.send(side, dscp, packet, &self.media, self.home, running, cx, |bytes| {
            rewrite(bytes);
            show(bytes);
        });
    }

    /// Sends a packet to a client that takes transport-wide numbers. Few sessions do, so this code stands apart from the packet path of
    /// others.
    #[inline(never)]
    fn send_numbered(
        &mut self,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
        rewrite: impl FnOnce(&mut [u8]),
        show: impl FnOnce(&[u8]),
    ) {
        let Some(mut estimate) = self.running().estimate.take() else { return };
        let numbered = estimate.number(packet, rewrite, cx.now);
        let more = (numbered.len() - packet.len()) as u64;
        let (dscp, running) = (self.client.dscp.of(kind), self.running.as_deref_mut());
        let show = |bytes: &mut [u8]| show(bytes);
        self.client.send(side, dscp, numbered, &self.media, self.home, running, cx, show);
        let RunningMedia { state, estimate: place, .. } = self.running();
        state.totals.bytes_down += more;
        state.measurements.bytes_down += more;
        *place = Some(estimate);
    }

    /// Sets the client's port from an RTP packet. Returns whether the packet has a declared payload type.
    pub(crate) fn learn(&mut self, path: ClientPath, packet: &[u8]) -> bool {
        let is_declared = self
            .parse(packet)
            .is_ok_and(|header| declared(&self.media, header.payload_type).is_some());
        if is_declared {
            self.client.learn(path, self.media.rtcp);
        }
        is_declared
    }

    /// Removes an address that a check has proved to belong to another session's client.
    pub(crate) fn lose_address(&mut self, from: SourceKey) {
        self.client.lose_address(from);
        self.uncopied = true;
    }

    /// Handles a verified check from this address. Returns the address that lost its permission to send, if the list was full.
    pub(crate) fn checked(
        &mut self,
        path: ClientPath,
        nominated: bool,
        cx: &mut PacketContext<'_>,
    ) -> Option<SourceKey> {
        self.handle_other_input(cx);
        let CheckedAddress { is_new_destination, evicted } =
            self.client.check(path, nominated, cx.now);
        if is_new_destination {
            cx.egress.note_changed(self.home);
        }
        evicted
    }

    /// As [`ClientSide::write_check`].
    pub(crate) fn write_check(
        &mut self,
        to: SourceKey,
        username: Username<'_>,
        key: StunKey,
        out: &mut Vec<u8>,
    ) -> bool {
        let password = self.running.as_deref().and_then(|running| running.srtp.client_password());
        self.client.write_check(to, username, key, password, out)
    }

    /// Handles an answer to the gateway's check. Returns whether it proves the address.
    pub(crate) fn handle_check_answer(
        &mut self,
        from: SourceKey,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> bool {
        match self.client.handle_check_answer(from, datagram) {
            Ok(is_proved) => {
                if is_proved {
                    self.note_proof(cx);
                }
                is_proved
            }
            Err(reason) => {
                cx.egress.count_drop(reason);
                false
            }
        }
    }

    /// Reads the reports in RTCP of the client. Returns whether they prove the address.
    pub(crate) fn read_reports(
        &mut self,
        from: SourceKey,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> bool {
        let is_proved = self.media.srtp.is_readable() && self.client.read_reports(from, packet);
        if is_proved {
            self.note_proof(cx);
        }
        is_proved
    }

    /// The client has proved to receive at an address.
    fn note_proof(&mut self, cx: &PacketContext<'_>) {
        self.uncopied = true;
        cx.egress.note_changed(self.home);
    }

    pub(crate) fn attach(&mut self, hop: Hop, leg: NodeLeg) {
        match &leg {
            NodeLeg::Srtp(leg) => self.running().srtp.set_leg(hop, &leg.keys),
            NodeLeg::Trunk(_) | NodeLeg::Port(_) => self.forget_leg_keys(hop),
        }
        self.nodes.attach(hop, leg);
        self.uncopied = true;
    }

    pub(crate) fn detach(&mut self, hop: Hop) {
        self.forget_leg_keys(hop);
        self.nodes.detach(hop);
        self.uncopied = true;
    }

    fn forget_leg_keys(&mut self, hop: Hop) {
        if let Some(running) = &mut self.running {
            running.srtp.forget_leg(hop);
        }
    }

    /// Returns whether the session has a leg with SRTP.
    pub(crate) fn has_srtp_legs(&self) -> bool {
        self.nodes.srtp_legs().next().is_some()
    }

    /// The hop that sends to the session's own socket from this address.
    pub(crate) fn hop_at(&self, source: SocketAddr, cx: &PacketContext<'_>) -> Option<Hop> {
        self.nodes.hop_at(source, |one, other| self.likelier_sender(one, other, cx))
    }

    /// Decides which of two hops at one address sent a packet. Two hops share an address when a new node uses the
    /// address of a node that is being removed. Prefers the room's hop, then the hop that the room is leaving, then the
    /// newest incarnation.
    #[cold]
    fn likelier_sender(&self, one: Hop, other: Hop, cx: &PacketContext<'_>) -> Hop {
        let rank = |hop: Hop| {
            let verdict = self.route.forward_to_client(hop, None, &self.limits, cx.board, cx.now);
            let carries = match verdict {
                ForwardVerdict::Pass { leaving: false, .. } | ForwardVerdict::Both(_) => 2,
                ForwardVerdict::Pass { leaving: true, .. } => 1,
                ForwardVerdict::Drop(_) => 0,
            };
            (carries, hop.incarnation)
        };
        if rank(other) > rank(one) { other } else { one }
    }

    /// Verifies and decrypts a packet of a node in place, if the leg has SRTP. Returns the plain packet.
    pub(crate) fn unprotect_from_node<'a>(
        &mut self,
        hop: Hop,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        if !self.nodes.srtp_legs().any(|(at, _)| at == hop) {
            return Ok(packet);
        }
        let packet = self.running().srtp.unprotect_from_node(hop, packet)?;
        self.uncopied = true;
        Ok(packet)
    }

    /// Handles an error from the error queue of a session's port. `ConnectionRefused` is evidence against the node if
    /// it quotes RTP that the session forwarded lately; otherwise the error may be forged. Path errors are no evidence.
    pub(crate) fn send_failed(
        &self,
        address: SocketAddr,
        error: &io::Error,
        quoted: &[u8],
        cx: &PacketContext<'_>,
    ) {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return cx.egress.count_drop(reason(error));
        }
        if self.has_forwarded(quoted)
            && let Some(hop) = self.hop_at(address, cx)
        {
            cx.egress.report(WorkerReport::PortClosed { session: self.id, hop });
        }
    }

    /// Returns whether these are the first bytes of an RTP packet of the client, as it reached the node.
    fn has_forwarded(&self, start: &[u8]) -> bool {
        let numbers = rtp::ssrc_and_sequence(start).zip(self.running.as_deref());
        numbers.is_some_and(|((ssrc, passed), RunningMedia { state, policing, .. })| {
            let of_sender = |it: &SenderPolicing| it.of_sender(ssrc, passed);
            let sequence = policing.as_deref().map_or(Some(passed), of_sender);
            sequence.is_some_and(|sequence| state.measurements.is_recent(ssrc, sequence))
        })
    }

    /// Returns whether the client encrypts its packets with keys that the session has, or will have.
    pub(crate) fn has_srtp(&self) -> bool {
        self.media.srtp == Srtp::Terminated
    }

    /// Verifies and decrypts a packet of the client in place. Returns the plain packet, with the numbers of the room.
    pub(crate) fn unprotect_srtp<'a>(
        &mut self,
        side: RtpSide,
        packet: &'a mut [u8],
        egress: &Egress,
    ) -> Result<&'a mut [u8], DropReason> {
        let unprotected = match self.running.as_deref_mut() {
            Some(running) => running.srtp.unprotect_from_client(side, packet),
            None => Err(DropReason::SrtpNoKeys),
        };
        if matches!(unprotected, Err(DropReason::SrtpNoKeys)) {
            self.note_media_without_keys(egress);
        }
        self.uncopied |= unprotected.is_ok();
        unprotected
    }

    /// A client that sends media has keys. If another process agreed on them, they are lost.
    #[cold]
    fn note_media_without_keys(&self, egress: &Egress) {
        if self.running.as_deref().is_some_and(|running| running.srtp.may_have_lost_keys()) {
            self.report_failure(HandshakeFailure::Lost, egress);
        }
    }

    fn report_failure(&self, failure: HandshakeFailure, egress: &Egress) {
        egress.report(WorkerReport::Handshake { session: self.id, result: Err(failure) });
    }

    /// Reports that the keys were awaited for too long. Called every 100 ms.
    fn look_for_keys(&mut self, cx: &PacketContext<'_>) {
        let running = self.running.as_deref_mut();
        if running.is_some_and(|running| running.srtp.awaits_too_long(cx.now)) {
            self.report_failure(HandshakeFailure::Timeout, cx.egress);
        }
    }

    /// Sets the keys on which DTLS agreed, unless the session has some: they do not change.
    pub(crate) fn set_keys(&mut self, keys: &SrtpKeys) {
        self.running().srtp.set_keys(keys);
        self.uncopied = true;
    }

    /// Follows the answer to a later offer. Keys, numbers of packets and the path to the node remain.
    pub(crate) fn renegotiate(
        &mut self,
        media: Arc<MediaDescription>,
        answered: Arc<AnsweredMedia>,
    ) {
        let had_video = self.media.has_video();
        self.media = media;
        let media = Arc::clone(&self.media);
        let RunningMedia { state, srtp, repair, redundancy, estimate, fec, rtx, .. } =
            self.running();
        ClientRepair::follow(repair, &media);
        Redundancy::follow(redundancy, &media);
        DownlinkEstimate::follow(estimate, &media);
        ClientFec::follow(fec, &media);
        ClientRtx::follow(rtx, &media);
        state.measurements.note_redundancy(|_| None);
        let had_media = srtp.may_receive();
        srtp.set_answered(answered);
        srtp.announce(&mut state.continuity);
        if srtp.may_receive() && !(had_media && had_video) {
            state.feedback.want_key_frame();
        }
        state.feedback.follow(&media);
        state.measurements.voice = voice(&media);
        self.follow_thinning();
        self.follow_layers();
        self.uncopied = true;
    }

    /// Passes DTLS of the client to the thread of handshakes, if it comes from an address that passed a check.
    #[cold]
    pub(crate) fn handle_dtls(
        &mut self,
        path: ClientPath,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let running = self.running.as_deref();
        let Some(running) = running.filter(|running| running.srtp.expects_dtls()) else {
            return cx.egress.count_drop(DropReason::Dtls);
        };
        if !self.client.has_checked(path.source) {
            return cx.egress.count_drop(DropReason::UnknownSource);
        }
        let Some(accepted) = running.srtp.accept_dtls() else {
            return cx.egress.count_drop(DropReason::RingFull);
        };
        self.client.count_received(path.source, datagram);
        let datagram = HandshakeDatagram {
            session: DtlsSession { id: self.id, home: self.home },
            path,
            fingerprints: accepted.fingerprints,
            is_keyed: accepted.is_keyed,
            bytes: datagram.into(),
            _place: accepted.place,
        };
        cx.egress.pass_to_handshakes(InputKind::Datagram(datagram));
    }

    /// Sends DTLS to the address of the client that it answers.
    #[cold]
    pub(crate) fn send_dtls(
        &mut self,
        to: ClientPath,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        // The client's media may overtake the keys, which come from control.
        self.running().srtp.note_handshake();
        self.client.send_dtls(to, datagram, cx.egress);
    }

    /// Has the thread of handshakes forget the session, which ends.
    pub(crate) fn end_dtls(&self, egress: &Egress) {
        if self.has_srtp() {
            let session = DtlsSession { id: self.id, home: self.home };
            egress.pass_to_handshakes(InputKind::Ended(session));
        }
    }

    /// Begins to send SRTP. Returns false if the session ends, since indices that another process used are unknown.
    pub(crate) fn begin_srtp(&mut self, now: Instant) -> bool {
        self.running.as_deref_mut().is_none_or(|running| running.srtp.begin_to_send(now))
    }

    /// Sends no SRTP before the counters of another process come, which may have sent some.
    pub(crate) fn await_srtp_counters(&mut self) {
        self.running.iter_mut().for_each(|running| running.srtp.await_client_counters());
    }

    pub(crate) fn set_limits(&mut self, limits: MediaLimits, cx: &mut PacketContext<'_>) {
        let restored = limits.restores(&self.limits);
        let capped = self.limits.send_kbps != limits.send_kbps;
        self.limits = limits;
        self.wake(cx);
        self.follow_thinning();
        if restored {
            self.report_shed(cx.egress);
            self.state().feedback.want_key_frame();
        }
        if capped {
            self.send_cap(cx);
        }
    }

    /// The cap that the client is told of, in kbit/s; 0: none. A client that exceeds the scenario's ceiling is told of that.
    fn told_kbps(&self) -> u32 {
        let policing = self.running.as_deref().and_then(|running| running.policing.as_deref());
        let tells_ceiling = policing.is_some_and(SenderPolicing::tells_ceiling);
        let ceiling = if tells_ceiling { self.limits.ceiling_kbps } else { 0 };
        lower_cap(self.limits.send_kbps, ceiling)
    }

    /// Compares the rate of the client's packets with its limit. Called every 100 ms, before the summary. Requests a key frame if frames were
    /// dropped to which later ones refer, and it may pass.
    fn follow_sent_rate(&mut self, cx: &mut PacketContext<'_>) {
        let Some(running) = self.running.as_deref_mut() else { return };
        let RunningMedia { state, counts, policing, .. } = running;
        let MediaState { measurements, feedback, .. } = state;
        let elapsed = measurements.since.map(|since| cx.now.saturating_duration_since(since));
        let Some(elapsed) = elapsed.filter(|elapsed| *elapsed >= RATE_OVER) else { return };
        let repairs = counts.as_deref().map_or(0, SessionCounts::repair_bytes_up);
        let bytes = measurements.bytes_up;
        // The payload type alone makes a packet a repair, so half of all bytes count whatever they are.
        let sent = SentBytes { bytes: bytes - repairs.min(bytes / 2), elapsed };
        SenderPolicing::follow(policing, sent, self.limits, &self.media, cx.now);
        if let Some(policing) = policing
            && policing.wants_key_frame(cx.now)
            && let Some(request) = feedback.key_frame_of_client(cx.now)
        {
            policing.note_key_frame_request();
            self.send_key_frame_request(&request, cx);
        }
    }

    /// Sends the current send cap, or the end of the last one.
    pub(crate) fn send_cap(&mut self, cx: &mut PacketContext<'_>) {
        if self.running.is_none() && !self.media.takes_caps() {
            return;
        }
        let kbps = self.told_kbps();
        if let Some(cap) = self.state().feedback.cap(kbps, cx.now) {
            self.send_to_client(RtpSide::Rtcp, StreamKind::Video, &cap, cx, |_| {});
        }
    }

    /// Requests a key frame for each video stream that the client sends.
    pub(crate) fn request_client_key_frame(&mut self, cx: &mut PacketContext<'_>) {
        if self.spares_key_frames(cx) {
            return;
        }
        let running = self.running.as_mut();
        let request = running.and_then(|it| it.state.feedback.key_frame_of_client(cx.now));
        if let Some(request) = request {
            self.send_key_frame_request(&request, cx);
        }
    }

    fn send_key_frame_request(&mut self, request: &[u8], cx: &mut PacketContext<'_>) {
        self.state().signs.note_key_frame_request(cx.now);
        cx.egress.stats.asked_key_frame(MediaDirection::ToClient);
        self.send_to_client(RtpSide::Rtcp, StreamKind::Video, request, cx, |_| {});
    }

    /// Repeats requests for key frames of the client that are overdue. They are no sign of a receiver that still lacks one.
    fn repeat_key_frame_requests(&mut self, cx: &mut PacketContext<'_>) {
        let Some(running) = self.running.as_deref_mut() else { return };
        let MediaState { feedback, measurements, .. } = &mut running.state;
        let round_trip = measurements.round_trip(cx.now).unwrap_or_default();
        let request = feedback.repeat_to_client(round_trip, cx.now);
        let given_up = feedback.take_given_up();
        if given_up > 0 {
            self.counts().note_given_up(given_up);
        }
        if let Some(request) = request {
            cx.egress.stats.asked_key_frame(MediaDirection::ToClient);
            self.send_to_client(RtpSide::Rtcp, StreamKind::Video, &request, cx, |_| {});
        }
    }

    /// Runs every 100 ms: repeats the cap when due and reports shed packets.
    pub(crate) fn tick(&mut self, cx: &mut PacketContext<'_>) {
        self.follow_sent_rate(cx);
        let kbps = self.told_kbps();
        let is_due = |state: &MediaState| state.feedback.cap_is_due(kbps, cx.now);
        if self.state_ref().map_or(kbps > 0, is_due) {
            self.send_cap(cx);
        }
        let due = |since: Instant| cx.now.saturating_duration_since(since) >= SHED_TOLD_EVERY;
        let shed = self.state_ref().and_then(|state| state.shed);
        if shed.is_some_and(|(_, since)| due(since)) {
            self.report_shed(cx.egress);
        }
        let running = self.running.as_mut();
        let due = running.and_then(|it| it.state.feedback.due_key_frame_of_client(cx.now));
        if let Some(request) = due {
            self.send_key_frame_request(&request, cx);
        }
        self.repeat_key_frame_requests(cx);
        if self.has_srtp() {
            self.look_for_keys(cx);
        }
        self.tick_repair(cx);
        self.tick_pacing(cx);
        if self.state_ref().is_some_and(|state| state.layers.is_some()) {
            self.tick_layers(cx);
        }
        if let Some(RunningMedia { state, redundancy, fec, .. }) = self.running.as_deref_mut() {
            if let Some(redundancy) = redundancy {
                redundancy.choose(&mut state.measurements, cx.now);
            }
            if let Some(fec) = fec {
                fec.choose(&state.measurements, cx.now);
            }
        }
    }

    /// Returns the session's summary; `None` before its first packet.
    pub(crate) fn summary(&mut self, now: Instant) -> Option<Summary> {
        let session = self.id;
        self.running.as_deref_mut().map(|running| running.summary(session, now))
    }

    /// Returns the counts since the last call.
    pub(crate) fn take_counts(&mut self) -> MediaCounts {
        self.running.as_deref_mut().map(RunningMedia::take_counts).unwrap_or_default()
    }

    pub(crate) fn mode(&self) -> RedundancyMode {
        self.route.load().mode
    }

    pub(crate) fn totals(&self, now: Instant) -> Totals {
        self.state_ref().map_or(Totals::default(), |state| state.totals(now))
    }

    /// Returns a copy of the state. An address that another session has taken over since is not included.
    pub(crate) fn hand_out(&mut self, flows: &Flows) -> SessionState {
        let mut address = self.client.address().clone();
        let mut learned = Vec::new();
        for &source in self.client.learned() {
            match flows.entry(&source.key()).filter(|entry| entry.home == self.home) {
                Some(FlowEntry { held_until, .. }) => learned.push(Learned { source, held_until }),
                None => address.lose(source),
            }
        }
        let running = self.running.as_deref_mut();
        let media = running.map(|running| Box::new(running.state.recorded()));
        let srtp = self.running.as_deref().map(|running| &running.srtp);
        SessionState {
            session: self.id,
            legs: self.nodes.legs().to_vec(),
            address,
            learned,
            media,
            seed: self.seed,
            active: self.is_active(),
            touched: self.activity == Activity::Used,
            copied: false,
            srtp: srtp.and_then(SrtpEnds::client_counters),
            leg_srtp: srtp.map(SrtpEnds::leg_counters).unwrap_or_default(),
            received: None,
            holds_until: None,
        }
    }

    /// Returns a copy of the state for a process that continues once this one sends no more.
    pub(crate) fn hand_over(&mut self, flows: &Flows, at: GrantView<'_>) -> SessionState {
        let mut state = self.hand_out(flows);
        if let (Some(counters), Some(running)) = (&mut state.srtp, &self.running) {
            running.srtp.note_limits(counters, at);
        }
        state
    }

    /// Copies the state of a session that goes on. `number`: that of the worker's copy, for a standby.
    pub(crate) fn copy(
        &mut self,
        flows: &Flows,
        number: Option<u64>,
        at: GrantView<'_>,
    ) -> SessionState {
        self.uncopied = false;
        let mut state = SessionState { copied: true, ..self.hand_over(flows, at) };
        if let Some(number) = number {
            let running = self.running.as_deref_mut();
            state.srtp = running.and_then(|running| running.srtp.copy_for_standby(number, at));
            // This process may go on, so the standby opens these legs again, with other keys.
            state.legs.retain(|(_, leg)| !matches!(leg, NodeLeg::Srtp(_)));
            state.leg_srtp.clear();
        }
        state
    }

    /// Returns whether a standby is to get a copy although nothing has changed.
    pub(crate) fn needs_copy(&self, at: GrantView<'_>) -> bool {
        self.running.as_deref().is_some_and(|running| running.srtp.needs_copy(at))
    }

    /// Continues in this state. The session's own SRTP of the client remains, and goes on above the counters.
    pub(crate) fn go_on(&mut self, state: SessionState) {
        let SessionState { session: _, legs, address, learned: _, media, .. } = state;
        let SessionState { seed, active, touched, copied, srtp, leg_srtp, holds_until, .. } = state;
        self.client.continue_at(address);
        self.nodes.continue_with(legs);
        let needs_report = self.client.needs_report();
        let (mut ends, counts) = match self.running.take() {
            Some(running) => (running.srtp, running.counts),
            None => Default::default(),
        };
        ends.continue_legs(self.nodes.srtp_legs(), &leg_srtp, copied);
        if media.is_some() || !ends.is_empty() {
            let mut state = match media {
                Some(state) => *state,
                None => MediaState::new(self.seed, &self.media, needs_report),
            };
            ends.continue_client(srtp.as_ref(), copied, holds_until, &mut state.continuity);
            state.signs.forget_hop();
            // The setting may have changed.
            state.validation.take_if(|_| !needs_report);
            if copied {
                state.continuity.went_on_elsewhere();
                state.measurements.sources.went_on_elsewhere();
            }
            let mut counts = counts.unwrap_or_default();
            counts.continue_session();
            let counts = Some(counts);
            let media = &self.media;
            self.running = Some(Box::new(RunningMedia::with(state, ends, counts, media)));
        }
        self.follow_thinning();
        self.seed = seed;
        self.follow_layers();
        self.activity = match (touched, active || self.is_active()) {
            (true, _) => Activity::Used,
            (false, true) => Activity::Quiet,
            (false, false) => Activity::Idle,
        };
    }

    /// Answers the client's NACKs in a compound packet, and removes what it answered. Returns whether anything is left.
    fn answer_nacks(&mut self, compound: &mut Vec<u8>, cx: &mut PacketContext<'_>) -> bool {
        let Some(running) = self.running.as_deref_mut() else { return true };
        // The client's side needs the rest.
        let Some(mut repair) = running.repair.take() else { return true };
        let timing = repair.timing(&running.state.measurements, cx.now);
        let (now, mut packets, mut bytes, mut is_refused) = (cx.now, 0_u32, 0_u64, false);
        let send = |stream: &KeptStream, cached: &CachedPacket<'_>, copies| {
            let &CachedPacket { ssrc, sequence, packet, answered, .. } = cached;
            let kind = stream.kind;
            if stream.form == KeptForm::Plain {
                let is_first = answered.is_none();
                let due = DuePacket { kind, ssrc, sequence, copies, is_first };
                running.rtx.iter_mut().for_each(|rtx| rtx.due.push(due));
                return;
            }
            let before = packets;
            for _ in 0..copies {
                let mut validation = running.state.validation.iter_mut();
                if validation.any(|validation| !validation.may_send(packet, now)) {
                    cx.egress.count_drop(DropReason::Unvalidated);
                    continue;
                }
                let (dscp, latency) = (self.client.dscp.of(kind), self.media.latency);
                let pacing = running.pacing.as_deref_mut().filter(|_| kind == StreamKind::Video);
                let waits = pacing.is_some_and(|pacing| {
                    let memory = &cx.egress.repair_memory;
                    let waits = pacing.hold_repair(packet, true, latency.duration(), memory, now);
                    if waits {
                        pacing.list(self.home, &mut cx.egress.paced, now);
                    }
                    waits
                });
                if waits {
                    running.counts.get_or_insert_default().note_paced();
                }
                if waits || self.client.send_again(kind, dscp, packet, latency, self.home, cx) {
                    packets += 1;
                    bytes += packet.len() as u64;
                }
            }
            // A second answer repairs no second loss.
            if packets > before && answered.is_none() {
                let down = running.state.measurements.down(Some(ssrc));
                down.losses.note_repair(RepairPacket::Same);
            }
        };
        let length = repair.answer(compound, timing, now, send, || is_refused = true);
        compound.truncate(length);
        if is_refused {
            cx.egress.count_drop(DropReason::Limited);
        }
        running.repair = Some(repair);
        if packets > 0 {
            running.state.totals.packets_down += u64::from(packets);
            running.state.totals.bytes_down += bytes;
            running.state.measurements.bytes_down += bytes;
            running.counts.get_or_insert_default().note_answered(packets, bytes);
        }
        if running.rtx.as_deref().is_some_and(|rtx| !rtx.due.is_empty()) {
            self.send_due_packets(cx);
        }
        length > 0
    }

    /// Sends the packets that the client asked for in streams of their own (RFC 4588).
    #[inline(never)]
    fn send_due_packets(&mut self, cx: &mut PacketContext<'_>) {
        let RunningMedia { repair, rtx, .. } = self.running();
        let (Some(repair), Some(mut rtx)) = (repair.take(), rtx.take()) else { return };
        let mut due = std::mem::take(&mut rtx.due);
        for DuePacket { kind, ssrc, sequence, copies, is_first } in due.drain(..) {
            let Some(kept) = repair.find(ssrc, sequence, cx.now) else { continue };
            let (mut packets, mut bytes) = (0_u32, 0_u64);
            for _ in 0..copies {
                let Some(packet) = rtx.repeat(kept.packet, &self.running().srtp) else { break };
                (packets, bytes) = (packets + 1, bytes + packet.len() as u64);
                if kind != StreamKind::Video || !self.hold_repair(packet, cx) {
                    self.send_to_client(RtpSide::Rtp, kind, packet, cx, |_| {});
                }
            }
            let RunningMedia { state, counts, .. } = self.running();
            state.totals.packets_down += u64::from(packets);
            state.totals.bytes_down += bytes;
            state.measurements.bytes_down += bytes;
            if packets > 0 {
                counts.get_or_insert_default().note_answered(packets, bytes);
            }
            // A second answer repairs no second loss.
            if packets > 0 && is_first {
                state.measurements.down(Some(ssrc)).losses.note_repair(RepairPacket::Separate);
            }
        }
        rtx.due = due;
        let RunningMedia { repair: kept, rtx: place, .. } = self.running();
        (*kept, *place) = (Some(repair), Some(rtx));
    }

    /// Follows the numbers of the client's packets. Returns whether this packet was asked for: it was lost before.
    #[inline(never)]
    fn note_number(&mut self, header: &rtp::RtpHeader, bytes: usize, now: Instant) -> bool {
        let Some(running) = self.running.as_deref_mut() else { return false };
        let RunningMedia { counts, repair: Some(client), .. } = running else { return false };
        let was_asked =
            client.kind(header.payload_type).is_some() && client.missing.receive(header, now);
        if was_asked {
            let (kind, way) = (RepairKind::Retransmission, MediaDirection::ToNode);
            counts.get_or_insert_default().note_repair(kind, way, bytes);
        }
        was_asked
    }

    /// Asks the client for packets that are missing. The redundancy in its last packet comes first.
    #[inline(never)]
    fn ask_for_missing(&mut self, cx: &mut PacketContext<'_>) {
        loop {
            let Some(running) = self.running.as_deref_mut() else { return };
            let RunningMedia { state, counts, repair: Some(repair), .. } = running else { return };
            let timing = repair.timing(&state.measurements, cx.now);
            let Some(request) = repair.missing.next_request(timing, cx.now) else { return };
            counts.get_or_insert_default().note_requested(request.numbers.len());
            let nack = state.feedback.nack(request.ssrc, request.numbers);
            self.send_to_client(RtpSide::Rtcp, StreamKind::Audio, &nack, cx, |_| {});
        }
    }

    /// Gives a node's NACKs the client's numbers, if packets of the client were dropped, and sends them. Returns whether anything else is left.
    fn translate_nacks(&mut self, compound: &mut Vec<u8>, cx: &mut PacketContext<'_>) -> bool {
        let Some(running) = self.running.as_deref_mut() else { return true };
        let RunningMedia { state, repair, policing: Some(policing), .. } = running else {
            return true;
        };
        let (length, requests) = policing.take_requests(compound);
        compound.truncate(length);
        let mut nacks = Vec::new();
        for StreamRequest { ssrc, mut numbers } in requests {
            if let Some(repair) = repair {
                let timing = repair.timing(&state.measurements, cx.now);
                numbers.retain(|sequence| {
                    repair.missing.admit_request(ssrc, *sequence, timing, cx.now)
                });
            }
            if !numbers.is_empty() {
                nacks.push(state.feedback.nack(ssrc, &numbers));
            }
        }
        for nack in nacks {
            self.send_to_client(RtpSide::Rtcp, StreamKind::Audio, &nack, cx, |_| {});
        }
        length > 0
    }

    /// Removes numbers from a node's NACKs of the client's packets that were asked for within a round trip. Returns whether anything is
    /// left.
    fn suppress_nacks(&mut self, compound: &mut Vec<u8>, now: Instant) -> bool {
        let Some(running) = self.running.as_deref_mut() else { return true };
        let Some(repair) = running.repair.as_deref_mut() else { return true };
        let timing = repair.timing(&running.state.measurements, now);
        let length = rtcp::rewrite::retain_requested(compound, |ssrc, sequence| {
            repair.missing.admit_request(ssrc, sequence, timing, now)
        });
        compound.truncate(length);
        length > 0
    }

    /// Repeats requests that no later packet has repeated, and releases a cache without recent packets. Called every 100 ms.
    fn tick_repair(&mut self, cx: &mut PacketContext<'_>) {
        let Some(running) = self.running.as_deref_mut() else { return };
        let Some(repair) = running.repair.as_deref_mut() else { return };
        let timing = repair.timing(&running.state.measurements, cx.now);
        repair.tick(timing, cx.now);
        self.ask_for_missing(cx);
    }

    /// Handles a packet of the client that this hop alone gets next. If the hop before died, this one gets the swallowed packets now.
    #[inline(never)]
    fn replay_to(
        &mut self,
        hop: Hop,
        kind: StreamKind,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let mut replay = self.running().replay.take().unwrap_or_default();
        if let Some(since) = replay.follow(hop, cx.board, cx.now) {
            self.send_again(hop, &replay, since, cx);
            replay.note_replayed(cx.now);
        }
        if self.replayed.includes(kind) {
            if !replay.keep(kind, header, packet, &cx.egress.repair_memory, cx.now) {
                self.counts().note_cache_refused();
            }
            if kind == StreamKind::Video
                && self.media.srtp.is_readable()
                && let Some((_, payload)) = declared(&self.media, header.payload_type)
                && payload.repair().is_none()
            {
                let begins = key_frame::begins_key_frame(&payload.codec, header.payload(packet));
                replay.note_video(header.ssrc, begins == Some(true), cx.now);
            }
        }
        self.running().replay = Some(replay);
    }

    /// Handles a packet of the client that no hop gets. Packets before it would leave a gap at the next hop, which is no fault of that hop.
    #[cold]
    fn end_replay(&mut self) {
        if let Some(replay) = self.running.as_deref_mut().and_then(|it| it.replay.as_deref_mut()) {
            replay.end();
        }
    }

    #[cold]
    fn send_again(
        &mut self,
        hop: Hop,
        replay: &Replay,
        since: Instant,
        cx: &mut PacketContext<'_>,
    ) {
        for kind in StreamKind::ALL {
            let mut sent = 0;
            for packet in replay.since(kind, since) {
                self.send_to_node(hop, RtpSide::Rtp, kind, packet, cx);
                sent += 1;
            }
            self.state().flow.sent[kind as usize] += sent;
            self.counts().note_replayed(sent);
        }
    }

    /// Returns whether a request of the gateway for a key frame of the client would be needless after a node's death.
    fn spares_key_frames(&self, cx: &PacketContext<'_>) -> bool {
        let replay = self.running.as_deref().and_then(|running| running.replay.as_deref());
        replay.is_some_and(|replay| replay.spares_key_frames(cx.board, cx.now))
    }

    /// Returns whether the client lacks no packet of this stream of the hop, since the senders' packets were sent again.
    fn lacks_nothing(&mut self, ssrc: u32) -> bool {
        self.replayed == ReplayedMedia::All && {
            let state = self.state();
            state.feedback.is_wanted_for_switch() && state.continuity.is_whole(state.epoch(), ssrc)
        }
    }

    /// Returns an address to the flow table, unless another session has it.
    pub(crate) fn relearn(&mut self, learned: Learned, flows: &Flows) {
        let Learned { source, held_until } = learned;
        let SourceKey { listener, address } = source;
        flows.remove(&FlowKey::DeclaredIp { listener, ip: address.ip() }, self.home);
        let entry = FlowEntry { held_until, ..FlowEntry::of(self.home) };
        if flows.insert(source.key(), entry).is_err() {
            self.lose_address(source);
        }
    }
}
