//! Scheduling latency of the machine. If the machine wakes threads late, or its hypervisor takes cores away, figures in
//! milliseconds show the machine rather than the gateway.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::nanoseconds;
use crate::ledger::GapSpread;

/// Length of a sleep.
const NAP: Duration = Duration::from_millis(2);
/// Number of sleeps: half a second in total.
const NAPS: u32 = 250;
/// The machine counts as late if the p99 of its wake-up delays is above this: five steps share a budget of 10 ms.
const LATE_MS: f64 = 2.0;
/// The machine also counts as late above this share of steal time.
const STOLEN_PERCENT: f64 = 2.0;
/// Processor times of the kernel (proc_stat(5)).
const BOOKS: &str = "/proc/stat";

/// How late this machine wakes threads, and the share of time that other work took.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Timeliness {
    /// Wake-up delays of threads on the idle machine, milliseconds.
    pub woken_late_ms: GapSpread,
    /// Steal time, per cent of the time in which all cores were used.
    pub(crate) stolen_percent: f64,
}

/// Start of the observation of a machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineWatch {
    woken_late_ms: GapSpread,
    used: Used,
}

impl MachineWatch {
    /// Measures wake-up delays for half a second on the idle machine, then begins to observe steal time.
    pub fn begin() -> MachineWatch {
        let late = |_| {
            let before = Instant::now();
            thread::sleep(NAP);
            nanoseconds(before.elapsed().saturating_sub(NAP))
        };
        MachineWatch {
            woken_late_ms: GapSpread::of_ns((0..NAPS).map(late).collect()),
            used: Used::now(),
        }
    }

    /// Lateness since [`MachineWatch::begin`].
    pub fn so_far(&self) -> Timeliness {
        let stolen_percent = Used::now().stolen_percent_since(self.used);
        Timeliness { woken_late_ms: self.woken_late_ms, stolen_percent }
    }
}

impl Timeliness {
    /// Returns true if the machine is too late for limits in milliseconds.
    pub fn is_late(&self) -> bool {
        self.woken_late_ms.p99 > LATE_MS || self.stolen_percent > STOLEN_PERCENT
    }
}

impl std::fmt::Display for Timeliness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let GapSpread { p50, p99, max } = self.woken_late_ms;
        write!(
            f,
            "at rest it wakes threads {p50:.1} ms late (p99 {p99:.1}, max {max:.1}), and its host took {:.1} % of the \
             used time",
            self.stolen_percent
        )
    }
}

/// Start of an observation of the processors' use.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorWatch(Used);

impl ProcessorWatch {
    /// Begins to observe.
    pub fn begin() -> ProcessorWatch {
        ProcessorWatch(Used::now())
    }

    /// Idle time since [`ProcessorWatch::begin`], per cent of the time of all cores; 100 if the kernel reports none.
    pub fn idle_percent(&self) -> f64 {
        let now = Used::now();
        let all = now.all.saturating_sub(self.0.all);
        let idle = now.idle.saturating_sub(self.0.idle);
        if all + idle == 0 { 100.0 } else { idle as f64 * 100.0 / (all + idle) as f64 }
    }
}

/// Time of all cores since the machine started, in ticks of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Used {
    all: u64,
    stolen: u64,
    idle: u64,
}

impl Used {
    /// Returns zero if the kernel does not report processor times.
    fn now() -> Used {
        fs::read_to_string(BOOKS).ok().and_then(|books| Used::of(&books)).unwrap_or_default()
    }

    /// Reads the first line: `cpu user nice system idle iowait irq softirq steal guest guest_nice`. `user` and `nice`
    /// include both guest times.
    fn of(books: &str) -> Option<Used> {
        let ticks = books.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, idle, waiting, irq, softirq, stolen] = *ticks.first_chunk()?;
        let all = user + nice + system + irq + softirq + stolen;
        Some(Used { all, stolen, idle: idle + waiting })
    }

    /// Steal time since `before`, per cent of the used time; 0 without used time.
    fn stolen_percent_since(self, before: Used) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let stolen = self.stolen.saturating_sub(before.stolen);
        stolen as f64 * 100.0 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests;
