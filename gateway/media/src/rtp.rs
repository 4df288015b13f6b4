//! RTP packets: the header parsed and modified in place (RFC 3550, section 5).

use std::fmt;

/// Length of the fixed header, without CSRCs and extension (RFC 3550, 5.1).
pub const HEADER_LEN: usize = 12;

/// An RTP header, and the position of the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// 0–127, declared by the session description.
    pub payload_type: u8,
    /// Voice: first packet after silence. Video: last packet of a frame (RFC 3551, section 4.1).
    pub marker: bool,
    /// Wraps at 2^16.
    pub sequence: u16,
    /// Sampling instant in units of the clock rate, wraps at 2^32.
    pub timestamp: u32,
    pub ssrc: u32,
    /// Index of the first payload byte, after CSRCs and header extension.
    pub payload_offset: usize,
    /// Index after the last payload byte, before padding.
    pub payload_end: usize,
}

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Shorter than its fixed header and CSRCs.
    Short,
    Version,
    /// The header extension exceeds the packet.
    Extension,
    /// The padding has length 0 or reaches into the header.
    Padding,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "shorter than an RTP header",
            Self::Version => "RTP version is not 2",
            Self::Extension => "RTP header extension exceeds the packet",
            Self::Padding => "RTP padding does not fit the packet",
        })
    }
}

impl std::error::Error for Malformed {}

impl Header {
    /// Parses the header of a packet.
    ///
    /// # Errors
    /// If the bytes are not an RTP packet (the checks of RFC 3550, appendix A.1).
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let Some(fixed) = packet.first_chunk::<HEADER_LEN>() else { return Err(Malformed::Short) };
        let [flags, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if flags >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let mut payload_offset = HEADER_LEN + 4 * usize::from(flags & 0x0f);
        if packet.len() < payload_offset {
            return Err(Malformed::Short);
        }
        if flags & 0x10 != 0 {
            let length = packet.get(payload_offset + 2..payload_offset + 4);
            let Some(&[high, low]) = length else { return Err(Malformed::Extension) };
            payload_offset += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
            if packet.len() < payload_offset {
                return Err(Malformed::Extension);
            }
        }
        let padding = match packet.last() {
            Some(0) if flags & 0x20 != 0 => return Err(Malformed::Padding),
            Some(&padding) if flags & 0x20 != 0 => usize::from(padding),
            _ => 0,
        };
        if packet.len() - payload_offset < padding {
            return Err(Malformed::Padding);
        }
        Ok(Self {
            payload_type: second & 0x7f,
            marker: second & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            payload_offset,
            payload_end: packet.len() - padding,
        })
    }

    /// The payload without padding.
    ///
    /// Empty if `packet` is shorter than the one that was parsed.
    #[must_use]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.payload_offset..self.payload_end).unwrap_or_default()
    }

    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload_end.saturating_sub(self.payload_offset)
    }
}

/// Sets the sequence number. A packet shorter than a header is unchanged.
pub fn set_sequence(packet: &mut [u8], sequence: u16) {
    if let Some(field) = packet.get_mut(2..4) {
        field.copy_from_slice(&sequence.to_be_bytes());
    }
}

/// Sets the timestamp. A packet shorter than a header is unchanged.
pub fn set_timestamp(packet: &mut [u8], timestamp: u32) {
    if let Some(field) = packet.get_mut(4..8) {
        field.copy_from_slice(&timestamp.to_be_bytes());
    }
}

/// Sets the SSRC. A packet shorter than a header is unchanged.
pub fn set_ssrc(packet: &mut [u8], ssrc: u32) {
    if let Some(field) = packet.get_mut(8..12) {
        field.copy_from_slice(&ssrc.to_be_bytes());
    }
}

/// The header fields chosen by a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    /// The lower seven bits count.
    pub payload_type: u8,
    /// Voice: first packet after silence. Video: last packet of a frame.
    pub marker: bool,
    pub sequence: u16,
    /// In units of the clock rate.
    pub timestamp: u32,
    pub ssrc: u32,
}

/// Appends a packet without CSRCs, extension and padding to `out`.
pub fn write(fields: &Fields, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER_LEN + payload.len());
    out.push(0x80);
    out.push(u8::from(fields.marker) << 7 | fields.payload_type & 0x7f);
    out.extend_from_slice(&fields.sequence.to_be_bytes());
    out.extend_from_slice(&fields.timestamp.to_be_bytes());
    out.extend_from_slice(&fields.ssrc.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Distance of `sequence` from `reference`, across the wrap; negative is behind (RFC 1982).
#[must_use]
pub fn sequence_ahead(sequence: u16, reference: u16) -> i16 {
    sequence.wrapping_sub(reference).cast_signed()
}

/// Distance of `timestamp` from `reference`, across the wrap; negative is behind.
#[must_use]
pub fn timestamp_ahead(timestamp: u32, reference: u32) -> i32 {
    timestamp.wrapping_sub(reference).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = Fields {
        payload_type: 111,
        marker: true,
        sequence: 0xfffe,
        timestamp: 0xdead_beef,
        ssrc: 0x0102_0304,
    };

    fn packet() -> Vec<u8> {
        let mut packet = Vec::new();
        write(&FIELDS, b"voice", &mut packet);
        packet
    }

    #[test]
    fn written_packet_is_read_back() {
        let packet = packet();
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.payload_type, 111);
        assert!(header.marker);
        assert_eq!(header.sequence, 0xfffe);
        assert_eq!(header.timestamp, 0xdead_beef);
        assert_eq!(header.ssrc, 0x0102_0304);
        assert_eq!(header.payload(&packet), b"voice");
        assert_eq!(header.payload_len(), 5);
    }

    #[test]
    fn setters_change_only_their_field() {
        let mut packet = packet();
        set_sequence(&mut packet, 7);
        set_timestamp(&mut packet, 8);
        set_ssrc(&mut packet, 9);
        let mut expected = Vec::new();
        write(&Fields { sequence: 7, timestamp: 8, ssrc: 9, ..FIELDS }, b"voice", &mut expected);
        assert_eq!(packet, expected);
    }

    #[test]
    fn setters_leave_short_packets_unchanged() {
        let mut short = [0x80, 111, 1];
        set_sequence(&mut short, 7);
        set_timestamp(&mut short, 7);
        set_ssrc(&mut short, 7);
        assert_eq!(short, [0x80, 111, 1]);
    }

    #[test]
    fn payload_excludes_csrcs_extension_and_padding() {
        let mut packet = packet();
        packet[0] = 0x80 | 0x20 | 0x10 | 2;
        let tail = packet.split_off(HEADER_LEN);
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        packet.extend_from_slice(&tail);
        packet.extend_from_slice(&[0, 0, 3]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.payload_offset, HEADER_LEN + 8 + 8);
        assert_eq!(header.payload(&packet), b"voice");
    }

    #[test]
    fn truncated_header_is_refused() {
        let mut packet = packet();
        packet[0] = 0x80 | 0x10 | 1;
        packet.truncate(HEADER_LEN);
        packet.extend_from_slice(&[0, 0, 0, 1, 0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        assert!(Header::parse(&packet).is_ok());
        for length in 0..packet.len() {
            let reason = Header::parse(&packet[..length]).unwrap_err();
            let short = length < HEADER_LEN + 4;
            assert_eq!(reason, if short { Malformed::Short } else { Malformed::Extension });
        }
    }

    #[test]
    fn other_versions_are_refused() {
        for version in [0, 1, 3] {
            let mut packet = packet();
            packet[0] = version << 6;
            assert_eq!(Header::parse(&packet), Err(Malformed::Version));
        }
    }

    #[test]
    fn padding_may_fill_the_payload_only() {
        let mut packet = packet();
        packet[0] |= 0x20;
        for (padding, fits) in [(0, false), (1, true), (5, true), (6, false), (255, false)] {
            *packet.last_mut().unwrap() = padding;
            let parsed = Header::parse(&packet);
            assert_eq!(parsed.is_ok(), fits, "padding {padding}");
            if !fits {
                assert_eq!(parsed, Err(Malformed::Padding));
            }
        }
    }

    #[test]
    fn distances_cross_the_wrap() {
        assert_eq!(sequence_ahead(2, 0xffff), 3);
        assert_eq!(sequence_ahead(0xffff, 2), -3);
        assert_eq!(timestamp_ahead(5, u32::MAX), 6);
        assert_eq!(timestamp_ahead(u32::MAX, 5), -6);
    }

    #[test]
    fn payload_of_a_shorter_packet_is_empty() {
        let packet = packet();
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.payload(&packet[..HEADER_LEN]), b"");
    }
}
