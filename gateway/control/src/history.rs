//! The history of ended sessions: the newest records, in memory and in a file that outlives the process.
//!
//! Control hands each record to a thread, and waits neither for it nor for the disk.

mod log_file;
mod record;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{CloseReason, ClosedSession, SessionId};
use log_file::{LogFile, LogFiles, MeasuredRecord};
pub use record::{Carried, EndedSession};

/// Maximum number of records in memory, about 10 MiB.
const RECORDS_MAX: usize = 16_384;

/// Maximum size of the lines of these records, bytes: that of both files.
const BYTES_MAX: usize = 2 * log_file::BYTES_MAX as usize;

/// Records that wait for the thread, enough for the end of all sessions of most gateways. Further ones are dropped and
/// counted.
const WAITING_MAX: usize = 16_384;

/// Records that are written together.
const BATCH_MAX: usize = 256;

/// Interval at which a file is tried that another process writes, such as the one that this process replaces.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// The newest records.
#[derive(Default, Debug)]
pub struct SessionHistory {
    kept: Mutex<RecentRecords>,
    dropped: AtomicU64,
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

    /// Records that were dropped because the thread was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds the records of earlier processes. Returns those of this process.
    fn add_earlier(&self, earlier: Vec<MeasuredRecord>) -> Vec<Arc<EndedSession>> {
        let mut kept = self.lock();
        let own = std::mem::take(&mut kept.records);
        kept.bytes = 0;
        earlier.into_iter().for_each(|(record, bytes)| kept.push(Arc::new(record), bytes));
        own.iter().for_each(|(record, bytes)| kept.push(Arc::clone(record), *bytes));
        own.into_iter().map(|(record, _)| record).collect()
    }

    pub fn add(&self, record: EndedSession, bytes: usize) {
        self.lock().push(Arc::new(record), bytes);
    }

    fn lock(&self) -> MutexGuard<'_, RecentRecords> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Control's end of the history. Dropping it waits until all records are in the file.
#[derive(Debug)]
pub struct HistoryWriter {
    /// The host's name.
    gateway: Box<str>,
    /// `None` once no further record will come.
    records: Option<Sender<Box<EndedSession>>>,
    history: Arc<SessionHistory>,
    thread: Option<JoinHandle<()>>,
}

impl HistoryWriter {
    /// Starts the thread. Without a folder, records are kept in memory only.
    pub fn start(folder: Option<&Path>, socket: &Path) -> io::Result<HistoryWriter> {
        let history = Arc::<SessionHistory>::default();
        let (records, told) = crossbeam_channel::bounded(WAITING_MAX);
        let disk = folder.map_or(Disk::Off, |folder| Disk::Closed(LogFiles::of(folder, socket)));
        let clerk =
            Clerk { history: Arc::clone(&history), disk, is_reported: false, dropped_reported: 0 };
        let thread = std::thread::Builder::new().name("session history".into());
        let thread = Some(thread.spawn(move || clerk.run(&told))?);
        // Empty on systems without this file.
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(HistoryWriter {
            gateway: name.trim_end().into(),
            records: Some(records),
            history,
            thread,
        })
    }

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
    ) {
        self.send(EndedSession::of(&self.gateway, session, room, reason, closed, totals));
    }

    fn send(&self, record: EndedSession) {
        let Some(records) = &self.records else { return };
        if records.try_send(Box::new(record)).is_err() {
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
    /// There is no folder, or the file in it cannot be used.
    Off,
    /// The file was not opened yet, because another process writes it.
    Closed(LogFiles),
    Open(LogFile),
}

struct Clerk {
    history: Arc<SessionHistory>,
    disk: Disk,
    /// The log has the reason for which records are not written now.
    is_reported: bool,
    dropped_reported: u64,
}

impl Clerk {
    /// Keeps records until no further one will come.
    fn run(mut self, records: &Receiver<Box<EndedSession>>) {
        loop {
            self.open();
            let first = match self.disk {
                Disk::Closed(_) => records.recv_timeout(RETRY_EVERY),
                Disk::Off | Disk::Open(_) => {
                    records.recv().map_err(|_| RecvTimeoutError::Disconnected)
                }
            };
            match first {
                Ok(first) => {
                    let rest = records.try_iter().take(BATCH_MAX - 1);
                    self.keep(std::iter::once(first).chain(rest));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Opens the file, and writes the records that could not be written before.
    fn open(&mut self) {
        let Disk::Closed(place) = &self.disk else { return };
        let path = place.current.display();
        match place.open() {
            Ok(Some((file, earlier))) => {
                let own = self.history.add_earlier(earlier);
                self.disk = Disk::Open(file);
                self.is_reported = false;
                for records in own.chunks(BATCH_MAX) {
                    self.append(
                        &records.iter().flat_map(|record| record.line()).collect::<Vec<_>>(),
                    );
                }
            }
            Ok(None) if self.is_reported => {}
            Ok(None) => {
                tracing::info!(file = %path, "another process writes the records of ended sessions; waiting");
                self.is_reported = true;
            }
            Err(error) => {
                tracing::warn!(file = %path, %error, "records of ended sessions are kept in memory only");
                self.disk = Disk::Off;
            }
        }
    }

    /// Writes the records before they are listed.
    fn keep(&mut self, records: impl Iterator<Item = Box<EndedSession>>) {
        let mut lines = Vec::new();
        let measured = records.map(|record| {
            let line = record.line();
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

    fn append(&mut self, lines: &[u8]) {
        let Disk::Open(file) = &mut self.disk else { return };
        match file.append(lines) {
            Ok(()) if self.is_reported => {
                tracing::info!("records of ended sessions are written again");
                self.is_reported = false;
            }
            Err(error) if !self.is_reported => {
                tracing::warn!(%error, "records of ended sessions are not written; the newest are kept in memory");
                self.is_reported = true;
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
pub mod tests;
