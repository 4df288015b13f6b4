//! What the API shows of sessions, rooms, nodes, policies and the gateway. Control fills it in; the names of the
//! fields are the API's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

/// A session that was opened: what its client needs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Opened {
    /// `s17`.
    pub id: String,
    /// Its room's name.
    pub room: Arc<str>,
    /// Its scenario.
    pub scenario: Arc<str>,
    /// Where to send, for a UDP client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<Udp>,
    /// Where to send, for a QUIC client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<Quic>,
    /// Its room's hops, best first.
    pub route: Vec<Hop>,
    /// Who decided, by hook: `call/routing@5f0c…` or `native`.
    pub decided_by: BTreeMap<&'static str, String>,
}

/// What a UDP client needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Udp {
    /// Where its RTP goes.
    pub addresses: Vec<SocketAddr>,
    /// Where its RTCP goes, if not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rtcp: Vec<SocketAddr>,
    /// Our half of its STUN user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ufrag: Option<String>,
    /// What its STUN checks are made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// What a QUIC client needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Quic {
    /// Where to connect.
    pub addresses: Vec<SocketAddr>,
    /// `roq-14`.
    pub alpn: &'static str,
    /// SHA-256 of the certificate, in hexadecimal.
    pub certificate_sha256: String,
    /// The flow it sends with, in decimal: 62 bits are more than JavaScript counts.
    pub flow_to_gateway: String,
    /// The flow it is sent with, in decimal.
    pub flow_from_gateway: String,
}

/// A step of a route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Hop {
    /// The node's name.
    pub node: Arc<str>,
    /// Where it is.
    pub region: Arc<str>,
    /// Where it is there.
    pub zone: Arc<str>,
    /// As which it was opened.
    pub incarnation: u32,
}

/// A session as it is now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Session {
    /// `s17`.
    pub id: String,
    /// Its room's name.
    pub room: Arc<str>,
    /// Its scenario.
    pub scenario: Arc<str>,
    /// `udp` or `quic`.
    pub ingress: &'static str,
    /// `opening`, `live` or `draining`.
    pub state: &'static str,
    /// Its labels.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Its room's hops, best first.
    pub route: Vec<Hop>,
    /// Which of them its packets take; `None`: none is usable.
    pub hop: Option<usize>,
    /// The degradation rung; 0 is undegraded.
    pub rung: u8,
    /// What its sender is capped to, kbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_kbps: Option<u32>,
    /// Whether its video is dropped.
    pub voice_only: bool,
    /// What was measured, by the registry's names and in its units.
    pub measures: BTreeMap<&'static str, u32>,
    /// Who decided, by hook.
    pub decided_by: BTreeMap<&'static str, String>,
}

/// A part of the list of sessions.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sessions {
    /// In the order of their ids.
    pub sessions: Vec<Session>,
    /// What to ask for next, as `after`; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A room as it is now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Room {
    /// Its name.
    pub room: Arc<str>,
    /// Its scenario.
    pub scenario: Arc<str>,
    /// Its sessions' ids.
    pub sessions: Vec<String>,
    /// Its hops, best first.
    pub route: Vec<Hop>,
    /// Which of them its packets take; `None`: none is usable.
    pub hop: Option<usize>,
    /// Counts its routes.
    pub version: u64,
    /// Who placed it.
    pub decided_by: String,
}

/// A node as it is now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub node: Arc<str>,
    /// Where it is.
    pub region: Arc<str>,
    /// Where it is there.
    pub zone: Arc<str>,
    /// Its media port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// `plain` or `agent`.
    pub driver: &'static str,
    /// `up`, `suspect`, `wary` or `down`.
    pub health: &'static str,
    /// How often it has come up.
    pub incarnation: u32,
    /// Whether it takes no new rooms.
    pub draining: bool,
    /// Who accuses it.
    pub witnesses: Vec<&'static str>,
    /// What was measured, by the registry's names and in its units.
    pub measures: BTreeMap<&'static str, u32>,
}

/// A policy as it is now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Policy {
    /// `call/routing`.
    pub policy: String,
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub plugin_version: String,
    /// Which revision answers.
    pub revision: Arc<str>,
    /// Which revision a rollback brings back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Arc<str>>,
    /// The fault it stands in; none while it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Questions asked.
    pub calls: u64,
    /// Questions it failed.
    pub faults: u64,
}

/// What became of a push or a rollback.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rollout {
    /// What became of it.
    pub outcome: RolloutOutcome,
    /// `call/routing`.
    pub policy: String,
    /// The revision that answers now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Arc<str>>,
    /// The revision that answered before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Arc<str>>,
    /// Why it was refused or rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From the last byte received to the first question the new revision may get.
    pub activate_us: u64,
}

/// What became of a push or a rollback.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutOutcome {
    /// It answers from now on.
    Activated,
    /// It was not taken; nothing changed.
    Refused,
    /// The previous revision answers again.
    RolledBack,
}

/// The gateway as it is now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Status {
    /// `serving` or `draining`.
    pub state: State,
    /// The gateway's version.
    pub version: &'static str,
    /// Since it started.
    pub uptime_ms: u64,
    /// Sessions now.
    pub sessions: usize,
    /// Rooms now.
    pub rooms: usize,
    /// Nodes by health.
    pub nodes: BTreeMap<&'static str, usize>,
    /// What is counted, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Whether new sessions are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// They are.
    Serving,
    /// The gateway is shutting down.
    Draining,
}
