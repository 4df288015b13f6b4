//! Requests to control, its answers and errors, events, and views of its state.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

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
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The room's name in the client's signalling.
    pub room: Arc<str>,
    /// Facts that policies may read.
    pub labels: Labels,
    /// The protocol and identity of the client.
    pub ingress: IngressProtocol,
    /// The streams of the client.
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

/// The answer to an accepted offer.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionAnswer {
    /// The number of the session.
    pub session: SessionId,
    /// The number of the room.
    pub room: RoomId,
    /// The addresses for the client.
    pub ingress: IngressAnswer,
    /// The hops of the session's room, best first.
    pub route: Vec<Hop>,
    /// The author of the admission.
    pub admitted_by: Decider,
    /// The author of the placement.
    pub routed_by: Decider,
}

/// The addresses at which one client reaches the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IngressAnswer {
    /// RTP over UDP.
    Udp {
        /// Destination of RTP.
        address: SocketAddr,
        /// Destination of RTCP, if it differs.
        rtcp: Option<SocketAddr>,
        /// ICE ufrag and password.
        credentials: Option<(Box<str>, Box<str>)>,
    },
    /// RTP over QUIC.
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

/// Why control did not do as requested.
#[derive(Clone, PartialEq, Debug)]
pub enum ControlError {
    /// The offer was turned down.
    Refused(OfferRefusal),
    /// The node did not open the session.
    NotOpened {
        /// The number of the node.
        node: NodeId,
        /// The answer of the node.
        reason: Box<str>,
    },
    /// The core refused the request.
    Impossible(Impossible),
    /// The request names an unknown node or region.
    Unfound {
        /// The kind of the name.
        reason: Impossible,
        /// The known names.
        known: Vec<Box<str>>,
    },
    /// The node cannot take the room.
    Unfit {
        /// The health of the node.
        health: Health,
        /// The node is being drained.
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
        /// The name of the node.
        node: Box<str>,
        /// The address in the offer.
        address: SocketAddr,
    },
    /// The session would reach two plain nodes at one address; their packets could not be told apart.
    SharedNodeAddress {
        /// The names of the nodes.
        nodes: [Box<str>; 2],
        /// The address of both.
        address: SocketAddr,
    },
    /// No descriptor, local port or place in the flow table is left for another session.
    Full,
    /// The policy is unknown, or was stopped.
    NoPolicy(PolicyName),
    /// The policy cannot be changed so; the reason.
    Policy(Box<str>),
    /// The agent of a node did not obey.
    Agent {
        /// The name of the node.
        node: Box<str>,
        /// The reason.
        why: AgentError,
    },
    /// The configuration was not reloaded.
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

/// An order to the agent of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeOrder {
    /// Start the process.
    Start,
    /// Inject a fault.
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

/// Why an order was not carried out.
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

/// An event with its time and circumstances.
#[derive(Clone, PartialEq, Debug)]
pub struct EventRecord {
    /// The wall clock.
    pub at: SystemTime,
    /// The event.
    pub event: GatewayEvent,
    /// With [`CoreEvent::Closed`]: the session's final totals.
    pub totals: Option<Totals>,
    /// The caller, with [`CoreEvent::Opened`], [`CoreEvent::Refused`] and [`GatewayEvent::TurnedAway`].
    pub caller: Option<TraceCaller>,
}

impl EventRecord {
    /// An event of this moment.
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

/// An event of the core or of control.
#[derive(Clone, PartialEq, Debug)]
pub enum GatewayEvent {
    /// An event of the core.
    Core(CoreEvent),
    /// An offer was refused because no listener accepts it, or because of a node that it names.
    TurnedAway {
        /// The name of the scenario.
        scenario: Arc<str>,
        /// The reason: `no-listener`, `address-taken`, `full`, `unknown-node` or `outside-networks`.
        reason: &'static str,
        /// The session and its room, if they were created.
        session: Option<(SessionId, RoomId)>,
    },
    /// A revision advanced, was refused or was rolled back.
    Rollout(RolloutReport),
    /// A node did not open a session.
    NotOpened {
        /// The number of the session.
        session: SessionId,
        /// The number of the node.
        node: NodeId,
        /// The answer of the node.
        reason: Box<str>,
    },
    /// The node list changed, or a change was refused.
    NodeList(NodeListUpdate),
    /// A removed node is empty and forgotten.
    NodeRemoved {
        /// The node's number, which may be reused.
        node: NodeId,
        /// The name of the node.
        name: Arc<str>,
    },
    /// The rung of a session withheld packets from its client.
    Shed {
        /// The number of the session.
        session: SessionId,
        /// The withheld packets.
        run: ShedRun,
    },
}

/// A live session, with its media.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionView {
    /// Its state in the core.
    pub standing: SessionStanding,
    /// The media that it carried.
    pub totals: Totals,
}

/// The status of the gateway, as in the API.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StatusReport {
    /// Tells if sessions are admitted.
    pub state: AdmissionState,
    /// The version of the gateway.
    pub version: &'static str,
    /// The gateway's region.
    pub region: Arc<str>,
    /// The time since the start.
    pub uptime_ms: u64,
    /// Live sessions.
    pub sessions: usize,
    /// Placed rooms.
    pub rooms: usize,
    /// The gateway suspects its own uplink, because most nodes fell silent at once. It marks no node down for that
    /// silence.
    pub uplink_suspect: bool,
    /// Policies with a failed last call.
    pub policies_failing: Vec<String>,
    /// Packets sent to nodes.
    pub packets_to_node: u64,
    /// Packets sent to clients.
    pub packets_to_client: u64,
    /// Bytes sent to nodes.
    pub bytes_to_node: u64,
    /// Bytes sent to clients.
    pub bytes_to_client: u64,
    /// Requests for key frames sent to nodes.
    pub key_frames_to_node: u64,
    /// Requests for key frames sent to clients.
    pub key_frames_to_client: u64,
    /// Dropped packets by reason, without zeroes.
    pub drops: BTreeMap<&'static str, u64>,
    /// Signed messages of nodes and agents that were refused, by reason.
    #[serde(skip)]
    pub messages_refused: BTreeMap<&'static str, u64>,
    /// Addresses of the UDP listeners.
    pub udp: Vec<SocketAddr>,
    /// Address of the QUIC listener.
    pub quic: Option<SocketAddr>,
    /// Counters of the QUIC endpoint, by name.
    pub quic_counts: BTreeMap<&'static str, u64>,
}

/// Tells if sessions are admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdmissionState {
    /// The first policies are still being compiled: packets are forwarded, but sessions are not admitted yet.
    Starting,
    /// Sessions are admitted.
    Serving,
    /// The gateway shuts down and admits no more sessions.
    Draining,
}

/// The result of a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The number of sessions that continue.
    pub sessions: usize,
}

/// Why a gateway was not suspended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSuspended {
    /// Offers were not answered in time.
    #[error("offers are still being answered; try again in a few seconds")]
    Busy,
    /// The first policies are not active yet.
    #[error("the first policies are still being compiled; try again when the gateway is ready")]
    Starting,
    /// A shutdown has begun.
    #[error("the gateway is shutting down")]
    Draining,
    /// A suspension is under way.
    #[error("another hand-over is under way")]
    UnderWay,
    /// This worker did not hand out its sessions.
    #[error("packet worker {0} did not hand out its sessions within {WORKERS_WITHIN:?}")]
    Worker(usize),
    /// A socket could not be duplicated.
    #[error("a session's own port cannot be duplicated: {0}; leave half of `LimitNOFILE`")]
    Port(Box<str>),
    /// Control is busy or gone.
    #[error("the gateway did not answer")]
    Unavailable,
}

impl NotSuspended {
    pub(crate) fn by_port(error: &io::Error) -> NotSuspended {
        NotSuspended::Port(error.to_string().into())
    }
}

/// Why a state was not continued.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A newer version wrote the state.
    #[error("the state has format {found}, this version reads formats up to {known}")]
    Newer {
        /// The format of the state.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// The state is damaged.
    #[error("the state cannot be read: {0}")]
    Malformed(String),
    /// The state is of another number of workers.
    #[error("found {found} packet workers, here are {here}: `workers` in [limits] must stay")]
    Workers {
        /// Workers in the state.
        found: usize,
        /// Workers of this process.
        here: usize,
    },
    /// The configuration lacks this UDP listener.
    #[error("sessions use the listener {0}, which the configuration does not have any more")]
    NoListener(SocketAddr),
    /// The configuration lacks a QUIC listener.
    #[error("sessions use QUIC, and the configuration has no listener for it any more")]
    NoQuic,
    /// The session's own ports could not be opened.
    #[error("no descriptor or local port is left for {0}")]
    NoPorts(SessionId),
    /// The core refused the record.
    #[error(transparent)]
    Core(#[from] evenkeel_core::RestoreError),
    /// This worker did not take its sessions.
    #[error("packet worker {0} did not take its sessions within {WORKERS_WITHIN:?}")]
    Worker(usize),
    /// Control is busy or gone.
    #[error("the gateway did not answer")]
    Unavailable,
}

impl SnapshotError {
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
