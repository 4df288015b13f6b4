//! The record of past drills: one line of JSON each, newest last.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{DrillError, DrillReport};

/// `$XDG_STATE_HOME/evenkeel/drills.jsonl`, else `~/.local/state/evenkeel/drills.jsonl` (XDG base directories).
pub fn default_place() -> PathBuf {
    let named = |key| std::env::var_os(key).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || named("HOME").unwrap_or_else(|| PathBuf::from("/var/lib")).join(".local/state");
    named("XDG_STATE_HOME").unwrap_or_else(home).join("evenkeel/drills.jsonl")
}

/// A file of reports, one JSON object per line.
#[derive(Clone, Debug)]
pub struct DrillRecordFile(PathBuf);

impl DrillRecordFile {
    /// The file need not exist.
    pub fn at(place: PathBuf) -> DrillRecordFile {
        DrillRecordFile(place)
    }

    /// The file's path.
    pub fn place(&self) -> &Path {
        &self.0
    }

    /// Appends a report.
    pub fn add(&self, report: &DrillReport) -> Result<(), DrillError> {
        let add = || -> io::Result<()> {
            if let Some(folder) = self.0.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut line = serde_json::to_vec(report)?;
            line.push(b'\n');
            OpenOptions::new().create(true).append(true).open(&self.0)?.write_all(&line)
        };
        add().map_err(|error| DrillError::Record(self.0.clone(), error))
    }

    /// All reports, newest last. The list is empty if the file is missing. A truncated line is skipped.
    pub fn all(&self) -> Result<Vec<Value>, DrillError> {
        match fs::read_to_string(&self.0) {
            Ok(text) => {
                Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(DrillError::Record(self.0.clone(), error)),
        }
    }
}
