//! The shape of the files before their values are checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::gateway::{Protocol, Traceparent};
use super::listen::Identity;
use super::node::{DriverKind, Probe};
use super::set::{AffinityWord, ModeWord, OnFault};
use super::trust::UnsignedWord;

type Text = Option<Spanned<String>>;
type Number = Option<Spanned<i64>>;

/// `evenkeel.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct File {
    pub(super) gateway: Gateway,
    pub(super) listen: Vec<Spanned<Listen>>,
    pub(super) region: Vec<Region>,
    pub(super) node: Vec<Spanned<Node>>,
    pub(super) admin: Admin,
    pub(super) telemetry: Telemetry,
    pub(super) limits: Limits,
    pub(super) detector: Detector,
    pub(super) breaker: Breaker,
    pub(super) trust: Trust,
    pub(super) cluster: Option<Spanned<Cluster>>,
    pub(super) index: Option<Spanned<Index>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Gateway {
    pub(super) region: Text,
    pub(super) policies: Text,
    pub(super) drain_timeout: Text,
    pub(super) cache: Text,
    pub(super) node_networks: Option<Vec<Spanned<String>>>,
    pub(super) sandbox: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Listen {
    pub(super) udp: Text,
    pub(super) quic: Text,
    pub(super) identity: Option<Spanned<Vec<Spanned<Identity>>>>,
    pub(super) scenario: Text,
    pub(super) rtcp: Option<Spanned<toml::Value>>,
    pub(super) advertise: Text,
    pub(super) certificate: Text,
    pub(super) key: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Region {
    pub(super) name: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Node {
    pub(super) name: Spanned<String>,
    pub(super) address: Text,
    pub(super) region: Spanned<String>,
    pub(super) zone: Spanned<String>,
    pub(super) driver: Spanned<DriverKind>,
    pub(super) capacity: Spanned<String>,
    pub(super) secret_file: Text,
    pub(super) probe: Option<Spanned<Probe>>,
    #[serde(default)]
    pub(super) standby: bool,
    pub(super) start: Option<Spanned<Start>>,
    pub(super) ng: Text,
    pub(super) webhook: Text,
    pub(super) token_file: Text,
    pub(super) agent: Text,
    pub(super) canary: Option<Spanned<bool>>,
    pub(super) encrypt: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `command` or `webhook`")]
pub(super) struct Start {
    pub(super) command: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) webhook: Text,
    pub(super) token_file: Text,
    pub(super) timeout: Text,
    pub(super) stop_with_gateway: Option<Spanned<bool>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Admin {
    pub(super) socket: Text,
    pub(super) tcp: Text,
    pub(super) token_file: Text,
    pub(super) traceparent: Option<Traceparent>,
    pub(super) drills: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Telemetry {
    pub(super) otlp: Text,
    pub(super) protocol: Option<Protocol>,
    pub(super) sample_ratio: Option<Spanned<f64>>,
    pub(super) metrics_interval: Text,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Limits {
    pub(super) sessions: Number,
    pub(super) session_data_mib: Number,
    pub(super) workers: Number,
    pub(super) early_packets: Number,
    pub(super) early_for: Text,
    pub(super) batch_delay: Text,
    pub(super) misses_per_prefix: Number,
    pub(super) connections_max: Number,
    pub(super) connections_per_source: Number,
    pub(super) churn_percent: Number,
    pub(super) moves_per_minute: Number,
    pub(super) failbacks_per_second: Number,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Breaker {
    pub(super) loss_percent: Number,
    pub(super) r_factor: Number,
    pub(super) failure_percent: Number,
    pub(super) min_sessions: Number,
    pub(super) open_for: Text,
    pub(super) max_open_for: Text,
    pub(super) half_open_percent: Number,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Detector {
    pub(super) in_region: Reach,
    pub(super) cross_region: Reach,
    pub(super) probe_slack: Text,
    pub(super) silence: Text,
    pub(super) silence_arrivals: Number,
    pub(super) stall_threshold: Text,
    pub(super) base_ejection_time: Text,
    pub(super) max_ejection_time: Text,
    pub(super) wary_for: Text,
    pub(super) panic_percent: Number,
    pub(super) panic_for: Text,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Reach {
    pub(super) probe_interval: Text,
    pub(super) down_after: Text,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Trust {
    pub(super) keys: Vec<Spanned<Key>>,
    pub(super) revoked: Vec<Spanned<String>>,
    pub(super) unsigned: Option<UnsignedWord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name` and `public`")]
pub(super) struct Key {
    pub(super) name: Spanned<String>,
    pub(super) public: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Cluster {
    pub(super) name: Spanned<String>,
    pub(super) secret_file: Spanned<String>,
    pub(super) listen: Spanned<String>,
    pub(super) preferred: Option<bool>,
    pub(super) peer: Peer,
    #[serde(default)]
    pub(super) address: Vec<Spanned<ClusterAddress>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name` and `address`")]
pub(super) struct Peer {
    pub(super) name: Spanned<String>,
    pub(super) address: Spanned<String>,
    pub(super) agent: Text,
    pub(super) secret_file: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ClusterAddress {
    pub(super) address: Spanned<String>,
    pub(super) interface: Text,
    pub(super) hook: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) port_legs: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Index {
    pub(super) servers: Spanned<Vec<Spanned<String>>>,
    pub(super) name: Text,
    pub(super) bucket: Text,
    pub(super) credentials_file: Text,
    pub(super) nkey_file: Text,
    pub(super) tls_ca_file: Text,
    pub(super) replicas: Number,
}

/// `policies/*.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Set {
    pub(super) scenario: BTreeMap<Spanned<String>, Scenario>,
    pub(super) admission: Option<Binding>,
    pub(super) routing: Option<Binding>,
    pub(super) degradation: Option<Binding>,
    pub(super) resolve: Option<Binding>,
    pub(super) rollout: Option<Rollout>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Rollout {
    pub(super) canary: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) pace: Text,
    pub(super) hold: Option<bool>,
    pub(super) shadow: Text,
    pub(super) rollback_window: Text,
    pub(super) judge: RolloutJudge,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RolloutJudge {
    pub(super) gap: Text,
    pub(super) loss_percent: Number,
    pub(super) r_factor: Number,
    pub(super) rung: Number,
    pub(super) moves_per_minute: Number,
    pub(super) guarded_percent: Number,
    pub(super) refused_percent: Number,
    pub(super) min_sessions: Number,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Scenario {
    pub(super) mode: Option<Spanned<ModeWord>>,
    pub(super) affinity: Option<AffinityWord>,
    pub(super) regions: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) spares: Number,
    pub(super) bitrate: Option<Spanned<Bitrate>>,
    pub(super) close_after: Text,
    pub(super) await_first_packet: Option<bool>,
    pub(super) dscp: Dscp,
    pub(super) priority: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `floor` and `ceiling`")]
pub(super) struct Bitrate {
    pub(super) floor: Spanned<String>,
    pub(super) ceiling: Spanned<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table with `voice` and `video`")]
pub(super) struct Dscp {
    pub(super) voice: Text,
    pub(super) video: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Binding {
    pub(super) plugin: Spanned<String>,
    pub(super) settings: Option<Spanned<toml::Table>>,
    pub(super) on_fault: Option<Spanned<OnFault>>,
    pub(super) unsigned: Option<bool>,
    pub(super) actions: Option<Vec<Spanned<String>>>,
    pub(super) metrics: Option<Vec<Spanned<String>>>,
}
