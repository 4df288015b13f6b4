//! Changes by operators, saved files and rollouts, in a file that outlives the process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use evenkeel_contract::operations::{Change, RequestChange};
use evenkeel_control::ChangeRecord;
use evenkeel_group::ChangeList;
use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments, WRITTEN_AGAIN_WITHIN};
use evenkeel_process::{file, lock};
use serde_json::{Value, json};

/// Bytes of a change; a reload may name a thousand nodes. A longer one is kept without its details.
const CHANGE_BYTES_MAX: usize = 4_096;

/// Bytes of the file: more than those of all changes in the list.
const BYTES_MAX: u64 = 8 << 20;

/// Files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// The events that are changes.
const EVENTS: [&str; 3] = ["reload", "policy", "group"];

/// The list of changes, with its file.
pub(super) struct ChangeLog {
    /// `None`: changes end with the process.
    path: Option<PathBuf>,
    list: Arc<ChangeList>,
    /// The file is read with the first change, by which the process that this one replaces has written its last ones.
    reading: Once,
    /// The contents that wait to be written.
    unwritten: Arc<Mutex<Option<Vec<u8>>>>,
    /// Held by the one writer.
    writing: Arc<Mutex<()>>,
    failures: UnwrittenDocuments,
}

impl ChangeLog {
    pub(super) fn of(
        folder: Option<&Path>,
        socket: &Path,
        list: Arc<ChangeList>,
        failures: UnwrittenDocuments,
    ) -> ChangeLog {
        let name = format!("{}.json", file::name_of(socket));
        let path = folder.map(|folder| folder.join("changes").join(name));
        let (reading, unwritten, writing) = (Once::new(), Arc::default(), Arc::default());
        ChangeLog { path, list, reading, unwritten, writing, failures }
    }

    fn list(&self) -> &ChangeList {
        self.reading.call_once(|| {
            let read = |path: &PathBuf| -> io::Result<Vec<Value>> {
                Ok(serde_json::from_slice(&file::read(path, BYTES_MAX)?)?)
            };
            match self.path.as_ref().map(read) {
                None => {}
                Some(Ok(earlier)) => self.list.add(earlier.iter().map(record)),
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Some(Err(error)) => tracing::warn!(%error, "earlier changes cannot be read"),
            }
        });
        &self.list
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
        self.note(&change);
    }

    /// Keeps a request that changed something.
    pub(super) fn note_request(&self, change: &RequestChange) {
        let change = serde_json::to_value(change).expect("words and numbers");
        self.note(&change);
    }

    fn note(&self, change: &Value) {
        self.list().add([record(change)]);
        self.write();
    }

    /// Writes the file after changes of the group's owner came.
    pub(super) async fn follow_copies(self: Arc<Self>) {
        loop {
            self.list.copied().await;
            self.write();
        }
    }

    fn write(&self) {
        let Some(path) = self.path.clone() else { return };
        let texts: Vec<_> = self.list().since(0).into_iter().map(|change| change.text).collect();
        *lock(&self.unwritten) = Some(format!("[{}]", texts.join(",")).into_bytes());
        let (unwritten, writing) = (Arc::clone(&self.unwritten), Arc::clone(&self.writing));
        let failures = self.failures.clone();
        // The disk delays no request, and changes that come meanwhile are written together.
        tokio::task::spawn_blocking(move || {
            let _one = lock(&writing);
            let Some(text) = lock(&unwritten).take() else { return };
            let written = write(&path, &text);
            failures.note(KeptDocument::Changes, &path, &written);
            if written.is_err() {
                // Unless later changes came.
                lock(&unwritten).get_or_insert(text);
            }
        });
    }

    /// Writes the file again after a failure. Ends with the API.
    pub(super) async fn repeat(self: Arc<Self>) {
        let mut every = tokio::time::interval(WRITTEN_AGAIN_WITHIN);
        loop {
            every.tick().await;
            if lock(&self.unwritten).is_some() {
                self.write();
            }
        }
    }

    /// The changes since a Unix time, newest first.
    pub(super) fn since(&self, since_us: u64) -> Vec<Change> {
        let changes = self.list().since(since_us).into_iter().rev();
        changes.filter_map(|change| serde_json::from_str(&change.text).ok()).collect()
    }
}

fn record(change: &Value) -> ChangeRecord {
    let at_us = change["at_us"].as_u64().unwrap_or(0);
    ChangeRecord { at_us, text: change.to_string().into() }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    file::replace(path, text)?;
    // The next change tries again.
    let _ = file::trim(folder, path, FILES_MAX);
    Ok(())
}
