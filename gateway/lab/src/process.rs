//! A child process with output that can be awaited. It is killed when its handle is dropped.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Lines of output and log in an error.
const SHOWN_LINES: usize = 12;
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running or ended child process.
#[derive(Debug)]
pub struct ChildProcess {
    name: String,
    child: Child,
    log: PathBuf,
    output: Arc<ChildOutput>,
    /// Lines that `line` and `try_line` have returned.
    read: usize,
    /// Time between SIGTERM and SIGKILL when the handle is dropped.
    grace: Duration,
}

/// Standard output so far.
#[derive(Default, Debug)]
struct ChildOutput {
    lines: Mutex<OutputLines>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct OutputLines {
    all: Vec<String>,
    is_closed: bool,
}

/// A process did not start, ended early, or printed something unexpected.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{process} {problem}{}{log}", if log.is_empty() { "" } else { "; its log ends with:\n" })]
pub struct ProcessError {
    process: String,
    problem: String,
    /// The last lines on standard error.
    log: String,
}

/// The same as `Display`, so that an `unwrap` shows the log line by line.
impl fmt::Debug for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ProcessError> for String {
    fn from(error: ProcessError) -> String {
        error.to_string()
    }
}

impl ChildOutput {
    fn lines(&self) -> MutexGuard<'_, OutputLines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` holds, at most `within`.
    fn wait(
        &self,
        within: Duration,
        mut done: impl FnMut(&OutputLines) -> bool,
    ) -> MutexGuard<'_, OutputLines> {
        let waited = self.changed.wait_timeout_while(self.lines(), within, |lines| !done(lines));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl ChildProcess {
    /// Starts `command` with an empty standard input. Standard error is appended to `NAME.log` in `folder`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(
        name: &str,
        command: &mut Command,
        folder: &Path,
    ) -> Result<ChildProcess, ProcessError> {
        ChildProcess::start_with_input(name, command, b"", folder)
    }

    /// Starts `command` with `input` as its standard input.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_with_input(
        name: &str,
        command: &mut Command,
        input: &[u8],
        folder: &Path,
    ) -> Result<ChildProcess, ProcessError> {
        let log = folder.join(format!("{name}.log"));
        let spawned = File::options().create(true).append(true).open(&log).and_then(|file| {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(file)
                // The child gets its own process group. An interrupt at the terminal reaches only this process, which
                // ends its children.
                .process_group(0)
                .spawn()
        });
        let mut child = spawned.map_err(|error| ProcessError {
            process: name.to_owned(),
            problem: format!("cannot be started: {error}"),
            log: String::new(),
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // An error is ignored: if the process ended without reading, its output shows that.
            let _unread = stdin.write_all(input);
        }
        let output = Arc::<ChildOutput>::default();
        let (stdout, shared) = (child.stdout.take(), Arc::clone(&output));
        // The thread ends when standard output is closed.
        std::thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            for line in lines.map_while(Result::ok) {
                shared.lines().all.push(line);
                shared.changed.notify_all();
            }
            shared.lines().is_closed = true;
            shared.changed.notify_all();
        });
        let (name, grace) = (name.to_owned(), Duration::ZERO);
        Ok(ChildProcess { name, child, log, output, read: 0, grace })
    }

    /// Sends SIGTERM when the handle is dropped, and kills only after `grace`.
    pub fn with_grace(mut self, grace: Duration) -> ChildProcess {
        self.grace = grace;
        self
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next unread line of standard output.
    ///
    /// # Errors
    /// No line came `within` that time, or standard output was closed.
    pub(crate) fn line(&mut self, within: Duration) -> Result<String, ProcessError> {
        let read = self.read;
        drop(self.output.wait(within, |lines| lines.all.len() > read || lines.is_closed));
        let line = self.try_line()?;
        line.ok_or_else(|| self.error(format!("printed nothing within {within:?}")))
    }

    /// The next unread line of standard output, without waiting.
    ///
    /// # Errors
    /// Standard output was closed.
    pub(crate) fn try_line(&mut self) -> Result<Option<String>, ProcessError> {
        let lines = self.output.lines();
        match lines.all.get(self.read) {
            Some(line) => {
                self.read += 1;
                Ok(Some(line.clone()))
            }
            None if lines.is_closed => Err(self.error_after(&lines, "ended")),
            None => Ok(None),
        }
    }

    /// The next unread line of standard output as JSON.
    ///
    /// # Errors
    /// No line came in time, or it is no JSON.
    pub fn json_line(&mut self, within: Duration) -> Result<Value, ProcessError> {
        let line = self.line(within)?;
        self.json(&line)
    }

    /// Reads a line of the output as JSON.
    ///
    /// # Errors
    /// The line is no JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self, line: &str) -> Result<T, ProcessError> {
        serde_json::from_str(line).map_err(|_| self.error(format!("printed {line:?}")))
    }

    /// Waits until `find` returns a value for the output.
    ///
    /// # Errors
    /// Standard output was closed, or the time passed, before it did.
    pub fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        mut find: impl FnMut(&[String]) -> Option<T>,
    ) -> Result<T, ProcessError> {
        let mut found = None;
        let lines = self.output.wait(within, |lines| {
            found = find(&lines.all);
            found.is_some() || lines.is_closed
        });
        let problem = if lines.is_closed { "ended before" } else { "took too long for" };
        found.ok_or_else(|| self.error_after(&lines, &format!("{problem} {what}")))
    }

    /// All lines of standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines().all.clone()
    }

    /// Waits until standard output is closed, and returns all lines.
    pub fn all_lines(&self, within: Duration) -> Vec<String> {
        self.output.wait(within, |lines| lines.is_closed).all.clone()
    }

    /// Signals the process itself, not its group.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let sent = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        sent.map_err(|errno| self.error(format!("cannot be sent {signal}: {errno}")))
    }

    /// False once the process has exited; it is then reaped.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// The process runs on after that time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus, ProcessError> {
        let until = Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Ok(status);
            }
            if Instant::now() >= until {
                return Err(self.error(format!("runs on after {within:?}")));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sends a signal and waits `within` that time for the process to end, else kills it. Returns its whole output.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn end(mut self, signal: Signal, within: Duration) -> Result<Vec<String>, ProcessError> {
        self.signal(signal)?;
        let _killed_otherwise = self.wait(within);
        self.kill();
        Ok(self.all_lines(within))
    }

    /// Kills the process and its process group.
    pub fn kill(&mut self) {
        if self.is_running() {
            // The process group has the id of the process.
            let _gone = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        }
        if self.child.kill().is_ok() {
            let _reaped = self.child.wait();
        }
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error about this process, with the end of its log.
    pub fn error(&self, problem: impl Into<String>) -> ProcessError {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        ProcessError { process: self.name.clone(), problem: problem.into(), log }
    }

    fn error_after(&self, lines: &OutputLines, problem: &str) -> ProcessError {
        let last = &lines.all[lines.all.len().saturating_sub(SHOWN_LINES)..];
        self.error(match last {
            [] => problem.to_owned(),
            last => format!("{problem} after it printed:\n{}", last.join("\n")),
        })
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.grace.is_zero() && self.is_running() && self.signal(Signal::SIGTERM).is_ok() {
            let _killed_otherwise = self.wait(self.grace);
        }
        self.kill();
    }
}

#[cfg(test)]
mod tests;
