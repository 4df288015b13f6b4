//! When to look for packets: a wake-up costs more than a packet, and nobody hears a fifth of a millisecond.

use std::time::Duration;

/// How to wait before the next look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// Not at all: there is more than one turn takes.
    No,
    /// This long, whatever comes: what comes is taken together.
    Gather(Duration),
    /// Until something comes.
    Sleep,
}

/// Lets packets gather while they keep coming. The first after a pause is taken at once.
#[derive(Debug)]
pub(super) struct Gathering {
    time: Duration,
    next: Wait,
}

impl Gathering {
    pub(super) fn new(time: Duration) -> Gathering {
        Gathering { time, next: Wait::Sleep }
    }

    /// What a look brought: whether anything, and whether there may be more.
    pub(super) fn looked(&mut self, took: bool, more: bool) {
        self.next = match (took, more) {
            (_, true) => Wait::No,
            (true, false) if !self.time.is_zero() => Wait::Gather(self.time),
            _ => Wait::Sleep,
        };
    }

    pub(super) fn wait(&self) -> Wait {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(200);

    #[test]
    fn the_first_packet_after_a_pause_is_taken_at_once_and_those_behind_it_together() {
        let mut gathering = Gathering::new(TIME);
        assert_eq!(gathering.wait(), Wait::Sleep);
        for _ in 0..3 {
            gathering.looked(true, false);
            assert_eq!(gathering.wait(), Wait::Gather(TIME));
        }
        gathering.looked(false, false);
        assert_eq!(gathering.wait(), Wait::Sleep);
    }

    #[test]
    fn nothing_waits_where_a_turn_could_not_take_all() {
        let mut gathering = Gathering::new(TIME);
        gathering.looked(true, true);
        assert_eq!(gathering.wait(), Wait::No);
        gathering.looked(false, false);
        assert_eq!(gathering.wait(), Wait::Sleep);
    }

    #[test]
    fn without_a_time_nothing_gathers() {
        let mut gathering = Gathering::new(Duration::ZERO);
        gathering.looked(true, false);
        assert_eq!(gathering.wait(), Wait::Sleep);
    }
}
