//! Processes on stage: started, heard, signalled, and gone when the handle is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenkeel_lab::process::{self, Said};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How long a process may take until it says where it listens: eight plugins are compiled in it.
const FIRST_WORDS_WITHIN: Duration = Duration::from_secs(60);
/// How much memory a node may take: one that leaks comes to its end within seconds.
const MEMORY: &str = "--as=536870912";

/// A process; it is killed when this is dropped.
pub(crate) struct Process(process::Process);

impl Process {
    /// Starts a program. What it says on standard error goes to a file of its name in `folder`.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        words: &[&str],
        folder: &Path,
    ) -> Result<Process, String> {
        // What a row before this one said explains nothing.
        let _was_none = fs::remove_file(folder.join(format!("{name}.log")));
        let mut command = Command::new("setpriv");
        // It ends with this process, however that ends.
        command.args(["--pdeathsig", "KILL"]);
        if words.contains(&"leaks") {
            command.args(["prlimit", MEMORY]);
        }
        command.arg(program).args(words);
        let started = process::Process::start(name, &mut command, b"", folder);
        started.map(Process).map_err(|error| format!("cannot start {}: {error}", program.display()))
    }

    /// Its next line on standard output, as JSON.
    ///
    /// # Errors
    /// It said something else, or nothing in time, or has ended.
    pub(crate) fn line(&mut self) -> Result<Value, String> {
        match self.0.said(FIRST_WORDS_WITHIN) {
            Said::Line(line) => {
                serde_json::from_str(&line).map_err(|_| self.failed(&format!("said {line:?}")))
            }
            Said::Nothing => Err(self.failed("said nothing")),
            Said::End => Err(self.failed("ended")),
        }
    }

    /// # Errors
    /// What the system says.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        let failed = |error| format!("cannot send {signal} to {}: {error}", self.0.name());
        self.0.signal(signal).map_err(failed)
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// Why it is of no use, with the end of its log.
    pub(crate) fn failed(&self, how: &str) -> String {
        format!("{} {how}\n{}", self.0.name(), self.0.log())
    }
}
