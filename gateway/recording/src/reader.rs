//! A recording from its beginning to its end, or to where it breaks off.

use std::collections::VecDeque;

use crate::chunk;
use crate::frame::{self, Broken, FORMAT, Kind, MAGIC};
use crate::header::Header;
use crate::record::Record;
use crate::wire::Malformed;

/// Goes through the records of a recording, in the order in which they were written down. One chunk is unpacked at a
/// time: at most 16 MiB, and 256 MiB once states that many rows share are written out.
///
/// Where the bytes break off, or are not those that were written, it gives all that comes before and ends;
/// [`Reader::lost`] says then what is missing.
pub struct Reader<'a> {
    header: Header,
    rest: &'a [u8],
    total: usize,
    chunks: usize,
    waiting: VecDeque<Record>,
    end: Option<Result<(), Lost>>,
}

/// Bytes that are no recording, or none that can be read here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// They do not begin as recordings do.
    NotARecording,
    /// They begin as recordings do, but what follows was changed on its way, as by a transfer as text.
    Mangled,
    /// A newer version of the gateway wrote them.
    Newer {
        /// Their format.
        found: u16,
        /// The newest that is read here.
        read: u16,
    },
    /// Where they are from cannot be read.
    Header(Box<str>),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unreadable::NotARecording => f.write_str(
                "this is no recording: expected a file that `evenkeel policy record` wrote",
            ),
            Unreadable::Mangled => f.write_str(
                "this was a recording, and was transferred or saved as text: copy it again, as it is",
            ),
            Unreadable::Newer { found, read } => write!(
                f,
                "this recording has format {found}, and formats up to {read} are read here: take the evenkeel that wrote it, or a newer one"
            ),
            Unreadable::Header(said) => {
                write!(f, "the beginning of this recording is broken: {said}")
            }
        }
    }
}

impl std::error::Error for Unreadable {}

/// What of a recording cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Chunks before it, all of which were read.
    pub chunks: usize,
    /// Where it begins, bytes from the beginning of the file.
    pub at: usize,
    /// Bytes from there to the end.
    pub bytes: usize,
    /// Why it cannot be read.
    pub why: Box<str>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Lost { chunks, at, bytes, why } = self;
        let plural = if *chunks == 1 { "" } else { "s" };
        write!(f, "{chunks} chunk{plural} read; from byte {at} on {bytes} bytes are lost: {why}")
    }
}

impl<'a> Reader<'a> {
    /// Begins to read.
    ///
    /// # Errors
    /// Where the bytes are no recording, or a newer one.
    pub fn open(bytes: &'a [u8]) -> Result<Reader<'a>, Unreadable> {
        let Some((magic, rest)) = bytes.split_at_checked(MAGIC.len()) else {
            return Err(Unreadable::NotARecording);
        };
        if magic != MAGIC {
            let is_text = magic[1..].starts_with(&MAGIC[1..4]) || magic.starts_with(&MAGIC[1..4]);
            return Err(if is_text { Unreadable::Mangled } else { Unreadable::NotARecording });
        }
        let cut_off = || Unreadable::Header("it ends there".into());
        let (format, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let found = u16::from_le_bytes(*format);
        if found > FORMAT {
            return Err(Unreadable::Newer { found, read: FORMAT });
        }
        if found == 0 {
            return Err(Unreadable::Header("format 0, which there never was".into()));
        }
        let (kind, payload, rest) =
            frame::read(rest).map_err(|broken| Unreadable::Header(said(broken).into()))?;
        if kind != Kind::Header {
            return Err(Unreadable::Header("it does not say where it is from".into()));
        }
        let unreadable = |error: Malformed| Unreadable::Header(error.to_string().into());
        let header = Header::read(&payload).map_err(unreadable)?;
        let (waiting, total) = (VecDeque::new(), bytes.len());
        Ok(Reader { header, rest, total, chunks: 0, waiting, end: None })
    }

    /// Where it is from.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What cannot be read, once there are no more records.
    pub fn lost(&self) -> Option<&Lost> {
        self.end.as_ref()?.as_ref().err()
    }

    /// The next chunk, if there is one.
    fn advance(&mut self) {
        if self.rest.is_empty() {
            self.end = Some(Err(self.lost_here("it ends without its last piece")));
            return;
        }
        match frame::read(self.rest) {
            Ok((Kind::Records, payload, rest)) => match chunk::unpacked(&payload) {
                Ok(records) => {
                    self.waiting = records.into();
                    self.rest = rest;
                    self.chunks += 1;
                }
                Err(error) => self.end = Some(Err(self.lost_here(&error.to_string()))),
            },
            Ok((Kind::End, _, [])) => self.end = Some(Ok(())),
            Ok((Kind::End, _, rest)) => {
                self.rest = rest;
                self.end = Some(Err(self.lost_here("more follows its end")));
            }
            Ok((Kind::Header, ..)) => {
                self.end = Some(Err(self.lost_here("another recording begins there")));
            }
            Err(broken) => self.end = Some(Err(self.lost_here(said(broken)))),
        }
    }

    fn lost_here(&self, why: &str) -> Lost {
        let bytes = self.rest.len();
        Lost { chunks: self.chunks, at: self.total - bytes, bytes, why: why.into() }
    }
}

impl Iterator for Reader<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        while self.waiting.is_empty() && self.end.is_none() {
            self.advance();
        }
        self.waiting.pop_front()
    }
}

fn said(broken: Broken) -> &'static str {
    match broken {
        Broken::CutOff => "the file is cut off there",
        Broken::Corrupted => "what is there is not what was written: the checksum does not match",
        Broken::TooLarge => "what is there says that it is larger than any piece is",
        Broken::Unpackable => "what is there is no piece of a recording",
    }
}
