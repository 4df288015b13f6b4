//! The pauses in which packets gather.

use std::time::{Duration, Instant};

/// Timer slack in nanoseconds. The kernel's default of 50 µs would be a quarter of the gather time.
const TIMER_SLACK: u64 = 1_000;

/// Interrupt coalescing for workers and the QUIC thread. A wake-up costs more than a packet, so while packets keep
/// arriving the thread pauses briefly between reads. It reads the first packet after a pause at once. Packets from
/// rings do not count, because their sender has gathered them already.
#[derive(Debug)]
pub(crate) struct Gather {
    /// Time between two batches; zero disables pauses.
    pub(crate) pause: Duration,
    /// True if the thread paused before the current pass, false if it waited in epoll.
    pub(crate) gathered: bool,
    /// End of the last pass.
    pub(crate) ended: Instant,
}

impl Gather {
    pub(crate) fn new(pause: Duration) -> Gather {
        Gather { pause, gathered: false, ended: Instant::now() }
    }

    /// Sets the timer slack of this thread.
    pub(crate) fn keep_time() {
        // Without the permission, pauses are a little longer.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK);
    }

    /// Ends a pass that read this number of packets. Returns whether the thread pauses now; if not, it waits in epoll,
    /// which wakes at the next packet.
    pub(crate) fn ends(&mut self, began: Instant, ended: Instant, packets: usize) -> bool {
        let waited = began.saturating_duration_since(self.ended);
        self.gathered = packets > 0 && (self.gathered || waited < self.pause);
        self.ended = ended;
        self.gathered
    }
}
