//! The new process, as a child of the old one.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};
use std::time::Duration;

use evenkeel_process::scheduling::RealTimeThread;
use tokio::time::Instant;

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A killed process ends within milliseconds. It needs longer only if it hangs in a driver of the kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// The program that an upgrade starts, with `--inherit` after its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuccessorProgram {
    /// The program's file.
    pub path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl SuccessorProgram {
    /// The path and the arguments of this process. The path is that of its start: the file there may be replaced.
    pub fn this() -> io::Result<SuccessorProgram> {
        let arguments = std::env::args_os().skip(1).filter(|argument| argument != super::INHERIT);
        Ok(SuccessorProgram { path: std::env::current_exe()?, arguments: arguments.collect() })
    }
}

/// Killed when dropped, unless it serves.
pub(super) struct Child {
    pub(super) process: process::Child,
    serves: bool,
}

impl Child {
    pub(super) fn start(
        binary: &Path,
        arguments: &[OsString],
        channel: OwnedFd,
        starter: Option<&RealTimeThread>,
    ) -> Result<Child, String> {
        let mut command = Command::new(binary);
        command.args(arguments).arg(super::INHERIT).stdin(channel);
        let started = match starter {
            Some(starter) => starter.run(move || command.spawn()),
            None => command.spawn(),
        };
        started
            .map(|process| Child { process, serves: false })
            .map_err(|error| format!("cannot start {}: {error}", binary.display()))
    }

    /// Lets it outlive this process.
    pub(super) fn serve(mut self) {
        self.serves = true;
    }

    /// Its exit status, if it ends within this time.
    pub(super) async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Kills it, unless it has ended, and waits for its end.
    pub(super) async fn end(&mut self) -> Option<ExitStatus> {
        // Fails only if it has ended.
        let _ = self.process.kill();
        let ended = self.ended(KILLED_WITHIN).await;
        if ended.is_none() {
            tracing::error!(pid = self.process.id(), "killed process of an upgrade does not end");
        }
        ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.serves {
            // Fails only if it has ended.
            let _ = self.process.kill();
        }
    }
}

#[cfg(test)]
mod tests;
