//! A packet of media: a real RTP header, and beside it what only the simulator knows.

use evenkeel_core::Kind;
use evenkeel_media::rtp;

/// Payload types of all sessions here.
pub(crate) const VOICE: u8 = 111;
pub(crate) const VIDEO: u8 = 96;

/// Bytes of a packet, as a link of limited rate counts them.
pub(crate) const BYTES: usize = 200;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    /// The fixed header; the payload is not carried around.
    pub(crate) header: [u8; rtp::HEADER_LEN],
    /// The client whose media this is.
    pub(crate) origin: u32,
    /// The room that it was said in.
    pub(crate) room: u32,
    /// Counts what that client sent, voice and video each by itself.
    pub(crate) index: u32,
    pub(crate) kind: Kind,
}

/// Numbers of an RTP packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
}

pub(crate) fn payload_type(kind: Kind) -> u8 {
    match kind {
        Kind::Audio => VOICE,
        Kind::Video => VIDEO,
    }
}

pub(crate) fn clock_rate(kind: Kind) -> u32 {
    match kind {
        Kind::Audio => 48_000,
        Kind::Video => 90_000,
    }
}

impl Packet {
    pub(crate) fn new(
        origin: u32,
        room: u32,
        index: u32,
        kind: Kind,
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

    /// The header, read by the reader that ships.
    pub(crate) fn read(&self) -> Option<rtp::Header> {
        rtp::Header::parse(&self.header).ok()
    }
}
