//! What agents were asked to open, and have to be asked again to keep open.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, NodeId, SessionId};
use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::KEEP_MAX;

/// Between two refreshes of a lease, at most, but for [`GATHER`].
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(8);

/// Leases whose turn it is wait for others of their node for as long, at most.
pub(super) const GATHER: Duration = Duration::from_secs(1);

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
    /// Where the session has its home: its messages go from there.
    pub(super) worker: u16,
    pub(super) state: State,
    /// The session's next lease.
    next: Option<u32>,
}

/// How a lease stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The node is asked to open it.
    Opening,
    /// It is kept open.
    Open,
    /// It was open; the node, which knows it no longer, is asked to open it once more.
    Reopening,
}

/// What is to be asked now.
#[derive(Debug)]
pub(super) enum Due {
    /// To open this one.
    Open(Lease),
    /// To keep these open.
    Keep(Keep),
}

/// Leases at one node, of sessions at one worker, that are refreshed together.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) node: NodeId,
    pub(super) worker: u16,
    /// That of the first of them. The places of the others are not far behind its own.
    pub(super) nonce: u64,
    pub(super) tags: Box<[Tag]>,
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
    /// Places that had their turn and wait for others, by node and worker, in order; and since when the first waits.
    gathered: BTreeMap<(NodeId, u16), Vec<u32>>,
    gathering: Option<Instant>,
}

impl Leases {
    pub(super) fn new() -> Leases {
        let (places, free) = (Vec::new(), Vec::new());
        let (firsts, asked) = (BTreeMap::new(), VecDeque::new());
        let (gathered, gathering) = (BTreeMap::new(), None);
        Leases { places, free, firsts, asked, round: None, turn: 0, gathered, gathering }
    }

    /// Puts in a lease that is not open yet. `drawn` tells its messages from those of others that had its place.
    pub(super) fn begin(
        &mut self,
        (session, hop, worker): (SessionId, Hop, u16),
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
        let lease = Lease { session, hop, room, tag, nonce, worker, state: State::Opening, next };
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

    /// The node knows these no longer, of those that it was asked with this nonce to keep: they are due to be opened.
    /// What is not found is found when it is named again.
    pub(super) fn unknown(&mut self, node: NodeId, nonce: u64, tags: &[Tag], now: Instant) {
        if self.by_nonce(nonce).is_none_or(|first| first.hop.node != node) {
            return;
        }
        let mut tags: Vec<Tag> = tags.to_vec();
        tags.sort_unstable();
        tags.dedup();
        // They had their turns soon after the first one; what comes before it did in the next round.
        let (before, behind) = self.places.split_at_mut(nonce as u32 as usize);
        let places = behind.iter_mut().chain(before).flatten();
        let named =
            places.filter(|lease| lease.hop.node == node && tags.binary_search(&lease.tag).is_ok());
        for lease in named.take(tags.len()).filter(|lease| lease.state == State::Open) {
            lease.state = State::Reopening;
            self.asked.push_front((now, lease.nonce));
        }
    }

    /// What to ask now, until there is nothing more.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if let Some(lease) = self.due_to_open(now) {
            return Some(Due::Open(lease));
        }
        self.due_to_keep(now).map(Due::Keep)
    }

    /// An opening that was not answered.
    fn due_to_open(&mut self, now: Instant) -> Option<Lease> {
        while let Some((_, nonce)) = self.asked.pop_front_if(|(due, _)| *due <= now) {
            if let Some(lease) = self.by_nonce(nonce).filter(|lease| lease.state != State::Open) {
                return Some(*lease);
            }
        }
        None
    }

    /// As many of a node as fit one message, or what has waited long enough.
    fn due_to_keep(&mut self, now: Instant) -> Option<Keep> {
        while let Some(place) = self.next_turn(now) {
            let Some(lease) = self.places[place].filter(|lease| lease.state == State::Open) else {
                continue;
            };
            self.gathering.get_or_insert(now);
            let whose = (lease.hop.node, lease.worker);
            let gathered = self.gathered.entry(whose).or_default();
            gathered.push(place as u32);
            if gathered.len() == KEEP_MAX
                && let Some(gathered) = self.gathered.remove(&whose)
                && let Some(keep) = self.keep(whose, &gathered)
            {
                return Some(keep);
            }
        }
        if self.gathering.is_some_and(|since| now.saturating_duration_since(since) < GATHER) {
            return None;
        }
        while let Some((whose, gathered)) = self.gathered.pop_first() {
            if let Some(keep) = self.keep(whose, &gathered) {
                return Some(keep);
            }
        }
        self.gathering = None;
        None
    }

    /// Of these places those whose leases are open still.
    fn keep(&self, whose: (NodeId, u16), gathered: &[u32]) -> Option<Keep> {
        let open = gathered
            .iter()
            .filter_map(|&place| self.places[place as usize])
            .filter(|lease| lease.state == State::Open && (lease.hop.node, lease.worker) == whose);
        let (node, worker) = whose;
        let nonce = open.clone().next()?.nonce;
        Some(Keep { node, worker, nonce, tags: open.map(|lease| lease.tag).collect() })
    }

    /// The next place whose turn it is to be refreshed.
    fn next_turn(&mut self, now: Instant) -> Option<usize> {
        let began = *self.round.get_or_insert(now);
        let gone = now.saturating_duration_since(began).min(REFRESH_EVERY);
        let reached = self.places.len() as u128 * gone.as_micros() / REFRESH_EVERY.as_micros();
        if self.turn < reached as usize {
            self.turn += 1;
            return Some(self.turn - 1);
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
mod tests;
