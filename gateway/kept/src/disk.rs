//! The database of a gateway.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_process::file;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use super::exchange::KeptRow;
use super::files::{FileFolder, is_unchanged};
use super::table::{Batch, BatchRow, KindBound};

/// The version of the tables.
const SCHEMA: u32 = 1;

/// Rows without an acknowledgement are written together with those of this time.
pub const GATHERED_FOR: Duration = Duration::from_millis(100);

/// A tool that writes, or the process that this one replaces, may hold the database for so long: less than a start waits for its rows.
const BUSY_FOR: Duration = Duration::from_secs(4);

/// Pages of the log after which it is copied into the database. A small disk has room for both.
const WAL_PAGES: i64 = 100;

/// The log is cut to this length then.
const WAL_BYTES: i64 = WAL_PAGES * 4_096;

/// Maximum number of databases in the folder, more than a machine has gateways.
const DATABASES_MAX: usize = 64;

/// The files of a database, and of one that was set aside: endings after its name.
const FILES: [&str; 6] = ["", "-wal", "-shm", LOCK, ".damaged", ".damaged-wal"];

/// The ending of the file that the process locks which writes records.
pub(crate) const LOCK: &str = ".lock";

/// The gateway reads and writes `document`; operators read `kept`.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS document (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        change INTEGER NOT NULL,
        at_us INTEGER NOT NULL,
        version INTEGER NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS document_change ON document (kind, change);
    CREATE VIEW IF NOT EXISTS kept AS
        SELECT kind, key, strftime('%Y-%m-%dT%H:%M:%fZ', at_us / 1e6, 'unixepoch') AS at, value
        FROM document ORDER BY change;
";

/// The database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// SQLite cannot read or write the database.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A later version wrote the database.
    #[error("it has version {found}, this gateway reads version {SCHEMA}")]
    Newer {
        /// The version of its tables.
        found: u32,
    },
    /// Another version wrote a table of records.
    #[error("its table {table} has version {found}, this gateway reads version {known}")]
    OtherTable {
        /// The name of the table.
        table: &'static str,
        /// The version of the table.
        found: u32,
        /// The version of this gateway.
        known: u32,
    },
}

impl DiskError {
    /// The file is no database, or a part of it is not.
    pub(crate) fn is_damage(&self) -> bool {
        let DiskError::Sqlite(error) = self else { return false };
        let code = error.sqlite_error_code();
        matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
    }

    /// Another process writes to the database.
    pub(crate) fn is_busy(&self) -> bool {
        let DiskError::Sqlite(error) = self else { return false };
        let code = error.sqlite_error_code();
        matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// A later version wrote the database.
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, DiskError::Newer { .. })
    }

    /// The disk has no space.
    fn is_full(&self) -> bool {
        let DiskError::Io(error) = self else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Disk {
    connection: Connection,
    path: PathBuf,
    inode: u64,
}

impl Disk {
    /// Opens the database, and reads its rows in the order of their changes. A damaged one is moved aside.
    pub(crate) fn open(path: &Path) -> Result<(Disk, Vec<KeptRow>), DiskError> {
        match Disk::read(path) {
            Err(error) if error.is_damage() => {
                Disk::set_aside(path, &error);
                Disk::read(path)
            }
            read => read,
        }
    }

    fn read(path: &Path) -> Result<(Disk, Vec<KeptRow>), DiskError> {
        let Connected { connection, inode } = connect(path)?;
        let disk = Disk { connection, path: path.to_owned(), inode };
        let rows = rows(&disk.connection, None)?;
        // The next start tries again.
        let _ = trim(path.parent().unwrap_or(Path::new(".")), path);
        Ok((disk, rows))
    }

    /// The rows of a database that could not be opened for this reason.
    pub(crate) fn read_only(path: &Path, reason: &DiskError) -> Result<Vec<KeptRow>, DiskError> {
        Ok(connect_to_read(path, reason)?
            .map_or(Ok(Vec::new()), |found| rows(&found.connection, None))?)
    }

    /// The rows of one kind, also of a database that takes nothing. Without a database there are none.
    pub(crate) fn read_kind(path: &Path, kind: &str) -> Result<Vec<KeptRow>, DiskError> {
        let is_absent = |error: io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        if fs::symlink_metadata(path).is_err_and(is_absent) {
            return Ok(Vec::new());
        }
        let found = match connect(path) {
            Err(error) if error.is_damage() || error.is_busy() || error.is_newer() => {
                return Err(error);
            }
            Err(error) => connect_to_read(path, &error)?,
            Ok(found) => Some(found),
        };
        Ok(found.map_or(Ok(Vec::new()), |found| rows(&found.connection, Some(kind)))?)
    }

    /// The file at the path is another one, or there is none.
    pub(crate) fn is_moved(&self) -> bool {
        is_moved(&self.path, self.inode)
    }

    /// Writes all rows, or none.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), DiskError> {
        let written = self.write_all(batch);
        if written.is_err() {
            begin_log_anew(&self.connection);
        }
        Ok(written?)
    }

    fn write_all(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for kind in &batch.replaced {
            write.execute("DELETE FROM document WHERE kind = ?1", [kind])?;
        }
        // The process that this one replaces may write an earlier change of the row later.
        let mut put = write.prepare(
            "INSERT INTO document (kind, key, change, at_us, version, value)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (kind, key) DO UPDATE SET change = excluded.change, at_us = excluded.at_us,
                version = excluded.version, value = excluded.value
                WHERE excluded.change > document.change",
        )?;
        for BatchRow { place, row } in &batch.rows {
            put.execute(params![
                place.kind,
                &*place.key,
                signed(row.change),
                signed(row.at_us),
                row.version,
                &*row.value
            ])?;
        }
        drop(put);
        let mut drop_older =
            write.prepare("DELETE FROM document WHERE kind = ?1 AND change < ?2")?;
        for KindBound { kind, oldest } in &batch.bounds {
            drop_older.execute(params![kind, signed(*oldest)])?;
        }
        drop(drop_older);
        write.commit()
    }

    /// Renames a damaged database. Its files stay: the rows of the next one may name them.
    pub(crate) fn set_aside(path: &Path, error: &DiskError) {
        // Another gateway may start before there is a new database.
        FileFolder::of(path).outlive_database();
        let with = |ending| with(path, ending);
        // A file that cannot be moved is found again by the next attempt.
        let _ = fs::rename(path, with(".damaged"));
        let _ = fs::rename(with("-wal"), with(".damaged-wal"));
        let _ = fs::remove_file(with("-shm"));
        let (file, aside) = (path.display(), with(".damaged"));
        tracing::error!(%file, %error, aside = %aside.display(), "database damaged; moved aside, a new one is written");
    }
}

/// A connection to the database.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) connection: Connection,
    /// The inode of its file.
    pub(crate) inode: u64,
}

/// Opens the database, and creates it if there is none.
pub(crate) fn connect(path: &Path) -> Result<Connected, DiskError> {
    file::create_private_folder(path.parent().unwrap_or(Path::new(".")))?;
    // Its log has the same mode.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => drop(created?),
    }
    let facts = fs::symlink_metadata(path)?;
    if !facts.is_file() {
        return Err(io::Error::other("it is not a regular file").into());
    }
    if facts.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_FOR)?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > SCHEMA {
        return Err(DiskError::Newer { found });
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", WAL_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES, |_| Ok(()))?;
    if found < SCHEMA {
        let begin = "BEGIN IMMEDIATE";
        connection
            .execute_batch(&format!("{begin};{TABLES}PRAGMA user_version = {SCHEMA};COMMIT"))?;
    }
    Ok(Connected { connection, inode: facts.ino() })
}

/// Opens a database to read it that could not be opened for this reason: nothing need be written then. `None` if it has no table, or
/// if a full disk has none.
pub(crate) fn connect_to_read(
    path: &Path,
    reason: &DiskError,
) -> Result<Option<Connected>, DiskError> {
    let facts = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && reason.is_full() => {
            return Ok(None);
        }
        facts => facts?,
    };
    if !facts.is_file() {
        return Err(io::Error::other("it is not a regular file").into());
    }
    let has_log = fs::metadata(with(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let connection = if has_log {
        // The index of the log is in memory then.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection
    } else {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(immutable(path), flags)?
    };
    match connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))? {
        // Its tables could not be written.
        0 => Ok(None),
        SCHEMA => Ok(Some(Connected { connection, inode: facts.ino() })),
        found => Err(DiskError::Newer { found }),
    }
}

/// The file at the path is another one, or there is none.
pub(crate) fn is_moved(path: &Path, inode: u64) -> bool {
    fs::symlink_metadata(path).map_or(true, |facts| facts.ino() != inode)
}

/// Has the next attempt to write begin the log anew, for which a full disk has space. If this fails, that attempt tells.
pub(crate) fn begin_log_anew(connection: &Connection) {
    let _ = connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
}

/// The rows of a kind, or of all kinds.
fn rows(connection: &Connection, kind: Option<&str>) -> rusqlite::Result<Vec<KeptRow>> {
    let mut read = connection.prepare(
        "SELECT kind, key, change, at_us, version, value FROM document
            WHERE ?1 IS NULL OR kind = ?1 ORDER BY change",
    )?;
    let rows = read.query_map([kind], |row| {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(KeptRow {
            kind: row.get::<_, String>(0)?.into(),
            key: row.get::<_, String>(1)?.into(),
            change: number(2)?,
            at_us: number(3)?,
            version: row.get(4)?,
            value: row.get::<_, String>(5)?.into(),
        })
    })?;
    rows.collect()
}

/// The URI of a database that no process changes while it is read.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Renames a file of an earlier version, of which this database has the rows.
pub fn move_aside(path: &Path, database: &Path) {
    // A loss of power does not bring the name back.
    let synchronize = || File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all();
    let moved = fs::rename(path, with(path, ".moved"));
    match moved.and_then(|()| synchronize()) {
        Ok(()) => {
            tracing::info!(file = %path.display(), database = %database.display(), "file moved into the database");
        }
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "file of an earlier version not moved; decisions since then hold");
        }
    }
}

/// The path with this ending.
pub(crate) fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Removes the least recently written of the other databases, each with its log, since a live gateway writes the log alone for long,
/// and with its files; and the files of databases that are gone.
fn trim(folder: &Path, own: &Path) -> io::Result<()> {
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let database = FileFolder::database_of(&path);
        if database.is_some_and(|database| !database.exists()) && is_unchanged(&path) {
            // The next start tries again.
            let _ = fs::remove_dir_all(&path);
        } else if path != own && path.extension().is_some_and(|ending| ending == "sqlite") {
            let written = |ending| fs::symlink_metadata(with(&path, ending)).ok()?.modified().ok();
            others.push((FILES.into_iter().filter_map(written).max(), path));
        }
    }
    others.sort();
    let beyond = (others.len() + 1).saturating_sub(DATABASES_MAX);
    for (_, path) in others.into_iter().take(beyond) {
        // Another gateway may have removed it.
        FILES.into_iter().for_each(|ending| _ = fs::remove_file(with(&path, ending)));
        let _ = fs::remove_dir_all(FileFolder::of(&path).path());
    }
    Ok(())
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
