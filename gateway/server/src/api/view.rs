//! JSON views of sessions, rooms, nodes, policies and the gateway.

mod policies;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Measures, Metric, Witness};
use evenkeel_dataplane::worker::Totals;
use evenkeel_media::roq;
use serde::Serialize;

use crate::control::{self, IngressAnswer, Named, Names, SessionRequest};
pub(super) use policies::{Policy, Refusal, Rollout};

/// The answer to an offer.
#[derive(Serialize)]
pub(super) struct Opened {
    /// `s17`.
    id: String,
    room: Arc<str>,
    scenario: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<Udp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quic: Option<Quic>,
    /// Best first.
    route: Vec<Hop>,
    /// By hook.
    decided_by: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Udp {
    addresses: [SocketAddr; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    rtcp: Option<[SocketAddr; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ufrag: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Box<str>>,
}

#[derive(Serialize)]
struct Quic {
    addresses: [SocketAddr; 1],
    alpn: &'static str,
    certificate_sha256: String,
    /// Decimal text: JavaScript numbers have 53 bits, flow identifiers 62.
    flow_to_gateway: String,
    flow_from_gateway: String,
}

impl Opened {
    pub(super) fn of(
        opened: control::SessionAnswer,
        wanted: &SessionRequest,
        names: &Names,
    ) -> Opened {
        let (udp, quic) = match opened.ingress {
            IngressAnswer::Udp { address, rtcp, credentials } => {
                let (ufrag, password) = credentials.unzip();
                let rtcp = rtcp.map(|rtcp| [rtcp]);
                (Some(Udp { addresses: [address], rtcp, ufrag, password }), None)
            }
            IngressAnswer::Quic {
                address,
                certificate_sha256,
                flow_to_gateway,
                flow_from_gateway,
            } => {
                let quic = Quic {
                    addresses: [address],
                    alpn: str::from_utf8(roq::ALPN).expect("a protocol's name is ASCII"),
                    certificate_sha256: hexadecimal(&certificate_sha256),
                    flow_to_gateway: flow_to_gateway.to_string(),
                    flow_from_gateway: flow_from_gateway.to_string(),
                };
                (None, Some(quic))
            }
        };
        Opened {
            id: opened.session.to_string(),
            room: Arc::clone(&wanted.room),
            scenario: Arc::clone(&wanted.scenario),
            udp,
            quic,
            route: Hop::route(&opened.route, names),
            decided_by: BTreeMap::from([
                ("admission", opened.admitted_by.to_string()),
                ("routing", opened.routed_by.to_string()),
            ]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Hop {
    pub(super) node: Arc<str>,
    pub(super) region: Arc<str>,
    pub(super) zone: Arc<str>,
    pub(super) incarnation: u32,
}

impl Hop {
    pub(super) fn of(hop: evenkeel_core::Hop, names: &Names) -> Hop {
        let Named { node, region, zone } = names.of_hop(hop);
        Hop { node, region, zone, incarnation: hop.incarnation.0 }
    }

    fn route(hops: &[evenkeel_core::Hop], names: &Names) -> Vec<Hop> {
        hops.iter().map(|&hop| Hop::of(hop, names)).collect()
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Carried {
    packets_up: u64,
    bytes_up: u64,
    packets_down: u64,
    bytes_down: u64,
    shed: u64,
    lost_up: u64,
    switches: u32,
}

impl From<&Totals> for Carried {
    fn from(totals: &Totals) -> Carried {
        Carried {
            packets_up: totals.packets_up,
            bytes_up: totals.bytes_up,
            packets_down: totals.packets_down,
            bytes_down: totals.bytes_down,
            shed: totals.shed,
            lost_up: totals.lost_up,
            switches: totals.switches,
        }
    }
}

/// Measured values by metric name; unmeasured ones are left out.
fn measured(measures: &Measures) -> BTreeMap<&'static str, u32> {
    let known = Metric::ALL.iter().filter_map(|&metric| Some((metric, measures.measured(metric)?)));
    known.map(|(metric, value)| (metric.key(), value)).collect()
}

#[derive(Serialize)]
pub(super) struct Session {
    id: String,
    room: Arc<str>,
    scenario: Arc<str>,
    mode: &'static str,
    ingress: &'static str,
    /// The hop of its packets; null: none.
    hop: Option<Hop>,
    rung: u8,
    cap_kbps: Option<u32>,
    measures: BTreeMap<&'static str, u32>,
    totals: Carried,
    age_ms: u64,
}

impl Session {
    pub(super) fn of(session: &control::SessionView, names: &Names) -> Session {
        Session {
            id: session.session.to_string(),
            room: Arc::clone(&session.room),
            scenario: Arc::clone(&session.scenario),
            mode: session.mode.name(),
            ingress: session.transport.name(),
            hop: session.hop.map(|hop| Hop::of(hop, names)),
            rung: session.rung,
            cap_kbps: Some(session.cap_kbps).filter(|&cap| cap > 0),
            measures: measured(&session.measures),
            totals: Carried::from(&session.totals),
            age_ms: session.age.as_millis() as u64,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Room {
    room: Arc<str>,
    id: String,
    scenario: Arc<str>,
    mode: &'static str,
    /// `hot` or `cold` while the second hop of a hitless room is missing or has no reserved capacity.
    effective_mode: &'static str,
    sessions: Vec<String>,
    /// Best first.
    route: Vec<Hop>,
    /// The hop of its packets; null: none.
    hop: Option<Hop>,
    placed_by: String,
}

impl Room {
    pub(super) fn of(room: &evenkeel_core::RoomStanding, names: &Names) -> Room {
        Room {
            room: Arc::clone(&room.name),
            id: room.room.to_string(),
            scenario: Arc::clone(&room.scenario),
            mode: room.mode.name(),
            effective_mode: room.kept.name(),
            sessions: room.sessions.iter().map(ToString::to_string).collect(),
            route: Hop::route(&room.route, names),
            hop: room.hop.map(|hop| Hop::of(hop, names)),
            placed_by: room.placed_by.to_string(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Node {
    node: Box<str>,
    region: Box<str>,
    zone: Box<str>,
    incarnation: u32,
    health: &'static str,
    /// `probe`, `cohort`…
    suspected_by: Vec<&'static str>,
    draining: bool,
    /// Removed from the list, and forgotten when it is empty.
    leaving: bool,
    /// By an operator; `:uneject` takes that back.
    ejected: bool,
    /// As measured.
    capacity_kbps: u64,
    /// Sessions that it is opening.
    opening: u32,
    /// Sessions that wait to be opened.
    queued: u32,
    load_permille: u32,
    /// As the node reports it.
    reported_permille: Option<u16>,
    rooms: u32,
    round_trip_us: Option<u64>,
}

impl From<control::NodeView> for Node {
    fn from(node: control::NodeView) -> Node {
        Node {
            node: node.name,
            region: node.region,
            zone: node.zone,
            incarnation: node.incarnation.0,
            health: node.health.name(),
            suspected_by: node.suspected_by.into_iter().map(Witness::name).collect(),
            draining: node.draining,
            leaving: node.leaves,
            ejected: node.ejected,
            capacity_kbps: node.capacity_kbps,
            opening: node.opening,
            queued: node.waiting,
            load_permille: node.load_permille,
            reported_permille: node.reported_permille,
            rooms: node.rooms,
            round_trip_us: node.round_trip.map(|trip| trip.as_micros() as u64),
        }
    }
}

/// A mode, as measured on this gateway.
#[derive(Serialize)]
pub(super) struct Mode {
    mode: &'static str,
    /// Scenarios with this mode.
    scenarios: Vec<Arc<str>>,
    /// Sessions that continued at another hop because their node failed.
    recoveries: u64,
    /// The gap until then, of sessions that received media at the time of the failure.
    recovery_ms: Option<Recovery>,
    /// Packets to clients still missing 500 ms after switches.
    packets_lost: Option<u64>,
    /// Bytes to and from standbys per media byte to and from first hops.
    bandwidth_cost: Option<f64>,
}

#[derive(Serialize)]
struct Recovery {
    p50: f64,
    p99: f64,
    max: f64,
}

impl From<control::ModeView> for Mode {
    fn from(mode: control::ModeView) -> Mode {
        let ms = |time: Duration| time.as_micros() as f64 / 1_000.0;
        let times = mode.recovery_p50.zip(mode.recovery_p99).zip(mode.recovery_max);
        Mode {
            mode: mode.mode.name(),
            scenarios: mode.scenarios,
            recoveries: mode.recoveries,
            recovery_ms: times.map(|((p50, p99), max)| Recovery {
                p50: ms(p50),
                p99: ms(p99),
                max: ms(max),
            }),
            packets_lost: mode.packets_lost,
            bandwidth_cost: mode.bandwidth_cost,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Region {
    region: Arc<str>,
    /// `closed`, `open` or `half-open`.
    breaker: &'static str,
    /// While it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    half_open_in_ms: Option<u64>,
    /// `auto`, `force` or `forbid`.
    failback: &'static str,
    nodes: u32,
    /// That accept rooms.
    nodes_up: u32,
    nodes_draining: u32,
    rooms: u32,
    /// Rooms that belong here but stand in other regions, or at standby nodes.
    rooms_displaced: u32,
}

impl Region {
    pub(super) fn of(region: &evenkeel_core::RegionStanding, names: &Names) -> Region {
        Region {
            region: names.of_region(region.region),
            breaker: region.breaker.name(),
            half_open_in_ms: region.opens_for.map(|time| time.as_millis() as u64),
            failback: region.failback.name(),
            nodes: region.nodes,
            nodes_up: region.nodes_up,
            nodes_draining: region.nodes_draining,
            rooms: region.rooms,
            rooms_displaced: region.away,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Status {
    /// `starting`, `serving` or `draining`.
    state: &'static str,
    version: &'static str,
    region: Box<str>,
    uptime_ms: u64,
    sessions: usize,
    rooms: usize,
    /// Most nodes fell silent at once, and none is marked down for it.
    uplink_suspect: bool,
    policies_failing: Vec<String>,
    packets_to_node: u64,
    packets_to_client: u64,
    bytes_to_node: u64,
    bytes_to_client: u64,
    key_frames_to_node: u64,
    key_frames_to_client: u64,
    /// By reason.
    drops: BTreeMap<&'static str, u64>,
    udp: Vec<SocketAddr>,
    quic: Option<SocketAddr>,
    quic_counts: BTreeMap<&'static str, u64>,
}

impl From<control::Status> for Status {
    fn from(status: control::Status) -> Status {
        Status {
            state: match (status.starting, status.admitting) {
                (true, _) => "starting",
                (false, true) => "serving",
                (false, false) => "draining",
            },
            version: env!("CARGO_PKG_VERSION"),
            region: status.region,
            uptime_ms: status.up.as_millis() as u64,
            sessions: status.sessions,
            rooms: status.rooms,
            uplink_suspect: status.uplink_suspect,
            policies_failing: status.policies_failing.iter().map(ToString::to_string).collect(),
            packets_to_node: status.packets_to_node,
            packets_to_client: status.packets_to_client,
            bytes_to_node: status.bytes_to_node,
            bytes_to_client: status.bytes_to_client,
            key_frames_to_node: status.key_frames_to_node,
            key_frames_to_client: status.key_frames_to_client,
            drops: status.drops.into_iter().collect(),
            udp: status.udp,
            quic: status.quic,
            quic_counts: status.quic_counts.into_iter().collect(),
        }
    }
}
