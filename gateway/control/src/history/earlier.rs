//! The files of versions without tables of sessions. They are read once.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use evenkeel_contract::sessions::EndedSession;
use evenkeel_model::IdSet;
use evenkeel_process::{file, unix_us};
use serde::Deserialize;

use super::ended::RECORDS_MAX;
use super::open::{LeftSessions, OpenSession, number};

/// The newest bytes that are read of a file of ended sessions: 10,000 records.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Maximum length of a line of open sessions, bytes: six names of 256 bytes, each of which may be written as `\u0000`. The file may have
/// any length, and is read line by line.
const LINE_MAX: u64 = 16 << 10;

/// The files of this gateway.
#[derive(Debug)]
pub(super) struct EarlierFiles {
    /// A line for each ended session, locked by the process that writes it.
    current: PathBuf,
    /// The file before the current one.
    previous: PathBuf,
    /// A line for each session that opened, and one for each that ended. Its time of modification is the last moment at which the process is
    /// known to have lived.
    open: PathBuf,
    /// The files that were read, which are moved aside once the database has them.
    read: Vec<PathBuf>,
}

/// The content of the files.
#[derive(Default, Debug)]
pub(super) struct EarlierRecords {
    /// Oldest first.
    pub(super) ended: Vec<EndedSession>,
    /// The sessions without an end, in the order in which they opened.
    pub(super) open: Vec<OpenSession>,
    /// Unix time in microseconds.
    pub(super) lived_us: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OpenLine {
    Opened(OpenSession),
    Ended(Box<str>),
}

impl EarlierFiles {
    pub(super) fn of(folder: &Path, socket: &Path) -> EarlierFiles {
        let (folder, name) = (folder.join("history"), file::name_of(socket));
        let at = |ending: &str| folder.join(format!("{name}.{ending}"));
        let (current, previous, open) = (at("jsonl"), at("1.jsonl"), at("open"));
        EarlierFiles { current, previous, open, read: Vec::new() }
    }

    /// Reads the files. `None`: another process writes them. A file that cannot be read is reported.
    pub(super) fn read(&mut self, left: LeftSessions) -> Option<EarlierRecords> {
        self.read.clear();
        let current = file::open(&self.current);
        if let Ok(Err(TryLockError::WouldBlock)) = current.as_ref().map(File::try_lock) {
            return None;
        }
        let mut records = EarlierRecords::default();
        for path in [self.previous.clone(), self.current.clone()] {
            let read = read_ended(&path, &mut records.ended);
            self.note(path, read);
        }
        let read = self.read_open(left, &mut records);
        self.note(self.open.clone(), read);
        Some(records)
    }

    fn note(&mut self, path: PathBuf, read: io::Result<()>) {
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "file of an earlier version cannot be read; continuing without");
            }
            Ok(()) => {}
        }
        self.read.push(path);
    }

    /// Reads the newest sessions that have ended, or all that continue.
    fn read_open(&self, left: LeftSessions, records: &mut EarlierRecords) -> io::Result<()> {
        let lines = OpenLines::read(&self.open)?;
        records.lived_us = unix_us(fs::metadata(&self.open)?.modified()?);
        // There may be hundreds of thousands, so that the first turn keeps numbers.
        let mut open = IdSet::default();
        for line in lines {
            match line? {
                OpenLine::Opened(session) => _ = open.insert(number(&session.id)),
                OpenLine::Ended(id) => _ = open.remove(number(&id)),
            }
        }
        let older = match left {
            LeftSessions::Ended => open.len().saturating_sub(RECORDS_MAX),
            LeftSessions::Continue => 0,
            LeftSessions::Elsewhere => return Ok(()),
        };
        let sessions = OpenLines::read(&self.open)?.filter_map(|line| match line {
            Ok(OpenLine::Opened(session)) => {
                open.contains(number(&session.id)).then_some(Ok(session))
            }
            Ok(OpenLine::Ended(_)) => None,
            Err(error) => Some(Err(error)),
        });
        records.open = sessions.skip(older).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// The database has the content of the files.
    pub(super) fn move_aside(&mut self, database: &Path) {
        let read = std::mem::take(&mut self.read);
        read.iter().for_each(|path| evenkeel_kept::move_aside(path, database));
    }
}

/// Adds the newest records of a file.
fn read_ended(path: &Path, records: &mut Vec<EndedSession>) -> io::Result<()> {
    let mut file = file::open(path)?;
    // Some versions wrote longer files.
    let skipped = file.metadata()?.len().saturating_sub(FILE_BYTES_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let cut = bytes.iter().position(|byte| *byte == b'\n').filter(|_| skipped > 0);
    let mut damaged = 0_u32;
    for line in bytes[cut.map_or(0, |at| at + 1)..].split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice::<EndedSession>(line) {
            Ok(record) if line.ends_with(b"\n") && !record.id.is_empty() => records.push(record),
            Ok(_) | Err(_) => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::warn!(file = %path.display(), lines = damaged, "damaged records of ended sessions skipped");
    }
    Ok(())
}

/// The lines of the file of open sessions, without those that were cut or damaged.
struct OpenLines {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl OpenLines {
    fn read(path: &Path) -> io::Result<OpenLines> {
        Ok(OpenLines { file: BufReader::new(file::open(path)?), line: Vec::new() })
    }
}

impl Iterator for OpenLines {
    type Item = io::Result<OpenLine>;

    fn next(&mut self) -> Option<io::Result<OpenLine>> {
        loop {
            self.line.clear();
            let mut line = (&mut self.file).take(LINE_MAX);
            match line.read_until(b'\n', &mut self.line) {
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
mod tests;
