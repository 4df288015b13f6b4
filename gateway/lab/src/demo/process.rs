//! Processes of the demo, which does other things while it waits for them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Failed;
use crate::process::{self, Said};

/// A process of ours has that long to say where it listens: a machine under load compiles eight plugins in it.
const FIRST_WORDS_WITHIN: Duration = Duration::from_secs(60);
/// And that long to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process; it is killed when this is dropped.
pub(super) struct Process(process::Process);

impl Process {
    /// Starts `evenkeel` with these words. Its standard error goes to a file of its name in `folder`.
    pub(super) fn start(
        evenkeel: &Path,
        words: &[&str],
        name: &str,
        folder: &Path,
    ) -> Result<Process, Failed> {
        let started =
            process::Process::start(name, Command::new(evenkeel).args(words), &[], folder);
        started.map(Process).map_err(Failed::system(&format!("starting {name}")))
    }

    /// Its next line on standard output, as JSON.
    pub(super) async fn line(&mut self) -> Result<serde_json::Value, Failed> {
        let until = Instant::now() + FIRST_WORDS_WITHIN;
        loop {
            match self.0.said(Duration::ZERO) {
                Said::Line(line) => {
                    return serde_json::from_str(&line)
                        .map_err(|_| self.failed(format!("said {line:?}")));
                }
                Said::Nothing if Instant::now() < until => {}
                Said::Nothing => return Err(self.failed("said nothing".to_owned())),
                Said::End => return Err(self.failed("ended".to_owned())),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Failed> {
        let what = || format!("sending {signal} to {}", self.0.name());
        self.0.signal(signal).map_err(|error| Failed::System { what: what(), error })
    }

    /// Whether it still runs.
    pub(super) fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// Asks it to end, waits, and gives its last line on standard output, if it said one.
    pub(super) async fn end(mut self) -> Result<Option<String>, Failed> {
        self.signal(Signal::SIGTERM)?;
        let until = Instant::now() + END_WITHIN;
        while self.is_running() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // Whoever does not end by then is ended; what it said before is still worth reading.
        self.0.kill();
        let mut last = None;
        while let Said::Line(line) = self.0.said(END_WITHIN) {
            last = Some(line);
        }
        Ok(last)
    }

    /// The end of its log.
    pub(super) fn log(&self) -> String {
        self.0.log()
    }

    pub(super) fn failed(&self, how: String) -> Failed {
        Failed::Process { process: self.0.name().to_owned(), how, log: self.log() }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::{TempDir, tempdir};

    use super::*;

    /// With the folder that has its log.
    fn shell(script: &str, name: &str) -> (Process, TempDir) {
        let folder = tempdir().unwrap();
        let process = Process::start(Path::new("/bin/sh"), &["-c", script], name, folder.path());
        (process.unwrap(), folder)
    }

    #[tokio::test]
    async fn first_and_last_words_are_heard() {
        let script = r#"trap 'echo 2; exit' TERM; echo 1; while :; do sleep 0.01; done"#;
        let (mut process, _folder) = shell(script, "demo-test-words");
        assert_eq!(process.line().await.unwrap(), 1);
        assert_eq!(process.end().await.unwrap().as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn process_that_ends_before_its_first_words_shows_its_log() {
        let (mut process, _folder) = shell("echo no such thing >&2", "demo-test-ends");
        let failed = process.line().await.unwrap_err().to_string();
        assert!(failed.contains("ended") && failed.contains("no such thing"), "{failed}");
    }
}
