//! Reads a recording to its end, or to the first damaged frame.

use std::collections::VecDeque;
use std::fmt::Display;

use crate::record::{RecordingEntry, RecordingHeader, decode};
use crate::wire::{FORMAT, FrameKind, MAGIC, read_frame};

/// Iterates over the records of a recording in order. Decompresses one chunk at a time: at most 16 MiB, which may grow
/// to 256 MiB because states shared by rows are copied.
///
/// Stops at the first truncated or damaged frame; then [`RecordingReader::lost`] describes the unread part.
pub struct RecordingReader<'a> {
    header: RecordingHeader,
    rest: &'a [u8],
    total: usize,
    chunks: usize,
    pending: VecDeque<RecordingEntry>,
    end: Option<Result<(), LostChunks>>,
}

/// Reason why the bytes cannot be read as a recording.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The first bytes do not match `MAGIC`.
    #[error("not a recording: expected a file written by `evenkeel policy record`")]
    NotARecording,
    /// A transfer as text has altered the recording.
    #[error("recording damaged by a transfer as text: copy it again in binary mode")]
    Mangled,
    /// The recording has a newer format.
    #[error(
        "recording has format {found}, but this version reads up to {read}: use the evenkeel that wrote it, or a newer one"
    )]
    Newer {
        /// Format of the recording.
        found: u16,
        /// The newest readable format.
        read: u16,
    },
    /// The header frame is damaged.
    #[error("recording header is damaged: {0}")]
    Header(Box<str>),
}

/// Describes the unreadable part of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostChunks {
    /// Number of chunks before the unreadable part.
    pub chunks: usize,
    /// Offset of the unreadable part in the file, bytes.
    pub at: usize,
    /// Bytes from that offset to the end.
    pub bytes: usize,
    /// The reason of the first loss.
    pub why: Box<str>,
}

impl Display for LostChunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LostChunks { chunks, at, bytes, why } = self;
        let plural = if *chunks == 1 { "" } else { "s" };
        write!(f, "{chunks} chunk{plural} read; {bytes} bytes lost from byte {at}: {why}")
    }
}

impl<'a> RecordingReader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// Fails if the bytes are not a recording, or have a newer format.
    pub fn open(bytes: &'a [u8]) -> Result<RecordingReader<'a>, ReadError> {
        let Some((magic, rest)) = bytes.split_at_checked(MAGIC.len()) else {
            return Err(ReadError::NotARecording);
        };
        if magic != MAGIC {
            let is_text = magic[1..].starts_with(&MAGIC[1..4]) || magic.starts_with(&MAGIC[1..4]);
            return Err(if is_text { ReadError::Mangled } else { ReadError::NotARecording });
        }
        let damaged = |why: &dyn Display| ReadError::Header(why.to_string().into());
        let (format, rest) = rest.split_first_chunk().ok_or_else(|| damaged(&"truncated"))?;
        let found = u16::from_le_bytes(*format);
        if found > FORMAT {
            return Err(ReadError::Newer { found, read: FORMAT });
        }
        if found == 0 {
            return Err(damaged(&"invalid format 0"));
        }
        let (kind, payload, rest) = read_frame(rest).map_err(|error| damaged(&error))?;
        if kind != FrameKind::Header {
            return Err(damaged(&"first frame is not a header"));
        }
        let header = RecordingHeader::read(&payload).map_err(|error| damaged(&error))?;
        let (pending, total) = (VecDeque::new(), bytes.len());
        Ok(RecordingReader { header, rest, total, chunks: 0, pending, end: None })
    }

    /// The first frame.
    pub fn header(&self) -> &RecordingHeader {
        &self.header
    }

    /// Returns the unreadable part once the iterator has ended.
    pub fn lost(&self) -> Option<&LostChunks> {
        self.end.as_ref()?.as_ref().err()
    }

    /// Reads the next frame. Returns true if it is the end of a complete recording.
    fn advance(&mut self) -> Result<bool, String> {
        if self.rest.is_empty() {
            return Err("end frame missing".to_owned());
        }
        match read_frame(self.rest).map_err(|error| error.to_string())? {
            (FrameKind::Records, payload, rest) => {
                self.pending = decode(&payload).map_err(|error| error.to_string())?.into();
                (self.rest, self.chunks) = (rest, self.chunks + 1);
                Ok(false)
            }
            (FrameKind::End, _, []) => Ok(true),
            (FrameKind::End, _, rest) => {
                self.rest = rest;
                Err("data after the end frame".to_owned())
            }
            (FrameKind::Header, ..) => Err("second header".to_owned()),
        }
    }
}

impl Iterator for RecordingReader<'_> {
    type Item = RecordingEntry;

    fn next(&mut self) -> Option<RecordingEntry> {
        while self.pending.is_empty() && self.end.is_none() {
            self.end = match self.advance() {
                Ok(complete) => complete.then_some(Ok(())),
                Err(why) => {
                    let (chunks, bytes) = (self.chunks, self.rest.len());
                    let at = self.total - bytes;
                    Some(Err(LostChunks { chunks, at, bytes, why: why.into() }))
                }
            };
        }
        self.pending.pop_front()
    }
}

#[cfg(test)]
mod tests;
