//! Counters of an open window.

use super::stream::Way;
use evenkeel_lab::TestHeader;

/// Buckets per doubling of a delay, so that percentiles are exact to 1 %.
const STEPS: u64 = 128;
/// Powers of two of the histogram: up to 2^40 ns, 18 minutes.
const DOUBLINGS: u64 = 40;

/// A histogram of the delays of one window, of constant size.
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
    /// Adds a packet by send and arrival time. 0 if the clock was set back in between.
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

/// The bucket of a delay: exact below two times [`STEPS`], in 128ths of its power of two above.
fn place(ns: u64) -> usize {
    let doublings = u64::from((ns / STEPS).max(1).ilog2());
    (doublings * STEPS + (ns >> doublings)) as usize
}

/// The longest delay in this bucket, except for the last bucket.
fn most(place: usize) -> u64 {
    let place = place as u64;
    let doublings = (place / STEPS).saturating_sub(1);
    ((place - doublings * STEPS + 1) << doublings) - 1
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    /// Received packets of this window, including its drain.
    pub(crate) came: u64,
    /// Packets at a wrong session or node, and duplicates.
    pub(crate) misdelivered: u64,
    /// Packets that arrived by another node than the session's packets before.
    pub(crate) moved: u64,
    /// Datagrams that are not of this load.
    pub(crate) foreign: u64,
    /// Packets that nodes received and parsed.
    pub(crate) taken: u64,
    /// Time that nodes spent receiving and parsing, nanoseconds.
    pub(crate) taking_ns: u64,
    pub(crate) delays: Delays,
    /// Received packets of each session, to nodes and to clients.
    heard: [Vec<ReceivedPackets>; 2],
}

/// Packets of one session in one direction.
#[derive(Clone, Copy, Default, Debug)]
struct ReceivedPackets {
    packets: u32,
    /// One more than the latest number. Bit `n` of `came` is set if the number `n` before the latest arrived.
    latest: u64,
    came: u64,
}

impl ReceivedPackets {
    /// Returns true if this number arrived for the first time. A number 64 or more behind counts as new.
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
    /// Adds a packet that arrived at the right session.
    pub(super) fn came(&mut self, way: Way, mark: &TestHeader, came_ns: u64) {
        let heard = &mut self.heard[usize::from(way == Way::ToClient)];
        let session = mark.session as usize;
        if heard.len() <= session {
            heard.resize(session + 1, ReceivedPackets::default());
        }
        if !heard[session].is_new(mark.number) {
            self.misdelivered += 1;
            return;
        }
        heard[session].packets += 1;
        self.came += 1;
        self.delays.note(mark.sent_ns, came_ns);
    }

    /// Packets of the session with the fewest, divided by the mean; 0 without packets.
    pub(crate) fn least_share(&self, sessions: usize) -> f64 {
        let of = |heard: &Vec<ReceivedPackets>, session: usize| {
            heard.get(session).map_or(0, |of| of.packets)
        };
        let both = |session| self.heard.iter().map(|heard| of(heard, session)).sum::<u32>();
        let least = (0..sessions).map(both).min().unwrap_or(0);
        f64::from(least) * sessions as f64 / self.came.max(1) as f64
    }

    /// Begins a window. Misdelivered packets are kept.
    pub(super) fn clear(&mut self) {
        let (mut delays, mut heard) =
            (std::mem::take(&mut self.delays), std::mem::take(&mut self.heard));
        delays.clear();
        heard.iter_mut().for_each(|heard| heard.fill(ReceivedPackets::default()));
        let Tally { misdelivered, moved, foreign, .. } = *self;
        *self = Tally { misdelivered, moved, foreign, delays, heard, ..Tally::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_use_nearest_rank() {
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
    fn buckets_cover_all_delays() {
        for ns in (0..3_000).chain((3_000..5_000_000_000).step_by(999_983)) {
            let place = place(ns);
            assert!(ns <= most(place) && (place == 0 || ns > most(place - 1)), "{ns}");
            assert!(most(place) as f64 <= ns as f64 * 1.01 + 1.0);
        }
    }

    fn mark(session: u64, number: u64) -> TestHeader {
        TestHeader { session, number, sent_ns: 0, node: 0, stream: 0 }
    }

    #[test]
    fn duplicate_counts_as_misdelivered() {
        let mut tally = Tally::default();
        for number in [5, 3, 5, 3, 70, 71, 7, 4, 70, 8] {
            tally.came(Way::ToNode, &mark(1, number), 1);
        }
        assert_eq!((tally.came, tally.misdelivered), (7, 3), "5, 3 and 70 again");
        tally.came(Way::ToClient, &mark(1, 70), 1);
        tally.came(Way::ToNode, &mark(2, 70), 1);
        assert_eq!(
            (tally.came, tally.misdelivered),
            (9, 3),
            "another session's, and another direction"
        );
    }

    #[test]
    fn least_share_includes_all_sessions() {
        let mut tally = Tally::default();
        assert_eq!(tally.least_share(2), 0.0);
        for (number, session) in (0..).zip([0, 1, 0, 1, 0, 0]) {
            tally.came(Way::ToNode, &mark(session, number), 1);
        }
        assert!((tally.least_share(2) - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(tally.least_share(3), 0.0, "no packet of the third session");
    }

    #[test]
    fn misdelivered_survives_a_new_window() {
        let mut tally =
            Tally { misdelivered: 1, moved: 2, foreign: 3, sent: 4, ..Tally::default() };
        tally.came(Way::ToNode, &mark(0, 0), 1);
        tally.clear();
        assert_eq!((tally.misdelivered, tally.moved, tally.foreign), (1, 2, 3));
        assert_eq!((tally.sent, tally.came, tally.delays.percentile(0.5)), (0, 0, None));
    }

    #[test]
    fn no_packets_have_no_percentile() {
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
