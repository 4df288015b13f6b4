//! When a worker, or the QUIC thread, reads again. A wake-up costs more than a packet, so packets that keep coming are
//! left to gather for a moment that nobody can hear; the first packet after a pause of all that the thread reads is never
//! made to wait. Rings count for nothing here: who fills them gathers.

use std::time::Duration;

/// How late the kernel may end a wait for packets to gather, in nanoseconds: its default of 50 µs is a quarter of it.
const TIMER_SLACK: u64 = 1_000;

/// Whether packets keep coming, and how long they are left to gather.
#[derive(Debug)]
pub(crate) struct Gather {
    most: Duration,
}

/// What came before a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Before {
    /// Packets were left to gather.
    Gathered,
    /// It waited so long for something to come.
    Waited(Duration),
}

impl Gather {
    /// For so long from the end of a batch to the next; zero reads at once.
    pub(crate) fn new(most: Duration) -> Gather {
        Gather { most }
    }

    /// Has this thread woken when it asked to be.
    pub(crate) fn keep_time() {
        // Where the system does not let us, packets gather for a little longer.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK);
    }

    /// How long to let packets gather after a pass that read so many, all that there were. `None` where they do not keep
    /// coming: then the next one is waited for, and served at once.
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
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn the_first_packet_after_a_pause_and_the_one_after_it_wait_for_nobody() {
        let gather = Gather::new(200 * US);
        assert_eq!(gather.pause(Before::Waited(200 * US), 1), None);
    }

    #[test]
    fn packets_that_keep_coming_gather_from_batch_to_batch() {
        let gather = Gather::new(200 * US);
        assert_eq!(gather.pause(Before::Waited(199 * US), 1), Some(200 * US));
        assert_eq!(gather.pause(Before::Gathered, 7), Some(200 * US));
        assert_eq!(gather.pause(Before::Gathered, 0), None, "no more came");
    }

    #[test]
    fn who_gathers_for_no_time_reads_at_once() {
        let gather = Gather::new(Duration::ZERO);
        assert_eq!(gather.pause(Before::Waited(Duration::ZERO), 1), None);
    }
}
