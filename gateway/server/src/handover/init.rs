//! Process 1 of a container, after an upgrade: it cannot end without ending the container, so it stays and does nothing
//! but wait, reap orphans and pass signals on.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

const INIT: u32 = 1;

/// Signals of the gateway, which the process that serves now handles.
const PASSED_ON: [(SignalKind, Signal); 3] = [
    (SignalKind::terminate(), Signal::SIGTERM),
    (SignalKind::interrupt(), Signal::SIGINT),
    (SignalKind::hangup(), Signal::SIGHUP),
];

/// The ends of the pipe by which process 1 learns the number of each next process.
pub(super) fn pipe() -> io::Result<Option<(PipeReader, PipeWriter)>> {
    if std::process::id() != INIT {
        return Ok(None);
    }
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Some((reader, writer)))
}

/// Tells process 1 which process serves next.
pub(super) fn announce(init: OwnedFd, process: u32) -> io::Result<()> {
    PipeWriter::from(init).write_all(&process.to_be_bytes())
}

/// The process that serves, and its next ones.
struct Line {
    serving: Pid,
    next: PipeReader,
}

impl Line {
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
            // A process announces the next one and ends, which makes that one a child of this process. So the number
            // of each child that ends is here by now, in whichever order the kernel reports them.
            let mut next = [0; 4];
            while self.next.read_exact(&mut next).is_ok() {
                self.serving = Pid::from_raw(u32::from_be_bytes(next).cast_signed());
            }
            if ended == self.serving {
                return Some(status);
            }
        }
    }
}

/// Waits for the last process that serves, and returns its exit status.
pub(super) async fn attend(serving: u32, next: PipeReader) -> io::Result<i32> {
    let mut line = Line { serving: Pid::from_raw(serving.cast_signed()), next };
    let mut children = signal(SignalKind::child())?;
    let [(terminate, t), (interrupt, i), (hangup, h)] = PASSED_ON;
    let (mut terminate, mut interrupt, mut hangup) =
        (signal(terminate)?, signal(interrupt)?, signal(hangup)?);
    loop {
        if let Some(status) = line.reap() {
            return Ok(status);
        }
        let passed = tokio::select! {
            _ = children.recv() => continue,
            _ = terminate.recv() => t,
            _ = interrupt.recv() => i,
            _ = hangup.recv() => h,
        };
        // Fails only if it has ended, which the next turn sees.
        let _ = kill(line.serving, passed);
    }
}
