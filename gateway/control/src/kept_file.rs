//! A value that outlives its process, in a file that the next process reads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments, WRITTEN_AGAIN_WITHIN};
use evenkeel_process::{file, lock};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum size of a file, bytes: four operations of 256 bytes on each of 1,024 nodes, zones and regions, or breakers, or 500 alerts
/// that each of 16 receivers was sent.
const BYTES_MAX: u64 = 4 << 20;

/// Maximum number of files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// A value, and the file of it.
#[derive(Debug)]
pub(crate) struct KeptFile<T> {
    /// `None`: the value ends with the process.
    pub(crate) path: Option<PathBuf>,
    document: KeptDocument,
    unwritten: UnwrittenDocuments,
    pub(crate) value: T,
    /// The process that this one replaces may still write the file.
    is_unread: bool,
    changes: Arc<FileChanges>,
}

/// Numbers of changes of the value.
#[derive(Default, Debug)]
struct FileChanges {
    newest: AtomicU64,
    /// The newest one in the file.
    written: Mutex<u64>,
}

impl<T> KeptFile<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    /// The file of the gateway with this API socket in the folder. With `continues`, another process serves and may write it:
    /// it is not read before [`KeptFile::resume`].
    pub(crate) fn open(
        folder: Option<PathBuf>,
        document: KeptDocument,
        socket: &Path,
        continues: bool,
    ) -> KeptFile<T> {
        let path = folder.map(|folder| folder.join(format!("{}.json", file::name_of(socket))));
        let mut kept = KeptFile {
            is_unread: path.is_some(),
            path,
            document,
            unwritten: UnwrittenDocuments::default(),
            value: T::default(),
            changes: Arc::default(),
        };
        if !continues {
            kept.resume();
        }
        kept
    }

    /// Reports failures to this owner of them.
    pub(crate) fn reporting_to(self, unwritten: &UnwrittenDocuments) -> KeptFile<T> {
        KeptFile { unwritten: unwritten.clone(), ..self }
    }

    /// Reads the file, unless it was read: returns true if it is read now. An unreadable file is reported, and replaced at
    /// the next change.
    pub(crate) fn resume(&mut self) -> bool {
        let Some(path) = self.path.as_ref().filter(|_| std::mem::take(&mut self.is_unread)) else {
            return false;
        };
        self.value = read(path).unwrap_or_else(|error| {
            tracing::warn!(document = %self.document, file = %path.display(), %error, "document cannot be read; starting without");
            T::default()
        });
        true
    }

    /// Replaces the value of this process by that of the one that it continues. Returns false if they are equal.
    pub(crate) fn replace(&mut self, value: T) -> bool {
        self.is_unread = false;
        let differs = self.value != value;
        if differs {
            self.value = value;
            self.write(|_| {});
        }
        differs
    }

    /// Writes the value, and calls `done` once it is on the disk, or with the reason for which it cannot be written.
    pub(crate) fn write(&mut self, done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static) {
        let change = self.changes.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(path) = self.path.clone() else { return done(Ok(())) };
        let write = FileWrite {
            path: path.clone(),
            value: self.value.clone(),
            change,
            changes: Arc::downgrade(&self.changes),
            document: self.document,
            unwritten: self.unwritten.clone(),
        };
        let thread = std::thread::Builder::new().name("operations".into());
        let writing = thread.spawn(move || {
            let result = write.write();
            let is_written = result.is_ok();
            done(result.map_err(|error| error.to_string().into()));
            if !is_written {
                write.repeat();
            }
        });
        if let Err(error) = writing {
            self.unwritten.note(self.document, &path, &Err(error));
        }
    }
}

/// One change of the value that is to be written.
struct FileWrite<T> {
    path: PathBuf,
    value: T,
    change: u64,
    /// Gone once the value is.
    changes: Weak<FileChanges>,
    document: KeptDocument,
    unwritten: UnwrittenDocuments,
}

impl<T: Serialize> FileWrite<T> {
    fn write(&self) -> io::Result<()> {
        let Some(changes) = self.changes.upgrade() else { return write(&self.path, &self.value) };
        let mut written = lock(&changes.written);
        // A later change may have been written before.
        if *written > self.change {
            return Ok(());
        }
        let result = write(&self.path, &self.value);
        if result.is_ok() {
            *written = self.change;
        }
        if self.is_newest(&changes) {
            self.unwritten.note(self.document, &self.path, &result);
        }
        result
    }

    /// Tries again until the change is written, or another one follows it.
    fn repeat(&self) {
        loop {
            std::thread::sleep(WRITTEN_AGAIN_WITHIN);
            match self.changes.upgrade() {
                Some(changes) if self.is_newest(&changes) => {}
                Some(_) | None => return,
            }
            if self.write().is_ok() {
                return;
            }
        }
    }

    fn is_newest(&self, changes: &FileChanges) -> bool {
        changes.newest.load(Ordering::Relaxed) == self.change
    }
}

fn read<T: Default + DeserializeOwned>(path: &Path) -> io::Result<T> {
    match file::read(path, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        read => Ok(serde_json::from_slice(&read?)?),
    }
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    file::replace(path, &serde_json::to_vec_pretty(value)?)?;
    // The next change tries again.
    let _ = file::trim(folder, path, FILES_MAX);
    Ok(())
}
