//! Sessions that are open, on the disk: a process that is killed writes no record of their ends, so the next one does.
//!
//! The file has a line for each session that opened, and one for each that ended. Its time of modification is the last
//! moment at which the process is known to have lived.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use evenkeel_model::{IdSet, SessionId};
use evenkeel_process::{file, unix_us};
use serde::{Deserialize, Serialize};

/// The file is written anew once it has so many lines more than two for each open session.
const REWRITTEN_FROM: usize = 4_096;

/// Maximum length of a line, bytes: six names of 256 bytes, each of which may be written as `\u0000`. The file may have any length,
/// and is read line by line.
const LINE_MAX: u64 = 16 << 10;

/// Maximum size of the lines that wait while the disk takes none, bytes: those of 50,000 sessions.
const UNWRITTEN_MAX: usize = 16 << 20;

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
    /// Bytes of the file.
    length: u64,
    lines: usize,
    /// Lines that could not be written yet.
    unwritten: Vec<u8>,
    /// The file at the path is another one.
    is_moved: bool,
    /// The numbers of sessions that are open.
    open: IdSet<u64>,
}

impl OpenSessions {
    /// Opens the file, which no other process writes, with the sessions that continue.
    pub(super) fn open(
        path: &Path,
        mut sessions: SessionsLeft,
        left: LeftSessions,
    ) -> io::Result<OpenSessions> {
        if left != LeftSessions::Continue {
            sessions.open = IdSet::default();
        }
        sessions.write(path)?;
        let (path, lines, open) = (path.to_owned(), sessions.open.len(), sessions.open);
        let file = file::append(&path)?;
        let (length, unwritten) = (file.metadata()?.len(), Vec::new());
        Ok(OpenSessions { path, file, length, lines, unwritten, is_moved: false, open })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file lacks changes that will not be written.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_moved || self.unwritten.len() > UNWRITTEN_MAX
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
        for session in opened {
            self.open.insert(number(&session.id));
            self.lines += 1;
            self.unwritten.extend(OpenLine::Opened(session).encode());
        }
        for id in ended {
            if self.open.remove(number(id)) {
                self.lines += 1;
                self.unwritten.extend(OpenLine::Ended(id.into()).encode());
            }
        }
        self.write()
    }

    /// Notes that the process lives. Without an open session nothing needs to know.
    pub(super) fn note_life(&mut self) -> io::Result<()> {
        self.write()?;
        if self.open.is_empty() { Ok(()) } else { self.file.set_modified(SystemTime::now()) }
    }

    fn write(&mut self) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&self.unwritten) {
            // A part may have been written. If it cannot be cut off, its last line is skipped.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += self.unwritten.len() as u64;
        self.unwritten.clear();
        let needed = self.open.len();
        if self.lines > 2 * needed + REWRITTEN_FROM { self.rewrite() } else { Ok(()) }
    }

    /// Replaces the file by one that has lines of open sessions only.
    fn rewrite(&mut self) -> io::Result<()> {
        self.lines = self.open.len();
        let replaced = SessionsLeft::read(&self.path).and_then(|left| left.write(&self.path));
        if replaced.is_err() {
            // The longer file serves until it has as many lines again.
            return Ok(());
        }
        let file = file::append(&self.path);
        self.is_moved = file.is_err();
        self.file = file?;
        self.length = self.file.metadata()?.len();
        Ok(())
    }
}

/// The number of a session's id; 0 for another text.
fn number(id: &str) -> u64 {
    SessionId::parse(id).map_or(0, |session| session.0)
}

/// The sessions that the file leaves open. They stay in the file, since there may be hundreds of thousands.
#[derive(Default, Debug)]
pub(super) struct SessionsLeft {
    /// Their numbers.
    open: IdSet<u64>,
    lived_us: u64,
}

impl SessionsLeft {
    /// Reads the file, if it exists. A line that was cut is skipped.
    pub(super) fn read(path: &Path) -> io::Result<SessionsLeft> {
        let mut left = SessionsLeft::default();
        for line in OpenLines::read(path)? {
            match line? {
                OpenLine::Opened(session) => {
                    left.open.insert(number(&session.id));
                }
                OpenLine::Ended(id) => _ = left.open.remove(number(&id)),
            }
        }
        left.lived_us = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            facts => unix_us(facts?.modified()?),
        };
        Ok(left)
    }

    /// Unix time in microseconds of the last sign of life of the process that wrote the file.
    pub(super) fn lived_us(&self) -> u64 {
        self.lived_us
    }

    /// The sessions, in the order in which they opened.
    fn sessions(&self, path: &Path) -> io::Result<impl Iterator<Item = io::Result<OpenSession>>> {
        let is_open = |session: &OpenSession| self.open.contains(number(&session.id));
        Ok(OpenLines::read(path)?.filter_map(move |line| match line {
            Ok(OpenLine::Opened(session)) => is_open(&session).then_some(Ok(session)),
            Ok(OpenLine::Ended(_)) => None,
            Err(error) => Some(Err(error)),
        }))
    }

    /// The newest sessions that ended with their process, oldest first.
    pub(super) fn died(
        &self,
        path: &Path,
        left: LeftSessions,
        at_most: usize,
    ) -> io::Result<impl Iterator<Item = io::Result<OpenSession>>> {
        let died = (left == LeftSessions::Ended).then(|| self.sessions(path)).transpose()?;
        let older = self.open.len().saturating_sub(at_most);
        Ok(died.into_iter().flatten().skip(older))
    }

    /// Replaces the file by one with these sessions.
    fn write(&self, path: &Path) -> io::Result<()> {
        file::replace_in_parts(path, |file| {
            for session in self.sessions(path)? {
                file.write_all(&OpenLine::Opened(session?).encode())?;
            }
            Ok(())
        })
    }
}

/// The lines of the file, without those that were cut or damaged.
struct OpenLines {
    /// `None`: there is no file.
    file: Option<BufReader<File>>,
    line: Vec<u8>,
}

impl OpenLines {
    fn read(path: &Path) -> io::Result<OpenLines> {
        let file = match file::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(BufReader::new(opened?)),
        };
        Ok(OpenLines { file, line: Vec::new() })
    }
}

impl Iterator for OpenLines {
    type Item = io::Result<OpenLine>;

    fn next(&mut self) -> Option<io::Result<OpenLine>> {
        let file = self.file.as_mut()?;
        loop {
            self.line.clear();
            match file.take(LINE_MAX).read_until(b'\n', &mut self.line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if let Ok(line) = serde_json::from_slice(&self.line) {
                return Some(Ok(line));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
