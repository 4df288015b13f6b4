//! Nodes with an agent: sessions are opened by signed messages on the trunk. One message refreshes many sessions;
//! sessions that the node has lost are opened again.

mod paths;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::{NodeLeg, tag};
use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::{
    KEEP_MAX, NodeSecret, OpenStatus, TrunkAnswer, TrunkQuestion,
};
use evenkeel_model::{Hop, IdMap, NodeId, RoomId, SessionId};
use paths::Paths;
pub use paths::TrunkPath;
use serde::{Deserialize, Serialize};

use super::session::{Asking, Clock, DriverAction, OpenRequest, mixed};

/// The leases of all nodes, for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AgentsRecord {
    pub(super) names: Option<u64>,
    leases: Vec<LeaseRecord>,
}

impl AgentsRecord {
    pub(super) fn by_session(self) -> BTreeMap<SessionId, AgentsRecord> {
        let mut by_session: BTreeMap<SessionId, AgentsRecord> = BTreeMap::new();
        for lease in self.leases {
            let new = || AgentsRecord { names: self.names, leases: Vec::new() };
            by_session.entry(lease.session).or_insert_with(new).leases.push(lease);
        }
        by_session
    }

    pub(super) fn joined(
        names: Option<u64>,
        records: impl Iterator<Item = AgentsRecord>,
    ) -> AgentsRecord {
        AgentsRecord { names, leases: records.flat_map(|record| record.leases).collect() }
    }
}

#[derive(Default)]
pub(super) struct AgentDriver {
    leases: Leases,
    /// Seeds the room names used towards nodes. Random, because other gateways count rooms from 1 too and may share a
    /// node.
    names: Option<u64>,
    pub(super) paths: Paths,
    reports: BTreeMap<NodeId, SessionReport>,
}

/// The number of sessions that a node reported last.
struct SessionReport {
    sessions: u32,
    /// The number has fallen since the leases were counted.
    fell: bool,
    /// The last time that the leases at the node were counted.
    counted: Option<Instant>,
}

impl AgentDriver {
    pub(super) fn open(
        &mut self,
        wish: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) -> Asking {
        let &OpenRequest { session, home, room: RoomId(room), hop, .. } = wish;
        self.leases.end(session, hop);
        let names = *self.names.get_or_insert_with(&mut *draw);
        let (room, tag, drawn) = (mixed(names, room), tag(home.slot, draw()), draw());
        let record = LeaseRecord { session, hop, room, tag, drawn, worker: home.worker };
        let lease = self.leases.begin(record, LeaseState::Opening);
        self.ask(&lease, now)
    }

    pub(super) fn record_of(&self, sessions: impl Iterator<Item = SessionId>) -> AgentsRecord {
        let leases = sessions.flat_map(|session| self.leases.record_of(session));
        AgentsRecord { names: self.names, leases: leases.collect() }
    }

    pub(super) fn record(&self) -> AgentsRecord {
        AgentsRecord { names: self.names, leases: self.leases.record() }
    }

    /// Continues the leases of another process at these hops, and refreshes them at once.
    pub(super) fn restore(
        &mut self,
        record: AgentsRecord,
        hop: impl Fn(SessionId, Hop) -> Option<Hop>,
        now: Instant,
    ) {
        self.names = record.names.or(self.names);
        for lease in record.leases {
            if let Some(hop) = hop(lease.session, lease.hop) {
                self.leases.begin(LeaseRecord { hop, ..lease }, LeaseState::Open);
            }
        }
        self.leases.refresh_all(now);
    }

    /// Handles the number of sessions that a node reports, other gateways' sessions included. A node with fewer sessions than
    /// leases has lost some, as by a restart: its leases are refreshed, and its answers tell which to open again.
    pub(super) fn handle_sessions(&mut self, node: NodeId, sessions: u32, now: Instant) {
        let new = || SessionReport { sessions, fell: false, counted: None };
        let report = self.reports.entry(node).or_insert_with(new);
        report.fell |= sessions < report.sessions;
        report.sessions = sessions;
        let lately = |at| now.saturating_duration_since(at) < COUNT_EVERY;
        if !report.fell || report.counted.is_some_and(lately) {
            return;
        }
        (report.fell, report.counted) = (false, Some(now));
        if self.leases.open_at(node) > sessions as usize {
            self.leases.refresh(|lease| lease.hop.node == node, now);
        }
    }

    /// Requests the opening of a lease, repeated until answered.
    fn ask(&mut self, lease: &TrunkLease, now: Instant) -> Asking {
        let &TrunkLease { session, hop, room, tag, nonce, worker, .. } = lease;
        self.leases.unanswered.push_back((now + ASK_AGAIN, nonce));
        let lease_s = LEASE.as_secs() as u16;
        let question = TrunkQuestion::Open { room, session: session.0, tag, lease_s };
        Asking { node: hop.node, worker, question, nonce }
    }

    /// If the message is lost, the lease expires.
    pub(super) fn close(&mut self, session: SessionId, hop: Hop) -> Option<Asking> {
        let TrunkLease { tag, worker, nonce, .. } = self.leases.end(session, hop)?;
        Some(Asking { node: hop.node, worker, question: TrunkQuestion::Close { tag }, nonce })
    }

    pub(super) fn handle_signed(
        &mut self,
        node: NodeId,
        secret: &NodeSecret,
        message: &[u8],
        clock: Clock,
    ) -> Option<DriverAction> {
        let verified = TrunkAnswer::read(message, secret, clock.unix_us).ok()?;
        match verified.message {
            TrunkAnswer::Open { tag, status } => self.answered(node, verified.nonce, tag, status),
            TrunkAnswer::Keep { unknown } => {
                self.leases.refreshed(node, verified.nonce, &unknown, clock.now);
                None
            }
            TrunkAnswer::Path { .. } => {
                let changed = self.paths.answered(node, verified.nonce, clock.now);
                changed.map(|(TrunkPath { node, worker }, size_max)| DriverAction::LimitBundles {
                    worker,
                    node,
                    size_max,
                })
            }
            TrunkAnswer::Superseded { epoch } => Some(DriverAction::Fenced { node, epoch }),
            _ => None,
        }
    }

    fn answered(
        &mut self,
        node: NodeId,
        nonce: u64,
        tag: Tag,
        status: OpenStatus,
    ) -> Option<DriverAction> {
        let lease = self.leases.by_nonce(nonce)?;
        let TrunkLease { session, hop, state, .. } = *lease;
        if hop.node != node || tag != lease.tag {
            return None;
        }
        let (unwilling, reason) = match status {
            OpenStatus::Ok => {
                lease.state = LeaseState::Open;
                let opened = DriverAction::Opened { session, hop, leg: NodeLeg::Trunk(tag) };
                return (state == LeaseState::Opening).then_some(opened);
            }
            OpenStatus::Full => (true, "it is full"),
            OpenStatus::Draining => (true, "it is draining"),
            OpenStatus::UnknownTag => (false, "it does not know the tag"),
            OpenStatus::Failed => (false, "it failed to"),
            OpenStatus::Unencrypted => (false, "it requires `encrypt = true`"),
        };
        self.leases.end(session, hop)?;
        Some(DriverAction::Refused { session, hop, unwilling, reason: reason.into() })
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Asking> {
        if let Some(asking) = self.paths.due() {
            return Some(asking);
        }
        if let Some(lease) = self.leases.due_to_open(now) {
            return Some(self.ask(&lease, now));
        }
        let keep = self.leases.due_of_all(now).or_else(|| self.leases.due_to_keep(now))?;
        let LeaseRefresh { path: TrunkPath { node, worker }, nonce, tags } = keep;
        let question = TrunkQuestion::Keep { lease_s: LEASE.as_secs() as u16, tags };
        Some(Asking { node, worker, question, nonce })
    }
}

/// A node may forget a session after this time without a refresh. The time covers three refreshes, so that two in a row
/// may be lost.
const LEASE: Duration = Duration::from_secs(30);

/// Maximum interval between two refreshes of a lease, plus [`GATHER`].
const REFRESH_EVERY: Duration = Duration::from_secs(8);

/// Time that a due refresh waits for others of the same node.
const GATHER: Duration = Duration::from_secs(1);

/// Minimum interval of counts of the leases at a node, each of which reads all leases.
const COUNT_EVERY: Duration = Duration::from_millis(250);

/// Retry interval of an unanswered opening, and the first one of a refresh of [`Leases::refresh_all`].
const ASK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
struct TrunkLease {
    session: SessionId,
    hop: Hop,
    /// The room's name towards nodes.
    room: u64,
    tag: Tag,
    /// Identifies the lease's messages. The lower half is the lease's index.
    nonce: u64,
    /// The session's home worker, which sends the messages.
    worker: u16,
    state: LeaseState,
    /// The next lease of the same session.
    next: Option<LeaseLink>,
}

/// The index of a lease, plus one, so that a lease without a next one takes no more memory.
#[derive(Clone, Copy, Debug)]
struct LeaseLink(NonZeroU32);

impl LeaseLink {
    fn to(place: u32) -> LeaseLink {
        LeaseLink(NonZeroU32::MIN.saturating_add(place))
    }

    fn place(self) -> u32 {
        self.0.get() - 1
    }
}

/// A lease, as another process continues it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct LeaseRecord {
    session: SessionId,
    hop: Hop,
    room: u64,
    tag: Tag,
    /// The upper half of the nonce.
    drawn: u64,
    worker: u16,
}

impl TrunkLease {
    fn path(&self) -> TrunkPath {
        TrunkPath { node: self.hop.node, worker: self.worker }
    }

    fn record(&self) -> Option<LeaseRecord> {
        let &TrunkLease { session, hop, room, tag, nonce, worker, state, .. } = self;
        let drawn = nonce >> 32;
        let record = LeaseRecord { session, hop, room, tag, drawn, worker };
        (state != LeaseState::Opening).then_some(record)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeaseState {
    /// The node was asked to open the session.
    Opening,
    Open,
    /// The node lost the session and was asked to open it again.
    Reopening,
}

/// Leases at one node, of sessions at one worker, refreshed together.
#[derive(Debug)]
struct LeaseRefresh {
    path: TrunkPath,
    /// The nonce of the first lease. The indices of the others follow closely.
    nonce: u64,
    tags: Box<[Tag]>,
}

/// A refresh of [`Leases::refresh_all`].
#[derive(Debug)]
struct PendingRefresh {
    /// The wait for an answer after the next message.
    wait: Duration,
    path: TrunkPath,
    places: Vec<u32>,
}

/// All leases. There are several per session, so each is small and found without a search: messages carry the lease's
/// index, and refreshes proceed by index.
#[derive(Default)]
struct Leases {
    places: Vec<Option<TrunkLease>>,
    free: Vec<u32>,
    firsts: IdMap<SessionId, LeaseLink>,
    /// Unanswered openings in the order of their retries.
    unanswered: VecDeque<(Instant, u64)>,
    /// The refresh round of [`REFRESH_EVERY`]: its start, and the next index.
    round: Option<Instant>,
    turn: usize,
    /// Due refreshes that wait for others, with the time since which the first has waited.
    gathered: BTreeMap<TrunkPath, Vec<u32>>,
    gathering: Option<Instant>,
    /// By the time of the next message, and its nonce.
    pending: BTreeMap<(Instant, u64), PendingRefresh>,
}

impl Leases {
    /// Adds a lease. The drawn bits distinguish its messages from those of earlier leases at this index.
    fn begin(&mut self, record: LeaseRecord, state: LeaseState) -> TrunkLease {
        let LeaseRecord { session, hop, room, tag, drawn, worker } = record;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        let nonce = drawn << 32 | u64::from(place);
        let next = self.firsts.insert(session, LeaseLink::to(place));
        let lease = TrunkLease { session, hop, room, tag, nonce, worker, state, next };
        self.places[place as usize] = Some(lease);
        lease
    }

    fn by_nonce(&mut self, nonce: u64) -> Option<&mut TrunkLease> {
        let lease = self.places.get_mut(nonce as u32 as usize)?.as_mut()?;
        (lease.nonce == nonce).then_some(lease)
    }

    /// Removes the lease, if there is one.
    fn end(&mut self, session: SessionId, hop: Hop) -> Option<TrunkLease> {
        let (mut before, mut place) = (None, self.firsts.get(session)?.place());
        while self.places[place as usize]?.hop != hop {
            before = Some(place);
            place = self.places[place as usize]?.next?.place();
        }
        let lease = self.places[place as usize].take()?;
        self.free.push(place);
        match (before, lease.next) {
            (Some(before), next) => self.places[before as usize].as_mut()?.next = next,
            (None, Some(next)) => _ = self.firsts.insert(session, next),
            (None, None) => _ = self.firsts.remove(session),
        }
        Some(lease)
    }

    /// Takes the answer to a refresh, which schedules leases that the node does not know to be opened again. If the message
    /// about a lease is lost, the node reports the lease again at the next refresh.
    fn refreshed(&mut self, node: NodeId, nonce: u64, tags: &[Tag], now: Instant) {
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
            self.unanswered.push_front((now, lease.nonce));
        }
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
        while let Some((_, nonce)) = self.unanswered.pop_front_if(|(due, _)| *due <= now) {
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
    fn keep(&self, path: TrunkPath, places: &[u32]) -> Option<LeaseRefresh> {
        let open = places
            .iter()
            .filter_map(|&place| self.places[place as usize])
            .filter(|lease| lease.state == LeaseState::Open && lease.path() == path);
        let nonce = open.clone().next()?.nonce;
        Some(LeaseRefresh { path, nonce, tags: open.map(|lease| lease.tag).collect() })
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
    fn record(&self) -> Vec<LeaseRecord> {
        self.places.iter().flatten().filter_map(TrunkLease::record).collect()
    }

    /// The open leases of this session.
    fn record_of(&self, session: SessionId) -> impl Iterator<Item = LeaseRecord> {
        let at = |link: LeaseLink| self.places[link.place() as usize].as_ref();
        let first = self.firsts.get(session).and_then(|link| at(*link));
        std::iter::successors(first, move |lease| at(lease.next?)).filter_map(TrunkLease::record)
    }

    /// Refreshes all leases at once, before a new round. Nodes send to the source of the last refresh, so each is repeated,
    /// at growing intervals, until an answer to a refresh with the same first lease.
    fn refresh_all(&mut self, now: Instant) {
        self.gathered.clear();
        self.pending.clear();
        (self.round, self.turn, self.gathering) = (Some(now), 0, None);
        self.refresh(|_| true, now);
    }

    fn open_at(&self, node: NodeId) -> usize {
        let is_open =
            |lease: &&TrunkLease| lease.hop.node == node && lease.state == LeaseState::Open;
        self.places.iter().flatten().filter(is_open).count()
    }

    /// Refreshes these leases at once, and again until the node answers.
    fn refresh(&mut self, of: impl Fn(&TrunkLease) -> bool, now: Instant) {
        let mut by_path: BTreeMap<TrunkPath, Vec<u32>> = BTreeMap::new();
        for (place, lease) in (0..).zip(&self.places) {
            let is_due = |lease: &TrunkLease| lease.state == LeaseState::Open && of(lease);
            if let Some(lease) = lease.filter(is_due) {
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
    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests;
