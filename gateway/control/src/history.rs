//! The history of ended sessions: the newest records, in memory and in a table that outlives the process, and the sessions that are
//! open, in a table only.
//!
//! Control hands each record to the thread of the store, and waits neither for it nor for the disk.

mod earlier;
mod ended;
mod open;
mod ratings;
mod recent;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use evenkeel_contract::sessions::{EndedSession, SessionRating};
use evenkeel_dataplane::worker::Totals;
use evenkeel_kept::{
    DiskError, Record, RecordBatch, RecordKeeper, RecordReader, RecordTable, Store,
};
use evenkeel_model::{CloseReason, ClosedSession, SessionId};
use evenkeel_process::lock;

use self::earlier::EarlierFiles;
pub(crate) use self::ended::record_of_end;
use self::ended::{EndedSessions, RECORDS_MAX, bytes, key, record_of_death};
pub use self::ended::{GATEWAY_DIED, traffic};
pub use self::open::LeftSessions;
use self::open::OpenChanges;
pub(crate) use self::open::OpenSession;
pub use self::ratings::{AlreadyRated, RATABLE_FOR, RatableSession};
use self::ratings::{Ratings, SessionRatings};
use self::recent::RecentRecords;
use crate::names::NodeNames;

/// Sessions that wait for the thread after their opening or end, enough for the end of all sessions of most gateways. Ends beyond it
/// are dropped and counted.
const WAITING_MAX: usize = 16_384;

/// Records, and changes of open sessions, that are written together.
const BATCH_MAX: usize = 1_024;

/// The newest records.
#[derive(Default, Debug)]
pub struct SessionHistory {
    records: Mutex<RecentRecords<EndedSession>>,
    ratings: Mutex<Ratings>,
    dropped: AtomicU64,
    /// The number of the next record.
    next: AtomicU64,
    /// The number of the next rating.
    next_rating: AtomicU64,
}

/// How much of the history a follower has: the numbers of the next record and of the next rating.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct HistoryPosition {
    pub(crate) record: u64,
    pub(crate) rating: u64,
}

impl HistoryPosition {
    /// The follower needs nothing.
    pub(crate) const END: HistoryPosition = HistoryPosition { record: u64::MAX, rating: u64::MAX };

    /// The position before the last `count` records and the last `count` ratings.
    pub(crate) fn back(self, count: u64) -> HistoryPosition {
        let HistoryPosition { record, rating } = self;
        let (record, rating) = (record.saturating_sub(count), rating.saturating_sub(count));
        HistoryPosition { record, rating }
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
        let found: Vec<EndedSession> = kept.from(from, limit).map(|it| (**it).clone()).collect();
        (from.max(kept.first).saturating_add(found.len() as u64), found)
    }

    /// Up to `limit` ratings from this number on, oldest first, and the number after them.
    pub(crate) fn ratings_from(&self, from: u64, limit: usize) -> (u64, Vec<SessionRating>) {
        // As for records.
        let Ok(ratings) = self.ratings.try_lock() else { return (from, Vec::new()) };
        let (next, found) = ratings.from(from, limit);
        (next, found.map(|it| (**it).clone()).collect())
    }

    /// Returns true if there is more of the history than the follower has.
    pub(crate) fn has_more_than(&self, position: HistoryPosition) -> bool {
        self.has_number(position.record)
            || position.rating < self.next_rating.load(Ordering::Relaxed)
    }

    /// Returns true if there is a record of this number or a later one.
    pub(crate) fn has_number(&self, number: u64) -> bool {
        number < self.next.load(Ordering::Relaxed)
    }

    /// Records that were dropped because the thread was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds the records of earlier processes before those of this process. Returns the number of the first one of this process.
    fn add_earlier(&self, earlier: Vec<EndedSession>) -> u64 {
        let mut kept = self.lock();
        let mut own = std::mem::take(&mut kept.records);
        kept.bytes = 0;
        // Copies of the owner's records may have come again meanwhile.
        let known: HashSet<_> = earlier.iter().map(key).collect();
        own.retain(|(record, _)| !known.contains(&key(record)));
        // They get numbers that no reader has passed.
        kept.first = self.next.load(Ordering::Relaxed);
        for record in earlier {
            let bytes = bytes(&record);
            kept.push(Arc::new(record), bytes);
        }
        let first_own = kept.next();
        own.into_iter().for_each(|(record, bytes)| kept.push(record, bytes));
        self.next.store(kept.next(), Ordering::Relaxed);
        first_own
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

    /// Adds a record of this size in bytes.
    pub fn add(&self, record: EndedSession, bytes: usize) {
        let mut kept = self.lock();
        kept.push(Arc::new(record), bytes);
        self.next.store(kept.next(), Ordering::Relaxed);
    }

    /// Keeps the first rating of a session, which the disk has about a second later.
    ///
    /// # Errors
    /// If there is another one.
    pub fn rate(&self, rating: SessionRating) -> Result<(), AlreadyRated> {
        let mut ratings = lock(&self.ratings);
        let rated = ratings.rate(rating);
        self.next_rating.store(ratings.next(), Ordering::Relaxed);
        rated
    }

    /// Adds the ratings of earlier processes before those of this process. Returns the number of the first one of this process.
    fn add_earlier_ratings(&self, earlier: Vec<SessionRating>) -> u64 {
        let mut ratings = lock(&self.ratings);
        let first_own = ratings.add_earlier(earlier);
        self.next_rating.store(ratings.next(), Ordering::Relaxed);
        first_own
    }

    /// A session that ended, while it can be rated.
    pub fn ended_lately(&self, session: SessionId) -> Option<RatableSession> {
        lock(&self.ratings).ended_lately(session, Instant::now())
    }

    /// The newest ratings, the newest first.
    pub fn ratings(&self) -> Vec<Arc<SessionRating>> {
        lock(&self.ratings).list().cloned().collect()
    }

    /// A session ended, and can be rated.
    pub fn note_ended(&self, session: RatableSession) {
        lock(&self.ratings).note_ended(session, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, RecentRecords<EndedSession>> {
        lock(&self.records)
    }
}

/// Control's end of the history.
#[derive(Debug)]
pub struct HistoryWriter {
    /// The name of this gateway in records.
    gateway: Box<str>,
    records: Sender<HistoryRecord>,
    history: Arc<SessionHistory>,
    store: Store,
}

/// A message to the thread of the store.
#[derive(Debug)]
enum HistoryRecord {
    Opened(Box<OpenSession>),
    /// The record, and the session as its user may rate it.
    Ended(Box<EndedSession>, Option<Box<RatableSession>>),
    /// Of the owner of the group, while this gateway is its standby.
    Copied(Box<EndedSession>),
    /// Of the owner, too.
    CopiedRating(Box<SessionRating>),
}

impl HistoryWriter {
    /// Has the store keep the history of the gateway with this API socket. Without a folder records are kept in memory only.
    pub fn start(
        store: &Store,
        folder: Option<&Path>,
        socket: &Path,
        gateway: Box<str>,
        left: LeftSessions,
    ) -> HistoryWriter {
        let (records, told) = crossbeam_channel::bounded(WAITING_MAX);
        let earlier = folder.map(|folder| EarlierFiles::of(folder, socket));
        let keeper = HistoryKeeper::new(told, earlier, left);
        let (history, store) = (Arc::clone(&keeper.history), store.clone());
        store.keep_records(keeper);
        HistoryWriter { gateway, records, history, store }
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
        let ratable = RatableSession::ended(session, closed, names);
        self.send_or_count(HistoryRecord::Ended(Box::new(record), Some(Box::new(ratable))));
    }

    /// Notes a session that opened, so that its end has a record even if this process is killed.
    pub(crate) fn open(&self, opened: OpenSession) {
        // A thread that is behind misses it; its end is recorded if this process closes it.
        self.send(HistoryRecord::Opened(Box::new(opened)));
    }

    /// Keeps records and ratings of the group's owner, each once.
    pub(crate) fn copy(&self, records: Vec<EndedSession>, ratings: Vec<SessionRating>) {
        let records = records.into_iter().map(|it| HistoryRecord::Copied(Box::new(it)));
        let ratings = ratings.into_iter().map(|it| HistoryRecord::CopiedRating(Box::new(it)));
        records.chain(ratings).for_each(|record| self.send_or_count(record));
    }

    /// The newest records.
    pub(crate) fn kept(&self) -> &SessionHistory {
        &self.history
    }

    /// The name of this gateway in records.
    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Sends a record, or counts it as dropped.
    fn send_or_count(&self, record: HistoryRecord) {
        if !self.send(record) {
            self.history.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns false if too many records wait.
    fn send(&self, record: HistoryRecord) -> bool {
        let is_sent = self.records.try_send(record).is_ok();
        self.store.tell_of_records();
        is_sent
    }
}

const TABLES: &[RecordTable] = &[EndedSessions::TABLE, OpenSession::TABLE, SessionRatings::TABLE];

/// The end of the history on the thread of the store.
struct HistoryKeeper {
    history: Arc<SessionHistory>,
    records: Receiver<HistoryRecord>,
    left: LeftSessions,
    /// `None`: there is no folder.
    earlier: Option<EarlierFiles>,
    /// The disk has the records before this number.
    written: u64,
    /// The number after the records of the last batch.
    next: u64,
    /// The same numbers of ratings.
    ratings_written: u64,
    ratings_next: u64,
    /// All records in memory replace those of the table, at once or not at all.
    must_clear_table: bool,
    open: OpenChanges,
    dropped_reported: u64,
}

impl HistoryKeeper {
    fn new(
        records: Receiver<HistoryRecord>,
        earlier: Option<EarlierFiles>,
        left: LeftSessions,
    ) -> HistoryKeeper {
        HistoryKeeper {
            history: Arc::default(),
            records,
            left,
            earlier,
            written: 0,
            next: 0,
            ratings_written: 0,
            ratings_next: 0,
            must_clear_table: false,
            open: OpenChanges::default(),
            dropped_reported: 0,
        }
    }

    fn add(&self, record: EndedSession) {
        let bytes = bytes(&record);
        self.history.add(record, bytes);
    }
}

impl RecordKeeper for HistoryKeeper {
    fn tables(&self) -> &'static [RecordTable] {
        TABLES
    }

    fn receive(&mut self, at_most: usize) -> usize {
        let (mut received, mut copied) = (0, Vec::new());
        for record in self.records.try_iter().take(at_most) {
            received += 1;
            match record {
                HistoryRecord::Opened(session) if self.earlier.is_some() => {
                    self.open.open(*session);
                }
                HistoryRecord::Opened(_) => {}
                HistoryRecord::Ended(session, ratable) => {
                    ratable.into_iter().for_each(|it| self.history.note_ended(*it));
                    if self.earlier.is_some() {
                        self.open.end(&session.id);
                    }
                    self.add(*session);
                }
                HistoryRecord::Copied(session) => copied.push(*session),
                // Fails if its session has another one here: the first stands.
                HistoryRecord::CopiedRating(rating) => _ = self.history.rate(*rating),
            }
        }
        self.history.retain_unknown(&mut copied);
        copied.into_iter().for_each(|record| self.add(record));
        let dropped = self.history.dropped();
        if dropped > self.dropped_reported {
            tracing::warn!(dropped, "records of ended sessions dropped: too many ended at once");
            self.dropped_reported = dropped;
            if self.earlier.is_some() {
                self.open.give_up();
            }
        }
        received
    }

    fn read(&mut self, reader: &RecordReader<'_>) -> Result<bool, DiskError> {
        let Some(files) = &mut self.earlier else { return Ok(true) };
        let Some(found) = files.read(self.left) else { return Ok(false) };
        let mut ended = reader.newest::<EndedSessions>(RECORDS_MAX)?;
        let ratings = reader.newest::<SessionRatings>(RECORDS_MAX)?;
        let on_disk = ended.len();
        let known: HashSet<_> = ended.iter().map(key).collect();
        // An earlier program may have written its files after this table.
        let is_new = |record: &EndedSession| !known.contains(&key(record));
        let of_files: Vec<_> = found.ended.into_iter().filter(is_new).collect();
        ended.extend(of_files);
        match self.left {
            LeftSessions::Ended => {
                // Further records would be forgotten at once.
                let left = reader.newest::<OpenSession>(RECORDS_MAX)?;
                let left = left.into_iter().map(|it| record_of_death(it, reader.lived_us()));
                let of_files = found.open.into_iter();
                let of_files = of_files.map(|it| record_of_death(it, found.lived_us));
                // The process before this one may have been killed after it wrote them.
                let mut known: HashSet<_> = ended.iter().map(|it| it.id.clone()).collect();
                let is_new = |record: &EndedSession| known.insert(record.id.clone());
                let died: Vec<_> = of_files.chain(left).filter(is_new).collect();
                ended.extend(died);
                self.open.clear_table();
            }
            LeftSessions::Continue => self.open.add_continued(found.open),
            LeftSessions::Elsewhere => self.open.clear_table(),
        }
        let new = (ended.len() - on_disk) as u64;
        self.written = self.history.add_earlier(ended) - new;
        self.ratings_written = self.history.add_earlier_ratings(ratings);
        Ok(true)
    }

    fn has_unwritten(&self) -> bool {
        self.must_clear_table
            || self.history.has_number(self.written)
            || self.ratings_written < lock(&self.history.ratings).next()
            || self.open.has_some()
    }

    fn batch(&mut self) -> RecordBatch {
        let mut batch = RecordBatch::default();
        if self.must_clear_table {
            batch.clear::<EndedSessions>();
            batch.clear::<SessionRatings>();
        }
        let at_most = if self.must_clear_table { RECORDS_MAX } else { BATCH_MAX };
        let kept = self.history.lock();
        let records: Vec<_> = kept.from(self.written, at_most).cloned().collect();
        self.next = self.written.max(kept.first) + records.len() as u64;
        drop(kept);
        records.iter().for_each(|record| batch.insert::<EndedSessions>(record));
        let ratings = lock(&self.history.ratings);
        self.ratings_next = ratings.add_to(&mut batch, self.ratings_written, at_most);
        drop(ratings);
        // A session is open until its record is on the disk.
        if !self.history.has_number(self.next) {
            self.open.add_to(&mut batch, BATCH_MAX);
        }
        batch
    }

    fn note_written(&mut self, database: &Path) {
        (self.written, self.must_clear_table) = (self.next, false);
        self.ratings_written = self.ratings_next;
        if self.history.has_number(self.next) {
            return;
        }
        self.open.note_written(BATCH_MAX);
        if !self.open.has_some() {
            self.earlier.iter_mut().for_each(|files| files.move_aside(database));
        }
    }

    fn note_other_disk(&mut self) {
        (self.written, self.must_clear_table) = (0, true);
        self.ratings_written = 0;
    }
}

#[cfg(test)]
pub(crate) mod tests;
