//! Sessions that are open, on the disk: a process that is killed writes no record of their ends, so the next one does.
//!
//! The file has a line for each session that opened, and one for each that ended. Its time of modification is the last
//! moment at which the process is known to have lived.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use evenkeel_model::IdSet;
use evenkeel_process::{file, unix_us};
use serde::{Deserialize, Serialize};

/// The file is written anew once it has so many lines more than two for each open session.
const REWRITTEN_FROM: usize = 4_096;

/// Maximum size, bytes: 200,000 open sessions at 500 bytes, and as many that ended.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A session that is open.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct OpenSession {
    pub(crate) id: Box<str>,
    pub(crate) gateway: Box<str>,
    pub(crate) room: Box<str>,
    pub(crate) scenario: Box<str>,
    pub(crate) ingress: Box<str>,
    pub(crate) mode: Box<str>,
    pub(crate) offered_us: u64,
    pub(crate) admitted_by: Box<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OpenLine {
    Opened(OpenSession),
    Ended(Box<str>),
    /// The next free number of a session, in a file that was written anew.
    Next(u64),
}

impl OpenLine {
    fn encode(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a line is text and numbers");
        line.push(b'\n');
        line
    }
}

/// Sessions that were open when the last process of this gateway ended without closing them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeftSessions {
    /// They ended with it.
    Ended,
    /// This process has them.
    Continue,
    /// The other gateway of the group may have them.
    Elsewhere,
}

/// The file, of the one process that writes it.
#[derive(Debug)]
pub(super) struct OpenSessions {
    path: PathBuf,
    file: File,
    lines: usize,
    /// The numbers of sessions that are open.
    open: IdSet<u64>,
}

impl OpenSessions {
    /// Reads the file. Returns the sessions that go on, to open it with, and those that ended with their process.
    pub(super) fn read(
        path: &Path,
        left: LeftSessions,
    ) -> io::Result<(Contents, Vec<OpenSession>)> {
        let mut contents = Contents::read(path)?;
        let gone = match left {
            LeftSessions::Continue => BTreeMap::new(),
            LeftSessions::Ended | LeftSessions::Elsewhere => std::mem::take(&mut contents.open),
        };
        let died = gone.into_values().filter(|_| left == LeftSessions::Ended);
        Ok((contents, died.collect()))
    }

    /// Removes the file.
    pub(super) fn discard(self) {
        // Fails as the write before it did.
        let _ = fs::remove_file(self.path);
    }

    /// Adds sessions that opened, and removes sessions that ended and whose records are written.
    pub(super) fn note<'a>(
        &mut self,
        opened: impl Iterator<Item = OpenSession>,
        ended: impl Iterator<Item = &'a str>,
    ) -> io::Result<()> {
        let mut lines = Vec::new();
        for session in opened {
            self.open.insert(number(&session.id));
            self.lines += 1;
            lines.extend(OpenLine::Opened(session).encode());
        }
        for id in ended {
            if self.open.remove(number(id)) {
                self.lines += 1;
                lines.extend(OpenLine::Ended(id.into()).encode());
            }
        }
        self.file.write_all(&lines)?;
        let needed = self.open.len();
        if self.lines > 2 * needed + REWRITTEN_FROM { self.rewrite() } else { Ok(()) }
    }

    /// Notes that the process lives. Without an open session nothing needs to know.
    pub(super) fn note_life(&self) -> io::Result<()> {
        if self.open.is_empty() { Ok(()) } else { self.file.set_modified(SystemTime::now()) }
    }

    /// Replaces the file by one that has lines of open sessions only.
    fn rewrite(&mut self) -> io::Result<()> {
        let contents = Contents::read(&self.path)?;
        contents.write(&self.path)?;
        (self.file, self.lines) = (file::append(&self.path)?, contents.open.len());
        Ok(())
    }
}

/// The number of a session's id; 0 for another text.
fn number(id: &str) -> u64 {
    id.strip_prefix('s').and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The file as it is read.
#[derive(Default, Debug)]
pub(super) struct Contents {
    /// By number.
    open: BTreeMap<u64, OpenSession>,
    /// The next free number of a session.
    pub(super) next: u64,
    lived_us: u64,
}

impl Contents {
    /// Reads the file, if it exists. A line that was cut is skipped.
    pub(super) fn read(path: &Path) -> io::Result<Contents> {
        let bytes = match file::read(path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Contents::default());
            }
            read => read?,
        };
        let lived_us = unix_us(fs::metadata(path)?.modified()?);
        let mut contents = Contents { lived_us, ..Contents::default() };
        for line in bytes.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(OpenLine::Opened(session)) => {
                    let number = number(&session.id);
                    contents.next = contents.next.max(number + 1);
                    contents.open.insert(number, session);
                }
                Ok(OpenLine::Ended(id)) => _ = contents.open.remove(&number(&id)),
                Ok(OpenLine::Next(next)) => contents.next = contents.next.max(next),
                Err(_) => {}
            }
        }
        Ok(contents)
    }

    /// Unix time in microseconds of the last sign of life of the process that wrote the file.
    pub(super) fn lived_us(&self) -> u64 {
        self.lived_us
    }

    /// Replaces the file, which no other process writes, by one with these sessions.
    pub(super) fn open(self, path: &Path) -> io::Result<OpenSessions> {
        self.write(path)?;
        let (path, lines) = (path.to_owned(), self.open.len());
        let open = self.open.into_keys().collect();
        Ok(OpenSessions { file: file::append(&path)?, path, lines, open })
    }

    /// Replaces the file by one with these sessions.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut lines = OpenLine::Next(self.next).encode();
        for session in self.open.values() {
            lines.extend(OpenLine::Opened(session.clone()).encode());
        }
        file::replace(path, &lines)
    }
}

#[cfg(test)]
pub(super) mod tests;
