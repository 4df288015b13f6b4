//! RTP over QUIC: flows in datagrams and streams (draft-ietf-avtcore-rtp-over-quic-14).
//!
//! A datagram is a flow identifier and one RTP or RTCP packet. A unidirectional stream is a flow
//! identifier and then packets, each prefixed by its length. All integers are QUIC varints.

use std::fmt;

/// The ALPN protocol name (the draft's "Draft version identification").
pub const ALPN: &[u8] = b"roq-14";

/// A flow identifier: at most 62 bits, unguessable if it serves as a capability.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowId(u64);

impl FlowId {
    /// Returns `None` above 2^62 - 1, which has no encoding.
    pub fn new(number: u64) -> Option<Self> {
        (number <= VARINT_MAX).then_some(Self(number))
    }

    /// Keeps 62 of 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(bits & VARINT_MAX)
    }

    /// Returns the number, at most 2^62 - 1.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Error codes for streams and connections that are used here (the draft's section "Error Handling").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ErrorCode {
    /// ROQ_NO_ERROR: closed without an error.
    NoError = 0x00,
    /// ROQ_GENERAL_ERROR: no other code fits.
    General = 0x01,
    /// ROQ_PACKET_ERROR: invalid length, flow identifier or packet.
    Packet = 0x03,
    /// ROQ_STREAM_CREATION_ERROR: a forbidden stream, such as a bidirectional one for media.
    StreamCreation = 0x04,
    /// ROQ_FRAME_CANCELLED: this frame is no longer wanted or sent; later ones use other streams.
    FrameCancelled = 0x05,
    /// ROQ_UNKNOWN_FLOW_ID: the flow was not signalled.
    UnknownFlow = 0x06,
}

impl ErrorCode {
    /// Returns the code on the wire.
    pub fn code(self) -> u64 {
        u64::from(self as u8)
    }
}

/// Reason why bytes are not a RoQ datagram or stream; all map to [`ErrorCode::Packet`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RoqError {
    /// The datagram ends within its flow identifier.
    #[error("datagram ends within its flow identifier")]
    Flow,
    /// No packet follows the flow identifier, or a packet has length 0.
    #[error("no packet after the flow identifier or length")]
    Empty,
    /// A packet is longer than the limit.
    #[error("packet of {length} bytes exceeds {length_max}")]
    TooLong {
        /// The declared length.
        length: u64,
        /// The limit.
        length_max: usize,
    },
    /// The stream ended within its flow identifier, a length or a packet.
    #[error("stream ended within a packet")]
    Unfinished,
}

/// Appends a packet as a QUIC DATAGRAM (RFC 9221) of this flow.
pub fn write_datagram(flow: FlowId, packet: &[u8], out: &mut Vec<u8>) {
    write_stream_start(flow, out);
    out.extend_from_slice(packet);
}

/// Appends the start of a stream, its flow identifier, to `out`.
pub fn write_stream_start(flow: FlowId, out: &mut Vec<u8>) {
    write_varint(flow.0, out);
}

/// Appends a packet of a stream with its length to `out`.
pub fn write_stream_packet(packet: &[u8], out: &mut Vec<u8>) {
    write_varint(packet.len() as u64, out);
    out.extend_from_slice(packet);
}

/// Splits a datagram into its flow and its packet.
///
/// # Errors
/// [`RoqError::Flow`] or [`RoqError::Empty`]; the packet itself is not checked.
pub fn read_datagram(datagram: &[u8]) -> Result<(FlowId, &[u8]), RoqError> {
    let (number, size) = read_varint(datagram).ok_or(RoqError::Flow)?;
    let packet = &datagram[size..];
    if packet.is_empty() {
        return Err(RoqError::Empty);
    }
    Ok((FlowId(number), packet))
}

/// An item read by a [`StreamDecoder`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// The stream's flow; returned once, before any packet.
    Flow(FlowId),
    /// A whole RTP or RTCP packet.
    Packet(&'a [u8]),
}

/// Reads a stream from pieces of any size.
///
/// Holds at most one packet of the maximum length. A packet that lies whole in one piece is not
/// copied. After an error every call repeats it.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    packet_len_max: usize,
    awaits: Awaits,
    buffered: Vec<u8>,
    /// True if the held packet was returned and may be overwritten.
    spent: bool,
}

#[derive(Clone, Copy, Debug)]
enum Awaits {
    Flow,
    Length,
    Packet(usize),
    Nothing(RoqError),
}

impl StreamDecoder {
    /// Creates a decoder for one stream with packets of at most `packet_len_max` bytes.
    pub fn new(packet_len_max: usize) -> Self {
        Self { packet_len_max, awaits: Awaits::Flow, buffered: Vec::new(), spent: false }
    }

    /// Returns the next item from `input`, which shrinks by the bytes read. `None` means that
    /// `input` is consumed.
    ///
    /// Call it until it returns `None`, then again with the next piece of the stream.
    ///
    /// # Errors
    /// Fails for a packet of length 0 or above the limit.
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<Item<'a>>, RoqError> {
        if std::mem::take(&mut self.spent) {
            self.buffered.clear();
        }
        loop {
            match self.awaits {
                Awaits::Flow => {
                    let Some(number) = self.take_varint(input) else { return Ok(None) };
                    self.awaits = Awaits::Length;
                    return Ok(Some(Item::Flow(FlowId(number))));
                }
                Awaits::Length => {
                    let Some(length) = self.take_varint(input) else { return Ok(None) };
                    self.awaits = self.checked(length);
                }
                Awaits::Packet(length) => {
                    if self.buffered.is_empty() && input.len() >= length {
                        let (packet, rest) = input.split_at(length);
                        *input = rest;
                        self.awaits = Awaits::Length;
                        return Ok(Some(Item::Packet(packet)));
                    }
                    let missing = length - self.buffered.len();
                    let (taken, rest) = input.split_at(missing.min(input.len()));
                    self.buffered.extend_from_slice(taken);
                    *input = rest;
                    if self.buffered.len() < length {
                        return Ok(None);
                    }
                    self.awaits = Awaits::Length;
                    self.spent = true;
                    return Ok(Some(Item::Packet(&self.buffered)));
                }
                Awaits::Nothing(reason) => return Err(reason),
            }
        }
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// Fails with [`RoqError::Unfinished`] within a flow identifier, a length or a packet, or with
    /// the decoder's earlier error.
    pub fn finish(&self) -> Result<(), RoqError> {
        match self.awaits {
            Awaits::Length if self.spent || self.buffered.is_empty() => Ok(()),
            Awaits::Nothing(reason) => Err(reason),
            Awaits::Flow | Awaits::Length | Awaits::Packet(_) => Err(RoqError::Unfinished),
        }
    }

    fn checked(&self, length: u64) -> Awaits {
        let length_max = self.packet_len_max;
        match usize::try_from(length) {
            Ok(0) => Awaits::Nothing(RoqError::Empty),
            Ok(length) if length <= length_max => Awaits::Packet(length),
            Ok(_) | Err(_) => Awaits::Nothing(RoqError::TooLong { length, length_max }),
        }
    }

    fn take_varint(&mut self, input: &mut &[u8]) -> Option<u64> {
        loop {
            if let Some((value, size)) = read_varint(&self.buffered)
                && size == self.buffered.len()
            {
                self.buffered.clear();
                return Some(value);
            }
            let (&byte, rest) = input.split_first()?;
            self.buffered.push(byte);
            *input = rest;
        }
    }
}

/// The largest variable-length integer of QUIC (RFC 9000, section 16).
const VARINT_MAX: u64 = (1 << 62) - 1;

/// Appends the shortest encoding of a value.
fn write_varint(value: u64, out: &mut Vec<u8>) {
    let size: usize = match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        0x4000_0000..=VARINT_MAX => 8,
        _ => panic!("flows are checked on creation, and no slice is longer than 2^62 bytes"),
    };
    let length_bits = u64::from(size.trailing_zeros()) << (8 * size - 2);
    out.extend_from_slice(&(value | length_bits).to_be_bytes()[8 - size..]);
}

/// Reads a value from the start of `bytes` and returns its size. Encodings longer than needed are
/// valid. Returns `None` if more bytes are needed.
fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let size = 1 << (bytes.first()? >> 6);
    let mut value = [0; 8];
    value[8 - size..].copy_from_slice(bytes.get(..size)?);
    let length_bits = 0b11 << (8 * size - 2);
    Some((u64::from_be_bytes(value) & !length_bits, size))
}

#[cfg(test)]
mod tests;
