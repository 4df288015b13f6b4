//! What is done to a process beside signals that end it.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::stage::Stage;

/// Of each time slice a starved node has the processor for this part.
const SLICE: Duration = Duration::from_millis(100);
const SHARE: Duration = Duration::from_millis(5);

/// No file more than a process has open anyway, and as many as there usually may be.
const NONE: &str = "--nofile=3";
const SOME: &str = "--nofile=1024";

pub(super) fn signal_all(stage: &Stage, names: &[String], signal: Signal) -> Result<(), String> {
    names.iter().try_for_each(|name| stage.signal(name, signal))
}

/// They have the processor for 5 ms of each 100.
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

/// These nodes and the gateway may open no files any more, or some.
pub(super) fn limit_files(stage: &Stage, names: &[String], some: bool) -> Result<(), String> {
    let nodes = names.iter().map(|name| Ok(stage.node(name)?.process.as_ref()));
    let nodes: Vec<_> = nodes.collect::<Result<_, String>>()?;
    let limit = format!("{}:", if some { SOME } else { NONE });
    for process in nodes.into_iter().flatten().chain([&stage.gateway]) {
        let mut prlimit = Command::new("prlimit");
        match prlimit.args(["--pid", &process.id().to_string(), &limit]).status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("prlimit {limit}: {status}")),
            Err(error) => return Err(format!("needs prlimit (util-linux): {error}")),
        }
    }
    Ok(())
}
