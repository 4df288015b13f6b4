//! Extended reports (RFC 3611), parsed in place.
//!
//! A block has its type, a byte of its own, its length in words less one, and then its content.

use super::report::{HEADER_LEN, read_u32};

/// Payload type of an extended report (RFC 3611, section 2).
pub const EXTENDED_REPORT: u8 = 207;

/// Types of blocks (RFC 3611, section 4).
pub(super) const LOSS_RUNS: u8 = 1;
pub(super) const DUPLICATE_RUNS: u8 = 2;
pub(super) const RECEIPT_TIMES: u8 = 3;
const REFERENCE_TIME: u8 = 4;
pub(super) const LAST_REFERENCES: u8 = 5;
pub(super) const STATISTICS: u8 = 6;
pub(super) const VOIP_METRICS: u8 = 7;
/// RFC 5725.
pub(super) const LOSS_RUNS_AFTER_REPAIR: u8 = 10;

/// The header of a block, and that of the packet with the SSRC of its sender.
pub(super) const BLOCK_HEADER_LEN: usize = 4;
pub(super) const BLOCKS_AT: usize = HEADER_LEN + 4;

/// Each 2^thinning-th number is reported on (RFC 3611, section 4.1).
pub(super) const THINNING: u8 = 0x0f;

/// Flag of a statistics summary: it has the number of lost packets (RFC 3611, section 4.6).
const HAS_LOSS: u8 = 0x80;

/// An extended report, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedReport<'a> {
    /// SSRC of the packet sender.
    pub ssrc: u32,
    blocks: &'a [u8],
}

/// A block of an extended report.
#[derive(Clone, Copy, Debug)]
pub enum ExtendedBlock<'a> {
    /// Which packets were received (RFC 3611, section 4.1).
    LossRuns(LossRuns<'a>),
    /// Which packets were received or repaired (RFC 5725).
    LossRunsAfterRepair(LossRuns<'a>),
    /// The sender's time, in NTP format (RFC 3611, section 4.4).
    ReferenceTime(u64),
    /// Answers to reference times (RFC 3611, section 4.5).
    LastReferences(LastReferences<'a>),
    /// Counts of packets (RFC 3611, section 4.6).
    Statistics(StatisticsSummary),
    /// Metrics of voice (RFC 3611, section 4.7).
    Voip(VoipMetrics),
    /// Another block, or one that is shorter than its type needs.
    Other,
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        Some(Self { ssrc: read_u32(body, 0)?, blocks: body.get(4..)? })
    }

    /// The blocks, up to the first one that exceeds the packet.
    pub fn blocks(&self) -> impl Iterator<Item = ExtendedBlock<'a>> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let (block, behind) = rest.split_at_checked(block_len(rest)?)?;
            rest = behind;
            Some(ExtendedBlock::read(block))
        })
    }
}

impl<'a> ExtendedBlock<'a> {
    pub(super) fn read(block: &'a [u8]) -> Self {
        let parsed = match block[0] {
            LOSS_RUNS => LossRuns::read(block).map(Self::LossRuns),
            LOSS_RUNS_AFTER_REPAIR => LossRuns::read(block).map(Self::LossRunsAfterRepair),
            REFERENCE_TIME => read_u32(block, 4).zip(read_u32(block, 8)).map(|(seconds, part)| {
                Self::ReferenceTime(u64::from(seconds) << 32 | u64::from(part))
            }),
            LAST_REFERENCES => {
                let entries = block[BLOCK_HEADER_LEN..].as_chunks().0;
                Some(Self::LastReferences(LastReferences { entries }))
            }
            STATISTICS => StatisticsSummary::read(block).map(Self::Statistics),
            VOIP_METRICS => VoipMetrics::read(block).map(Self::Voip),
            _ => None,
        };
        parsed.unwrap_or(Self::Other)
    }
}

/// Returns the length of the first block; `None` without a whole header.
pub(super) fn block_len(blocks: &[u8]) -> Option<usize> {
    let &[_, _, high, low] = blocks.first_chunk()?;
    Some(BLOCK_HEADER_LEN + 4 * usize::from(u16::from_be_bytes([high, low])))
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The packets that were received and lost, in order, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct LossRuns<'a> {
    /// The source of the packets.
    pub ssrc: u32,
    /// The first number.
    pub begin: u16,
    /// The number after the last one.
    pub end: u16,
    /// Only multiples of two to this power are reported on.
    pub thinning: u8,
    chunks: &'a [[u8; 2]],
}

/// Packets that were all received, or all lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LossRun {
    /// None of the packets came.
    pub is_lost: bool,
    /// Number of the packets; at least 1.
    pub length: u16,
}

impl<'a> LossRuns<'a> {
    pub(super) fn read(block: &'a [u8]) -> Option<Self> {
        Some(Self {
            ssrc: read_u32(block, 4)?,
            begin: read_u16(block, 8)?,
            end: read_u16(block, 10)?,
            thinning: block[1] & THINNING,
            chunks: block.get(12..)?.as_chunks().0,
        })
    }

    /// Returns how many numbers are reported on.
    fn numbers(&self) -> u16 {
        let (step, span) = (1_u16 << self.thinning, self.end.wrapping_sub(self.begin));
        let before_first = self.begin.wrapping_neg() & (step - 1);
        span.saturating_sub(before_first).div_ceil(step)
    }

    /// The packets in order, at most 15 runs for each two bytes. Runs of one kind may follow one another.
    pub fn runs(&self) -> impl Iterator<Item = LossRun> + use<'a> {
        let mut left = self.numbers();
        let runs = self.chunks.iter().flat_map(|chunk| {
            let word = u16::from_be_bytes(*chunk);
            let is_vector = word & 0x8000 != 0;
            (0..if is_vector { 15_u16 } else { 1 }).map(move |place| match is_vector {
                true => LossRun { is_lost: word >> (14 - place) & 1 == 0, length: 1 },
                false => LossRun { is_lost: word & 0x4000 == 0, length: word & 0x3fff },
            })
        });
        runs.map_while(move |run| {
            let length = run.length.min(left);
            left -= length;
            // A chunk of zeros ends the list.
            (length > 0).then_some(LossRun { length, ..run })
        })
    }
}

/// Answers to reference times, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct LastReferences<'a> {
    entries: &'a [[u8; 12]],
}

/// The answer to the last reference time of one receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastReference {
    /// The receiver that sent the reference time.
    pub ssrc: u32,
    /// The middle 32 bits of that time; 0 if there was none.
    pub reference: u32,
    /// Time since then, in 1/65,536 s.
    pub delay: u32,
}

impl<'a> LastReferences<'a> {
    /// The answers; a truncated last one is left out.
    pub fn entries(&self) -> impl Iterator<Item = LastReference> + use<'a> {
        self.entries.iter().map(|entry| {
            let word = |at: usize| read_u32(entry, at).unwrap_or_default();
            LastReference { ssrc: word(0), reference: word(4), delay: word(8) }
        })
    }
}

/// Counts of packets of one source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatisticsSummary {
    /// The source of the packets.
    pub ssrc: u32,
    /// The first number.
    pub begin: u16,
    /// The number after the last one.
    pub end: u16,
    /// Lost packets; `None` if they were not counted.
    pub lost: Option<u32>,
}

impl StatisticsSummary {
    pub(super) fn read(block: &[u8]) -> Option<Self> {
        let lost = read_u32(block, 12)?;
        Some(Self {
            ssrc: read_u32(block, 4)?,
            begin: read_u16(block, 8)?,
            end: read_u16(block, 10)?,
            lost: (block[1] & HAS_LOSS != 0).then_some(lost),
        })
    }
}

/// Metrics of voice of one source, since its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoipMetrics {
    /// The source of the packets.
    pub ssrc: u32,
    /// Share of packets lost or discarded within bursts, in 1/256.
    pub burst_density: u8,
    /// Mean duration of bursts, in ms; 0 without one.
    pub burst_ms: u16,
    /// Time for which the jitter buffer holds a packet that comes in time, in ms.
    pub buffer_ms: u16,
}

impl VoipMetrics {
    pub(super) fn read(block: &[u8]) -> Option<Self> {
        let &[_, _, burst_density, _] = block.get(8..)?.first_chunk()?;
        Some(Self {
            ssrc: read_u32(block, 4)?,
            burst_density,
            burst_ms: read_u16(block, 12)?,
            buffer_ms: read_u16(block.get(..36)?, 30)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
