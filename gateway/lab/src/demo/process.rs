//! Processes of the demo: started, signalled by their id, and gone when the handle is.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Failed;

/// A process of ours has that long to say where it listens: a machine under load compiles eight plugins in it.
const FIRST_WORDS_WITHIN: Duration = Duration::from_secs(60);
/// And that long to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of a log that are shown when its process failed.
const LOG_LINES: usize = 12;

/// A process; it is killed when this is dropped.
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `evenkeel` with these words. Its standard error goes to a file of its name in `folder`.
    pub(super) fn start(
        evenkeel: &Path,
        words: &[&str],
        name: &str,
        folder: &Path,
    ) -> Result<Process, Failed> {
        let what = format!("starting {name}");
        let log = folder.join(format!("{name}.log"));
        let file =
            File::options().create(true).append(true).open(&log).map_err(Failed::system(&what))?;
        let mut child = Command::new(evenkeel)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // A group of its own: an interrupt at the terminal is for the demo, which ends what it started.
            .process_group(0)
            .spawn()
            .map_err(Failed::system(&what))?;
        let (said, lines) = channel();
        let out = child.stdout.take();
        // Ends with the process's standard output.
        std::thread::spawn(move || {
            let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
            lines.map_while(Result::ok).try_for_each(|line| said.send(line)).ok()
        });
        Ok(Process { name: name.to_owned(), child, log, lines })
    }

    /// Its next line on standard output, as JSON.
    pub(super) async fn line(&mut self) -> Result<serde_json::Value, Failed> {
        let until = Instant::now() + FIRST_WORDS_WITHIN;
        loop {
            match self.lines.try_recv() {
                Ok(line) => {
                    return serde_json::from_str(&line)
                        .map_err(|_| self.failed(format!("said {line:?}")));
                }
                Err(TryRecvError::Empty) if Instant::now() < until => {}
                Err(TryRecvError::Empty) => return Err(self.failed("said nothing".to_owned())),
                Err(TryRecvError::Disconnected) => return Err(self.failed("ended".to_owned())),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Failed> {
        let pid = i32::try_from(self.child.id()).map_or(Pid::this(), Pid::from_raw);
        kill(pid, signal).map_err(|errno| Failed::System {
            what: format!("sending {signal} to {}", self.name),
            error: errno.into(),
        })
    }

    /// Whether it still runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, waits, and gives its last line on standard output, if it said one.
    pub(super) async fn end(mut self) -> Result<Option<String>, Failed> {
        self.signal(Signal::SIGTERM)?;
        let until = Instant::now() + END_WITHIN;
        while self.is_running() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // Whoever does not end by then is ended; what it said before is still worth reading.
        self.kill_and_wait();
        Ok(self.lines.iter().last())
    }

    /// The end of its log.
    pub(super) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    pub(super) fn failed(&self, how: String) -> Failed {
        Failed::Process { process: self.name.clone(), how, log: self.log() }
    }

    fn kill_and_wait(&mut self) {
        let killed: io::Result<()> = self.child.kill();
        if killed.is_ok() {
            let _reaped = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_and_wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> PathBuf {
        std::env::temp_dir()
    }

    fn shell(script: &str, name: &str) -> Process {
        Process::start(Path::new("/bin/sh"), &["-c", script], name, &here()).unwrap()
    }

    #[test]
    fn process_that_is_dropped_is_gone_even_when_it_was_stopped() {
        let process = shell("exec sleep 600", "demo-test-dropped");
        let pid = Pid::from_raw(process.child.id().cast_signed());
        process.signal(Signal::SIGSTOP).unwrap();
        drop(process);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[tokio::test]
    async fn first_and_last_words_are_heard() {
        let script = r#"trap 'echo 2; exit' TERM; echo 1; while :; do sleep 0.01; done"#;
        let mut process = shell(script, "demo-test-words");
        assert_eq!(process.line().await.unwrap(), 1);
        assert_eq!(process.end().await.unwrap().as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn process_that_ends_before_its_first_words_shows_its_log() {
        let mut process = shell("echo no such thing >&2", "demo-test-ends");
        let failed = process.line().await.unwrap_err().to_string();
        assert!(failed.contains("ended") && failed.contains("no such thing"), "{failed}");
    }
}
