//! The one owner of the table, and its thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use evenkeel_process::documents::{UnwrittenDocuments, WRITTEN_AGAIN_WITHIN};
use evenkeel_process::{file, lock, unix_us};

use super::disk::{self, Disk, GATHERED_FOR};
use super::document::{Document, EarlierDocument, Encoded, FollowerCopy, Kind, Row, decode};
use super::exchange::{Follower, KeptPart, KeptRow};
use super::files::FileFolder;
use super::records::{RecordKeeper, RecordTurn, RecordWriter};
use super::table::{Batch, EarlierRow, EarlierRows, RowPlace, Table, TableRow};

/// Rows of a transaction: some milliseconds of the disk, so that the next acknowledgement does not wait longer.
const WRITTEN_TOGETHER: usize = 1_024;

/// A disk that has not answered for this time is reported.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// Rows with an acknowledgement wait for so long after a failure: each offer with a token has one.
const REFUSED_FOR: Duration = Duration::from_millis(100);

/// Maximum number of callers that wait for the disk: more than the offers of [`SLOW_AFTER`].
const WAITING_MAX: usize = 4_096;

/// The end of the process waits for the disk for this time.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Maximum size of a file of an earlier version, bytes: that of forecasts.
const EARLIER_BYTES_MAX: u64 = 16 << 20;

/// Called once a row is on the disk, or with the reason for which it is not.
type Done = Box<dyn FnOnce(Result<(), Arc<str>>) + Send>;

/// A caller that waits until the disk has the rows up to a change.
struct Waiting {
    /// The kind of the caller's rows.
    kind: &'static str,
    change: u64,
    done: Done,
}

/// Reads the rows of a kind.
#[derive(Clone, Copy)]
struct KindReader {
    kind: Kind,
    earlier_files: fn(&str) -> Vec<PathBuf>,
    read_earlier: fn(&[u8]) -> io::Result<Vec<EarlierDocument>>,
    earlier_replaces: bool,
    merge: fn(&KeptRow, &TableRow) -> Option<Arc<str>>,
    has_files: bool,
    file_names: FileNames,
}

/// The names of the files that a row names. `None` if the row cannot be read.
type FileNames = fn(&TableRow) -> Option<Vec<Arc<str>>>;

impl KindReader {
    fn new<D: Document>() -> KindReader {
        const { assert!(!D::HAS_FILES || matches!(D::KIND.copy, FollowerCopy::None)) };
        KindReader {
            kind: D::KIND,
            earlier_files: D::earlier_files,
            read_earlier: D::read_earlier,
            earlier_replaces: D::EARLIER_REPLACES,
            merge: merge::<D>,
            has_files: D::HAS_FILES,
            file_names: file_names::<D>,
        }
    }
}

/// `None` if one of them cannot be read.
fn merge<D: Document>(kept: &KeptRow, own: &TableRow) -> Option<Arc<str>> {
    let kept = decode(kept.version, &kept.value).ok()?;
    let own = decode(own.version, &own.value).ok()?;
    Some(Encoded::new("", &D::merge(kept, own)).value)
}

fn file_names<D: Document>(row: &TableRow) -> Option<Vec<Arc<str>>> {
    decode::<D>(row.version, &row.value).ok()?.file_names()
}

/// All documents of a gateway. Before [`Store::open`], and without a folder, they are in memory only.
#[derive(Clone, Default)]
pub struct Store(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified of changes of the state, and of records that came.
    changed: Condvar,
    /// The keeper of records has not been asked to take those that came.
    have_records_come: AtomicBool,
}

#[derive(Default)]
struct State {
    table: Table,
    readers: Vec<KindReader>,
    waiting: Vec<Waiting>,
    /// `None`: documents end with the process.
    place: Option<Place>,
    unwritten: UnwrittenDocuments,
    /// The first change that is not being written.
    changed_since: Option<Instant>,
    writing_since: Option<Instant>,
    /// The keeper of records, until the thread has it.
    keeper: Option<Box<dyn RecordKeeper>>,
    /// The names of the records that are being written.
    writing_records: Vec<&'static str>,
    role: Role,
    disk_rows: DiskRows,
    when_late: Option<Arc<dyn Fn() + Send + Sync>>,
    thread: ThreadState,
}

/// The part of this process in the documents.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Role {
    /// Another process may own them.
    #[default]
    Follows,
    Owns,
}

/// The rows that earlier processes left on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum DiskRows {
    /// The disk was not asked for them, or has not answered.
    #[default]
    Awaited,
    /// It could not be read, and is tried again.
    Failed,
    /// [`Store::begin`] went on without them.
    Late,
    /// They came late: they are in the table, and their readers have not read them.
    LateAdded,
    /// They are in the table.
    Added,
}

impl DiskRows {
    fn are_added(self) -> bool {
        matches!(self, DiskRows::LateAdded | DiskRows::Added)
    }
}

/// The thread that writes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum ThreadState {
    #[default]
    Runs,
    /// It writes the last rows.
    Ends,
    Ended,
}

/// The rows of earlier processes that an owner of documents has read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum EarlierRead {
    /// None yet.
    #[default]
    Nothing,
    /// The rows of this process: the disk has not answered.
    WithoutDisk,
    /// All.
    All,
}

impl EarlierRead {
    /// Returns true if the owner has to read them: at first, and once more after a disk answered late.
    pub fn is_due(&mut self, store: &Store) -> bool {
        let next = match store.expects_late() {
            true => EarlierRead::WithoutDisk,
            false => EarlierRead::All,
        };
        let before = *self;
        if before != EarlierRead::All {
            *self = next;
        }
        before != *self
    }
}

/// The place of the database.
#[derive(Clone, Debug)]
struct Place {
    cache: PathBuf,
    /// The name of the gateway's files.
    name: String,
    path: PathBuf,
    files: FileFolder,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// The thread that writes. Dropping it waits until the disk has all rows, or has refused them, for 5 s at most.
#[derive(Debug)]
pub struct StoreThread {
    store: Store,
    thread: Option<JoinHandle<()>>,
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let mut state = self.store.lock();
        if state.thread == ThreadState::Runs {
            state.thread = ThreadState::Ends;
        }
        self.store.0.changed.notify_all();
        let runs = |state: &mut State| state.thread != ThreadState::Ended;
        let waited = self.store.0.changed.wait_timeout_while(state, ENDS_WITHIN, runs);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let thread_state = state.thread;
        drop(state);
        if thread_state == ThreadState::Ended {
            // A panic of the thread is in the log.
            let _ = thread.join();
        } else {
            tracing::warn!("the disk does not answer; ending without the last documents");
        }
    }
}

/// The documents of a kind.
pub struct Documents<D> {
    store: Store,
    kind: PhantomData<fn() -> D>,
}

impl<D> Clone for Documents<D> {
    fn clone(&self) -> Documents<D> {
        Documents { store: self.store.clone(), kind: PhantomData }
    }
}

impl<D> fmt::Debug for Documents<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").finish_non_exhaustive()
    }
}

impl<D: Document> Documents<D> {
    /// Puts a row.
    pub fn put(&self, key: &str, value: &D) {
        self.put_encoded(Encoded::new(key, value));
    }

    /// As [`Documents::put`].
    pub fn put_encoded(&self, row: Encoded<D>) {
        self.change(self.store.lock(), row, BTreeMap::new(), None);
    }

    /// As [`Documents::put_encoded`], unless another thread has the table: returns false then. Threads of lower priority have it for
    /// moments.
    pub fn put_now(&self, row: Encoded<D>) -> bool {
        let Some(state) = self.store.try_lock() else { return false };
        self.change(state, row, BTreeMap::new(), None);
        true
    }

    /// Puts a row, and calls `done` once it is on the disk, or with the reason for which it is not. It is written later then. Without
    /// a disk it is called at once.
    pub fn put_and(
        &self,
        row: Encoded<D>,
        done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static,
    ) {
        self.change(self.store.lock(), row, BTreeMap::new(), Some(Box::new(done)));
    }

    /// Puts a row that names these files, by their names. It is written once the disk has them; those that it has are not written
    /// again.
    pub fn put_with_files(&self, row: Encoded<D>, files: BTreeMap<Arc<str>, Bytes>) {
        self.change(self.store.lock(), row, files, None);
    }

    /// Calls `done` once all rows that were put so far are on the disk, or with the reason for which they are not. Without a disk it is
    /// called at once.
    pub fn when_written(&self, done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static) {
        let state = self.store.lock();
        let newest = state.table.newest();
        self.await_change(state, newest, Some(Box::new(done)));
    }

    /// Reads a file that a row names, of at most so many bytes. `None` without it, or if its bytes do not have this name. Waits for the
    /// disk.
    pub fn file(&self, name: &str, bytes_max: u64) -> Option<Bytes> {
        let place = self.store.lock().place.clone()?;
        place.files.read(name, bytes_max)
    }

    /// The row with this key.
    pub fn row(&self, key: &str) -> Option<Row<D>> {
        let state = self.store.lock();
        let row = state.table.row(D::KIND.name, key)?;
        Some(row_of(&key.into(), row))
    }

    /// The document with this key. One that cannot be read is reported.
    pub fn get(&self, key: &str) -> Option<D> {
        self.row(key).as_ref().and_then(read)
    }

    /// All rows, in the order of their changes.
    pub fn rows(&self) -> Vec<Row<D>> {
        rows_of(&self.store.lock().table)
    }

    /// The rows that earlier processes left on the disk, before [`Store::begin`]: a process that follows another one continues them until
    /// it has the rows of that one. Waits for the disk. A damaged database and one of a later version have none.
    ///
    /// # Errors
    /// With the path of the database, if it cannot be read, or is busy for some seconds.
    pub fn rows_of_disk(&self) -> io::Result<Vec<Row<D>>> {
        let Some(place) = self.store.lock().place.clone() else { return Ok(Vec::new()) };
        let file = place.path.display();
        let kept = match Disk::read_kind(&place.path, D::KIND.name) {
            Ok(kept) => kept,
            Err(error) if error.is_damage() || error.is_newer() => {
                tracing::warn!(document = D::KIND.name, %file, %error, "database cannot be read; starting without its documents");
                Vec::new()
            }
            Err(error) => return Err(io::Error::other(format!("{file}: {error}"))),
        };
        let earlier = read_earlier(&place, &[KindReader::new::<D>()], &mut Vec::new());
        let mut table = Table::default();
        table.register(D::KIND);
        table.add_kept(kept, earlier, unix_us(SystemTime::now()));
        Ok(rows_of(&table))
    }

    /// The store of these documents.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn change(
        &self,
        mut state: MutexGuard<'_, State>,
        row: Encoded<D>,
        files: BTreeMap<Arc<str>, Bytes>,
        done: Option<Done>,
    ) {
        let now = unix_us(SystemTime::now());
        let change = state.table.put(D::KIND, &row.key, row.value, files, now);
        if state.may_write() && !state.table.is_written() {
            state.changed_since.get_or_insert_with(Instant::now);
        }
        self.await_change(state, change, done);
    }

    /// Calls `done` once the disk has the rows up to this change.
    fn await_change(&self, mut state: MutexGuard<'_, State>, change: u64, done: Option<Done>) {
        let (mut answered, mut answer) = (done, Ok(()));
        if state.place.is_some() {
            if !state.may_write() {
                answer = Err("another process owns the documents".into());
            } else if state.waiting.len() >= WAITING_MAX {
                answer = Err("the disk does not answer".into());
            } else {
                let waiting = |done| Waiting { kind: D::KIND.name, change, done };
                state.waiting.extend(answered.take().map(waiting));
            }
        }
        drop(state);
        self.store.0.changed.notify_all();
        answered.into_iter().for_each(|done| done(answer.clone()));
    }
}

fn rows_of<D: Document>(table: &Table) -> Vec<Row<D>> {
    table.rows(D::KIND.name).map(|(key, row)| row_of(key, row)).collect()
}

fn row_of<D>(key: &Arc<str>, row: &TableRow) -> Row<D> {
    let (key, value) = (Arc::clone(key), Arc::clone(&row.value));
    Row { key, at_us: row.at_us, version: row.version, value, document: PhantomData }
}

fn read<D: Document>(row: &Row<D>) -> Option<D> {
    row.decode().map_err(|error| {
        tracing::warn!(document = D::KIND.name, key = %row.key, %error, "document cannot be read; continuing without");
    }).ok()
}

impl Store {
    /// The documents of a kind. A kind with files of earlier versions, or with rows for followers, is registered by this before
    /// [`Store::begin`], and before the first part of another process comes.
    pub fn documents<D: Document>(&self) -> Documents<D> {
        let mut state = self.lock();
        state.table.register(D::KIND);
        state.unwritten.register(D::KIND.name);
        if !state.readers.iter().any(|reader| reader.kind.name == D::KIND.name) {
            state.readers.push(KindReader::new::<D>());
        }
        drop(state);
        Documents { store: self.clone(), kind: PhantomData }
    }

    /// Keeps the documents in the database of the gateway with this API socket, from [`Store::begin`] on, or from the first whole copy
    /// of another process's documents on.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn open(
        &self,
        cache: Option<&Path>,
        socket: &Path,
        unwritten: &UnwrittenDocuments,
    ) -> io::Result<StoreThread> {
        let name = file::name_of(socket);
        let mut state = self.lock();
        let kinds = state.readers.iter().map(|reader| reader.kind.name);
        let tables = state.keeper.iter().flat_map(|keeper| keeper.tables());
        kinds.chain(tables.map(|table| table.name)).for_each(|name| unwritten.register(name));
        state.unwritten = unwritten.clone();
        state.place = cache.map(|cache| {
            let path = cache.join("kept").join(format!("{name}.sqlite"));
            Place { cache: cache.to_owned(), name, files: FileFolder::of(&path), path }
        });
        let place = state.place.clone();
        drop(state);
        let writer = Writer {
            store: self.clone(),
            place,
            disk: None,
            records: None,
            last_work: Work::Records,
            tried: None,
            files_tried: None,
            is_removal_due: true,
            earlier: Vec::new(),
        };
        let store = self.clone();
        let run = move || {
            writer.run();
            store.lock().thread = ThreadState::Ended;
            store.0.changed.notify_all();
        };
        let thread = std::thread::Builder::new().name("kept".into()).spawn(run)?;
        Ok(StoreThread { store: self.clone(), thread: Some(thread) })
    }

    /// This process owns the documents from now on. Without a whole copy of those of another process it continues those of the disk;
    /// it waits for them for this time. Returns true if it has read them now.
    pub fn begin(&self, within: Duration) -> bool {
        let mut state = self.lock();
        let (was_added, is_copied) = (state.disk_rows.are_added(), state.table.is_copied());
        state.table.begin();
        if std::mem::replace(&mut state.role, Role::Owns) == Role::Owns || state.place.is_none() {
            return false;
        }
        self.0.changed.notify_all();
        if is_copied {
            return false;
        }
        let until = Instant::now() + within;
        while state.disk_rows == DiskRows::Awaited {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("the disk does not answer; starting without documents");
                break;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !state.disk_rows.are_added() {
            state.disk_rows = DiskRows::Late;
        }
        !was_added && state.disk_rows.are_added()
    }

    /// Has the thread of the store keep these records from now on, also without a folder, and before [`Store::begin`]. There is one
    /// keeper.
    pub fn keep_records(&self, keeper: impl RecordKeeper + 'static) {
        let mut state = self.lock();
        keeper.tables().iter().for_each(|table| state.unwritten.register(table.name));
        state.keeper = Some(Box::new(keeper));
        // The thread may wait without a limit until it has the keeper.
        self.0.have_records_come.store(true, Ordering::Release);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Has the keeper take the records that came. Waits for no other thread.
    pub fn tell_of_records(&self) {
        self.0.have_records_come.store(true, Ordering::Release);
        // The thread may be about to wait. It looks again within a second.
        self.0.changed.notify_all();
    }

    /// Calls this once the disk has answered, if [`Store::begin`] went on without its rows.
    pub fn when_late(&self, call: impl Fn() + Send + Sync + 'static) {
        self.lock().when_late = Some(Arc::new(call));
    }

    /// Returns true while [`Store::begin`] went on without the rows of the disk, which may come.
    pub fn expects_late(&self) -> bool {
        self.lock().disk_rows == DiskRows::Late
    }

    /// Returns true once after late rows were added.
    pub fn take_late(&self) -> bool {
        let mut state = self.lock();
        let is_added = state.disk_rows == DiskRows::LateAdded;
        if is_added {
            state.disk_rows = DiskRows::Added;
        }
        is_added
    }

    /// The next part of the documents for a follower; `None` if it has all rows.
    pub fn next_part(&self, follower: &mut Follower, bytes_max: usize) -> Option<KeptPart> {
        self.lock().table.next_part(follower, bytes_max)
    }

    /// As [`Store::next_part`], and `None` as well while another thread has the table: the next turn gets the part then. Threads of lower
    /// priority have it for moments.
    pub fn next_part_now(&self, follower: &mut Follower, bytes_max: usize) -> Option<KeptPart> {
        self.try_lock()?.table.next_part(follower, bytes_max)
    }

    /// The number of parts that bring a follower all rows.
    pub fn parts_left(&self, follower: &Follower, bytes_max: usize) -> usize {
        self.lock().table.parts_left(follower, bytes_max)
    }

    /// Returns whether there is a part for the follower; false while another thread has the table.
    pub fn has_part(&self, follower: &Follower) -> bool {
        self.try_lock().is_some_and(|state| state.table.has_news(follower))
    }

    /// Adds a part of the documents of another process, which this one follows.
    pub fn add_part(&self, part: KeptPart) {
        let mut state = self.lock();
        state.table.add_part(part);
        if state.may_write() {
            state.changed_since.get_or_insert_with(Instant::now);
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Reports a disk that has not answered for some time.
    pub fn report_slow_disk(&self) {
        let state = self.lock();
        let since = state.writing_since.map(|since| since.elapsed());
        if let (Some(since), Some(place)) =
            (since.filter(|since| *since > SLOW_AFTER), &state.place)
        {
            let slow =
                || io::Error::other(format!("the disk has not answered for {} s", since.as_secs()));
            let kinds = state.table.unwritten_kinds();
            let names = kinds.iter().chain(&state.writing_records);
            names.for_each(|name| state.unwritten.note(*name, &place.path, &Err(slow())));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is usable: no panic is between two changes of the table.
        lock(&self.0.state)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.0.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl State {
    /// Rows that came from another process are written once all are here.
    fn may_write(&self) -> bool {
        self.role == Role::Owns || self.table.is_copied()
    }

    /// Adds what the disk has to rows that were put without it.
    fn merge_late(&mut self, kept: &[KeptRow], at_us: u64) {
        for row in kept {
            let reader = self.readers.iter().find(|reader| *reader.kind.name == *row.kind);
            if let Some(KindReader { kind, merge, .. }) = reader.copied()
                && let Some(own) = self.table.row(kind.name, &row.key)
                && let Some(merged) = merge(row, own)
            {
                let files = own.files.clone();
                self.table.put(kind, &row.key, merged, files, at_us);
            }
        }
    }

    fn take_waiting(&mut self, is_over: impl Fn(&Waiting) -> bool) -> Vec<Done> {
        let over = self.waiting.extract_if(.., |waiting| is_over(waiting));
        over.map(|waiting| waiting.done).collect()
    }

    /// Returns true for a caller that waits for a file: rows of its kind are held.
    fn awaits_file(&self, waiting: &Waiting) -> bool {
        self.table.held_kinds().any(|kind| kind == waiting.kind)
    }

    /// Lets a held row be written: the disk has its files.
    fn release(&mut self, place: &RowPlace, change: u64) {
        let Some(change) = self.table.release(place, change) else { return };
        let of_kind = self.waiting.iter_mut().filter(|waiting| waiting.kind == place.kind);
        of_kind.for_each(|waiting| waiting.change = change);
    }

    /// The rows that may name files, each with the function that reads their names.
    fn rows_with_files(&self) -> Vec<(FileNames, TableRow)> {
        let readers = self.readers.iter().filter(|reader| reader.has_files);
        let rows = readers.flat_map(|reader| {
            self.table.rows(reader.kind.name).map(|(_, row)| (reader.file_names, row.clone()))
        });
        rows.collect()
    }
}

/// The thread, with a connection for documents and one for records.
struct Writer {
    store: Store,
    /// `None`: nothing is written.
    place: Option<Place>,
    disk: Option<Disk>,
    records: Option<RecordWriter>,
    last_work: Work,
    /// The time of the last attempt to write rows, if it failed.
    tried: Option<Instant>,
    /// The time of the last attempt to write a file, if it failed.
    files_tried: Option<Instant>,
    /// Files may be there that no row names.
    is_removal_due: bool,
    /// Files of earlier versions of which the rows are in the table.
    earlier: Vec<PathBuf>,
}

/// The kinds of work of the thread, in turn: an acknowledgement waits for one file and one transaction of records at most.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Rows,
    Files,
    Records,
}

impl Work {
    /// All, the one after this first.
    fn following(self) -> [Work; 3] {
        match self {
            Work::Rows => [Work::Files, Work::Records, Work::Rows],
            Work::Files => [Work::Records, Work::Rows, Work::Files],
            Work::Records => [Work::Rows, Work::Files, Work::Records],
        }
    }
}

enum Turn {
    Open,
    Write(Batch),
    /// Write the next file of a held row.
    WriteFile,
    /// Take the records that came.
    Receive,
    WriteRecords,
    End,
}

impl Writer {
    fn run(mut self) {
        loop {
            self.receive_records();
            match self.next_turn() {
                Turn::Open => self.open(),
                Turn::Write(batch) => self.write(&batch),
                Turn::WriteFile => self.write_file(),
                Turn::Receive => {}
                Turn::WriteRecords => self.write_records(),
                Turn::End => return self.end(),
            }
        }
    }

    fn receive_records(&mut self) {
        let keeper = self.store.lock().keeper.take();
        if let Some(keeper) = keeper {
            let path = self.place.as_ref().map(|place| place.path.clone());
            self.records = Some(RecordWriter::new(keeper, path));
        }
        self.records.iter_mut().for_each(RecordWriter::receive);
    }

    fn write_records(&mut self) {
        let (Some(records), Some(place)) = (&mut self.records, &self.place) else { return };
        let names: Vec<_> = records.tables().iter().map(|table| table.name).collect();
        let mut state = self.store.lock();
        (state.writing_since, state.writing_records) = (Some(Instant::now()), names.clone());
        drop(state);
        let turn = records.turn();
        let mut state = self.store.lock();
        state.writing_since = None;
        state.writing_records.clear();
        let written = match turn {
            RecordTurn::Written => Ok(()),
            RecordTurn::LockedByOther => return,
            RecordTurn::Failed(error) => Err(io::Error::other(error.to_string())),
        };
        names.iter().for_each(|name| state.unwritten.note(*name, &place.path, &written));
    }

    /// Tries for the last time to write rows and files that the disk did not take.
    fn end(&mut self) {
        self.records.iter_mut().for_each(RecordWriter::end);
        if self.tried.is_none() && self.files_tried.is_none() {
            return;
        }
        if self.disk.is_none() {
            self.open();
        }
        self.files_tried = None;
        while self.files_tried.is_none() && self.lacks_files(&self.store.lock()) {
            self.write_file();
        }
        let batch = self.store.lock().table.batch(usize::MAX);
        self.write(&batch);
    }

    fn next_turn(&mut self) -> Turn {
        let store = self.store.clone();
        let mut state = store.lock();
        loop {
            let awaits_row = |it| self.disk.is_none() || !state.awaits_file(it);
            let is_urgent = state.waiting.iter().any(awaits_row);
            let is_file_urgent = state.waiting.iter().any(|it| state.awaits_file(it));
            let ends = state.thread != ThreadState::Runs;
            let left =
                |since: Instant, wait| (since + wait).saturating_duration_since(Instant::now());
            let again = |tried: Option<Instant>, is_urgent| {
                let within = if is_urgent { REFUSED_FOR } else { WRITTEN_AGAIN_WITHIN };
                tried.map(|tried| left(tried, within))
            };
            let gathered = state.changed_since.map(|since| left(since, GATHERED_FOR));
            let is_pending = self.place.is_some()
                && state.may_write()
                && (self.disk.is_none() || !state.table.is_written() || is_urgent);
            let rows = match again(self.tried, is_urgent) {
                _ if !is_pending => None,
                // For the last attempt see [`Writer::end`].
                Some(_) if ends => None,
                Some(again) => Some(again),
                None if is_urgent || ends || self.disk.is_none() => Some(Duration::ZERO),
                None => Some(gathered.unwrap_or_default()),
            };
            let files = match again(self.files_tried, is_file_urgent) {
                _ if !self.lacks_files(&state) => None,
                Some(_) if ends => None,
                again => Some(again.unwrap_or_default()),
            };
            let records = self.records.as_ref().filter(|_| !ends).map(RecordWriter::due_within);
            let due_within = |work| match work {
                Work::Rows => rows,
                Work::Files => files,
                Work::Records => records,
            };
            let is_due = |work: &Work| due_within(*work).is_some_and(|wait| wait.is_zero());
            if let Some(work) = self.last_work.following().into_iter().find(is_due) {
                self.last_work = work;
                match work {
                    Work::Rows if self.disk.is_none() => return Turn::Open,
                    Work::Rows => {
                        state.changed_since = None;
                        state.writing_since = Some(Instant::now());
                        return Turn::Write(state.table.batch(WRITTEN_TOGETHER));
                    }
                    Work::Files => return Turn::WriteFile,
                    Work::Records => return Turn::WriteRecords,
                }
            }
            if store.0.have_records_come.swap(false, Ordering::Acquire) {
                return Turn::Receive;
            }
            let changed = &store.0.changed;
            state = match [rows, files, records].into_iter().flatten().min() {
                _ if ends => return Turn::End,
                Some(wait) => {
                    changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            if self.records.is_some() {
                return Turn::Receive;
            }
        }
    }

    /// Opens the database, and adds its rows and those of files of earlier versions to the table. From a disk that takes nothing they
    /// are read.
    fn open(&mut self) {
        let Some(place) = self.place.clone() else { return };
        let opened = Disk::open(&place.path);
        let store = self.store.clone();
        // No other thread adds them.
        let were_added = store.lock().disk_rows.are_added();
        let (disk, rows) = match opened {
            Ok((disk, rows)) => (Ok(disk), Some(rows)),
            Err(error) if were_added || error.is_busy() => (Err(error), None),
            Err(error) => {
                let rows = Disk::read_only(&place.path, &error);
                (Err(error), rows.ok())
            }
        };
        let rows = rows.filter(|_| !were_added);
        let earlier = match rows {
            Some(_) => {
                let readers = store.lock().readers.clone();
                read_earlier(&place, &readers, &mut self.earlier)
            }
            None => Vec::new(),
        };
        let mut state = store.lock();
        let is_late = state.disk_rows == DiskRows::Late && !state.table.is_copied();
        let mut when_late = None;
        if let Some(rows) = rows {
            let at_us = unix_us(SystemTime::now());
            if is_late {
                state.merge_late(&rows, at_us);
                when_late = state.when_late.clone();
            }
            state.disk_rows = if is_late { DiskRows::LateAdded } else { DiskRows::Added };
            state.table.add_kept(rows, earlier, at_us);
            // Their changes have other numbers now.
            let newest = state.table.newest();
            state.waiting.iter_mut().for_each(|waiting| waiting.change = newest);
        } else if disk.is_ok() {
            state.table.note_other_disk();
            let newest = state.table.newest();
            state.waiting.iter_mut().for_each(|waiting| waiting.change = newest);
        } else if state.disk_rows == DiskRows::Awaited {
            state.disk_rows = DiskRows::Failed;
        }
        match disk {
            Ok(disk) => {
                self.disk = Some(disk);
                self.tried = None;
                drop(state);
            }
            Err(error) => {
                if self.tried.is_none() {
                    let file = place.path.display();
                    tracing::warn!(%file, %error, "database cannot be opened; documents are kept in memory");
                }
                self.tried = Some(Instant::now());
                let kinds = state.table.unwritten_kinds();
                fail(state, &place.path, &kinds, &error, |_| true);
            }
        }
        when_late.into_iter().for_each(|call| call());
        self.store.0.changed.notify_all();
    }

    fn write(&mut self, batch: &Batch) {
        let (Some(disk), Some(place)) = (&mut self.disk, self.place.clone()) else { return };
        if disk.is_moved() {
            self.disk = None;
            self.store.lock().writing_since = None;
            return;
        }
        let written = disk.write(batch);
        let store = self.store.clone();
        let mut state = store.lock();
        state.writing_since = None;
        let kinds: BTreeSet<_> = batch.rows.iter().map(|it| it.place.kind).collect();
        match written {
            Ok(()) => {
                self.tried = None;
                state.table.note_written(batch);
                let held: BTreeSet<_> = state.table.held_kinds().collect();
                let done = state.take_waiting(|waiting| {
                    waiting.change <= batch.change && !held.contains(waiting.kind)
                });
                kinds
                    .difference(&held)
                    .for_each(|kind| state.unwritten.note(*kind, &place.path, &Ok(())));
                let has_all = state.table.is_whole();
                let runs = state.thread == ThreadState::Runs;
                let names_files =
                    |reader: &KindReader| reader.has_files && kinds.contains(reader.kind.name);
                let is_removal_due =
                    self.is_removal_due && has_all && runs && state.readers.iter().any(names_files);
                let rows = is_removal_due.then(|| state.rows_with_files());
                drop(state);
                done.into_iter().for_each(|done| done(Ok(())));
                if let Some(rows) = rows {
                    self.is_removal_due = false;
                    remove_unnamed(&place.files, &rows);
                }
                if has_all {
                    let earlier = std::mem::take(&mut self.earlier);
                    earlier.iter().for_each(|file| disk::move_aside(file, &place.path));
                }
            }
            Err(error) => {
                self.tried = Some(Instant::now());
                if error.is_damage() {
                    self.disk = None;
                    Disk::set_aside(&place.path, &error);
                }
                fail(state, &place.path, &kinds, &error, |_| true);
            }
        }
    }

    /// Returns true while the disk may lack files of a row that may be written.
    fn lacks_files(&self, state: &State) -> bool {
        self.disk.is_some() && state.may_write() && state.table.next_held().is_some()
    }

    /// Writes the next file of a held row, or releases the row if the disk has all.
    fn write_file(&mut self) {
        let (store, place) = (self.store.clone(), self.place.clone());
        let mut state = store.lock();
        let (Some(place), Some((held, row))) = (place, state.table.next_held()) else { return };
        let (held, change, files) = (held.clone(), row.change, row.files.clone());
        state.writing_since = Some(Instant::now());
        drop(state);
        let has_all = place.files.write_next(&files);
        let mut state = store.lock();
        state.writing_since = None;
        self.files_tried = has_all.is_err().then(Instant::now);
        match has_all {
            Ok(true) => state.release(&held, change),
            Ok(false) => self.is_removal_due = true,
            Err(error) => {
                let kinds: BTreeSet<_> = state.table.held_kinds().collect();
                fail(state, place.files.path(), &kinds, &error, |waiting| {
                    kinds.contains(waiting.kind)
                });
            }
        }
    }
}

/// Reports that rows are not on the disk, also to these callers. They are written later.
fn fail(
    mut state: MutexGuard<'_, State>,
    path: &Path,
    kinds: &BTreeSet<&'static str>,
    error: &impl fmt::Display,
    is_told: impl Fn(&Waiting) -> bool,
) {
    let reason: Arc<str> = error.to_string().into();
    let failed = || io::Error::other(reason.to_string());
    kinds.iter().for_each(|kind| state.unwritten.note(*kind, path, &Err(failed())));
    let waiting = state.take_waiting(is_told);
    drop(state);
    waiting.into_iter().for_each(|waiting| waiting(Err(Arc::clone(&reason))));
}

/// Removes the files that none of these rows names: all that the disk has. A row that cannot be read may name any.
fn remove_unnamed(folder: &FileFolder, rows: &[(FileNames, TableRow)]) {
    let named: Option<Vec<_>> = rows.iter().map(|(file_names, row)| file_names(row)).collect();
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        folder.retain(&named.into_iter().flatten().collect());
    }
}

/// Reads the files of earlier versions, of these kinds. Adds their paths to `read`.
fn read_earlier(
    place: &Place,
    readers: &[KindReader],
    read: &mut Vec<PathBuf>,
) -> Vec<EarlierRows> {
    let mut found = Vec::new();
    for KindReader { kind, earlier_files, read_earlier, earlier_replaces: replaces, .. } in readers
    {
        for path in earlier_files(&place.name) {
            let path = place.cache.join(path);
            // A file that is replaced meanwhile is newer than this.
            let written = fs::metadata(&path).and_then(|facts| facts.modified());
            let rows = match file::read(&path, EARLIER_BYTES_MAX) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                content => content.and_then(|bytes| read_earlier(&bytes)),
            };
            match rows.and_then(|rows| Ok((rows, unix_us(written?)))) {
                Ok((rows, written_us)) => {
                    let row = |EarlierDocument { key, value }| EarlierRow {
                        key: key.into(),
                        value: value.to_string().into(),
                    };
                    let rows = rows.into_iter().map(row).collect();
                    let (kind, replaces) = (*kind, *replaces);
                    found.push(EarlierRows { kind, replaces, written_us, rows });
                }
                Err(error) => {
                    tracing::warn!(document = kind.name, file = %path.display(), %error, "file of an earlier version cannot be read; continuing without");
                }
            }
            read.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests;
