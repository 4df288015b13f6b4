use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use evenkeel_process::documents::UnwrittenDocuments;
use serde::Deserialize;
use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::{Document, Documents, Encoded, FollowerCopy, Kind, Store};

const WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Call {
    id: Box<str>,
    room: Option<Box<str>>,
    ended_us: u64,
    totals: Json,
}

impl Record for Call {
    type Value = Call;

    const TABLE: RecordTable = RecordTable {
        name: "call-records",
        version: 3,
        columns: &[
            Column::new("id", ColumnType::Text),
            Column::new("room", ColumnType::Text),
            Column::new("ended_us", ColumnType::Integer),
            Column::new("totals", ColumnType::Json),
        ],
        rows_max: 4,
        bytes_max: 1_000,
        notes_life: false,
    };
}

fn call(number: u64) -> Call {
    let id = format!("s{number}").into();
    Call { id, room: None, ended_us: number, totals: json!({"packets": number}) }
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("kept").join("a.sqlite")
}

fn open(folder: &TempDir) -> Records {
    Records::open(&path(folder), &[Call::TABLE]).unwrap()
}

fn batch(calls: impl IntoIterator<Item = Call>) -> RecordBatch {
    let mut batch = RecordBatch::default();
    calls.into_iter().for_each(|call| batch.insert::<Call>(&call));
    batch
}

fn read(records: &Records) -> Vec<Call> {
    let reader = RecordReader { connection: Some(&records.connection), lived_us: 0 };
    reader.newest::<Call>(100).unwrap()
}

fn ids(records: &Records) -> Vec<String> {
    read(records).iter().map(|call| call.id.to_string()).collect()
}

#[test]
fn record_is_a_row_with_a_column_for_each_field() {
    let folder = tempdir().unwrap();
    let mut records = open(&folder);
    let whole = Call { room: Some("r".into()), ..call(1) };
    records.write(&batch([whole.clone(), call(2)])).unwrap();
    let columns = "SELECT id || room || ended_us || (totals ->> 'packets') FROM call_records
        WHERE room IS NOT NULL";
    let row: String = records.connection.query_row(columns, [], |row| row.get(0)).unwrap();
    assert_eq!(row, "s1r11");
    drop(records);
    let records = open(&folder);
    assert_eq!(read(&records), [whole, call(2)]);
    let reader = RecordReader { connection: Some(&records.connection), lived_us: 0 };
    assert_eq!(reader.newest::<Call>(1).unwrap(), [call(2)]);
}

#[test]
fn oldest_records_are_dropped_beyond_the_bounds() {
    let folder = tempdir().unwrap();
    let mut records = open(&folder);
    records.write(&batch((1..=3).map(call))).unwrap();
    drop(records);
    let mut records = open(&folder);
    records.write(&batch((4..=6).map(call))).unwrap();
    assert_eq!(ids(&records), ["s3", "s4", "s5", "s6"]);
    let long = |number| Call { room: Some("x".repeat(470).into()), ..call(number) };
    records.write(&batch([long(7), long(8)])).unwrap();
    assert_eq!(ids(&records), ["s7", "s8"]);
    records.write(&batch([call(9)])).unwrap();
    assert_eq!(ids(&records), ["s8", "s9"]);
    let size = records.sizes[0];
    assert_eq!(open(&folder).sizes[0].bytes, size.bytes);
    assert_eq!(open(&folder).sizes[0].rows, 2);
}

#[test]
fn records_are_removed_by_their_ids() {
    let folder = tempdir().unwrap();
    let mut records = open(&folder);
    records.write(&batch((1..=3).map(call))).unwrap();
    let mut changes = batch([call(4)]);
    ["s2", "s9"].iter().for_each(|id| changes.remove::<Call>(id));
    records.write(&changes).unwrap();
    assert_eq!(ids(&records), ["s1", "s3", "s4"]);
    let mut changes = batch([call(5)]);
    changes.clear::<Call>();
    records.write(&changes).unwrap();
    assert_eq!((ids(&records), records.sizes[0].rows), (vec!["s5".into()], 1));
}

#[test]
fn full_disk_takes_none_of_a_batch() {
    let folder = tempdir().unwrap();
    let mut records = open(&folder);
    let pages = |records: &Records, pages: u32| {
        let set =
            records.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        set.unwrap();
    };
    pages(&records, 1);
    let mut changes = batch([call(1)]);
    let long = Call { totals: json!("x".repeat(100_000)), ..call(2) };
    changes.insert::<Call>(&long);
    let error = records.write(&changes).unwrap_err();
    assert_eq!(error.to_string(), "database or disk is full");
    assert_eq!((read(&records), records.sizes[0].rows), (Vec::new(), 0));
    pages(&records, 1_000);
    records.write(&batch([call(1)])).unwrap();
    assert_eq!(ids(&records), ["s1"]);
}

#[test]
fn table_of_another_version_is_refused_with_both_versions() {
    let folder = tempdir().unwrap();
    open(&folder).write(&batch([call(1)])).unwrap();
    let connection = Connection::open(path(&folder)).unwrap();
    connection.execute("UPDATE record_table SET version = 4", []).unwrap();
    let error = Records::open(&path(&folder), &[Call::TABLE]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "its table call-records has version 4, this gateway reads version 3"
    );
    connection.pragma_update(None, "user_version", 2).unwrap();
    let error = Records::open(&path(&folder), &[Call::TABLE]).unwrap_err();
    assert_eq!(error.to_string(), "it has version 2, this gateway reads version 1");
    let rows = "SELECT count(*) FROM call_records";
    assert_eq!(connection.query_row(rows, [], |row| row.get::<_, u32>(0)).unwrap(), 1);
}

#[test]
fn damaged_record_is_skipped() {
    let folder = tempdir().unwrap();
    let mut records = open(&folder);
    records.write(&batch((1..=2).map(call))).unwrap();
    let damage = "UPDATE call_records SET ended_us = NULL WHERE id = 's1'";
    records.connection.execute(damage, []).unwrap();
    assert_eq!(ids(&records), ["s2"]);
}

#[test]
fn only_this_user_may_read_and_one_process_writes() {
    let folder = tempdir().unwrap();
    let lock = WriterLock::take(&path(&folder)).unwrap();
    let _records = open(&folder);
    for ending in ["", "-wal", "-shm", ".lock"] {
        let file = disk::with(&path(&folder), ending);
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{ending}");
    }
    assert!(WriterLock::take(&path(&folder)).unwrap().is_none());
    drop(lock);
    assert!(WriterLock::take(&path(&folder)).unwrap().is_some());
}

/// Keeps what a test sends.
struct Keeper {
    calls: Receiver<Call>,
    unwritten: Vec<Call>,
    read: Arc<Mutex<Vec<Call>>>,
}

impl RecordKeeper for Keeper {
    fn tables(&self) -> &'static [RecordTable] {
        &[Call::TABLE]
    }

    fn receive(&mut self, at_most: usize) -> usize {
        let before = self.unwritten.len();
        self.unwritten.extend(self.calls.try_iter().take(at_most));
        self.unwritten.len() - before
    }

    fn read(&mut self, reader: &RecordReader<'_>) -> Result<bool, DiskError> {
        self.read.lock().unwrap().extend(reader.newest::<Call>(100)?);
        Ok(true)
    }

    fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    fn batch(&mut self) -> RecordBatch {
        batch(self.unwritten.first().cloned())
    }

    fn note_written(&mut self, _: &Path) {
        self.unwritten.remove(0);
    }

    fn note_other_disk(&mut self) {}
}

/// A process that keeps calls.
struct Process {
    calls: Sender<Call>,
    read: Arc<Mutex<Vec<Call>>>,
    writer: RecordWriter,
}

impl Process {
    fn start(folder: &TempDir) -> Process {
        let (calls, told) = mpsc::channel();
        let read = Arc::<Mutex<Vec<Call>>>::default();
        let keeper = Keeper { calls: told, unwritten: Vec::new(), read: Arc::clone(&read) };
        let writer = RecordWriter::new(Box::new(keeper), Some(path(folder)));
        Process { calls, read, writer }
    }

    fn send(&mut self, number: u64) {
        self.calls.send(call(number)).unwrap();
        self.writer.receive();
    }

    fn read(&self) -> Vec<Call> {
        self.read.lock().unwrap().clone()
    }
}

#[test]
fn disk_that_takes_nothing_is_read() {
    let folder = tempdir().unwrap();
    open(&folder).write(&batch([call(1)])).unwrap();
    // The index of the log cannot be created, as on a full disk: SQLite follows no link.
    let index = disk::with(&path(&folder), "-shm");
    symlink("nowhere", &index).unwrap();
    let mut process = Process::start(&folder);
    assert!(matches!(process.writer.turn(), RecordTurn::Failed(_)));
    assert_eq!(process.read(), [call(1)]);
    process.send(2);
    fs::remove_file(&index).unwrap();
    assert!(matches!(process.writer.turn(), RecordTurn::Written));
    assert_eq!((process.read().len(), ids(&open(&folder))), (1, vec!["s1".into(), "s2".into()]));
}

#[test]
fn records_of_the_writing_process_are_read_after_it_ends() {
    let folder = tempdir().unwrap();
    let [mut old, mut new] = [0, 1].map(|_| Process::start(&folder));
    assert!(matches!(old.writer.turn(), RecordTurn::Written));
    assert!(matches!(new.writer.turn(), RecordTurn::LockedByOther));
    old.send(1);
    assert!(new.read().is_empty());
    old.writer.end();
    drop(old);
    assert!(matches!(new.writer.turn(), RecordTurn::Written));
    assert_eq!(new.read(), [call(1)]);
}

#[test]
fn turns_come_when_something_is_to_be_done() {
    let folder = tempdir().unwrap();
    let mut process = Process::start(&folder);
    assert!(process.writer.due_within().is_zero());
    process.writer.turn();
    assert!((GATHERED_FOR..=LIVES_EVERY).contains(&process.writer.due_within()));
    process.send(1);
    assert!(process.writer.due_within() <= GATHERED_FOR);
    process.send(2);
    process.writer.turn();
    assert!(process.writer.due_within().is_zero(), "a part is left");
    process.writer.turn();
    assert!(process.writer.due_within() > GATHERED_FOR);
    // A disk that fails is not tried for each record.
    fs::remove_dir_all(folder.path().join("kept")).unwrap();
    fs::write(folder.path().join("kept"), "a file").unwrap();
    process.send(3);
    process.writer.turn();
    assert!(process.writer.due_within() > GATHERED_FOR);
}

/// The database of the gateway with the socket `/a.sock`.
fn database(folder: &TempDir) -> PathBuf {
    let name = file::name_of(Path::new("/a.sock"));
    folder.path().join("kept").join(format!("{name}.sqlite"))
}

/// Waits until the table has so many rows.
fn await_rows(folder: &TempDir, rows: u32) {
    let count = || {
        let connection = Connection::open(database(folder))?;
        connection.query_row("SELECT count(*) FROM call_records", [], |row| row.get::<_, u32>(0))
    };
    let until = Instant::now() + WITHIN;
    while count() != Ok(rows) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A document that is written again and again.
#[derive(Serialize, Deserialize)]
struct Note(u64);

impl Document for Note {
    const KIND: Kind = Kind { name: "note", version: 1, rows_max: 1, copy: FollowerCopy::None };
}

fn put_again(notes: &Documents<Note>, note: u64, ends: Arc<AtomicBool>) {
    let again = notes.clone();
    notes.put_and(Encoded::new("", &Note(note)), move |written| {
        written.unwrap();
        if !ends.load(Ordering::Relaxed) {
            put_again(&again, note + 1, ends);
        }
    });
}

#[test]
fn records_are_written_between_documents() {
    let folder = tempdir().unwrap();
    let (store, unwritten) = (Store::default(), UnwrittenDocuments::default());
    let notes = store.documents::<Note>();
    let _thread = store.open(Some(folder.path()), Path::new("/a.sock"), &unwritten).unwrap();
    store.begin(WITHIN);
    let ends = Arc::<AtomicBool>::default();
    put_again(&notes, 1, Arc::clone(&ends));
    let ((calls, told), read) = (mpsc::channel(), Arc::default());
    store.keep_records(Keeper { calls: told, unwritten: Vec::new(), read });
    calls.send(call(1)).unwrap();
    await_rows(&folder, 1);
    ends.store(true, Ordering::Relaxed);
}

#[test]
fn thread_writes_records_and_reports_a_slow_disk() {
    let folder = tempdir().unwrap();
    let (store, unwritten) = (Store::default(), UnwrittenDocuments::default());
    let _thread = store.open(Some(folder.path()), Path::new("/a.sock"), &unwritten).unwrap();
    let (calls, told) = mpsc::channel();
    let read = Arc::default();
    store.keep_records(Keeper { calls: told, unwritten: Vec::new(), read });
    assert!(unwritten.documents().contains("call-records"));
    calls.send(call(1)).unwrap();
    store.tell_of_records();
    await_rows(&folder, 1);
    let until = Instant::now() + WITHIN;
    let other = Connection::open(database(&folder)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    calls.send(call(2)).unwrap();
    store.tell_of_records();
    while unwritten.list().is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
        store.report_slow_disk();
    }
    let [slow] = &unwritten.list()[..] else { panic!("one") };
    assert_eq!(slow.document, "call-records");
    assert!(slow.reason.starts_with("the disk has not answered for "), "{slow}");
    other.execute_batch("COMMIT").unwrap();
    await_rows(&folder, 2);
    while !unwritten.list().is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
}
