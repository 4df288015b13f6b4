//! Sessions and rooms: lists, explanations, and records of ended sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;
use crate::nodes::{Hop, NodePlace};

/// The query of a list in pages.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PageQuery {
    /// `next` of the page before. Default: the first page.
    pub after: Option<String>,
    /// Entries of a page, 1 to 2000. Default: 2000.
    pub limit: Option<usize>,
}

/// The answer to `GET /v1/sessions`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct SessionPage {
    /// In the order of their numbers.
    pub sessions: Vec<Session>,
    /// `after` of the next page, while more follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A live session.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Session {
    /// `s4k7mq2-17`.
    pub id: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// `hitless`, `hot`, `active-active`, `cold` or `regional`.
    pub mode: Word,
    /// The label `participant` of its offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<Arc<str>>,
    /// The client's transport: `udp` or `quic`.
    pub ingress: Word,
    /// The hop that carries the session's packets; null without one.
    pub hop: Option<Hop>,
    /// The number of the degradation in force; 0 for none.
    pub rung: u8,
    /// The cap on what the client sends; null without one.
    pub cap_kbps: Option<u32>,
    /// The degradation actions in force, each with its argument.
    #[serde(default)]
    pub actions: BTreeMap<Word, u32>,
    /// Measured values by metric; a metric without a measurement is left out.
    pub measures: BTreeMap<Word, u32>,
    /// The segment of the path that impairs the session's media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impairment: Option<Impairment>,
    /// The advice to its user that holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
    /// The policing of the client; left out if it sends no more than it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policing: Option<Policing>,
    /// Of a client that checks its path by STUN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ice: Option<IceFragments>,
    /// The media since the session opened.
    pub totals: Traffic,
    /// Time since the session opened.
    pub age_ms: u64,
    /// The trace of the session's spans: 32 hexadecimal digits.
    pub trace_id: String,
}

/// The user fragments of ICE. The username of the client's checks is `ufrag:client_ufrag`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct IceFragments {
    /// The gateway's.
    pub ufrag: String,
    /// The client's.
    pub client_ufrag: String,
}

/// Media of a session since it opened.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Traffic {
    /// Packets from the client.
    pub packets_up: u64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Packets to the client.
    pub packets_down: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// Packets to the client that a degradation withheld.
    pub shed: u64,
    /// Packets of the client that did not arrive.
    pub lost_up: u64,
    /// Switches to another hop.
    pub switches: u32,
    /// Packets to the client that were lost at switches.
    pub lost_at_switches: u32,
}

/// The segment of the path that impairs a session's media.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Impairment {
    /// `device`, `uplink`, `leg`, `node`, `gateway`, `downlink` or `unknown`.
    pub segment: Word,
    /// `loss`, `jitter`, `delay`, `stall`, `few-frames`, `no-key-frame` or `silence`.
    pub sign: Word,
    /// The session of that device, uplink or downlink.
    pub impaired_by: String,
    /// Loss in the segment.
    pub loss_ppm: u32,
    /// The probability that it is this segment.
    pub confidence_percent: u8,
    /// The measurements that show it.
    pub evidence: ImpairmentEvidence,
}

/// Advice to the user of a session.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Advice {
    /// `suspended`, `switch-network`, `lower-quality`, `audio-only` or `restored`.
    pub advice: Word,
    /// The segment of the session's path that is the reason: `uplink`, `downlink`, `leg` or `node`; with `suspended` it may be `unknown`. Left
    /// out: there was no advice before `restored`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Word>,
}

/// The policing of a client that sends more than it may.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Policing {
    /// `told` of the limit; `frames` of its video are dropped, or its `voice` as well; or nothing more is done because its media is `encrypted`
    /// or of an `unknown-codec`.
    pub step: Word,
    /// The ceiling of its scenario, or a lower cap in force.
    pub limit_kbps: u32,
    /// Its rate of about the last second.
    pub sent_kbps: u32,
}

/// Measurements along the path of a session; a measurement that was not taken is left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ImpairmentEvidence {
    /// Loss between the client and the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_ppm: Option<u32>,
    /// Loss of the worst uplink of the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub senders_ppm: Option<u32>,
    /// Loss between the gateway and the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_node_ppm: Option<u32>,
    /// Loss between the node and the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_node_ppm: Option<u32>,
    /// Loss of probes of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes_ppm: Option<u32>,
    /// Loss between the gateway and the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ppm: Option<u32>,
    /// Jitter of the client's packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_jitter_us: Option<u32>,
    /// Jitter of the worst uplink of the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub senders_jitter_us: Option<u32>,
    /// Jitter of the node's packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_node_jitter_us: Option<u32>,
    /// Jitter of probes of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes_jitter_us: Option<u32>,
    /// Jitter that the client reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_jitter_us: Option<u32>,
    /// Round trip to the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_round_trip_us: Option<u32>,
    /// Round trip to the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_round_trip_us: Option<u32>,
    /// The time for which a key frame has been requested in vain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_frame_missing_ms: Option<u32>,
    /// Consecutive packets of voice without sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_packets: Option<u32>,
    /// Frames of video in the last second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_second: Option<u32>,
    /// The usual number of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual_frames_per_second: Option<u32>,
    /// The lateness of the gateway's event loop.
    pub gateway_late_ms: u64,
    /// Packets that the gateway dropped.
    pub gateway_dropped_ppm: u32,
}

/// The answer to `GET /v1/rooms`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RoomPage {
    /// In the order of their numbers.
    pub rooms: Vec<Room>,
    /// `after` of the next page, while more follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A room.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Room {
    /// The room's name.
    pub room: Arc<str>,
    /// `r4`.
    pub id: String,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// As of a session.
    pub mode: Word,
    /// `hot` or `cold` while the second hop of a hitless room is missing or has no reserved capacity.
    pub effective_mode: Word,
    /// Ids.
    pub sessions: Vec<String>,
    /// Best first.
    pub route: Vec<Hop>,
    /// The hop that carries the packets of the room's sessions; null without one.
    pub hop: Option<Hop>,
    /// The author of the route: `call/routing@5f0c5f0c5f0c`, or the native default.
    pub placed_by: String,
}

/// The answer to `GET /v1/sessions/ID/explain`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(untagged)]
pub enum Explanation {
    /// The session has ended.
    Ended(Box<EndedExplanation>),
    /// The session is live.
    Live(Box<LiveExplanation>),
}

/// A session that has ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
pub struct EndedExplanation {
    /// `s4k7mq2-17`.
    pub id: String,
    /// The newest record of the id.
    pub ended: EndedSession,
    /// The rating by its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<SessionRating>,
}

/// A session with its hop, the decisions and their reasons, other candidates, moves, answers of policies and evidence.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LiveExplanation {
    /// `s4k7mq2-17`.
    pub id: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// As of a session.
    pub mode: Word,
    /// As of a room.
    pub effective_mode: Word,
    /// The decisions about its room, and those of policies about the session.
    #[serde(flatten)]
    pub decisions: RoomDecisions,
    /// The author of the decision by hook: `call/routing@5f0c5f0c5f0c`.
    pub decided_by: BTreeMap<Word, String>,
    /// As of a session.
    pub rung: u8,
    /// As of a session.
    pub cap_kbps: Option<u32>,
    /// As of a session.
    #[serde(default)]
    pub actions: BTreeMap<Word, u32>,
    /// As of a session.
    pub measures: BTreeMap<Word, u32>,
    /// The segment of the path that impairs the session's media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impairment: Option<Impairment>,
    /// As of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
    /// As of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policing: Option<Policing>,
    /// Why the session is not degraded further: `cap-unsupported`, `no-video`…
    pub degradation_limits: Vec<Word>,
    /// The group of clients by which the session was admitted with voice only, until its breaker is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice_only_for: Option<ClientGroup>,
    /// The room's share of the bit rate that it needs above its floor. Below 1000 the node is overcommitted. Default: 1000.
    #[serde(default = "whole")]
    pub share_permille: u16,
    /// As of a session; left out if the session ended meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// The answer to `GET /v1/rooms/NAME/explain`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RoomExplanation {
    /// The room's name.
    pub room: Arc<str>,
    /// `r4`.
    pub id: String,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// As of a session.
    pub mode: Word,
    /// As of a room.
    pub effective_mode: Word,
    /// Ids.
    pub sessions: Vec<String>,
    /// The author of the route.
    pub placed_by: String,
    /// The decisions about it.
    #[serde(flatten)]
    pub decisions: RoomDecisions,
}

/// The decisions about a room and their reasons, other candidates, moves, answers of policies and evidence.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RoomDecisions {
    /// The reason why `effective_mode` differs from `mode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// Rooms with a higher priority are placed earlier.
    pub priority: i64,
    /// The hop that carries the packets; null without one.
    pub hop: Option<Hop>,
    /// The health of the node of that hop.
    pub health: Option<Word>,
    /// Evidence against that node.
    pub witnesses: Vec<Accusation>,
    /// Best first.
    pub route: Vec<GrantedHop>,
    /// The room's move in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_move: Option<PendingMove>,
    /// The revisions of policies that are asked about the session, or about the sessions of the room, in the order of the hooks.
    pub asked: Vec<AskedRevision>,
    /// All other nodes, each with the reason why the room is not there.
    pub candidates: Vec<Candidate>,
    /// The latest first.
    pub moves: Vec<Move>,
    /// The last answers of policies about the room, and about the session, in the order of the hooks.
    pub policy_answers: Vec<PolicyAnswer>,
    /// Revisions that fault on the room, or on the session; the gateway does not ask them about it.
    pub quarantined: Vec<Quarantine>,
}

/// A revision of a policy that is asked about sessions.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct AskedRevision {
    /// `call/routing`.
    pub policy: String,
    /// The arm of a rollout: `active` or `canary`.
    pub arm: Word,
    /// The revision of the arm. Null: the native default decides.
    pub revision: Option<Arc<str>>,
    /// The number of these sessions.
    pub sessions: u32,
}

fn whole() -> u16 {
    1_000
}

/// Evidence against a node.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Accusation {
    /// `probe`, `cohort`…
    pub witness: Word,
    /// The time for which it has held.
    pub for_ms: u64,
}

/// A hop of a route, with its capacity for the room.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct GrantedHop {
    /// The hop.
    #[serde(flatten)]
    pub hop: Hop,
    /// `admitted`: the hop carries the room; `reserved`: it has capacity for the room; `gated`: it lacks capacity.
    pub grant: Word,
}

/// A move in progress.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PendingMove {
    /// The name of the node.
    pub to: Arc<str>,
    /// `quality`, `manual`, `drain`…
    pub cause: Word,
    /// The author of the decision.
    pub by: String,
    /// The time since its begin.
    pub for_ms: u64,
    /// Sessions that are not open at the node yet.
    pub pending_opens: usize,
}

/// A group of clients, by a label.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ClientGroup {
    /// `carrier` or `region`.
    pub label: Word,
    /// The label's value.
    pub value: Arc<str>,
}

/// A node where the room is not.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Candidate {
    /// The node.
    #[serde(flatten)]
    pub place: NodePlace,
    /// `down`, `full`, `not-chosen`…: the reason why the room is not there.
    pub reason: Word,
    /// That of the policy that chose another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_reason: Option<Arc<str>>,
    /// Load and reserves, of the capacity.
    pub load_permille: u32,
    /// Load without reserves.
    pub carried_permille: u32,
}

/// A move that has ended.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Move {
    /// `node-down`, `drain`…
    pub cause: Word,
    /// The author of the decision.
    pub by: String,
    /// The name of the node before.
    pub from: Arc<str>,
    /// The name of the node after; null if no hop was left.
    pub to: Option<Arc<str>>,
    /// The time since its begin.
    pub ago_ms: u64,
    /// From its begin to its end.
    pub took_ms: u64,
    /// `completed`, or the reason why the room stayed.
    pub outcome: Word,
}

/// A policy's answer.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PolicyAnswer {
    /// `admission`, `routing`, `degradation` or `scenario`.
    pub hook: Word,
    /// `call/degradation@5f0c5f0c5f0c`.
    pub by: String,
    /// The plugin's reason; null if it gave none.
    pub reason: Option<Arc<str>>,
    /// `applied`, `abstained`, `kept`, `guarded`, `stale` or `faulted`.
    pub outcome: Word,
    /// With `guarded`: the rule.
    pub guard: Option<Word>,
    /// With `faulted`: `late`, `deadline`…; `on_fault` decided.
    pub fault: Option<Word>,
    /// The time since the answer.
    pub ago_ms: u64,
    /// The plugin's notes.
    pub notes: Vec<PolicyNote>,
}

/// A value that a plugin noted beside its answer.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PolicyNote {
    /// Its name.
    pub key: Box<str>,
    /// Its value.
    pub value: i64,
}

/// A revision that faults on a session or its room.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Quarantine {
    /// `call/degradation@5f0c5f0c5f0c`.
    pub by: String,
    /// `trap: …`.
    pub fault: String,
    /// The time since the fault.
    pub for_ms: u64,
}

/// The query of `GET /v1/sessions/history`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HistoryQuery {
    /// `next` of the page before. Default: the first page.
    pub after: Option<String>,
    /// Entries of a page, 1 to 2000. Default: 2000.
    pub limit: Option<usize>,
    /// Only sessions of this room.
    pub room: Option<String>,
    /// Only sessions that ended within this time: `1h`.
    pub since: Option<String>,
}

/// The answer to `GET /v1/sessions/history`. A client that passes rows on reads them as JSON, with the members of later versions.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
#[cfg_attr(
    feature = "openapi",
    schemars(rename = "HistoryPage", bound = "S: Default + JsonSchema")
)]
pub struct HistoryPage<S = EndedSession> {
    /// Newest first.
    pub sessions: Vec<S>,
    /// `after` of the next page, while more follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The ratings of these sessions, the newest first.
    pub ratings: Vec<SessionRating>,
    /// Records that were dropped since the start because others came.
    pub dropped: u64,
}

/// The record of an ended session.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct EndedSession {
    /// `s4k7mq2-17`.
    pub id: Box<str>,
    /// The name of the gateway that served the session: that in `[cluster]`, or of its host.
    pub gateway: Box<str>,
    /// The room's name.
    pub room: Box<str>,
    /// The scenario's name.
    pub scenario: Box<str>,
    /// The client's transport: `udp` or `quic`.
    pub ingress: Box<str>,
    /// The redundancy mode at the end: `hot`.
    pub mode: Box<str>,
    /// The time of the offer.
    pub offered_us: u64,
    /// The time of the end.
    pub ended_us: u64,
    /// From the offer to the end.
    pub duration_ms: u64,
    /// The author of the admission.
    pub admitted_by: Box<str>,
    /// Null if its gateway was killed.
    pub totals: Option<Traffic>,
    /// Completed moves of its room by cause, among those that the room remembers.
    pub moves: BTreeMap<Box<str>, u32>,
    /// The same moves, oldest first.
    pub last_moves: Vec<EndedMove>,
    /// `requested`, `media-timeout`, `gateway-died`…
    pub reason: Box<str>,
}

/// The body of `POST /v1/sessions/ID/feedback`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FeedbackRequest {
    /// 1 (bad) to 5 (excellent), the scale of ITU-T P.800.
    pub rating: u64,
    /// The user's words, at most 500 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Box<str>>,
}

/// The rating of a session by its user, beside the quality that the gateway measured.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct SessionRating {
    /// `s4k7mq2-17`.
    pub id: Box<str>,
    /// The scenario's name.
    pub scenario: Box<str>,
    /// The name of the node that carried the session; null without one.
    pub node: Option<Box<str>>,
    /// The authors of its admission and of its route: `call/routing@5f0c5f0c5f0c`, or the native default.
    pub decided_by: Vec<Box<str>>,
    /// The mean R-factor (ITU-T G.107) until the rating or the end, times 100; null if it was not measured.
    pub mean_r_centi: Option<u32>,
    /// The time of the rating.
    pub rated_us: u64,
    /// 1 to 5.
    pub rating: u8,
    /// The user's words.
    pub words: Option<Box<str>>,
}

/// The answer to `GET /v1/ratings`. Each list is ordered by name.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RatingComparison {
    /// By scenario.
    pub scenarios: Vec<RatedGroup>,
    /// By the node that carried the sessions.
    pub nodes: Vec<RatedGroup>,
    /// By the author of an admission or a route.
    pub revisions: Vec<RatedGroup>,
}

/// Ratings of some sessions, and the quality that the gateway measured of these.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RatedGroup {
    /// Of the scenario, the node or the author.
    pub name: Box<str>,
    /// Their number.
    pub ratings: u32,
    /// Their mean, times 100.
    pub mean_rating_centi: u32,
    /// The number of the sessions with a measured R-factor.
    pub measured: u32,
    /// The mean R-factor of these, times 100; null without any.
    pub mean_r_centi: Option<u32>,
}

/// A completed move of the room of an ended session.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct EndedMove {
    /// The time of its end.
    pub at_us: u64,
    /// The name of the node before.
    pub from: Box<str>,
    /// The name of the node after; null: no node was left for the room.
    pub to: Option<Box<str>>,
    /// `node-down`, `drain`…
    pub cause: Box<str>,
    /// The author of the decision.
    pub by: Box<str>,
}
