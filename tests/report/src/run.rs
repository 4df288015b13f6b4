//! The run behind a report: date, commit and machine.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A run of a command.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Run {
    /// RFC 3339, in UTC.
    pub date: String,
    /// `-dirty`: with changes that no commit has.
    pub commit: String,
    /// Processors, memory and kernel.
    pub machine: String,
    /// The command line without its program.
    pub arguments: Vec<String>,
}

impl Run {
    /// The run of this process.
    pub fn current() -> Run {
        let source = env!("CARGO_MANIFEST_DIR");
        let describe =
            ["-C", source, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
        Run {
            date: line_of("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            commit: line_of("git", &describe),
            machine: machine(),
            arguments: std::env::args().skip(1).collect(),
        }
    }
}

/// The output of a program; `unknown` without any.
fn line_of(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().ok();
    let line = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    line.filter(|line| !line.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
    };
    // All of the machine: a command may have pinned this thread to a few.
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processors = processors.lines().filter(|line| line.starts_with("processor")).count();
    let model = field("/proc/cpuinfo", "model name");
    let memory = field("/proc/meminfo", "MemTotal");
    let memory: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processors} × {model}, {} MiB, Linux {}", memory / 1024, kernel.trim())
}

#[cfg(test)]
mod tests {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn pinned_thread_reports_all_processors() {
        let all = machine();
        let pinned = std::thread::spawn(|| {
            let this = Pid::from_raw(0);
            let allowed = sched_getaffinity(this).unwrap();
            let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
            let mut one = CpuSet::new();
            one.set(first).unwrap();
            sched_setaffinity(this, &one).unwrap();
            machine()
        });
        assert_eq!(pinned.join().unwrap(), all);
        assert!(!all.starts_with('0'), "{all}");
    }
}
