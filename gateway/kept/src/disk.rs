//! The database of a gateway.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_process::file;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use super::exchange::KeptRow;
use super::table::Batch;

/// The version of the tables.
const SCHEMA: u32 = 1;

/// A tool that writes, or the process that this one replaces, may hold the database for so long: less than a start waits for its rows.
const BUSY_FOR: Duration = Duration::from_secs(4);

/// Pages of the log after which it is copied into the database. A small disk has room for both.
const WAL_PAGES: i64 = 100;

/// The log is cut to this length then.
const WAL_BYTES: i64 = WAL_PAGES * 4_096;

/// Maximum number of databases in the folder, more than a machine has gateways.
const DATABASES_MAX: usize = 64;

/// The files of a database, and of one that was set aside: endings after its name.
const FILES: [&str; 5] = ["", "-wal", "-shm", ".damaged", ".damaged-wal"];

/// The gateway reads and writes `document`; operators read `kept`.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS document (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        change INTEGER NOT NULL,
        at_us INTEGER NOT NULL,
        version INTEGER NOT NULL,
        value TEXT,
        PRIMARY KEY (kind, key)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS document_change ON document (kind, change);
    CREATE VIEW IF NOT EXISTS kept AS
        SELECT kind, key, strftime('%Y-%m-%dT%H:%M:%fZ', at_us / 1e6, 'unixepoch') AS at, value
        FROM document WHERE value IS NOT NULL ORDER BY change;
";

/// The database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("it has version {found}, this gateway reads version {SCHEMA}")]
    Newer { found: u32 },
}

impl DiskError {
    /// The file is no database, or a part of it is not.
    pub(crate) fn is_damage(&self) -> bool {
        let DiskError::Sqlite(error) = self else { return false };
        let code = error.sqlite_error_code();
        matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
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
        let folder = path.parent().unwrap_or(Path::new("."));
        file::create_private_folder(folder)?;
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
        let disk = Disk { connection, path: path.to_owned(), inode: facts.ino() };
        let rows = disk.rows()?;
        // The next start tries again.
        let _ = trim(folder, path);
        Ok((disk, rows))
    }

    fn rows(&self) -> rusqlite::Result<Vec<KeptRow>> {
        let columns =
            "SELECT kind, key, change, at_us, version, value FROM document ORDER BY change";
        let mut read = self.connection.prepare(columns)?;
        let rows = read.query_map([], |row| {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            Ok(KeptRow {
                kind: row.get::<_, String>(0)?.into(),
                key: row.get::<_, String>(1)?.into(),
                change: number(2)?,
                at_us: number(3)?,
                version: row.get(4)?,
                value: row.get::<_, Option<String>>(5)?.map(Into::into),
            })
        })?;
        rows.collect()
    }

    /// The file at the path is another one, or there is none.
    pub(crate) fn is_moved(&self) -> bool {
        fs::symlink_metadata(&self.path).map_or(true, |facts| facts.ino() != self.inode)
    }

    /// Writes all rows, or none.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), DiskError> {
        let written = self.write_all(batch);
        if written.is_err() {
            // The next attempt begins the log anew, for which a full disk has space. It tells if this one failed.
            let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
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
        for ((kind, key), row) in &batch.rows {
            let value = row.value.as_deref();
            put.execute(params![
                kind,
                &**key,
                signed(row.change),
                signed(row.at_us),
                row.version,
                value
            ])?;
        }
        drop(put);
        let mut drop_older = write.prepare(
            "DELETE FROM document WHERE kind = ?1
                AND (value IS NOT NULL AND change < ?2 OR value IS NULL AND change < ?3)",
        )?;
        for (kind, oldest, oldest_removed) in &batch.bounds {
            drop_older.execute(params![kind, signed(*oldest), signed(*oldest_removed)])?;
        }
        drop(drop_older);
        write.commit()
    }

    /// Renames a damaged database.
    pub(crate) fn set_aside(path: &Path, error: &DiskError) {
        let with = |ending| with(path, ending);
        // A file that cannot be moved is found again by the next attempt.
        let _ = fs::rename(path, with(".damaged"));
        let _ = fs::rename(with("-wal"), with(".damaged-wal"));
        let _ = fs::remove_file(with("-shm"));
        let (file, aside) = (path.display(), with(".damaged"));
        tracing::error!(%file, %error, aside = %aside.display(), "database damaged; moved aside, a new one is written");
    }
}

/// The path with this ending.
pub(crate) fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Removes the least recently written of the other databases, each with its log: a live gateway writes the log alone for long.
fn trim(folder: &Path, own: &Path) -> io::Result<()> {
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path != own && path.extension().is_some_and(|ending| ending == "sqlite") {
            let written = |ending| fs::symlink_metadata(with(&path, ending)).ok()?.modified().ok();
            others.push((FILES.into_iter().filter_map(written).max(), path));
        }
    }
    others.sort();
    let beyond = (others.len() + 1).saturating_sub(DATABASES_MAX);
    for (_, path) in others.into_iter().take(beyond) {
        // Another gateway may have removed it.
        FILES.into_iter().for_each(|ending| _ = fs::remove_file(with(&path, ending)));
    }
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
