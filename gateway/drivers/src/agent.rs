//! Nodes with an agent: sessions are opened by signed messages on the trunk. One message refreshes many sessions;
//! sessions that the node has lost are opened again.

mod paths;
mod record;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::{
    DriverKey, DriverKeys, DriverKind, DriverSettings, NodeConfig, NodeProbe, SecretFile,
    Signalling,
};
use evenkeel_dataplane::worker::{NodeLeg, tag};
use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::{
    KEEP_MAX, NodeSecret, OpenStatus, TrunkAnswer, TrunkQuestion,
};
use evenkeel_model::{Hop, IdMap, NodeId, SessionId};
use paths::{Asking, Paths, TrunkPath};
pub(crate) use record::AgentsRecord;
use record::LeaseRecord;

use crate::driver::{Driver, DriverContext, NodeDriver, NodeInput, RecordScope};
use crate::fencing::Fencing;
use crate::record::DriversRecord;
use crate::session::{Clock, ContinuedSession, DriverAction, OpenRequest, RoomNames, Transport};

pub(crate) struct Agent;

impl DriverKind for Agent {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const {
            &[
                DriverKey::new("address"),
                DriverKey::only("secret_file", "or beside `agent`"),
                DriverKey::new("canary"),
                DriverKey::only("encrypt", "only trunk legs can be encrypted"),
            ]
        }
    }

    fn instead_of(&self, key: &str) -> Option<&'static str> {
        match key {
            "probe" => Some("an agent is always probed, by signed datagrams"),
            "srtp" => {
                Some("`encrypt = true` encrypts the trunk of driver `agent` with all its packets")
            }
            _ => None,
        }
    }

    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        let encrypt = keys.get("encrypt").is_some_and(|encrypt| *encrypt.get_ref());
        let trunk = Signalling::Trunk { secret: keys.secret()?, encrypt };
        let settings = DriverSettings::new(self.name(), NodeProbe::Signed, trunk);
        Some(settings.showing("encrypt", encrypt))
    }
}

impl Driver for Agent {
    fn start(
        &self,
        node: NodeId,
        config: &NodeConfig,
        context: &DriverContext,
    ) -> Box<dyn NodeDriver> {
        let (secret, _) = config.trunk().expect("the driver reads the secret of a trunk");
        Box::new(AgentNode::new(node, &config.name, secret, context))
    }
}

/// A node whose sessions are on its trunk.
struct AgentNode {
    node: NodeId,
    secret: NodeSecret,
    fencing: Arc<Fencing>,
    room_names: Arc<RoomNames>,
    leases: Leases,
    paths: Paths,
    /// The next look at the paths.
    look: Option<Instant>,
    report: Option<SessionReport>,
}

/// The number of sessions that a node reported last.
struct SessionReport {
    sessions: u32,
    /// The number has fallen since the leases were counted.
    fell: bool,
    /// The last time that the leases at the node were counted.
    counted: Option<Instant>,
}

impl NodeDriver for AgentNode {
    fn open(
        &mut self,
        request: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        let &OpenRequest { session, home, room, hop, .. } = request;
        self.leases.end(session, hop);
        let room = self.room_names.name(room, draw);
        let (tag, drawn) = (tag(home.slot, draw()), draw());
        let record = LeaseRecord { session, hop, room, tag, drawn, worker: home.worker };
        let lease = self.leases.begin(record, LeaseState::Opening);
        let asking = self.ask(&lease, clock.now);
        Some(self.sign(&asking, clock))
    }

    fn close(&mut self, session: SessionId, hop: Hop, clock: Clock) -> Option<DriverAction> {
        let TrunkLease { tag, worker, nonce, .. } = self.leases.end(session, hop)?;
        let asking =
            Asking { node: hop.node, worker, question: TrunkQuestion::Close { tag }, nonce };
        Some(self.sign(&asking, clock))
    }

    fn handle(
        &mut self,
        input: NodeInput,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        match input {
            NodeInput::Signed(message) => return self.handle_signed(&message, clock),
            NodeInput::Sessions(sessions) => self.handle_sessions(sessions, clock.now),
            NodeInput::LongBundle { worker } => {
                self.paths.used(TrunkPath { node: self.node, worker }, draw, clock.now);
            }
            NodeInput::Datagram(_)
            | NodeInput::Unreachable(_)
            | NodeInput::Posted { .. }
            | NodeInput::StreamRestarted { .. } => {}
        }
        None
    }

    fn poll(&mut self, clock: Clock) -> Option<DriverAction> {
        let asking = self.due(clock.now)?;
        Some(self.sign(&asking, clock))
    }

    fn record(&self, scope: RecordScope, record: &mut DriversRecord) {
        match scope {
            RecordScope::All => record.agents.leases.extend(self.leases.record()),
            RecordScope::Session { session, hop, .. } => {
                record.agents.leases.extend(self.leases.record_of(session, hop));
            }
        }
    }

    fn restore(
        &mut self,
        record: DriversRecord,
        _known: &ContinuedSession<'_>,
        _draw: &mut dyn FnMut() -> u64,
        _now: Instant,
    ) {
        for lease in record.agents.leases {
            self.leases.begin(lease, LeaseState::Open);
        }
    }

    fn refresh(&mut self, now: Instant) {
        self.leases.refresh_all(now);
    }

    /// The node sends to the source of the last message.
    fn announces_source(&self) -> bool {
        true
    }
}

impl AgentNode {
    fn new(node: NodeId, name: &str, secret: &SecretFile, context: &DriverContext) -> AgentNode {
        AgentNode {
            node,
            secret: NodeSecret::new(secret.bytes(), name)
                .expect("the settings refuse a shorter secret"),
            fencing: Arc::clone(&context.fencing),
            room_names: Arc::clone(&context.room_names),
            leases: Leases::default(),
            paths: Paths::default(),
            look: None,
            report: None,
        }
    }

    fn sign(&self, asking: &Asking, clock: Clock) -> DriverAction {
        let &Asking { node, worker, ref question, nonce } = asking;
        let mut message = Vec::new();
        let owner = self.fencing.owner();
        question.write_for(owner, &self.secret, nonce, clock.unix_us, &mut message);
        let of_sessions = !matches!(question, TrunkQuestion::Path { .. });
        let transport = Transport::Trunk { worker, of_sessions };
        DriverAction::Send { node, transport, bytes: message.into() }
    }

    /// Handles the number of sessions that a node reports, other gateways' sessions included. A node with fewer sessions than
    /// leases has lost some, as by a restart: its leases are refreshed, and its answers tell which to open again.
    fn handle_sessions(&mut self, sessions: u32, now: Instant) {
        let new = || SessionReport { sessions, fell: false, counted: None };
        let report = self.report.get_or_insert_with(new);
        report.fell |= sessions < report.sessions;
        report.sessions = sessions;
        let lately = |at| now.saturating_duration_since(at) < COUNT_EVERY;
        if !report.fell || report.counted.is_some_and(lately) {
            return;
        }
        (report.fell, report.counted) = (false, Some(now));
        if self.leases.open_count() > sessions as usize {
            self.leases.refresh(now);
        }
    }

    /// Requests the opening of a lease, repeated until answered.
    fn ask(&mut self, lease: &TrunkLease, now: Instant) -> Asking {
        let &TrunkLease { session, hop, room, tag, nonce, worker, .. } = lease;
        self.leases.unanswered.push_back((now + ASK_AGAIN, nonce));
        let lease_s = LEASE.as_secs() as u16;
        let question =
            TrunkQuestion::Open { room, session: session.0, tag, lease_s, numbered: true };
        Asking { node: hop.node, worker, question, nonce }
    }

    fn handle_signed(&mut self, message: &[u8], clock: Clock) -> Option<DriverAction> {
        let verified = TrunkAnswer::read(message, &self.secret, clock.unix_us).ok()?;
        match verified.message {
            TrunkAnswer::Open { tag, status } => self.answered(verified.nonce, tag, status),
            TrunkAnswer::Keep { unknown } => {
                self.leases.refreshed(verified.nonce, &unknown, clock.now);
                None
            }
            TrunkAnswer::Path { .. } => {
                let changed = self.paths.answered(self.node, verified.nonce, clock.now);
                changed.map(|(TrunkPath { node, worker }, size_max)| DriverAction::LimitBundles {
                    worker,
                    node,
                    size_max,
                })
            }
            TrunkAnswer::Superseded { epoch } => {
                Some(DriverAction::Fenced { node: self.node, epoch })
            }
            _ => None,
        }
    }

    fn answered(&mut self, nonce: u64, tag: Tag, status: OpenStatus) -> Option<DriverAction> {
        let lease = self.leases.by_nonce(nonce)?;
        let TrunkLease { session, hop, state, .. } = *lease;
        if tag != lease.tag {
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

    fn due(&mut self, now: Instant) -> Option<Asking> {
        if self.look.is_none_or(|look| look <= now) {
            self.look = Some(now + LOOK_EVERY);
            self.paths.look(now);
        }
        if let Some(asking) = self.paths.due() {
            return Some(asking);
        }
        if let Some(lease) = self.leases.due_to_open(now) {
            return Some(self.ask(&lease, now));
        }
        let keep = self.leases.due_of_all(now).or_else(|| self.leases.due_to_keep(now))?;
        let LeaseRefresh { path: TrunkPath { node, worker }, nonce, tags } = keep;
        let lease_s = LEASE.as_secs() as u16;
        let question = TrunkQuestion::Keep { lease_s, numbered: true, tags };
        Some(Asking { node, worker, question, nonce })
    }
}

/// Interval of path MTU discovery.
const LOOK_EVERY: Duration = Duration::from_millis(30);

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

/// The leases at a node. There are several per session at all nodes, so each is small and found without a search: messages carry the lease's
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
    fn refreshed(&mut self, nonce: u64, tags: &[Tag], now: Instant) {
        if self.by_nonce(nonce).is_none() {
            return;
        }
        self.pending.retain(|(_, pending), _| *pending != nonce);
        let mut tags: Vec<Tag> = tags.to_vec();
        tags.sort_unstable();
        tags.dedup();
        // The indices follow the first one closely; lower indices belong to the next round.
        let (before, behind) = self.places.split_at_mut(nonce as u32 as usize);
        let places = behind.iter_mut().chain(before).flatten();
        let named = places.filter(|lease| tags.binary_search(&lease.tag).is_ok());
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

    /// The session's open lease at this hop.
    fn record_of(&self, session: SessionId, hop: Hop) -> Option<LeaseRecord> {
        let at = |link: LeaseLink| self.places[link.place() as usize].as_ref();
        let first = self.firsts.get(session).and_then(|link| at(*link));
        let mut leases = std::iter::successors(first, move |lease| at(lease.next?));
        leases.find(|lease| lease.hop == hop)?.record()
    }

    /// Refreshes all leases at once, before a new round. Nodes send to the source of the last refresh, so each is repeated,
    /// at growing intervals, until an answer to a refresh with the same first lease.
    fn refresh_all(&mut self, now: Instant) {
        self.gathered.clear();
        self.pending.clear();
        (self.round, self.turn, self.gathering) = (Some(now), 0, None);
        self.refresh(now);
    }

    fn open_count(&self) -> usize {
        self.places.iter().flatten().filter(|lease| lease.state == LeaseState::Open).count()
    }

    /// Refreshes the leases at once, and again until the node answers.
    fn refresh(&mut self, now: Instant) {
        let mut by_path: BTreeMap<TrunkPath, Vec<u32>> = BTreeMap::new();
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
    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests;
