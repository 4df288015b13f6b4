//! Nodes, zones and regions.

use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;

/// The name of a node, and its place.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodePlace {
    /// The node's name; its number, if the name is unknown.
    pub node: Arc<str>,
    /// The node's region.
    pub region: Arc<str>,
    /// The node's zone.
    pub zone: Arc<str>,
    /// The carrier of the node's network, if it is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Arc<str>>,
}

impl NodePlace {
    /// The zone with its region: `eu/a`.
    pub fn full_zone(&self) -> String {
        format!("{}/{}", self.region, self.zone)
    }
}

/// A node in one of its lives. A node that was down has the next incarnation.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Hop {
    /// The node.
    #[serde(flatten)]
    pub place: NodePlace,
    /// From 1.
    pub incarnation: u32,
}

/// The answer to `GET /v1/nodes`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodeList {
    /// All nodes.
    pub nodes: Vec<Node>,
}

/// A node.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Node {
    /// Its name, place and incarnation.
    #[serde(flatten)]
    pub hop: Hop,
    /// `up`, `wary`, `suspect`, `down` or `cold`.
    pub health: Word,
    /// The evidence against it: `probe`, `cohort`…
    pub suspected_by: Vec<Word>,
    /// It admits no rooms, and those there move.
    pub draining: bool,
    /// It was removed from the list; the gateway forgets it once it carries no room.
    pub leaving: bool,
    /// An operator ejected it; `:uneject` ends that.
    pub ejected: bool,
    /// The gateway starts it, or started it: it counts in the budget of `[elastic]`.
    pub started: bool,
    /// It drains in order to be stopped, or was told to stop.
    pub stopping: bool,
    /// Of a node with `stop_after` that the gateway started: `rooms`, `stranded-rooms`, `load` or `reserves`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_for: Option<Word>,
    /// Measured capacity.
    pub capacity_kbps: u64,
    /// Sessions that are being opened there.
    pub opening: u32,
    /// Sessions that wait to be opened.
    pub queued: u32,
    /// Load and reserves, of the capacity.
    pub load_permille: u32,
    /// Load without reserves, of the capacity.
    pub carried_permille: u64,
    /// Load that the node reports. Null: it reports none.
    pub reported_permille: Option<u16>,
    /// Memory of the node's process, of the memory that it may use. Null: no agent reports it.
    pub memory_permille: Option<u16>,
    /// The start of that process, to a second.
    pub process_started_us: Option<u64>,
    /// Rooms there.
    pub rooms: u32,
    /// Null: no probe was answered.
    pub round_trip_us: Option<u64>,
    /// Probes that were not answered lately.
    pub loss_ppm: u32,
    /// Sessions that the node impairs, by itself or by the leg to it.
    pub impaired_sessions: u32,
}

/// The answer to `GET /v1/zones`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ZoneList {
    /// The zones that have a node.
    pub zones: Vec<Zone>,
}

/// The nodes of a zone together.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Zone {
    /// The zone's region.
    pub region: Arc<str>,
    /// The zone's name within the region.
    pub zone: Arc<str>,
    /// All nodes of the zone.
    pub nodes: usize,
    /// Nodes that take rooms.
    pub nodes_up: usize,
    /// Nodes that are being emptied.
    pub nodes_draining: usize,
    /// Nodes that an operator ejected.
    pub nodes_ejected: usize,
    /// As of a region.
    pub breaker: Option<Word>,
    /// As of a region.
    pub breaker_mode: Option<Word>,
    /// Rooms at these nodes.
    pub rooms: u32,
    /// Measured capacity of all nodes.
    pub capacity_kbps: u64,
    /// Load and reserves, of that capacity.
    pub load_permille: u64,
}

/// The answer to `GET /v1/regions`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RegionList {
    /// All regions.
    pub regions: Vec<Region>,
}

/// The nodes of a region together.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Region {
    /// The region's name.
    pub region: Arc<str>,
    /// `closed`, `open` or `half-open`.
    pub breaker: Word,
    /// `auto`, or `open` or `closed` if an operator holds it.
    pub breaker_mode: Word,
    /// The time until an open breaker is half-open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open_in_ms: Option<u64>,
    /// `auto`, `force` or `forbid`.
    pub failback: Word,
    /// All nodes of the region.
    pub nodes: u32,
    /// Nodes that take rooms.
    pub nodes_up: u32,
    /// Nodes that are being emptied.
    pub nodes_draining: u32,
    /// Rooms of this home region.
    pub rooms: u32,
    /// Rooms of this home region that are in other regions or at standby nodes.
    pub rooms_displaced: u32,
}
