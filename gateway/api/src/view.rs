//! JSON views of sessions, rooms, nodes, regions and rollouts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use evenkeel_control::history::Carried;
use evenkeel_control::{
    IngressAnswer, NodeName, NodeNames, OfferedSession, RolloutReport, SessionAnswer, SessionView,
};
use evenkeel_core::{NodeStanding, RegionStanding, RoomStanding};
use evenkeel_media::roq;
use evenkeel_model::{Decider, EvidenceSource, Measures, Metric};
use serde::Serialize;

/// A JSON object with these fields, in this order.
macro_rules! object {
    ($($(#[$attribute:meta])* $field:ident: $value:expr),* $(,)?) => {{
        #[expect(non_camel_case_types, reason = "a type parameter has the name of its field")]
        let object = {
            #[derive(serde::Serialize)]
            struct JsonObject<$($field),*> {
                $($(#[$attribute])* $field: $field),*
            }
            JsonObject { $($field: $value),* }
        };
        object
    }};
}
pub(super) use object;

/// The answer to an offer.
pub(super) fn opened(
    opened: SessionAnswer,
    wanted: &OfferedSession,
    names: &NodeNames,
) -> impl Serialize + use<> {
    let (udp, quic) = match opened.ingress {
        IngressAnswer::Udp { address, rtcp, credentials } => {
            let udp = object! {
                addresses: [address],
                #[serde(flatten)]
                rtcp: rtcp.map(|rtcp| object! { rtcp: [rtcp] }),
                #[serde(flatten)]
                credentials: credentials.map(|(ufrag, password)| {
                    object! { ufrag: ufrag, password: password }
                }),
            };
            (Some(object! { udp: udp }), None)
        }
        IngressAnswer::Quic { address, certificate_sha256, flow_to_gateway, flow_from_gateway } => {
            let quic = object! {
                addresses: [address],
                alpn: str::from_utf8(roq::ALPN).expect("a protocol's name is ASCII"),
                certificate_sha256: HEXLOWER.encode(&certificate_sha256),
                // Decimal text: JavaScript numbers have 53 bits, flow identifiers 62.
                flow_to_gateway: flow_to_gateway.to_string(),
                flow_from_gateway: flow_from_gateway.to_string(),
            };
            (None, Some(object! { quic: quic }))
        }
    };
    object! {
        // `s17`.
        id: opened.session.to_string(),
        room: Arc::clone(&wanted.room),
        scenario: Arc::clone(&wanted.scenario),
        #[serde(flatten)]
        udp: udp,
        #[serde(flatten)]
        quic: quic,
        // Best first.
        route: HopView::route(&opened.route, names),
        decided_by: decided_by(&opened.admitted_by, &opened.routed_by),
    }
}

/// The decider by hook, for a policy with its revision: `call/routing@5f0c5f0c5f0c`.
pub(super) fn decided_by(
    admitted_by: &Decider,
    routed_by: &Decider,
) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("admission", admitted_by.to_string()), ("routing", routed_by.to_string())])
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

pub(super) fn session(view: &SessionView, names: &NodeNames) -> impl Serialize + use<> {
    let session = &view.standing;
    object! {
        id: session.session.to_string(),
        room: Arc::clone(&session.room),
        scenario: Arc::clone(&session.scenario),
        mode: session.mode.name(),
        ingress: session.transport.name(),
        // The hop that carries the session's packets; null without one.
        hop: session.hop.map(|hop| HopView::of(hop, names)),
        rung: session.plan.rung(),
        cap_kbps: Some(session.plan.cap_kbps).filter(|&cap| cap > 0),
        measures: measured(&session.measures),
        totals: Carried::from(&view.totals),
        age_ms: session.age.as_millis() as u64,
    }
}

pub(super) fn room(room: &RoomStanding, names: &NodeNames) -> impl Serialize + use<> {
    object! {
        room: Arc::clone(&room.name),
        id: room.room.to_string(),
        scenario: Arc::clone(&room.scenario),
        mode: room.mode.name(),
        // `hot` or `cold` while the second hop of a hitless room is missing or has no reserved capacity.
        effective_mode: room.kept.name(),
        sessions: room.sessions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        // Best first.
        route: HopView::route(&room.route, names),
        // The hop that carries the packets of the room's sessions; null without one.
        hop: room.hop.map(|hop| HopView::of(hop, names)),
        placed_by: room.placed_by.to_string(),
    }
}

pub(super) fn node(node: &NodeStanding, names: &NodeNames) -> impl Serialize + use<> {
    let witnesses = EvidenceSource::ALL.into_iter().zip(node.suspected_by);
    let accusing = witnesses.filter_map(|(witness, accuses)| accuses.then_some(witness.name()));
    object! {
        #[serde(flatten)]
        hop: HopView::of(node.hop, names),
        health: node.health.name(),
        // `probe`, `cohort`…
        suspected_by: accusing.collect::<Vec<_>>(),
        draining: node.draining,
        // The node was removed from the list; the gateway forgets it once it carries no room.
        leaving: node.leaves,
        // An operator ejected the node; `:uneject` ends that.
        ejected: node.ejected,
        // Measured capacity, kbit/s.
        capacity_kbps: node.capacity_kbps,
        opening: node.opening,
        queued: node.waiting,
        load_permille: node.load_permille,
        // Load reported by the node, thousandths.
        reported_permille: node.reported_permille,
        rooms: node.rooms,
        round_trip_us: node.round_trip.map(|trip| trip.as_micros() as u64),
    }
}

pub(super) fn region(region: &RegionStanding, names: &NodeNames) -> impl Serialize + use<> {
    object! {
        region: names.of_region(region.region),
        // `closed`, `open` or `half-open`.
        breaker: region.breaker.name(),
        #[serde(flatten)]
        half_open_in_ms: region.opens_for.map(|time| object! { half_open_in_ms: time.as_millis() as u64 }),
        // `auto`, `force` or `forbid`.
        failback: region.failback.name(),
        nodes: region.nodes,
        // Nodes that accept rooms.
        nodes_up: region.nodes_up,
        nodes_draining: region.nodes_draining,
        rooms: region.rooms,
        // Rooms of this home region that are in other regions or at standby nodes.
        rooms_displaced: region.away,
    }
}

/// The outcome of a push, a step or a rollback.
pub(super) fn rollout(rollout: RolloutReport) -> impl Serialize {
    let stage = rollout.stage.map(|staged| {
        object! {
            // `shadow` or `canary`.
            stage: staged.stage.name(),
            percent: staged.stage.percent(),
            paused: staged.paused,
            // The next share; at 100 the revision is active.
            next_percent: staged.next,
            // Minimum time until the next share; omitted if the rollout needs `promote`.
            #[serde(flatten)]
            next_in_ms: milliseconds(staged.next_in).map(|ms| object! { next_in_ms: ms }),
        }
    });
    object! {
        outcome: rollout.outcome.name(),
        policy: rollout.policy.to_string(),
        revision: rollout.revision,
        previous: rollout.previous,
        // Code of a refusal: `import`, `unsigned`.
        #[serde(flatten)]
        code: rollout.code.map(|code| object! { code: code }),
        #[serde(flatten)]
        reason: rollout.reason.map(|reason| object! { reason: reason }),
        activate_us: rollout.activate.as_micros() as u64,
        // `file`, `signal`, `operator` or `gateway`.
        by: rollout.by.name(),
        #[serde(flatten)]
        stage: stage,
    }
}

pub(super) fn milliseconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_millis() as u64)
}
