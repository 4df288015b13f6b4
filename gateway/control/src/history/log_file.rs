//! The file of records, with one line of JSON for each, and the file before it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use evenkeel_process::file;

use super::record::EndedSession;

/// Maximum size of a file, bytes: 10,000 records.
pub(super) const BYTES_MAX: u64 = 4 << 20;

/// Maximum number of files in the folder, more than two for each gateway of one machine.
const FILES_MAX: usize = 64;

/// A record with the length of its line.
pub(super) type MeasuredRecord = (EndedSession, usize);

#[derive(Clone, Debug)]
pub(super) struct LogFiles {
    folder: PathBuf,
    pub(super) current: PathBuf,
    /// The file before the current one.
    pub(super) previous: PathBuf,
}

impl LogFiles {
    pub(super) fn of(folder: &Path, socket: &Path) -> LogFiles {
        let (folder, name) = (folder.join("history"), file::name_of(socket));
        let at = |ending: &str| folder.join(format!("{name}.{ending}"));
        LogFiles { current: at("jsonl"), previous: at("1.jsonl"), folder }
    }

    /// Opens the file and reads its records and those of the previous file, oldest first. `None`: another process
    /// writes the file.
    pub(super) fn open(&self) -> io::Result<Option<(LogFile, Vec<MeasuredRecord>)>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let Some(file) = open_locked(&self.current)? else {
            return Ok(None);
        };
        let mut records = Vec::new();
        read(&self.previous, &mut records)?;
        let length = read(&self.current, &mut records)?;
        // The next record must not continue a line that was cut.
        file.set_len(length)?;
        // The next start tries again.
        let _ = file::trim(&self.folder, &self.current, FILES_MAX);
        Ok(Some((LogFile { place: self.clone(), file, length }, records)))
    }
}

/// The open file. No other process writes it meanwhile.
#[derive(Debug)]
pub(super) struct LogFile {
    place: LogFiles,
    file: File,
    length: u64,
}

impl LogFile {
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let bytes = lines.len() as u64;
        if self.length > 0 && self.length + bytes > BYTES_MAX {
            self.replace()?;
        }
        let written = self.file.write_all(lines);
        match written {
            Ok(()) => self.length += bytes,
            // A part may have been written. If it cannot be cut off, the next start skips it.
            Err(_) => _ = self.file.set_len(self.length),
        }
        written
    }

    fn replace(&mut self) -> io::Result<()> {
        match fs::rename(&self.place.current, &self.place.previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = open_locked(&self.place.current)?;
        self.file = file.ok_or_else(|| io::Error::other("another process writes it"))?;
        self.length = 0;
        Ok(())
    }
}

fn open_locked(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Adds the records of a file, if it exists. Returns the length of its whole lines.
fn read(path: &Path, records: &mut Vec<MeasuredRecord>) -> io::Result<u64> {
    let bytes = match file::read(path, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let (mut length, mut damaged) = (0, 0_u32);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_whole = line.ends_with(b"\n");
        length += if is_whole { line.len() as u64 } else { 0 };
        match serde_json::from_slice(line) {
            Ok(record) if is_whole => records.push((record, line.len())),
            Ok(_) | Err(_) => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::warn!(file = %path.display(), lines = damaged, "damaged records of ended sessions skipped");
    }
    Ok(length)
}
