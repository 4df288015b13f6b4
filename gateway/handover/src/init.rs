//! Process 1 of a container, after an upgrade: it cannot end without ending the container, so it stays and does nothing
//! but wait, reap orphans and pass signals on.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use evenkeel_process::signals::PendingSignals;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{self, SignalKind, signal};

const INIT: u32 = 1;

/// Process 1, from the start of an upgrade.
pub(super) struct Init {
    /// The numbers of the next processes.
    next: PipeReader,
    announcing: PipeWriter,
    /// A reload that comes during the upgrade may not have reached the new process.
    hangup: unix::Signal,
    /// Begins a drill where drills are allowed.
    drill: unix::Signal,
}

impl Init {
    /// `None` for another process than process 1.
    pub(super) fn of_this() -> io::Result<Option<Init>> {
        if std::process::id() != INIT {
            return Ok(None);
        }
        let (next, announcing) = io::pipe()?;
        fcntl(&next, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (hangup, drill) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
        Ok(Some(Init { next, announcing, hangup, drill }))
    }

    /// Takes the number of each next process.
    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.announcing.as_fd()
    }

    /// Waits for the last process that serves, and returns its exit status.
    pub(super) async fn attend(
        self,
        serving: u32,
        signals: &mut PendingSignals,
    ) -> io::Result<i32> {
        let Init { next, announcing, mut hangup, mut drill } = self;
        drop(announcing);
        let mut line = ProcessLine { serving: Pid::from_raw(serving.cast_signed()), next };
        let mut children = signal(SignalKind::child())?;
        loop {
            if let Some(status) = line.reap() {
                return Ok(status);
            }
            let passed = tokio::select! {
                _ = children.recv() => continue,
                ends = signals.recv() => ends,
                _ = hangup.recv() => Signal::SIGHUP,
                _ = drill.recv() => Signal::SIGUSR2,
            };
            // Fails only if it has ended, which the next turn sees.
            let _ = kill(line.last_announced(), passed);
        }
    }
}

/// Tells process 1 which process serves next.
pub(super) fn announce(init: OwnedFd, process: u32) -> io::Result<()> {
    PipeWriter::from(init).write_all(&process.to_be_bytes())
}

/// The process that serves, and its next ones.
struct ProcessLine {
    serving: Pid,
    next: PipeReader,
}

impl ProcessLine {
    /// Returns the exit status of the process that served last, if it has ended. Reaps all children that have ended.
    fn reap(&mut self) -> Option<i32> {
        loop {
            let (ended, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(process, status)) => (process, status),
                Ok(WaitStatus::Signaled(process, signal, _)) => (process, 128 + signal as i32),
                Err(Errno::EINTR) => continue,
                // Without children the process that served was reaped before.
                Ok(_) | Err(_) => return None,
            };
            if self.served_last(ended) {
                return Some(status);
            }
        }
    }

    /// Returns whether no process follows the one that has ended.
    fn served_last(&mut self, ended: Pid) -> bool {
        // A process announces the next one and ends, which makes that one a child of this process. So the number of
        // each child that ends is here by now, in whichever order the kernel reports them.
        ended == self.last_announced()
    }

    /// The process that serves. The one that announced it may live on, with QUIC connections, and passes no signal on.
    fn last_announced(&mut self) -> Pid {
        let mut next = [0; 4];
        while self.next.read_exact(&mut next).is_ok() {
            self.serving = Pid::from_raw(u32::from_be_bytes(next).cast_signed());
        }
        self.serving
    }
}

#[cfg(test)]
mod tests;
