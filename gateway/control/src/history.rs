//! The history of ended sessions: the newest records, in memory and in a file that outlives the process.
//!
//! Control hands each record to a thread, and waits neither for it nor for the disk.

mod ended;
mod open;

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use evenkeel_contract::sessions::EndedSession;
use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{CloseReason, ClosedSession, SessionId};
use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments, WRITTEN_AGAIN_WITHIN};
use evenkeel_process::{file, lock};

pub(crate) use self::ended::record_of_end;
pub use self::ended::traffic;
use self::ended::{key, line, record_of_death};
pub use self::open::LeftSessions;
pub(crate) use self::open::OpenSession;
use self::open::{OpenSessions, SessionsLeft};
use crate::names::NodeNames;

/// Maximum number of records in memory, about 10 MiB.
const RECORDS_MAX: usize = 16_384;

/// Maximum size of the lines of these records, bytes: that of both files.
const BYTES_MAX: usize = 2 * FILE_BYTES_MAX as usize;

/// Sessions that wait for the thread after their opening or end, enough for the end of all sessions of most gateways. Ends beyond it
/// are dropped and counted.
const WAITING_MAX: usize = 16_384;

/// Records that are written together.
const BATCH_MAX: usize = 256;

/// Interval at which a file is tried that cannot be used, or that another process writes, such as the one that this process replaces.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Precision of the time at which a killed process is known to have lived.
const LIVES_EVERY: Duration = Duration::from_secs(1);

/// The newest records.
#[derive(Default, Debug)]
pub struct SessionHistory {
    records: Mutex<RecentRecords>,
    dropped: AtomicU64,
    /// The number of the next record.
    next: AtomicU64,
}

#[derive(Default, Debug)]
struct RecentRecords {
    /// Oldest first, each with the length of its line.
    records: VecDeque<(Arc<EndedSession>, usize)>,
    bytes: usize,
    /// The number of the oldest record.
    first: u64,
}

impl RecentRecords {
    /// The number of the next record.
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn push(&mut self, record: Arc<EndedSession>, bytes: usize) {
        self.records.push_back((record, bytes));
        self.bytes += bytes;
        while self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some((_, bytes)) = self.records.pop_front() else { return };
            self.bytes -= bytes;
            self.first += 1;
        }
    }
}

impl SessionHistory {
    /// Up to `limit` records with smaller numbers than `before`, newest first. Numbers grow; a restart begins again.
    pub fn list(
        &self,
        before: u64,
        limit: usize,
        matches: impl Fn(&EndedSession) -> bool,
    ) -> Vec<(u64, Arc<EndedSession>)> {
        let kept = self.lock();
        let records = kept.records.iter().enumerate().rev();
        let numbered = records.map(|(at, (record, _))| (kept.first + at as u64, record));
        let found = numbered.filter(|(number, record)| *number < before && matches(record));
        found.take(limit).map(|(number, record)| (number, Arc::clone(record))).collect()
    }

    /// Up to `limit` records from this number on, oldest first, and the number after them.
    pub(crate) fn records_from(&self, from: u64, limit: usize) -> (u64, Vec<EndedSession>) {
        // Control does not wait for a reader: the next batch has them.
        let Ok(kept) = self.records.try_lock() else { return (from, Vec::new()) };
        let skipped = usize::try_from(from.saturating_sub(kept.first)).unwrap_or(usize::MAX);
        let records = kept.records.iter().skip(skipped).take(limit);
        let found: Vec<EndedSession> = records.map(|(record, _)| (**record).clone()).collect();
        (from.max(kept.first).saturating_add(found.len() as u64), found)
    }

    /// Returns true if there is a record of this number or a later one.
    pub(crate) fn has_number(&self, number: u64) -> bool {
        number < self.next.load(Ordering::Relaxed)
    }

    /// Records that were dropped because the thread was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds the records of earlier processes. Returns those of this process.
    fn add_earlier(&self, earlier: Vec<MeasuredRecord>) -> Vec<Arc<EndedSession>> {
        let mut kept = self.lock();
        let mut own = std::mem::take(&mut kept.records);
        kept.bytes = 0;
        // Copies of the owner's records may have come again meanwhile.
        let known: HashSet<_> = earlier.iter().map(|(record, _)| key(record)).collect();
        own.retain(|(record, _)| !known.contains(&key(record)));
        // They get numbers that no reader has passed.
        kept.first = self.next.load(Ordering::Relaxed);
        earlier.into_iter().for_each(|(record, bytes)| kept.push(Arc::new(record), bytes));
        own.iter().for_each(|(record, bytes)| kept.push(Arc::clone(record), *bytes));
        self.next.store(kept.next(), Ordering::Relaxed);
        own.into_iter().map(|(record, _)| record).collect()
    }

    /// Removes the records that are there.
    fn retain_unknown(&self, records: &mut Vec<EndedSession>) {
        if records.is_empty() {
            return;
        }
        let kept = self.lock();
        let asked: HashSet<_> = records.iter().map(key).collect();
        let keys = kept.records.iter().map(|(record, _)| key(record));
        let known = keys.filter(|key| asked.contains(key));
        let known: HashSet<(Box<str>, u64)> = known.map(|(id, at)| (id.into(), at)).collect();
        drop(kept);
        records.retain(|record| !known.contains(&(record.id.clone(), record.ended_us)));
    }

    /// Adds a record, whose line has this length.
    pub fn add(&self, record: EndedSession, bytes: usize) {
        let mut kept = self.lock();
        kept.push(Arc::new(record), bytes);
        self.next.store(kept.next(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, RecentRecords> {
        lock(&self.records)
    }
}

/// Control's end of the history. Dropping it waits until all records are in the file.
#[derive(Debug)]
pub struct HistoryWriter {
    /// The name of this gateway in records.
    gateway: Box<str>,
    /// `None` once no further record will come.
    records: Option<Sender<HistoryRecord>>,
    history: Arc<SessionHistory>,
    thread: Option<JoinHandle<()>>,
}

/// A message to the writing thread.
#[derive(Debug)]
enum HistoryRecord {
    Opened(Box<OpenSession>),
    Ended(Box<EndedSession>),
    /// Of the owner of the group, while this gateway is its standby.
    Copied(Box<EndedSession>),
}

impl HistoryWriter {
    /// Starts the thread. Without a folder, records are kept in memory only.
    pub fn start(
        folder: Option<&Path>,
        socket: &Path,
        gateway: Box<str>,
        left: LeftSessions,
        unwritten: UnwrittenDocuments,
    ) -> io::Result<HistoryWriter> {
        let history = Arc::<SessionHistory>::default();
        let (records, told) = crossbeam_channel::bounded(WAITING_MAX);
        let files = folder.map(|folder| LogFiles::of(folder, socket));
        let clerk = Clerk::new(Arc::clone(&history), files, left, unwritten);
        let thread = std::thread::Builder::new().name("session history".into());
        let thread = Some(thread.spawn(move || clerk.run(&told))?);
        Ok(HistoryWriter { gateway, records: Some(records), history, thread })
    }

    /// The history that the thread writes.
    pub fn history(&self) -> Arc<SessionHistory> {
        Arc::clone(&self.history)
    }

    /// Writes the record of an ended session. If the thread is behind, the record is only counted as dropped.
    pub fn write(
        &self,
        session: SessionId,
        room: &str,
        reason: CloseReason,
        closed: &ClosedSession,
        totals: &Totals,
        names: &NodeNames,
    ) {
        let record = record_of_end(&self.gateway, session, room, reason, closed, totals, names);
        self.send(HistoryRecord::Ended(Box::new(record)));
    }

    /// Notes a session that opened, so that its end has a record even if this process is killed.
    pub(crate) fn open(&self, opened: OpenSession) {
        let Some(records) = &self.records else { return };
        // A thread that is behind misses it; its end is recorded if this process closes it.
        let _ = records.try_send(HistoryRecord::Opened(Box::new(opened)));
    }

    /// Keeps records of the group's owner, each once.
    pub(crate) fn copy(&self, records: Vec<EndedSession>) {
        records.into_iter().for_each(|record| self.send(HistoryRecord::Copied(Box::new(record))));
    }

    /// The newest records.
    pub(crate) fn kept(&self) -> &SessionHistory {
        &self.history
    }

    /// The name of this gateway in records.
    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    fn send(&self, record: HistoryRecord) {
        let Some(records) = &self.records else { return };
        if records.try_send(record).is_err() {
            self.history.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for HistoryWriter {
    fn drop(&mut self) {
        drop(self.records.take());
        self.thread.take().map(JoinHandle::join);
    }
}

enum Disk {
    /// There is no folder.
    Off,
    /// The file was not opened yet, because another process writes it, or it cannot be used.
    Closed(LogFiles),
    Open(LogFile),
}

/// The list of sessions that are open.
enum OpenList {
    /// The file was not opened yet. Contains the sessions that opened since.
    Closed(Vec<OpenSession>),
    Open(OpenSessions),
    /// There is no folder, or the file lacks changes.
    Off,
}

struct Clerk {
    history: Arc<SessionHistory>,
    disk: Disk,
    left: LeftSessions,
    open: OpenList,
    /// The last time at which the list could not be opened.
    tried: Option<Instant>,
    /// Lines of records that could not be written yet.
    lines: Vec<u8>,
    unwritten: UnwrittenDocuments,
    /// The log has that another process writes the file.
    is_reported: bool,
    dropped_reported: u64,
}

impl Clerk {
    fn new(
        history: Arc<SessionHistory>,
        files: Option<LogFiles>,
        left: LeftSessions,
        unwritten: UnwrittenDocuments,
    ) -> Clerk {
        let (disk, open) = match files {
            Some(files) => (Disk::Closed(files), OpenList::Closed(Vec::new())),
            None => (Disk::Off, OpenList::Off),
        };
        let (tried, lines, is_reported, dropped_reported) = Default::default();
        Clerk { history, disk, left, open, tried, lines, unwritten, is_reported, dropped_reported }
    }

    /// Keeps records until no further one will come.
    fn run(mut self, records: &Receiver<HistoryRecord>) {
        loop {
            self.open();
            self.open_list();
            let within =
                if matches!(self.disk, Disk::Closed(_)) { RETRY_EVERY } else { LIVES_EVERY };
            match records.recv_timeout(within) {
                Ok(first) => {
                    let rest = records.try_iter().take(BATCH_MAX - 1);
                    self.keep(std::iter::once(first).chain(rest));
                }
                Err(RecvTimeoutError::Timeout) => self.note_life(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Opens the file, and writes the records that could not be written before.
    fn open(&mut self) {
        let Disk::Closed(place) = &self.disk else { return };
        let path = &place.current;
        match place.open() {
            Ok(Some((file, earlier))) => {
                let own = self.history.add_earlier(earlier);
                self.disk = Disk::Open(file);
                self.open_list();
                for records in own.chunks(BATCH_MAX) {
                    self.append(
                        &records.iter().flat_map(|record| line(record)).collect::<Vec<_>>(),
                    );
                }
                // Ends an earlier failure also without own records.
                self.append(&[]);
            }
            Ok(None) if self.is_reported => {}
            Ok(None) => {
                tracing::info!(file = %path.display(), "another process writes the records of ended sessions; waiting");
                self.is_reported = true;
            }
            Err(error) => self.unwritten.note(KeptDocument::History, path, &Err(error)),
        }
    }

    fn keep(&mut self, records: impl Iterator<Item = HistoryRecord>) {
        let (mut opened, mut ended, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            match record {
                HistoryRecord::Opened(session) => opened.push(*session),
                HistoryRecord::Ended(session) => ended.push(session),
                HistoryRecord::Copied(session) => copied.push(*session),
            }
        }
        let ids: HashSet<Box<str>> = ended.iter().map(|session| session.id.clone()).collect();
        self.history.retain_unknown(&mut copied);
        self.end(ended.into_iter().chain(copied.into_iter().map(Box::new)));
        match &mut self.open {
            OpenList::Closed(waiting) => {
                let room = WAITING_MAX.saturating_sub(waiting.len());
                waiting.extend(opened.into_iter().take(room));
                waiting.retain(|session| !ids.contains(&session.id));
            }
            OpenList::Open(_) => {
                self.note(|open| open.note(opened.into_iter(), ids.iter().map(|id| &**id)));
            }
            OpenList::Off => {}
        }
    }

    /// Opens the list once the file of records is open.
    fn open_list(&mut self) {
        let (Disk::Open(file), OpenList::Closed(_)) = (&self.disk, &self.open) else { return };
        if self.tried.is_some_and(|tried| tried.elapsed() < WRITTEN_AGAIN_WITHIN) {
            return;
        }
        let path = file.place.open.clone();
        match self.end_left(&path).and_then(|it| OpenSessions::open(&path, it, self.left)) {
            Ok(open) => {
                let closed = std::mem::replace(&mut self.open, OpenList::Open(open));
                let OpenList::Closed(opened) = closed else { return };
                self.note(|open| open.note(opened.into_iter(), std::iter::empty()));
            }
            Err(error) => {
                self.tried = Some(Instant::now());
                self.unwritten.note(KeptDocument::OpenSessions, &path, &Err(error));
            }
        }
    }

    /// Records the ends of sessions that a killed process had.
    fn end_left(&mut self, path: &Path) -> io::Result<SessionsLeft> {
        let sessions = SessionsLeft::read(path)?;
        // Further records would be forgotten at once.
        let mut died = sessions.died(path, self.left, RECORDS_MAX)?.peekable();
        while died.peek().is_some() {
            let part = died.by_ref().take(BATCH_MAX);
            let record = |session| record_of_death(session, sessions.lived_us());
            let mut part: Vec<_> = part.map(|it| it.map(record)).collect::<io::Result<_>>()?;
            // The process before this one may have been killed after it wrote them.
            self.history.retain_unknown(&mut part);
            self.end(part.into_iter().map(Box::new));
        }
        drop(died);
        Ok(sessions)
    }

    fn note_life(&mut self) {
        if !self.lines.is_empty() {
            self.append(&[]);
        }
        self.note(OpenSessions::note_life);
    }

    /// Writes to the list of open sessions, and gives it up once it lacks changes.
    fn note(&mut self, write: impl FnOnce(&mut OpenSessions) -> io::Result<()>) {
        let OpenList::Open(open) = &mut self.open else { return };
        let written = write(open);
        self.unwritten.note(KeptDocument::OpenSessions, open.path(), &written);
        if open.is_incomplete() {
            tracing::warn!("sessions that are open now leave no record if the process is killed");
            // The next process would end sessions that this one has ended.
            if let OpenList::Open(open) = std::mem::replace(&mut self.open, OpenList::Off) {
                open.discard();
            }
        }
    }

    /// Writes the records before they are listed.
    fn end(&mut self, records: impl Iterator<Item = Box<EndedSession>>) {
        let mut lines = Vec::new();
        let measured = records.map(|record| {
            let line = line(&record);
            lines.extend_from_slice(&line);
            (record, line.len())
        });
        let measured: Vec<_> = measured.collect();
        self.append(&lines);
        measured.into_iter().for_each(|(record, bytes)| self.history.add(*record, bytes));
        let dropped = self.history.dropped();
        if dropped > self.dropped_reported {
            tracing::warn!(dropped, "records of ended sessions dropped: too many ended at once");
            self.dropped_reported = dropped;
        }
    }

    /// Writes lines of records, or keeps the newest until they can be written.
    fn append(&mut self, lines: &[u8]) {
        let Disk::Open(file) = &mut self.disk else { return };
        if self.lines.len() + lines.len() > FILE_BYTES_MAX as usize {
            self.lines.clear();
        }
        self.lines.extend_from_slice(lines);
        let written = file.append(&self.lines);
        self.unwritten.note(KeptDocument::History, &file.place.current, &written);
        if written.is_ok() {
            self.lines.clear();
        }
    }
}

/// Maximum size of a file, bytes: 10,000 records.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Maximum number of files in the folder, more than three for each gateway of one machine.
const FILES_MAX: usize = 96;

/// A record with the length of its line.
type MeasuredRecord = (EndedSession, usize);

#[derive(Clone, Debug)]
struct LogFiles {
    folder: PathBuf,
    current: PathBuf,
    /// The file before the current one.
    previous: PathBuf,
    /// The sessions that are open.
    open: PathBuf,
}

impl LogFiles {
    fn of(folder: &Path, socket: &Path) -> LogFiles {
        let (folder, name) = (folder.join("history"), file::name_of(socket));
        let at = |ending: &str| folder.join(format!("{name}.{ending}"));
        let (current, previous, open) = (at("jsonl"), at("1.jsonl"), at("open"));
        LogFiles { current, previous, open, folder }
    }

    /// Opens the file and reads its records and those of the previous file, oldest first. `None`: another process
    /// writes the file.
    fn open(&self) -> io::Result<Option<(LogFile, Vec<MeasuredRecord>)>> {
        file::create_private_folder(&self.folder)?;
        let Some(file) = open_locked(&self.current)? else {
            return Ok(None);
        };
        let mut records = Vec::new();
        read(&self.previous, &mut records)?;
        let length = read(&self.current, &mut records)?;
        // The next record must not continue a line that was cut.
        file.set_len(length)?;
        // The next start tries again.
        let _ = file::trim(&self.folder, &self.current, FILES_MAX);
        Ok(Some((LogFile { place: self.clone(), file, length }, records)))
    }
}

/// The open file. No other process writes it meanwhile.
#[derive(Debug)]
struct LogFile {
    place: LogFiles,
    file: File,
    length: u64,
}

impl LogFile {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let bytes = lines.len() as u64;
        if self.length > 0 && self.length + bytes > FILE_BYTES_MAX {
            self.replace()?;
        }
        let written = self.file.write_all(lines);
        match written {
            Ok(()) => self.length += bytes,
            // A part may have been written. If it cannot be cut off, the next start skips it.
            Err(_) => _ = self.file.set_len(self.length),
        }
        written
    }

    fn replace(&mut self) -> io::Result<()> {
        match fs::rename(&self.place.current, &self.place.previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = open_locked(&self.place.current)?;
        self.file = file.ok_or_else(|| io::Error::other("another process writes it"))?;
        self.length = 0;
        Ok(())
    }
}

fn open_locked(path: &Path) -> io::Result<Option<File>> {
    let file = file::append(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Adds the newest records of a file, if it exists. Returns the length of its whole lines.
fn read(path: &Path, records: &mut Vec<MeasuredRecord>) -> io::Result<u64> {
    let mut file = match file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    // Earlier versions wrote longer files.
    let skipped = file.metadata()?.len().saturating_sub(FILE_BYTES_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let cut = bytes.iter().position(|byte| *byte == b'\n').filter(|_| skipped > 0);
    let cut = cut.map_or(0, |at| at + 1);
    let (mut length, mut damaged) = (skipped + cut as u64, 0_u32);
    for line in bytes[cut..].split_inclusive(|byte| *byte == b'\n') {
        let is_whole = line.ends_with(b"\n");
        length += if is_whole { line.len() as u64 } else { 0 };
        match serde_json::from_slice::<EndedSession>(line) {
            Ok(record) if is_whole && !record.id.is_empty() => records.push((record, line.len())),
            Ok(_) | Err(_) => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::warn!(file = %path.display(), lines = damaged, "damaged records of ended sessions skipped");
    }
    Ok(length)
}

#[cfg(test)]
pub(crate) mod tests;
