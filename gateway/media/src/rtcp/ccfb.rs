//! Congestion control feedback: arrival times of packets by stream and sequence number (RFC 8888, section 3.1).

use super::report::read_u32;

/// SSRC of a stream, its first number and the number of its packets.
const BLOCK_LEN: usize = 8;

/// Limit of packets of a stream in one report.
const PACKETS_MAX: u16 = 16_384;

/// Arrival offsets from here on are no times: out of range, or unknown.
const OFFSET_UNKNOWN: u16 = 0x1ffe;

/// Arrival times of packets, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct CongestionFeedback<'a> {
    /// SSRC of the packet sender.
    pub sender: u32,
    /// The time that arrivals are before, on the receiver's clock, in 1/65,536 s.
    pub at: u32,
    blocks: &'a [u8],
}

/// Arrival times of the packets of a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamArrivals<'a> {
    pub ssrc: u32,
    /// The number of the first packet that it tells of.
    pub begin: u16,
    metrics: &'a [[u8; 2]],
}

/// The arrival of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketArrival {
    Missing,
    /// The time is out of range, or unknown.
    Untimed,
    /// This long before the report's time, in 1/1,024 s.
    Before(u16),
}

impl<'a> CongestionFeedback<'a> {
    /// `None` if the streams do not end where the report's time begins.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (blocks, at) = body.get(4..)?.split_last_chunk()?;
        let feedback = Self { sender: read_u32(body, 0)?, at: u32::from_be_bytes(*at), blocks };
        let mut rest = blocks;
        while !rest.is_empty() {
            (_, rest) = split_block(rest)?;
        }
        Some(feedback)
    }

    /// The streams that it tells of.
    pub fn streams(&self) -> impl Iterator<Item = StreamArrivals<'a>> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let (stream, behind) = split_block(rest)?;
            rest = behind;
            Some(stream)
        })
    }
}

impl<'a> StreamArrivals<'a> {
    /// The packets in the order of their numbers.
    pub fn arrivals(&self) -> impl Iterator<Item = (u16, PacketArrival)> + use<'a> {
        let begin = self.begin;
        let numbered = self.metrics.iter().zip(0..);
        numbered.map(move |(metric, index)| (begin.wrapping_add(index), read_metric(*metric)))
    }

    /// The packet with this number; `None` if nothing is told of it.
    pub fn arrival(&self, sequence: u16) -> Option<PacketArrival> {
        let metric = self.metrics.get(usize::from(sequence.wrapping_sub(self.begin)))?;
        Some(read_metric(*metric))
    }
}

fn read_metric(metric: [u8; 2]) -> PacketArrival {
    let metric = u16::from_be_bytes(metric);
    match metric & 0x1fff {
        _ if metric & 0x8000 == 0 => PacketArrival::Missing,
        OFFSET_UNKNOWN.. => PacketArrival::Untimed,
        offset => PacketArrival::Before(offset),
    }
}

/// Splits off the first stream's block, which is padded to four bytes.
fn split_block(blocks: &[u8]) -> Option<(StreamArrivals<'_>, &[u8])> {
    let range = read_u32(blocks, 4)?;
    let packets = range as u16;
    if packets > PACKETS_MAX {
        return None;
    }
    let end = BLOCK_LEN + 2 * usize::from(packets);
    let metrics = blocks.get(BLOCK_LEN..end)?.as_chunks().0;
    let rest = blocks.get(end.next_multiple_of(4)..)?;
    let (ssrc, begin) = (read_u32(blocks, 0)?, (range >> 16) as u16);
    Some((StreamArrivals { ssrc, begin, metrics }, rest))
}

#[cfg(test)]
mod tests;
