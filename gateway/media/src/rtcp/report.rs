//! Reports and source descriptions (RFC 3550, sections 6.4 and 6.5).

/// Payload type of a sender report (RFC 3550, 6.4.1).
pub(crate) const SENDER_REPORT: u8 = 200;
/// Payload type of a receiver report (RFC 3550, 6.4.2).
pub(crate) const RECEIVER_REPORT: u8 = 201;
/// Payload type of a source description (RFC 3550, 6.5).
pub const SOURCE_DESCRIPTION: u8 = 202;
/// Payload type of a BYE (RFC 3550, 6.6).
pub const BYE: u8 = 203;
/// Limit of report blocks, chunks or sources of one packet: the count has five bits.
pub(crate) const BLOCKS_MAX: usize = 31;

pub(super) const HEADER_LEN: usize = 4;
pub(super) const SENDER_INFO_LEN: usize = 24;
pub(super) const BLOCK_LEN: usize = 24;

/// Sender information (RFC 3550, 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// The source that the values are about.
    pub ssrc: u32,
    /// Wall-clock time of the report in NTP format: seconds since 1900 in the upper 32 bits.
    pub ntp: u64,
    /// The same time on the stream's RTP clock.
    pub timestamp: u32,
    /// Packets sent since the stream began; wraps.
    pub packets: u32,
    /// Payload bytes sent since the stream began; wraps.
    pub octets: u32,
}

/// Reception of one stream (RFC 3550, 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReportBlock {
    /// The source that the values are about.
    pub ssrc: u32,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since reception began; 24 bits, negative after duplicates.
    pub lost: i32,
    /// Highest sequence number received, with cycles in the upper 16 bits.
    pub sequence_max: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// The middle 32 bits of the NTP time in the last sender report; 0 if there was none.
    pub last_sr: u32,
    /// Time since the last sender report, in 1/65,536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    pub(super) fn read(bytes: &[u8; BLOCK_LEN]) -> Self {
        let word = |at: usize| read_u32(bytes, at).unwrap_or_default();
        let lost = word(4) << 8;
        Self {
            ssrc: word(0),
            fraction_lost: bytes[4],
            lost: lost.cast_signed() >> 8,
            sequence_max: word(8),
            jitter: word(12),
            last_sr: word(16),
            delay_since_last_sr: word(20),
        }
    }

    pub(super) fn bytes(&self) -> [u8; BLOCK_LEN] {
        let lost = self.lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        let words = [
            self.ssrc,
            u32::from(self.fraction_lost) << 24 | lost,
            self.sequence_max,
            self.jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ];
        let mut bytes = [0; BLOCK_LEN];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// Returns the report blocks in `body` from `at`; `None` if there are fewer than `count`.
fn blocks(count: u8, body: &[u8], at: usize) -> Option<&[[u8; BLOCK_LEN]]> {
    let length = usize::from(count) * BLOCK_LEN;
    body.get(at..at + length).map(|blocks| blocks.as_chunks().0)
}

/// A sender report, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    /// The sender's clock and totals.
    pub info: SenderInfo,
    pub(super) blocks: &'a [[u8; BLOCK_LEN]],
}

impl<'a> SenderReport<'a> {
    pub(super) fn read(count: u8, body: &'a [u8]) -> Option<Self> {
        let info = SenderInfo {
            ssrc: read_u32(body, 0)?,
            ntp: u64::from(read_u32(body, 4)?) << 32 | u64::from(read_u32(body, 8)?),
            timestamp: read_u32(body, 12)?,
            packets: read_u32(body, 16)?,
            octets: read_u32(body, 20)?,
        };
        Some(Self { info, blocks: blocks(count, body, SENDER_INFO_LEN)? })
    }
}

/// A receiver report, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    /// SSRC of the packet sender.
    pub ssrc: u32,
    pub(super) blocks: &'a [[u8; BLOCK_LEN]],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn read(count: u8, body: &'a [u8]) -> Option<Self> {
        Some(Self { ssrc: read_u32(body, 0)?, blocks: blocks(count, body, 4)? })
    }
}

/// Returns start and end of each chunk in the body, up to the first malformed one.
pub(super) fn chunks(count: u8, body: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    (0..count).map_while(move |_| {
        let start = at;
        let mut end = start + 4;
        loop {
            match *body.get(end..)? {
                [0, ..] => break,
                [_, length, ..] => end += 2 + usize::from(length),
                _ => return None,
            }
        }
        // A null item ends the chunk and pads it to the next word.
        at = (end + 1).next_multiple_of(4);
        (at <= body.len()).then_some((start, at))
    })
}

/// Appends a sender report; report blocks beyond `BLOCKS_MAX` follow in receiver reports.
pub fn write_sender_report(info: &SenderInfo, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let (first, rest) = blocks.split_at(blocks.len().min(BLOCKS_MAX));
    write_header(first.len() as u8, SENDER_REPORT, SENDER_INFO_LEN + first.len() * BLOCK_LEN, out);
    out.extend_from_slice(&info.ssrc.to_be_bytes());
    out.extend_from_slice(&info.ntp.to_be_bytes());
    out.extend_from_slice(&info.timestamp.to_be_bytes());
    out.extend_from_slice(&info.packets.to_be_bytes());
    out.extend_from_slice(&info.octets.to_be_bytes());
    first.iter().for_each(|block| out.extend_from_slice(&block.bytes()));
    if !rest.is_empty() {
        write_receiver_report(info.ssrc, rest, out);
    }
}

/// Appends a receiver report, or several for more than `BLOCKS_MAX` blocks.
pub fn write_receiver_report(ssrc: u32, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let (first, rest) = blocks.split_at(blocks.len().min(BLOCKS_MAX));
    write_header(first.len() as u8, RECEIVER_REPORT, 4 + first.len() * BLOCK_LEN, out);
    out.extend_from_slice(&ssrc.to_be_bytes());
    first.iter().for_each(|block| out.extend_from_slice(&block.bytes()));
    if !rest.is_empty() {
        write_receiver_report(ssrc, rest, out);
    }
}

/// Appends a source description with the canonical name, cut at 255 bytes. Every compound packet
/// needs one (RFC 3550, 6.1).
pub fn write_cname(ssrc: u32, cname: &[u8], out: &mut Vec<u8>) {
    let cname = &cname[..cname.len().min(255)];
    let length = 4 + 2 + cname.len() + 1;
    write_header(1, SOURCE_DESCRIPTION, length.next_multiple_of(4), out);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[1, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.resize(out.len() + 1 + length.next_multiple_of(4) - length, 0);
}

/// Appends the header of a packet with a body of `body_len` bytes, a multiple of four.
pub(super) fn write_header(count: u8, payload_type: u8, body_len: usize, out: &mut Vec<u8>) {
    let words = u16::try_from(body_len / 4).expect("bodies written here are below 256 KiB");
    out.push(0x80 | count & 0x1f);
    out.push(payload_type);
    out.extend_from_slice(&words.to_be_bytes());
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
