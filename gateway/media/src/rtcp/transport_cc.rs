//! Arrival times of packets by their transport-wide sequence numbers
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1).

use super::feedback::{COMMON_LEN, TRANSPORT_FEEDBACK, TRANSPORT_WIDE};
use super::report::{HEADER_LEN, read_u32, write_header};

/// The unit of arrival times, in microseconds.
pub const TICK_US: i64 = 250;

/// The unit of reference times, in units of arrival times: 64 ms.
pub const REFERENCE_TICKS: i64 = 256;

/// SSRCs, base number, number of statuses, reference time and count of feedback packets.
const FIXED_LEN: usize = COMMON_LEN + 8;

const NOT_RECEIVED: u16 = 0;
const SMALL_DELTA: u16 = 1;
const LARGE_DELTA: u16 = 2;

/// Symbols of a chunk that is a vector of two-bit symbols.
const VECTOR_SYMBOLS: usize = 7;

/// Arrival times of packets, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct TransportFeedback<'a> {
    /// SSRC of the packet sender.
    pub sender: u32,
    /// SSRC of a media source of the transport.
    pub media: u32,
    /// The number of the first packet that it tells of.
    pub base: u16,
    /// The time that the first arrival follows, on the receiver's clock: 24 bits, in [`REFERENCE_TICKS`].
    pub reference: u32,
    statuses: u16,
    chunks: u16,
    /// From its header on, with padding.
    packet: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    /// `None` if chunks or deltas are missing, or a symbol is the reserved one.
    pub(super) fn read(packet: &'a [u8], body: &'a [u8]) -> Option<Self> {
        let (base, reference) = (read_u32(body, COMMON_LEN)?, read_u32(body, COMMON_LEN + 4)?);
        let statuses = base as u16;
        let rest = body.get(FIXED_LEN..)?;
        let (mut left, mut chunks, mut deltas_len) = (statuses, 0_u16, 0);
        while left > 0 {
            let place = 2 * usize::from(chunks);
            let chunk = u16::from_be_bytes(*rest.get(place..)?.first_chunk()?);
            let symbols = symbols(chunk).min(left);
            deltas_len += deltas_of(chunk, symbols)?;
            chunks = chunks.checked_add(1)?;
            left -= symbols;
        }
        let has_deltas = rest.len() >= 2 * usize::from(chunks) + deltas_len;
        has_deltas.then_some(Self {
            sender: read_u32(body, 0)?,
            media: read_u32(body, 4)?,
            base: (base >> 16) as u16,
            reference: reference >> 8,
            statuses,
            chunks,
            packet,
        })
    }

    /// The packets in the order of their numbers, and the arrival of those that were received: units of [`TICK_US`] after the reference time.
    /// At most 65,535.
    pub fn arrivals(&self) -> Arrivals<'a> {
        let rest = self.packet.get(HEADER_LEN + FIXED_LEN..).unwrap_or_default();
        let (chunks, deltas) =
            rest.split_at_checked(2 * usize::from(self.chunks)).unwrap_or_default();
        Arrivals {
            number: self.base,
            left: self.statuses,
            chunk: 0,
            symbols: 0,
            taken: 0,
            chunks: chunks.as_chunks().0,
            deltas,
            at_ticks: 0,
        }
    }

    /// Appends the packet with the SSRCs of the fields.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len() + HEADER_LEN;
        out.extend_from_slice(self.packet);
        out[start..start + 4].copy_from_slice(&self.sender.to_be_bytes());
        out[start + 4..start + COMMON_LEN].copy_from_slice(&self.media.to_be_bytes());
    }
}

/// See [`TransportFeedback::arrivals`].
#[derive(Clone, Debug)]
pub struct Arrivals<'a> {
    number: u16,
    /// Packets that are still to be told.
    left: u16,
    chunk: u16,
    symbols: u16,
    /// Symbols of the chunk that were told.
    taken: u16,
    chunks: &'a [[u8; 2]],
    deltas: &'a [u8],
    at_ticks: i64,
}

impl Iterator for Arrivals<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        while self.taken == self.symbols {
            let (chunk, rest) = self.chunks.split_first()?;
            self.chunk = u16::from_be_bytes(*chunk);
            (self.symbols, self.taken, self.chunks) = (symbols(self.chunk), 0, rest);
        }
        let symbol = symbol(self.chunk, self.taken);
        self.taken += 1;
        let number = self.number;
        self.number = number.wrapping_add(1);
        let delta = match symbol {
            NOT_RECEIVED => return Some((number, None)),
            SMALL_DELTA => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(*delta)
            }
            _ => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(*delta))
            }
        };
        self.at_ticks += delta;
        Some((number, Some(self.at_ticks)))
    }
}

/// Returns the number of symbols in a chunk: a run length, or a vector of one-bit or two-bit symbols.
fn symbols(chunk: u16) -> u16 {
    match chunk >> 14 {
        0 | 1 => chunk & 0x1fff,
        2 => 14,
        _ => VECTOR_SYMBOLS as u16,
    }
}

/// Returns a symbol of a chunk that has more of them than `position`.
fn symbol(chunk: u16, position: u16) -> u16 {
    match chunk >> 14 {
        0 | 1 => chunk >> 13 & 3,
        2 => chunk >> (13 - position) & 1,
        _ => chunk >> (12 - 2 * position) & 3,
    }
}

/// Returns the bytes of deltas that this many symbols of a chunk need. `None` if one is reserved.
fn deltas_of(chunk: u16, symbols: u16) -> Option<usize> {
    let bytes = |symbol: u16| (symbol <= LARGE_DELTA).then_some(usize::from(symbol));
    if chunk >> 15 == 0 {
        return Some(bytes(symbol(chunk, 0))? * usize::from(symbols));
    }
    (0..symbols).map(|position| bytes(symbol(chunk, position))).sum()
}

/// Appends feedback about packets with consecutive numbers from `base` on: their arrivals in units of [`TICK_US`]. Two arrivals are at most
/// 8 s apart. `count` numbers the feedback packets of a receiver.
pub fn write_transport_feedback(
    sender: u32,
    media: u32,
    base: u16,
    count: u8,
    arrivals: &[Option<i64>],
    out: &mut Vec<u8>,
) {
    let first = arrivals.iter().flatten().next().copied().unwrap_or_default();
    let reference = first.div_euclid(REFERENCE_TICKS);
    let (mut deltas, mut last) = (Vec::new(), reference * REFERENCE_TICKS);
    let symbols: Vec<u16> = arrivals
        .iter()
        .map(|arrival| {
            let Some(arrival) = arrival else { return NOT_RECEIVED };
            let delta = arrival - std::mem::replace(&mut last, *arrival);
            if let Ok(small) = u8::try_from(delta) {
                deltas.push(small);
                SMALL_DELTA
            } else {
                deltas.extend_from_slice(&(delta as i16).to_be_bytes());
                LARGE_DELTA
            }
        })
        .collect();
    let mut body: Vec<u8> = Vec::new();
    body.extend_from_slice(&base.to_be_bytes());
    body.extend_from_slice(&(arrivals.len() as u16).to_be_bytes());
    body.extend_from_slice(&((reference as u32) << 8 | u32::from(count)).to_be_bytes());
    for vector in symbols.chunks(VECTOR_SYMBOLS) {
        let mut chunk: u16 = 0xc000;
        for (position, symbol) in vector.iter().enumerate() {
            chunk |= symbol << (12 - 2 * position);
        }
        body.extend_from_slice(&chunk.to_be_bytes());
    }
    body.extend(deltas);
    body.resize(body.len().next_multiple_of(4), 0);
    write_header(TRANSPORT_WIDE, TRANSPORT_FEEDBACK, COMMON_LEN + body.len(), out);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    out.extend(body);
}

#[cfg(test)]
mod tests;
