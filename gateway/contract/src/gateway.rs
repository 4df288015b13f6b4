//! The gateway itself: status, configuration, upgrade, its group, and the shared index.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Word;
use crate::alerts::Dependency;
use crate::sessions::ClientGroup;

/// The answer to `GET /v1/status`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Status {
    /// `starting`: packets are forwarded, and sessions are not admitted before the first policies are compiled; `serving`; or
    /// `draining`: the gateway shuts down.
    pub state: Word,
    /// The version of the gateway.
    pub version: Word,
    /// The gateway's region.
    pub region: Arc<str>,
    /// The time since the start.
    pub uptime_ms: u64,
    /// Live sessions.
    pub sessions: usize,
    /// Placed rooms.
    pub rooms: usize,
    /// Most nodes fell silent at once, so that the gateway marks none down for it.
    pub uplink_suspect: bool,
    /// Policies with a failed last call.
    pub policies_failing: Vec<String>,
    /// Service level objectives, by scenario and indicator.
    pub slos: Vec<Slo>,
    /// Breakers of clients that are not closed, or that have sessions with voice only.
    pub client_breakers: Vec<ClientBreaker>,
    /// Breakers of providers of nodes that are not closed.
    pub provider_breakers: Vec<ProviderBreaker>,
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
    pub drops: BTreeMap<Word, u64>,
    /// Addresses of the UDP listeners.
    pub udp: Vec<SocketAddr>,
    /// Address of the QUIC listener.
    pub quic: Option<SocketAddr>,
    /// Addresses that clients of each carrier are told, by its name.
    pub carriers: BTreeMap<Arc<str>, Vec<SocketAddr>>,
    /// Counters of the QUIC endpoint, by name.
    pub quic_counts: BTreeMap<Word, u64>,
    /// Warnings in force: capacity that will be exhausted, nodes that will fail.
    pub forecasts: Vec<Forecast>,
    /// The file in force. Left out by a gateway that runs within another program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationOrigin>,
    /// The last reload that had an effect or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<ReloadReport>,
    /// Left out without `[index]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexStatus>,
    /// The last check of each dependency. Left out without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Vec<Dependency>>,
    /// Signals of telemetry that their receiver does not take.
    pub export_failures: Vec<ExportFailure>,
    /// The certificates and tokens in use that end.
    pub credentials: Vec<Credential>,
    /// Documents of which the disk lacks the newest content.
    pub unwritten: Vec<UnwrittenDocument>,
    /// Losses of redundancy that have lasted, and those documents, each a sentence.
    pub warnings: Vec<String>,
}

/// One indicator of a scenario's service level objective.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Slo {
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// `refusals`, `set-up`, `gap` or `r-factor`.
    pub slo: Word,
    /// The share of good sessions that is to be reached, 0 to 1.
    pub objective: f64,
    /// The share of the longest window's error budget that is left; negative if it is overspent.
    pub budget: f64,
    /// From the shortest window to the longest.
    pub windows: Vec<SloWindow>,
}

/// The sessions of a window up to now.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct SloWindow {
    /// The length: `5m`.
    pub window: Word,
    /// The time since sessions are counted, to 10 s. Left out if the window is not longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_ms: Option<u64>,
    /// The number of sessions, or of answered offers.
    pub sessions: u32,
    /// Sessions or offers that missed the limit.
    pub bad: u32,
    /// The share of bad sessions as a multiple of the error budget; null if there are too few sessions.
    pub burn_rate: Option<f64>,
}

/// A breaker of clients.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ClientBreaker {
    /// The clients.
    #[serde(flatten)]
    pub group: ClientGroup,
    /// `closed`, `open` or `half-open`.
    pub breaker: Word,
    /// `auto`, or `open` or `closed` if an operator holds it.
    pub breaker_mode: Word,
    /// The time until an open breaker is half-open.
    pub half_open_in_ms: Option<u64>,
    /// Open sessions that were admitted with voice only.
    pub voice_only_sessions: usize,
}

/// A breaker of a provider of nodes.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ProviderBreaker {
    /// The program or host that starts nodes.
    pub provider: Arc<str>,
    /// `closed`, `open` or `half-open`.
    pub breaker: Word,
    /// The time until an open breaker is half-open.
    pub half_open_in_ms: Option<u64>,
    /// Failed starts in a row.
    pub failures: u32,
}

/// A warning of what is expected.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Forecast {
    /// `load`, `decay`, `flap` or `delay`.
    pub kind: Word,
    /// The name of the region or node.
    pub subject: Arc<str>,
    /// The start of the warning.
    pub since_us: u64,
    /// The time at which the limit is expected to be reached; that of the newest sample, if it is.
    pub expected_us: u64,
    /// The values that led to the warning.
    pub evidence: ForecastEvidence,
}

/// The facts from which a warning follows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(untagged)]
pub enum ForecastEvidence {
    /// Of `load`: the capacity of a region will be exhausted.
    Load {
        /// Highest load expected within the horizon.
        load_kbps: u64,
        /// Load from which the region takes no new rooms.
        capacity_kbps: u64,
        /// Probability of it, by the errors of earlier forecasts.
        confidence_percent: u8,
    },
    /// Of `decay`: a value of a node rises.
    Decay {
        /// `delay`, `loss`, `memory` or `restarts`.
        sign: Word,
        /// The value now: milliseconds, a share, or a number.
        value: f64,
        /// The value at which the node is of no use.
        limit: f64,
    },
    /// Of `flap`: the link to a node flaps.
    Flap {
        /// Changes between up and down within the last hour.
        changes: u32,
    },
    /// Of `delay`: the round trip to a node is far above the usual one of the hour.
    Delay {
        /// The round trip now.
        round_trip_ms: u32,
        /// The median of the last three days at this hour of the day (UTC), or the least of fewer days.
        usual_ms: u32,
    },
    /// Of a kind that only later versions know.
    Unknown {},
}

impl Default for ForecastEvidence {
    fn default() -> ForecastEvidence {
        ForecastEvidence::Flap { changes: 0 }
    }
}

/// A signal of telemetry that its receiver does not take.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ExportFailure {
    /// `spans`, `logs` or `metrics`.
    pub signal: Word,
    /// The time of the first failed export.
    pub since_us: u64,
    /// Failed exports since then.
    pub failures: u64,
    /// The reason of the last one: `Connection refused (os error 111)`, `gRPC status UNIMPLEMENTED`, `HTTP status 401`… Left out by a
    /// gateway of an earlier version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A certificate or token in use.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Credential {
    /// `quic-certificate`, `webrtc-certificate` or `index-token`.
    pub credential: Word,
    /// The time of its end.
    pub ends_us: u64,
    /// The same for people: `2027-01-31 09:41 UTC`.
    pub ends: String,
}

/// A document of which the disk lacks the newest content.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct UnwrittenDocument {
    /// `operations`, `policies`…
    pub document: Word,
    /// Its file.
    pub file: PathBuf,
    /// The time of the first failure.
    pub since_us: u64,
    /// The reason of the last failure.
    pub reason: Box<str>,
}

/// The file in force.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ConfigurationOrigin {
    /// The file as named on the command line. Left out: the built-in configuration is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of the file, in hexadecimal, as it was read last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The time at which the file was read last and accepted.
    pub read_us: u64,
    /// Tables that differ in the file, and wait for a restart.
    pub requires_restart: Vec<String>,
}

/// The answer to `GET /v1/configuration`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Configuration {
    /// The file in force.
    #[serde(flatten)]
    pub origin: ConfigurationOrigin,
    /// The files of policy sets, by name; `embedded` without one.
    pub policies: BTreeMap<Arc<str>, String>,
    /// The tables of `evenkeel.toml`, with the keys that the file leaves out. Secrets are the names of their files.
    pub configuration: Map<String, Value>,
}

/// The body of `POST /v1/configuration:reload`, which may be left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ReloadRequest {
    /// Removes nodes even if they are more than 30 %. Default false.
    pub force: bool,
    /// Time limit for draining removed nodes: `60s`. Default: none.
    pub deadline: Option<String>,
}

/// The answer to `POST /v1/configuration:reload`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Reloaded {
    /// Names of added nodes, and of nodes that were being removed and stay.
    pub added: Vec<Arc<str>>,
    /// Names of nodes that are drained and removed. A node with another address, driver, region or secret is removed and added.
    pub removed: Vec<Arc<str>>,
    /// Names of nodes that stay with other settings.
    pub changed: Vec<Arc<str>>,
    /// Changed keys that need a restart.
    pub requires_restart: Vec<String>,
    /// Policies that were not replaced.
    pub refused: Vec<PolicyRefused>,
    /// Faults of files that a restart would read, such as an expired certificate, and scenarios that are gone and have open rooms.
    pub warnings: Vec<String>,
}

/// A policy that a reload did not replace.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PolicyRefused {
    /// `call/routing`.
    pub policy: String,
    /// The reason of the refusal.
    pub reason: String,
}

/// A reload that has ended: in `last_reload` of the status, and the event `reload`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ReloadReport {
    /// The time of its end.
    pub at_us: u64,
    /// `file`, `signal` or `operator`.
    pub by: Word,
    /// The time that it took.
    pub took_us: u64,
    /// The changes, unless it was refused.
    #[serde(flatten)]
    pub changes: Option<Reloaded>,
    /// The reason for which nothing changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
}

/// The body of `POST /v1/gateway:upgrade`, which may be left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UpgradeRequest {
    /// The absolute path of the program, on the Unix socket only. Default: the gateway's own.
    pub binary: Option<PathBuf>,
    /// Time limit for the new process to get ready: `20s`. Default and maximum: 50 s.
    pub deadline: Option<String>,
}

/// The answer to `POST /v1/gateway:upgrade`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
    /// Its sessions.
    pub sessions: usize,
    /// The time for which packets waited.
    pub paused_us: u64,
}

/// The answer to `GET /v1/gateways`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct GatewayList {
    /// The gateway that answers, then the other members of its group.
    pub gateways: Vec<Gateway>,
    /// Losses of redundancy that have lasted, each a sentence.
    pub warnings: Vec<Arc<str>>,
}

/// A member of a group, as the gateway that answers knows it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Gateway {
    /// Its name.
    pub gateway: Arc<str>,
    /// It is the gateway that answers.
    pub here: bool,
    /// `joining`, `standby`, `spare`, `restoring`, `owner`, `doubting` or `silent`.
    pub role: Word,
    /// The number of the ownership that it knows; 0 for none.
    pub epoch: u64,
    /// Sessions that it serves, or holds copies of.
    pub sessions: usize,
    /// The standby can continue all sessions that the owner has answered.
    pub in_sync: bool,
    /// The standby takes over from an owner that is silent, and not only after the end of its process.
    pub armed: bool,
    /// Age of its last beat; null for the gateway that answers, and for one that was not heard.
    pub heard_ms: Option<u64>,
    /// The group's addresses.
    pub addresses: Vec<IpAddr>,
    /// The reason why it is not connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The reason why it does not serve although its peer is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
}

/// The body of `POST /v1/gateway:hand-over`, which may be left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HandOverRequest {
    /// The name of the gateway that owns from then on. Default: the standby.
    pub to: Option<String>,
}

/// The answer to `POST /v1/gateway:hand-over`: the owner from now on.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct NewOwner {
    /// Its name.
    pub gateway: Arc<str>,
    /// The number of its ownership.
    pub epoch: u64,
}

/// The body of `POST /v1/gateway:take-over`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TakeOverRequest {
    /// The name of the peer that is down; of several, separated by commas.
    pub confirm_down: String,
}

/// The answer to `POST /v1/gateway:take-over`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct TakenOver {
    /// The gateway that answered.
    #[serde(flatten)]
    pub owner: NewOwner,
    /// Sessions that continue.
    pub sessions: usize,
}

/// The state of the shared index, as this gateway knows it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct IndexStatus {
    /// `starting`, `current`, `standby`, `fenced` or `unreachable`.
    pub state: Word,
    /// The reason why it is not current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to `GET /v1/index/sessions/ID`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct IndexedSessionList {
    /// Sessions of different groups may have the same id.
    pub sessions: Vec<IndexedSession>,
}

/// A session of the shared index.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct IndexedSession {
    /// The names of the members of its group.
    pub group: String,
    /// The gateway that serves it; null if none does.
    pub gateway: Option<Arc<str>>,
    /// The address of that gateway's API.
    pub api: Option<SocketAddr>,
    /// `s4k7mq2-17`.
    pub id: String,
    /// The version of the entry.
    pub v: u32,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// The time at which it opened.
    pub opened_us: u64,
    /// The key of its offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Arc<str>>,
}

/// The answer to `GET /v1/index/gateways`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct IndexedGatewayList {
    /// The gateways that wrote their entry within the last seconds.
    pub gateways: Vec<IndexedGateway>,
}

/// A gateway of the shared index.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct IndexedGateway {
    /// The names of the members of its group.
    pub group: String,
    /// The version of the entry.
    pub v: u32,
    /// Its name.
    pub gateway: Arc<str>,
    /// As of a [`Gateway`].
    pub role: Word,
    /// The number of the ownership that it knows.
    pub epoch: u64,
    /// The time of its start.
    pub started_us: u64,
    /// The address of its API over TCP, if it listens on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<SocketAddr>,
}

/// The answer to `GET /v1/modes`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ModeList {
    /// All redundancy modes.
    pub modes: Vec<Mode>,
}

/// Cost and benefit of a mode, as measured here.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Mode {
    /// The mode.
    pub mode: Word,
    /// Scenarios in this mode now.
    pub scenarios: Vec<Arc<str>>,
    /// Sessions that continued at another hop because their node failed.
    pub recoveries: u64,
    /// The times of these recoveries; null without one.
    pub recovery_ms: Option<Recovery>,
    /// Packets to clients lost at switches, including planned switches. Null without switches.
    pub packets_lost: Option<u64>,
    /// Standby traffic (copies and signalling) as a fraction of first-hop media.
    pub bandwidth_cost: Option<f64>,
}

/// Times from the last packet of the old hop to the first of the new one, milliseconds, of sessions that received media.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Recovery {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

/// The answer to `GET /v1/log`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LogFilter {
    /// Null: that of `EVENKEEL_LOG`.
    pub filter: Option<Box<str>>,
}

/// The body of `POST /v1/log`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// `warn`, or levels of crates: `warn,evenkeel_group=debug`. Null: that of `EVENKEEL_LOG`.
    pub filter: Option<Box<str>>,
}
