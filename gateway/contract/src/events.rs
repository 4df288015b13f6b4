//! The events of `GET /v1/events`. Each has the time `at_us`.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Word;
use crate::gateway::{ForecastEvidence, ReloadReport};
use crate::nodes::Hop;
use crate::policies::TimedRollout;
use crate::sessions::{Advice, Impairment, Policing, Traffic};

/// The data of an event.
pub trait EventData: Serialize + DeserializeOwned {
    /// The type of the server-sent event.
    const NAME: &'static str;
}

/// Declares which event has the data of which type.
macro_rules! names {
    ($($data:ident = $name:literal,)*) => {
        $(impl EventData for $data { const NAME: &'static str = $name; })*

        /// The name and the schema of each type.
        #[cfg(feature = "openapi")]
        pub(crate) const SCHEMAS: &[(&str, crate::openapi::SchemaOf)] =
            &[$(($name, schemars::SchemaGenerator::subschema_for::<$data>),)*];
    };
}

names! {
    Missed = "missed",
    TimedRollout = "policy",
    PolicyHealth = "policy",
    NodeListChanged = "node-list",
    NodeRemoved = "node-removed",
    ReloadReport = "reload",
    NotOpened = "not-opened",
    HandshakeEnded = "handshake",
    Renegotiated = "renegotiated",
    StreamAdded = "stream-added",
    StreamRemoved = "stream-removed",
    GroupChanged = "group",
    Continued = "continued",
    LossesUncovered = "losses-uncovered",
    LossCompared = "loss-compared",
    ForecastChanged = "forecast",
    RoomDuplicate = "room-duplicate",
    PacketsShed = "shed",
    Opened = "opened",
    Closed = "closed",
    Moved = "moved",
    NodeHealth = "node",
    MoveEnded = "move-ended",
    Drained = "drained",
    BreakerChanged = "breaker",
    ClientBreakerChanged = "client-breaker",
    HopRemoved = "hop-removed",
    MoveCauseFound = "move-cause",
    UplinkSuspected = "uplink",
    Degraded = "degraded",
    ImpairmentChanged = "impaired",
    AdviceChanged = "advice",
    PolicingChanged = "policed",
    Draining = "draining",
    NodeStart = "start",
    NodeStop = "stop",
    ProviderBreakerChanged = "provider-breaker",
    ModeChanged = "mode",
}

/// The member that all events but [`Missed`] have.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct EventTime {
    /// Unix time.
    pub at_us: u64,
}

/// This listener was too slow, and lost events.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Missed {
    /// Their number.
    pub notices: u64,
}

/// The last call of a policy faulted, or calls are answered again.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PolicyHealth {
    /// Unix time.
    pub at_us: u64,
    /// `call/routing`.
    pub policy: String,
    /// `failing` or `recovered`.
    pub outcome: Word,
    /// The fault, with `failing`: `deadline`, `trap`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Word>,
}

/// The list of nodes changed, or a change was refused.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodeListChanged {
    /// Unix time.
    pub at_us: u64,
    /// `file`, `signal` or `operator`.
    pub by: Word,
    /// More removed nodes than usual were allowed.
    pub forced: bool,
    /// As of a reload.
    pub added: Vec<Arc<str>>,
    /// As of a reload.
    pub removed: Vec<Arc<str>>,
    /// As of a reload.
    pub changed: Vec<Arc<str>>,
    /// The reason for which nothing changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A node that was removed from the list is empty, and forgotten.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodeRemoved {
    /// Unix time.
    pub at_us: u64,
    /// Its name.
    pub node: Arc<str>,
}

/// A node did not open a session.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NotOpened {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The node's name.
    pub node: Arc<str>,
    /// Its reason.
    pub reason: Box<str>,
}

/// The DTLS handshake of a session's client has ended.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct HandshakeEnded {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The crypto suite (RFC 4568), unless it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Word>,
    /// The reason of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A session follows a later offer of its WebRTC client.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Renegotiated {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// It has other streams.
    pub streams_changed: bool,
    /// It has other credentials of ICE.
    pub ice_restarted: bool,
}

/// A session sends a stream to its room: a viewer needs an m-line for it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct StreamAdded {
    /// Unix time.
    pub at_us: u64,
    /// The sending session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The label `participant` of the session's offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<Arc<str>>,
    /// `audio` or `video`.
    pub kind: Word,
    /// The id of the stream in answers to WebRTC clients, as `MediaStream.id` has it.
    pub stream: Arc<str>,
}

/// A session no longer sends a stream to its room.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct StreamRemoved {
    /// Unix time.
    pub at_us: u64,
    /// The sending session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The label `participant` of the session's offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<Arc<str>>,
    /// `audio` or `video`.
    pub kind: Word,
    /// The id of the stream in answers to WebRTC clients, as `MediaStream.id` has it.
    pub stream: Arc<str>,
}

/// A member of a group has another role, or the group lost or regained redundancy.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct GroupChanged {
    /// Unix time.
    pub at_us: u64,
    /// Its name.
    pub gateway: Arc<str>,
    /// As of a [`Gateway`](crate::gateway::Gateway).
    pub role: Word,
    /// As of a [`Gateway`](crate::gateway::Gateway).
    pub epoch: u64,
    /// The losses of redundancy that have lasted, each a sentence.
    pub warnings: Vec<Arc<str>>,
}

/// This process continues the sessions of another one.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Continued {
    /// Unix time.
    pub at_us: u64,
    /// `upgrade`, `hand-over` or `takeover`.
    pub cause: Word,
    /// The number of these sessions.
    pub sessions: usize,
    /// The time in which it restored them.
    pub took_us: u64,
}

/// The set of checked losses that would leave rooms without a node or a spare, or sessions with a lower bit rate, changed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LossesUncovered {
    /// Unix time.
    pub at_us: u64,
    /// Empty once other nodes have capacity for each of them.
    pub losses: Vec<UncoveredLoss>,
}

/// A loss that other nodes lack capacity for.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct UncoveredLoss {
    /// `node`, `zone` or `region`.
    pub scope: Word,
    /// The name of the node, or `region/zone`.
    pub place: Arc<str>,
    /// The rooms there.
    #[serde(flatten)]
    pub figures: LossFigures,
    /// Rooms of the gateway that would lose their spare.
    pub unprotected_rooms: u32,
}

/// The effect of a loss of nodes in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
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

/// Nodes died some seconds ago: the effect beside its prediction.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LossCompared {
    /// Unix time.
    pub at_us: u64,
    /// Names of the nodes.
    pub nodes: Vec<Arc<str>>,
    /// The time of the first death.
    pub died_us: u64,
    /// The evidence against them: `probe`, `agent`…
    pub witnesses: Vec<Word>,
    /// Null: this loss was not checked before.
    pub predicted: Option<PredictedLoss>,
    /// Counted for as long after the first death as a copy is played.
    pub actual: LossFigures,
}

/// The effect of a loss, by a check before.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PredictedLoss {
    /// The time of the check.
    pub at_us: u64,
    /// `node`, `zone` or `region`.
    pub scope: Word,
    /// The name of the node, or `region/zone`.
    pub place: Arc<str>,
    /// The effect.
    #[serde(flatten)]
    pub figures: LossFigures,
}

/// A warning of what is expected begins or ends.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ForecastChanged {
    /// Unix time.
    pub at_us: u64,
    /// `load`, `decay`, `flap` or `delay`.
    pub kind: Word,
    /// The name of the region or node.
    pub subject: Arc<str>,
    /// The time at which the limit is expected to be reached.
    pub expected_us: u64,
    /// The values that led to the warning.
    pub evidence: ForecastEvidence,
    /// The warning ends.
    pub over: bool,
}

/// A room of this gateway is at another group as well.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RoomDuplicate {
    /// Unix time.
    pub at_us: u64,
    /// The room's name.
    pub room: Arc<str>,
    /// The names of the members of the other group.
    pub group: Arc<str>,
    /// Its gateway.
    pub gateway: Arc<str>,
}

/// Consecutive RTP packets of a stream that a rung dropped.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PacketsShed {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The stream's SSRC towards the client.
    pub ssrc: u32,
    /// Sequence number of the last packet before them that was sent to the client.
    pub after: u16,
    /// Position of the first one behind it, from 1.
    pub first: u32,
    /// Their number.
    pub packets: u32,
}

/// A session opened.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Opened {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// The hop that carries its packets.
    pub hop: Hop,
    /// The author of the decision by hook: `call/routing@5f0c5f0c5f0c`.
    pub decided_by: BTreeMap<Word, String>,
}

/// A session ended.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Closed {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// `requested`, `media-timeout`, `shutdown`, `not-opened`, `panicked`, `client-closed`, `handshake-failed`, `handshake-lost`,
    /// `srtp-counters-lost` or `ended-by-policy`.
    pub reason: Word,
    /// The media that it carried, if it was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub totals: Option<Traffic>,
}

/// Evidence against a node.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Witness {
    /// `kernel-error`, `probe`, `silence`, `agent`, `canary`, `cohort`, `feedback` or `operator`.
    pub witness: Word,
    /// The time for which it had held.
    pub for_us: u64,
}

/// A room is at another hop.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Moved {
    /// Unix time.
    pub at_us: u64,
    /// The room's name.
    pub room: Arc<str>,
    /// Ids.
    pub sessions: Vec<String>,
    /// `node-down`, `link`, `quality`, `manual`, `drain`, `failback` or `ejected`.
    pub cause: Word,
    /// The author of the decision.
    pub by: String,
    /// The name of the node before.
    pub from: Arc<str>,
    /// The name of the node after; null: no hop was left.
    pub to: Option<Arc<str>>,
    /// Evidence against the node before, if that is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<Vec<Witness>>,
    /// From that node's last packet until it was marked down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_us: Option<u64>,
    /// From the start of the move until this event.
    pub took_us: u64,
}

/// The health of a node changed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodeHealth {
    /// Unix time.
    pub at_us: u64,
    /// The node's name.
    pub node: Arc<str>,
    /// As of a [`Hop`].
    pub incarnation: u32,
    /// `up`, `suspect`, `wary`, `down` or `cold`.
    pub from: Word,
    /// `up`, `suspect`, `wary`, `down` or `cold`.
    pub to: Word,
    /// The evidence against it.
    pub witnesses: Vec<Witness>,
    /// From its last packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_us: Option<u64>,
    /// Rooms there.
    pub rooms: u32,
    /// Names of dependencies that are down as well. Left out without any dependency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies_down: Option<Vec<Arc<str>>>,
}

/// An aborted move: the room stays where it was.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct MoveEnded {
    /// Unix time.
    pub at_us: u64,
    /// The room's name.
    pub room: Arc<str>,
    /// As of [`Moved`].
    pub cause: Word,
    /// The author of the decision.
    pub by: String,
    /// The name of its node.
    pub from: Arc<str>,
    /// The name of the other node.
    pub to: Arc<str>,
    /// `stranded`, `superseded`, `target-lost`, `not-opened`, `damped` or `closed`.
    pub outcome: Word,
    /// From the start of the move until this event.
    pub took_us: u64,
}

/// A drained node is empty, or its deadline passed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Drained {
    /// Unix time.
    pub at_us: u64,
    /// The node's name.
    pub node: Arc<str>,
    /// Rooms that are still there.
    pub rooms_left: u32,
    /// From the start of the drain.
    pub took_us: u64,
}

/// The breaker of a region or zone changed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct BreakerChanged {
    /// Unix time.
    pub at_us: u64,
    /// The region's name.
    pub region: Arc<str>,
    /// The zone's name, if it is its breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// `closed`, `open` or `half-open`.
    pub from: Word,
    /// `closed`, `open` or `half-open`.
    pub to: Word,
    /// `auto`, or `open` or `closed` if an operator holds it.
    pub mode: Word,
    /// The sessions that it judged.
    pub sessions: u32,
    /// Sessions with bad media.
    pub bad: u32,
    /// Sessions that nodes opened.
    pub opened: u32,
    /// Sessions that nodes did not open.
    pub failed: u32,
    /// As of [`NodeHealth`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies_down: Option<Vec<Arc<str>>>,
}

/// The breaker of a group of clients changed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ClientBreakerChanged {
    /// Unix time.
    pub at_us: u64,
    /// `carrier` or `region`.
    pub label: Word,
    /// The label's value.
    pub value: Arc<str>,
    /// The action about newcomers: `none`, `voice-only` or `refuse`.
    pub action: Word,
    /// `closed`, `open` or `half-open`.
    pub from: Word,
    /// `closed`, `open` or `half-open`.
    pub to: Word,
    /// `auto`, or `open` or `closed` if an operator holds it.
    pub mode: Word,
    /// The sessions that it judged.
    pub sessions: u32,
    /// Sessions with bad media.
    pub bad: u32,
    /// As of [`NodeHealth`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies_down: Option<Vec<Arc<str>>>,
}

/// A hop was removed from one room's route while its node was up.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct HopRemoved {
    /// Unix time.
    pub at_us: u64,
    /// The room's name.
    pub room: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
    /// `not-opened`, `port-closed` or `flow-lost`.
    pub reason: Word,
    /// The id of the session that showed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// The cause of moves that `moved` attributed to the link is known: their node was dead.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct MoveCauseFound {
    /// Unix time.
    pub at_us: u64,
    /// The node's name.
    pub node: Arc<str>,
    /// As of [`Moved`].
    pub cause: Word,
    /// Names of the rooms.
    pub rooms: Vec<Arc<str>>,
    /// Ids.
    pub sessions: Vec<String>,
}

/// Most nodes fell silent at once, so none is marked down for it; or that has ended.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct UplinkSuspected {
    /// Unix time.
    pub at_us: u64,
    /// False: it has ended.
    pub suspect: bool,
    /// Silent nodes.
    pub silent: u32,
    /// All nodes that are probed.
    pub of: u32,
    /// As of [`NodeHealth`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies_down: Option<Vec<Arc<str>>>,
}

/// A degradation of a session was applied or ended.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Degraded {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// `cap`, `voice-only`…
    pub op: Word,
    /// Its argument, kbit/s for `cap`; 0 ends it.
    pub arg: u64,
    /// The number of the degradation in force; 0 for none.
    pub rung: u8,
    /// The author of the decision.
    pub by: String,
}

/// Another segment of the path impairs the session's media.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ImpairmentChanged {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// Left out if none does any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impairment: Option<Impairment>,
}

/// The user of a session is advised, or an advice holds no more.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct AdviceChanged {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// The advice, or the end of the one before.
    #[serde(flatten)]
    pub advice: Advice,
}

/// A client sends more than it may, is policed in another way, or no more.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PolicingChanged {
    /// Unix time.
    pub at_us: u64,
    /// The session's id.
    pub session: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// Left out if the policing ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policing: Option<Policing>,
}

/// A node takes no rooms any more, or does again; without a node, the gateway shuts down.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Draining {
    /// Unix time.
    pub at_us: u64,
    /// The node's name. Left out: the gateway itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// False: that has ended.
    pub draining: bool,
}

/// A `start` hook of a node.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodeStart {
    /// Unix time.
    pub at_us: u64,
    /// The node's name.
    pub node: Arc<str>,
    /// `starting`, `failed`, `ready` or `refused`.
    pub step: Word,
    /// With `starting`, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// With `failed`: `hook-failed`, `late`, `ejected` or `removed`. With `refused`: `max-nodes`, `budget` or `provider-breaker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Word>,
    /// With `failed`: the time until the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_us: Option<u64>,
    /// With `ready`: since the hook was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
}

/// A node that is no longer needed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NodeStop {
    /// Unix time.
    pub at_us: u64,
    /// The node's name.
    pub node: Arc<str>,
    /// `stopping`, `failed` or `stopped`.
    pub step: Word,
    /// With `stopped`: since the node was told to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
}

/// The breaker of a provider of nodes changed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ProviderBreakerChanged {
    /// Unix time.
    pub at_us: u64,
    /// The program or host that starts nodes.
    pub provider: Arc<str>,
    /// `closed`, `open` or `half-open`.
    pub from: Word,
    /// `closed`, `open` or `half-open`.
    pub to: Word,
    /// Failed starts in a row.
    pub failures: u32,
}

/// The mode of a room changed, or for `capacity` its effective mode.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ModeChanged {
    /// Unix time.
    pub at_us: u64,
    /// The room's name.
    pub room: Arc<str>,
    /// `hitless`, `hot`, `active-active`, `cold` or `regional`.
    pub from: Word,
    /// `hitless`, `hot`, `active-active`, `cold` or `regional`.
    pub to: Word,
    /// `scenario`, `copies-differ` or `capacity`.
    pub reason: Word,
    /// With `copies-differ`: names of the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<Arc<str>>>,
}
