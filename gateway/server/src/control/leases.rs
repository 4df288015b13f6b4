//! What agents were asked to open, and have to be asked again to keep open.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, SessionId};
use evenkeel_media::trunk::Tag;

/// Between two refreshes of a lease, at most.
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(8);

/// An opening that was not answered is asked again after this.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A session at a hop, opened there or being opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) session: SessionId,
    pub(super) hop: Hop,
    /// What its room is called towards nodes.
    pub(super) room: u64,
    pub(super) tag: Tag,
    /// What its messages are told by. The lower half is its place.
    pub(super) nonce: u64,
    pub(super) open: bool,
    /// The session's next lease.
    next: Option<u32>,
}

/// All of them. There are several of each session, so that each takes little room and no search: its messages carry its
/// place, and its turn to be refreshed comes by its place.
pub(super) struct Leases {
    places: Vec<Option<Lease>>,
    free: Vec<u32>,
    /// The first of each session.
    firsts: BTreeMap<SessionId, u32>,
    /// Openings that are asked for again unless they were answered, in the order of their times.
    asked: VecDeque<(Instant, u64)>,
    /// The places have their turns within one round of [`REFRESH_EVERY`]; since when, and the next one.
    round: Option<Instant>,
    turn: usize,
}

impl Leases {
    pub(super) fn new() -> Leases {
        let (places, free) = (Vec::new(), Vec::new());
        let (firsts, asked) = (BTreeMap::new(), VecDeque::new());
        Leases { places, free, firsts, asked, round: None, turn: 0 }
    }

    /// Puts in a lease that is not open yet. `drawn` tells its messages from those of others that had its place.
    pub(super) fn begin(
        &mut self,
        (session, hop): (SessionId, Hop),
        room: u64,
        tag: Tag,
        drawn: u64,
    ) -> Lease {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        let nonce = drawn << 32 | u64::from(place);
        let next = self.firsts.insert(session, place);
        let lease = Lease { session, hop, room, tag, nonce, open: false, next };
        self.places[place as usize] = Some(lease);
        lease
    }

    /// The lease that messages with this nonce are about.
    pub(super) fn by_nonce(&mut self, nonce: u64) -> Option<&mut Lease> {
        let lease = self.places.get_mut(nonce as u32 as usize)?.as_mut()?;
        (lease.nonce == nonce).then_some(lease)
    }

    /// Takes it out, if there is one.
    pub(super) fn end(&mut self, session: SessionId, hop: Hop) -> Option<Lease> {
        let btree_map::Entry::Occupied(mut first) = self.firsts.entry(session) else {
            return None;
        };
        let (mut before, mut place) = (None, *first.get());
        while self.places[place as usize]?.hop != hop {
            before = Some(place);
            place = self.places[place as usize]?.next?;
        }
        let lease = self.places[place as usize].take()?;
        self.free.push(place);
        match (before, lease.next) {
            (Some(before), next) => self.places[before as usize].as_mut()?.next = next,
            (None, Some(next)) => _ = first.insert(next),
            (None, None) => _ = first.remove(),
        }
        Some(lease)
    }

    /// It is asked for now; without an answer it has another turn soon.
    pub(super) fn asked(&mut self, nonce: u64, now: Instant) {
        self.asked.push_back((now + ASK_AGAIN, nonce));
    }

    /// The next lease to ask for: an opening that was not answered, or one whose turn it is to be refreshed.
    pub(super) fn due(&mut self, now: Instant) -> Option<Lease> {
        while let Some((_, nonce)) = self.asked.pop_front_if(|(due, _)| *due <= now) {
            if let Some(lease) = self.by_nonce(nonce).filter(|lease| !lease.open) {
                return Some(*lease);
            }
        }
        let began = *self.round.get_or_insert(now);
        let gone = now.saturating_duration_since(began).min(REFRESH_EVERY);
        let reached = self.places.len() as u128 * gone.as_micros() / REFRESH_EVERY.as_micros();
        while self.turn < reached as usize {
            self.turn += 1;
            if let Some(lease) = self.places[self.turn - 1].filter(|lease| lease.open) {
                return Some(lease);
            }
        }
        if gone == REFRESH_EVERY {
            // What was missed is not made up for.
            let next = began + REFRESH_EVERY;
            self.round = Some(if now < next + REFRESH_EVERY { next } else { now });
            self.turn = 0;
        }
        None
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Incarnation, NodeId};

    use super::*;

    fn hop(node: u32) -> Hop {
        Hop { node: NodeId(node), incarnation: Incarnation(1) }
    }

    fn begin(leases: &mut Leases, session: u64, node: u32) -> u64 {
        leases.begin((SessionId(session), hop(node)), 1, Tag(9), 77).nonce
    }

    #[test]
    fn leases_of_a_session_end_one_by_one_in_any_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let mut leases = Leases::new();
            begin(&mut leases, 8, 1);
            for node in 0..3 {
                begin(&mut leases, 7, node);
            }
            for node in order {
                let ended = leases.end(SessionId(7), hop(node)).unwrap();
                assert_eq!((ended.session, ended.hop), (SessionId(7), hop(node)));
                assert!(leases.end(SessionId(7), hop(node)).is_none());
            }
            assert_eq!(leases.len(), 1);
            assert!(leases.end(SessionId(8), hop(1)).is_some());
            assert!(leases.firsts.is_empty());
        }
    }

    #[test]
    fn what_comes_late_for_a_lease_finds_not_the_one_that_has_its_place() {
        let mut leases = Leases::new();
        let first = begin(&mut leases, 1, 0);
        leases.end(SessionId(1), hop(0));
        assert!(leases.by_nonce(first).is_none());
        let second = leases.begin((SessionId(2), hop(0)), 1, Tag(9), 78).nonce;
        assert_eq!(leases.places.len(), 1);
        assert!(leases.by_nonce(first).is_none());
        assert_eq!(leases.by_nonce(second).unwrap().session, SessionId(2));
        assert!(leases.by_nonce(5).is_none());
    }

    #[test]
    fn each_open_lease_has_its_turn_once_in_a_round_and_they_are_spread_over_it() {
        let (start, mut leases) = (Instant::now(), Leases::new());
        for session in 0..800 {
            let nonce = begin(&mut leases, session, 0);
            leases.by_nonce(nonce).unwrap().open = session != 3;
        }
        let mut turns = vec![Vec::new(); 800];
        for ms in 0..=24_000 {
            let now = start + Duration::from_millis(ms);
            let due: Vec<Lease> = std::iter::from_fn(|| leases.due(now)).collect();
            assert!(due.len() <= 1, "{} at {ms}", due.len());
            due.iter().for_each(|lease| turns[lease.session.0 as usize].push(ms));
        }
        assert_eq!(turns.remove(3), [0; 0], "nobody opened it");
        for turns in turns {
            assert_eq!(turns.len(), 3);
            assert!(turns.is_sorted_by(|one, next| (7_990..=8_010).contains(&(next - one))));
        }
    }

    #[test]
    fn who_slept_does_not_make_up_for_it() {
        let (start, mut leases) = (Instant::now(), Leases::new());
        let nonce = begin(&mut leases, 1, 0);
        leases.by_nonce(nonce).unwrap().open = true;
        assert!(leases.due(start).is_none());
        let late = start + REFRESH_EVERY * 50;
        assert!(leases.due(late).is_some());
        assert!(leases.due(late).is_none());
        assert!(leases.due(late + REFRESH_EVERY / 2).is_none());
        assert!(leases.due(late + REFRESH_EVERY).is_some());
    }
}
