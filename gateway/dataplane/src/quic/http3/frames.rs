//! Frames of a stream of HTTP/3 (RFC 9114, section 7), from pieces of any size.

use web_transport_proto::{Frame, VarInt};

use super::error::Http3Error;

/// The longest frame that is held: the limit of a field section that the settings announce.
const FRAME_MAX: u64 = 16 * 1_024;

#[derive(PartialEq, Eq, Debug)]
pub(super) struct ReadFrame {
    pub(super) kind: Frame,
    /// The whole frame, of HEADERS and SETTINGS; others are skipped.
    pub(super) bytes: Vec<u8>,
}

/// Holds at most one frame of [`FRAME_MAX`].
#[derive(Default)]
pub(super) struct FrameReader {
    held: Vec<u8>,
    /// Bytes of the last frame that are skipped.
    skip: u64,
}

struct FrameHeader {
    kind: Frame,
    length: u64,
    size: usize,
}

impl FrameHeader {
    /// `None` if more bytes are needed.
    fn of(bytes: &[u8]) -> Option<FrameHeader> {
        let mut rest = bytes;
        let kind = Frame::decode(&mut rest).ok()?;
        let length = VarInt::decode(&mut rest).ok()?.into_inner();
        Some(FrameHeader { kind, length, size: bytes.len() - rest.len() })
    }
}

impl FrameReader {
    /// Returns the next frame in `input`, which shrinks by the bytes read. `None` means that `input` is consumed.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<ReadFrame>, Http3Error> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(input.len());
        *input = &input[skipped..];
        self.skip -= skipped as u64;
        let FrameHeader { kind, length, size } = loop {
            if let Some(header) = FrameHeader::of(&self.held) {
                break header;
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            self.held.push(byte);
            *input = rest;
        };
        if !matches!(kind, Frame::HEADERS | Frame::SETTINGS) {
            self.held.clear();
            self.skip = length;
            return Ok(Some(ReadFrame { kind, bytes: Vec::new() }));
        }
        if length > FRAME_MAX {
            return Err(Http3Error::ExcessiveLoad);
        }
        let missing = size + length as usize - self.held.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.held.extend_from_slice(taken);
        *input = rest;
        let is_whole = taken.len() == missing;
        Ok(is_whole.then(|| ReadFrame { kind, bytes: std::mem::take(&mut self.held) }))
    }

    /// Returns whether the stream may end here.
    pub(super) fn is_between_frames(&self) -> bool {
        self.held.is_empty() && self.skip == 0
    }
}

#[cfg(test)]
mod tests;
