//! Child processes with captured output, killed on drop.

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

/// Timeout of steps that take a second on an idle machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Lines of output shown on failure.
const TAIL_LINES: usize = 15;

pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    output: Arc<Output>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    ended: bool,
}

impl Output {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts the command. Standard output is captured; standard error goes to `<name>.log` in `folder`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("the test's folder can be written");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // Its own group, so that Ctrl-C reaches only the test, which ends its processes.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let output = Arc::<Output>::default();
        let (out, sink) = (child.stdout.take(), Arc::clone(&output));
        let reader = std::thread::spawn(move || {
            let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
            for line in lines.map_while(Result::ok) {
                sink.lines().all.push(line);
                sink.more.notify_all();
            }
            sink.lines().ended = true;
            sink.more.notify_all();
        });
        Process { name: name.to_owned(), child, log, output, reader: Some(reader) }
    }

    /// Waits until `look` finds something in the captured output.
    ///
    /// # Panics
    /// The process ends first, or the timeout elapses.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&[String]) -> Option<T>,
    ) -> T {
        let until = Instant::now() + TIMEOUT;
        let mut lines = self.output.lines();
        loop {
            if let Some(found) = look(&lines.all) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!lines.ended, "{} ended before {what}\n{}", self.name, self.tail(&lines));
            assert!(!left.is_zero(), "{}: no {what} in time\n{}", self.name, self.tail(&lines));
            let waited = self.output.more.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&[String]) -> T) -> T {
        look(&self.output.lines().all)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Sends the signal, waits for the end, and returns all output.
    pub(crate) fn end(mut self, signal: Signal) -> Vec<String> {
        self.signal(signal);
        let until = Instant::now() + TIMEOUT;
        let mut lines = self.output.lines();
        while !lines.ended && Instant::now() < until {
            let waited = self.output.more.wait_timeout(lines, TIMEOUT);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let output = std::mem::take(&mut lines.all);
        drop(lines);
        self.kill_and_wait();
        output
    }

    /// Waits until it ends on its own.
    pub(crate) fn outcome(mut self) -> ExitStatus {
        let until = Instant::now() + TIMEOUT;
        let mut lines = self.output.lines();
        while !lines.ended {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} does not end\n{}", self.name, self.tail(&lines));
            let waited = self.output.more.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(lines);
        self.child.wait().expect("it was not waited for before")
    }

    /// Waits until its log contains the text, and returns the log.
    pub(crate) fn wait_for_log(&self, words: &str) -> String {
        let until = Instant::now() + TIMEOUT;
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
        let last = |all: &[String]| all[all.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("stdout:\n{}\nlog:\n{}", last(&lines.all), last(&log))
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
