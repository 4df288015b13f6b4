//! The server's load: the highest of its processor time, its sessions and its own figure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Clock ticks per second in `/proc` (USER_HZ; 100 on every Linux).
const TICKS: u64 = 100;

/// Bytes read of the figure's file.
const FIGURE_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Meter {
    /// Processors that the server may use.
    cpus: u32,
    /// File with a load figure in thousandths, written by the server.
    file: Option<PathBuf>,
    /// Process, its processor time in ticks, and when it was read.
    last: Option<(i32, u64, Instant)>,
}

impl Meter {
    pub(crate) fn new(cpus: u32, file: Option<PathBuf>) -> Meter {
        Meter { cpus, file, last: None }
    }

    /// Load in thousandths of the capacity; unreadable sources count as 0.
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

/// Processor time of a process, user and system (proc(5), `/proc/pid/stat`, fields 14 and 15). The
/// name may contain anything and ends with the last parenthesis.
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
mod tests {
    use tempfile::tempdir;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn process_name_may_contain_anything() {
        let stat = "7 (a) b) 9) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (x) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn processor_time_is_a_share_of_the_cpus() {
        let (mut meter, start) = (Meter::new(2, None), Instant::now());
        assert_eq!(meter.processor(Some((7, 1_000)), start), 0, "first sample");
        assert_eq!(meter.processor(Some((7, 1_050)), start + SECOND), 250);
        assert_eq!(meter.processor(Some((8, 2_000)), start + 2 * SECOND), 0, "another process");
        assert_eq!(meter.processor(Some((8, 2_200)), start + 3 * SECOND), 1_000);
        assert_eq!(meter.processor(None, start + 4 * SECOND), 0);
        assert_eq!(meter.processor(Some((8, 2_200)), start + 4 * SECOND), 0);
    }

    #[test]
    fn readable_figure_above_processor_time_counts() {
        for (bytes, read) in [
            (&b"420\n"[..], Some(420)),
            (b"  7 ", Some(7)),
            (b"-1", None),
            (b"70000", None),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(figure(bytes), read, "{bytes:?}");
        }
        let folder = tempdir().unwrap();
        let path = folder.path().join("figure");
        std::fs::write(&path, "333\n").unwrap();
        let mut meter = Meter::new(1, Some(path.clone()));
        assert_eq!(meter.measure(None, Instant::now()), 333);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(meter.measure(None, Instant::now()), 0);
    }

    #[test]
    fn own_processor_time_is_readable() {
        let pid = std::process::id() as i32;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(ticks(&stat).is_some());
    }
}
