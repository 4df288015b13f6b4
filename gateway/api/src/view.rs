//! JSON views of sessions, rooms, nodes and regions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use evenkeel_control::history::Carried;
use evenkeel_control::{
    IngressAnswer, NodeName, NodeNames, OfferedSession, SessionAnswer, SessionView,
};
use evenkeel_core::NodeStanding;
use evenkeel_media::roq;
use evenkeel_model::{EvidenceSource, Measures, Metric};
use serde::Serialize;

/// The answer to an offer.
#[derive(Serialize)]
pub(super) struct OpenedView {
    /// `s17`.
    id: String,
    room: Arc<str>,
    scenario: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<UdpView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quic: Option<QuicView>,
    /// Best first.
    route: Vec<HopView>,
    /// The decider by hook.
    decided_by: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct UdpView {
    addresses: [SocketAddr; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    rtcp: Option<[SocketAddr; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ufrag: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Box<str>>,
}

#[derive(Serialize)]
struct QuicView {
    addresses: [SocketAddr; 1],
    alpn: &'static str,
    certificate_sha256: String,
    /// Decimal text: JavaScript numbers have 53 bits, flow identifiers 62.
    flow_to_gateway: String,
    flow_from_gateway: String,
}

impl OpenedView {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn of(
        opened: SessionAnswer,
        wanted: &OfferedSession,
        names: &NodeNames,
    ) -> OpenedView {
        let (udp, quic) = match opened.ingress {
            IngressAnswer::Udp { address, rtcp, credentials } => {
                let (ufrag, password) = credentials.unzip();
                let rtcp = rtcp.map(|rtcp| [rtcp]);
                (Some(UdpView { addresses: [address], rtcp, ufrag, password }), None)
            }
            IngressAnswer::Quic {
                address,
                certificate_sha256,
                flow_to_gateway,
                flow_from_gateway,
            } => {
                let quic = QuicView {
                    addresses: [address],
                    alpn: str::from_utf8(roq::ALPN).expect("a protocol's name is ASCII"),
                    certificate_sha256: HEXLOWER.encode(&certificate_sha256),
                    flow_to_gateway: flow_to_gateway.to_string(),
                    flow_from_gateway: flow_from_gateway.to_string(),
                };
                (None, Some(quic))
            }
        };
        OpenedView {
            id: opened.session.to_string(),
            room: Arc::clone(&wanted.room),
            scenario: Arc::clone(&wanted.scenario),
            udp,
            quic,
            route: HopView::route(&opened.route, names),
            decided_by: BTreeMap::from([
                ("admission", opened.admitted_by.to_string()),
                ("routing", opened.routed_by.to_string()),
            ]),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct HopView {
    pub(super) node: Arc<str>,
    pub(super) region: Arc<str>,
    pub(super) zone: Arc<str>,
    pub(super) incarnation: u32,
}

impl HopView {
    pub(super) fn of(hop: evenkeel_model::Hop, names: &NodeNames) -> HopView {
        let NodeName { node, region, zone } = names.of_hop(hop);
        HopView { node, region, zone, incarnation: hop.incarnation.0 }
    }

    fn route(hops: &[evenkeel_model::Hop], names: &NodeNames) -> Vec<HopView> {
        hops.iter().map(|&hop| HopView::of(hop, names)).collect()
    }
}

/// Measured values by metric name; values that were not measured are omitted.
fn measured(measures: &Measures) -> BTreeMap<&'static str, u32> {
    let known = Metric::ALL.iter().filter_map(|&metric| Some((metric, measures.measured(metric)?)));
    known.map(|(metric, value)| (metric.key(), value)).collect()
}

#[derive(Serialize)]
pub(super) struct LiveSessionView {
    id: String,
    room: Arc<str>,
    scenario: Arc<str>,
    mode: &'static str,
    ingress: &'static str,
    /// The hop that carries the session's packets; null without one.
    hop: Option<HopView>,
    rung: u8,
    cap_kbps: Option<u32>,
    measures: BTreeMap<&'static str, u32>,
    totals: Carried,
    age_ms: u64,
}

impl LiveSessionView {
    pub(super) fn of(view: &SessionView, names: &NodeNames) -> LiveSessionView {
        let session = &view.standing;
        LiveSessionView {
            id: session.session.to_string(),
            room: Arc::clone(&session.room),
            scenario: Arc::clone(&session.scenario),
            mode: session.mode.name(),
            ingress: session.transport.name(),
            hop: session.hop.map(|hop| HopView::of(hop, names)),
            rung: session.plan.rung(),
            cap_kbps: Some(session.plan.cap_kbps).filter(|&cap| cap > 0),
            measures: measured(&session.measures),
            totals: Carried::from(&view.totals),
            age_ms: session.age.as_millis() as u64,
        }
    }
}

#[derive(Serialize)]
pub(super) struct RoomView {
    room: Arc<str>,
    id: String,
    scenario: Arc<str>,
    mode: &'static str,
    /// `hot` or `cold` while the second hop of a hitless room is missing or has no reserved capacity.
    effective_mode: &'static str,
    sessions: Vec<String>,
    /// Best first.
    route: Vec<HopView>,
    /// The hop that carries the session's packets; null without one.
    hop: Option<HopView>,
    placed_by: String,
}

impl RoomView {
    pub(super) fn of(room: &evenkeel_core::RoomStanding, names: &NodeNames) -> RoomView {
        RoomView {
            room: Arc::clone(&room.name),
            id: room.room.to_string(),
            scenario: Arc::clone(&room.scenario),
            mode: room.mode.name(),
            effective_mode: room.kept.name(),
            sessions: room.sessions.iter().map(ToString::to_string).collect(),
            route: HopView::route(&room.route, names),
            hop: room.hop.map(|hop| HopView::of(hop, names)),
            placed_by: room.placed_by.to_string(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct NodeView {
    #[serde(flatten)]
    hop: HopView,
    health: &'static str,
    /// `probe`, `cohort`…
    suspected_by: Vec<&'static str>,
    draining: bool,
    /// The node was removed from the list; the gateway forgets it once it carries no room.
    leaving: bool,
    /// An operator ejected the node; `:uneject` ends that.
    ejected: bool,
    /// Measured capacity, kbit/s.
    capacity_kbps: u64,
    opening: u32,
    queued: u32,
    load_permille: u32,
    /// Load reported by the node, thousandths.
    reported_permille: Option<u16>,
    rooms: u32,
    round_trip_us: Option<u64>,
}

impl NodeView {
    pub(super) fn of(node: &NodeStanding, names: &NodeNames) -> NodeView {
        let witnesses = EvidenceSource::ALL.into_iter().zip(node.suspected_by);
        NodeView {
            hop: HopView::of(node.hop, names),
            health: node.health.name(),
            suspected_by: witnesses
                .filter_map(|(witness, accuses)| accuses.then_some(witness.name()))
                .collect(),
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

#[derive(Serialize)]
pub(super) struct RegionView {
    region: Arc<str>,
    /// `closed`, `open` or `half-open`.
    breaker: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    half_open_in_ms: Option<u64>,
    /// `auto`, `force` or `forbid`.
    failback: &'static str,
    nodes: u32,
    /// Nodes that accept rooms.
    nodes_up: u32,
    nodes_draining: u32,
    rooms: u32,
    /// Rooms of this home region that are in other regions or at standby nodes.
    rooms_displaced: u32,
}

impl RegionView {
    pub(super) fn of(region: &evenkeel_core::RegionStanding, names: &NodeNames) -> RegionView {
        RegionView {
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
