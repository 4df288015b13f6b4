//! Commands of the configuration, run beside the packets: so many at a time, each for so long.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Commands that run at a time.
const THREADS: usize = 4;

/// Commands that may wait: those of as many openings as a gateway's herd takes at once.
const WAITING_MAX: usize = 1_024;

/// What a command may say; the rest is not read.
const SAID_MAX: usize = 4_096;

/// How often a command that closed its output is looked at.
const NAP: Duration = Duration::from_millis(2);

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Job<T> {
    /// Program and arguments; there is a program.
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// After this it is killed.
    pub(crate) within: Duration,
    /// Comes back with the outcome.
    pub(crate) about: T,
}

/// What became of it: what it said, where it succeeded.
pub(crate) type Outcome = Result<String, String>;

/// Threads that run commands.
pub(crate) struct Commands<T> {
    jobs: SyncSender<Job<T>>,
    done: Receiver<(T, Outcome)>,
    bell: Arc<EventFd>,
}

impl<T: Send + 'static> Commands<T> {
    /// Their threads end with the jobs' end.
    ///
    /// # Errors
    /// Where the system has no thread or event descriptor left.
    pub(crate) fn new() -> io::Result<Commands<T>> {
        let (jobs, taken) = mpsc::sync_channel::<Job<T>>(WAITING_MAX);
        let (tell, done) = mpsc::channel();
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let taken = Arc::new(Mutex::new(taken));
        for number in 0..THREADS {
            let (taken, tell, bell) = (Arc::clone(&taken), tell.clone(), Arc::clone(&bell));
            let work = move || {
                loop {
                    let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { command, environment, within, about }) = job else { return };
                    let outcome = run(&command, environment, within);
                    if tell.send((about, outcome)).is_err() {
                        return;
                    }
                    // A full count has rung already.
                    let _ = bell.write(1);
                }
            };
            thread::Builder::new().name(format!("commands-{number}")).spawn(work)?;
        }
        Ok(Commands { jobs, done, bell })
    }

    /// Runs it when a thread is free. False where too many wait.
    #[must_use]
    pub(crate) fn run(&self, job: Job<T>) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Readable when something is done.
    pub(crate) fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// What is done.
    pub(crate) fn done(&self) -> impl Iterator<Item = (T, Outcome)> {
        let _ = self.bell.read();
        self.done.try_iter()
    }
}

/// Runs a command until it ends, or its time does.
fn run(command: &[String], environment: Vec<(&'static str, String)>, within: Duration) -> Outcome {
    let until = Instant::now() + within;
    let (program, arguments) = command.split_first().ok_or("there is no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{program}`: {error}"))?;
    let outcome = hear(&mut child, until).map_err(|reason| format!("`{program}` {reason}"));
    if outcome.is_err() {
        // It may have ended by itself; it is reaped either way.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

/// What it says until it ends; why it failed.
fn hear(child: &mut Child, until: Instant) -> Outcome {
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let mut buffer = [0; SAID_MAX];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, wait) {
                Ok(0) => return Err("took too long".to_owned()),
                Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) | Err(_) => {}
            }
            match output.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) if said.len() < SAID_MAX => said.extend_from_slice(&buffer[..length]),
                Ok(_) => {}
            }
        }
    }
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(Some(status)) => return Err(format!("failed: {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(NAP),
            Ok(None) => return Err("took too long".to_owned()),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
    String::from_utf8(said).map_err(|_| "said what is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, within: Duration) -> Outcome {
        let command = ["/bin/sh", "-c", script].map(String::from);
        run(&command, vec![("EVENKEEL_ROOM", "7".to_owned())], within)
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_command_says_what_it_says_and_knows_what_it_is_about() {
        assert_eq!(shell("echo 10.0.0.1:$EVENKEEL_ROOM", PATIENCE), Ok("10.0.0.1:7\n".to_owned()));
    }

    #[test]
    fn what_fails_or_takes_too_long_is_an_error_and_is_gone() {
        assert!(shell("exit 3", PATIENCE).unwrap_err().contains("failed"));
        let began = Instant::now();
        let late = shell("exec sleep 600", Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("took too long"), "{late}");
        let late = shell("exec >&-; exec sleep 600", Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("took too long"), "{late}");
        assert!(began.elapsed() < Duration::from_secs(300));
        assert!(run(&["/nowhere/command".to_owned()], Vec::new(), PATIENCE).is_err());
        assert!(shell("printf '\\377'", PATIENCE).unwrap_err().contains("no text"));
    }

    #[test]
    fn of_what_never_ends_to_speak_no_more_is_kept_than_there_is_room_for() {
        let said = shell("head -c 100000 /dev/zero", PATIENCE).unwrap();
        assert!((1..=2 * SAID_MAX).contains(&said.len()), "{}", said.len());
    }

    #[test]
    fn outcomes_come_back_with_what_they_are_about_and_ring() {
        let commands = Commands::new().unwrap();
        for about in 0..10 {
            let command = ["/bin/sh", "-c", "echo $N"].map(String::from).to_vec();
            let environment = vec![("N", about.to_string())];
            assert!(commands.run(Job { command, environment, within: PATIENCE, about }));
        }
        let mut done = Vec::new();
        while done.len() < 10 {
            let mut fds = [PollFd::new(commands.bell().as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, 20_000_u16), Ok(1));
            done.extend(commands.done());
        }
        assert!(done.into_iter().all(|(about, said)| said == Ok(format!("{about}\n"))));
    }

    #[test]
    fn too_many_are_refused() {
        let commands = Commands::new().unwrap();
        let job = |about| Job {
            command: ["/bin/sleep", "0.05"].map(String::from).to_vec(),
            environment: Vec::new(),
            within: PATIENCE,
            about,
        };
        let taken =
            (0..WAITING_MAX + 2 * THREADS + 1).take_while(|&n| commands.run(job(n))).count();
        assert!((WAITING_MAX..=WAITING_MAX + 2 * THREADS).contains(&taken), "{taken}");
    }
}
