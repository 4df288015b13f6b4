//! Processor time of calls.

use std::time::{Duration, Instant};

use evenkeel_host::processor_time;

/// A call that had less than this part of its time on a processor was stopped because the machine is busy.
const STARVED_BELOW: u32 = 10;

/// Measures the time that this thread has on a processor.
pub(super) struct ProcessorClock {
    began: Instant,
    used: Duration,
}

impl ProcessorClock {
    pub(super) fn start() -> ProcessorClock {
        ProcessorClock { began: Instant::now(), used: processor_time() }
    }

    /// Returns true if the thread waited for a processor most of the time.
    pub(super) fn is_starved(&self) -> bool {
        is_starved(processor_time().saturating_sub(self.used), self.began.elapsed())
    }
}

fn is_starved(used: Duration, elapsed: Duration) -> bool {
    used.saturating_mul(STARVED_BELOW) < elapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_without_a_tenth_of_its_time_is_starved() {
        let ms = Duration::from_millis;
        assert!(is_starved(ms(1), ms(11)));
        assert!(!is_starved(ms(1), ms(10)));
    }
}
