//! The answers and errors of control, and views of its state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use evenkeel_breakers::ClientBreakerStanding;
use evenkeel_core::{BlastRadius, RestoreError, SessionStanding};
use evenkeel_dataplane::worker::{RepairCounts, Totals};
use evenkeel_forecast::{Forecast, ForecastChange};
use evenkeel_media::trunk::message::{NodeFault, TrunkQuestion};
use evenkeel_model::{
    EvidenceSource, FailureScope, Health, Hop, Impossible, NodeId, OfferRefusal, PolicyName,
    RepairKind, SessionId, StreamKind,
};
use evenkeel_nodes::ProviderBreakerStanding;
use evenkeel_slo::SloStanding;

use crate::reloads::{NotReloaded, ReloadReport};
use crate::traces::TraceIds;
use crate::workers::WORKERS_WITHIN;

/// Length of the request queue. When the queue is full the caller gets an error.
pub const REQUESTS_MAX: usize = 4_096;

/// The means of this gateway for a takeover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakeoverReadiness {
    /// A node may take rooms, or none is listed.
    pub has_node: bool,
    /// The capacity of the nodes that may take rooms, kbit/s.
    pub capacity_kbps: u64,
    /// The number of sessions that this gateway takes.
    pub sessions_max: usize,
    /// Revisions of the owner that do not run here.
    pub not_loaded: Vec<(PolicyName, Arc<str>)>,
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
    /// The request names an unknown node, zone or region.
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
    /// The node that carries the room joins no further session of it.
    RoomFull {
        /// The name of the node.
        node: Box<str>,
        /// The number of sessions that it joins.
        most: usize,
    },
    /// The client of the session is not one of WebRTC.
    NotWebrtc,
    /// A later offer has another certificate than the session.
    OtherCertificate,
    /// A node's driver opened the session without streams of this kind.
    OpenedWithout(StreamKind),
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
    /// The owner of the group decides about revisions of policies.
    NotOwner,
    /// The parts of a copy contradict each other.
    NotCopied(RestoreError),
    /// The decision is in force, but not on the disk; the reason.
    NotWritten(Arc<str>),
    /// The first policies are still being compiled; only they may decide.
    Starting,
    /// Another process serves since an upgrade. This one did not begin the request, or it may be repeated without harm.
    Replaced,
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
            ControlError::RoomFull { .. } => Some("room-full"),
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
    /// The fault that the order injects: `kill`, `hang` or `cut`. `None` if it repairs one.
    pub fn fault(self) -> Option<&'static str> {
        match self {
            NodeOrder::Break(fault @ (NodeFault::Kill | NodeFault::Hang | NodeFault::Cut)) => {
                Some(fault.name())
            }
            NodeOrder::Break(NodeFault::Wake | NodeFault::Heal) | NodeOrder::Start => None,
        }
    }

    pub(crate) fn question(self) -> TrunkQuestion {
        match self {
            NodeOrder::Start => TrunkQuestion::Start,
            NodeOrder::Break(how) => TrunkQuestion::Break(how),
        }
    }
}

/// A step of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderStep {
    /// The order was sent.
    Sent,
    /// The agent carried it out.
    Done,
    /// The agent refused it.
    Refused,
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

/// A live session, with its media.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionView {
    /// Its state in the core.
    pub state: SessionStanding,
    /// The media that it carried.
    pub totals: Totals,
    /// The ids of its trace.
    pub trace: TraceIds,
    /// The user fragments of a WebRTC client.
    pub ice: Option<IceFragments>,
}

/// The user fragments of both sides of ICE (RFC 8839, section 5.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IceFragments {
    /// The gateway's user fragment.
    pub gateway: Box<str>,
    /// The client's user fragment.
    pub client: Box<str>,
}

/// The status of the gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct StatusReport {
    /// Tells if sessions are admitted.
    pub state: AdmissionState,
    /// The version of the gateway.
    pub version: &'static str,
    /// The gateway's region.
    pub region: Arc<str>,
    /// The time since the start.
    pub uptime_ms: u64,
    /// The last reload that had an effect or was refused, with the time of its end.
    pub last_reload: Option<(ReloadReport, SystemTime)>,
    /// Live sessions.
    pub sessions: usize,
    /// Placed rooms.
    pub rooms: usize,
    /// The gateway suspects its own uplink, because most nodes fell silent at once. It marks no node down for that
    /// silence.
    pub uplink_suspect: bool,
    /// Policies with a failed last call.
    pub policies_failing: Vec<String>,
    /// The service level objectives, by scenario and indicator.
    pub slos: Vec<SloStanding>,
    /// Breakers of clients that are not closed, or that have sessions with voice only.
    pub client_breakers: Vec<ClientBreakerStanding>,
    /// Breakers of providers of nodes that are not closed.
    pub provider_breakers: Vec<ProviderBreakerStanding>,
    /// Warnings of what is expected.
    pub forecasts: Vec<Forecast>,
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
    /// Packets to clients whose local address this host does not have.
    pub from_route: u64,
    /// Media of the sessions of each scenario, configured or earlier.
    pub scenario_traffic: BTreeMap<Arc<str>, ScenarioTraffic>,
    /// Dropped packets by reason, without zeroes.
    pub drops: BTreeMap<&'static str, u64>,
    /// Signed messages of nodes and agents that were refused, by reason.
    pub messages_refused: BTreeMap<&'static str, u64>,
    /// Addresses of the UDP listeners.
    pub udp: Vec<SocketAddr>,
    /// Address of the QUIC listener.
    pub quic: Option<SocketAddr>,
    /// SHA-256 of the certificates of the QUIC listener that browsers accept by it, the one in use first.
    pub short_lived_sha256: Vec<[u8; 32]>,
    /// Addresses that clients of each carrier are told, by its name.
    pub carriers: BTreeMap<Arc<str>, Vec<SocketAddr>>,
    /// Counters of the QUIC endpoint, by name.
    pub quic_counts: BTreeMap<&'static str, u64>,
}

/// Media of a scenario's sessions at this process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ScenarioTraffic {
    /// RTP packets from clients.
    pub packets_up: u64,
    /// RTP packets to clients.
    pub packets_down: u64,
    /// Bytes of the packets from clients.
    pub bytes_up: u64,
    /// Bytes of the packets to clients.
    pub bytes_down: u64,
    /// Bytes of the copies to and from second hops in hitless mode.
    pub bytes_copied: u64,
    /// Packets missing between clients and the gateway.
    pub lost_up: u64,
    /// Packets missing between the gateway and clients, by reports of clients and of QUIC.
    pub lost_down: u64,
    /// Packets that were sent to clients again, because they asked for them.
    pub answered: u64,
    /// Packets for which the gateway asked clients.
    pub requested: u64,
    /// Caches that could not grow, because all have the memory of the limit.
    pub caches_refused: u64,
    /// Packets of clients that another node got again after the death of one. They are not included in the packets above.
    pub replayed: u64,
    /// Bytes to clients that repeat earlier frames. They are included in the bytes above.
    pub redundant_bytes: u64,
    /// Lost packets of clients that nodes got from the redundancy in later ones.
    pub recovered: u64,
    /// Key frames that were requested repeatedly and did not come.
    pub key_frames_given_up: u64,
    /// Packets of video to clients that were withheld with their frames.
    pub thinned: u64,
    /// Lost packets of clients that nodes got from parity.
    pub repaired: u64,
    /// Bytes of the parity packets that the gateway made for clients. They are included in the bytes above, and in `repairs`.
    pub parity_bytes: u64,
    /// Packets of video to clients that waited for their turn.
    pub paced: u64,
    /// Packets of clients that were dropped, since these send more than they may.
    pub policed: u64,
    /// Packets that repair others, in the order of [`RepairKind::ALL`]. They are included in the packets above.
    pub repairs: [RepairCounts; RepairKind::ALL.len()],
}

evenkeel_model::named! {
    /// Tells if sessions are admitted.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum AdmissionState {
        /// The first policies are still being compiled: packets are forwarded, but sessions are not admitted yet.
        Starting = "starting",
        /// Sessions are admitted.
        Serving = "serving",
        /// The gateway shuts down and admits no more sessions.
        Draining = "draining",
    }
}

/// The forecasts of a minute.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct ForecastReport {
    /// The warnings in force.
    pub forecasts: Vec<Forecast>,
    /// Warnings that begin or end in this minute.
    pub changes: Vec<ForecastChange>,
    /// Regions with capacity that is expected to be exhausted.
    pub exhausted: Vec<Arc<str>>,
    /// Regions with the highest load that is expected within the horizon, kbit/s.
    pub expected: Vec<(Arc<str>, u64)>,
    /// Changed decays of nodes, in thousandths.
    pub decays: Vec<(NodeId, u16)>,
}

/// A loss of one node or zone that would leave rooms without a node or a spare, or sessions with a lower bit rate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UncoveredLoss {
    /// A node or a zone.
    pub scope: FailureScope,
    /// The name of the node, or `region/zone`.
    pub place: Arc<str>,
    /// The rooms there.
    pub figures: LossFigures,
    /// Rooms of the gateway that would lose their spare.
    pub unprotected_rooms: u32,
}

/// The effect of a loss of nodes in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LossFigures {
    /// The rooms at these nodes.
    pub rooms: u32,
    /// The sessions in these rooms.
    pub sessions: u32,
    /// Sessions in rooms that no node has capacity for.
    pub unplaced_sessions: u32,
    /// Sessions with a lower bit rate than before.
    pub reduced_sessions: u32,
}

impl From<&BlastRadius> for LossFigures {
    fn from(radius: &BlastRadius) -> LossFigures {
        LossFigures {
            rooms: radius.rooms.len() as u32,
            sessions: radius.sessions(),
            unplaced_sessions: radius.unplaced().map(|room| room.sessions).sum(),
            reduced_sessions: radius.rooms.iter().map(|room| room.reduced).sum(),
        }
    }
}

/// Nodes that died together, with the figures of a check before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LossComparison {
    /// The nodes.
    pub nodes: Vec<Hop>,
    /// The time of the first death, Unix time in microseconds.
    pub died_us: u64,
    /// The evidence against them.
    pub witnesses: BTreeSet<EvidenceSource>,
    /// The prediction; `None` if this loss was not among those checked.
    pub predicted: Option<PredictedLoss>,
    /// Counted for as long after the first death as a copy is played.
    pub actual: LossFigures,
}

/// The blast radius of a checked loss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PredictedLoss {
    /// The time of the check, Unix time in microseconds.
    pub at_us: u64,
    /// A node or a zone.
    pub scope: FailureScope,
    /// The name of the node, or `region/zone`.
    pub place: Arc<str>,
    /// The nodes that would die.
    pub nodes: BTreeSet<NodeId>,
    /// The effect.
    pub figures: LossFigures,
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
    Core(#[from] RestoreError),
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

/// Maximum cost of a slice, in views of one session. Copying that many takes about 100 µs, so lists delay failure
/// detection by no more than that.
const COST_MAX: usize = 100;

/// Part of a list, in order of its ids.
#[derive(Clone, PartialEq, Debug)]
pub struct Slice<Id, T> {
    /// The entries.
    pub items: Vec<T>,
    /// The id that the slice ends with; `None` at the end of the list.
    pub last: Option<Id>,
}

impl<Id, T> Slice<Id, T> {
    /// Takes entries until their cost reaches [`COST_MAX`]. An entry without an item costs one.
    pub(crate) fn of(
        entries: impl Iterator<Item = (Id, Option<T>)>,
        cost: impl Fn(&T) -> usize,
    ) -> Slice<Id, T> {
        let (mut items, mut left) = (Vec::new(), COST_MAX);
        for (id, item) in entries {
            left = left.saturating_sub(item.as_ref().map_or(1, &cost));
            items.extend(item);
            if left == 0 {
                return Slice { items, last: Some(id) };
            }
        }
        Slice { items, last: None }
    }
}

/// The last change of the records on its way to a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastChange {
    /// The number of the batch with the change, which may wait to be sent.
    pub number: u64,
    /// The follower is a standby that has had all records before. Others are a standby that joins and the next process of this
    /// machine.
    pub is_for_standby: bool,
}

#[cfg(test)]
mod tests;
