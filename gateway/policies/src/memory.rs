//! Keeps quarantined and accepted revisions across restarts.
//!
//! They are stored in a file in the folder of compiled plugins. Each gateway that shares the folder has its own file,
//! named after its admin socket, which stays the same across restarts. A separate thread writes the whole file, so that
//! no policy waits for the disk.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use evenkeel_model::PolicyName;
use evenkeel_process::{file, lock};
use evenkeel_revisions::Remembered;
use serde::{Deserialize, Serialize};

/// The version of the file format; other versions are not read.
const FORM: u32 = 1;

/// Maximum size of a file, bytes. 16 sets of four hooks with 64 accepted and 16 quarantined revisions each, at 250
/// bytes, need a third of it.
const BYTES_MAX: u64 = 4 << 20;

/// Maximum number of files in the folder, more than the gateways of one machine. The least recently written file is
/// removed first.
const FILES_MAX: usize = 256;

/// Keyed by policy name.
type Notes = BTreeMap<String, Remembered>;

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct Book {
    version: u32,
    /// The admin socket of the gateway that wrote the file, only to tell files apart.
    gateway: String,
    policies: Notes,
}

/// The file of facts. Dropping it waits until all facts are on the disk.
#[derive(Debug)]
pub(super) struct FactFile {
    /// Facts about policies that have not started yet. Those of a policy that never starts are not written again.
    read: Notes,
    shared: Arc<SharedNotes>,
    turns: Sender<WriterMessage>,
    thread: Option<JoinHandle<()>>,
}

/// Stores the facts about one policy.
#[derive(Debug)]
pub(super) struct PolicyKeeper {
    policy: String,
    shared: Arc<SharedNotes>,
    turns: Sender<WriterMessage>,
}

#[derive(Default, Debug)]
struct SharedNotes {
    notes: Mutex<Notes>,
    /// A keeper has noted facts. Policies that were only begun are not written.
    has_facts: AtomicBool,
}

/// A message to the writing thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WriterMessage {
    /// No other process writes the file from here on.
    Begin,
    /// The notes have changed.
    Write,
    /// No further change will come.
    End,
}

impl FactFile {
    /// Reads this gateway's file in the folder, which only its owner may enter. An unreadable file is moved aside, and
    /// the gateway starts without facts.
    pub(super) fn open(folder: &Path, socket: &Path) -> io::Result<FactFile> {
        let folder = folder.join("policies");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let file = FactPath::of(folder, socket);
        let read = file.read().unwrap_or_else(|found| {
            file.set_aside(&found);
            Notes::new()
        });
        let shared = Arc::default();
        // One pending message is enough: the thread writes the newest facts.
        let (turns, told) = bounded(1);
        let written = read.clone();
        let writer = FactWriter { file, shared: Arc::clone(&shared), written };
        let thread = std::thread::Builder::new().name("policy memory".into());
        let thread = Some(thread.spawn(move || writer.run(&told))?);
        Ok(FactFile { read, shared, turns, thread })
    }

    /// Starts to keep a policy; returns the facts of earlier runs, and a keeper for new ones.
    pub(super) fn begin(&mut self, policy: &PolicyName) -> (Remembered, PolicyKeeper) {
        let policy = policy.to_string();
        let remembered = self.read.remove(&policy).unwrap_or_default();
        lock(&self.shared.notes).insert(policy.clone(), remembered.clone());
        let shared = Arc::clone(&self.shared);
        (remembered, PolicyKeeper { policy, shared, turns: self.turns.clone() })
    }

    /// Lets the facts be written. Until then, the process that this one replaces writes the file.
    pub(super) fn begin_writing(&self) {
        // Fails only if the thread has ended.
        let _ = self.turns.send(WriterMessage::Begin);
    }
}

impl Drop for FactFile {
    fn drop(&mut self) {
        // The thread reads messages until this one.
        let _ = self.turns.send(WriterMessage::End);
        self.thread.take().map(JoinHandle::join);
    }
}

impl PolicyKeeper {
    pub(super) fn note(&self, remembered: Remembered) {
        lock(&self.shared.notes).insert(self.policy.clone(), remembered);
        self.shared.has_facts.store(true, Ordering::Release);
        // A pending message covers this note as well. Without a reader the gateway has ended.
        let _ = self.turns.try_send(WriterMessage::Write);
    }
}

struct FactWriter {
    file: FactPath,
    shared: Arc<SharedNotes>,
    written: Notes,
}

impl FactWriter {
    fn run(mut self, told: &Receiver<WriterMessage>) {
        // Unchanged facts are not written, since after a failed start some policies are missing.
        let (mut begun, mut failed) = (false, false);
        for turn in told.iter().take_while(|turn| *turn != WriterMessage::End) {
            begun |= turn == WriterMessage::Begin;
            if begun && self.shared.has_facts.load(Ordering::Acquire) {
                failed = self.write().is_err();
            }
        }
        if failed {
            // A full disk may have space by now.
            let _ = self.write();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let notes = lock(&self.shared.notes).clone();
        if notes == self.written {
            return Ok(());
        }
        let written = self.file.write(&notes);
        match &written {
            Ok(()) => self.written = notes,
            Err(error) => {
                let file = self.file.path.display();
                tracing::warn!(%file, %error, "quarantined and accepted revisions are not kept beyond a restart");
            }
        }
        written
    }
}

struct FactPath {
    folder: PathBuf,
    path: PathBuf,
    gateway: String,
}

impl FactPath {
    fn of(folder: PathBuf, socket: &Path) -> FactPath {
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let path = folder.join(format!("{}.json", file::name_of(&socket)));
        FactPath { folder, path, gateway: socket.display().to_string() }
    }

    /// Returns no notes if the file does not exist.
    fn read(&self) -> Result<Notes, String> {
        let text = match file::read(&self.path, BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Notes::new()),
            read => read.map_err(|error| error.to_string())?,
        };
        let book: Book = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        match book.version {
            FORM => Ok(book.policies),
            other => Err(format!("version {other} of it, where {FORM} is read")),
        }
    }

    fn set_aside(&self, found: &str) {
        let aside = self.path.with_extension("json.damaged");
        // A file that cannot be moved is overwritten.
        let _ = fs::rename(&self.path, &aside);
        let (file, aside) = (self.path.display(), aside.display());
        tracing::warn!(
            %file, %aside, found,
            "file of quarantined and accepted revisions cannot be read; moved aside, starting without"
        );
    }

    /// Replaces the file atomically.
    fn write(&self, notes: &Notes) -> io::Result<()> {
        let (version, gateway, policies) = (FORM, self.gateway.clone(), notes.clone());
        let mut text = serde_json::to_vec_pretty(&Book { version, gateway, policies })?;
        text.push(b'\n');
        let unfinished = self.path.with_extension(format!("{}.new", std::process::id()));
        let written =
            write_whole(&unfinished, &text).and_then(|()| fs::rename(&unfinished, &self.path));
        if written.is_err() {
            // The file may not exist.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        File::open(&self.folder)?.sync_all()?;
        // The next write tries again.
        let _ = file::trim(&self.folder, &self.path, FILES_MAX);
        Ok(())
    }
}

/// The file is on the disk when this function returns.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
