//! Runs configured commands on separate threads, with bounded concurrency and time.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use evenkeel_process::{lock, program};
use nix::sys::eventfd::{EfdFlags, EventFd};

const THREADS: usize = 4;

/// Limit of waiting commands: as many as the sessions that a gateway's failover opens at once.
const WAITING_MAX: usize = 1_024;

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
                    let outcome = run(&command, &environment, within);
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
    environment: &[(&'static str, String)],
    within: Duration,
) -> CommandResult {
    let output = program::output(command, environment, within).map_err(|error| error.to_string());
    let text = output.and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| "printed no valid UTF-8".to_owned())
    });
    text.map_err(|reason| format!("`{}`: {reason}", command.first().map_or("", String::as_str)))
}

#[cfg(test)]
mod tests;
