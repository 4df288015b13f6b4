//! Rewrites RTCP by the mapping, in both directions.

use super::stream::OutgoingStream;
use super::{Continuity, Protection, StreamEpoch};
use crate::rtcp::rewrite::{
    count, payload_type, rename_media, retain_blocks, retain_described, retain_leaving,
    retain_missing, rewrite, sender_info, set_sender_info, set_ssrc, ssrc,
};
use crate::rtcp::{
    BYE, NACK, RECEIVER_REPORT, ReportBlock, RtcpError, SENDER_REPORT, SOURCE_DESCRIPTION,
    TRANSPORT_FEEDBACK,
};

/// Reason why a compound packet is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FeedbackDrop {
    /// The compound cannot be read.
    #[error("{0}")]
    Malformed(RtcpError),
    /// The hop of the packet is closed.
    #[error("its hop is closed")]
    Stale,
    /// All reports and feedback in it refer to another sender's numbers.
    #[error("refers to another sender only")]
    Empty,
}

impl Continuity {
    /// Rewrites RTCP of the hop of `epoch` for the client. Returns the length of the result.
    ///
    /// Sender reports follow the mapping of their stream. A report of a stream without a mapping,
    /// or with a newer one, is removed: an NTP/RTP pair of another mapping would break lip sync.
    /// The CNAME of a sender that took over a stream is removed as well. From a hop that was left,
    /// only sender reports of streams that it still delivers pass: it no longer receives the
    /// client, and its BYE does not end the stream.
    ///
    /// # Errors
    /// Fails if nothing remains.
    pub fn rtcp_to_client(
        &mut self,
        epoch: StreamEpoch,
        compound: &mut [u8],
    ) -> Result<usize, FeedbackDrop> {
        if epoch < self.epoch && Some(epoch) != self.previous {
            return Err(FeedbackDrop::Stale);
        }
        if self.protection == Protection::Srtp {
            return Ok(compound.len());
        }
        let is_left = epoch < self.epoch;
        let streams = &mut self.streams;
        let (mut left_out, mut has_content) = (false, false);
        let length = rewrite(compound, |packet| {
            let kept = match payload_type(packet) {
                SENDER_REPORT => {
                    let kept = sender_report(streams, epoch, packet);
                    left_out |= kept == 0;
                    if is_left { retain_blocks(&mut packet[..kept], |_| false) } else { kept }
                }
                SOURCE_DESCRIPTION => {
                    return retain_described(packet, |ssrc| match sent_by(streams, epoch, ssrc) {
                        Some(stream) => (!stream.present.took_over).then_some(stream.ssrc),
                        None => (!left_out && !is_left).then_some(ssrc),
                    });
                }
                _ if is_left => 0,
                BYE => retain_leaving(packet, |ssrc| {
                    sent_by(streams, epoch, ssrc).map(|stream| stream.ssrc)
                }),
                _ => {
                    let sender = ssrc(packet).and_then(|ssrc| sent_by(streams, epoch, ssrc));
                    if let Some(stream) = sender {
                        set_ssrc(packet, stream.ssrc);
                    }
                    packet.len()
                }
            };
            has_content |= kept > 0;
            kept
        });
        finish(length, has_content)
    }

    /// Rewrites the client's RTCP for the present hop. Returns the length of the result.
    ///
    /// Reports, NACKs and key-frame requests are translated to that hop's streams and numbers.
    /// Feedback on an earlier sender's packets is removed, as are losses counted for that sender.
    ///
    /// # Errors
    /// Fails if nothing remains.
    pub fn rtcp_to_node(&mut self, compound: &mut [u8]) -> Result<usize, FeedbackDrop> {
        if self.protection == Protection::Srtp {
            return Ok(compound.len());
        }
        let epoch = self.epoch;
        let streams = &mut self.streams;
        let mut has_content = false;
        let length = rewrite(compound, |packet| {
            let kept = match (payload_type(packet), count(packet)) {
                (SENDER_REPORT | RECEIVER_REPORT, _) => {
                    retain_blocks(packet, |block| match known_as(streams, block.ssrc) {
                        Some(stream) => report_block(stream, epoch, block),
                        None => true,
                    })
                }
                (TRANSPORT_FEEDBACK, NACK) => {
                    let media = packet.get(8..).and_then(<[u8]>::first_chunk);
                    let media = media.map(|bytes| u32::from_be_bytes(*bytes));
                    match media.and_then(|ssrc| known_as(streams, ssrc)) {
                        Some(stream) => missing(stream, epoch, packet),
                        None => packet.len(),
                    }
                }
                (SOURCE_DESCRIPTION, _) => return packet.len(),
                _ => packet.len(),
            };
            rename_media(&mut packet[..kept], |ssrc| {
                known_as(streams, ssrc).map(|stream| stream.present.node_ssrc)
            });
            has_content |= kept > 0;
            kept
        });
        finish(length, has_content)
    }
}

/// Fails for a compound packet with only a source description, which carries no information.
fn finish(length: Result<usize, RtcpError>, has_content: bool) -> Result<usize, FeedbackDrop> {
    match length {
        Ok(length) if has_content => Ok(length),
        Ok(_) => Err(FeedbackDrop::Empty),
        Err(reason) => Err(FeedbackDrop::Malformed(reason)),
    }
}

fn sent_by(
    streams: &[OutgoingStream],
    epoch: StreamEpoch,
    node_ssrc: u32,
) -> Option<&OutgoingStream> {
    streams.iter().find(|stream| stream.is_sent_by(epoch, node_ssrc))
}

fn known_as(streams: &mut [OutgoingStream], ssrc: u32) -> Option<&mut OutgoingStream> {
    streams.iter_mut().find(|stream| stream.ssrc == ssrc)
}

/// Rewrites a sender report for the client; returns 0 to remove it.
fn sender_report(streams: &mut [OutgoingStream], epoch: StreamEpoch, packet: &mut [u8]) -> usize {
    let Some(mut info) = sender_info(packet) else { return 0 };
    let sender = streams.iter_mut().find(|stream| stream.is_sent_by(epoch, info.ssrc));
    let Some(stream) = sender else { return 0 };
    let reports = &mut stream.reports;
    if stream.present.took_over {
        // The node counts packets since its start, the client since the start of the stream.
        info.packets = reports.packets.wrapping_add(reports.packets_before);
        info.octets = reports.octets.wrapping_add(reports.octets_before);
    } else {
        reports.packets_before = info.packets.wrapping_sub(reports.packets);
        reports.octets_before = info.octets.wrapping_sub(reports.octets);
    }
    reports.times.rotate_right(1);
    reports.times[0] = (info.ntp >> 16) as u32;
    info.ssrc = stream.ssrc;
    info.timestamp = info.timestamp.wrapping_add(stream.present.timestamp);
    set_sender_info(packet, &info);
    packet.len()
}

/// Rewrites a report block about `stream` for the node; returns false to remove it.
fn report_block(stream: &mut OutgoingStream, epoch: StreamEpoch, block: &mut ReportBlock) -> bool {
    stream.reports.lost = block.lost;
    if stream.is_untouched() {
        return true;
    }
    let behind = (stream.highest as u16).wrapping_sub(block.sequence_max as u16).cast_signed();
    let highest = stream.highest.wrapping_sub_signed(behind.into());
    if stream.epoch() != epoch || highest.wrapping_sub(stream.present.first).cast_signed() < 0 {
        return false;
    }
    block.ssrc = stream.present.node_ssrc;
    block.sequence_max = stream.present.node_sequence(highest);
    block.lost = block.lost.saturating_sub(stream.reports.lost_before);
    if !stream.reports.times.contains(&block.last_sr) {
        (block.last_sr, block.delay_since_last_sr) = (0, 0);
    }
    true
}

/// Rewrites a NACK about `stream` for the node; returns 0 if it lists no packet that the node sent.
fn missing(stream: &OutgoingStream, epoch: StreamEpoch, packet: &mut [u8]) -> usize {
    if stream.is_untouched() {
        return packet.len();
    }
    if stream.epoch() != epoch {
        return 0;
    }
    let since_first = stream.highest.wrapping_sub(stream.present.first).cast_signed();
    retain_missing(packet, |first, mask| {
        let behind = (stream.highest as u16).wrapping_sub(first).cast_signed();
        // The number of packets, of the 17 from `first`, that precede the sender's first packet.
        let before = (i32::from(behind) - since_first).clamp(0, 17);
        let number = stream.highest.wrapping_sub_signed(behind.into());
        (stream.present.node_sequence(number) as u16, mask >> before << before)
    })
}
