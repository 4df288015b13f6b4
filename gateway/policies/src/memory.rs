//! Keeps the records of policies across restarts.
//!
//! They are stored in a file in the folder of compiled plugins, and the plugins and data documents that they name beside
//! it. Each gateway that shares the folder has its own file, named after its admin socket, which stays the same across
//! restarts. A separate thread writes the whole file, so that no policy waits for the disk. Times in it count from the
//! last write, which follows each change, and each second of a canary.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_instant as instant;
use evenkeel_model::PolicyName;
use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments, WRITTEN_AGAIN_WITHIN};
use evenkeel_process::{file, lock};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::record::{self, PluginFiles, PolicyRecord, PolicyRecords};

/// The version of the file format; other versions are not read.
const FORM: u32 = 2;

/// Maximum size of a file, bytes. 16 sets of four hooks with 64 accepted and 16 quarantined revisions each, at 250
/// bytes, and three revisions with settings of 4 KiB each need half of it.
const BYTES_MAX: u64 = 4 << 20;

/// Maximum number of files in the folder, more than the gateways of one machine. The least recently written file is
/// removed first.
const FILES_MAX: usize = 256;

/// A gateway that writes its plugins writes its file within this time.
const ORPHANED_AFTER: Duration = Duration::from_secs(3_600);

/// The head of the file, in each version.
#[derive(Deserialize)]
struct FileHead {
    version: u32,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct FileContent {
    version: u32,
    /// The admin socket of the gateway that wrote the file, only to tell files apart.
    gateway: String,
    policies: Vec<PolicyRecord>,
}

/// The file of records. Dropping it waits until all records are on the disk.
#[derive(Debug)]
pub(super) struct RecordFile {
    /// Records of policies that have not started yet. Those of a policy that never starts are not written again.
    read: Vec<PolicyRecord>,
    plugins: PathBuf,
    shared: Arc<SharedRecords>,
    turns: Sender<WriterMessage>,
    thread: Option<JoinHandle<()>>,
}

/// Stores the record of one policy.
#[derive(Debug)]
pub(super) struct PolicyKeeper {
    shared: Arc<SharedRecords>,
    turns: Sender<WriterMessage>,
}

/// `Err`: the reason for which the records are not on the disk.
type WrittenReply = oneshot::Sender<Result<(), Arc<str>>>;

#[derive(Default, Debug)]
struct SharedRecords {
    records: Mutex<PolicyRecords>,
    /// Callers that wait until the records are on the disk.
    waiting: Mutex<Vec<WrittenReply>>,
    /// A keeper has noted a record. Policies that were only begun are not written.
    has_changed: AtomicBool,
    /// No other process writes the file.
    may_write: AtomicBool,
}

/// A message to the writing thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WriterMessage {
    /// The records may have changed.
    Write,
    /// No further change will come.
    End,
}

impl RecordFile {
    /// Reads this gateway's file in the folder, which only its owner may enter. An unreadable file is moved aside, and
    /// the gateway starts without records.
    pub(super) fn open(
        folder: &Path,
        socket: &Path,
        unwritten: UnwrittenDocuments,
    ) -> io::Result<RecordFile> {
        let folder = folder.join("policies");
        file::create_private_folder(&folder)?;
        let file = RecordPath::of(folder, socket);
        let read = file.read().unwrap_or_else(|found| {
            file.set_aside(&found);
            Vec::new()
        });
        let shared = Arc::default();
        // One pending message is enough: the thread writes the newest records.
        let (turns, told) = bounded(1);
        let (written, plugins) = (read.clone(), file.plugins.clone());
        let writer = RecordWriter { file, shared: Arc::clone(&shared), written, unwritten };
        let thread = std::thread::Builder::new().name("policy memory".into());
        let thread = Some(thread.spawn(move || writer.run(&told))?);
        Ok(RecordFile { read, plugins, shared, turns, thread })
    }

    /// Starts to keep a policy; returns the record of earlier runs, and a keeper for new ones. A file that is missing
    /// or damaged is left out.
    pub(super) fn begin(&mut self, policy: &PolicyName) -> (PolicyRecords, PolicyKeeper) {
        let known = self.read.iter().position(|record| record.policy == *policy);
        let records: Vec<_> = known.map(|at| self.read.swap_remove(at)).into_iter().collect();
        let digests = records.iter().flat_map(PolicyRecord::digests);
        let files = digests.filter_map(|it| Some((Arc::clone(it), self.file(it)?))).collect();
        let records = PolicyRecords { records, files };
        lock(&self.shared.records).extend(records.clone());
        let (shared, turns) = (Arc::clone(&self.shared), self.turns.clone());
        (records, PolicyKeeper { shared, turns })
    }

    fn file(&self, digest: &str) -> Option<Bytes> {
        let paths = [PLUGIN, DOCUMENT].map(|ending| file_name(digest, ending));
        let [path, document] = paths.map(|name| name.map(|name| self.plugins.join(name)));
        let path = document.filter(|path| path.exists()).or(path)?;
        let file = path.display();
        match file::read(&path, BINARY_BYTES_MAX as u64) {
            Ok(bytes) if *record::digest(&bytes) == *digest => Some(bytes.into()),
            Ok(_) => {
                tracing::warn!(%file, "plugin or data document of an earlier run was modified; removed");
                // It is written again once a revision uses it.
                let _ = fs::remove_file(&path);
                None
            }
            Err(error) => {
                tracing::warn!(%file, %error, "plugin or data document of an earlier run cannot be read");
                None
            }
        }
    }

    /// Replies once the records that were noted are on the disk, or with the reason for which they cannot be written.
    pub(super) fn await_written(&self, reply: WrittenReply) {
        lock(&self.shared.waiting).push(reply);
        // A pending message covers this caller as well. Without a reader the reply is dropped with the file.
        let _ = self.turns.try_send(WriterMessage::Write);
    }

    /// Lets records be written. Until then, the process that this one replaces writes the file.
    pub(super) fn begin_writing(&self) {
        self.shared.may_write.store(true, Ordering::Release);
        // As in [`PolicyKeeper::note`].
        let _ = self.turns.try_send(WriterMessage::Write);
    }
}

/// The ending of a plugin's file.
const PLUGIN: &str = "wasm";

/// The ending of a data document's file.
const DOCUMENT: &str = "json";

/// The name of a file; `None` for a text that is no digest.
fn file_name(digest: &str, ending: &str) -> Option<String> {
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| format!("{digest}.{ending}"))
}

impl Drop for RecordFile {
    fn drop(&mut self) {
        // The thread reads messages until this one.
        let _ = self.turns.send(WriterMessage::End);
        self.thread.take().map(JoinHandle::join);
    }
}

impl PolicyKeeper {
    pub(super) fn note(&self, records: PolicyRecords) {
        let mut kept = lock(&self.shared.records);
        kept.extend(records);
        kept.drop_unnamed();
        drop(kept);
        self.shared.has_changed.store(true, Ordering::Release);
        // A pending message covers this note as well. Without a reader the gateway has ended.
        let _ = self.turns.try_send(WriterMessage::Write);
    }
}

struct RecordWriter {
    file: RecordPath,
    shared: Arc<SharedRecords>,
    written: Vec<PolicyRecord>,
    unwritten: UnwrittenDocuments,
}

impl RecordWriter {
    fn run(mut self, told: &Receiver<WriterMessage>) {
        // Unchanged records are not written, since after a failed start some policies are missing.
        let mut result = Ok(());
        loop {
            let turn = match result {
                Ok(()) => told.recv().map_err(RecvTimeoutError::from),
                // A full disk may have space by then.
                Err(_) => told.recv_timeout(WRITTEN_AGAIN_WITHIN),
            };
            match turn {
                Ok(WriterMessage::Write) | Err(RecvTimeoutError::Timeout) => {}
                Ok(WriterMessage::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            let waiting = std::mem::take(&mut *lock(&self.shared.waiting));
            let SharedRecords { has_changed, may_write, .. } = &*self.shared;
            if may_write.load(Ordering::Acquire) && has_changed.load(Ordering::Acquire) {
                result = self.write().map_err(|error| Arc::from(error.to_string()));
            }
            // A caller may have gone.
            waiting.into_iter().for_each(|reply| _ = reply.send(result.clone()));
        }
        if result.is_err() {
            let _ = self.write();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let PolicyRecords { mut records, files } = lock(&self.shared.records).clone();
        records.sort_by(|one, other| one.policy.cmp(&other.policy));
        if records == self.written {
            self.unwritten.note(KeptDocument::Policies, &self.file.path, &Ok(()));
            return Ok(());
        }
        let written = self.file.write(&records, &files);
        self.unwritten.note(KeptDocument::Policies, &self.file.path, &written);
        if written.is_ok() {
            self.written = records;
        }
        written
    }
}

struct RecordPath {
    folder: PathBuf,
    path: PathBuf,
    /// The folder of the plugins and data documents that the file names.
    plugins: PathBuf,
    gateway: String,
}

impl RecordPath {
    fn of(folder: PathBuf, socket: &Path) -> RecordPath {
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let name = file::name_of(&socket);
        let (path, plugins) = (folder.join(format!("{name}.json")), folder.join(name));
        RecordPath { folder, path, plugins, gateway: socket.display().to_string() }
    }

    /// Returns no records if the file does not exist.
    fn read(&self) -> Result<Vec<PolicyRecord>, String> {
        let text = match file::read(&self.path, BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|error| error.to_string())?,
        };
        let damaged = |error: serde_json::Error| error.to_string();
        let FileHead { version } = serde_json::from_slice(&text).map_err(damaged)?;
        if version != FORM {
            return Err(format!("version {version} of it, where {FORM} is read"));
        }
        let read = instant::relative_to(Instant::now(), || serde_json::from_slice(&text));
        read.map(|content: FileContent| content.policies).map_err(damaged)
    }

    fn set_aside(&self, found: &str) {
        let aside = self.path.with_extension("json.damaged");
        // A file that cannot be moved is overwritten.
        let _ = fs::rename(&self.path, &aside);
        let (file, aside) = (self.path.display(), aside.display());
        tracing::warn!(
            %file, %aside, found,
            "file of policies' revisions cannot be read; moved aside, starting without"
        );
    }

    /// Writes the plugins and data documents, then replaces the file atomically, then removes other ones.
    fn write(&self, records: &[PolicyRecord], files: &PluginFiles) -> io::Result<()> {
        file::create_private_folder(&self.plugins)?;
        for (digest, bytes) in files {
            // A document is a JSON object.
            let ending = if bytes.starts_with(b"{") { DOCUMENT } else { PLUGIN };
            let Some(path) = file_name(digest, ending).map(|name| self.plugins.join(name)) else {
                continue;
            };
            if !path.exists() {
                file::replace(&path, bytes)?;
            }
        }
        let (version, gateway, policies) = (FORM, self.gateway.clone(), records.to_vec());
        let content = FileContent { version, gateway, policies };
        let text = instant::relative_to(Instant::now(), || serde_json::to_vec_pretty(&content));
        let mut text = text?;
        text.push(b'\n');
        file::replace(&self.path, &text)?;
        // The next write tries again.
        let _ = self.remove_others(files);
        let _ = file::trim(&self.folder, &self.path, FILES_MAX);
        let _ = self.remove_orphans();
        Ok(())
    }

    /// Removes plugins and data documents that no record names.
    fn remove_others(&self, files: &PluginFiles) -> io::Result<()> {
        for entry in fs::read_dir(&self.plugins)? {
            let path = entry?.path();
            let digest = path.file_stem().and_then(|stem| stem.to_str());
            if !digest.is_some_and(|digest| files.contains_key(digest)) {
                // The next write tries again.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Removes the plugins of gateways whose files are gone.
    fn remove_orphans(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_old = || {
                let modified = fs::metadata(&path).and_then(|facts| facts.modified());
                modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ORPHANED_AFTER))
            };
            if path.is_dir() && !path.with_extension("json").exists() && is_old() {
                // The next write tries again.
                let _ = fs::remove_dir_all(&path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
