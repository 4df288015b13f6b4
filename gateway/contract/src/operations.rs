//! Verbs of operators, what they and others changed, and what failed.

use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Word;

/// The body of `POST /v1/rooms/NAME:move`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The name of the node.
    pub node: Box<str>,
}

/// The body of `:drain` of a node, zone or region, which may be left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DrainRequest {
    /// Time limit: `60s`. Default: none; rooms move as others can take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Drains the last node that takes rooms, too. Default false. A gateway of an earlier version may not know it.
    #[serde(skip_serializing_if = "is_default")]
    pub force: bool,
}

/// The body of `:eject` of a node or zone, which may be left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EjectRequest {
    /// Ejects the last node that takes rooms, too. Default false. A gateway of an earlier version may not know it.
    #[serde(skip_serializing_if = "is_default")]
    pub force: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The body of `POST /v1/nodes/NAME:break`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BreakRequest {
    /// The fault.
    pub how: NodeFault,
}

/// A fault that a node's agent injects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeFault {
    /// Ends the node's process.
    Kill,
    /// Stops the process.
    Hang,
    /// Continues it.
    Wake,
    /// Drops its packets.
    Cut,
    /// Ends that.
    Heal,
}

/// The body of `:breaker` of a region, zone or group of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BreakerRequest {
    /// How the state is decided.
    pub mode: BreakerMode,
}

/// How the state of a breaker is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BreakerMode {
    /// By the evidence.
    Auto,
    /// Held open.
    Open,
    /// Held closed.
    Closed,
}

/// The body of `POST /v1/regions:failback`, and of the verb of one region.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FailbackRequest {
    /// `auto`: rooms return a few per second; `force`: also to nodes that are not trusted yet; `forbid`: they stay.
    pub mode: String,
}

/// The query of `GET /v1/failures`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct FailuresQuery {
    /// Only failures within this time: `24h`. Default: all that are kept.
    pub since: Option<String>,
    /// Only failures of the node with this name.
    pub node: Option<String>,
    /// Number of failures, 1 to 2000. Default: 2000.
    pub limit: Option<usize>,
}

/// The answer to `GET /v1/failures`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct FailureList {
    /// Newest first.
    pub failures: Vec<Failure>,
    /// Older failures match as well, beyond `limit`.
    pub truncated: bool,
}

/// A failure of nodes or of a gateway, with the sessions that it hit.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Failure {
    /// Unix time of the first death, of the takeover, or of the first end of a session.
    pub at_us: u64,
    /// `node-down`, `takeover`, or the reason for which sessions ended: `gateway-died`, `panicked`, `handshake-lost` or
    /// `srtp-counters-lost`.
    pub cause: Word,
    /// With `node-down` the evidence against the nodes: `probe`, `agent`…
    pub witnesses: Vec<Word>,
    /// Names of the nodes that failed together.
    pub nodes: Vec<Arc<str>>,
    /// The name of the gateway that took over, or at which the sessions ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Arc<str>>,
    /// Rooms that were hit. Null with `takeover`, which does not count them.
    pub rooms: Option<u32>,
    /// Sessions that were hit.
    pub sessions: u32,
    /// `moved`: other nodes carry all sessions, some of them with a lower bit rate if it is `reduced`; `unplaced`: no node had
    /// capacity for some; `continued`: another process has them; `ended`: they ended; `none`: no session was hit.
    pub outcome: Word,
    /// Sessions in rooms that no node had capacity for, five seconds after the first death.
    pub unplaced_sessions: u32,
    /// Sessions with a lower bit rate, five seconds after the first death.
    pub reduced_sessions: u32,
}

/// The query of `GET /v1/changes`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ChangesQuery {
    /// Only changes within this time: `24h`. Default: all that are kept.
    pub since: Option<String>,
}

/// The answer to `GET /v1/changes`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ChangeList {
    /// Newest first.
    pub changes: Vec<Change>,
}

/// A request that changed something, or an event that did.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Change {
    /// Unix time.
    pub at_us: u64,
    /// `request`: the members are those of a [`RequestChange`]. `reload`, `policy` or `group`: they are those of that event.
    pub event: String,
    /// The other members; of a change of more than 4,096 bytes `by` alone. Changes of other versions have other members.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

/// A request that changed something.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RequestChange {
    /// The time of its answer.
    pub at_us: u64,
    /// `operator`.
    pub by: String,
    /// `request`.
    pub event: String,
    /// Method and path.
    pub request: String,
    /// The user that the request named, unverified, or that of the process at the Unix socket.
    pub user: Option<String>,
}
