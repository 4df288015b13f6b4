//! Requests to control, its answers and errors, events, and views of its state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use evenkeel_core::{Impossible, SessionStanding};
use evenkeel_dataplane::worker::{ShedRun, Totals};
use evenkeel_model::{
    CoreEvent, Decider, Health, Hop, IngressProtocol, Labels, MediaDescription, MediaStream,
    NodeId, OfferRefusal, PayloadType, PolicyName, RoomId, SessionId,
};
use evenkeel_policies::ReportedDecision;
use evenkeel_recording::RecordedDecision;
use evenkeel_revisions::RolloutReport;
use serde::Serialize;

use super::handle::NotReloaded;
use super::node_list::NodeListUpdate;
use super::orders::NodeOrder;

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

impl ReportedDecision for EventRecord {
    fn decision(&self) -> Option<RecordedDecision> {
        match &self.event {
            GatewayEvent::Core(event) => event.decision(),
            _ => None,
        }
    }
}
