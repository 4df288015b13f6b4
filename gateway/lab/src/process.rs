//! Processes of a demo or a bench: started, heard on standard output, signalled by their id, and gone when the handle is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Lines of a log that are shown when its process failed.
const LOG_LINES: usize = 12;

/// A process; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
}

/// What a process says on standard output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// A line.
    Line(String),
    /// Nothing so far.
    Nothing,
    /// Nothing more: it has closed it, or has ended.
    End,
}

impl Process {
    /// Starts it. What it writes on standard error is added to a file of its name in `folder`; `input` is all that it
    /// reads.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(
        name: &str,
        command: &mut Command,
        input: &[u8],
        folder: &Path,
    ) -> io::Result<Process> {
        let log = folder.join(format!("{name}.log"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            // A group of its own: an interrupt at the terminal is for us, who end what we started.
            .process_group(0)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing, or has ended already, is found out when it is heard.
            let _unread = stdin.write_all(input);
        }
        let (says, lines) = channel();
        let out = child.stdout.take();
        // Ends with the process's standard output.
        std::thread::spawn(move || {
            let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
            lines.map_while(Result::ok).try_for_each(|line| says.send(line)).ok()
        });
        Ok(Process { name: name.to_owned(), child, log, lines })
    }

    /// What it was started as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its next line, waited for at most so long.
    pub fn said(&mut self, within: Duration) -> Said {
        match self.lines.recv_timeout(within) {
            Ok(line) => Said::Line(line),
            Err(RecvTimeoutError::Timeout) => Said::Nothing,
            Err(RecvTimeoutError::Disconnected) => Said::End,
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// What the system says.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Ends it now, and what it started itself.
    pub fn kill(&mut self) {
        if self.is_running() {
            // Its group has its number, and goes with it.
            let _gone = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        }
        if self.child.kill().is_ok() {
            let _reaped = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use tempfile::{TempDir, tempdir};

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// With the folder that has its log.
    fn shell(script: &str, input: &str, name: &str) -> (Process, TempDir) {
        let (mut command, folder) = (Command::new("/bin/sh"), tempdir().unwrap());
        let command = command.args(["-c", script]);
        (Process::start(name, command, input.as_bytes(), folder.path()).unwrap(), folder)
    }

    #[test]
    fn process_that_is_dropped_is_gone_even_when_it_was_stopped() {
        let (process, _folder) = shell("exec sleep 600", "", "lab-test-dropped");
        let pid = Pid::from_raw(process.id().cast_signed());
        process.signal(Signal::SIGSTOP).unwrap();
        drop(process);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn process_that_is_dropped_takes_what_it_started_along() {
        let script = "sleep 600 & echo $!; wait";
        let (mut process, _folder) = shell(script, "", "lab-test-group");
        let Said::Line(child) = process.said(SOON) else { panic!() };
        let child = Pid::from_raw(child.parse().unwrap());
        assert_eq!(kill(child, None), Ok(()));
        drop(process);
        // It is nobody's child by then; whoever reaps orphans does it soon.
        let is_there = || kill(child, None).is_ok() && !is_zombie(child);
        while is_there() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_zombie(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    }

    #[test]
    fn process_reads_its_input_and_is_heard_to_its_end() {
        let (mut process, _folder) = shell("cat; exec sleep 600", "one\ntwo\n", "lab-test-heard");
        assert_eq!(process.said(SOON), Said::Line("one".to_owned()));
        assert_eq!(process.said(SOON), Said::Line("two".to_owned()));
        assert_eq!(process.said(Duration::ZERO), Said::Nothing);
        process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(process.said(SOON), Said::End);
    }

    #[test]
    fn process_that_ends_leaves_its_log() {
        let (mut process, _folder) = shell("echo no such thing >&2", "", "lab-test-ends");
        assert_eq!(process.said(SOON), Said::End);
        process.kill();
        assert!(process.log().ends_with("no such thing"), "{}", process.log());
    }
}
