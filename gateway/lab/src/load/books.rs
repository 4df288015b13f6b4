//! What is counted while a window is open.

/// Steps that each doubling of a delay is divided into: a percentile is right to 1 %.
const STEPS: u64 = 128;
/// Doublings that are told apart: to 2^40 ns, 18 minutes.
const DOUBLINGS: u64 = 40;

/// Added delays of one window. As many as there are take the same memory: what a sink costs must not grow.
#[derive(Clone, Debug)]
pub struct Delays {
    counts: Box<[u32]>,
    count: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self { counts: vec![0; (STEPS * DOUBLINGS) as usize].into(), count: 0 }
    }
}

impl Delays {
    /// One packet's: when it was sent and when it came. A clock that was set back in between makes it 0.
    pub(super) fn note(&mut self, sent_ns: u64, came_ns: u64) {
        let place = place(came_ns.saturating_sub(sent_ns)).min(self.counts.len() - 1);
        self.counts[place] += 1;
        self.count += 1;
    }

    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        self.count = 0;
    }

    /// The delay that this share of packets had at most (nearest rank), in microseconds and to 1 %; `None` without
    /// packets.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        let place = self.counts.iter().position(|&count| {
            below += u64::from(count);
            below >= rank
        })?;
        Some(most(place) as f64 / 1_000.0)
    }
}

/// Where a delay is counted: exactly below two times [`STEPS`], in 128ths of its power of two above.
fn place(ns: u64) -> usize {
    let doublings = u64::from((ns / STEPS).max(1).ilog2());
    (doublings * STEPS + (ns >> doublings)) as usize
}

/// The longest delay that is counted there, but for the last place.
fn most(place: usize) -> u64 {
    let place = place as u64;
    let doublings = (place / STEPS).saturating_sub(1);
    ((place - doublings * STEPS + 1) << doublings) - 1
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
    /// How many of each session came.
    pub shares: Vec<u32>,
}

impl Tally {
    /// A packet of this window came to where it should.
    pub(super) fn came(&mut self, session: u64, sent_ns: u64, came_ns: u64) {
        self.came += 1;
        self.delays.note(sent_ns, came_ns);
        let session = session as usize;
        if self.shares.len() <= session {
            self.shares.resize(session + 1, 0);
        }
        self.shares[session] += 1;
    }

    /// What came of the session that least came of, in what came of one on average; 0 where nothing came.
    pub fn least_share(&self, sessions: usize) -> f64 {
        let all_there = self.shares.len() == sessions;
        let least = self.shares.iter().min().copied().filter(|_| all_there).unwrap_or(0);
        f64::from(least) * sessions as f64 / self.came.max(1) as f64
    }

    /// Begins a window. What came wrong is kept: it is as wrong before it.
    pub(super) fn clear(&mut self) {
        let (mut delays, mut shares) =
            (std::mem::take(&mut self.delays), std::mem::take(&mut self.shares));
        delays.clear();
        shares.fill(0);
        let Tally { misdelivered, moved, foreign, .. } = *self;
        *self = Tally { misdelivered, moved, foreign, delays, shares, ..Tally::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank_to_one_per_cent() {
        let mut delays = Delays::default();
        for came in (1..=1_000).rev() {
            delays.note(1_000_000, 1_000_000 + came * 1_000);
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let found = delays.percentile(share).unwrap();
            assert!((expected..=expected * 1.01).contains(&found), "{share}: {found}");
        }
        assert!(delays.percentile(0.0).unwrap() < 1.02);
    }

    #[test]
    fn every_delay_has_its_place_and_none_lies_between_two() {
        for ns in (0..3_000).chain((3_000..5_000_000_000).step_by(999_983)) {
            let place = place(ns);
            assert!(ns <= most(place) && (place == 0 || ns > most(place - 1)), "{ns}");
            assert!(most(place) as f64 <= ns as f64 * 1.01 + 1.0);
        }
    }

    #[test]
    fn the_least_share_is_that_of_whom_least_came_to_nobody_left_out() {
        let mut tally = Tally::default();
        assert_eq!(tally.least_share(2), 0.0);
        [0, 1, 0, 1, 0, 0].into_iter().for_each(|session| tally.came(session, 0, 1));
        assert!((tally.least_share(2) - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(tally.least_share(3), 0.0, "nothing came of the third");
    }

    #[test]
    fn what_came_wrong_is_not_forgotten_when_a_window_begins() {
        let mut tally =
            Tally { misdelivered: 1, moved: 2, foreign: 3, sent: 4, ..Tally::default() };
        tally.came(0, 0, 1);
        tally.clear();
        assert_eq!((tally.misdelivered, tally.moved, tally.foreign), (1, 2, 3));
        assert_eq!((tally.sent, tally.came, tally.delays.percentile(0.5)), (0, 0, None));
    }

    #[test]
    fn without_packets_there_is_no_percentile_and_a_clock_set_back_is_no_delay() {
        let mut delays = Delays::default();
        assert_eq!(delays.percentile(0.5), None);
        delays.note(5, 3);
        assert_eq!(delays.percentile(0.5), Some(0.0));
        delays.note(0, u64::MAX);
        assert!(delays.percentile(1.0).unwrap() > 1e9, "as long as can be told");
        delays.clear();
        assert_eq!(delays.percentile(1.0), None);
    }
}
