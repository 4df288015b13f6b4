//! A media packet: a real RTP header, and simulation data beside it.

use evenkeel_media::rtp;
use evenkeel_model::StreamKind;

pub(crate) const VOICE: u8 = 111;
pub(crate) const VIDEO: u8 = 96;

/// The size for links of limited rate.
pub(crate) const BYTES: usize = 200;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    /// The fixed header; there is no payload.
    pub(crate) header: [u8; rtp::HEADER_LEN],
    /// The client that sent it.
    pub(crate) origin: u32,
    /// That client's room.
    pub(crate) room: u32,
    /// A counter per client and kind.
    pub(crate) index: u32,
    pub(crate) kind: StreamKind,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
}

pub(crate) fn payload_type(kind: StreamKind) -> u8 {
    match kind {
        StreamKind::Audio => VOICE,
        StreamKind::Video => VIDEO,
    }
}

pub(crate) fn clock_rate(kind: StreamKind) -> u32 {
    match kind {
        StreamKind::Audio => 48_000,
        StreamKind::Video => 90_000,
    }
}

impl Packet {
    pub(crate) fn new(
        origin: u32,
        room: u32,
        index: u32,
        kind: StreamKind,
        marker: bool,
        numbers: Numbers,
    ) -> Packet {
        let mut header = [0; rtp::HEADER_LEN];
        header[0] = 0x80;
        header[1] = payload_type(kind) | if marker { 0x80 } else { 0 };
        let mut packet = Packet { header, origin, room, index, kind };
        packet.set(numbers);
        packet
    }

    pub(crate) fn set(&mut self, numbers: Numbers) {
        rtp::set_ssrc(&mut self.header, numbers.ssrc);
        rtp::set_sequence(&mut self.header, numbers.sequence);
        rtp::set_timestamp(&mut self.header, numbers.timestamp);
    }

    /// Parses the header with the product's parser.
    pub(crate) fn read(&self) -> Option<rtp::RtpHeader> {
        rtp::RtpHeader::parse(&self.header).ok()
    }
}
