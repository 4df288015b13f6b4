//! Standard error, written by a thread of its own: a full pipe or a busy disk delays no packet, no decision and no
//! takeover.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written, about 1 MiB. Further ones are lost, and counted.
const LINES_MAX: usize = 8_192;

/// Time for the last lines.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

enum LogEntry {
    Line(Box<[u8]>),
    /// Dropped once the lines before it are written.
    Flush(SyncSender<()>),
}

/// Takes lines of the log without waiting. Clones share the thread.
#[derive(Clone, Debug)]
pub struct LogLines {
    entries: SyncSender<LogEntry>,
    lost: Arc<AtomicU64>,
}

/// Waits for the last lines when it is dropped.
#[derive(Debug)]
pub struct LastLines(LogLines);

impl LogLines {
    /// Starts the thread, which writes each line by one call.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<LogLines> {
        let (entries, waiting) = sync_channel(LINES_MAX);
        let lost = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("evenkeel-log".to_owned());
        thread.spawn(move || write_lines(&waiting, &counted, out))?;
        Ok(LogLines { entries, lost })
    }

    /// Returns once all lines so far are written, or after this time.
    fn flush(&self, within: Duration) {
        let (done, written) = sync_channel(1);
        // With a full queue nothing is written in time.
        if self.entries.try_send(LogEntry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(within);
        }
    }

    /// Keeps the end of the caller from losing lines.
    pub fn flushed_at_end(&self) -> LastLines {
        LastLines(self.clone())
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.flush(WRITTEN_WITHIN);
    }
}

impl Write for &LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.entries.try_send(LogEntry::Line(line.into())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => _ = self.lost.fetch_add(1, Ordering::Relaxed),
            // The thread has panicked.
            Err(TrySendError::Disconnected(_)) => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = &'a LogLines;

    fn make_writer(&'a self) -> &'a LogLines {
        self
    }
}

/// Errors are ignored: there is no other place to report them.
fn write_lines(entries: &Receiver<LogEntry>, lost: &AtomicU64, mut out: impl Write) {
    for entry in entries {
        match entry {
            LogEntry::Line(line) => _ = out.write_all(&line),
            LogEntry::Flush(done) => {
                let _ = out.flush();
                drop(done);
            }
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => _ = writeln!(out, "{lost} log lines lost: standard error was not read in time"),
        }
    }
}

#[cfg(test)]
mod tests;
