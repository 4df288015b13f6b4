//! Rooms, nodes, zones, regions, clients and the log: lists and verbs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::gateway::{LogFilter, LogRequest};
use evenkeel_contract::nodes::{Node, NodeList, Region, RegionList, Zone, ZoneList};
use evenkeel_contract::operations::{
    BreakRequest, BreakerMode, BreakerRequest, DrainRequest, EjectRequest, FailbackRequest,
    MoveRequest, NodeFault,
};
use evenkeel_control::{
    BreakerTarget, ControlError, NodeName, NodeNames, NodeOrder, Operation, OperationTarget,
};
use evenkeel_core::{Failback, NodeStanding, RegionStanding};
use evenkeel_model::{ClientGroup, ClientLabel, EvidenceSource, Health, Impossible};
use evenkeel_process::unix_us;
use evenkeel_telemetry::check_log_filter;

use super::answers::{self, milliseconds};
use super::context::{ApiContext, ApiState};
use super::error::{ApiError, refused};
use super::offer::NAME_MAX;
use super::request::{read_deadline, unknown_verb, verb};

pub(super) async fn room_verb(
    State(shared): ApiState,
    Path(target): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (room, verb) = verb(&target)?;
    match verb {
        "move" => {
            let MoveRequest { node } = shared.parse(body).await?;
            let moved = shared.answer(shared.handle.move_room(room.into(), node.clone())).await;
            moved.map_err(|failed| {
                let said = concerned(&failed, room, &node);
                refused(failed, &said, &shared.names)
            })?;
            Ok(StatusCode::ACCEPTED)
        }
        other => Err(unknown_verb(other, "`move`")),
    }
}

/// The text that names the unknown room or node of a failed move, or both.
fn concerned(failed: &ControlError, room: &str, node: &str) -> String {
    match failed {
        ControlError::Impossible(Impossible::NoSuchRoom) => room.to_owned(),
        ControlError::Unfound { reason: Impossible::NoSuchNode, .. } => node.to_owned(),
        _ => format!("{room} to {node}"),
    }
}

pub(super) async fn nodes(State(shared): ApiState) -> Result<Json<NodeList>, ApiError> {
    let all = shared.ask("", shared.handle.nodes()).await?;
    let nodes = all.iter().map(|node| node_view(node, &shared.names)).collect();
    Ok(Json(NodeList { nodes }))
}

pub(super) async fn node_verb(
    State(shared): ApiState,
    Path(target): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (name, verb) = verb(&target)?;
    let handle = &shared.handle;
    match verb {
        "drain" => {
            let DrainRequest { deadline, force } = shared.parse_if_any(body).await?;
            let within = deadline.as_deref().map(read_deadline).transpose()?;
            require_another(&shared, force, |at| *at.node == *name).await?;
            let operation = Operation::Drain {
                place: OperationTarget::Node(name.into()),
                draining: true,
                within,
            };
            shared.decide(name, handle.operate(operation)).await?;
        }
        "undrain" => shared.decide(name, handle.drain_node(name.into(), false)).await?,
        "eject" => {
            let EjectRequest { force } = shared.parse_if_any(body).await?;
            require_another(&shared, force, |at| *at.node == *name).await?;
            shared.decide(name, handle.operate(Operation::Eject(name.into()))).await?;
        }
        "uneject" => shared.decide(name, handle.operate(Operation::Return(name.into()))).await?,
        "start" => shared.ask(name, handle.order(name.into(), NodeOrder::Start)).await?,
        "break" => {
            shared.require_drills()?;
            let BreakRequest { how } = shared.parse(body).await?;
            let order = NodeOrder::Break(fault(how));
            shared.ask(name, handle.order(name.into(), order)).await?;
        }
        other => {
            let right = "`drain`, `undrain`, `eject`, `uneject`, `start` or `break`";
            return Err(unknown_verb(other, right));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn regions(State(shared): ApiState) -> Result<Json<RegionList>, ApiError> {
    let all = shared.ask("", shared.handle.regions()).await?;
    let regions = all.iter().map(|region| region_view(region, &shared.names)).collect();
    Ok(Json(RegionList { regions }))
}

pub(super) async fn region_verb(
    State(shared): ApiState,
    Path(target): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (name, verb) = verb(&target)?;
    let place = OperationTarget::Region(name.into());
    let operation = match verb {
        "drain" => {
            let DrainRequest { deadline, force } = shared.parse_if_any(body).await?;
            let within = deadline.as_deref().map(read_deadline).transpose()?;
            require_another(&shared, force, |at| *at.region == *name).await?;
            Operation::Drain { place, draining: true, within }
        }
        "undrain" => Operation::Drain { place, draining: false, within: None },
        "failback" => Operation::Failback(Some(name.into()), failback(&shared, body).await?),
        "breaker" => {
            let BreakerRequest { mode } = shared.parse(body).await?;
            Operation::Breaker(BreakerTarget::Region(name.into()), breaker_mode(mode))
        }
        other => {
            return Err(unknown_verb(other, "`drain`, `undrain`, `failback` or `breaker`"));
        }
    };
    shared.decide(name, shared.handle.operate(operation)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A verb of the clients with a value of a label.
pub(super) async fn client_verb(
    State(shared): ApiState,
    Path((label, target)): Path<(String, String)>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (value, verb) = verb(&target)?;
    if verb != "breaker" {
        return Err(unknown_verb(verb, "`breaker`"));
    }
    let known = ClientLabel::ALL.into_iter().find(|known| known.name() == label);
    let label = known.filter(|_| (1..=NAME_MAX).contains(&value.len())).ok_or_else(|| {
        let right = format!("`carrier` or `region`, and a value of 1 to {NAME_MAX} bytes");
        ApiError::new(ErrorCode::NotFound, format!("found `{label}` `{value}`, expected {right}"))
    })?;
    let BreakerRequest { mode } = shared.parse(body).await?;
    let group = ClientGroup { label, value: value.into() };
    let operation = Operation::Breaker(BreakerTarget::Clients(group), breaker_mode(mode));
    shared.decide(value, shared.handle.operate(operation)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn zones(State(shared): ApiState) -> Result<Json<ZoneList>, ApiError> {
    let all = shared.ask("", shared.handle.nodes()).await?;
    let mut zones: BTreeMap<(Arc<str>, Arc<str>), Vec<&NodeStanding>> = BTreeMap::new();
    for node in &all {
        let NodeName { region, zone, .. } = shared.names.of_node(node.hop.node);
        zones.entry((region, zone)).or_default().push(node);
    }
    let zones = zones.iter().map(|((region, zone), nodes)| zone_view(region, zone, nodes));
    Ok(Json(ZoneList { zones: zones.collect() }))
}

pub(super) async fn zone_verb(
    State(shared): ApiState,
    Path(target): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (name, verb) = verb(&target)?;
    let place = OperationTarget::Zone(name.into());
    let is_there = |at: &NodeName| is_zone(at, name);
    let operation = match verb {
        "drain" => {
            let DrainRequest { deadline, force } = shared.parse_if_any(body).await?;
            let within = deadline.as_deref().map(read_deadline).transpose()?;
            require_another(&shared, force, is_there).await?;
            Operation::Drain { place, draining: true, within }
        }
        "undrain" => Operation::Drain { place, draining: false, within: None },
        "eject" => {
            let EjectRequest { force } = shared.parse_if_any(body).await?;
            require_another(&shared, force, is_there).await?;
            Operation::EjectZone(name.into())
        }
        "uneject" => Operation::ReturnZone(name.into()),
        "breaker" => {
            let BreakerRequest { mode } = shared.parse(body).await?;
            Operation::Breaker(BreakerTarget::Zone(name.into()), breaker_mode(mode))
        }
        other => {
            let known = "`drain`, `undrain`, `eject`, `uneject` or `breaker`";
            return Err(unknown_verb(other, known));
        }
    };
    shared.decide(name, shared.handle.operate(operation)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The node is in the zone of this name: `eu/a`, or `a`.
pub(super) fn is_zone(at: &NodeName, name: &str) -> bool {
    *at.zone == *name || name.split_once('/') == Some((&*at.region, &*at.zone))
}

pub(super) async fn failback_everywhere(
    State(shared): ApiState,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let operation = Operation::Failback(None, failback(&shared, body).await?);
    shared.decide("", shared.handle.operate(operation)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn log(State(shared): ApiState) -> Json<LogFilter> {
    Json(LogFilter { filter: shared.handle.log_filter.borrow().clone() })
}

pub(super) async fn set_log(State(shared): ApiState, body: Body) -> Result<StatusCode, ApiError> {
    let LogRequest { filter } = shared.parse(body).await?;
    let checked = filter.as_deref().map(check_log_filter).transpose();
    checked.map_err(|wrong| ApiError::field("filter", wrong))?;
    shared.decide("", shared.handle.operate(Operation::LogFilter(filter))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a request that leaves no node that takes rooms. `leaves`: the nodes of the request.
async fn require_another(
    shared: &ApiContext,
    force: bool,
    leaves: impl Fn(&NodeName) -> bool,
) -> Result<(), ApiError> {
    if force {
        return Ok(());
    }
    let nodes = shared.ask("", shared.handle.nodes()).await?;
    // A cold node is started when rooms need it.
    let takes_rooms = |node: &&NodeStanding| {
        node.health != Health::Down && !node.draining && !node.leaves && !node.ejected
    };
    let names = nodes.iter().filter(takes_rooms).map(|node| shared.names.of_node(node.hop.node));
    let (left, kept): (Vec<_>, Vec<_>) = names.partition(leaves);
    match left.first() {
        Some(last) if kept.is_empty() => {
            let found = format!("no other node than `{}` takes rooms", last.node);
            let right = "offers would be refused; `force` (`--force`) does it all the same";
            Err(ApiError::new(ErrorCode::Conflict, format!("{found}: {right}")))
        }
        _ => Ok(()),
    }
}

fn fault(how: NodeFault) -> evenkeel_media::trunk::message::NodeFault {
    use evenkeel_media::trunk::message::NodeFault as Fault;
    match how {
        NodeFault::Kill => Fault::Kill,
        NodeFault::Hang => Fault::Hang,
        NodeFault::Wake => Fault::Wake,
        NodeFault::Cut => Fault::Cut,
        NodeFault::Heal => Fault::Heal,
    }
}

fn breaker_mode(mode: BreakerMode) -> evenkeel_model::BreakerMode {
    match mode {
        BreakerMode::Auto => evenkeel_model::BreakerMode::Auto,
        BreakerMode::Open => evenkeel_model::BreakerMode::Open,
        BreakerMode::Closed => evenkeel_model::BreakerMode::Closed,
    }
}

async fn failback(shared: &ApiContext, body: Body) -> Result<Failback, ApiError> {
    let FailbackRequest { mode } = shared.parse(body).await?;
    let found = Failback::ALL.into_iter().find(|known| known.name() == mode);
    found.ok_or_else(|| {
        ApiError::field("mode", format!("found `{mode}`, expected `auto`, `force` or `forbid`"))
    })
}

fn node_view(node: &NodeStanding, names: &NodeNames) -> Node {
    let witnesses = EvidenceSource::ALL.into_iter().zip(node.suspected_by);
    let accusing = witnesses.filter_map(|(witness, accuses)| accuses.then_some(witness.name()));
    Node {
        hop: answers::hop(node.hop, names),
        health: node.health.name().into(),
        suspected_by: accusing.map(Into::into).collect(),
        draining: node.draining,
        leaving: node.leaves,
        ejected: node.ejected,
        started: node.started,
        stopping: node.stopping,
        needed_for: node.need.map(|need| need.name().into()),
        capacity_kbps: node.capacity_kbps,
        opening: node.opening,
        queued: node.waiting,
        load_permille: node.load_permille,
        carried_permille: (1_000 * node.carried_kbps).checked_div(node.capacity_kbps).unwrap_or(0),
        reported_permille: node.reported_permille,
        memory_permille: node.process.map(|process| process.memory_permille),
        process_started_us: node.process.map(|process| {
            let age_us = process.started.elapsed().as_micros() as u64;
            unix_us(SystemTime::now()).saturating_sub(age_us)
        }),
        rooms: node.rooms,
        round_trip_us: node.round_trip.map(|trip| trip.as_micros() as u64),
        loss_ppm: node.loss_ppm,
        impaired_sessions: node.impaired_sessions,
    }
}

fn zone_view(region: &Arc<str>, zone: &Arc<str>, nodes: &[&NodeStanding]) -> Zone {
    let takes_rooms = |node: &&&NodeStanding| {
        !matches!(node.health, Health::Down | Health::Cold) && !node.draining
    };
    let capacity: u64 = nodes.iter().map(|node| node.capacity_kbps).sum();
    let load: u64 =
        nodes.iter().map(|node| node.capacity_kbps * u64::from(node.load_permille)).sum();
    Zone {
        region: Arc::clone(region),
        zone: Arc::clone(zone),
        nodes: nodes.len(),
        nodes_up: nodes.iter().filter(takes_rooms).count(),
        nodes_draining: nodes.iter().filter(|node| node.draining).count(),
        nodes_ejected: nodes.iter().filter(|node| node.ejected).count(),
        breaker: nodes.first().map(|node| node.zone_breaker.name().into()),
        breaker_mode: nodes.first().map(|node| node.zone_breaker_mode.name().into()),
        rooms: nodes.iter().map(|node| node.rooms).sum(),
        capacity_kbps: capacity,
        load_permille: load.checked_div(capacity).unwrap_or(0),
    }
}

fn region_view(region: &RegionStanding, names: &NodeNames) -> Region {
    Region {
        region: names.of_region(region.region),
        breaker: region.breaker.name().into(),
        breaker_mode: region.breaker_mode.name().into(),
        half_open_in_ms: milliseconds(region.half_open_in),
        failback: region.failback.name().into(),
        nodes: region.nodes,
        nodes_up: region.nodes_up,
        nodes_draining: region.nodes_draining,
        rooms: region.rooms,
        rooms_displaced: region.away,
    }
}
