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

/// The addresses at which one client reaches the gateway.
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

/// The state of one policy.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyView {
    pub policy: PolicyName,
    /// The plugin's name and version.
    pub plugin: Box<str>,
    /// The active revision; `None` while the native default answers because it failed.
    pub revision: Option<Arc<str>>,
    /// The previous revision, the target of a rollback.
    pub previous: Option<Arc<str>>,
    /// `embedded`, the path of a file, or `pushed`.
    pub origin: Box<str>,
    pub calls: u64,
    pub faults: u64,
    /// Sessions and rooms that are quarantined for the revision, since it faults on them.
    pub quarantined: u64,
    /// Answers that differed from those of a fresh instance, and compared answers.
    pub hidden_state: (u64, u64),
    /// The fault of the last call, if it failed.
    pub failing: Option<Fault>,
    /// The last fault of any call.
    pub last_fault: Option<Fault>,
    pub life: PolicyLife,
}

/// The candidate, previous and refused revisions of a policy.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct PolicyLife {
    /// The candidate.
    pub tried: Option<Tried>,
    /// The progress of its rollout.
    pub walk: Option<WalkView>,
    /// Measurements of both cohorts, that of the active revision first; empty outside of the canary stage.
    pub cohorts: Vec<Cohort>,
    /// Remaining time in which the previous revision is kept for a rollback.
    pub previous_for: Option<Duration>,
    /// The outcome of the last rollout.
    pub last: Option<LastRollout>,
    /// Quarantined revisions, the oldest first.
    pub quarantined: Vec<Quarantined>,
    /// Active, candidate and previous revisions that were revoked after they were accepted.
    pub revoked: Vec<Revoked>,
}

/// A candidate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    pub revision: Arc<str>,
    /// The plugin's name and version.
    pub plugin: Box<str>,
    /// `embedded`, the path of a file, or `pushed`.
    pub origin: Box<str>,
    /// Calls as a canary.
    pub calls: u64,
    /// Faults as a canary.
    pub faults: u64,
    /// Answers in the shadow stage that matched those of the active revision.
    pub same: u64,
    /// Answers in the shadow stage that differed.
    pub different: u64,
    /// Questions in the shadow stage on which it faulted.
    pub faulted: u64,
    /// The last fault in the shadow or canary stage.
    pub last_fault: Option<Fault>,
}

/// The progress of a rollout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkView {
    /// The current stage and the next one.
    pub staged: Staged,
    /// Time in this stage without pauses.
    pub lasted: Duration,
    /// Shares of the canary, per cent.
    pub steps: Vec<u8>,
    /// Minimum duration of each step.
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
    /// New sessions are admitted.
    pub admitting: bool,
    /// The gateway's own uplink is suspected, because most nodes fell silent at once.
    pub uplink_suspect: bool,
    /// The first policies are still being compiled: packets are forwarded, but sessions are not admitted yet.
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
