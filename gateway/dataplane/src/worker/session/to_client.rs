//! Packets of the hop with the client's numbers.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_media::continuity::{OriginalNumbers, Pass, StreamEpoch};
use evenkeel_media::rtcp::RtcpPacket;
use evenkeel_media::{key_frame, retransmission, rtcp, rtp};
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Hop, RepairKind, StreamKind};

use super::packets::reported_loss;
use super::{PacketContext, WorkerSession, declared};
use crate::worker::report::MediaDirection;
use crate::worker::sockets::RtpSide;

impl WorkerSession {
    pub(super) fn rtp_to_client(
        &mut self,
        from: Hop,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let Some((kind, payload)) = declared(&self.media, header.payload_type) else {
            return cx.egress.count_drop(DropReason::UndeclaredPayload);
        };
        let (clock_rate, repair) = (payload.clock_rate, payload.repair());
        let state = self.state();
        if !state.srtp.may_receive() {
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
        if kind == StreamKind::Video
            && let Some(request) = state.feedback.key_frame_request(header.ssrc)
        {
            self.ask_hop(from, header, packet, &request, cx);
        }
        if let Some(kind) = repair {
            let counts = self.counts.get_or_insert_default();
            counts.note_repair(kind, MediaDirection::ToClient, packet.len());
        } else if kind == StreamKind::Video {
            let (ssrc, timestamp) = rewrite
                .map_or((header.ssrc, header.timestamp), |(ssrc, _, timestamp)| (ssrc, timestamp));
            self.counts.get_or_insert_default().note_picture(ssrc, timestamp, cx.now);
        }
        self.send_to_client(RtpSide::Rtp, kind, packet, cx, |bytes| {
            let Some((ssrc, sequence, timestamp)) = rewrite else { return };
            rtp::set_ssrc(bytes, ssrc);
            rtp::set_sequence(bytes, sequence);
            rtp::set_timestamp(bytes, timestamp);
            if let Some(OriginalNumbers { sequence, timestamp }) = original {
                rtp::set_timestamp(bytes, timestamp);
                retransmission::set_original_sequence(header, bytes, sequence);
            }
        });
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
        let (media, continuity) = (Arc::clone(&self.media), &mut self.state().continuity);
        let lost = retransmission::original_sequence(header, packet);
        let Some(sequence) = lost.filter(|_| media.srtp.is_readable()) else {
            return (continuity.pass(epoch, header, clock_rate, now), None);
        };
        let is_repaired =
            |number| declared(&media, number).is_some_and(|(_, other)| !other.repairs());
        continuity.pass_retransmission(epoch, header, sequence, clock_rate, is_repaired, now)
    }

    pub(super) fn rtcp_to_client(
        &mut self,
        epoch: StreamEpoch,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let plain = self.media.srtp.is_readable();
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
            self.shift_reports(&mut packet);
            let state = self.state();
            let length = state.feedback.thin_requests(&mut packet, cx.now);
            if length == 0 {
                return;
            }
            packet.truncate(length);
            state.measurements.note_sender_report(&packet, cx.now);
            if requests_key_frame(&packet, &state.feedback.video) {
                state.signs.note_key_frame_request(cx.now);
            }
        }
        self.send_to_client(RtpSide::Rtcp, StreamKind::Audio, &packet, cx, |_| {});
    }
}

impl WorkerSession {
    /// Sends a request for a key frame to the hop, unless one begins with this packet.
    #[cold]
    fn ask_hop(
        &mut self,
        hop: Hop,
        header: &rtp::RtpHeader,
        packet: &[u8],
        request: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let begins = declared(&self.media, header.payload_type).and_then(|(_, payload)| {
            key_frame::begins_key_frame(&payload.codec, header.payload(packet))
        });
        if begins == Some(true) {
            return;
        }
        cx.egress.stats.asked_key_frame(MediaDirection::ToNode);
        self.send_to_node(hop, RtpSide::Rtcp, StreamKind::Video, request, cx);
    }
}

/// A node requests a key frame of one of these streams. Some nodes forward the requests for other clients' streams.
fn requests_key_frame(compound: &[u8], streams: &[u32]) -> bool {
    let mut packets = rtcp::packets(compound).map_while(Result::ok);
    packets.any(|packet| match packet {
        RtcpPacket::Pli(pli) => streams.contains(&pli.media),
        RtcpPacket::Fir(fir) => fir.entries().any(|entry| streams.contains(&entry.media)),
        _ => false,
    })
}
