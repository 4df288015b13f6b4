//! Leases of sessions at agents: openings to retry and refreshes to send.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::KEEP_MAX;
use evenkeel_model::{Hop, NodeId, SessionId};
use serde::{Deserialize, Serialize};

/// A node may forget a session after this time without a refresh. The time covers three refreshes, so that two in a row
/// may be lost.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// Maximum interval between two refreshes of a lease, plus [`GATHER`].
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(8);

/// Time that a due refresh waits for others of the same node.
pub(super) const GATHER: Duration = Duration::from_secs(1);

/// Retry interval of an unanswered opening, and the first one of a refresh of [`Leases::refresh_all`].
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub(super) struct TrunkLease {
    pub(super) session: SessionId,
    pub(super) hop: Hop,
    /// The room's name towards nodes.
    pub(super) room: u64,
    pub(super) tag: Tag,
    /// Identifies the lease's messages. The lower half is the lease's index.
    pub(super) nonce: u64,
    /// The session's home worker, which sends the messages.
    pub(super) worker: u16,
    pub(super) state: LeaseState,
    /// The next lease of the same session, as an index.
    next: Option<u32>,
}

/// A lease, as another process continues it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    pub(super) session: SessionId,
    pub(super) hop: Hop,
    pub(super) room: u64,
    pub(super) tag: Tag,
    /// The upper half of the nonce.
    pub(super) drawn: u64,
    pub(super) worker: u16,
}

impl TrunkLease {
    fn path(&self) -> LeasePath {
        LeasePath { node: self.hop.node, worker: self.worker }
    }

    fn record(&self) -> Option<LeaseRecord> {
        let &TrunkLease { session, hop, room, tag, nonce, worker, state, .. } = self;
        let drawn = nonce >> 32;
        let record = LeaseRecord { session, hop, room, tag, drawn, worker };
        (state != LeaseState::Opening).then_some(record)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LeaseState {
    /// The node was asked to open the session.
    Opening,
    Open,
    /// The node lost the session and was asked to open it again.
    Reopening,
}

#[derive(Debug)]
pub(super) enum DueLease {
    Open(TrunkLease),
    Keep(LeaseRefresh),
}

/// Leases at one node, of sessions at one worker, refreshed together.
#[derive(Debug)]
pub(super) struct LeaseRefresh {
    pub(super) node: NodeId,
    pub(super) worker: u16,
    /// The nonce of the first lease. The indices of the others follow closely.
    pub(super) nonce: u64,
    pub(super) tags: Box<[Tag]>,
}

/// The way of messages: the node, and the worker that sends them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct LeasePath {
    node: NodeId,
    worker: u16,
}

/// A refresh of [`Leases::refresh_all`].
#[derive(Debug)]
struct PendingRefresh {
    /// The wait for an answer after the next message.
    wait: Duration,
    path: LeasePath,
    places: Vec<u32>,
}

/// All leases. There are several per session, so each is small and found without a search: messages carry the lease's
/// index, and refreshes proceed by index.
pub(super) struct Leases {
    places: Vec<Option<TrunkLease>>,
    free: Vec<u32>,
    firsts: BTreeMap<SessionId, u32>,
    /// Unanswered openings in the order of their retries.
    asked: VecDeque<(Instant, u64)>,
    /// The refresh round of [`REFRESH_EVERY`]: its start, and the next index.
    round: Option<Instant>,
    turn: usize,
    /// Due refreshes that wait for others, with the time since which the first has waited.
    gathered: BTreeMap<LeasePath, Vec<u32>>,
    gathering: Option<Instant>,
    /// By the time of the next message, and its nonce.
    pending: BTreeMap<(Instant, u64), PendingRefresh>,
}

impl Leases {
    pub(super) fn new() -> Leases {
        Leases {
            places: Vec::new(),
            free: Vec::new(),
            firsts: BTreeMap::new(),
            asked: VecDeque::new(),
            round: None,
            turn: 0,
            gathered: BTreeMap::new(),
            gathering: None,
            pending: BTreeMap::new(),
        }
    }

    /// Adds a lease that is being opened. `drawn` distinguishes its messages from those of earlier leases at this
    /// index.
    pub(super) fn begin(
        &mut self,
        (session, hop, worker): (SessionId, Hop, u16),
        room: u64,
        tag: Tag,
        drawn: u64,
    ) -> TrunkLease {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        let nonce = drawn << 32 | u64::from(place);
        let next = self.firsts.insert(session, place);
        let lease =
            TrunkLease { session, hop, room, tag, nonce, worker, state: LeaseState::Opening, next };
        self.places[place as usize] = Some(lease);
        lease
    }

    pub(super) fn by_nonce(&mut self, nonce: u64) -> Option<&mut TrunkLease> {
        let lease = self.places.get_mut(nonce as u32 as usize)?.as_mut()?;
        (lease.nonce == nonce).then_some(lease)
    }

    /// Removes the lease, if there is one.
    pub(super) fn end(&mut self, session: SessionId, hop: Hop) -> Option<TrunkLease> {
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

    /// Schedules the retry of an opening that was sent.
    pub(super) fn asked(&mut self, nonce: u64, now: Instant) {
        self.asked.push_back((now + ASK_AGAIN, nonce));
    }

    /// Takes the answer to a refresh, which schedules leases that the node does not know to be opened again. If the message
    /// about a lease is lost, the node reports the lease again at the next refresh.
    pub(super) fn refreshed(&mut self, node: NodeId, nonce: u64, tags: &[Tag], now: Instant) {
        if self.by_nonce(nonce).is_none_or(|first| first.hop.node != node) {
            return;
        }
        self.pending.retain(|(_, pending), _| *pending != nonce);
        let mut tags: Vec<Tag> = tags.to_vec();
        tags.sort_unstable();
        tags.dedup();
        // The indices follow the first one closely; lower indices belong to the next round.
        let (before, behind) = self.places.split_at_mut(nonce as u32 as usize);
        let places = behind.iter_mut().chain(before).flatten();
        let named =
            places.filter(|lease| lease.hop.node == node && tags.binary_search(&lease.tag).is_ok());
        for lease in named.take(tags.len()).filter(|lease| lease.state == LeaseState::Open) {
            lease.state = LeaseState::Reopening;
            self.asked.push_front((now, lease.nonce));
        }
    }

    pub(super) fn due(&mut self, now: Instant) -> Option<DueLease> {
        if let Some(lease) = self.due_to_open(now) {
            return Some(DueLease::Open(lease));
        }
        self.due_of_all(now).or_else(|| self.due_to_keep(now)).map(DueLease::Keep)
    }

    /// The next message of [`Leases::refresh_all`].
    fn due_of_all(&mut self, now: Instant) -> Option<LeaseRefresh> {
        while let Some(first) = self.pending.first_entry().filter(|first| first.key().0 <= now) {
            let PendingRefresh { wait, path, places } = first.remove();
            let Some(keep) = self.keep(path, &places) else { continue };
            // Another message would come when the node has forgotten the leases: each wait is the sum of those before.
            let next = 2 * wait;
            if next < LEASE {
                let refresh = PendingRefresh { wait: next, path, places };
                self.pending.insert((now + wait, keep.nonce), refresh);
            }
            return Some(keep);
        }
        None
    }

    /// The next opening whose retry is due.
    fn due_to_open(&mut self, now: Instant) -> Option<TrunkLease> {
        while let Some((_, nonce)) = self.asked.pop_front_if(|(due, _)| *due <= now) {
            if let Some(lease) =
                self.by_nonce(nonce).filter(|lease| lease.state != LeaseState::Open)
            {
                return Some(*lease);
            }
        }
        None
    }

    /// The leases of one node that fill a message, or of which the first has waited for [`GATHER`].
    fn due_to_keep(&mut self, now: Instant) -> Option<LeaseRefresh> {
        while let Some(place) = self.next_turn(now) {
            let Some(lease) = self.places[place].filter(|lease| lease.state == LeaseState::Open)
            else {
                continue;
            };
            self.gathering.get_or_insert(now);
            let path = lease.path();
            let new = || Vec::with_capacity(KEEP_MAX);
            let gathered = self.gathered.entry(path).or_insert_with(new);
            gathered.push(place as u32);
            if gathered.len() == KEEP_MAX
                && let Some(gathered) = self.gathered.remove(&path)
                && let Some(keep) = self.keep(path, &gathered)
            {
                return Some(keep);
            }
        }
        if self.gathering.is_some_and(|since| now.saturating_duration_since(since) < GATHER) {
            return None;
        }
        while let Some((path, gathered)) = self.gathered.pop_first() {
            if let Some(keep) = self.keep(path, &gathered) {
                return Some(keep);
            }
        }
        self.gathering = None;
        None
    }

    /// The leases among these indices that are still open.
    fn keep(&self, path: LeasePath, places: &[u32]) -> Option<LeaseRefresh> {
        let open = places
            .iter()
            .filter_map(|&place| self.places[place as usize])
            .filter(|lease| lease.state == LeaseState::Open && lease.path() == path);
        let LeasePath { node, worker } = path;
        let nonce = open.clone().next()?.nonce;
        Some(LeaseRefresh { node, worker, nonce, tags: open.map(|lease| lease.tag).collect() })
    }

    fn next_turn(&mut self, now: Instant) -> Option<usize> {
        let began = *self.round.get_or_insert(now);
        let gone = now.saturating_duration_since(began).min(REFRESH_EVERY);
        let reached = self.places.len() as u128 * gone.as_micros() / REFRESH_EVERY.as_micros();
        if self.turn < reached as usize {
            self.turn += 1;
            return Some(self.turn - 1);
        }
        if gone == REFRESH_EVERY {
            // Missed rounds are skipped.
            let next = began + REFRESH_EVERY;
            self.round = Some(if now < next + REFRESH_EVERY { next } else { now });
            self.turn = 0;
        }
        None
    }

    /// The open leases, for another process. A lease that is being opened is asked for again there.
    pub(super) fn record(&self) -> Vec<LeaseRecord> {
        self.places.iter().flatten().filter_map(TrunkLease::record).collect()
    }

    /// The open leases of this session.
    pub(super) fn record_of(&self, session: SessionId) -> impl Iterator<Item = LeaseRecord> {
        let at = |place: u32| self.places[place as usize].as_ref();
        let first = self.firsts.get(&session).and_then(|place| at(*place));
        std::iter::successors(first, move |lease| at(lease.next?)).filter_map(TrunkLease::record)
    }

    /// Continues a lease of another process.
    pub(super) fn restore(&mut self, record: LeaseRecord) {
        let LeaseRecord { session, hop, room, tag, drawn, worker } = record;
        let TrunkLease { nonce, .. } = self.begin((session, hop, worker), room, tag, drawn);
        if let Some(lease) = self.by_nonce(nonce) {
            lease.state = LeaseState::Open;
        }
    }

    /// Refreshes all leases at once, before a new round. Nodes send to the source of the last refresh, so each is repeated,
    /// at growing intervals, until an answer to a refresh with the same first lease.
    pub(super) fn refresh_all(&mut self, now: Instant) {
        self.gathered.clear();
        self.pending.clear();
        (self.round, self.turn, self.gathering) = (Some(now), 0, None);
        let mut by_path: BTreeMap<LeasePath, Vec<u32>> = BTreeMap::new();
        for (place, lease) in (0..).zip(&self.places) {
            if let Some(lease) = lease.filter(|lease| lease.state == LeaseState::Open) {
                by_path.entry(lease.path()).or_default().push(place);
            }
        }
        for (path, places) in by_path {
            for places in places.chunks(KEEP_MAX) {
                let Some(LeaseRefresh { nonce, .. }) = self.keep(path, places) else { continue };
                let refresh = PendingRefresh { wait: ASK_AGAIN, path, places: places.to_vec() };
                self.pending.insert((now, nonce), refresh);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests;
