//! RTCP of layered video: that of the node names layers, that of the receiver the one stream that it gets.

use super::{LayerNumbers, LayeredVideo};
use crate::rtcp::rewrite::extended;
use crate::rtcp::rewrite::{
    count, media_source, payload_type, rename_media, retain_blocks, retain_described,
    retain_leaving, retain_missing, rewrite, sender_info, set_sender_info, translate_notification,
};
use crate::rtcp::xr::EXTENDED_REPORT;
use crate::rtcp::{
    APPLICATION, BYE, NACK, PAYLOAD_FEEDBACK, RECEIVER_REPORT, RtcpPacket, SENDER_REPORT,
    SOURCE_DESCRIPTION, SenderInfo, TRANSPORT_FEEDBACK, packets,
};
use crate::rtp::sequence_ahead;

/// The SSRC of a source towards the receiver.
enum ReceivedAs<'a> {
    /// It sends the layer of this video that passes.
    Passing(&'a LayeredVideo),
    /// It sends another layer.
    Withheld,
    /// It is no layer.
    Itself,
}

fn received_as(videos: &[LayeredVideo], ssrc: u32) -> ReceivedAs<'_> {
    let found = videos.iter().find_map(|video| Some((video, video.place_of(ssrc)?)));
    match found {
        Some((video, place)) if place == video.current => ReceivedAs::Passing(video),
        Some(_) => ReceivedAs::Withheld,
        None => ReceivedAs::Itself,
    }
}

fn renamed(videos: &[LayeredVideo], ssrc: u32) -> Option<u32> {
    match received_as(videos, ssrc) {
        ReceivedAs::Passing(video) => Some(video.ssrc),
        ReceivedAs::Withheld => None,
        ReceivedAs::Itself => Some(ssrc),
    }
}

/// Rewrites a compound packet of the node for the receiver: reports and descriptions of the layers that pass have its numbers, those of other
/// layers are removed. Returns the length; 0 if nothing remains. A malformed packet remains as it is.
pub fn rtcp_to_receiver(videos: &[LayeredVideo], compound: &mut [u8]) -> usize {
    let length = compound.len();
    let rewritten = rewrite(compound, |packet| match payload_type(packet) {
        SENDER_REPORT => {
            let Some(info) = sender_info(packet) else { return packet.len() };
            match received_as(videos, info.ssrc) {
                ReceivedAs::Passing(video) => {
                    let timestamp = info.timestamp.wrapping_add(video.numbers.timestamp);
                    set_sender_info(packet, &SenderInfo { ssrc: video.ssrc, timestamp, ..info });
                    packet.len()
                }
                ReceivedAs::Withheld => 0,
                ReceivedAs::Itself => packet.len(),
            }
        }
        SOURCE_DESCRIPTION => retain_described(packet, |ssrc| renamed(videos, ssrc)),
        BYE => retain_leaving(packet, |ssrc| renamed(videos, ssrc)),
        _ => packet.len(),
    });
    rewritten.unwrap_or(length)
}

/// Rewrites a compound packet of the receiver for the node, about the layers that pass. Removes numbers of packets of the layers before, and
/// the receiver's estimates (REMB): the gateway obeys them by its choice of the layer, and the sender of all layers has other receivers.
/// Returns the length; 0 if nothing remains. A malformed packet remains as it is.
pub fn rtcp_to_node(videos: &[LayeredVideo], compound: &mut [u8]) -> usize {
    let length = compound.len();
    let find = |ssrc: u32| videos.iter().find(|video| video.ssrc == ssrc);
    let rewritten = rewrite(compound, |packet| {
        let is_estimate = estimate(videos, packet).is_some();
        let video = media_source(packet).and_then(find);
        let kept = match (payload_type(packet), count(packet), video) {
            (SENDER_REPORT | RECEIVER_REPORT, _, _) => retain_blocks(packet, |block| {
                let Some(video) = find(block.ssrc) else { return true };
                let Some(number) = video.numbers.take(block.sequence_max as u16) else {
                    return false;
                };
                block.ssrc = video.passing_ssrc();
                block.sequence_max = block.sequence_max & 0xffff_0000 | u32::from(number);
                true
            }),
            (EXTENDED_REPORT, _, _) => extended::retain_extended(packet, |block| {
                let video = extended::source(block).and_then(find);
                video.is_none_or(LayeredVideo::is_untouched)
            }),
            (PAYLOAD_FEEDBACK, APPLICATION, _) if is_estimate => 0,
            (TRANSPORT_FEEDBACK, NACK, Some(video)) => retain_missing(packet, |first, mask| {
                let is_own = |bit: &u16| video.numbers.take(first.wrapping_add(*bit)).is_some();
                let bits = (0..17_u16).filter(|bit| mask >> bit & 1 == 1 && is_own(bit));
                let mask = bits.fold(0_u32, |kept, bit| kept | 1_u32 << bit);
                (first.wrapping_sub(video.numbers.sequence), mask)
            }),
            (PAYLOAD_FEEDBACK, APPLICATION, Some(video)) => {
                translate_notification(packet, |decoded| video.numbers.take(decoded))
            }
            _ => packet.len(),
        };
        rename_media(&mut packet[..kept], |ssrc| Some(find(ssrc)?.passing_ssrc()));
        kept
    });
    rewritten.unwrap_or(length)
}

/// Returns the lowest estimate of the receiver in a compound packet, in kbit/s, that covers layered video (REMB).
pub fn estimate_kbps(videos: &[LayeredVideo], compound: &[u8]) -> Option<u32> {
    let packets = packets(compound).map_while(Result::ok);
    let bps = packets.filter_map(|packet| covered_bps(videos, &packet)).min()?;
    Some(u32::try_from(bps / 1_000).unwrap_or(u32::MAX))
}

fn estimate(videos: &[LayeredVideo], packet: &[u8]) -> Option<u64> {
    covered_bps(videos, &packets(packet).next()?.ok()?)
}

fn covered_bps(videos: &[LayeredVideo], packet: &RtcpPacket<'_>) -> Option<u64> {
    let RtcpPacket::Remb(remb) = packet else { return None };
    let is_layered =
        |ssrc: u32| videos.iter().any(|video| video.ssrc == ssrc && video.layers.len() > 1);
    remb.sources().any(is_layered).then_some(remb.bitrate_bps)
}

impl LayerNumbers {
    /// Returns the number of the layer for one of the receiver; `None` if it was that of another layer.
    fn take(&self, sequence: u16) -> Option<u16> {
        let is_own = self.first.is_none_or(|first| sequence_ahead(sequence, first) >= 0);
        is_own.then(|| sequence.wrapping_sub(self.sequence))
    }
}

impl LayeredVideo {
    fn passing_ssrc(&self) -> u32 {
        self.layers[self.current].ssrc
    }

    /// The layer that passes has its own numbers.
    fn is_untouched(&self) -> bool {
        self.passing_ssrc() == self.ssrc && self.numbers.sequence == 0
    }
}

#[cfg(test)]
mod tests;
