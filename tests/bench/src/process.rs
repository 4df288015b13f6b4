//! Processes that are measured, pinned to one core.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use evenkeel_lab::process::{ChildProcess, ProcessError};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The core of the load generator and its sinks.
pub(crate) const LOAD_CORE: usize = 0;
/// The core of the relay under test.
pub(crate) const RELAY_CORE: usize = 1;
/// Time limit for a process to print its listening address.
pub(crate) const FIRST_LINE_WITHIN: Duration = Duration::from_secs(30);
/// Time limit for a process to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// Starts a program on the relay's core with `input` as its standard input.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn start(
    name: &str,
    program: &Path,
    words: &[String],
    input: &[u8],
    folder: &Path,
) -> Result<ChildProcess, ProcessError> {
    // The log is of this run only.
    let _was_none = fs::remove_file(folder.join(format!("{name}.log")));
    let mut command = Command::new("setpriv");
    // The relay ends with the bench, even if the bench is killed.
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &RELAY_CORE.to_string()]);
    command.arg(program).args(words);
    Ok(ChildProcess::start_with_input(name, &mut command, input, folder)?.with_grace(GRACE))
}

/// Kernel counters of a process.
pub(crate) trait Metered {
    /// Processor time of the threads so far, nanoseconds, by their names: the first field of `/proc/PID/task/*/schedstat`. Empty
    /// once the process is gone, so call [`Metered::must_run`] before trusting it.
    fn processor_by_thread(&self) -> BTreeMap<String, u64>;

    /// The sum of [`Metered::processor_by_thread`].
    fn processor_ns(&self) -> u64 {
        self.processor_by_thread().into_values().sum()
    }

    /// Resident memory, MiB.
    ///
    /// # Errors
    /// The process has ended.
    fn resident_mib(&mut self) -> Result<f64, ProcessError>;

    /// # Errors
    /// The process has ended.
    fn must_run(&mut self) -> Result<(), ProcessError>;
}

impl Metered for ChildProcess {
    fn processor_by_thread(&self) -> BTreeMap<String, u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten();
        let mut threads = BTreeMap::new();
        for task in tasks.flatten() {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let (name, stat) = (read("comm"), read("schedstat"));
            let ns = stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
            *threads.entry(name.trim_end().to_owned()).or_default() += ns.unwrap_or(0);
        }
        threads
    }

    fn resident_mib(&mut self) -> Result<f64, ProcessError> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id()));
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1_024.0).ok_or_else(|| self.error("ended"))
    }

    fn must_run(&mut self) -> Result<(), ProcessError> {
        if self.is_running() { Ok(()) } else { Err(self.error("ended while it was measured")) }
    }
}

/// Pins this thread, and the threads and processes that it starts, to one core.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| format!("cannot stay on core {core}: {errno}"))
}

/// Threads that spin on the relay's core, so that each takes the share of a busy thread of the relay. They end on drop.
pub(crate) struct Rivals(Arc<AtomicBool>);

impl Rivals {
    /// # Errors
    /// The core cannot be pinned.
    pub(crate) fn start(number: usize) -> Result<Rivals, String> {
        let rivals = Rivals(Arc::default());
        for _ in 0..number {
            let ended = Arc::clone(&rivals.0);
            let (started, pinned) = channel();
            std::thread::spawn(move || {
                let outcome = pin(RELAY_CORE);
                let is_pinned = outcome.is_ok();
                if started.send(outcome).is_ok() && is_pinned {
                    while !ended.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                }
            });
            pinned.recv().map_err(|_| "a rival did not start".to_owned())??;
        }
        Ok(rivals)
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
