//! The blast radius of a loss that an operator asks about, computed by a copy of the core.

mod gateway;
mod policies;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use evenkeel_alerts::AlertHandle;
use evenkeel_contract::blast::{
    Blast, BlastQuery, CarrierLoss, ExpectedOutage, LabelLoss, LoadChange, ModePrediction,
    NodesLoss, RoomCount, RoomLoss, ScenarioLoss, UnavailableNode,
};
use evenkeel_contract::errors::ErrorCode;
use evenkeel_control::{ControlError, LossFigures, NodeName, NodeNames, by_load};
use evenkeel_core::{BlastRadius, NodeStanding};
use evenkeel_model::{Health, Impossible, NodeId};

use super::answers::{self, milliseconds};
use super::context::{ApiContext, ApiState};
use super::error::{ApiError, refused};
use super::operations::is_zone;

/// Maximum number of labels in an answer. The labels with the most sessions come first.
const LABELS_MAX: usize = 20;

/// Time to copy and play a gateway with all its sessions, and for the check of each minute that may run before.
const PLAYED_WITHIN: Duration = Duration::from_secs(50);

pub(super) async fn blast(
    State(shared): ApiState,
    query: Result<Query<BlastQuery>, QueryRejection>,
) -> Result<Json<Blast>, ApiError> {
    let Query(query) =
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
    let query = with_what_if(query)?;
    // Each member knows its group.
    let gateway = match &query.gateway {
        Some(name) => Some(gateway::lost_gateway(&shared, name).await?),
        None => None,
    };
    if gateway.is_none() || names_calls(&query) {
        shared.require_owner()?;
    }
    let nodes = shared.ask("", shared.handle.nodes()).await?;
    let lost = lost_nodes(&shared.names, &nodes, &query)?;
    let policies = policies::lost_policies(&shared, &query.policies).await?;
    let carriers = lost_carriers(&shared, &query, &lost).await?;
    // The loss of a carrier may reach no node.
    let (mut loss, mut modes) = (None, None);
    if !lost.is_empty() {
        let mut radii = await_copy(&shared, shared.handle.blast(vec![lost.clone()])).await?;
        // One for the one loss.
        let radius = radii.swap_remove(0);
        let mut view = blast_view(&radius, query.rooms, &shared.names);
        let lost_before = |node: &NodeId| lost.contains(node) && !radius.nodes.contains(node);
        view.lost_before = unavailable(&nodes, lost_before, &shared.names);
        view.unavailable = unavailable(&nodes, |node| !lost.contains(node), &shared.names);
        view.loads.retain(|load| view.unavailable.iter().all(|it| it.node != load.place.node));
        loss = Some(view);
        if query.modes {
            let predicted = await_copy(&shared, shared.handle.predict_modes(lost)).await?;
            modes = Some(predicted.iter().map(mode_view).collect());
        }
    }
    let carriers = (!carriers.is_empty()).then_some(carriers);
    let policies = (!policies.is_empty()).then_some(policies);
    // Services beside the nodes that calls would miss as well.
    let dependencies_down = shared.alerts.as_ref().and_then(AlertHandle::dependencies_down);
    Ok(Json(Blast { carriers, gateway, policies, dependencies_down, loss, modes }))
}

/// Waits for a copy of the gateway that is played.
async fn await_copy<T>(
    shared: &ApiContext,
    asked: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ApiError> {
    let played = tokio::time::timeout(PLAYED_WITHIN, asked).await;
    let played = played.unwrap_or(Err(ControlError::Unavailable));
    played.map_err(|error| refused(error, "", &shared.names))
}

/// The chosen nodes that are ejected, down or draining. A cold node is started when rooms need it, and is left out.
fn unavailable(
    nodes: &[NodeStanding],
    is_chosen: impl Fn(&NodeId) -> bool,
    names: &NodeNames,
) -> Vec<UnavailableNode> {
    let chosen = nodes.iter().filter(|node| is_chosen(&node.hop.node));
    let state = |node: &NodeStanding| match node.health {
        _ if node.ejected => Some("ejected"),
        Health::Down => Some("down"),
        _ if node.draining => Some("draining"),
        _ => None,
    };
    let named = |node: &NodeStanding| {
        let state = state(node)?.into();
        Some(UnavailableNode { node: names.of_node(node.hop.node).node, state })
    };
    chosen.filter_map(named).collect()
}

/// The nodes that the request names.
fn lost_nodes(
    names: &NodeNames,
    nodes: &[NodeStanding],
    query: &BlastQuery,
) -> Result<BTreeSet<NodeId>, ApiError> {
    let listed: Vec<_> =
        nodes.iter().map(|node| (node.hop.node, names.of_node(node.hop.node))).collect();
    let mut lost = BTreeSet::new();
    for NamedPlaces { names: said, reason, is_at, shown } in places_of(query) {
        for name in said.split(',').filter(|name| !name.is_empty()) {
            let found = listed.iter().filter(|(_, at)| is_at(at, name));
            let found: BTreeMap<NodeId, String> = found.map(|(id, at)| (*id, shown(at))).collect();
            let places: BTreeSet<&String> = found.values().collect();
            if places.len() != 1 {
                let known: BTreeSet<String> = listed.iter().map(|(_, at)| shown(at)).collect();
                let known = known.into_iter().map(String::into_boxed_str).collect();
                let unfound = ControlError::Unfound { reason, known };
                return Err(refused(unfound, name, names));
            }
            lost.extend(found.into_keys());
        }
    }
    let carriers = carriers_of(query);
    let is_lost = |at: &NodeName| at.carrier.as_deref().is_some_and(|it| carriers.contains(it));
    lost.extend(listed.iter().filter(|(_, at)| is_lost(at)).map(|(id, _)| *id));
    let others = by_load(nodes).into_iter().filter(|node| !lost.contains(node));
    let busiest: Vec<NodeId> = others.take(query.busiest).collect();
    lost.extend(busiest);
    if lost.is_empty() && query.busiest > 0 {
        return Err(ApiError::new(ErrorCode::NotFound, "no node runs"));
    }
    if query.gateway.is_none() && !names_calls(query) {
        let right = "expected a name in `nodes`, `zones`, `regions`, `carriers`, `gateway` or `policies`, or a number in `busiest`";
        return Err(ApiError::new(ErrorCode::BadRequest, right));
    }
    Ok(lost)
}

async fn lost_carriers(
    shared: &ApiContext,
    query: &BlastQuery,
    lost: &BTreeSet<NodeId>,
) -> Result<Vec<CarrierLoss>, ApiError> {
    let mut losses = Vec::new();
    let carriers = carriers_of(query);
    if carriers.is_empty() {
        return Ok(losses);
    }
    let status = shared.ask("", shared.handle.status()).await?;
    let named = status.carriers.values().flatten();
    let all: BTreeSet<SocketAddr> = named.chain(&status.udp).chain(&status.quic).copied().collect();
    for (carrier, clients) in shared.ask("", shared.handle.clients_of(&carriers)).await? {
        let addresses = status.carriers.get(carrier);
        let nodes = lost.iter().map(|node| shared.names.of_node(*node));
        let nodes = nodes.filter(|at| at.carrier.as_deref() == Some(carrier));
        let nodes: Vec<_> = nodes.map(|at| at.node).collect();
        if addresses.is_none() && clients.is_empty() && nodes.is_empty() {
            let message = format!(
                "no node and no address in `advertise` has the carrier `{carrier}`, and no session has it as its label"
            );
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        let addresses: BTreeSet<SocketAddr> = addresses.into_iter().flatten().copied().collect();
        let ids = || clients.keys().map(ToString::to_string).collect();
        losses.push(CarrierLoss {
            carrier: carrier.to_owned(),
            nodes,
            rooms: clients.values().collect::<BTreeSet<_>>().len(),
            sessions: clients.len(),
            other_addresses: all.difference(&addresses).copied().collect(),
            addresses,
            details: query.rooms.then(ids),
        });
    }
    Ok(losses)
}

/// Names of one kind in a request, and the nodes that they stand for.
struct NamedPlaces<'a> {
    names: &'a str,
    /// The error of an unknown name, or of one that several places have.
    reason: Impossible,
    is_at: fn(&NodeName, &str) -> bool,
    /// The full name of the place of a node.
    shown: fn(&NodeName) -> String,
}

/// Adds the losses of `what_if` to those of the other keys.
fn with_what_if(mut query: BlastQuery) -> Result<BlastQuery, ApiError> {
    for part in std::mem::take(&mut query.what_if).split(',').filter(|part| !part.is_empty()) {
        let wrong = || {
            let right = "`nodes=-1`, `node=NAME`, `zone=NAME`, `region=NAME` or `carrier=NAME`";
            ApiError::field("what_if", format!("found `{part}`, expected {right}"))
        };
        let (key, value) = part.split_once('=').ok_or_else(wrong)?;
        let names = match key {
            "nodes" => {
                let fewer = value.strip_prefix('-').and_then(|fewer| fewer.parse::<u16>().ok());
                let fewer = usize::from(fewer.ok_or_else(wrong)?);
                query.busiest = query.busiest.saturating_add(fewer);
                continue;
            }
            "node" => &mut query.nodes,
            "zone" => &mut query.zones,
            "region" => &mut query.regions,
            "carrier" => &mut query.carriers,
            _ => return Err(wrong()),
        };
        names.push(',');
        names.push_str(value);
    }
    Ok(query)
}

/// The query names more than a gateway.
fn names_calls(query: &BlastQuery) -> bool {
    let BlastQuery { nodes, zones, regions, carriers, policies, busiest, .. } = query;
    let is_named = |names: &String| names.split(',').any(|name| !name.is_empty());
    *busiest > 0 || [nodes, zones, regions, carriers, policies].into_iter().any(is_named)
}

fn carriers_of(query: &BlastQuery) -> BTreeSet<&str> {
    query.carriers.split(',').filter(|name| !name.is_empty()).collect()
}

fn places_of(query: &BlastQuery) -> [NamedPlaces<'_>; 3] {
    [
        NamedPlaces {
            names: &query.nodes,
            reason: Impossible::NoSuchNode,
            is_at: |at, name| *at.node == *name,
            shown: |at| at.node.to_string(),
        },
        NamedPlaces {
            names: &query.zones,
            reason: Impossible::NoSuchZone,
            is_at: is_zone,
            shown: |at| format!("{}/{}", at.region, at.zone),
        },
        NamedPlaces {
            names: &query.regions,
            reason: Impossible::NoSuchRegion,
            is_at: |at, name| *at.region == *name,
            shown: |at| at.region.to_string(),
        },
    ]
}

fn blast_view(blast: &BlastRadius, lists_rooms: bool, names: &NodeNames) -> NodesLoss {
    let mut scenarios: BTreeMap<Arc<str>, ScenarioLoss> = BTreeMap::new();
    let mut targets: BTreeMap<NodeId, RoomCount> = BTreeMap::new();
    let (mut hit, mut unplaced) = (RoomCount::default(), RoomCount::default());
    for room in &blast.rooms {
        let of_scenario = scenarios.entry(Arc::clone(&room.scenario)).or_default();
        of_scenario.hit.add(room.sessions);
        of_scenario.reduced_sessions += room.reduced;
        hit.add(room.sessions);
        match room.to {
            Some(to) => targets.entry(to).or_default().add(room.sessions),
            None => of_scenario.unplaced.add(room.sessions),
        }
    }
    blast.unplaced().for_each(|room| unplaced.add(room.sessions));
    let loads = blast.loads.iter().map(|load| LoadChange {
        place: answers::place(names.of_node(load.node)),
        takes: targets.get(&load.node).copied().unwrap_or_default(),
        load_permille: load.after_permille,
        load_permille_before: load.before_permille,
    });
    let mut labels: Vec<_> = blast.labels.iter().collect();
    labels.sort_by_key(|(label, sessions)| (Reverse(**sessions), *label));
    let labels = labels.into_iter().take(LABELS_MAX).map(|((label, value), sessions)| LabelLoss {
        label: label.clone(),
        value: value.clone(),
        sessions: *sessions,
    });
    let named = |nodes: &[NodeId]| -> Vec<Arc<str>> {
        nodes.iter().map(|node| names.of_node(*node).node).collect()
    };
    let slowest: Option<Duration> = blast.rooms.iter().filter_map(|room| room.after).max();
    NodesLoss {
        nodes: named(&blast.nodes),
        lost_before: Vec::new(),
        hit,
        unplaced,
        reduced_sessions: blast.rooms.iter().map(|room| room.reduced).sum(),
        slowest_ms: milliseconds(slowest),
        unprotected_rooms: blast.unprotected,
        unprotected_rooms_before: blast.unprotected_before,
        scenarios,
        loads: loads.collect(),
        unavailable: Vec::new(),
        labels: labels.collect(),
        started_nodes: named(&blast.started),
        details: lists_rooms
            .then(|| blast.rooms.iter().map(|room| room_view(room, names)).collect()),
        without_spare: lists_rooms.then(|| blast.without_spare.clone()),
    }
}

fn room_view(room: &evenkeel_core::RoomLoss, names: &NodeNames) -> RoomLoss {
    RoomLoss {
        room: Arc::clone(&room.name),
        scenario: Arc::clone(&room.scenario),
        sessions: room.sessions,
        from: names.of_node(room.from).node,
        to: room.to.map(|to| names.of_node(to).node),
        after_ms: milliseconds(room.after),
        reduced_sessions: room.reduced,
    }
}

/// A loss in a redundancy mode, if all rooms had it.
fn mode_view(predicted: &evenkeel_core::ModePrediction) -> ModePrediction {
    let evenkeel_core::ModePrediction { media_kbps, copied_kbps, .. } = *predicted;
    let figures = LossFigures::from(&predicted.loss);
    let ms = |time: Duration| time.as_micros() as f64 / 1_000.0;
    ModePrediction {
        mode: predicted.mode.name().into(),
        rooms: predicted.rooms,
        rooms_without_spare: predicted.rooms_without_spare,
        needed_kbps: predicted.needed_kbps,
        free_kbps: predicted.free_kbps,
        bandwidth_cost: (media_kbps > 0).then(|| copied_kbps as f64 / media_kbps as f64),
        unplaced_sessions: figures.unplaced_sessions,
        reduced_sessions: figures.reduced_sessions,
        outage_ms: predicted
            .outage
            .map(|outage| ExpectedOutage { p50: ms(outage.median), max: ms(outage.longest) }),
    }
}
