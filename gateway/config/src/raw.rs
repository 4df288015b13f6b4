//! The shape of the files before their values are checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::gateway::{Protocol, Traceparent};
use super::listen::ListenIdentity;
use super::node::{DriverKind, ProbeKind};
use super::set::{AffinityWord, ModeWord, OnFault};
use super::trust::UnsignedWord;

type SpannedText = Option<Spanned<String>>;
type Number = Option<Spanned<i64>>;

/// `evenkeel.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ConfigFile {
    pub(super) gateway: GatewayTable,
    pub(super) listen: Vec<Spanned<ListenTable>>,
    pub(super) region: Vec<RegionTable>,
    pub(super) node: Vec<Spanned<NodeEntry>>,
    pub(super) admin: AdminTable,
    pub(super) telemetry: TelemetryTable,
    pub(super) limits: LimitsTable,
    pub(super) detector: DetectorTable,
    pub(super) breaker: BreakerTable,
    pub(super) trust: TrustTable,
    pub(super) cluster: Option<Spanned<ClusterTable>>,
    pub(super) index: Option<Spanned<IndexTable>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct GatewayTable {
    pub(super) region: SpannedText,
    pub(super) policies: SpannedText,
    pub(super) drain_timeout: SpannedText,
    pub(super) cache: SpannedText,
    pub(super) node_networks: Option<Vec<Spanned<String>>>,
    pub(super) sandbox: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ListenTable {
    pub(super) udp: SpannedText,
    pub(super) quic: SpannedText,
    pub(super) identity: Option<Spanned<Vec<Spanned<ListenIdentity>>>>,
    pub(super) scenario: SpannedText,
    pub(super) rtcp: Option<Spanned<toml::Value>>,
    pub(super) advertise: SpannedText,
    pub(super) certificate: SpannedText,
    pub(super) key: SpannedText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RegionTable {
    pub(super) name: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct NodeEntry {
    pub(super) name: Spanned<String>,
    pub(super) address: SpannedText,
    pub(super) region: Spanned<String>,
    pub(super) zone: Spanned<String>,
    pub(super) driver: Spanned<DriverKind>,
    pub(super) capacity: Spanned<String>,
    pub(super) secret_file: SpannedText,
    pub(super) probe: Option<Spanned<ProbeKind>>,
    #[serde(default)]
    pub(super) standby: bool,
    pub(super) start: Option<Spanned<StartTable>>,
    pub(super) ng: SpannedText,
    pub(super) webhook: SpannedText,
    pub(super) token_file: SpannedText,
    pub(super) agent: SpannedText,
    pub(super) canary: Option<Spanned<bool>>,
    pub(super) encrypt: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `command` or `webhook`")]
pub(super) struct StartTable {
    pub(super) command: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) webhook: SpannedText,
    pub(super) token_file: SpannedText,
    pub(super) timeout: SpannedText,
    pub(super) stop_with_gateway: Option<Spanned<bool>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct AdminTable {
    pub(super) socket: SpannedText,
    pub(super) tcp: SpannedText,
    pub(super) token_file: SpannedText,
    pub(super) traceparent: Option<Traceparent>,
    pub(super) drills: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct TelemetryTable {
    pub(super) otlp: SpannedText,
    pub(super) protocol: Option<Protocol>,
    pub(super) sample_ratio: Option<Spanned<f64>>,
    pub(super) metrics_interval: SpannedText,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LimitsTable {
    pub(super) sessions: Number,
    pub(super) session_data_mib: Number,
    pub(super) workers: Number,
    pub(super) early_packets: Number,
    pub(super) early_for: SpannedText,
    pub(super) batch_delay: SpannedText,
    pub(super) misses_per_prefix: Number,
    pub(super) connections_max: Number,
    pub(super) connections_per_source: Number,
    pub(super) churn_percent: Number,
    pub(super) moves_per_minute: Number,
    pub(super) failbacks_per_second: Number,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct BreakerTable {
    pub(super) loss_percent: Number,
    pub(super) r_factor: Number,
    pub(super) failure_percent: Number,
    pub(super) min_sessions: Number,
    pub(super) open_for: SpannedText,
    pub(super) max_open_for: SpannedText,
    pub(super) half_open_percent: Number,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct DetectorTable {
    pub(super) in_region: ReachTable,
    pub(super) cross_region: ReachTable,
    pub(super) probe_slack: SpannedText,
    pub(super) silence: SpannedText,
    pub(super) silence_arrivals: Number,
    pub(super) stall_threshold: SpannedText,
    pub(super) base_ejection_time: SpannedText,
    pub(super) max_ejection_time: SpannedText,
    pub(super) wary_for: SpannedText,
    pub(super) panic_percent: Number,
    pub(super) panic_for: SpannedText,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ReachTable {
    pub(super) probe_interval: SpannedText,
    pub(super) down_after: SpannedText,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct TrustTable {
    pub(super) keys: Vec<Spanned<TrustKeyTable>>,
    pub(super) revoked: Vec<Spanned<String>>,
    pub(super) unsigned: Option<UnsignedWord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name` and `public`")]
pub(super) struct TrustKeyTable {
    pub(super) name: Spanned<String>,
    pub(super) public: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ClusterTable {
    pub(super) name: Spanned<String>,
    pub(super) secret_file: Spanned<String>,
    pub(super) listen: Spanned<String>,
    pub(super) preferred: Option<bool>,
    pub(super) peer: PeerTable,
    #[serde(default)]
    pub(super) address: Vec<Spanned<ClusterAddressTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name` and `address`")]
pub(super) struct PeerTable {
    pub(super) name: Spanned<String>,
    pub(super) address: Spanned<String>,
    pub(super) agent: SpannedText,
    pub(super) secret_file: SpannedText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ClusterAddressTable {
    pub(super) address: Spanned<String>,
    pub(super) interface: SpannedText,
    pub(super) hook: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) port_legs: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct IndexTable {
    pub(super) servers: Spanned<Vec<Spanned<String>>>,
    pub(super) name: SpannedText,
    pub(super) bucket: SpannedText,
    pub(super) credentials_file: SpannedText,
    pub(super) nkey_file: SpannedText,
    pub(super) tls_ca_file: SpannedText,
    pub(super) replicas: Number,
}

/// `policies/*.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Set {
    pub(super) scenario: BTreeMap<Spanned<String>, ScenarioTable>,
    pub(super) admission: Option<BindingTable>,
    pub(super) routing: Option<BindingTable>,
    pub(super) degradation: Option<BindingTable>,
    pub(super) resolve: Option<BindingTable>,
    pub(super) rollout: Option<RolloutTable>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RolloutTable {
    pub(super) canary: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) pace: SpannedText,
    pub(super) hold: Option<bool>,
    pub(super) shadow: SpannedText,
    pub(super) rollback_window: SpannedText,
    pub(super) judge: RolloutJudge,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RolloutJudge {
    pub(super) gap: SpannedText,
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
pub(super) struct ScenarioTable {
    pub(super) mode: Option<Spanned<ModeWord>>,
    pub(super) affinity: Option<AffinityWord>,
    pub(super) regions: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) spares: Number,
    pub(super) bitrate: Option<Spanned<Bitrate>>,
    pub(super) close_after: SpannedText,
    pub(super) await_first_packet: Option<bool>,
    pub(super) dscp: DscpTable,
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
pub(super) struct DscpTable {
    pub(super) voice: SpannedText,
    pub(super) video: SpannedText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct BindingTable {
    pub(super) plugin: Spanned<String>,
    pub(super) settings: Option<Spanned<toml::Table>>,
    pub(super) on_fault: Option<Spanned<OnFault>>,
    pub(super) unsigned: Option<bool>,
    pub(super) actions: Option<Vec<Spanned<String>>>,
    pub(super) metrics: Option<Vec<Spanned<String>>>,
}
