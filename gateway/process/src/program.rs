//! Programs that a configuration names, run to their end in a process group of their own.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pidfd_util::{PidFd, PidFdExt};
use thiserror::Error;

/// Bytes kept of a program's output; the rest is discarded.
pub const OUTPUT_MAX: usize = 4_096;

/// The reason why a program did not succeed.
#[derive(Error, Debug)]
pub enum ProgramError {
    /// No word names a program.
    #[error("no program is configured")]
    Empty,
    /// The kernel did not start it.
    #[error("cannot be run: {0}")]
    NotStarted(io::Error),
    /// It ended with another status than 0, or by a signal.
    #[error("{0}")]
    Failed(ExitStatus),
    /// It ran for this long, and was killed with its process group.
    #[error("killed after {0:?}")]
    TimedOut(Duration),
    /// It was killed with its process group, since its end could not be awaited.
    #[error("cannot be waited for: {0}")]
    NotAwaited(io::Error),
}

/// Runs a program with these further arguments. Its standard output is discarded, since the gateway's is read by another program.
///
/// Processes that it leaves behind run on if it succeeds; otherwise they are killed with it.
///
/// # Errors
/// It did not end within the time, or with another status than 0.
pub fn run(words: &[String], more: &[&str], within: Duration) -> Result<(), ProgramError> {
    let mut command = command(words)?;
    command.args(more).stdout(Stdio::null());
    follow(command, within)?;
    Ok(())
}

/// Like [`run`], and returns what it wrote to its standard output, at most [`OUTPUT_MAX`] bytes.
///
/// # Errors
/// As those of [`run`].
pub fn output(
    words: &[String],
    environment: &[(&str, String)],
    within: Duration,
) -> Result<Vec<u8>, ProgramError> {
    let mut command = command(words)?;
    command.envs(environment.iter().map(|(key, value)| (key, value))).stdout(Stdio::piped());
    follow(command, within)
}

fn command(words: &[String]) -> Result<Command, ProgramError> {
    let (program, arguments) = words.split_first().ok_or(ProgramError::Empty)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    Ok(command)
}

/// Runs the command to its end, and returns its output if that is piped.
fn follow(mut command: Command, within: Duration) -> Result<Vec<u8>, ProgramError> {
    let mut child = command.spawn().map_err(ProgramError::NotStarted)?;
    let mut output = Vec::new();
    let has_ended = read_until_end(&mut child, &mut output, within);
    if !matches!(has_ended, Ok(true)) {
        kill(&child);
    }
    let ended = child.wait().map_err(ProgramError::NotAwaited);
    match has_ended.map_err(ProgramError::NotAwaited)? {
        false => Err(ProgramError::TimedOut(within)),
        true => match ended? {
            status if status.success() => Ok(output),
            status => Err(ProgramError::Failed(status)),
        },
    }
}

/// Kills the process group of a child that was not waited for, so that its number is not reused.
fn kill(child: &Child) {
    // Fails only if the group is empty.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
}

/// Reads the output until the process has ended, whoever holds the pipe by then. Returns false if it does not end in time.
fn read_until_end(child: &mut Child, output: &mut Vec<u8>, within: Duration) -> io::Result<bool> {
    let (process, until) = (PidFd::from_pid(child.id() as i32)?, Instant::now() + within);
    let mut stdout = child.stdout.take();
    if let Some(pipe) = &stdout {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let watched = std::iter::once(process.as_fd()).chain(stdout.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<PollFd> = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_ended = fds[0].any() == Some(true);
        if let Some(pipe) = &mut stdout
            && read_available(pipe, output)?
        {
            stdout = None;
        }
        if has_ended || left.is_zero() {
            return Ok(has_ended);
        }
    }
}

/// Returns true at the end of the output.
fn read_available(pipe: &mut ChildStdout, output: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; OUTPUT_MAX];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(length) => {
                let kept = length.min(OUTPUT_MAX - output.len());
                output.extend_from_slice(&buffer[..kept]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
