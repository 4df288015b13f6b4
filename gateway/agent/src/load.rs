//! The server's load: the highest of its processor load, its sessions and its own figure. Memory and age of its process.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::ProcessReport;
use nix::time::{ClockId, clock_gettime};

pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Clock ticks per second in `/proc` (USER_HZ; 100 on every Linux).
const TICKS: u64 = 100;

/// Limit of bytes read from the figure's file.
const FIGURE_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Meter {
    /// Processors that the server may use.
    cpus: u32,
    /// File with a load figure in thousandths, written by the server.
    file: Option<PathBuf>,
    /// The process, its processor time in ticks, and the time of the reading.
    last: Option<(i32, u64, Instant)>,
}

impl Meter {
    pub(crate) fn new(cpus: u32, file: Option<PathBuf>) -> Meter {
        Meter { cpus, file, last: None }
    }

    /// Returns the load in thousandths of the capacity. A source that cannot be read counts as 0.
    pub(crate) fn measure(&mut self, pid: Option<i32>, now: Instant) -> u16 {
        let ticks = pid.and_then(|pid| {
            let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, ticks(&stat)?))
        });
        let processor = self.processor(ticks, now);
        let figure = self.file.as_ref().and_then(|path| figure(&std::fs::read(path).ok()?));
        processor.max(figure.unwrap_or(0))
    }

    fn processor(&mut self, ticks: Option<(i32, u64)>, now: Instant) -> u16 {
        let Some((pid, ticks)) = ticks else {
            self.last = None;
            return 0;
        };
        let last = self.last.replace((pid, ticks, now)).filter(|(before, ..)| *before == pid);
        let Some((_, before, at)) = last else { return 0 };
        let could = (now - at).as_millis() as u64 * TICKS * u64::from(self.cpus);
        let used = ticks.saturating_sub(before) * 1_000 * 1_000;
        u16::try_from(used.checked_div(could).unwrap_or(0)).unwrap_or(u16::MAX)
    }
}

/// Returns the processor time of a process, user and system (proc(5), `/proc/pid/stat`, fields 14 and 15).
fn ticks(stat: &str) -> Option<u64> {
    field(stat, 14)?.checked_add(field(stat, 15)?)
}

/// A field of `/proc/pid/stat` from the third on, by its number in proc(5). The process name may contain any character; it
/// ends at the last parenthesis.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Returns memory and age of a process. `None` if they cannot be read.
pub(crate) fn process(pid: i32) -> Option<ProcessReport> {
    let of_process = |file: &str| read_to_string(format!("/proc/{pid}/{file}")).ok();
    let resident = kib(&of_process("status")?, "VmRSS:")?;
    let all = kib(&read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    let group = of_process("cgroup").unwrap_or_default();
    let limit = group_limits(&group, Path::new("/sys/fs/cgroup")).chain([all]).min()?;
    // Field 22 counts from the boot of the host. Under lxcfs `/proc/uptime` counts from the start of the container.
    let up_s = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?.tv_sec();
    let started = field(&of_process("stat")?, 22)?;
    report(resident, limit, up_s.try_into().ok()?, started)
}

/// `resident` and `limit` in KiB. `started` in ticks since the boot of the host, which was `up_s` seconds ago.
fn report(resident: u64, limit: u64, up_s: u64, started: u64) -> Option<ProcessReport> {
    let permille = resident.saturating_mul(1_000).checked_div(limit)?;
    Some(ProcessReport {
        memory_permille: permille.try_into().unwrap_or(u16::MAX),
        age_s: up_s.saturating_sub(started / TICKS).try_into().unwrap_or(u32::MAX),
    })
}

/// The value in KiB of a line such as `VmRSS:     7420 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// The limits on memory in KiB of a control group and those above it, by `/proc/pid/cgroup` (cgroups(7), version 2).
fn group_limits(cgroup: &str, root: &Path) -> impl Iterator<Item = u64> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limit = |folder: &Path| {
        let limit = read_to_string(root.join(folder).join("memory.max")).ok()?;
        Some(limit.trim().parse::<u64>().ok()? / 1_024)
    };
    Path::new(group).ancestors().filter_map(limit)
}

fn figure(bytes: &[u8]) -> Option<u16> {
    let bytes = bytes.get(..bytes.len().min(FIGURE_MAX))?;
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
