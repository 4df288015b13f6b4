//! RTCP: compound packets parsed in place, written, and rewritten (RFC 3550, section 6; RFC 4585).
//!
//! [`packets`] iterates over a compound packet, reduced-size ones included (RFC 5506). Each
//! `write_*` function appends one packet. [`rewrite`] modifies a compound packet in place.

mod ccfb;
mod feedback;
mod report;
pub mod rewrite;
mod transport_cc;
pub mod xr;

pub use ccfb::{CongestionFeedback, PacketArrival, StreamArrivals};
pub(crate) use feedback::{APPLICATION, FIR, NACK, PAYLOAD_FEEDBACK, PLI, RPSI, TMMBN};
use feedback::{CONGESTION, TRANSPORT_WIDE};
pub use feedback::{
    Fir, FirEntry, Nack, Pli, Remb, TMMBR, TRANSPORT_FEEDBACK, write_fir, write_nack, write_pli,
    write_remb, write_tmmbr,
};
use report::HEADER_LEN;
pub use report::{
    BYE, ReceiverReport, ReportBlock, SOURCE_DESCRIPTION, SenderInfo, SenderReport, write_cname,
    write_receiver_report, write_sender_report,
};
pub(crate) use report::{RECEIVER_REPORT, SENDER_REPORT};
pub use transport_cc::{
    Arrivals, REFERENCE_TICKS, TICK_US, TransportFeedback, write_transport_feedback,
};
use xr::{EXTENDED_REPORT, ExtendedReport};

/// Reason why bytes are not an RTCP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RtcpError {
    /// The packet is empty, or shorter than its header.
    #[error("shorter than an RTCP header")]
    Short,
    /// The version is not 2.
    #[error("RTCP version is not 2")]
    Version,
    /// The packet's length exceeds the datagram.
    #[error("RTCP packet exceeds its datagram")]
    Length,
    /// The padding has length 0 or does not fit.
    #[error("RTCP padding does not fit the packet")]
    Padding,
    /// The body is shorter than this payload type needs.
    #[error("RTCP packet of type {0} is shorter than its parts")]
    Body(u8),
}

/// A packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum RtcpPacket<'a> {
    /// RFC 3550, section 6.4.1.
    SenderReport(SenderReport<'a>),
    /// RFC 3550, section 6.4.2.
    ReceiverReport(ReceiverReport<'a>),
    /// Generic NACK (RFC 4585, section 6.2.1).
    Nack(Nack<'a>),
    /// Picture loss indication (RFC 4585, section 6.3.1).
    Pli(Pli),
    /// Full intra request (RFC 5104, section 4.3.1).
    Fir(Fir<'a>),
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb).
    Remb(Remb<'a>),
    /// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportFeedback(TransportFeedback<'a>),
    /// Congestion control feedback (RFC 8888).
    CongestionFeedback(CongestionFeedback<'a>),
    /// Extended report (RFC 3611).
    Extended(ExtendedReport<'a>),
    /// Any other packet, of which only the length is checked.
    Other {
        /// The second byte.
        payload_type: u8,
        /// Count or format: the lower five bits of the first byte.
        count: u8,
    },
}

impl<'a> RtcpPacket<'a> {
    /// Reports of a sender or receiver report on the streams that the packet's sender receives.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        let blocks = match self {
            Self::SenderReport(report) => report.blocks,
            Self::ReceiverReport(report) => report.blocks,
            _ => &[],
        };
        blocks.iter().map(ReportBlock::read)
    }
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
        (EXTENDED_REPORT, _) => ExtendedReport::read(body).map(RtcpPacket::Extended),
        (TRANSPORT_FEEDBACK, NACK) => Nack::read(body).map(RtcpPacket::Nack),
        (TRANSPORT_FEEDBACK, TRANSPORT_WIDE) => {
            TransportFeedback::read(packet, body).map(RtcpPacket::TransportFeedback)
        }
        (TRANSPORT_FEEDBACK, CONGESTION) => {
            CongestionFeedback::read(body).map(RtcpPacket::CongestionFeedback)
        }
        (PAYLOAD_FEEDBACK, PLI) => Pli::read(body).map(RtcpPacket::Pli),
        (PAYLOAD_FEEDBACK, FIR) => Fir::read(body).map(RtcpPacket::Fir),
        (PAYLOAD_FEEDBACK, APPLICATION) if feedback::is_remb(body) => {
            Remb::read(body).map(RtcpPacket::Remb)
        }
        _ => {
            let least = if payload_type == BYE { 4 * usize::from(count) } else { 0 };
            (body.len() >= least).then_some(RtcpPacket::Other { payload_type, count })
        }
    };
    parsed.ok_or(RtcpError::Body(payload_type))
}

impl<'a> TransportFeedback<'a> {
    /// Parses a packet from its header on.
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtcpError> {
        match packets(packet).next() {
            Some(Ok(RtcpPacket::TransportFeedback(feedback))) => Ok(feedback),
            Some(Err(reason)) => Err(reason),
            Some(Ok(_)) | None => Err(RtcpError::Body(TRANSPORT_FEEDBACK)),
        }
    }
}

impl<'a> CongestionFeedback<'a> {
    /// Parses a packet from its header on.
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtcpError> {
        match packets(packet).next() {
            Some(Ok(RtcpPacket::CongestionFeedback(feedback))) => Ok(feedback),
            Some(Err(reason)) => Err(reason),
            Some(Ok(_)) | None => Err(RtcpError::Body(TRANSPORT_FEEDBACK)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
