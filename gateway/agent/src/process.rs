//! The server's process, found as configured and held by a pidfd. The pidfd refers to this process even if its PID is
//! reused.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use pidfd_util::{PidFd, PidFdExt};

pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ProcessSource {
    /// The PID file of a daemon. With `exe`, the process must run that program.
    PidFile { path: PathBuf, exe: Option<PathBuf> },
    /// The only process of this program, apart from its own forks.
    Exe(PathBuf),
    /// A process that the agent starts.
    Command {
        command: Vec<String>,
        /// Delay before a restart after an exit; `None`: the process starts only on request.
        restart_after: Option<Duration>,
    },
}

pub(crate) struct WatchedProcess {
    source: ProcessSource,
    handle: Option<ProcessHandle>,
    /// Time of the next start, if the agent starts the process.
    start: Option<Instant>,
}

struct ProcessHandle {
    pid: i32,
    fd: PidFd,
    /// Set if the agent has started the process.
    child: Option<Child>,
}

impl WatchedProcess {
    /// With `cold`, a process started by the agent waits until a gateway requests it.
    pub(crate) fn new(source: ProcessSource, cold: bool, now: Instant) -> WatchedProcess {
        let start = (matches!(source, ProcessSource::Command { .. }) && !cold).then_some(now);
        WatchedProcess { source, handle: None, start }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.handle.as_ref().map(|held| held.pid)
    }

    /// A pidfd that is readable once the process has exited.
    pub(crate) fn fd(&self) -> Option<&PidFd> {
        self.handle.as_ref().map(|held| &held.fd)
    }

    /// Starts the process at once. Returns whether the agent is configured to start it.
    pub(crate) fn start(&mut self, now: Instant) -> bool {
        let ours = matches!(self.source, ProcessSource::Command { .. });
        if ours && self.handle.is_none() {
            self.start = Some(now);
        }
        ours
    }

    /// Finds or starts the process if there is none. Returns whether there is one afterwards.
    pub(crate) fn find_or_start(&mut self, now: Instant) -> io::Result<bool> {
        if self.handle.is_some() {
            return Ok(true);
        }
        self.handle = match &self.source {
            ProcessSource::PidFile { path, exe } => {
                let named = || {
                    let pid = number(&fs::read_to_string(path).ok()?)?;
                    exe.as_ref().is_none_or(|exe| is_of(pid, exe)).then_some(pid)
                };
                hold(named)
            }
            ProcessSource::Exe(exe) => hold(|| only_one_of(exe)),
            ProcessSource::Command { command, restart_after } => {
                if self.start.is_none_or(|start| now < start) {
                    return Ok(false);
                }
                self.start = restart_after.map(|after| now + after);
                Some(spawn(command)?)
            }
        };
        Ok(self.handle.is_some())
    }

    /// Releases the process after its pidfd became readable. Returns its PID.
    pub(crate) fn ended(&mut self, now: Instant) -> Option<i32> {
        let held = self.handle.take()?;
        if let Some(mut child) = held.child {
            // The process has exited, so this does not block.
            let _ = child.wait();
        }
        if let ProcessSource::Command { restart_after, .. } = &self.source {
            self.start = restart_after.map(|after| now + after);
        }
        Some(held.pid)
    }

    /// Signals exactly this process. Returns whether it is running.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.handle.as_ref().is_some_and(|held| held.fd.send_signal(signal as i32).is_ok())
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.handle.as_ref().is_some_and(|held| held.child.is_some())
    }
}

/// Holds the process that `find` returns. Calls `find` again while holding it, because the PID may have been reused
/// before.
fn hold(find: impl Fn() -> Option<i32>) -> Option<ProcessHandle> {
    let pid = find()?;
    let fd = PidFd::from_pid(pid).ok()?;
    (find() == Some(pid) && !has_ended(&fd)).then_some(ProcessHandle { pid, fd, child: None })
}

/// Returns whether the process has exited; a zombie still has a PID.
fn has_ended(fd: &PidFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) != Ok(0)
}

fn spawn(command: &[String]) -> io::Result<ProcessHandle> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn()?;
    let pid = child.id() as i32;
    match PidFd::from_pid(pid) {
        Ok(fd) => Ok(ProcessHandle { pid, fd, child: Some(child) }),
        Err(error) => {
            // Without a pidfd the agent would not notice the exit.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Parses a PID. Values up to 1 are rejected: init and process groups.
fn number(text: &str) -> Option<i32> {
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)
}

fn is_of(pid: i32, exe: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|link| link == exe)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Finds the one process of this program that has a parent of another program; `None` if there are several.
fn only_one_of(exe: &Path) -> Option<i32> {
    let numbers = fs::read_dir("/proc").ok()?.flatten();
    let numbers = numbers.filter_map(|entry| number(entry.file_name().to_str()?));
    let mut heads = numbers
        .filter(|&pid| is_of(pid, exe))
        .filter(|&pid| parent(pid).is_none_or(|parent| !is_of(parent, exe)));
    heads.next().filter(|_| heads.next().is_none())
}

#[cfg(test)]
mod tests;
