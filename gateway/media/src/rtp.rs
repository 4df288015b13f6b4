//! RTP packets: parses and modifies the header in place (RFC 3550, section 5).

/// Length of the fixed header, without CSRCs and extension (RFC 3550, 5.1).
pub const HEADER_LEN: usize = 12;

/// An RTP header, and the position of the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtpHeader {
    /// 0–127; the session description assigns it.
    pub payload_type: u8,
    /// Voice: first packet after silence. Video: last packet of a frame (RFC 3551, section 4.1).
    pub marker: bool,
    /// Wraps at 2^16.
    pub sequence: u16,
    /// Sampling instant in units of the clock rate, wraps at 2^32.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Index of the first payload byte, after CSRCs and header extension.
    pub payload_offset: usize,
    /// Index after the last payload byte, before padding.
    pub payload_end: usize,
}

/// Reason why bytes are not an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RtpError {
    /// The packet is shorter than its fixed header and CSRCs.
    #[error("shorter than an RTP header")]
    Short,
    /// The version is not 2.
    #[error("RTP version is not 2")]
    Version,
    /// The header extension exceeds the packet.
    #[error("RTP header extension exceeds the packet")]
    Extension,
    /// The padding has length 0 or reaches into the header.
    #[error("RTP padding does not fit the packet")]
    Padding,
}

impl RtpHeader {
    /// Parses the header of a packet.
    ///
    /// # Errors
    /// Fails if the bytes are not an RTP packet (the checks of RFC 3550, appendix A.1).
    // The packet path, in another crate, reads the fields without a copy.
    /// Reads the fixed header, CSRCs, extension and padding (RFC 3550, section 5.1).
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, RtpError> {
        let Some(fixed) = packet.first_chunk::<HEADER_LEN>() else { return Err(RtpError::Short) };
        let [flags, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if flags >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let mut payload_offset = HEADER_LEN + 4 * usize::from(flags & 0x0f);
        if packet.len() < payload_offset {
            return Err(RtpError::Short);
        }
        if flags & 0x10 != 0 {
            let length = packet.get(payload_offset + 2..payload_offset + 4);
            let Some(&[high, low]) = length else { return Err(RtpError::Extension) };
            payload_offset += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
            if packet.len() < payload_offset {
                return Err(RtpError::Extension);
            }
        }
        let padding = match packet.last() {
            Some(0) if flags & 0x20 != 0 => return Err(RtpError::Padding),
            Some(&padding) if flags & 0x20 != 0 => usize::from(padding),
            _ => 0,
        };
        if packet.len() - payload_offset < padding {
            return Err(RtpError::Padding);
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

    /// Returns the payload without padding.
    ///
    /// Returns an empty slice if `packet` is shorter than the parsed one.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.payload_offset..self.payload_end).unwrap_or_default()
    }

    /// Bytes between header and padding.
    pub fn payload_len(&self) -> usize {
        self.payload_end.saturating_sub(self.payload_offset)
    }
}

/// Returns SSRC and sequence number of a packet that may be cut after its fixed header, as in an
/// ICMP error.
pub fn ssrc_and_sequence(start: &[u8]) -> Option<(u32, u16)> {
    let [flags, _, s0, s1, _, _, _, _, c0, c1, c2, c3] = *start.first_chunk::<HEADER_LEN>()?;
    let numbers = (u32::from_be_bytes([c0, c1, c2, c3]), u16::from_be_bytes([s0, s1]));
    (flags >> 6 == 2).then_some(numbers)
}

/// Sets the sequence number. A packet shorter than a header remains unchanged.
pub fn set_sequence(packet: &mut [u8], sequence: u16) {
    if let Some(field) = packet.get_mut(2..4) {
        field.copy_from_slice(&sequence.to_be_bytes());
    }
}

/// Sets the timestamp. A packet shorter than a header remains unchanged.
pub fn set_timestamp(packet: &mut [u8], timestamp: u32) {
    if let Some(field) = packet.get_mut(4..8) {
        field.copy_from_slice(&timestamp.to_be_bytes());
    }
}

/// Sets the SSRC. A packet shorter than a header remains unchanged.
pub fn set_ssrc(packet: &mut [u8], ssrc: u32) {
    if let Some(field) = packet.get_mut(8..12) {
        field.copy_from_slice(&ssrc.to_be_bytes());
    }
}

/// The header fields chosen by a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    /// Only the lower seven bits are used.
    pub payload_type: u8,
    /// Voice: first packet after silence. Video: last packet of a frame.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Sampling instant in units of the clock rate.
    pub timestamp: u32,
    /// Synchronisation source.
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
pub(crate) fn sequence_ahead(sequence: u16, reference: u16) -> i16 {
    sequence.wrapping_sub(reference).cast_signed()
}

/// Distance of `timestamp` from `reference`, across the wrap; negative is behind.
pub(crate) fn timestamp_ahead(timestamp: u32, reference: u32) -> i32 {
    timestamp.wrapping_sub(reference).cast_signed()
}

#[cfg(test)]
mod tests;
