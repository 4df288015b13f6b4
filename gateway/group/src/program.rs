//! Programs that the configuration names.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pidfd_util::{PidFd, PidFdExt};

/// Runs a program with these further arguments, and kills it after this time. The error says why it did not succeed.
pub(crate) fn run(words: &[String], more: &[&str], within: Duration) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("no program is configured")?;
    let mut command = Command::new(program);
    command.args(arguments).args(more);
    // Standard output may be read by a program that expects the gateway's.
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot be run: {error}"))?;
    let ended = wait(&mut child, within).map_err(|error| error.to_string())?;
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(status.to_string()),
        None => Err(format!("killed after {within:?}")),
    }
}

/// The exit status of a process that ends within this time; others are killed, with their process group.
fn wait(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let (process, until) = (PidFd::from_pid(child.id() as i32)?, Instant::now() + within);
    let is_over = loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) if ready > 0 => break true,
            Err(errno) if errno != Errno::EINTR => return Err(errno.into()),
            Ok(_) | Err(_) if left.is_zero() => break false,
            Ok(_) | Err(_) => {}
        }
    };
    if !is_over {
        // The number is not reused before the process is waited for.
        killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL)?;
    }
    let status = child.wait()?;
    Ok(is_over.then_some(status))
}

#[cfg(test)]
mod tests;
