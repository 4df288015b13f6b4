//! A program that starts a node, under the eyes of a thread of its own: control tells it to end, and waits for nothing.

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

use super::output::Output;

/// A program that was called, or is about to be.
pub(super) struct Program {
    phase: Arc<Mutex<Phase>>,
    thread: JoinHandle<()>,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It does not run yet.
    Waits,
    /// It runs, and leads the group of this number, which is nobody else's before it is waited for.
    Runs(Pid),
    /// It ended, or is to.
    Over,
}

impl Program {
    /// Calls the program once all of `before` are over. `failed` is told if it cannot be run, or ends with an error by itself.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(
        name: &Arc<str>,
        words: &[Arc<str>],
        before: Vec<JoinHandle<()>>,
        failed: impl FnOnce() + Send + 'static,
    ) -> io::Result<Program> {
        let phase = Arc::new(Mutex::new(Phase::Waits));
        let (words, name, seen) = (words.to_vec(), Arc::clone(name), Arc::clone(&phase));
        let run = move || {
            // One that panicked is over as well.
            before.into_iter().for_each(|before| _ = before.join());
            let ill = match run(&words, &name, &seen) {
                Ok(None) => return,
                Ok(Some(status)) => told(status),
                Err(error) => format!("it cannot be run: {error}"),
            };
            tracing::warn!(node = %name, program = %words[0], "the node's start hook failed: {ill}");
            failed();
        };
        let thread = std::thread::Builder::new().name("start node".to_owned()).spawn(run)?;
        Ok(Program { phase, thread })
    }

    /// Ends it and what it started in its group, or has it not begin. The thread is over once it is waited for.
    pub(super) fn end(self) -> JoinHandle<()> {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Runs(group) = std::mem::replace(&mut *phase, Phase::Over) {
            kill(group);
        }
        drop(phase);
        self.thread
    }

    /// Whether it ended, and was waited for.
    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

#[cfg(test)]
impl Program {
    /// Waits until it ended by itself.
    pub(super) fn over(self) {
        self.thread.join().unwrap();
    }
}

/// By a number that is nobody else's: its leader was not waited for.
fn kill(group: Pid) {
    // Nobody is left in it where this fails.
    let _ = killpg(group, Signal::SIGKILL);
}

/// Runs it until it ends. How, where that was by itself and no success.
fn run(words: &[Arc<str>], name: &str, phase: &Mutex<Phase>) -> io::Result<Option<WaitStatus>> {
    if *phase.lock().unwrap_or_else(PoisonError::into_inner) == Phase::Over {
        return Ok(None);
    }
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = command(words, theirs)?.spawn()?;
    let group = Pid::from_raw(child.id() as i32);
    match &mut *phase.lock().unwrap_or_else(PoisonError::into_inner) {
        waits @ Phase::Waits => *waits = Phase::Runs(group),
        Phase::Runs(_) | Phase::Over => kill(group),
    }
    let watched = watch(&child, name, &ours);
    let mut phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
    let by_itself = std::mem::replace(&mut *phase, Phase::Over) != Phase::Over;
    let ended = watched.and_then(|()| how(group));
    if !matches!(ended, Ok(WaitStatus::Exited(_, 0))) {
        kill(group);
    }
    child.wait()?;
    let ended = ended?;
    Ok((by_itself && !matches!(ended, WaitStatus::Exited(_, 0))).then_some(ended))
}

/// In a group of its own: what a terminal tells the gateway is not for the node, and what the program starts ends with it.
/// It writes datagrams: where nobody reads them any more, that is an error to it and no signal, so that it may outlive us.
fn command(words: &[Arc<str>], writes: UnixDatagram) -> io::Result<Command> {
    let mut command = Command::new(&*words[0]);
    command.args(words[1..].iter().map(|word| &**word));
    let writes = OwnedFd::from(writes);
    command.stdin(Stdio::null()).stdout(writes.try_clone()?).stderr(writes).process_group(0);
    Ok(command)
}

/// Logs what it says until it ended.
fn watch(child: &Child, name: &str, says: &UnixDatagram) -> io::Result<()> {
    let held = PidFd::from_pid(child.id() as i32)?;
    let mut output = Output::new(name);
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

/// How it ended; it is still to be waited for.
fn how(child: Pid) -> io::Result<WaitStatus> {
    Ok(waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?)
}

fn told(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("it ended with status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("it was ended by {signal}"),
        other => format!("it ended: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tempfile::tempdir;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn words(script: &str) -> [Arc<str>; 3] {
        ["/bin/sh", "-c", script].map(Into::into)
    }

    #[test]
    fn a_call_waits_for_the_one_before_it_on_a_thread_of_its_own_and_may_be_over_before_it_begins()
    {
        let folder = tempdir().unwrap();
        let file = folder.path().join("before");
        let begin = |ends: bool| {
            let (end, ended) = mpsc::channel::<()>();
            let before = std::thread::spawn(move || ended.recv().unwrap_or_default());
            let script = words(&format!("touch {}", file.display()));
            let program = Program::start(&"n".into(), &script, vec![before], || {}).unwrap();
            if ends {
                let thread = program.end();
                drop(end);
                thread.join().unwrap();
            } else {
                assert!(!file.exists());
                drop(end);
                program.over();
            }
            file.exists()
        };
        assert!(!begin(true), "it never ran");
        assert!(begin(false));
    }

    #[test]
    fn how_a_program_ended_is_told() {
        let run = |script: &str| run(&words(script), "n", &Mutex::new(Phase::Waits)).unwrap();
        assert_eq!(run("exit 0").map(told), None);
        assert_eq!(run("exit 3").map(told).unwrap(), "it ended with status 3");
        assert_eq!(run("kill -9 $$").map(told).unwrap(), "it was ended by SIGKILL");
    }

    #[test]
    fn a_program_that_outlives_who_reads_it_is_not_killed_for_what_it_says() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        drop(ours);
        let mut child = command(&words("echo a; echo b; exit 0"), theirs).unwrap().spawn().unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn what_a_program_says_is_logged_line_by_line_with_the_name_of_its_node() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let child = command(&words("echo out; echo err >&2; exit 0"), theirs).unwrap().spawn();
        let mut child = child.unwrap();
        let log = Log::default();
        let writer = log.clone();
        let people = tracing_subscriber::fmt().with_ansi(false);
        let subscriber = people.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || watch(&child, "east-b1", &ours).unwrap());
        child.wait().unwrap();
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        for line in ["start hook: out node=east-b1", "start hook: err node=east-b1"] {
            assert!(log.contains(line), "{log}");
        }
    }
}
