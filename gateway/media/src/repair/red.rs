//! Redundant audio (RFC 2198): a packet repeats earlier frames beside its own.
//!
//! [`RedPayload`] reads a payload in place, and [`write()`] appends one. A [`RedWriter`] repeats the frames of a stream in its later
//! packets; a [`RedReader`] finds frames of lost packets in those that arrive.

use crate::rtp::{RtpHeader, sequence_ahead, timestamp_ahead};

/// The payload type of Opus' redundant blocks in rooms. Packets with it reach clients that did not negotiate it, too.
pub const ROOM_PAYLOAD_TYPE: u8 = 63;

/// Limit of the blocks in a payload: more than any sender has use for, since each is a frame.
pub const BLOCKS_MAX: usize = 32;

/// The length of a block has 10 bits (RFC 2198, section 3). That of the last one follows from the packet.
pub const BLOCK_BYTES_MAX: usize = (1 << 10) - 1;

/// The timestamp offset of a block has 14 bits (RFC 2198, section 3).
pub const OFFSET_MAX: u16 = (1 << 14) - 1;

/// The reason why redundant blocks cannot be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RedError {
    /// The payload ends within the headers of its blocks.
    #[error("the payload ends within the headers of redundant blocks")]
    Headers,
    /// There are too many blocks.
    #[error("more than {BLOCKS_MAX} redundant blocks")]
    Blocks,
    /// The payload, or the field in a header, is too short for a block.
    #[error("a redundant block is too long")]
    Length,
    /// A block to be written is older than its header can say.
    #[error("the timestamp offset of a redundant block has more than 14 bits")]
    Offset,
}

/// A block of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RedBlock<'a> {
    /// 0–127.
    pub payload_type: u8,
    /// Timestamp units by which the frame is older than that of the packet.
    pub offset: u16,
    /// The frame.
    pub data: &'a [u8],
}

/// A payload of redundant blocks, checked as a whole.
#[derive(Clone, Copy, Debug)]
pub struct RedPayload<'a> {
    headers: &'a [[u8; 4]],
    payload_type: u8,
    /// The data of all blocks.
    data: &'a [u8],
    /// Index of the packet's own frame in the data.
    own_at: usize,
}

fn block_bytes(header: [u8; 4]) -> usize {
    usize::from(u16::from_be_bytes([header[2] & 0x03, header[3]]))
}

impl<'a> RedPayload<'a> {
    /// Reads the headers of all blocks.
    ///
    /// # Errors
    /// Fails if the payload is shorter than its blocks, or has too many.
    pub fn parse(payload: &'a [u8]) -> Result<RedPayload<'a>, RedError> {
        let (mut rest, mut earlier, mut own_at) = (payload, 0, 0);
        while rest.first().is_some_and(|first| first & 0x80 != 0) {
            let (header, behind) = rest.split_first_chunk().ok_or(RedError::Headers)?;
            (rest, earlier) = (behind, earlier + 1);
            own_at += block_bytes(*header);
            if earlier == BLOCKS_MAX {
                return Err(RedError::Blocks);
            }
        }
        let (&payload_type, data) = rest.split_first().ok_or(RedError::Headers)?;
        if own_at > data.len() {
            return Err(RedError::Length);
        }
        let headers = payload[..4 * earlier].as_chunks().0;
        Ok(RedPayload { headers, payload_type, data, own_at })
    }

    /// The packet's own frame.
    pub fn own(&self) -> RedBlock<'a> {
        RedBlock { payload_type: self.payload_type, offset: 0, data: &self.data[self.own_at..] }
    }

    /// The earlier frames, in their order in the packet.
    pub fn earlier(&self) -> impl Iterator<Item = RedBlock<'a>> + use<'a> {
        let mut rest = self.data;
        self.headers.iter().map(move |header| {
            let (data, behind) = rest.split_at(block_bytes(*header));
            rest = behind;
            let offset = u16::from_be_bytes([header[1], header[2]]) >> 2;
            RedBlock { payload_type: header[0] & 0x7f, offset, data }
        })
    }
}

/// Appends a payload of earlier frames and the packet's own one.
///
/// # Errors
/// Fails if a field of the format is too small; `out` is unchanged then.
pub fn write(
    earlier: &[RedBlock<'_>],
    payload_type: u8,
    own: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), RedError> {
    if earlier.len() >= BLOCKS_MAX {
        return Err(RedError::Blocks);
    }
    if earlier.iter().any(|block| block.data.len() > BLOCK_BYTES_MAX) {
        return Err(RedError::Length);
    }
    if earlier.iter().any(|block| block.offset > OFFSET_MAX) {
        return Err(RedError::Offset);
    }
    for RedBlock { payload_type, offset, data } in earlier {
        let fields = u32::from(*offset) << 10 | data.len() as u32;
        let [_, high, middle, low] = fields.to_be_bytes();
        out.extend_from_slice(&[0x80 | payload_type, high, middle, low]);
    }
    out.push(payload_type & 0x7f);
    earlier.iter().for_each(|block| out.extend_from_slice(block.data));
    out.extend_from_slice(own);
    Ok(())
}

/// A frame of a stream: the payload of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The sequence number of its packet.
    pub sequence: u16,
    /// The timestamp of its packet.
    pub timestamp: u32,
    /// The payload.
    pub data: &'a [u8],
}

/// The earlier frames that a packet repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spacing {
    /// Number of the frames: at most [`Spacing::FRAMES_MAX`], and at most `span`.
    pub frames: u8,
    /// Packets from the oldest frame to the packet: at most [`Spacing::SPAN_MAX`].
    pub span: u8,
}

impl Spacing {
    /// A third frame would cost as much as each before it, and restore a hundredth of the lost packets at 10 % loss.
    pub const FRAMES_MAX: u8 = 2;

    /// Packets from the oldest frame to the packet: 160 ms of usual frames. A burst of losses rarely hits both.
    pub const SPAN_MAX: u8 = 8;

    /// Returns the packets from each frame to the packet, spread over the span, the oldest frame first as in the examples of RFC 2198.
    pub fn offsets(self) -> impl Iterator<Item = u8> {
        let frames = self.frames.min(Spacing::FRAMES_MAX);
        (1..=frames).rev().map(move |place| place * self.span / frames)
    }

    /// Returns the share of lost frames that are lost with each repetition, at this share of lost packets. `burst`: the mean length of bursts of
    /// losses in packets, `None` if they are random. By Gilbert's model: whether a packet is lost depends on the one before.
    pub fn share_left(self, loss: f64, burst: Option<f64>) -> f64 {
        if loss >= 1.0 {
            return 1.0;
        }
        let burst_ends = burst.map_or(1.0 - loss, |burst| 1.0 / burst.max(1.0));
        let burst_begins = burst_ends * loss / (1.0 - loss);
        let dependence = (1.0 - burst_ends - burst_begins).clamp(0.0, 1.0);
        let lost_again = |gap: u8| loss + (1.0 - loss) * dependence.powi(gap.into());
        let nearer = self.offsets().skip(1).chain([0]);
        self.offsets().zip(nearer).map(|(older, nearer)| lost_again(older - nearer)).product()
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct KeptFrame {
    sequence: u16,
    timestamp: u32,
    /// 0: there is none.
    bytes: u16,
}

const KEPT: usize = Spacing::SPAN_MAX as usize;

/// Repeats the frames of one stream in its later packets. Allocates once.
#[derive(Debug)]
pub struct RedWriter {
    /// The last frames, each at the place of its sequence number.
    frames: [KeptFrame; KEPT],
    data: Box<[[u8; BLOCK_BYTES_MAX]; KEPT]>,
}

impl Default for RedWriter {
    fn default() -> RedWriter {
        RedWriter { frames: Default::default(), data: Box::new([[0; BLOCK_BYTES_MAX]; KEPT]) }
    }
}

impl RedWriter {
    /// Keeps a frame for later packets. One that is longer than a block is not kept.
    pub fn keep(&mut self, frame: &Frame<'_>) {
        let place = usize::from(frame.sequence) % KEPT;
        let data = self.data[place].get_mut(..frame.data.len());
        let bytes = data.map_or(0, |data| {
            data.copy_from_slice(frame.data);
            data.len() as u16
        });
        let (sequence, timestamp) = (frame.sequence, frame.timestamp);
        self.frames[place] = KeptFrame { sequence, timestamp, bytes };
    }

    /// Appends a payload with this frame and earlier ones of the same payload type that are at most `reach` timestamp units older. Returns
    /// false, and appends nothing, if none is kept.
    pub fn write(
        &self,
        frame: &Frame<'_>,
        payload_type: u8,
        spacing: Spacing,
        reach: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut blocks = [RedBlock::default(); Spacing::FRAMES_MAX as usize];
        let mut found = 0;
        for back in spacing.offsets() {
            let kept = self.find(frame.sequence.wrapping_sub(back.into()));
            let Some(Frame { timestamp, data, .. }) = kept else { continue };
            let offset = frame.timestamp.wrapping_sub(timestamp);
            if let Some(offset) = u16::try_from(offset).ok().filter(|it| u32::from(*it) <= reach) {
                blocks[found] = RedBlock { payload_type, offset, data };
                found += 1;
            }
        }
        found > 0 && write(&blocks[..found], payload_type, frame.data, out).is_ok()
    }

    fn find(&self, sequence: u16) -> Option<Frame<'_>> {
        let place = usize::from(sequence) % KEPT;
        let KeptFrame { sequence: kept, timestamp, bytes } = self.frames[place];
        let data = &self.data[place][..usize::from(bytes)];
        (kept == sequence && bytes > 0).then_some(Frame { sequence, timestamp, data })
    }
}

/// Numbers below the highest that are remembered: 2.5 s of usual frames. A packet that is later was lost for every receiver.
const REMEMBERED: u16 = 128;

/// Packets whose timestamps are remembered. A frame is repeated at most 14 bits of timestamp later: 17 frames of Opus.
const TIMES: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PacketTime {
    sequence: u16,
    timestamp: u32,
}

/// Finds frames of lost packets of one stream. Never allocates.
#[derive(Clone, Debug)]
pub struct RedReader {
    highest: u16,
    /// Bit n is set if the number n below the highest arrived, or was recovered, or comes before the stream.
    passed: u128,
    /// Bit n is set if the packet with the number n below the highest was recovered.
    recovered: u128,
    /// Packets that passed, each at the place of its sequence number.
    times: [Option<PacketTime>; TIMES],
}

impl RedReader {
    /// Begins with a packet of a stream.
    pub fn new(header: &RtpHeader) -> RedReader {
        let (highest, passed) = (header.sequence, u128::MAX);
        let mut reader = RedReader { highest, passed, recovered: 0, times: [None; TIMES] };
        reader.note_time(header.sequence, header.timestamp);
        reader
    }

    /// Handles a packet of any payload type. Returns false if it was recovered before.
    pub fn receive(&mut self, header: &RtpHeader) -> bool {
        let ahead = sequence_ahead(header.sequence, self.highest);
        if ahead > 0 {
            let shift = u32::from(ahead.unsigned_abs());
            self.passed = self.passed.checked_shl(shift).unwrap_or(0);
            self.recovered = self.recovered.checked_shl(shift).unwrap_or(0);
            self.highest = header.sequence;
        }
        let Some(bit) = self.bit(header.sequence) else {
            // The stream began anew.
            *self = RedReader::new(header);
            return true;
        };
        if self.recovered & bit != 0 {
            return false;
        }
        self.passed |= bit;
        self.note_time(header.sequence, header.timestamp);
        true
    }

    /// Passes on the frames of lost packets in a packet that was received, each once. Only blocks of `payload_type` count.
    pub fn recover<'a>(
        &mut self,
        header: &RtpHeader,
        payload: &RedPayload<'a>,
        payload_type: u8,
        mut pass: impl FnMut(&Frame<'a>),
    ) {
        if self.passed == u128::MAX {
            return;
        }
        for block in payload.earlier() {
            let timestamp = header.timestamp.wrapping_sub(block.offset.into());
            if block.payload_type != payload_type || block.offset == 0 || block.data.is_empty() {
                continue;
            }
            if let Some(sequence) = self.lost_at(header, timestamp) {
                let bit = self.bit(sequence).unwrap_or(0);
                (self.passed, self.recovered) = (self.passed | bit, self.recovered | bit);
                self.note_time(sequence, timestamp);
                pass(&Frame { sequence, timestamp, data: block.data });
            }
        }
    }

    /// Returns the number of the lost packet with this timestamp, which is older than that of the header. `None` if it passed, or if its
    /// number is uncertain: the block names none, and silent voice leaves out timestamps without numbers.
    fn lost_at(&self, header: &RtpHeader, timestamp: u32) -> Option<u16> {
        let mut later = PacketTime { sequence: header.sequence, timestamp: header.timestamp };
        for back in 1..=TIMES as u16 {
            let sequence = header.sequence.wrapping_sub(back);
            if self.passed & self.bit(sequence)? == 0 {
                continue;
            }
            let place = usize::from(sequence) % TIMES;
            let earlier = self.times[place].filter(|time| time.sequence == sequence)?;
            match timestamp_ahead(timestamp, earlier.timestamp) {
                ..0 => later = earlier,
                0 => return None,
                1.. => return number_between(earlier, later, timestamp),
            }
        }
        None
    }

    fn note_time(&mut self, sequence: u16, timestamp: u32) {
        if self.highest.wrapping_sub(sequence) < TIMES as u16 {
            self.times[usize::from(sequence) % TIMES] = Some(PacketTime { sequence, timestamp });
        }
    }

    fn bit(&self, sequence: u16) -> Option<u128> {
        let behind = self.highest.wrapping_sub(sequence);
        (behind < REMEMBERED).then(|| 1 << behind)
    }
}

/// Returns the number of a packet with this timestamp between two others. `None` if it is uncertain.
fn number_between(earlier: PacketTime, later: PacketTime, timestamp: u32) -> Option<u16> {
    let numbers = later.sequence.wrapping_sub(earlier.sequence);
    let span = u64::from(later.timestamp.wrapping_sub(earlier.timestamp));
    let since = u64::from(timestamp.wrapping_sub(earlier.timestamp)) * u64::from(numbers);
    match numbers {
        0 | 1 => None,
        2 => Some(earlier.sequence.wrapping_add(1)),
        _ if since.is_multiple_of(span) => {
            Some(earlier.sequence.wrapping_add((since / span) as u16))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
