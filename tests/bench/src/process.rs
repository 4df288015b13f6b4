//! Processes that are measured: pinned to a core, heard on standard output, gone when the handle is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use evenkeel_lab::process::{self, Said};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Where generator and sinks run.
pub(crate) const LOAD_CORE: usize = 0;
/// Where what is measured runs.
pub(crate) const RELAY_CORE: usize = 1;
/// How long a process may take until it says where it listens.
const FIRST_WORDS_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to end when asked to.
const END_WITHIN: Duration = Duration::from_secs(3);

/// A process on the core of what is measured. Asked to end, and then killed, when this is dropped.
pub(crate) struct Process(process::Process);

impl Process {
    /// Starts a program there. What it says on standard error goes to a file of its name in `folder`; `input` is all
    /// that it reads.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        words: &[String],
        input: &[u8],
        folder: &Path,
    ) -> Result<Process, String> {
        // What a run before this one said explains nothing.
        let _was_none = fs::remove_file(folder.join(format!("{name}.log")));
        let mut command = Command::new("setpriv");
        // It ends with this process, however that ends.
        command.args(["--pdeathsig", "KILL", "taskset", "-c", &RELAY_CORE.to_string()]);
        command.arg(program).args(words);
        let started = process::Process::start(name, &mut command, input, folder);
        started.map(Process).map_err(|error| format!("cannot start {}: {error}", program.display()))
    }

    /// Its next line on standard output, as JSON.
    ///
    /// # Errors
    /// It said something else, or nothing in time, or has ended.
    pub(crate) fn line(&mut self) -> Result<serde_json::Value, String> {
        match self.0.said(FIRST_WORDS_WITHIN) {
            Said::Line(line) => {
                serde_json::from_str(&line).map_err(|_| self.failed(&format!("said {line:?}")))
            }
            Said::Nothing => Err(self.failed("said nothing")),
            Said::End => Err(self.failed("ended")),
        }
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// Why it is of no use, with the end of its log.
    pub(crate) fn failed(&self, how: &str) -> String {
        format!("{} {how}\n{}", self.0.name(), self.0.log())
    }

    /// Processor time so far of all its threads, nanoseconds: the sum of the first field of
    /// `/proc/PID/task/*/schedstat`. 0 once it is gone, which whoever measures asks before it believes anything.
    pub(crate) fn processor_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).into_iter().flatten();
        let stats = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        stats.filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum()
    }

    /// Memory it holds, MiB.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn resident_mib(&mut self) -> Result<f64, String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1_024.0).ok_or_else(|| self.failed("ended"))
    }

    /// # Errors
    /// It has ended.
    pub(crate) fn must_run(&mut self) -> Result<(), String> {
        if self.is_running() { Ok(()) } else { Err(self.failed("ended while it was measured")) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ended_meanwhile = self.0.signal(Signal::SIGTERM);
        }
        let until = Instant::now() + END_WITHIN;
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Keeps this thread, and all that it starts without a word of where, on one core.
///
/// # Errors
/// What the system says.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| format!("cannot stay on core {core}: {errno}"))
}

/// Threads that do nothing but run, on the core of what is measured: each has as much of it as a busy thread of that.
/// They end when this is dropped.
pub(crate) struct Rivals(Arc<AtomicBool>);

impl Rivals {
    /// # Errors
    /// What the system says.
    pub(crate) fn start(number: usize) -> Result<Rivals, String> {
        let rivals = Rivals(Arc::default());
        for _ in 0..number {
            let ended = Arc::clone(&rivals.0);
            let (started, hears) = channel();
            std::thread::spawn(move || {
                let pinned = pin(RELAY_CORE);
                let is_pinned = pinned.is_ok();
                if started.send(pinned).is_ok() && is_pinned {
                    while !ended.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                }
            });
            hears.recv().map_err(|_| "a rival did not start".to_owned())??;
        }
        Ok(rivals)
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
