//! What is counted while a window is open.

/// Added delays of one window, nanoseconds.
#[derive(Clone, Default, Debug)]
pub struct Delays(Vec<u32>);

impl Delays {
    /// One packet's: when it was sent and when it came. A clock that was set back in between makes it 0.
    pub(super) fn note(&mut self, sent_ns: u64, came_ns: u64) {
        self.0.push(u32::try_from(came_ns.saturating_sub(sent_ns)).unwrap_or(u32::MAX));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The delay that this share of packets had at most (nearest rank), in microseconds; `None` without packets.
    pub fn percentile(&mut self, share: f64) -> Option<f64> {
        let count = self.0.len();
        let rank = ((share * count as f64).ceil() as usize).clamp(1, count.max(1));
        (count > 0).then(|| f64::from(*self.0.select_nth_unstable(rank - 1).1) / 1_000.0)
    }
}

/// Counts of one window.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// Packets sent.
    pub sent: u64,
    /// Packets of this window that came, its drain included.
    pub came: u64,
    /// Packets that came to a session or a node they are not of.
    pub misdelivered: u64,
    /// Packets that came by another node than the session's packets before.
    pub moved: u64,
    /// Datagrams that are none of a load.
    pub foreign: u64,
    /// Packets that nodes took.
    pub taken: u64,
    /// Time that nodes spent with receiving these and taking them apart, nanoseconds.
    pub taking_ns: u64,
    /// Delays of those that came.
    pub delays: Delays,
}

impl Tally {
    /// Begins a window. What came wrong is kept: it is as wrong before it.
    pub(super) fn clear(&mut self) {
        let mut delays = std::mem::take(&mut self.delays);
        delays.clear();
        let Tally { misdelivered, moved, foreign, .. } = *self;
        *self = Tally { misdelivered, moved, foreign, delays, ..Tally::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let mut delays = Delays::default();
        for came in (1..=1_000).rev() {
            delays.note(1_000_000, 1_000_000 + came * 1_000);
        }
        let of = |delays: &mut Delays, share| delays.percentile(share);
        assert_eq!(of(&mut delays, 0.5), Some(500.0));
        assert_eq!(of(&mut delays, 0.99), Some(990.0));
        assert_eq!(of(&mut delays, 0.999), Some(999.0));
        assert_eq!(of(&mut delays, 1.0), Some(1_000.0));
        assert_eq!(of(&mut delays, 0.0), Some(1.0));
    }

    #[test]
    fn without_packets_there_is_no_percentile_and_a_clock_set_back_is_no_delay() {
        let mut delays = Delays::default();
        assert_eq!(delays.percentile(0.5), None);
        delays.note(5, 3);
        assert_eq!(delays.percentile(0.5), Some(0.0));
    }
}
