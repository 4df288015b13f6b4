//! What is remembered of revisions beyond the life of a process: which did harm, and which were good.
//!
//! A file in the folder where compiled plugins are kept. Gateways that share that folder have one each, named after the
//! socket at which they are administered, which is the same after a restart. It is written whole, by a thread of its own: no
//! policy waits for a disk.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use evenkeel_core::PolicyName;
use serde::{Deserialize, Serialize};

/// The form of a file; one of another form is not read.
const FORM: u32 = 1;

/// Bytes of a file that are read: 16 sets of four hooks write a third of it, with 64 revisions that were good and 16 that did
/// harm each, at 250 bytes.
const BYTES_MAX: u64 = 4 << 20;

/// Files in the folder: those of more gateways than one machine has. The one that was written longest ago gives way.
const FILES_MAX: usize = 256;

/// Of one policy, each oldest first. As it is in the file.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) accepted: Vec<Good>,
    pub(super) quarantined: Vec<Harmful>,
}

/// A revision that came into force and was not taken back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Good {
    pub(super) revision: Arc<str>,
    pub(super) plugin: Arc<str>,
    pub(super) version: Box<str>,
}

/// A revision that did harm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Harmful {
    pub(super) revision: Arc<str>,
    /// Unix time.
    pub(super) since_us: u64,
    pub(super) reason: Box<str>,
}

/// By the names of policies.
type Notes = BTreeMap<String, Remembered>;

/// The whole file.
#[derive(Serialize, Deserialize)]
struct Book {
    version: u32,
    /// The socket of the gateway that wrote it, for people.
    gateway: String,
    policies: Notes,
}

/// What a gateway remembers. What was noted is in the file once this was dropped.
#[derive(Debug)]
pub(super) struct Memory {
    /// Of policies that did not begin yet; those that never do are not written again.
    read: Notes,
    notes: Arc<Mutex<Notes>>,
    turns: Sender<Turn>,
    thread: Option<JoinHandle<()>>,
}

/// Writes down what is to be remembered of one policy.
#[derive(Debug)]
pub(super) struct Keeper {
    policy: String,
    notes: Arc<Mutex<Notes>>,
    turns: Sender<Turn>,
}

/// What the thread that writes is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Something changed.
    Write,
    /// Nothing will any more.
    End,
}

impl Memory {
    /// What the gateway with this socket remembers in this folder, which only its owner may enter. What cannot be read is
    /// moved aside, and nothing is known then.
    ///
    /// # Errors
    /// Where nothing can be kept there.
    pub(super) fn open(folder: &Path, socket: &Path) -> io::Result<Memory> {
        let folder = folder.join("policies");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let file = Place::of(folder, socket);
        let read = file.read().unwrap_or_else(|found| {
            file.set_aside(&found);
            Notes::new()
        });
        let notes = Arc::default();
        // One word that waits is enough: whoever hears it writes what is true by then.
        let (turns, told) = bounded(1);
        let writer = Writer { file, notes: Arc::clone(&notes), written: read.clone() };
        let thread = std::thread::Builder::new().name("policy memory".into());
        let thread = Some(thread.spawn(move || writer.run(&told))?);
        Ok(Memory { read, notes, turns, thread })
    }

    /// A policy begins: what is remembered of it, and who writes down what comes.
    pub(super) fn begin(&mut self, policy: &PolicyName) -> (Remembered, Keeper) {
        let policy = policy.to_string();
        let remembered = self.read.remove(&policy).unwrap_or_default();
        lock(&self.notes).insert(policy.clone(), remembered.clone());
        let (notes, turns) = (Arc::clone(&self.notes), self.turns.clone());
        (remembered, Keeper { policy, notes, turns })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // It reads on until it hears this.
        let _ = self.turns.send(Turn::End);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Keeper {
    /// From now on this is to be remembered.
    pub(super) fn note(&self, remembered: Remembered) {
        lock(&self.notes).insert(self.policy.clone(), remembered);
        // Where a word waits already it is heard after this; where nobody hears it the gateway has ended.
        let _ = self.turns.try_send(Turn::Write);
    }
}

/// Nobody panics while holding it.
fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread that writes has.
struct Writer {
    file: Place,
    notes: Arc<Mutex<Notes>>,
    /// What is in the file.
    written: Notes,
}

impl Writer {
    fn run(mut self, told: &Receiver<Turn>) {
        // A word about each change is heard before the last one. What did not change is left as it is: where a start came to
        // nothing, not all policies have begun.
        let mut failed = false;
        for _ in told.iter().take_while(|turn| *turn == Turn::Write) {
            failed = self.write().is_err();
        }
        if failed {
            // There may be room by now.
            let _ = self.write();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let notes = lock(&self.notes).clone();
        if notes == self.written {
            return Ok(());
        }
        let written = self.file.write(&notes);
        match &written {
            Ok(()) => self.written = notes,
            Err(error) => {
                let file = self.file.path.display();
                tracing::warn!(%file, %error, "which revisions did harm, and which were good, is not kept beyond a restart");
            }
        }
        written
    }
}

/// Where one gateway's file is.
struct Place {
    folder: PathBuf,
    path: PathBuf,
    gateway: String,
}

impl Place {
    fn of(folder: PathBuf, socket: &Path) -> Place {
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let bytes = socket.as_os_str().as_encoded_bytes();
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let name: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{name}.json"));
        Place { folder, path, gateway: socket.display().to_string() }
    }

    /// What is in the file; nothing where there is none.
    ///
    /// # Errors
    /// What was found in its place.
    fn read(&self) -> Result<Notes, String> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Notes::new()),
            opened => opened.map_err(|error| error.to_string())?,
        };
        let mut text = Vec::new();
        let read = file.take(BYTES_MAX + 1).read_to_end(&mut text);
        let bytes = read.map_err(|error| error.to_string())?;
        if bytes as u64 > BYTES_MAX {
            return Err(format!("more than {BYTES_MAX} bytes"));
        }
        let book: Book = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        match book.version {
            FORM => Ok(book.policies),
            other => Err(format!("version {other} of it, where {FORM} is read")),
        }
    }

    fn set_aside(&self, found: &str) {
        let aside = self.path.with_extension("json.damaged");
        // Where it cannot be moved it is written over.
        let _ = fs::rename(&self.path, &aside);
        let (file, aside) = (self.path.display(), aside.display());
        tracing::warn!(
            %file, %aside, found,
            "what was remembered of revisions cannot be read: it is set aside, and none is known to have done harm or to be newer"
        );
    }

    /// The file is what it was, or all of this.
    fn write(&self, notes: &Notes) -> io::Result<()> {
        let (version, gateway, policies) = (FORM, self.gateway.clone(), notes.clone());
        let mut text = serde_json::to_vec_pretty(&Book { version, gateway, policies })?;
        text.push(b'\n');
        let unfinished = self.path.with_extension(format!("{}.new", std::process::id()));
        let written =
            write_whole(&unfinished, &text).and_then(|()| fs::rename(&unfinished, &self.path));
        if written.is_err() {
            // Nothing is lost where it was not even made.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        File::open(&self.folder)?.sync_all()?;
        // What is there too much is no reason to take this for unwritten; the next one tries again.
        let _ = self.trim();
        Ok(())
    }

    /// The oldest files go until the rest fits; one's own stays.
    fn trim(&self) -> io::Result<()> {
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // One that another gateway removed meanwhile.
            let Ok(facts) = fs::symlink_metadata(&path) else { continue };
            if path != self.path && facts.is_file() {
                others.push((facts.modified()?, path));
            }
        }
        others.sort();
        let beyond = (others.len() + 1).saturating_sub(FILES_MAX);
        // One that is gone was removed by another gateway.
        others.into_iter().take(beyond).for_each(|(_, path)| _ = fs::remove_file(path));
        Ok(())
    }
}

/// A file of one's own, on the disk when this returns.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
