//! A program that starts a node. A thread watches it, so that control can end it without waiting.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use pidfd_util::{PidFd, PidFdExt};

use super::output::ProgramOutput;

/// A program that runs, or that waits for earlier programs to end.
pub(super) struct StartProgram {
    phase: Arc<Mutex<ProgramPhase>>,
    thread: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ProgramPhase {
    Waits,
    /// The number is that of the program's process group. The system does not reuse it before the program is waited
    /// for.
    Runs(Pid),
    Over,
}

impl StartProgram {
    /// Runs the program once all threads of `before` have ended. `failed` is called if the program cannot be run, or
    /// fails without having been ended.
    pub(super) fn start(
        name: &Arc<str>,
        words: &[Arc<str>],
        before: Vec<JoinHandle<()>>,
        failed: impl FnOnce() + Send + 'static,
    ) -> io::Result<StartProgram> {
        let phase = Arc::new(Mutex::new(ProgramPhase::Waits));
        let (words, name, seen) = (words.to_vec(), Arc::clone(name), Arc::clone(&phase));
        let run = move || {
            // An error means that the thread panicked, and so has ended too.
            before.into_iter().for_each(|before| _ = before.join());
            let ill = match run(&words, &name, &seen) {
                Ok(None) => return,
                Ok(Some(status)) => told(status),
                Err(error) => format!("cannot be run: {error}"),
            };
            tracing::warn!(node = %name, program = %words[0], "start hook failed: {ill}");
            failed();
        };
        let thread = std::thread::Builder::new().name("start node".to_owned()).spawn(run)?;
        Ok(StartProgram { phase, thread })
    }

    /// Ends the program and its process group, or cancels its start. The thread returned must be joined.
    pub(super) fn end(self) -> JoinHandle<()> {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if let ProgramPhase::Runs(group) = std::mem::replace(&mut *phase, ProgramPhase::Over) {
            kill(group);
        }
        drop(phase);
        self.thread
    }

    /// Returns true once the program has ended and its exit status was read.
    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

#[cfg(test)]
impl StartProgram {
    pub(super) fn over(self) {
        self.thread.join().unwrap();
    }
}

/// The group number must be valid: the leader of the group was not waited for.
fn kill(group: Pid) {
    // Fails only if the group is empty.
    let _ = killpg(group, Signal::SIGKILL);
}

/// Returns the exit status, unless the program succeeded or was ended.
fn run(
    words: &[Arc<str>],
    name: &str,
    phase: &Mutex<ProgramPhase>,
) -> io::Result<Option<WaitStatus>> {
    if *phase.lock().unwrap_or_else(PoisonError::into_inner) == ProgramPhase::Over {
        return Ok(None);
    }
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = command(words, theirs)?.spawn()?;
    let group = Pid::from_raw(child.id() as i32);
    match &mut *phase.lock().unwrap_or_else(PoisonError::into_inner) {
        waits @ ProgramPhase::Waits => *waits = ProgramPhase::Runs(group),
        ProgramPhase::Runs(_) | ProgramPhase::Over => kill(group),
    }
    let watched = watch(&child, name, &ours);
    let mut phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
    let by_itself = std::mem::replace(&mut *phase, ProgramPhase::Over) != ProgramPhase::Over;
    let ended = watched.and_then(|()| how(group));
    if !matches!(ended, Ok(WaitStatus::Exited(_, 0))) {
        kill(group);
    }
    child.wait()?;
    let ended = ended?;
    Ok((by_itself && !matches!(ended, WaitStatus::Exited(_, 0))).then_some(ended))
}

/// The program gets its own process group: terminal signals to the gateway do not reach it, and its children end with
/// it. Output goes to a datagram socket: without a reader writes fail, but send no SIGPIPE, so the program may outlive
/// the gateway.
fn command(words: &[Arc<str>], writes: UnixDatagram) -> io::Result<Command> {
    let mut command = Command::new(&*words[0]);
    command.args(words[1..].iter().map(|word| &**word));
    let writes = OwnedFd::from(writes);
    command.stdin(Stdio::null()).stdout(writes.try_clone()?).stderr(writes).process_group(0);
    Ok(command)
}

fn watch(child: &Child, name: &str, says: &UnixDatagram) -> io::Result<()> {
    let held = PidFd::from_pid(child.id() as i32)?;
    let mut output = ProgramOutput::new(name);
    loop {
        let mut fds = [held.as_fd(), says.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds[0].any() == Some(true);
        output.read(says);
        if ended {
            return Ok(());
        }
    }
}

/// Returns the exit status without reaping the process.
fn how(child: Pid) -> io::Result<WaitStatus> {
    Ok(waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?)
}

fn told(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("ended: {other:?}"),
    }
}

#[cfg(test)]
mod tests;
