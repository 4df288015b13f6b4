//! Requests to control, its answers and errors, events, and views of its state.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{Impossible, SessionStanding};
use evenkeel_dataplane::worker::{ShedRun, Totals};
use evenkeel_media::trunk::message::{NodeFault, TrunkQuestion};
use evenkeel_model::{
    CoreEvent, Decider, Health, Hop, IngressProtocol, Labels, MediaDescription, MediaStream,
    NodeId, OfferRefusal, PayloadType, PolicyName, RoomId, SessionId,
};
use evenkeel_policies::ReportedDecision;
use evenkeel_recording::RecordedDecision;
use evenkeel_revisions::RolloutReport;
use serde::Serialize;

use crate::node_list::{NodeListUpdate, NotReloaded};
use crate::workers::WORKERS_WITHIN;

/// Length of the request queue. When the queue is full the caller gets an error.
pub const REQUESTS_MAX: usize = 4_096;

/// A session request, as the API read it.
#[derive(Clone, PartialEq, Debug)]
pub struct OfferedSession {
    pub scenario: Arc<str>,
    pub room: Arc<str>,
    /// Facts that policies may read.
    pub labels: Labels,
    pub ingress: IngressProtocol,
    pub media: Arc<MediaDescription>,
    /// The client's own addresses at `plain` nodes, by node name.
    pub nodes: Vec<(Arc<str>, SocketAddr)>,
    /// W3C trace context of the caller, unparsed.
    pub traceparent: Option<Box<str>>,
}

impl OfferedSession {
    /// Memory of what the request brings, as if no other session had the same.
    pub fn data_bytes(&self) -> usize {
        let label = |(key, value): &(Box<str>, Box<str>)| {
            size_of::<(Box<str>, Box<str>)>() + key.len() + value.len()
        };
        let payload_type = |it: &PayloadType| size_of::<PayloadType>() + it.codec.len();
        let stream = |it: &MediaStream| {
            size_of::<MediaStream>() + it.payload_types.iter().map(payload_type).sum::<usize>()
        };
        self.room.len()
            + self.labels.iter().map(label).sum::<usize>()
            + self.media.streams.iter().map(stream).sum::<usize>()
            + size_of_val(&*self.nodes)
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct SessionAnswer {
    pub session: SessionId,
    pub room: RoomId,
    pub ingress: IngressAnswer,
    /// The hops of the session's room, best first.
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
        /// ICE ufrag and password.
        credentials: Option<(Box<str>, Box<str>)>,
    },
    Quic {
        /// Address of the endpoint.
        address: SocketAddr,
        /// SHA-256 of the endpoint's certificate.
        certificate_sha256: [u8; 32],
        /// The flow that the client sends with.
        flow_to_gateway: u64,
        /// The flow that the client receives.
        flow_from_gateway: u64,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub enum ControlError {
    Refused(OfferRefusal),
    NotOpened {
        node: NodeId,
        reason: Box<str>,
    },
    Impossible(Impossible),
    Unfound {
        /// The kind of the name.
        reason: Impossible,
        known: Vec<Box<str>>,
    },
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
    /// The sessions' own data has reached its limit.
    SessionDataFull,
    /// Another session has the client's address.
    AddressTaken(SocketAddr),
    /// The offer names a node that is not configured.
    UnknownNode(Box<str>),
    /// The address in the offer is neither the node's own nor in `node_networks`.
    OutsideNetworks {
        node: Box<str>,
        address: SocketAddr,
    },
    /// The session would reach two plain nodes at one address; their packets could not be told apart.
    SharedNodeAddress {
        nodes: [Box<str>; 2],
        address: SocketAddr,
    },
    /// No descriptor, local port or place in the flow table is left for another session.
    Full,
    NoPolicy(PolicyName),
    Policy(Box<str>),
    Agent {
        node: Box<str>,
        why: AgentError,
    },
    NotReloaded(NotReloaded),
    /// The first policies are still being compiled; only they may decide.
    Starting,
    /// Control is busy or gone.
    Unavailable,
}

impl ControlError {
    /// The reason in a [`GatewayEvent::TurnedAway`]; `None` for errors without that event.
    pub(crate) fn turned_away(&self) -> Option<&'static str> {
        match self {
            ControlError::NoListener => Some("no-listener"),
            ControlError::AddressTaken(_) => Some("address-taken"),
            ControlError::Full | ControlError::SessionDataFull => Some("full"),
            ControlError::UnknownNode(_) => Some("unknown-node"),
            ControlError::OutsideNetworks { .. } => Some("outside-networks"),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeOrder {
    Start,
    Break(NodeFault),
}

impl NodeOrder {
    pub(crate) fn question(self) -> TrunkQuestion {
        match self {
            NodeOrder::Start => TrunkQuestion::Start,
            NodeOrder::Break(how) => TrunkQuestion::Break(how),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentError {
    /// The node has no agent.
    NoAgent,
    /// The agent's configuration does not allow drills.
    Forbidden,
    /// The agent controls no process or trunk that the order applies to.
    Unable(NodeOrder),
    /// The agent did not answer.
    Silent,
}

#[derive(Clone, PartialEq, Debug)]
pub struct EventRecord {
    pub at: SystemTime,
    pub event: GatewayEvent,
    /// With [`CoreEvent::Closed`]: the session's final totals.
    pub totals: Option<Totals>,
    /// The caller, with [`CoreEvent::Opened`], [`CoreEvent::Refused`] and [`GatewayEvent::TurnedAway`].
    pub caller: Option<TraceCaller>,
}

impl EventRecord {
    pub fn now(event: GatewayEvent) -> EventRecord {
        EventRecord { at: SystemTime::now(), event, totals: None, caller: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceCaller {
    pub arrived: Instant,
    /// W3C trace context of the caller, unparsed.
    pub traceparent: Option<Box<str>>,
}

impl TraceCaller {
    pub fn of(wanted: &OfferedSession, arrived: Instant) -> TraceCaller {
        TraceCaller { arrived, traceparent: wanted.traceparent.clone() }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub enum GatewayEvent {
    Core(CoreEvent),
    /// An offer was refused because no listener accepts it, or because of a node that it names.
    TurnedAway {
        scenario: Arc<str>,
        /// The reason: `no-listener`, `address-taken`, `full`, `unknown-node` or `outside-networks`.
        reason: &'static str,
        session: Option<(SessionId, RoomId)>,
    },
    /// A revision advanced, was refused or was rolled back.
    Rollout(RolloutReport),
    NotOpened {
        session: SessionId,
        node: NodeId,
        reason: Box<str>,
    },
    /// The node list changed, or a change was refused.
    NodeList(NodeListUpdate),
    /// A removed node is empty and forgotten.
    NodeRemoved {
        /// The node's number, which may be reused.
        node: NodeId,
        name: Arc<str>,
    },
    /// The rung of a session withheld packets from its client.
    Shed {
        session: SessionId,
        run: ShedRun,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub struct SessionView {
    pub standing: SessionStanding,
    pub totals: Totals,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StatusReport {
    pub state: AdmissionState,
    pub version: &'static str,
    pub region: Arc<str>,
    pub uptime_ms: u64,
    pub sessions: usize,
    pub rooms: usize,
    /// The gateway suspects its own uplink, because most nodes fell silent at once. It marks no node down for that
    /// silence.
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
    pub udp: Vec<SocketAddr>,
    pub quic: Option<SocketAddr>,
    pub quic_counts: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdmissionState {
    /// The first policies are still being compiled: packets are forwarded, but sessions are not admitted yet.
    Starting,
    Serving,
    Draining,
}

/// The result of a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    pub sessions: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSuspended {
    #[error("offers are still being answered; try again in a few seconds")]
    Busy,
    #[error("the first policies are still being compiled; try again when the gateway is ready")]
    Starting,
    #[error("the gateway is shutting down")]
    Draining,
    #[error("another hand-over is under way")]
    UnderWay,
    #[error("packet worker {number} did not hand out its sessions within {within:?}")]
    Worker { number: usize, within: Duration },
    #[error("a session's own port cannot be duplicated: {reason}; leave half of `LimitNOFILE`")]
    Port { reason: Box<str> },
    #[error("the gateway did not answer")]
    Unavailable,
}

impl NotSuspended {
    pub(crate) fn by_worker(number: usize) -> NotSuspended {
        NotSuspended::Worker { number, within: WORKERS_WITHIN }
    }

    pub(crate) fn by_port(error: &io::Error) -> NotSuspended {
        NotSuspended::Port { reason: error.to_string().into() }
    }
}

#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the state has format {found}, this version reads formats up to {known}")]
    Newer { found: u32, known: u32 },
    #[error("the state cannot be read: {0}")]
    Malformed(String),
    #[error("found {found} packet workers, here are {here}: `workers` in [limits] must stay")]
    Workers { found: usize, here: usize },
    #[error("sessions use the listener {address}, which the configuration does not have any more")]
    NoListener { address: SocketAddr },
    #[error("sessions use QUIC, and the configuration has no listener for it any more")]
    NoQuic,
    #[error("no descriptor or local port is left for {session}")]
    NoPorts { session: SessionId },
    #[error(transparent)]
    Core(#[from] evenkeel_core::RestoreError),
    #[error("packet worker {number} did not take its sessions within {within:?}")]
    Worker { number: usize, within: Duration },
    #[error("the gateway did not answer")]
    Unavailable,
}

impl SnapshotError {
    pub(crate) fn by_worker(number: usize) -> SnapshotError {
        SnapshotError::Worker { number, within: WORKERS_WITHIN }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> SnapshotError {
        SnapshotError::Malformed(reason.into())
    }
}

impl ReportedDecision for EventRecord {
    fn decision(&self) -> Option<RecordedDecision> {
        match &self.event {
            GatewayEvent::Core(event) => event.decision(),
            _ => None,
        }
    }
}
