//! Files that rows name by the SHA-256 of their bytes, in a folder beside the database. The thread that writes the rows writes them, one
//! file a turn, before a row that names them. It removes a file some time after the last row of the disk that named it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use evenkeel_process::{file, sha256};

/// A file that no row names stays for this time: the process that replaces this one may have named it meanwhile, and an upgrade takes
/// less.
pub(crate) const UNNAMED_FOR: Duration = Duration::from_secs(600);

/// The extension of a database.
const DATABASE: &str = "sqlite";

/// The extension of the folder of its files.
const FOLDER: &str = "sqlite-files";

/// The folder of a database's files.
#[derive(Clone, Debug)]
pub(crate) struct FileFolder {
    path: PathBuf,
}

impl FileFolder {
    /// That of this database.
    pub(crate) fn of(database: &Path) -> FileFolder {
        FileFolder { path: database.with_extension(FOLDER) }
    }

    /// The database whose files are in the folder with this path; `None` for the path of another folder.
    pub(crate) fn database_of(folder: &Path) -> Option<PathBuf> {
        let is_folder = folder.extension().is_some_and(|extension| extension == FOLDER);
        is_folder.then(|| folder.with_extension(DATABASE))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of at most so many bytes. One with other bytes than its name says is removed.
    pub(crate) fn read(&self, name: &str, bytes_max: u64) -> Option<Bytes> {
        let path = self.file(name)?;
        let file = path.display();
        match file::read(&path, bytes_max) {
            Ok(bytes) if HEXLOWER.encode(&sha256(&bytes)) == name => Some(bytes.into()),
            Ok(_) => {
                tracing::warn!(%file, "file of an earlier process was modified; removed");
                // It is written again once a row names it.
                let _ = fs::remove_file(&path);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%file, %error, "file of an earlier process cannot be read");
                None
            }
        }
    }

    /// Writes the first of these files that the disk lacks, or has with another length; those before it count as named now. Returns
    /// false if it wrote one, after which the disk may lack others.
    pub(crate) fn write_next(&self, files: &BTreeMap<Arc<str>, Bytes>) -> io::Result<bool> {
        file::create_private_folder(&self.path)?;
        for (name, bytes) in files {
            let Some(path) = self.file(name) else { continue };
            match File::open(&path) {
                Ok(file) if file.metadata()?.len() == bytes.len() as u64 => {
                    file.set_modified(SystemTime::now())?;
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {
                    file::replace(&path, bytes)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Has the folder stay for [`UNNAMED_FOR`] without its database.
    pub(crate) fn outlive_database(&self) {
        // Without files there is no folder.
        let _ = File::open(&self.path).and_then(|it| it.set_modified(SystemTime::now()));
    }

    /// Removes the files that are not among these, and have not been named for [`UNNAMED_FOR`].
    pub(crate) fn retain(&self, named: &BTreeSet<Arc<str>>) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if !name.to_str().is_some_and(|name| named.contains(name)) && is_unchanged(&path) {
                // The next write of a file tries again.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The path of a file; `None` for a text that is no digest.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| self.path.join(name))
    }
}

/// Returns true if the file or folder was not modified for [`UNNAMED_FOR`].
pub(crate) fn is_unchanged(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|facts| facts.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UNNAMED_FOR))
}
