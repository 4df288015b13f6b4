//! Reads a recording to its end, or to the first damaged frame.

use std::collections::VecDeque;

use crate::chunk::{FORMAT, FrameError, FrameKind, MAGIC, RecordingHeader, decode, read_frame};
use crate::record::RecordingEntry;
use crate::wire::InvalidFrame;

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// The first bytes do not match `MAGIC`.
    NotARecording,
    /// A transfer as text has altered the recording.
    Mangled,
    /// The recording has a newer format.
    Newer {
        /// Format of the recording.
        found: u16,
        /// The newest readable format.
        read: u16,
    },
    /// The header frame is damaged.
    Header(Box<str>),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::NotARecording => {
                f.write_str("not a recording: expected a file written by `evenkeel policy record`")
            }
            ReadError::Mangled => {
                f.write_str("recording damaged by a transfer as text: copy it again in binary mode")
            }
            ReadError::Newer { found, read } => write!(
                f,
                "recording has format {found}, but this version reads up to {read}: use the evenkeel that wrote it, or a newer one"
            ),
            ReadError::Header(error) => {
                write!(f, "recording header is damaged: {error}")
            }
        }
    }
}

impl std::error::Error for ReadError {}

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

impl std::fmt::Display for LostChunks {
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
        let cut_off = || ReadError::Header("truncated".into());
        let (format, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let found = u16::from_le_bytes(*format);
        if found > FORMAT {
            return Err(ReadError::Newer { found, read: FORMAT });
        }
        if found == 0 {
            return Err(ReadError::Header("invalid format 0".into()));
        }
        let (kind, payload, rest) =
            read_frame(rest).map_err(|error| ReadError::Header(describe(error).into()))?;
        if kind != FrameKind::Header {
            return Err(ReadError::Header("first frame is not a header".into()));
        }
        let unreadable = |error: InvalidFrame| ReadError::Header(error.to_string().into());
        let header = RecordingHeader::read(&payload).map_err(unreadable)?;
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

    /// Reads the next frame.
    fn advance(&mut self) {
        if self.rest.is_empty() {
            self.end = Some(Err(self.lost_here("end frame missing")));
            return;
        }
        match read_frame(self.rest) {
            Ok((FrameKind::Records, payload, rest)) => match decode(&payload) {
                Ok(records) => {
                    self.pending = records.into();
                    self.rest = rest;
                    self.chunks += 1;
                }
                Err(error) => self.end = Some(Err(self.lost_here(&error.to_string()))),
            },
            Ok((FrameKind::End, _, [])) => self.end = Some(Ok(())),
            Ok((FrameKind::End, _, rest)) => {
                self.rest = rest;
                self.end = Some(Err(self.lost_here("data after the end frame")));
            }
            Ok((FrameKind::Header, ..)) => {
                self.end = Some(Err(self.lost_here("second header")));
            }
            Err(error) => self.end = Some(Err(self.lost_here(describe(error)))),
        }
    }

    fn lost_here(&self, why: &str) -> LostChunks {
        let bytes = self.rest.len();
        LostChunks { chunks: self.chunks, at: self.total - bytes, bytes, why: why.into() }
    }
}

impl Iterator for RecordingReader<'_> {
    type Item = RecordingEntry;

    fn next(&mut self) -> Option<RecordingEntry> {
        while self.pending.is_empty() && self.end.is_none() {
            self.advance();
        }
        self.pending.pop_front()
    }
}

fn describe(error: FrameError) -> &'static str {
    match error {
        FrameError::CutOff => "file truncated",
        FrameError::Corrupted => "checksum mismatch",
        FrameError::TooLarge => "frame larger than the limit",
        FrameError::Invalid => "invalid frame",
    }
}

#[cfg(test)]
mod tests;
