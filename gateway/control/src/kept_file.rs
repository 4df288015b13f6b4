//! A value that outlives its process, in a file that the next process reads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use evenkeel_process::{file, lock};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum size of a file, bytes: four operations of 256 bytes on each of 1,024 nodes, zones and regions, or breakers, or 500 alerts
/// that each of 16 receivers was sent.
const BYTES_MAX: u64 = 4 << 20;

/// Maximum number of files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// A value, and the file of it.
#[derive(Default, Debug)]
pub(crate) struct KeptFile<T> {
    /// `None`: the value ends with the process.
    pub(crate) path: Option<PathBuf>,
    /// Name of the value in the log.
    content: &'static str,
    pub(crate) value: T,
    /// The process that this one replaces may still write the file.
    is_unread: bool,
    changes: u64,
    /// The newest change in the file.
    written: Arc<Mutex<u64>>,
}

impl<T> KeptFile<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    /// The file of the gateway with this API socket in the folder. With `continues`, another process serves and may write it:
    /// it is not read before [`KeptFile::resume`].
    pub(crate) fn open(
        folder: Option<PathBuf>,
        content: &'static str,
        socket: &Path,
        continues: bool,
    ) -> KeptFile<T> {
        let path = folder.map(|folder| folder.join(format!("{}.json", file::name_of(socket))));
        let mut kept = KeptFile { is_unread: path.is_some(), path, content, ..KeptFile::default() };
        if !continues {
            kept.resume();
        }
        kept
    }

    /// Reads the file, unless it was read: returns true if it is read now. An unreadable file is reported, and replaced at
    /// the next change.
    pub(crate) fn resume(&mut self) -> bool {
        let Some(path) = self.path.as_ref().filter(|_| std::mem::take(&mut self.is_unread)) else {
            return false;
        };
        self.value = read(path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "{} cannot be read; starting without", self.content);
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
        self.changes += 1;
        let Some(path) = self.path.clone() else { return done(Ok(())) };
        let (value, change, content) = (self.value.clone(), self.changes, self.content);
        let written = Arc::clone(&self.written);
        let thread = std::thread::Builder::new().name("operations".into());
        let writing = thread.spawn(move || {
            let mut newest = lock(&written);
            // A later change may have been written before.
            let result = if *newest < change { write(&path, &value) } else { Ok(()) };
            match &result {
                Ok(()) => *newest = change.max(*newest),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "{content} end with the process");
                }
            }
            drop(newest);
            done(result.map_err(|error| error.to_string().into()));
        });
        if let Err(error) = writing {
            tracing::warn!(%error, "{content} end with the process");
        }
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
