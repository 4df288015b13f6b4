//! Rooms, nodes, zones, regions, clients and the log: lists and verbs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use evenkeel_control::{
    BreakerTarget, ControlError, NodeName, NodeNames, NodeOrder, Operation, OperationTarget,
};
use evenkeel_core::{Failback, Impossible, NodeStanding, RegionStanding};
use evenkeel_media::trunk::message::NodeFault;
use evenkeel_model::{BreakerMode, ClientGroup, ClientLabel, EvidenceSource, Health, NodeNeed};
use evenkeel_process::unix_us;
use evenkeel_telemetry::check_log_filter;
use serde::{Deserialize, Serialize};

use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode, refused};
use super::events;
use super::object::{milliseconds, object};
use super::offer::NAME_MAX;
use super::request::{read_deadline, unknown_verb, verb};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveBody {
    node: Box<str>,
}

pub(super) async fn room_verb(
    State(shared): ApiState,
    Path(target): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (room, verb) = verb(&target)?;
    match verb {
        "move" => {
            let MoveBody { node } = shared.parse(body).await?;
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

pub(super) async fn nodes(State(shared): ApiState) -> Result<Json<impl Serialize>, ApiError> {
    let all = shared.ask("", shared.handle.nodes()).await?;
    let nodes: Vec<_> = all.iter().map(|node| node_view(node, &shared.names)).collect();
    Ok(Json(object! { nodes: nodes }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakNode {
    #[serde(with = "FaultBody")]
    how: NodeFault,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", remote = "NodeFault")]
enum FaultBody {
    Kill,
    Hang,
    Wake,
    Cut,
    Heal,
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
            let DrainBody { deadline, force } = shared.parse_if_any(body).await?;
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
            let ForceBody { force } = shared.parse_if_any(body).await?;
            require_another(&shared, force, |at| *at.node == *name).await?;
            shared.decide(name, handle.operate(Operation::Eject(name.into()))).await?;
        }
        "uneject" => shared.decide(name, handle.operate(Operation::Return(name.into()))).await?,
        "start" => shared.ask(name, handle.order(name.into(), NodeOrder::Start)).await?,
        "break" => {
            shared.require_drills()?;
            let BreakNode { how } = shared.parse(body).await?;
            shared.ask(name, handle.order(name.into(), NodeOrder::Break(how))).await?;
        }
        other => {
            let right = "`drain`, `undrain`, `eject`, `uneject`, `start` or `break`";
            return Err(unknown_verb(other, right));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn regions(State(shared): ApiState) -> Result<Json<impl Serialize>, ApiError> {
    let all = shared.ask("", shared.handle.regions()).await?;
    let regions: Vec<_> = all.iter().map(|region| region_view(region, &shared.names)).collect();
    Ok(Json(object! { regions: regions }))
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
            let DrainBody { deadline, force } = shared.parse_if_any(body).await?;
            let within = deadline.as_deref().map(read_deadline).transpose()?;
            require_another(&shared, force, |at| *at.region == *name).await?;
            Operation::Drain { place, draining: true, within }
        }
        "undrain" => Operation::Drain { place, draining: false, within: None },
        "failback" => Operation::Failback(Some(name.into()), failback(&shared, body).await?),
        "breaker" => {
            let BreakerBody { mode } = shared.parse(body).await?;
            Operation::Breaker(BreakerTarget::Region(name.into()), mode)
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
        ApiError::new(
            ApiErrorCode::NotFound,
            format!("found `{label}` `{value}`, expected {right}"),
        )
    })?;
    let BreakerBody { mode } = shared.parse(body).await?;
    let group = ClientGroup { label, value: value.into() };
    let operation = Operation::Breaker(BreakerTarget::Clients(group), mode);
    shared.decide(value, shared.handle.operate(operation)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn zones(State(shared): ApiState) -> Result<Json<impl Serialize>, ApiError> {
    let all = shared.ask("", shared.handle.nodes()).await?;
    let mut zones: BTreeMap<(Arc<str>, Arc<str>), Vec<&NodeStanding>> = BTreeMap::new();
    for node in &all {
        let NodeName { region, zone, .. } = shared.names.of_node(node.hop.node);
        zones.entry((region, zone)).or_default().push(node);
    }
    let zones = zones.iter().map(|((region, zone), nodes)| zone_view(region, zone, nodes));
    let zones: Vec<_> = zones.collect();
    Ok(Json(object! { zones: zones }))
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
            let DrainBody { deadline, force } = shared.parse_if_any(body).await?;
            let within = deadline.as_deref().map(read_deadline).transpose()?;
            require_another(&shared, force, is_there).await?;
            Operation::Drain { place, draining: true, within }
        }
        "undrain" => Operation::Drain { place, draining: false, within: None },
        "eject" => {
            let ForceBody { force } = shared.parse_if_any(body).await?;
            require_another(&shared, force, is_there).await?;
            Operation::EjectZone(name.into())
        }
        "uneject" => Operation::ReturnZone(name.into()),
        "breaker" => {
            let BreakerBody { mode } = shared.parse(body).await?;
            Operation::Breaker(BreakerTarget::Zone(name.into()), mode)
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

pub(super) async fn log(State(shared): ApiState) -> Json<impl Serialize> {
    // Null: as the environment of the process says.
    Json(object! { filter: shared.handle.log_filter.borrow().clone() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogBody {
    filter: Option<Box<str>>,
}

pub(super) async fn set_log(State(shared): ApiState, body: Body) -> Result<StatusCode, ApiError> {
    let LogBody { filter } = shared.parse(body).await?;
    let checked = filter.as_deref().map(check_log_filter).transpose();
    checked.map_err(|wrong| ApiError::field("filter", wrong))?;
    shared.decide("", shared.handle.operate(Operation::LogFilter(filter))).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    deadline: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ForceBody {
    force: bool,
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
            Err(ApiError::new(ApiErrorCode::Conflict, format!("{found}: {right}")))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerBody {
    mode: BreakerMode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModeBody {
    mode: String,
}

async fn failback(shared: &ApiContext, body: Body) -> Result<Failback, ApiError> {
    let ModeBody { mode } = shared.parse(body).await?;
    let found = Failback::ALL.into_iter().find(|known| known.name() == mode);
    found.ok_or_else(|| {
        ApiError::field("mode", format!("found `{mode}`, expected `auto`, `force` or `forbid`"))
    })
}

fn node_view(node: &NodeStanding, names: &NodeNames) -> impl Serialize + use<> {
    let witnesses = EvidenceSource::ALL.into_iter().zip(node.suspected_by);
    let accusing = witnesses.filter_map(|(witness, accuses)| accuses.then_some(witness.name()));
    object! {
        #[serde(flatten)]
        hop: events::hop(node.hop, names),
        health: node.health.name(),
        // `probe`, `cohort`…
        suspected_by: accusing.collect::<Vec<_>>(),
        draining: node.draining,
        // The node was removed from the list; the gateway forgets it once it carries no room.
        leaving: node.leaves,
        // An operator ejected the node; `:uneject` ends that.
        ejected: node.ejected,
        // The gateway starts it, or started it: it counts in the budget of `[elastic]`.
        started: node.started,
        // It drains in order to be stopped, or was told to stop.
        stopping: node.stopping,
        // Of a node with `stop_after` that the gateway started: `rooms`, `stranded-rooms`, `load` or `reserves`.
        needed_for?: node.need.map(NodeNeed::name),
        // Measured capacity, kbit/s.
        capacity_kbps: node.capacity_kbps,
        opening: node.opening,
        queued: node.waiting,
        load_permille: node.load_permille,
        // Without reserves.
        carried_permille: (1_000 * node.carried_kbps).checked_div(node.capacity_kbps).unwrap_or(0),
        // Load reported by the node, thousandths.
        reported_permille: node.reported_permille,
        // Memory of the node's process, thousandths of the memory that it may use. Null if no agent reports it.
        memory_permille: node.process.map(|process| process.memory_permille),
        // The start of that process, to a second.
        process_started_us: node.process.map(|process| {
            let age_us = process.started.elapsed().as_micros() as u64;
            unix_us(SystemTime::now()).saturating_sub(age_us)
        }),
        rooms: node.rooms,
        round_trip_us: node.round_trip.map(|trip| trip.as_micros() as u64),
    }
}

fn zone_view(
    region: &Arc<str>,
    zone: &Arc<str>,
    nodes: &[&NodeStanding],
) -> impl Serialize + use<> {
    let takes_rooms = |node: &&&NodeStanding| {
        !matches!(node.health, Health::Down | Health::Cold) && !node.draining
    };
    let capacity: u64 = nodes.iter().map(|node| node.capacity_kbps).sum();
    let load: u64 =
        nodes.iter().map(|node| node.capacity_kbps * u64::from(node.load_permille)).sum();
    object! {
        region: Arc::clone(region),
        zone: Arc::clone(zone),
        nodes: nodes.len(),
        // Nodes that accept rooms.
        nodes_up: nodes.iter().filter(takes_rooms).count(),
        nodes_draining: nodes.iter().filter(|node| node.draining).count(),
        nodes_ejected: nodes.iter().filter(|node| node.ejected).count(),
        // As of a region.
        breaker: nodes.first().map(|node| node.zone_breaker.name()),
        breaker_mode: nodes.first().map(|node| node.zone_breaker_mode.name()),
        rooms: nodes.iter().map(|node| node.rooms).sum::<u32>(),
        capacity_kbps: capacity,
        load_permille: load.checked_div(capacity).unwrap_or(0),
    }
}

fn region_view(region: &RegionStanding, names: &NodeNames) -> impl Serialize + use<> {
    object! {
        region: names.of_region(region.region),
        // `closed`, `open` or `half-open`.
        breaker: region.breaker.name(),
        // `auto`, or `open` or `closed` if an operator holds it.
        breaker_mode: region.breaker_mode.name(),
        half_open_in_ms?: milliseconds(region.half_open_in),
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
