//! What is counted while a window is open.

use super::stream::Way;
use evenkeel_lab::Mark;

/// Steps that each doubling of a delay is divided into: a percentile is right to 1 %.
const STEPS: u64 = 128;
/// Doublings that are told apart: to 2^40 ns, 18 minutes.
const DOUBLINGS: u64 = 40;

/// Added delays of one window. As many as there are take the same memory: what a sink costs must not grow.
#[derive(Clone, Debug)]
pub(crate) struct Delays {
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
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
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
pub(crate) struct Tally {
    pub(crate) sent: u64,
    /// Packets of this window that came, its drain included.
    pub(crate) came: u64,
    /// Packets that came to a session or a node they are not of, or once more.
    pub(crate) misdelivered: u64,
    /// Packets that came by another node than the session's packets before.
    pub(crate) moved: u64,
    /// Datagrams that are none of a load.
    pub(crate) foreign: u64,
    /// Packets that nodes took.
    pub(crate) taken: u64,
    /// Time that nodes spent with receiving these and taking them apart, nanoseconds.
    pub(crate) taking_ns: u64,
    /// Delays of those that came.
    pub(crate) delays: Delays,
    /// What came of each session, to nodes and to clients.
    heard: [Vec<Heard>; 2],
}

/// Packets of one session in one direction.
#[derive(Clone, Copy, Default, Debug)]
struct Heard {
    packets: u32,
    /// One more than the number of the latest one, and which of it and the 63 before it came.
    latest: u64,
    came: u64,
}

impl Heard {
    /// Whether the packet of this number came for the first time. One that is 64 late is taken for that.
    fn is_new(&mut self, number: u64) -> bool {
        let number = number + 1;
        if let Some(ahead) = number.checked_sub(self.latest).filter(|ahead| *ahead > 0) {
            self.came = self.came.checked_shl(ahead.min(64) as u32).unwrap_or(0) | 1;
            self.latest = number;
            return true;
        }
        let bit = 1_u64.checked_shl((self.latest - number).min(64) as u32).unwrap_or(0);
        let is_new = self.came & bit == 0;
        self.came |= bit;
        is_new
    }
}

impl Tally {
    /// A packet of this window came to where it should.
    pub(super) fn came(&mut self, way: Way, mark: &Mark, came_ns: u64) {
        let heard = &mut self.heard[usize::from(way == Way::ToClient)];
        let session = mark.session as usize;
        if heard.len() <= session {
            heard.resize(session + 1, Heard::default());
        }
        if !heard[session].is_new(mark.number) {
            self.misdelivered += 1;
            return;
        }
        heard[session].packets += 1;
        self.came += 1;
        self.delays.note(mark.sent_ns, came_ns);
    }

    /// What came of the session that least came of, in what came of one on average; 0 where nothing came.
    pub(crate) fn least_share(&self, sessions: usize) -> f64 {
        let of = |heard: &Vec<Heard>, session: usize| heard.get(session).map_or(0, |of| of.packets);
        let both = |session| self.heard.iter().map(|heard| of(heard, session)).sum::<u32>();
        let least = (0..sessions).map(both).min().unwrap_or(0);
        f64::from(least) * sessions as f64 / self.came.max(1) as f64
    }

    /// Begins a window. What came wrong is kept: it is as wrong before it.
    pub(super) fn clear(&mut self) {
        let (mut delays, mut heard) =
            (std::mem::take(&mut self.delays), std::mem::take(&mut self.heard));
        delays.clear();
        heard.iter_mut().for_each(|heard| heard.fill(Heard::default()));
        let Tally { misdelivered, moved, foreign, .. } = *self;
        *self = Tally { misdelivered, moved, foreign, delays, heard, ..Tally::default() };
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

    fn mark(session: u64, number: u64) -> Mark {
        Mark { session, number, sent_ns: 0, node: 0, stream: 0 }
    }

    #[test]
    fn packet_that_comes_twice_came_once_and_was_misdelivered() {
        let mut tally = Tally::default();
        for number in [5, 3, 5, 3, 70, 71, 7, 4, 70, 8] {
            tally.came(Way::ToNode, &mark(1, number), 1);
        }
        assert_eq!((tally.came, tally.misdelivered), (7, 3), "5, 3 and 70 again");
        tally.came(Way::ToClient, &mark(1, 70), 1);
        tally.came(Way::ToNode, &mark(2, 70), 1);
        assert_eq!((tally.came, tally.misdelivered), (9, 3), "another's, and the other way");
    }

    #[test]
    fn the_least_share_is_that_of_whom_least_came_to_nobody_left_out() {
        let mut tally = Tally::default();
        assert_eq!(tally.least_share(2), 0.0);
        for (number, session) in (0..).zip([0, 1, 0, 1, 0, 0]) {
            tally.came(Way::ToNode, &mark(session, number), 1);
        }
        assert!((tally.least_share(2) - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(tally.least_share(3), 0.0, "nothing came of the third");
    }

    #[test]
    fn what_came_wrong_is_not_forgotten_when_a_window_begins() {
        let mut tally =
            Tally { misdelivered: 1, moved: 2, foreign: 3, sent: 4, ..Tally::default() };
        tally.came(Way::ToNode, &mark(0, 0), 1);
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
