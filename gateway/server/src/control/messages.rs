//! What is said between control and those who speak with it: wants, answers, events, views.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{
    Cohort, Decider, Event, Fault, Health, Hop, Impossible, Incarnation, Ingress, Labels, Measures,
    Media, Mode, NodeId, PolicyName, Refused, RoomId, SessionId, Stage, Transport, Walk, Witness,
};
use evenkeel_dataplane::worker::{ShedRun, Totals};

use super::handle::NotReloaded;
use super::node_list::{Actor, ListTold};
use super::orders::Order;
use super::prober::Unbelieved;

/// What a client wants, as the API read it.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// Names the scenario.
    pub scenario: Arc<str>,
    /// The room's name.
    pub room: Arc<str>,
    /// Facts that policies may read.
    pub labels: Labels,
    /// How the client reaches the gateway.
    pub ingress: Ingress,
    /// What it sends and receives.
    pub media: Arc<Media>,
    /// Addresses of this session at `plain` nodes, by name of the node.
    pub nodes: Vec<(Arc<str>, SocketAddr)>,
    /// The caller's W3C trace context (`traceparent`), as it came.
    pub traceparent: Option<Box<str>>,
}

/// What the client needs to send and receive.
#[derive(Clone, PartialEq, Debug)]
pub struct Opened {
    /// The session.
    pub session: SessionId,
    /// Its room.
    pub room: RoomId,
    /// Where and how it is reached.
    pub ingress: Reached,
    /// The hops of its room, best first.
    pub route: Vec<Hop>,
    /// Who let it in.
    pub admitted_by: Decider,
    /// Who placed its room.
    pub routed_by: Decider,
}

/// Where and how the gateway is reached by one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reached {
    /// RTP over UDP.
    Udp {
        /// Where RTP goes.
        address: SocketAddr,
        /// Where RTCP goes, if not there.
        rtcp: Option<SocketAddr>,
        /// For connectivity checks: user fragment and password.
        credentials: Option<(Box<str>, Box<str>)>,
    },
    /// RTP over QUIC.
    Quic {
        /// Where the endpoint listens.
        address: SocketAddr,
        /// SHA-256 of its certificate.
        certificate_sha256: [u8; 32],
        /// The flow the client sends with.
        flow_to_gateway: u64,
        /// The flow it is sent with.
        flow_from_gateway: u64,
    },
}

/// Why control did not do what was asked.
#[derive(Clone, PartialEq, Debug)]
pub enum Failed {
    /// The offer was refused.
    Refused(Refused),
    /// The node that carries the room did not open the session, and said why.
    NotOpened {
        /// The node.
        node: NodeId,
        /// Why, in words.
        reason: Box<str>,
    },
    /// What an operator asked for cannot be.
    Impossible(Impossible),
    /// Nothing has the name that an operator said.
    Unfound {
        /// What is not there: a node or a region.
        reason: Impossible,
        /// What there is.
        known: Vec<Box<str>>,
    },
    /// The node cannot take the room.
    Unfit {
        /// Its health.
        health: Health,
        /// Whether it is being drained.
        draining: bool,
        /// Load and reserves, thousandths of its capacity.
        load_permille: u32,
        /// What it can take, as measured, kbit/s.
        capacity_kbps: u64,
    },
    /// No listener takes clients of this kind.
    NoListener,
    /// Another session has the client's address.
    AddressTaken(SocketAddr),
    /// The offer names a node that is not configured.
    UnknownNode(Box<str>),
    /// The session would reach two plain nodes at one address: what comes from there could be of either.
    SharedNodeAddress {
        /// Their names.
        nodes: [Box<str>; 2],
        /// The address.
        address: SocketAddr,
    },
    /// There is no such policy.
    NoPolicy(PolicyName),
    /// A policy could not be replaced: why.
    Policy(Box<str>),
    /// An agent did not do what it was told.
    Agent {
        /// The node that it is beside.
        node: Box<str>,
        /// Why.
        why: Disobeyed,
    },
    /// The configuration was read again, and not taken.
    NotReloaded(NotReloaded),
    /// The first policies are still compiled; until they are in force nobody else has a word on them.
    Starting,
    /// Control is busy or gone.
    Unavailable,
}

/// Why an agent did not do what it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disobeyed {
    /// The node has none.
    NoAgent,
    /// Its configuration does not allow drills.
    Forbidden,
    /// There is nothing there that this could be done to.
    Unable(Order),
    /// It did not answer.
    Silent,
}

/// What happened, and when.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// Wall-clock time.
    pub at: SystemTime,
    /// What.
    pub event: Happened,
    /// With [`Event::Closed`]: what the session carried.
    pub totals: Option<Totals>,
    /// With [`Event::Opened`], [`Event::Refused`] and [`Happened::TurnedAway`]: who asked for it, as far as tracing is concerned.
    pub caller: Option<Caller>,
}

/// Who asked for a session, as far as tracing is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// When the request came.
    pub arrived: Instant,
    /// Its W3C `traceparent`, as it came.
    pub traceparent: Option<Box<str>>,
}

impl Caller {
    pub(crate) fn of(wanted: &Wanted, arrived: Instant) -> Caller {
        Caller { arrived, traceparent: wanted.traceparent.clone() }
    }
}

/// What happened: in the core, or to a policy.
#[derive(Clone, PartialEq, Debug)]
pub enum Happened {
    /// The core says so.
    Core(Event),
    /// An offer was refused for want of a way in, or of a node it names.
    TurnedAway {
        /// Its scenario, as the client named it.
        scenario: Arc<str>,
        /// Why: `no-listener`, `address-taken`, `no-resources` or `unknown-node`.
        reason: &'static str,
        /// The session it was to become, and its room, where it came that far.
        session: Option<(SessionId, RoomId)>,
    },
    /// A revision came a step further, was refused or rolled back.
    Rollout(Rollout),
    /// A session was not opened at a node.
    NotOpened {
        /// The session.
        session: SessionId,
        /// The node.
        node: NodeId,
        /// Why, in words.
        reason: Box<str>,
    },
    /// The list of nodes changed, or was to change and was refused.
    NodeList(ListTold),
    /// A node that was listed no longer is empty, and forgotten.
    NodeGone {
        /// The number that it had.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
    },
    /// A rung kept packets from a session's client, by number.
    Shed {
        /// The session.
        session: SessionId,
        /// Which packets.
        run: ShedRun,
    },
}

/// One session as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionView {
    /// The session.
    pub session: SessionId,
    /// Its room's name.
    pub room: Arc<str>,
    /// Its scenario.
    pub scenario: Arc<str>,
    /// How it survives the death of its node.
    pub mode: Mode,
    /// What it comes over.
    pub transport: Transport,
    /// Where its packets go now.
    pub hop: Option<Hop>,
    /// Its rung.
    pub rung: u8,
    /// Its cap, kbit/s; 0: none.
    pub cap_kbps: u32,
    /// As measured last.
    pub measures: Measures,
    /// What it carried so far.
    pub totals: Totals,
    /// How long it has been open.
    pub age: Duration,
}

/// One node as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Box<str>,
    /// Its region.
    pub region: Box<str>,
    /// Its zone.
    pub zone: Box<str>,
    /// Its newest incarnation.
    pub incarnation: Incarnation,
    /// Its health.
    pub health: Health,
    /// Who accuses it now.
    pub accused_by: Vec<Witness>,
    /// Why it is not believed, or does not believe us, where it, or the agent beside it, said so lately.
    pub unbelieved: Option<Unbelieved>,
    /// Whether it is being drained.
    pub draining: bool,
    /// Whether it is listed no longer, and is forgotten when it is empty.
    pub leaves: bool,
    /// Whether an operator said that it is Down.
    pub ejected: bool,
    /// What it can take, as measured, kbit/s.
    pub capacity_kbps: u64,
    /// Sessions that it is opening.
    pub opening: u32,
    /// Sessions that wait until it has opened others.
    pub waiting: u32,
    /// Load and reserves, thousandths of its capacity.
    pub load_permille: u32,
    /// Its load as it measured it lately, thousandths of its capacity, where it says so.
    pub measured_permille: Option<u16>,
    /// Rooms on it.
    pub rooms: u32,
    /// Smoothed round trip to it.
    pub round_trip: Option<Duration>,
}

/// One policy as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyView {
    /// The policy.
    pub policy: PolicyName,
    /// The plugin's name and version.
    pub plugin: Box<str>,
    /// The revision that answers; none where it failed and the native default stands in.
    pub revision: Option<Arc<str>>,
    /// The revision before it, to which a rollback leads.
    pub previous: Option<Arc<str>>,
    /// Where it came from: `embedded`, a file, or `pushed`.
    pub origin: Box<str>,
    /// Calls so far.
    pub calls: u64,
    /// Faults so far.
    pub faults: u64,
    /// Sessions or rooms that its revision is not asked about any more, since it fails over them.
    pub quarantined: u64,
    /// Answers of its revision that differed from those of a fresh instance, and how many were looked at.
    pub hidden_state: (u64, u64),
    /// What its last call failed of; none where it was answered.
    pub failing: Option<Fault>,
    /// What a call failed of last; none where none ever did.
    pub last_fault: Option<Fault>,
    /// What else comes and goes.
    pub life: PolicyLife,
}

/// Revisions of a policy that come and go.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct PolicyLife {
    /// The one that is tried.
    pub tried: Option<Tried>,
    /// How far that is.
    pub walk: Option<WalkView>,
    /// How both cohorts fare, the standing one first, while a share belongs to the one that is tried.
    pub cohorts: Vec<Cohort>,
    /// How long the revision before may still come back.
    pub previous_for: Option<Duration>,
    /// What became of it last.
    pub last: Option<LastRollout>,
    /// Those that did harm and do not come in again, the oldest first.
    pub quarantined: Vec<Quarantined>,
    /// Those in force, tried or kept that were revoked since they came.
    pub revoked: Vec<Revoked>,
}

/// A revision that is tried beside the one in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// Which.
    pub revision: Arc<str>,
    /// The plugin's name and version.
    pub plugin: Box<str>,
    /// Where it came from.
    pub origin: Box<str>,
    /// Calls for its share.
    pub calls: u64,
    /// Faults of these.
    pub faults: u64,
    /// Questions that it was asked along and that it answered as the one in force did.
    pub same: u64,
    /// Those that it answered otherwise.
    pub different: u64,
    /// Those that it failed over.
    pub faulted: u64,
    /// How it failed last, in shadow or for its share.
    pub last_fault: Option<Fault>,
}

/// How far a revision is on its way into force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkView {
    /// Where it is, and what comes next.
    pub staged: Staged,
    /// How long it has been there, pauses left out.
    pub lasted: Duration,
    /// Shares that it is to have, one after the other, per cent.
    pub steps: Vec<u8>,
    /// How long each lasts at least.
    pub each: Duration,
}

/// What became of a policy last.
#[derive(Clone, PartialEq, Debug)]
pub struct LastRollout {
    /// When.
    pub at: SystemTime,
    /// What, and who wanted it.
    pub rollout: Rollout,
}

/// A revision that did harm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantined {
    /// Which.
    pub revision: Arc<str>,
    /// Since when.
    pub since: SystemTime,
    /// What it did.
    pub reason: Box<str>,
}

impl Quarantined {
    /// For how long by now.
    pub(crate) fn since_text(&self) -> String {
        // A clock that was put back since says that it was just now.
        format!("{} s", self.since.elapsed().unwrap_or_default().as_secs())
    }
}

/// A revision that was revoked since it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// Which.
    pub revision: Arc<str>,
    /// By which key or digest, and what to do about it.
    pub reason: Box<str>,
}

/// How far a revision that is tried is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staged {
    /// Where it is.
    pub stage: Stage,
    /// Whether it stays there until it is resumed.
    pub paused: bool,
    /// The share that it has next, per cent; at 100 it is in force.
    pub next: u8,
    /// How long until then at least; none: it stays where it is until somebody says otherwise.
    pub next_in: Option<Duration>,
}

impl Staged {
    /// As it is now.
    pub(crate) fn of(walk: &Walk, now: Instant) -> Staged {
        let (stage, paused) = (walk.stage(), walk.is_paused());
        Staged { stage, paused, next: walk.next_share(), next_in: walk.left(now) }
    }
}

/// How replacing a policy went.
#[derive(Clone, PartialEq, Debug)]
pub struct Rollout {
    /// The policy.
    pub policy: PolicyName,
    /// What became of it.
    pub outcome: RolloutOutcome,
    /// How far the one that is tried is, where one is.
    pub stage: Option<Staged>,
    /// Who wanted it.
    pub by: Actor,
    /// The revision that answers now; while one is tried, that one; where it was refused, the one that does not answer, if
    /// it came far enough to have a name.
    pub revision: Option<Arc<str>>,
    /// The revision that stood before, or was tried; while one is tried, the one in force.
    pub previous: Option<Arc<str>>,
    /// Why, where it was refused, in a word that never changes: `import`, `unsigned`. Where it answers since the gateway
    /// began, though it is quarantined: `quarantined`; where it was revoked since it came: `revoked`.
    pub code: Option<&'static str>,
    /// Why, where it was refused, rolled back or revoked, or answers though it is quarantined.
    pub reason: Option<Box<str>>,
    /// When somebody asked for it, or the revision failed once too often.
    pub arrived: Instant,
    /// From the decision to the first question it would answer.
    pub activate: Duration,
}

/// What became of a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RolloutOutcome {
    /// It answers now.
    Activated,
    /// It answered before: the same plugin with the same settings.
    Unchanged,
    /// It never answered; the one before stands.
    Refused,
    /// It answered, failed, and the one before is back.
    RolledBack,
    /// It is tried.
    Begun,
    /// It came a step further.
    Stepped,
    /// It stays where it is.
    Paused,
    /// It goes on.
    Resumed,
    /// It is in force, tried or kept, and was revoked since it came.
    Revoked,
}

impl RolloutOutcome {
    /// The word in the API and in records: `rolled-back`.
    pub fn name(self) -> &'static str {
        match self {
            RolloutOutcome::Activated => "activated",
            RolloutOutcome::Unchanged => "unchanged",
            RolloutOutcome::Refused => "refused",
            RolloutOutcome::RolledBack => "rolled-back",
            RolloutOutcome::Begun => "begun",
            RolloutOutcome::Stepped => "stepped",
            RolloutOutcome::Paused => "paused",
            RolloutOutcome::Resumed => "resumed",
            RolloutOutcome::Revoked => "revoked",
        }
    }
}

/// The gateway as a whole.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The region it is in.
    pub region: Box<str>,
    /// How long it has run.
    pub up: Duration,
    /// Sessions that are live.
    pub sessions: usize,
    /// Rooms.
    pub rooms: usize,
    /// Whether it admits new sessions.
    pub admitting: bool,
    /// Whether our own uplink is doubted, since most nodes fell silent at once.
    pub uplink_doubted: bool,
    /// Whether its first policies are still compiled: it forwards, and will admit.
    pub starting: bool,
    /// Policies whose last call failed.
    pub policies_failing: Vec<PolicyName>,
    /// Packets handed on to nodes.
    pub packets_to_node: u64,
    /// Packets handed on to clients.
    pub packets_to_client: u64,
    /// Bytes of the packets handed on to nodes.
    pub bytes_to_node: u64,
    /// Bytes of the packets handed on to clients.
    pub bytes_to_client: u64,
    /// Key frames asked of nodes.
    pub key_frames_to_node: u64,
    /// Key frames asked of clients.
    pub key_frames_to_client: u64,
    /// Packets dropped, by reason; those that never happened are left out.
    pub drops: Vec<(&'static str, u64)>,
    /// Bound UDP listeners and the QUIC endpoint, as clients reach them.
    pub udp: Vec<SocketAddr>,
    /// The QUIC endpoint, if there is one.
    pub quic: Option<SocketAddr>,
    /// Counts of the QUIC endpoint by word.
    pub quic_counts: Vec<(&'static str, u64)>,
}
