//! Processes: started, listened to, signalled by their id, and gone when the handle is.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// For what takes a second on an idle machine. Whoever waits so long has failed.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Lines shown of what a process said when it failed.
const SHOWN: usize = 15;

/// A process; it is killed when this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    said: Arc<Said>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    ended: bool,
}

impl Said {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts it. Its standard output is listened to, its standard error goes to a file of its name in `folder`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("the test's folder can be written");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // Of its own group: an interrupt at the terminal is for the test, which ends what it started.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let said = Arc::<Said>::default();
        let (out, hears) = (child.stdout.take(), Arc::clone(&said));
        let reader = std::thread::spawn(move || {
            let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
            for line in lines.map_while(Result::ok) {
                hears.lines().all.push(line);
                hears.more.notify_all();
            }
            hears.lines().ended = true;
            hears.more.notify_all();
        });
        Process { name: name.to_owned(), child, log, said, reader: Some(reader) }
    }

    /// Waits until what it said so far answers the question.
    ///
    /// # Panics
    /// It ends before it does, or takes too long.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&[String]) -> Option<T>,
    ) -> T {
        let until = Instant::now() + SOON;
        let mut lines = self.said.lines();
        loop {
            if let Some(found) = look(&lines.all) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!lines.ended, "{} ended before {what}\n{}", self.name, self.tail(&lines));
            assert!(!left.is_zero(), "{}: no {what} in time\n{}", self.name, self.tail(&lines));
            let waited = self.said.more.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What it said so far answers the question, whatever it is.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[String]) -> T) -> T {
        look(&self.said.lines().all)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Asks it to end, waits until it has, and gives all it said.
    pub(crate) fn end(mut self, signal: Signal) -> Vec<String> {
        self.signal(signal);
        let until = Instant::now() + SOON;
        let mut lines = self.said.lines();
        while !lines.ended && Instant::now() < until {
            let waited = self.said.more.wait_timeout(lines, SOON);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let said = std::mem::take(&mut lines.all);
        drop(lines);
        self.kill_and_wait();
        said
    }

    /// Waits until it has ended by itself, and says how.
    pub(crate) fn outcome(mut self) -> ExitStatus {
        let until = Instant::now() + SOON;
        let mut lines = self.said.lines();
        while !lines.ended {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} does not end\n{}", self.name, self.tail(&lines));
            let waited = self.said.more.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(lines);
        self.child.wait().expect("it was not waited for before")
    }

    /// Waits until its log holds these words, and gives all of it.
    pub(crate) fn wait_for_log(&self, words: &str) -> String {
        let until = Instant::now() + SOON;
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if log.contains(words) {
                return log;
            }
            assert!(Instant::now() < until, "{}: no {words:?} in\n{log}", self.name);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn tail(&self, lines: &Lines) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let log: Vec<String> = log.lines().map(str::to_owned).collect();
        let last = |all: &[String]| all[all.len().saturating_sub(SHOWN)..].join("\n");
        format!("it said:\n{}\nand logged:\n{}", last(&lines.all), last(&log))
    }

    fn kill_and_wait(&mut self) {
        if self.child.kill().is_ok() {
            let _reaped = self.child.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ended = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_and_wait();
    }
}
