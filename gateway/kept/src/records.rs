//! Records: rows of a table of their own, with a column for each field.
//!
//! Unlike documents they are on the disk only: the store holds none in memory, and sends followers none. Their owner, a [`RecordKeeper`], runs
//! on the thread of the store. It has a connection of its own, so that documents and records do not wait for one another's files.
//!
//! One process writes records: the process that has locked the file `NAME.sqlite.lock`. The time of modification of this file is the
//! last moment at which a process is known to have lived that had records of its own time.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_process::{file, unix_us};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params_from_iter};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::disk::{self, Connected, Disk, DiskError, GATHERED_FOR, signed};

/// The versions of the tables of records.
const VERSIONS: &str = "
    CREATE TABLE IF NOT EXISTS record_table (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;
";

/// Messages that the keeper takes between two transactions, and so about the rows of a transaction.
const TAKEN_TOGETHER: usize = 1_024;

/// Interval at which records are tried that another process writes, such as the one that this process replaces.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Interval at which a disk that failed is tried, and precision of the time at which a killed process is known to have lived.
const LIVES_EVERY: Duration = Duration::from_secs(1);

/// The records of a table.
pub trait Record {
    /// A record. Its serialized form is an object with a field for each column.
    type Value: Serialize + DeserializeOwned;

    /// Name, version, columns and bounds.
    const TABLE: RecordTable;
}

/// A table of records.
#[derive(Clone, Copy, Debug)]
pub struct RecordTable {
    /// Its name in metrics and in warnings, and with `_` for `-` in the database.
    pub name: &'static str,
    /// The version of its columns.
    pub version: u32,
    /// The columns. The first one identifies a record.
    pub columns: &'static [Column],
    /// Maximum number of rows. Beyond it the oldest is dropped.
    pub rows_max: usize,
    /// Maximum size of the values of all rows, bytes. Beyond it the oldest row is dropped.
    pub bytes_max: usize,
    /// The time at which a killed process was last alive matters while there are rows.
    pub notes_life: bool,
}

/// A column, with the name of the field. Each value may be null.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    field: &'static str,
    values: ColumnType,
}

/// The type of a column's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// A text.
    Text,
    /// A number without sign, below 2^63.
    Integer,
    /// An object or a list, in JSON.
    Json,
}

/// The owner of records. The thread of the store calls it.
pub trait RecordKeeper: Send {
    /// Its tables.
    fn tables(&self) -> &'static [RecordTable];

    /// Takes up to this many of the records that came since the last call. Returns their number.
    fn receive(&mut self, at_most: usize) -> usize;

    /// Reads the records of earlier processes, before it writes any. Returns false while another process writes files of an earlier
    /// version that it needs.
    ///
    /// # Errors
    /// If they cannot be read. The next call tries again.
    fn read(&mut self, reader: &RecordReader<'_>) -> Result<bool, DiskError>;

    /// Returns true if the disk lacks records.
    fn has_unwritten(&self) -> bool;

    /// The next changes for the disk.
    fn batch(&mut self) -> RecordBatch;

    /// The database has the last batch.
    fn note_written(&mut self, database: &Path);

    /// The database was opened again, and may be another one: the next batch replaces what the keeper has in memory.
    fn note_other_disk(&mut self);
}

/// The records that earlier processes left.
pub struct RecordReader<'a> {
    /// `None`: there is no database.
    connection: Option<&'a Connection>,
    lived_us: u64,
}

impl RecordReader<'_> {
    /// Up to this many of the newest records, oldest first. One that is damaged is skipped.
    ///
    /// # Errors
    /// If the database cannot be read, or if another version wrote the table.
    pub fn newest<R: Record>(&self, at_most: usize) -> Result<Vec<R::Value>, DiskError> {
        let Some(connection) = self.connection else { return Ok(Vec::new()) };
        if !R::TABLE.is_in(connection)? {
            return Ok(Vec::new());
        }
        let mut read = connection.prepare(&R::TABLE.newest())?;
        let mut rows = read.query([i64::try_from(at_most).unwrap_or(i64::MAX)])?;
        let (mut records, mut damaged) = (Vec::new(), 0_u32);
        while let Some(row) = rows.next()? {
            let value = |(at, column): (usize, &Column)| {
                Ok((column.field.to_owned(), column.json(row.get(at)?)))
            };
            let fields = R::TABLE.columns.iter().enumerate().map(value);
            let fields = fields.collect::<rusqlite::Result<serde_json::Map<_, _>>>()?;
            match serde_json::from_value(Json::Object(fields)) {
                Ok(record) => records.push(record),
                Err(_) => damaged += 1,
            }
        }
        if damaged > 0 {
            tracing::warn!(document = R::TABLE.name, rows = damaged, "damaged records skipped");
        }
        Ok(records)
    }

    /// Unix time in microseconds of the last sign of life of the process that wrote them.
    pub fn lived_us(&self) -> u64 {
        self.lived_us
    }
}

/// Changes of tables, which are written together or not at all.
#[derive(Default, Debug)]
pub struct RecordBatch(BTreeMap<&'static str, TableChanges>);

#[derive(Default, Debug)]
struct TableChanges {
    is_cleared: bool,
    inserted: Vec<Vec<Value>>,
    removed: Vec<Box<str>>,
}

impl RecordBatch {
    /// Adds a record.
    ///
    /// # Panics
    /// If the type is no object, or has maps with keys that are no text.
    pub fn insert<R: Record>(&mut self, record: &R::Value) {
        let record = serde_json::to_value(record).expect("a record is JSON");
        let Json::Object(mut fields) = record else { panic!("a record is an object") };
        let values = R::TABLE.columns.iter();
        let values: Vec<_> = values.map(|column| value(fields.remove(column.field))).collect();
        debug_assert!(fields.is_empty(), "no column for {fields:?}");
        self.changes::<R>().inserted.push(values);
    }

    /// Removes the record with this id.
    pub fn remove<R: Record>(&mut self, id: &str) {
        self.changes::<R>().removed.push(id.into());
    }

    /// Removes all records that were there before this batch.
    pub fn clear<R: Record>(&mut self) {
        self.changes::<R>().is_cleared = true;
    }

    fn changes<R: Record>(&mut self) -> &mut TableChanges {
        self.0.entry(R::TABLE.name).or_default()
    }
}

fn value(field: Option<Json>) -> Value {
    match field {
        None | Some(Json::Null) => Value::Null,
        Some(Json::String(text)) => Value::Text(text),
        Some(Json::Number(number)) => Value::Integer(signed(number.as_u64().unwrap_or_default())),
        Some(other) => Value::Text(other.to_string()),
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 8,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}

impl Column {
    /// A column for this field.
    pub const fn new(field: &'static str, values: ColumnType) -> Column {
        Column { field, values }
    }

    fn json(&self, value: Value) -> Json {
        match (self.values, value) {
            (ColumnType::Json, Value::Text(text)) => {
                serde_json::from_str(&text).unwrap_or_default()
            }
            (_, Value::Text(text)) => text.into(),
            (_, Value::Integer(number)) => number.into(),
            (_, Value::Real(_) | Value::Blob(_) | Value::Null) => Json::Null,
        }
    }

    /// An expression of the size of its value.
    fn bytes(&self) -> String {
        match self.values {
            ColumnType::Integer => format!("iif({} IS NULL, 0, 8)", self.field),
            ColumnType::Text | ColumnType::Json => {
                format!("coalesce(octet_length({}), 0)", self.field)
            }
        }
    }
}

impl RecordTable {
    fn sql_name(&self) -> String {
        self.name.replace('-', "_")
    }

    fn id(&self) -> &'static str {
        self.columns[0].field
    }

    /// The names of the columns, with commas.
    fn fields(&self) -> String {
        let fields: Vec<_> = self.columns.iter().map(|column| column.field).collect();
        fields.join(", ")
    }

    fn bytes(&self) -> String {
        let bytes: Vec<_> = self.columns.iter().map(Column::bytes).collect();
        bytes.join(" + ")
    }

    fn newest(&self) -> String {
        let (name, fields) = (self.sql_name(), self.fields());
        format!(
            "SELECT {fields} FROM (SELECT * FROM {name} ORDER BY number DESC LIMIT ?1) ORDER BY number"
        )
    }

    /// Returns whether the database has the table, of this version.
    fn is_in(&self, connection: &Connection) -> Result<bool, DiskError> {
        let are_there = "SELECT count(*) FROM sqlite_schema WHERE name = 'record_table'";
        if connection.query_row(are_there, [], |row| row.get::<_, u32>(0))? == 0 {
            return Ok(false);
        }
        let version = "SELECT version FROM record_table WHERE name = ?1";
        match connection.query_row(version, [self.name], |row| row.get(0)).optional()? {
            Some(found) if found != self.version => {
                let (table, known) = (self.name, self.version);
                Err(DiskError::OtherTable { table, found, known })
            }
            found => Ok(found.is_some()),
        }
    }

    fn create(&self) -> String {
        let (name, id) = (self.sql_name(), self.id());
        let column = |column: &Column| match column.values {
            ColumnType::Integer => format!("{} INTEGER", column.field),
            ColumnType::Text | ColumnType::Json => format!("{} TEXT", column.field),
        };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        format!(
            "BEGIN IMMEDIATE;
            {VERSIONS}
            CREATE TABLE {name} (number INTEGER PRIMARY KEY, {}) STRICT;
            CREATE INDEX {name}_{id} ON {name} ({id});
            INSERT INTO record_table VALUES ('{}', {});
            COMMIT",
            columns.join(", "),
            self.name,
            self.version
        )
    }

    fn write(
        &self,
        changes: &TableChanges,
        size: &mut TableSize,
        write: &Connection,
    ) -> rusqlite::Result<()> {
        let (name, id, bytes) = (self.sql_name(), self.id(), self.bytes());
        if changes.is_cleared {
            write.execute(&format!("DELETE FROM {name}"), [])?;
            *size = TableSize::default();
        }
        let places = vec!["?"; self.columns.len()].join(", ");
        let insert = format!("INSERT INTO {name} ({}) VALUES ({places})", self.fields());
        let mut insert = write.prepare(&insert)?;
        for values in &changes.inserted {
            insert.execute(params_from_iter(values))?;
            size.rows += 1;
            size.bytes += values.iter().map(value_bytes).sum::<usize>();
        }
        let remove = format!("DELETE FROM {name} WHERE {id} = ?1 RETURNING {bytes}");
        let mut remove = write.prepare(&remove)?;
        for id in &changes.removed {
            let mut removed = remove.query([&**id])?;
            while let Some(row) = removed.next()? {
                size.drop_row(row.get(0)?);
            }
        }
        let oldest = format!("(SELECT min(number) FROM {name})");
        let drop_oldest = format!("DELETE FROM {name} WHERE number = {oldest} RETURNING {bytes}");
        let mut drop_oldest = write.prepare(&drop_oldest)?;
        while size.rows > self.rows_max || size.bytes > self.bytes_max {
            let dropped = drop_oldest.query_row([], |row| row.get(0)).optional()?;
            let Some(bytes) = dropped else { break };
            size.drop_row(bytes);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct TableSize {
    rows: usize,
    bytes: usize,
}

impl TableSize {
    fn drop_row(&mut self, bytes: i64) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(usize::try_from(bytes).unwrap_or_default());
    }
}

/// The tables of an open database.
#[derive(Debug)]
struct Records {
    connection: Connection,
    inode: u64,
    tables: &'static [RecordTable],
    /// By table.
    sizes: Vec<TableSize>,
}

impl Records {
    fn open(path: &Path, tables: &'static [RecordTable]) -> Result<Records, DiskError> {
        let Connected { connection, inode } = disk::connect(path)?;
        let mut sizes = Vec::new();
        for table in tables {
            if !table.is_in(&connection)? {
                connection.execute_batch(&table.create())?;
            }
            let (name, bytes) = (table.sql_name(), table.bytes());
            let size = format!("SELECT count(*), coalesce(sum({bytes}), 0) FROM {name}");
            let number = |number: i64| usize::try_from(number).unwrap_or_default();
            sizes.push(connection.query_row(&size, [], |row| {
                Ok(TableSize { rows: number(row.get(0)?), bytes: number(row.get(1)?) })
            })?);
        }
        Ok(Records { connection, inode, tables, sizes })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), DiskError> {
        let written = self.write_all(batch);
        if written.is_err() {
            disk::begin_log_anew(&self.connection);
        }
        self.sizes = written?;
        Ok(())
    }

    fn write_all(&mut self, batch: &RecordBatch) -> rusqlite::Result<Vec<TableSize>> {
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut sizes = self.sizes.clone();
        for (table, size) in self.tables.iter().zip(&mut sizes) {
            if let Some(changes) = batch.0.get(table.name) {
                table.write(changes, size, &write)?;
            }
        }
        write.commit()?;
        Ok(sizes)
    }

    /// Returns true while the time matters at which this process was last alive.
    fn need_life(&self) -> bool {
        let mut sized = self.tables.iter().zip(&self.sizes);
        sized.any(|(table, size)| table.notes_life && size.rows > 0)
    }
}

/// The locked file of the process that writes records.
#[derive(Debug)]
struct WriterLock {
    file: File,
    /// The time at which the process before this one last lived.
    lived_us: u64,
}

impl WriterLock {
    /// `None`: another process has locked it.
    fn take(path: &Path) -> io::Result<Option<WriterLock>> {
        file::create_private_folder(path.parent().unwrap_or(Path::new(".")))?;
        let file = file::append(&disk::with(path, disk::LOCK))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lived_us = unix_us(file.metadata()?.modified()?);
        Ok(Some(WriterLock { file, lived_us }))
    }
}

/// The state of the disk after a turn.
pub(crate) enum RecordTurn {
    /// The disk has the records that were to be written.
    Written,
    /// Another process writes records.
    LockedByOther,
    Failed(DiskError),
}

/// A keeper on the thread of the store.
pub(crate) struct RecordWriter {
    keeper: Box<dyn RecordKeeper>,
    /// `None`: records are in the memory of the keeper only.
    path: Option<PathBuf>,
    lock: Option<WriterLock>,
    records: Option<Records>,
    /// The keeper has read the records of earlier processes.
    is_read: bool,
    /// More messages wait.
    is_behind: bool,
    /// The last batch left records.
    is_partial: bool,
    unwritten_since: Option<Instant>,
    turn_last: Option<Instant>,
    /// The interval at which the disk is tried: the last turn wrote nothing.
    retry: Option<Duration>,
    /// The log has that another process writes.
    is_reported: bool,
}

impl RecordWriter {
    pub(crate) fn new(keeper: Box<dyn RecordKeeper>, path: Option<PathBuf>) -> RecordWriter {
        RecordWriter {
            keeper,
            path,
            lock: None,
            records: None,
            is_read: false,
            is_behind: false,
            is_partial: false,
            unwritten_since: None,
            turn_last: None,
            retry: None,
            is_reported: false,
        }
    }

    pub(crate) fn tables(&self) -> &'static [RecordTable] {
        self.keeper.tables()
    }

    /// Has the keeper take what came. From a disk that keeps up the rest waits in the bounded queue.
    pub(crate) fn receive(&mut self) {
        let keeps_up = self.records.is_some() && self.retry.is_none();
        let at_most = if keeps_up { TAKEN_TOGETHER } else { usize::MAX };
        self.is_behind = self.keeper.receive(at_most) == at_most;
        if self.keeper.has_unwritten() {
            self.unwritten_since.get_or_insert_with(Instant::now);
        }
    }

    /// The time until the next turn.
    pub(crate) fn due_within(&self) -> Duration {
        if self.path.is_none() {
            return LIVES_EVERY;
        }
        let left = |since: Instant, wait| (since + wait).saturating_duration_since(Instant::now());
        match (self.turn_last, self.retry, self.unwritten_since) {
            (None, _, _) => Duration::ZERO,
            (Some(last), Some(retry), _) => left(last, retry),
            (_, None, Some(_)) if self.is_behind || self.is_partial => Duration::ZERO,
            (_, None, Some(since)) => left(since, GATHERED_FOR),
            (Some(last), None, None) => left(last, LIVES_EVERY),
        }
    }

    /// Opens the database if it is not open, and writes the next records.
    pub(crate) fn turn(&mut self) -> RecordTurn {
        let Some(path) = self.path.clone() else { return RecordTurn::LockedByOther };
        let is_open = self.open(&path);
        let turn = is_open.and_then(|is_open| {
            if is_open {
                self.write(&path)?;
            }
            Ok(is_open)
        });
        self.turn_last = Some(Instant::now());
        match turn {
            Ok(true) => {
                self.retry = None;
                RecordTurn::Written
            }
            Ok(false) => {
                self.retry = Some(RETRY_EVERY);
                if !std::mem::replace(&mut self.is_reported, true) {
                    tracing::info!(file = %path.display(), "another process writes the records of sessions; waiting");
                }
                RecordTurn::LockedByOther
            }
            Err(error) => {
                self.retry = Some(LIVES_EVERY);
                if error.is_damage() {
                    self.records = None;
                    Disk::set_aside(&path, &error);
                }
                RecordTurn::Failed(error)
            }
        }
    }

    /// Returns whether the database is open; false while another process writes records.
    fn open(&mut self, path: &Path) -> Result<bool, DiskError> {
        if let Some(records) = &self.records {
            if !disk::is_moved(path, records.inode) {
                return Ok(true);
            }
            (self.records, self.lock) = (None, None);
        }
        if self.lock.is_none() {
            self.lock = WriterLock::take(path)?;
        }
        let Some(WriterLock { lived_us, .. }) = self.lock else { return Ok(false) };
        let opened = Records::open(path, self.keeper.tables());
        let was_read = self.is_read;
        if !was_read && !self.read(path, &opened, lived_us)? {
            return Ok(false);
        }
        self.records = Some(opened?);
        if was_read {
            self.keeper.note_other_disk();
        }
        Ok(true)
    }

    /// Has the keeper read the records of earlier processes, also from a disk that takes nothing. Returns false while another process
    /// writes some.
    fn read(
        &mut self,
        path: &Path,
        opened: &Result<Records, DiskError>,
        lived_us: u64,
    ) -> Result<bool, DiskError> {
        let unwritable = match opened {
            Ok(_) => None,
            Err(error) if error.is_busy() || error.is_damage() => return Ok(true),
            // This error tells, and not that of the second attempt.
            Err(error) => match disk::connect_to_read(path, error) {
                Ok(found) => found,
                Err(_) => return Ok(true),
            },
        };
        let opened = opened.as_ref().ok().map(|records| &records.connection);
        let connection = opened.or(unwritable.as_ref().map(|found| &found.connection));
        self.is_read = self.keeper.read(&RecordReader { connection, lived_us })?;
        Ok(self.is_read)
    }

    fn write(&mut self, path: &Path) -> Result<(), DiskError> {
        let (Some(records), Some(lock)) = (&mut self.records, &self.lock) else { return Ok(()) };
        if self.keeper.has_unwritten() {
            records.write(&self.keeper.batch())?;
            self.keeper.note_written(path);
            self.is_partial = self.keeper.has_unwritten();
            self.unwritten_since = self.is_partial.then(Instant::now);
        }
        if !self.is_partial && records.need_life() {
            lock.file.set_modified(SystemTime::now())?;
        }
        Ok(())
    }

    /// Writes what the disk lacks, or tries for the last time.
    pub(crate) fn end(&mut self) {
        self.keeper.receive(usize::MAX);
        while self.keeper.has_unwritten() && matches!(self.turn(), RecordTurn::Written) {}
    }
}

#[cfg(test)]
mod tests;
