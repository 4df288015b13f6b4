//! Requests to control, its answers and errors, events, and views of its state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{
    Cohort, Decider, Event, Fault, Health, Hop, Impossible, Incarnation, Ingress, Labels,
    LastRollout, Measures, Media, Mode, NodeId, PolicyName, Quarantined, Refused, Revoked, Rollout,
    RoomId, SessionId, Staged, Transport, Witness,
};
use evenkeel_dataplane::worker::{ShedRun, Totals};

use super::handle::NotReloaded;
use super::node_list::ListTold;
use super::orders::Order;

/// A session request, as the API read it.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionRequest {
    pub scenario: Arc<str>,
    pub room: Arc<str>,
    /// Facts that policies may read.
    pub labels: Labels,
    /// How the client reaches the gateway.
    pub ingress: Ingress,
    pub media: Arc<Media>,
    /// The client's own addresses at `plain` nodes, by node name.
    pub nodes: Vec<(Arc<str>, SocketAddr)>,
    /// The caller's W3C trace context (`traceparent`), unparsed.
    pub traceparent: Option<Box<str>>,
}

/// The answer to an admitted session.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionAnswer {
    pub session: SessionId,
    pub room: RoomId,
    pub ingress: IngressAnswer,
    /// The hops of its room, best first.
    pub route: Vec<Hop>,
    pub admitted_by: Decider,
    pub routed_by: Decider,
}

/// Where and how one client reaches the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IngressAnswer {
    Udp {
        /// Destination of RTP.
        address: SocketAddr,
        /// Destination of RTCP, if it differs.
        rtcp: Option<SocketAddr>,
        /// For connectivity checks: ufrag and password.
        credentials: Option<(Box<str>, Box<str>)>,
    },
    Quic {
        /// Address of the endpoint.
        address: SocketAddr,
        /// SHA-256 of its certificate.
        certificate_sha256: [u8; 32],
        /// The flow that the client sends with.
        flow_to_gateway: u64,
        /// The flow that the client receives.
        flow_from_gateway: u64,
    },
}

/// Why control did not do what was requested.
#[derive(Clone, PartialEq, Debug)]
pub enum ControlError {
    Refused(Refused),
    /// The room's node did not open the session.
    NotOpened {
        node: NodeId,
        reason: Box<str>,
    },
    /// The operation is impossible.
    Impossible(Impossible),
    /// No node or region has this name.
    Unfound {
        /// The kind of the name.
        reason: Impossible,
        /// Existing names.
        known: Vec<Box<str>>,
    },
    /// The node cannot take the room.
    Unfit {
        health: Health,
        draining: bool,
        /// Load and reservations, thousandths of the capacity.
        load_permille: u32,
        /// Measured capacity, kbit/s.
        capacity_kbps: u64,
    },
    /// No listener accepts clients of this kind.
    NoListener,
    /// Another session has the client's address.
    AddressTaken(SocketAddr),
    /// The offer names a node that is not configured.
    UnknownNode(Box<str>),
    /// The session would reach two plain nodes at one address; their packets could not be told apart.
    SharedNodeAddress {
        nodes: [Box<str>; 2],
        address: SocketAddr,
    },
    NoPolicy(PolicyName),
    /// A policy was not replaced.
    Policy(Box<str>),
    /// An agent did not follow an order.
    Agent {
        /// The node that the agent is beside.
        node: Box<str>,
        why: AgentError,
    },
    /// The configuration was not reloaded.
    NotReloaded(NotReloaded),
    /// The first policies are still being compiled; only they may decide.
    Starting,
    /// Control is busy or gone.
    Unavailable,
}

/// Why an agent did not follow an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentError {
    /// The node has none.
    NoAgent,
    /// Its configuration does not allow drills.
    Forbidden,
    /// The agent has nothing to apply the order to.
    Unable(Order),
    /// It did not answer.
    Silent,
}

/// An event with its time.
#[derive(Clone, PartialEq, Debug)]
pub struct EventRecord {
    /// Wall-clock time.
    pub at: SystemTime,
    pub event: GatewayEvent,
    /// With [`Event::Closed`]: the session's final totals.
    pub totals: Option<Totals>,
    /// The caller, with [`Event::Opened`], [`Event::Refused`] and [`GatewayEvent::TurnedAway`].
    pub caller: Option<Caller>,
}

/// The caller of a session request, for tracing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// When the request came.
    pub arrived: Instant,
    /// Its W3C `traceparent`, unparsed.
    pub traceparent: Option<Box<str>>,
}

impl Caller {
    pub(crate) fn of(wanted: &SessionRequest, arrived: Instant) -> Caller {
        Caller { arrived, traceparent: wanted.traceparent.clone() }
    }
}

/// An event of the core or the server.
#[derive(Clone, PartialEq, Debug)]
pub enum GatewayEvent {
    Core(Event),
    /// An offer was refused because no listener accepts it, or because it names an unknown node.
    TurnedAway {
        /// The scenario that the offer named.
        scenario: Arc<str>,
        /// The reason: `no-listener`, `address-taken`, `no-resources` or `unknown-node`.
        reason: &'static str,
        /// The session and room, if they existed already.
        session: Option<(SessionId, RoomId)>,
    },
    /// A revision advanced, was refused or was rolled back.
    Rollout(Rollout),
    /// A session was not opened at a node.
    NotOpened {
        session: SessionId,
        node: NodeId,
        reason: Box<str>,
    },
    /// The node list changed, or a change was refused.
    NodeList(ListTold),
    /// A removed node is empty and forgotten.
    NodeRemoved {
        /// Its number, which may be reused.
        node: NodeId,
        name: Arc<str>,
    },
    /// A rung kept packets from a session's client.
    Shed {
        session: SessionId,
        run: ShedRun,
    },
}

/// A session's state.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionView {
    pub session: SessionId,
    /// The room's name.
    pub room: Arc<str>,
    pub scenario: Arc<str>,
    pub mode: Mode,
    pub transport: Transport,
    /// The hop that its packets take now.
    pub hop: Option<Hop>,
    pub rung: u8,
    /// Send cap, kbit/s; 0: none.
    pub cap_kbps: u32,
    /// The last measurements.
    pub measures: Measures,
    pub totals: Totals,
    /// For how long the session has been open.
    pub age: Duration,
}

/// A node's state.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeView {
    pub node: NodeId,
    pub name: Box<str>,
    pub region: Box<str>,
    pub zone: Box<str>,
    /// The newest incarnation.
    pub incarnation: Incarnation,
    pub health: Health,
    pub suspected_by: Vec<Witness>,
    pub draining: bool,
    /// The node is being removed.
    pub leaves: bool,
    /// An operator marked the node down.
    pub ejected: bool,
    /// Measured capacity, kbit/s.
    pub capacity_kbps: u64,
    /// Sessions that it is opening.
    pub opening: u32,
    /// Sessions that wait for earlier openings.
    pub waiting: u32,
    /// Load and reservations, thousandths of the capacity.
    pub load_permille: u32,
    /// The load that the node reported lately, thousandths of its capacity.
    pub reported_permille: Option<u16>,
    pub rooms: u32,
    /// Smoothed round-trip time.
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

/// The state of the gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    pub region: Box<str>,
    /// Uptime.
    pub up: Duration,
    /// Live sessions.
    pub sessions: usize,
    pub rooms: usize,
    /// Whether it admits new sessions.
    pub admitting: bool,
    /// Whether the gateway's own uplink is suspected, because most nodes fell silent at once.
    pub uplink_suspect: bool,
    /// Whether the first policies are still being compiled: it forwards, and will admit.
    pub starting: bool,
    /// Policies with a failed last call.
    pub policies_failing: Vec<PolicyName>,
    pub packets_to_node: u64,
    pub packets_to_client: u64,
    pub bytes_to_node: u64,
    pub bytes_to_client: u64,
    /// Key-frame requests to nodes.
    pub key_frames_to_node: u64,
    /// Key-frame requests to clients.
    pub key_frames_to_client: u64,
    /// Dropped packets by reason, without zeroes.
    pub drops: Vec<(&'static str, u64)>,
    /// Signed messages of nodes and agents that were refused, by reason.
    pub messages_refused: Vec<(&'static str, u64)>,
    /// UDP listeners as clients reach them.
    pub udp: Vec<SocketAddr>,
    /// The QUIC endpoint, if there is one.
    pub quic: Option<SocketAddr>,
    /// Counters of the QUIC endpoint by attribute value.
    pub quic_counts: Vec<(&'static str, u64)>,
}
