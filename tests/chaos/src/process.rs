//! Processes of a chaos run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenkeel_lab::process::{Process, ProcessError};

/// Time limit for a process to print its listening address; the gateway compiles eight plugins before.
pub(crate) const FIRST_LINE_WITHIN: Duration = Duration::from_secs(60);
/// Memory limit of a leaking node, so that it dies within seconds.
const MEMORY: &str = "--as=536870912";

/// Starts a program.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn start(
    name: &str,
    program: &Path,
    words: &[&str],
    folder: &Path,
) -> Result<Process, ProcessError> {
    // The log is of this row only.
    let _was_none = fs::remove_file(folder.join(format!("{name}.log")));
    let mut command = Command::new("setpriv");
    // The process ends with the chaos run, even if that is killed.
    command.args(["--pdeathsig", "KILL"]);
    if words.contains(&"leaks") {
        command.args(["prlimit", MEMORY]);
    }
    command.arg(program).args(words);
    Process::start(name, &mut command, folder)
}
