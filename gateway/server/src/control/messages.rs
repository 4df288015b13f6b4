//! Requests to control, its answers and errors, events, and views of its state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use evenkeel_core::{
    Cohort, Decider, Event, Health, Hop, Impossible, Ingress, Labels, Media, NodeId, PolicyName,
    PolicyStatus, Refused, Rollout, RoomId, SessionId, SessionStanding,
};
use evenkeel_dataplane::worker::{ShedRun, Totals};
use serde::Serialize;

use super::handle::NotReloaded;
use super::node_list::NodeListUpdate;
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
    Policy(Box<str>),
    /// An agent did not follow an order.
    Agent {
        /// The node that the agent is beside.
        node: Box<str>,
        why: AgentError,
    },
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

impl EventRecord {
    pub(crate) fn now(event: GatewayEvent) -> EventRecord {
        EventRecord { at: SystemTime::now(), event, totals: None, caller: None }
    }
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
    NodeList(NodeListUpdate),
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
    pub standing: SessionStanding,
    pub totals: Totals,
}

#[derive(Clone, PartialEq, Debug)]
pub struct PolicyView {
    pub policy: PolicyName,
    pub status: PolicyStatus,
    /// The plugin of the active revision; empty while the native default answers because it failed.
    pub active: PluginView,
    /// The plugin of the candidate; empty without one.
    pub candidate: PluginView,
    /// Measurements of both cohorts, that of the active revision first; empty outside of the canary stage.
    pub cohorts: Vec<Cohort>,
    /// Sessions and rooms that are quarantined for the active revision, since it faults on them.
    pub quarantined: u64,
    /// Answers that differed from those of a fresh instance, and compared answers.
    pub hidden_state: (u64, u64),
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PluginView {
    /// Name and version.
    pub title: Box<str>,
    /// `embedded`, the path of a file, or `pushed`.
    pub origin: Box<str>,
}

/// The state of the gateway.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Status {
    pub state: Admission,
    pub version: &'static str,
    pub region: Arc<str>,
    pub uptime_ms: u64,
    pub sessions: usize,
    pub rooms: usize,
    /// The gateway's own uplink is suspected, because most nodes fell silent at once; none is marked down for it.
    pub uplink_suspect: bool,
    /// Policies with a failed last call.
    pub policies_failing: Vec<String>,
    pub packets_to_node: u64,
    pub packets_to_client: u64,
    pub bytes_to_node: u64,
    pub bytes_to_client: u64,
    pub key_frames_to_node: u64,
    pub key_frames_to_client: u64,
    /// Dropped packets by reason, without zeroes.
    pub drops: BTreeMap<&'static str, u64>,
    /// Signed messages of nodes and agents that were refused, by reason.
    #[serde(skip)]
    pub messages_refused: BTreeMap<&'static str, u64>,
    /// UDP listeners as clients reach them.
    pub udp: Vec<SocketAddr>,
    pub quic: Option<SocketAddr>,
    /// Counters of the QUIC endpoint.
    pub quic_counts: BTreeMap<&'static str, u64>,
}

/// Whether the gateway admits new sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// The first policies are still being compiled: packets are forwarded, but sessions are not admitted yet.
    Starting,
    Serving,
    Draining,
}
