//! The server's load: the highest of its processor load, its sessions and its own figure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

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
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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

/// Returns the processor time of a process, user and system (proc(5), `/proc/pid/stat`, fields 14 and 15). The process
/// name may contain any character; it ends at the last parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

fn figure(bytes: &[u8]) -> Option<u16> {
    let bytes = bytes.get(..bytes.len().min(FIGURE_MAX))?;
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
