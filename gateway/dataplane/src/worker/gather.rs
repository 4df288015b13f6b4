//! Interrupt coalescing for workers and the QUIC thread. A wake-up costs more than a packet, so packets that keep
//! coming gather for a moment before the thread reads again. The first packet after a pause is read at once. Packets
//! from rings do not count: their sender has gathered them already.

use std::time::Duration;

/// Timer slack in nanoseconds. The kernel's default of 50 µs would be a quarter of the gather time.
const TIMER_SLACK: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Gather {
    most: Duration,
}

/// How the thread waited before a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Before {
    /// Packets were gathering.
    Gathered,
    /// In epoll, for this long.
    Waited(Duration),
}

impl Gather {
    /// Gathers for `most` between two batches; zero never waits.
    pub(crate) fn new(most: Duration) -> Gather {
        Gather { most }
    }

    /// Sets the timer slack of this thread.
    pub(crate) fn keep_time() {
        // Without the permission packets gather a little longer.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK);
    }

    /// How long to let packets gather after a pass that read this many. `None`: wait in epoll, so that the next packet
    /// is read at once.
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
