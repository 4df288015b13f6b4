//! RTCP: compound packets parsed in place, written, and rewritten (RFC 3550, section 6; RFC 4585).
//!
//! [`packets`] iterates over a compound packet, reduced-size ones included (RFC 5506). Each
//! `write_*` function appends one packet. [`rewrite`] modifies a compound packet in place.

use std::fmt;

mod feedback;
mod report;
pub mod rewrite;

pub use feedback::{
    Fir, FirEntry, Nack, Pli, Remb, write_fir, write_nack, write_pli, write_remb, write_tmmbr,
};
pub use report::{
    Bye, Description, ReceiverReport, ReportBlock, SenderInfo, SenderReport, write_bye,
    write_cname, write_receiver_report, write_sender_report,
};

/// Payload type of a sender report (RFC 3550, 6.4.1).
pub(crate) const SENDER_REPORT: u8 = 200;
/// Payload type of a receiver report (RFC 3550, 6.4.2).
pub(crate) const RECEIVER_REPORT: u8 = 201;
/// Payload type of a source description (RFC 3550, 6.5).
pub(crate) const SOURCE_DESCRIPTION: u8 = 202;
/// Payload type of a BYE (RFC 3550, 6.6).
pub(crate) const BYE: u8 = 203;
/// Payload type of transport-layer feedback (RFC 4585, 6.2).
pub const TRANSPORT_FEEDBACK: u8 = 205;
/// Payload type of payload-specific feedback (RFC 4585, 6.3).
pub(crate) const PAYLOAD_FEEDBACK: u8 = 206;

/// Format of a generic NACK, transport-layer feedback (RFC 4585, 6.2.1).
pub(crate) const NACK: u8 = 1;
/// Format of TMMBR, transport-layer feedback (RFC 5104, 4.2).
pub const TMMBR: u8 = 3;
/// Format of TMMBN; see [`TMMBR`].
pub(crate) const TMMBN: u8 = 4;
/// Format of a picture loss indication, payload-specific feedback (RFC 4585, 6.3.1).
pub(crate) const PLI: u8 = 1;
/// Format of a full intra request, payload-specific feedback (RFC 5104, 4.3.1).
pub(crate) const FIR: u8 = 4;
/// Format of application-layer feedback, which includes REMB (RFC 4585, 6.4).
pub(crate) const APPLICATION: u8 = 15;

const HEADER_LEN: usize = 4;

/// Reason why bytes are not an RTCP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtcpError {
    /// The packet is empty, or shorter than its header.
    Short,
    /// The version is not 2.
    Version,
    /// The packet's length exceeds the datagram.
    Length,
    /// The padding has length 0 or does not fit.
    Padding,
    /// The body is shorter than this payload type needs.
    Body(u8),
}

impl fmt::Display for RtcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "shorter than an RTCP header"),
            Self::Version => write!(f, "RTCP version is not 2"),
            Self::Length => write!(f, "RTCP packet exceeds its datagram"),
            Self::Padding => write!(f, "RTCP padding does not fit the packet"),
            Self::Body(payload_type) => {
                write!(f, "RTCP packet of type {payload_type} is shorter than its parts")
            }
        }
    }
}

impl std::error::Error for RtcpError {}

/// A packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum RtcpPacket<'a> {
    /// RFC 3550, section 6.4.1.
    SenderReport(SenderReport<'a>),
    /// RFC 3550, section 6.4.2.
    ReceiverReport(ReceiverReport<'a>),
    /// SDES (RFC 3550, section 6.5).
    Description(Description<'a>),
    /// RFC 3550, section 6.6.
    Bye(Bye<'a>),
    /// Generic NACK (RFC 4585, section 6.2.1).
    Nack(Nack<'a>),
    /// Picture loss indication (RFC 4585, section 6.3.1).
    Pli(Pli),
    /// Full intra request (RFC 5104, section 4.3.1).
    Fir(Fir<'a>),
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb).
    Remb(Remb<'a>),
    /// Any other packet, which passes unchanged.
    Other {
        /// The second byte.
        payload_type: u8,
        /// Count or format: the lower five bits of the first byte.
        count: u8,
    },
}

/// Returns the packets of a compound packet, in order; the first malformed one is the last item.
pub fn packets(compound: &[u8]) -> RtcpPackets<'_> {
    RtcpPackets { rest: if compound.is_empty() { Err(RtcpError::Short) } else { Ok(compound) } }
}

/// The packets of a compound, in order.
#[derive(Clone, Debug)]
pub struct RtcpPackets<'a> {
    rest: Result<&'a [u8], RtcpError>,
}

impl<'a> Iterator for RtcpPackets<'a> {
    type Item = Result<RtcpPacket<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = match std::mem::replace(&mut self.rest, Ok(&[])) {
            Ok([]) => return None,
            Ok(rest) => rest,
            Err(reason) => return Some(Err(reason)),
        };
        Some(packet_len(rest).and_then(|length| {
            let (packet, rest) = rest.split_at(length);
            let read = read(packet)?;
            self.rest = Ok(rest);
            Ok(read)
        }))
    }
}

/// Returns the length of the first packet in `bytes`, including header and padding; at least 4.
fn packet_len(bytes: &[u8]) -> Result<usize, RtcpError> {
    let Some(&[first, _, high, low]) = bytes.first_chunk() else { return Err(RtcpError::Short) };
    if first >> 6 != 2 {
        return Err(RtcpError::Version);
    }
    let length = HEADER_LEN + 4 * usize::from(u16::from_be_bytes([high, low]));
    if length > bytes.len() { Err(RtcpError::Length) } else { Ok(length) }
}

/// Parses a packet of the length in its header.
fn read(packet: &[u8]) -> Result<RtcpPacket<'_>, RtcpError> {
    let (first, payload_type) = (packet[0], packet[1]);
    let count = first & 0x1f;
    let padding = match packet.last() {
        Some(&padding) if first & 0x20 != 0 => usize::from(padding).max(1),
        _ => 0,
    };
    if padding > packet.len() - HEADER_LEN || (first & 0x20 != 0 && packet.last() == Some(&0)) {
        return Err(RtcpError::Padding);
    }
    let body = &packet[HEADER_LEN..packet.len() - padding];
    let parsed = match (payload_type, count) {
        (SENDER_REPORT, _) => SenderReport::read(count, body).map(RtcpPacket::SenderReport),
        (RECEIVER_REPORT, _) => ReceiverReport::read(count, body).map(RtcpPacket::ReceiverReport),
        (SOURCE_DESCRIPTION, _) => Some(RtcpPacket::Description(Description::read(count, body))),
        (BYE, _) => Bye::read(count, body).map(RtcpPacket::Bye),
        (TRANSPORT_FEEDBACK, NACK) => Nack::read(body).map(RtcpPacket::Nack),
        (PAYLOAD_FEEDBACK, PLI) => Pli::read(body).map(RtcpPacket::Pli),
        (PAYLOAD_FEEDBACK, FIR) => Fir::read(body).map(RtcpPacket::Fir),
        (PAYLOAD_FEEDBACK, APPLICATION) if feedback::is_remb(body) => {
            Remb::read(body).map(RtcpPacket::Remb)
        }
        _ => Some(RtcpPacket::Other { payload_type, count }),
    };
    parsed.ok_or(RtcpError::Body(payload_type))
}

/// Appends the header of a packet with a body of `body_len` bytes, a multiple of four.
fn write_header(count: u8, payload_type: u8, body_len: usize, out: &mut Vec<u8>) {
    let words = u16::try_from(body_len / 4).expect("bodies written here are below 256 KiB");
    out.push(0x80 | count & 0x1f);
    out.push(payload_type);
    out.extend_from_slice(&words.to_be_bytes());
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
