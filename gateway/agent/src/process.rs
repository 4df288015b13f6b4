//! The server's process: found by what the configuration says of it, and held by a pidfd, which names this process and
//! no other, even when its number is given to another one.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use pidfd_util::{PidFd, PidFdExt};

/// How often a process that is not there is looked for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How the process is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Its number is in this file, as a daemon writes it; where the program is named, it has to be one of that.
    PidFile {
        /// The file.
        path: PathBuf,
        /// The program.
        exe: Option<PathBuf>,
    },
    /// It is the only one of this program; what it forked itself, of the same program, does not count.
    Exe(PathBuf),
    /// The agent starts it.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// After how long it is started again when it ended; none: when somebody asks for it.
        restart_after: Option<Duration>,
    },
}

/// The process, if there is one.
pub(crate) struct Process {
    found: Found,
    held: Option<Held>,
    /// When to start it, where it is ours to start.
    start: Option<Instant>,
}

struct Held {
    pid: i32,
    fd: PidFd,
    /// Where it is ours.
    child: Option<Child>,
}

impl Process {
    /// Looks for it for the first time. `cold`: one of ours waits until somebody asks for it.
    pub(crate) fn new(found: Found, cold: bool, now: Instant) -> Process {
        let start = (matches!(found, Found::Command { .. }) && !cold).then_some(now);
        Process { found, held: None, start }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.held.as_ref().map(|held| held.pid)
    }

    /// Readable once it ended.
    pub(crate) fn fd(&self) -> Option<&PidFd> {
        self.held.as_ref().map(|held| &held.fd)
    }

    /// It is to be started at once, where it is ours to start. Whether it is.
    pub(crate) fn start(&mut self, now: Instant) -> bool {
        let ours = matches!(self.found, Found::Command { .. });
        if ours && self.held.is_none() {
            self.start = Some(now);
        }
        ours
    }

    /// Looks for it, or starts it, where there is none. Whether there is one now.
    ///
    /// # Errors
    /// Why it could not be started.
    pub(crate) fn look(&mut self, now: Instant) -> io::Result<bool> {
        if self.held.is_some() {
            return Ok(true);
        }
        self.held = match &self.found {
            Found::PidFile { path, exe } => {
                let named = || {
                    let pid = number(&fs::read_to_string(path).ok()?)?;
                    exe.as_ref().is_none_or(|exe| is_of(pid, exe)).then_some(pid)
                };
                hold(named)
            }
            Found::Exe(exe) => hold(|| only_one_of(exe)),
            Found::Command { command, restart_after } => {
                if self.start.is_none_or(|start| now < start) {
                    return Ok(false);
                }
                self.start = restart_after.map(|after| now + after);
                Some(spawn(command)?)
            }
        };
        Ok(self.held.is_some())
    }

    /// Its pidfd became readable: it is let go of. Which one it was.
    pub(crate) fn ended(&mut self, now: Instant) -> Option<i32> {
        let held = self.held.take()?;
        if let Some(mut child) = held.child {
            // It ended: this does not wait.
            let _ = child.wait();
        }
        if let Found::Command { restart_after, .. } = &self.found {
            self.start = restart_after.map(|after| now + after);
        }
        Some(held.pid)
    }

    /// Sends exactly this process a signal. Whether there was one to send it to.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.held.as_ref().is_some_and(|held| held.fd.send_signal(signal as i32).is_ok())
    }

    /// Whether the agent started it.
    pub(crate) fn is_ours(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.child.is_some())
    }
}

/// Holds on to the process that `find` finds, if it is still the one once it is held, and runs.
fn hold(find: impl Fn() -> Option<i32>) -> Option<Held> {
    let pid = find()?;
    let fd = PidFd::from_pid(pid).ok()?;
    (find() == Some(pid) && !has_ended(&fd)).then_some(Held { pid, fd, child: None })
}

/// A process that ended and is not reaped yet has a number, too.
fn has_ended(fd: &PidFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) != Ok(0)
}

fn spawn(command: &[String]) -> io::Result<Held> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn()?;
    let pid = child.id() as i32;
    match PidFd::from_pid(pid) {
        Ok(fd) => Ok(Held { pid, fd, child: Some(child) }),
        Err(error) => {
            // Nobody would know when it ends.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// A process's number: nobody's is 1 or less but init's and groups'.
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

/// The one process of this program whose parent is of another; none where there are several.
fn only_one_of(exe: &Path) -> Option<i32> {
    let numbers = fs::read_dir("/proc").ok()?.flatten();
    let numbers = numbers.filter_map(|entry| number(entry.file_name().to_str()?));
    let mut heads = numbers
        .filter(|&pid| is_of(pid, exe))
        .filter(|&pid| parent(pid).is_none_or(|parent| !is_of(parent, exe)));
    heads.next().filter(|_| heads.next().is_none())
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    /// Something that waits; as a program of its own name where one is given.
    fn sleeper(exe: Option<&Path>) -> Child {
        let exe = exe.unwrap_or(Path::new("/bin/sleep"));
        // A copy is busy for a moment where another test forks while it is written.
        loop {
            match Command::new(exe).arg("600").stdin(Stdio::null()).spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                spawned => break spawned.unwrap(),
            }
        }
    }

    fn wait_until_ended(process: &Process) {
        let mut fds = [PollFd::new(process.fd().unwrap().as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, 10_000_u16), Ok(1), "it ended, and nobody was told");
    }

    #[test]
    fn a_process_is_found_by_its_file_and_its_end_is_seen() {
        let (now, folder) = (Instant::now(), tempdir().unwrap());
        let path = folder.path().join("pid");
        let mut process =
            Process::new(Found::PidFile { path: path.clone(), exe: None }, false, now);
        assert!(!process.look(now).unwrap(), "there is no file");
        let mut child = sleeper(None);
        fs::write(&path, format!("{}\n", child.id())).unwrap();
        assert!(process.look(now).unwrap());
        assert_eq!(process.pid(), Some(child.id() as i32));
        assert!(!process.start(now), "it is not ours to start");
        child.kill().unwrap();
        wait_until_ended(&process);
        assert_eq!(process.ended(now), Some(child.id() as i32));
        assert!(!process.look(now).unwrap(), "its number is still there, as nobody reaped it");
        child.wait().unwrap();
        assert!(!process.look(now).unwrap());
        for nonsense in ["", "x", "-1", "0", "1", "99999999999999"] {
            fs::write(&path, nonsense).unwrap();
            assert!(!process.look(now).unwrap(), "{nonsense}");
        }
    }

    #[test]
    fn a_number_that_another_program_has_by_now_is_not_believed() {
        let (now, folder) = (Instant::now(), tempdir().unwrap());
        let path = folder.path().join("pid");
        let mut child = sleeper(None);
        fs::write(&path, child.id().to_string()).unwrap();
        let exe = Some(PathBuf::from("/usr/bin/another-server"));
        let mut process = Process::new(Found::PidFile { path: path.clone(), exe }, false, now);
        assert!(!process.look(now).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_found_by_its_program_while_it_is_the_only_one() {
        let (now, folder) = (Instant::now(), tempdir().unwrap());
        let exe = folder.path().join("program");
        fs::copy("/bin/sleep", &exe).unwrap();
        let mut process = Process::new(Found::Exe(exe.clone()), false, now);
        assert!(!process.look(now).unwrap());
        let mut first = sleeper(Some(&exe));
        assert!(process.look(now).unwrap());
        assert_eq!(process.pid(), Some(first.id() as i32));
        let mut second = sleeper(Some(&exe));
        let mut other = Process::new(Found::Exe(exe.clone()), false, now);
        assert!(!other.look(now).unwrap(), "there are two");
        for child in [&mut first, &mut second] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_command_is_started_stopped_woken_killed_and_started_again() {
        let start = Instant::now();
        let command = ["/bin/sleep", "600"].map(String::from).to_vec();
        let restart_after = Some(Duration::from_secs(1));
        let mut process = Process::new(Found::Command { command, restart_after }, false, start);
        assert!(process.look(start).unwrap() && process.is_ours());
        let pid = process.pid().unwrap();
        let state = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        let patience = Instant::now() + Duration::from_secs(10);
        assert!(process.signal(Signal::SIGSTOP));
        while state(pid) != 'T' {
            assert!(Instant::now() < patience);
        }
        assert!(process.signal(Signal::SIGCONT));
        while state(pid) == 'T' {
            assert!(Instant::now() < patience);
        }
        assert!(process.signal(Signal::SIGKILL));
        wait_until_ended(&process);
        assert_eq!(process.ended(start), Some(pid));
        assert!(!process.signal(Signal::SIGKILL), "there is nobody");
        assert!(!process.look(start).unwrap(), "not yet");
        assert!(process.look(start + Duration::from_secs(1)).unwrap());
        process.signal(Signal::SIGKILL);
        wait_until_ended(&process);
        process.ended(start);
    }

    #[test]
    fn a_cold_command_waits_until_it_is_asked_for() {
        let now = Instant::now();
        let command = ["/bin/sleep", "600"].map(String::from).to_vec();
        let found = Found::Command { command, restart_after: None };
        let mut process = Process::new(found, true, now);
        assert!(!process.look(now).unwrap());
        assert!(process.start(now));
        assert!(process.look(now).unwrap());
        process.signal(Signal::SIGKILL);
        wait_until_ended(&process);
        process.ended(now);
        assert!(!process.look(now + Duration::from_secs(9)).unwrap(), "nobody asked");
    }

    #[test]
    fn a_command_that_does_not_exist_is_an_error() {
        let now = Instant::now();
        let command = vec!["/nowhere/server".to_owned()];
        let found = Found::Command { command, restart_after: None };
        assert!(Process::new(found, false, now).look(now).is_err());
    }
}
