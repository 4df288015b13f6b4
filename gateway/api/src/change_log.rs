//! Changes by operators, saved files and rollouts: the newest ones, in memory and in a file that outlives the process.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use evenkeel_process::{file, lock};
use serde_json::{Value, json};

/// Changes that are kept: weeks of a gateway that is operated by hand.
const CHANGES_MAX: usize = 1_024;

/// Bytes of a change; a reload may name a thousand nodes. A longer one is kept without its details.
const CHANGE_BYTES_MAX: usize = 4_096;

/// Bytes of the file.
const BYTES_MAX: u64 = (CHANGES_MAX * CHANGE_BYTES_MAX) as u64;

/// Files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// The events that are changes.
const EVENTS: [&str; 3] = ["reload", "policy", "group"];

/// The newest changes.
#[derive(Default)]
pub(super) struct ChangeLog {
    /// `None`: changes end with the process.
    path: Option<PathBuf>,
    /// Read with the first change, by which the process that this one replaces has written its last ones.
    changes: OnceLock<Mutex<VecDeque<Value>>>,
    /// The contents that wait to be written.
    unwritten: Arc<Mutex<Option<Vec<u8>>>>,
    /// Held by the one writer.
    writing: Arc<Mutex<()>>,
}

impl ChangeLog {
    pub(super) fn of(folder: Option<&Path>, socket: &Path) -> ChangeLog {
        let name = format!("{}.json", file::name_of(socket));
        let path = folder.map(|folder| folder.join("changes").join(name));
        ChangeLog { path, ..ChangeLog::default() }
    }

    fn changes(&self) -> &Mutex<VecDeque<Value>> {
        self.changes.get_or_init(|| {
            let read = |path: &PathBuf| -> io::Result<VecDeque<Value>> {
                Ok(serde_json::from_slice(&file::read(path, 2 * BYTES_MAX)?)?)
            };
            let earlier = match self.path.as_ref().map(read) {
                None => VecDeque::new(),
                Some(Ok(earlier)) => earlier,
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
                Some(Err(error)) => {
                    tracing::warn!(%error, "earlier changes cannot be read");
                    VecDeque::new()
                }
            };
            Mutex::new(earlier)
        })
    }

    /// Keeps an event that is a change.
    pub(super) fn note_event(&self, name: &str, data: &str) {
        if !EVENTS.contains(&name) {
            return;
        }
        let Ok(mut change) = serde_json::from_str::<Value>(data) else { return };
        if data.len() > CHANGE_BYTES_MAX {
            change = json!({"at_us": change["at_us"], "by": change["by"]});
        }
        change["event"] = name.into();
        self.note(change);
    }

    pub(super) fn note(&self, change: Value) {
        let mut changes = lock(self.changes());
        if changes.len() >= CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back(change);
        let Some(path) = self.path.clone() else { return };
        *lock(&self.unwritten) = Some(serde_json::to_vec(&*changes).expect("changes are JSON"));
        let (unwritten, writing) = (Arc::clone(&self.unwritten), Arc::clone(&self.writing));
        // The disk delays no request, and changes that come meanwhile are written together.
        tokio::task::spawn_blocking(move || {
            let _one = lock(&writing);
            let Some(text) = lock(&unwritten).take() else { return };
            if let Err(error) = write(&path, &text) {
                tracing::warn!(file = %path.display(), %error, "changes end with the process");
            }
        });
    }

    /// The changes since a Unix time, newest first.
    pub(super) fn since(&self, since_us: u64) -> Vec<Value> {
        let changes = lock(self.changes());
        let at_us = |change: &&Value| change["at_us"].as_u64().unwrap_or(0);
        changes.iter().rev().filter(|change| at_us(change) >= since_us).cloned().collect()
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    file::replace(path, text)?;
    // The next change tries again.
    let _ = file::trim(folder, path, FILES_MAX);
    Ok(())
}
