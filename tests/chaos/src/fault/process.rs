//! Faults of processes other than death.

use std::fmt::Display;
use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::stage::Stage;
use evenkeel_lab::process::ChildProcess;

/// A starved node gets the processor for `SHARE` of each `SLICE`.
const SLICE: Duration = Duration::from_millis(100);
const SHARE: Duration = Duration::from_millis(5);

/// Limits of open files: no file beyond those that are already open, and the usual limit.
const NONE: &str = "--nofile=3";
const SOME: &str = "--nofile=1024";

pub(super) fn signal_all(stage: &Stage, names: &[String], signal: Signal) -> Result<(), String> {
    names.iter().try_for_each(|name| stage.signal(name, signal))
}

/// Stops one thread of a process for this long.
pub(super) async fn stop_thread(
    process: &ChildProcess,
    name: &str,
    long: Duration,
) -> Result<(), String> {
    let failed = |what: &str, error: &dyn Display| format!("{what} the thread {name}: {error}");
    let thread = thread(process.id(), name)?;
    let traced = Pid::from_raw(thread);
    ptrace::seize(traced, ptrace::Options::empty()).map_err(|error| failed("seizing", &error))?;
    ptrace::interrupt(traced).map_err(|error| failed("stopping", &error))?;
    tokio::time::sleep(long).await;
    let standing = fs::read_to_string(format!("/proc/{thread}/stat"));
    let stood = standing.is_ok_and(|stat| stat.contains(") t "));
    ptrace::detach(traced, None).map_err(|error| failed("detaching from", &error))?;
    if stood { Ok(()) } else { Err(failed("stopping", &"the thread was not stopped")) }
}

/// The id of the process's thread with this name.
fn thread(process: u32, name: &str) -> Result<i32, String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.map_err(|error| format!("the threads of {process}: {error}"))?;
    let is_it = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.flatten().find(is_it);
    let number = task.and_then(|task| task.file_name().to_str()?.parse().ok());
    number.ok_or_else(|| format!("no thread {name} in {process}"))
}

/// Gives these nodes the processor for 5 ms of each 100 ms.
pub(super) async fn starve(stage: &Stage, names: &[String], long: Duration) -> Result<(), String> {
    let until = tokio::time::Instant::now() + long;
    while tokio::time::Instant::now() < until {
        signal_all(stage, names, Signal::SIGSTOP)?;
        tokio::time::sleep(SLICE - SHARE).await;
        signal_all(stage, names, Signal::SIGCONT)?;
        tokio::time::sleep(SHARE).await;
    }
    Ok(())
}

/// Forbids these nodes and the gateway to open files, or allows it again.
pub(super) fn limit_files(stage: &Stage, names: &[String], some: bool) -> Result<(), String> {
    let nodes = names.iter().map(|name| Ok(stage.node(name)?.process.as_ref()));
    let nodes: Vec<_> = nodes.collect::<Result<_, String>>()?;
    let limit = format!("{}:", if some { SOME } else { NONE });
    for process in nodes.into_iter().flatten().chain([&stage.gateway().process]) {
        let mut prlimit = Command::new("prlimit");
        match prlimit.args(["--pid", &process.id().to_string(), &limit]).status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("prlimit {limit}: {status}")),
            Err(error) => return Err(format!("needs prlimit (util-linux): {error}")),
        }
    }
    Ok(())
}
