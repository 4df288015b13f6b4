//! Attacks by strangers on the network, in the API and on the host. Each test performs the attack beside a live session
//! and fails without the defence.

mod addresses;
mod api;
mod descriptors;
mod fence;
mod files;
mod flood;
mod icmp;
mod index;
mod offers;
mod panics;
mod privileges;
mod probes;
mod quic;
mod relay;
mod socket;
mod strangers;
mod stun;
mod trunk;
mod webrtc;
mod webtransport;
mod whip;
mod witness;

use std::sync::atomic::{AtomicBool, Ordering};

/// A figure of a process's memory in KiB, such as `VmRSS:` or `VmHWM:` (proc_pid_status(5)).
fn memory_kib(id: u32, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Ends the clients of a test, also when it fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
