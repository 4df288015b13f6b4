//! Runs configured commands on separate threads, with bounded concurrency and time.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_process::lock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

const THREADS: usize = 4;

/// Limit of waiting commands: as many as the sessions that a gateway's failover opens at once.
const WAITING_MAX: usize = 1_024;

/// Limit of bytes kept of a command's output; the rest is discarded.
const OUTPUT_MAX: usize = 4_096;

/// Poll interval for the exit of a command that has closed its output.
const NAP: Duration = Duration::from_millis(2);

#[derive(Clone, Debug)]
pub(crate) struct CommandJob<T> {
    /// Program and arguments; not empty.
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Time limit; then the command is killed.
    pub(crate) within: Duration,
    /// Returned with the outcome.
    pub(crate) context: T,
}

/// Standard output, or the error.
pub(crate) type CommandResult = Result<String, String>;

pub(crate) struct Commands<T> {
    jobs: SyncSender<CommandJob<T>>,
    results: Receiver<(T, CommandResult)>,
    /// An eventfd that is readable when a job is done.
    pub(crate) bell: Arc<EventFd>,
}

impl<T: Send + 'static> Commands<T> {
    /// Starts the threads, which end when the value is dropped.
    pub(crate) fn new() -> io::Result<Commands<T>> {
        let (jobs, taken) = mpsc::sync_channel::<CommandJob<T>>(WAITING_MAX);
        let (tell, done) = mpsc::channel();
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let taken = Arc::new(Mutex::new(taken));
        for number in 0..THREADS {
            let (taken, tell, bell) = (Arc::clone(&taken), tell.clone(), Arc::clone(&bell));
            let work = move || {
                loop {
                    let job = lock(&taken).recv();
                    let Ok(CommandJob { command, environment, within, context }) = job else {
                        return;
                    };
                    let outcome = run(&command, environment, within);
                    if tell.send((context, outcome)).is_err() {
                        return;
                    }
                    // The write fails only at the maximum count, and then the eventfd is readable already.
                    let _ = bell.write(1);
                }
            };
            thread::Builder::new().name(format!("commands-{number}")).spawn(work)?;
        }
        Ok(Commands { jobs, results: done, bell })
    }

    /// Queues a job. Returns false if too many jobs wait.
    pub(crate) fn run(&self, job: CommandJob<T>) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    pub(crate) fn results(&self) -> impl Iterator<Item = (T, CommandResult)> {
        let _ = self.bell.read();
        self.results.try_iter()
    }
}

/// Runs a command until it exits or times out.
fn run(
    command: &[String],
    environment: Vec<(&'static str, String)>,
    within: Duration,
) -> CommandResult {
    let until = Instant::now() + within;
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{program}`: {error}"))?;
    let outcome = read_output(&mut child, until).map_err(|reason| format!("`{program}` {reason}"));
    if outcome.is_err() {
        // The child must be reaped even if it has exited.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

/// Reads a command's output until it exits.
fn read_output(child: &mut Child, until: Instant) -> CommandResult {
    let mut output_bytes = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let mut buffer = [0; OUTPUT_MAX];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, wait) {
                Ok(0) => return Err("timed out".to_owned()),
                Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) | Err(_) => {}
            }
            match output.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) if output_bytes.len() < OUTPUT_MAX => {
                    output_bytes.extend_from_slice(&buffer[..length]);
                }
                Ok(_) => {}
            }
        }
    }
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(Some(status)) => return Err(format!("failed: {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(NAP),
            Ok(None) => return Err("timed out".to_owned()),
            Err(error) => return Err(format!("cannot wait for it: {error}")),
        }
    }
    String::from_utf8(output_bytes).map_err(|_| "printed no valid UTF-8".to_owned())
}

#[cfg(test)]
mod tests;
