//! Packets of the hop with the client's numbers.

use evenkeel_media::continuity::{OriginalPacket, Pass, StreamEpoch};
use evenkeel_media::rtcp::RtcpPacket;
use evenkeel_media::{retransmission, rtcp, rtp};
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Hop, RepairKind, StreamKind};

use super::packets::reported_loss;
use super::{PacketContext, WorkerSession, declared};
use crate::worker::report::MediaDirection;
use crate::worker::sockets::RtpSide;

/// The client has no packet that a retransmission could repair.
struct NoOriginal;

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
        let original = match repair {
            Some(RepairKind::Retransmission) => self.original(epoch, header, clock_rate, packet),
            _ => Ok(None),
        };
        let Ok(original) = original else { return cx.egress.count_drop(DropReason::Stale) };
        let state = self.state();
        let continuity = &mut state.continuity;
        let pass = match original {
            Some(original) => {
                continuity.pass_retransmission(epoch, header, clock_rate, original, cx.now)
            }
            None => continuity.pass(epoch, header, clock_rate, cx.now),
        };
        let rewrite = match pass {
            Pass::Untouched => None,
            Pass::Rewrite { ssrc, sequence, timestamp } => Some((ssrc, sequence, timestamp)),
            Pass::Stale | Pass::Duplicate => return cx.egress.count_drop(DropReason::Stale),
            Pass::Surplus => return cx.egress.count_drop(DropReason::SurplusStream),
        };
        state.totals.packets_down += 1;
        state.totals.bytes_down += packet.len() as u64;
        state.measurements.bytes_down += packet.len() as u64;
        if kind == StreamKind::Video
            && let Some(request) = state.feedback.key_frame_request(header.ssrc)
        {
            cx.egress.stats.asked_key_frame(MediaDirection::ToNode);
            self.send_to_node(from, RtpSide::Rtcp, StreamKind::Video, &request, cx);
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
            if let Some((ssrc, sequence, timestamp)) = rewrite {
                rtp::set_ssrc(bytes, ssrc);
                rtp::set_sequence(bytes, sequence);
                rtp::set_timestamp(bytes, timestamp);
            }
            if let Some(OriginalPacket { sequence, timestamp, .. }) = original {
                rtp::set_timestamp(bytes, timestamp);
                retransmission::set_original_sequence(header, bytes, sequence);
            }
        });
    }

    /// Returns the client's numbers of the packet that a retransmission contains; `None` for padding.
    ///
    /// # Errors
    /// Fails if the client has no such packet.
    fn original(
        &self,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        clock_rate: u32,
        packet: &[u8],
    ) -> Result<Option<OriginalPacket>, NoOriginal> {
        let Some(sequence) = retransmission::original_sequence(header, packet) else {
            return Ok(None);
        };
        let is_media =
            |number| declared(&self.media, number).is_some_and(|(_, other)| !other.repairs());
        let continuity = &self.state.as_deref().ok_or(NoOriginal)?.continuity;
        let original = continuity.original(epoch, header, sequence, clock_rate, is_media);
        original.map(Some).ok_or(NoOriginal)
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

/// A node requests a key frame of one of these streams. Some nodes forward the requests for other clients' streams.
fn requests_key_frame(compound: &[u8], streams: &[u32]) -> bool {
    let mut packets = rtcp::packets(compound).map_while(Result::ok);
    packets.any(|packet| match packet {
        RtcpPacket::Pli(pli) => streams.contains(&pli.media),
        RtcpPacket::Fir(fir) => fir.entries().any(|entry| streams.contains(&entry.media)),
        _ => false,
    })
}
