//! A live stream: a publisher, and viewers in the same room.

use std::time::Duration;

use evenkeel_lab::client::DeviceFault;
use evenkeel_lab::clock::nanoseconds;
use evenkeel_lab::crowd::Crowd;

/// The session that sends.
const PUBLISHER: u64 = 1;
/// Rate of its video, bits per second: a packet for each of 25 frames a second, so that clients, node and gateway have the time for
/// 300 copies of each.
const VIDEO_BPS: u64 = 60_000;
/// Requests within this time are for one loss. A gateway leaves 300 ms between two requests of a stream, and clocks differ a little.
const AT_ONCE: Duration = Duration::from_millis(250);

pub(crate) fn slow_video(crowd: &Crowd) {
    let fault = DeviceFault { video_bps: Some(VIDEO_BPS), ..DeviceFault::default() };
    crowd.set_device_fault(&[PUBLISHER].into(), fault);
}

/// The most requests within [`AT_ONCE`] of those since the fault. `asked_ns` are their times in order.
pub(crate) fn asked_at_once(asked_ns: &[u64], fault_ns: u64) -> usize {
    let since = &asked_ns[asked_ns.partition_point(|at_ns| *at_ns < fault_ns)..];
    let within = nanoseconds(AT_ONCE);
    let from = |first: usize| since[first..].partition_point(|at_ns| at_ns - since[first] < within);
    (0..since.len()).map(from).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn requests_at_once_are_counted_since_the_fault() {
        let asked = |times: &[u64]| {
            let times: Vec<u64> = times.iter().map(|ms| ms * MS).collect();
            asked_at_once(&times, 100 * MS)
        };
        assert_eq!((asked(&[]), asked(&[0, 99])), (0, 0));
        assert_eq!(asked(&[0, 99, 100, 400, 700]), 1);
        assert_eq!(asked(&[0, 99, 100, 349, 599]), 2);
        let each_viewer: Vec<u64> = (140..440).collect();
        assert_eq!(asked(&each_viewer), 250);
    }
}
