//! Interrupt coalescing for workers and the QUIC thread. A wake-up costs more than a packet, so while packets keep
//! arriving the thread pauses briefly between reads. It reads the first packet after a pause at once. Packets from
//! rings do not count, because their sender has gathered them already.

use std::time::Duration;

/// Timer slack in nanoseconds. The kernel's default of 50 µs would be a quarter of the gather time.
const TIMER_SLACK: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Gather {
    most: Duration,
}

/// The thread's wait before the current pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Before {
    /// The thread paused while packets gathered.
    Gathered,
    /// The thread waited in epoll for this time.
    Waited(Duration),
}

impl Gather {
    /// Pauses for `most` between two batches; zero disables pauses.
    pub(crate) fn new(most: Duration) -> Gather {
        Gather { most }
    }

    /// Sets the timer slack of this thread.
    pub(crate) fn keep_time() {
        // Without the permission, pauses are a little longer.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK);
    }

    /// Returns the pause after a pass that read this number of packets. `None`: wait in epoll, which wakes at the next
    /// packet.
    pub(crate) fn pause(&self, before: Before, packets: usize) -> Option<Duration> {
        let keep_coming = packets > 0
            && match before {
                Before::Gathered => true,
                Before::Waited(time) => time < self.most,
            };
        keep_coming.then_some(self.most)
    }
}

#[cfg(test)]
mod tests;
