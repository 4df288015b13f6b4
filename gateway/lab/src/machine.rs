//! Scheduling latency of the machine. If the machine wakes threads late, or its hypervisor takes cores away, figures in
//! milliseconds show the machine rather than the gateway.

use std::thread;
use std::time::{Duration, Instant};

use evenkeel_process::host::ProcessorTime;
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
    before: ProcessorTime,
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
            before: processor_time(),
        }
    }

    /// Lateness since [`MachineWatch::begin`].
    pub fn so_far(&self) -> Timeliness {
        let stolen_percent = stolen_percent(self.before, processor_time());
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

/// Returns zero if the kernel does not report processor times.
fn processor_time() -> ProcessorTime {
    ProcessorTime::now().unwrap_or_default()
}

/// Steal time since `before`, per cent of the used time; 0 without used time.
fn stolen_percent(before: ProcessorTime, now: ProcessorTime) -> f64 {
    let ProcessorTime { used, stolen, .. } = now.since(before);
    stolen as f64 * 100.0 / used.max(1) as f64
}

#[cfg(test)]
mod tests;
