//! Processes of a chaos run.

use std::fs;
use std::marker::PhantomData;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel_lab::process::{ChildProcess, ProcessError};
use nix::unistd::gettid;

/// Time limit for a process to print its listening address; the gateway compiles eight plugins before.
pub(crate) const FIRST_LINE_WITHIN: Duration = Duration::from_secs(60);
/// Memory limit of a leaking node, so that it dies within seconds.
const MEMORY: &str = "--as=536870912";

/// The nice value of the whole run.
const USUAL: i32 = -15;
/// The nice value of gateways on hosts of their own, where they share no processor with clients and nodes.
const APART: i32 = -20;
/// The nice value of processes that would be on a host that serves nothing.
const LOW: i32 = 0;
/// Increment of the nice value from [`USUAL`] to [`APART`].
const UP: &str = "-5";
/// Increment of the nice value from [`USUAL`] to [`LOW`].
const DOWN: &str = "15";

/// Starts a program.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn start(
    name: &str,
    program: &Path,
    words: &[&str],
    folder: &Path,
) -> Result<ChildProcess, ProcessError> {
    start_by(&[], name, program, words, folder)
}

/// Starts the program of a gateway on a host of its own.
pub(crate) fn start_apart(
    name: &str,
    program: &Path,
    words: &[&str],
    folder: &Path,
) -> Result<ChildProcess, ProcessError> {
    start_by(&["nice", "-n", UP], name, program, words, folder)
}

/// Starts a program at low priority: that of another host would take no processor from this one. See [`raise`].
pub(crate) fn start_low(
    name: &str,
    program: &Path,
    words: &[&str],
    folder: &Path,
) -> Result<ChildProcess, ProcessError> {
    start_by(&["nice", "-n", DOWN], name, program, words, folder)
}

/// Gives a gateway that started at low priority, and the processes that it started, the priority of a host of its own.
pub(crate) fn raise(process: &ChildProcess) -> Result<(), String> {
    renice(APART, "-g", process.id())
}

/// This thread has low priority until this is dropped, so that it takes no processor from a gateway. Processes that it
/// starts meanwhile keep it.
pub(crate) struct Quiet {
    thread: u32,
    /// Not `Send`: the priority is that of this thread.
    _of_this_thread: PhantomData<*const ()>,
}

impl Quiet {
    pub(crate) fn begin() -> Result<Quiet, String> {
        let thread = gettid().as_raw().unsigned_abs();
        renice(LOW, "-p", thread)?;
        Ok(Quiet { thread, _of_this_thread: PhantomData })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let raised = renice(USUAL, "-p", self.thread);
        assert!(raised.is_ok() || std::thread::panicking(), "{raised:?}");
    }
}

fn renice(nice: i32, kind: &str, id: u32) -> Result<(), String> {
    let mut command = Command::new("renice");
    command.args(["-n", &nice.to_string(), kind, &id.to_string()]).stdout(Stdio::null());
    let changed = command.status();
    let changed = changed.map_err(|error| format!("needs renice (util-linux): {error}"))?;
    if changed.success() { Ok(()) } else { Err(format!("cannot change priorities: {changed}")) }
}

fn start_by(
    prefix: &[&str],
    name: &str,
    program: &Path,
    words: &[&str],
    folder: &Path,
) -> Result<ChildProcess, ProcessError> {
    // The log is of this row only.
    let _was_none = fs::remove_file(folder.join(format!("{name}.log")));
    let mut command = Command::new("setpriv");
    // The process ends with the chaos run, even if that is killed.
    command.args(["--pdeathsig", "KILL"]);
    if words.contains(&"leaks") {
        command.args(["prlimit", MEMORY]);
    }
    command.args(prefix).arg(program).args(words);
    ChildProcess::start(name, &mut command, folder)
}
