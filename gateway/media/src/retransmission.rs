//! Retransmissions in a stream of their own (RFC 4588, section 4). Their payload is the sequence number of the lost packet, then its payload.

use crate::rtp::{self, RtpHeader};

/// A number further than this behind the highest one of a stream is of another stream: senders keep about a second, and video
/// has fewer packets per second.
const SENT_WITHIN: u16 = 4_096;

/// Returns the sequence number of the lost packet. `None` for padding, which a sender that probes the path sends.
pub fn original_sequence(header: &RtpHeader, packet: &[u8]) -> Option<u16> {
    header.payload(packet).first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Changes the sequence number of the lost packet. Has no effect on padding.
pub fn set_original_sequence(header: &RtpHeader, packet: &mut [u8], sequence: u16) {
    let payload = packet.get_mut(header.payload_offset..header.payload_end);
    if let Some(bytes) = payload.and_then(|payload| payload.first_chunk_mut()) {
        *bytes = sequence.to_be_bytes();
    }
}

/// The numbers by which a stream tells its packets from those of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketNumbers {
    pub payload_type: u8,
    pub ssrc: u32,
    pub sequence: u16,
}

/// Replaces `out` by a retransmission, with these numbers, of the packet with this header. Marker, timestamp, CSRCs and header extension
/// remain, padding is left out.
pub fn write(header: &RtpHeader, packet: &[u8], numbers: PacketNumbers, out: &mut Vec<u8>) {
    begin(header, packet, numbers, out);
    out.extend_from_slice(&header.sequence.to_be_bytes());
    out.extend_from_slice(header.payload(packet));
}

/// Replaces `out` by the packet in a retransmission with this header: a packet of this payload type and SSRC. Returns false, and leaves
/// `out`, if the retransmission is padding.
pub fn restore(
    header: &RtpHeader,
    packet: &[u8],
    payload_type: u8,
    ssrc: u32,
    out: &mut Vec<u8>,
) -> bool {
    let Some((sequence, payload)) = header.payload(packet).split_first_chunk() else {
        return false;
    };
    let sequence = u16::from_be_bytes(*sequence);
    begin(header, packet, PacketNumbers { payload_type, ssrc, sequence }, out);
    out.extend_from_slice(payload);
    true
}

fn begin(header: &RtpHeader, packet: &[u8], numbers: PacketNumbers, out: &mut Vec<u8>) {
    rtp::copy_header(header, packet, out);
    rtp::set_payload_type(out, numbers.payload_type);
    rtp::set_ssrc(out, numbers.ssrc);
    rtp::set_sequence(out, numbers.sequence);
}

/// Returns the stream that a retransmission repairs, of streams with their highest sequence numbers: the one that sent this number
/// last. `None` if none can have sent it.
///
/// The SDP may name the stream (RFC 4588, section 8.8), the packet does not.
pub fn repaired<Stream>(
    original: u16,
    streams: impl Iterator<Item = (Stream, u16)>,
) -> Option<Stream> {
    let behind = |highest: u16| highest.wrapping_sub(original);
    let may_have_sent = streams.filter(|(_, highest)| behind(*highest) <= SENT_WITHIN);
    may_have_sent.min_by_key(|(_, highest)| behind(*highest)).map(|(stream, _)| stream)
}

#[cfg(test)]
mod tests;
