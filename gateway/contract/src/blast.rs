//! The blast radius of a loss: of nodes, of a carrier's network, of a gateway, of a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;
use crate::nodes::NodePlace;

/// The query of `GET /v1/blast`. Lists are separated by commas.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BlastQuery {
    /// Names of nodes.
    pub nodes: String,
    /// Names of zones: `a`, or `eu/a` if several regions have a zone of the name.
    pub zones: String,
    /// Names of regions.
    pub regions: String,
    /// Carriers of clients, of advertised addresses and of nodes.
    pub carriers: String,
    /// A member of the group; the gateway that answers, if it is empty. Default: none.
    pub gateway: Option<String>,
    /// Names of policies: `call/routing`.
    pub policies: String,
    /// This many nodes with most load, beside those that are named. Default 0.
    pub busiest: usize,
    /// Further losses: `nodes=-1,zone=b`.
    pub what_if: String,
    /// Lists each room. Default false.
    pub rooms: bool,
    /// Adds the loss in each redundancy mode, if all rooms had it. Default false.
    pub modes: bool,
}

/// The answer to `GET /v1/blast`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Blast {
    /// The loss of each carrier that the request names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carriers: Option<Vec<CarrierLoss>>,
    /// The loss of a gateway, if the request names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayLoss>,
    /// The loss of each policy that the request names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<PolicyLoss>>,
    /// Names of services beside the nodes that calls would miss as well. Left out without a dependency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies_down: Option<Vec<Arc<str>>>,
    /// The loss of nodes. Left out if no node would be lost.
    #[serde(flatten)]
    pub loss: Option<NodesLoss>,
    /// The same loss in each redundancy mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modes: Option<Vec<ModePrediction>>,
}

/// Rooms, and the sessions in them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RoomCount {
    /// Rooms.
    pub rooms: u32,
    /// Their sessions.
    pub sessions: u32,
}

impl RoomCount {
    /// Adds a room with so many sessions.
    pub fn add(&mut self, sessions: u32) {
        self.rooms += 1;
        self.sessions += sessions;
    }
}

/// The loss of nodes.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodesLoss {
    /// Names of the nodes that would be lost.
    pub nodes: Vec<Arc<str>>,
    /// Nodes of the request that do not run: their loss has happened already, and hits no room.
    pub lost_before: Vec<UnavailableNode>,
    /// The rooms there.
    #[serde(flatten)]
    pub hit: RoomCount,
    /// Rooms that no node has capacity for.
    pub unplaced: RoomCount,
    /// Sessions with a lower bit rate than before.
    pub reduced_sessions: u32,
    /// From the detection until the last room has a node, without the time in which it opens sessions.
    pub slowest_ms: Option<u64>,
    /// Rooms with a mode that keeps a spare, and without one that packets may take, after the loss.
    pub unprotected_rooms: u32,
    /// The same before the loss.
    pub unprotected_rooms_before: u32,
    /// The loss of each scenario.
    pub scenarios: BTreeMap<Arc<str>, ScenarioLoss>,
    /// The other nodes that take rooms, with those that they would take.
    pub loads: Vec<LoadChange>,
    /// The other nodes that take none.
    pub unavailable: Vec<UnavailableNode>,
    /// The labels with the most sessions, at most 20.
    pub labels: Vec<LabelLoss>,
    /// Names of cold nodes that would be started.
    pub started_nodes: Vec<Arc<str>>,
    /// Each room, if the request has `rooms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<RoomLoss>>,
    /// Names of rooms that would lose their spare, if the request has `rooms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_spare: Option<Vec<Arc<str>>>,
}

/// The loss of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ScenarioLoss {
    /// Its rooms at the lost nodes.
    #[serde(flatten)]
    pub hit: RoomCount,
    /// Rooms that no node has capacity for.
    pub unplaced: RoomCount,
    /// Sessions with a lower bit rate than before.
    pub reduced_sessions: u32,
}

/// A node that takes no rooms.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct UnavailableNode {
    /// The node's name.
    pub node: Arc<str>,
    /// `ejected`, `down` or `draining`.
    pub state: Word,
}

/// A node that is not lost.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LoadChange {
    /// The node.
    #[serde(flatten)]
    pub place: NodePlace,
    /// The rooms that it would take.
    #[serde(flatten)]
    pub takes: RoomCount,
    /// Load and reserves after the loss, of the capacity.
    pub load_permille: u32,
    /// The same before.
    pub load_permille_before: u32,
}

/// The sessions with a label.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LabelLoss {
    /// The label's name.
    pub label: Box<str>,
    /// Its value.
    pub value: Box<str>,
    /// The sessions.
    pub sessions: u32,
}

/// A room at a lost node.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RoomLoss {
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// Its sessions.
    pub sessions: u32,
    /// The name of the lost node.
    pub from: Arc<str>,
    /// The name of the next node; null: no node has capacity for the room.
    pub to: Option<Arc<str>>,
    /// From the detection until it has that node.
    pub after_ms: Option<u64>,
    /// Sessions with a lower bit rate than before.
    pub reduced_sessions: u32,
}

/// The loss of a carrier's network, and of the nodes and addresses in it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct CarrierLoss {
    /// The carrier's name.
    pub carrier: String,
    /// Names of its nodes.
    pub nodes: Vec<Arc<str>>,
    /// Rooms of clients of the carrier.
    pub rooms: usize,
    /// These clients.
    pub sessions: usize,
    /// The addresses that clients of the carrier are told first.
    pub addresses: BTreeSet<SocketAddr>,
    /// The addresses of all listeners that stay, of which one is the alternate of its clients.
    pub other_addresses: BTreeSet<SocketAddr>,
    /// Ids of the sessions, if the request has `rooms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<String>>,
}

/// The loss of a gateway with its host.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct GatewayLoss {
    /// Its name; null if it belongs to no group.
    pub gateway: Option<Arc<str>>,
    /// It is the gateway that answers.
    pub here: bool,
    /// Its role before.
    pub role: Word,
    /// The sessions that it serves.
    pub sessions: usize,
    /// The name of the standby of these sessions.
    pub successor: Option<Arc<str>>,
    /// Sessions that the standby holds copies of.
    pub copied_sessions: usize,
    /// No session would end.
    pub continues: bool,
    /// Why the sessions would end, each a sentence.
    pub reasons: Vec<String>,
    /// Losses of redundancy that have lasted, each a sentence.
    pub warnings: Vec<Arc<str>>,
    /// Left out if another gateway than the one that answers is lost: its sessions are not known one by one.
    #[serde(flatten)]
    pub served: Option<ServedLoss>,
}

/// The sessions of a gateway that would be lost.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ServedLoss {
    /// The number of sessions of each scenario.
    pub scenarios: BTreeMap<Arc<str>, usize>,
    /// Without those of a kind that the gateway does not have.
    pub listeners: Vec<ListenerLoss>,
}

/// The clients of all listeners of a kind.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ListenerLoss {
    /// `udp` or `quic`.
    pub listener: Word,
    /// The listeners.
    pub addresses: BTreeSet<SocketAddr>,
    /// Their clients.
    pub sessions: usize,
}

/// The loss of a policy: the native default would decide.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PolicyLoss {
    /// `call/routing`.
    pub policy: String,
    /// The rooms that it decides about.
    #[serde(flatten)]
    pub hit: RoomCount,
    /// The same by scenario.
    pub scenarios: BTreeMap<Arc<str>, RoomCount>,
    /// The sessions by revision.
    pub revisions: Vec<RevisionLoss>,
}

/// The sessions of a revision.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RevisionLoss {
    /// `active` or `canary`.
    pub arm: Word,
    /// Null: the native default decides already.
    pub revision: Option<Arc<str>>,
    /// Its sessions.
    pub sessions: u32,
}

/// The loss, if all rooms had this redundancy mode.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ModePrediction {
    /// The mode.
    pub mode: Word,
    /// All rooms.
    pub rooms: u32,
    /// Rooms for which no second node has capacity.
    pub rooms_without_spare: u32,
    /// The capacity that all rooms would need.
    pub needed_kbps: u64,
    /// The capacity that is left.
    pub free_kbps: u64,
    /// Copies of packets as a fraction of first-hop media, without signalling; null without media.
    pub bandwidth_cost: Option<f64>,
    /// Sessions in rooms that no node has capacity for.
    pub unplaced_sessions: u32,
    /// Sessions with a lower bit rate than before.
    pub reduced_sessions: u32,
    /// The time without media; null if no room is hit.
    pub outage_ms: Option<ExpectedOutage>,
}

/// A time without media, milliseconds.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ExpectedOutage {
    /// Median.
    pub p50: f64,
    /// Maximum.
    pub max: f64,
}
