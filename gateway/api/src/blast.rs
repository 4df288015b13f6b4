//! The blast radius of a loss that an operator asks about, computed by a copy of the core.

mod gateway;
mod modes;
mod policies;
mod room_count;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use evenkeel_alerts::AlertHandle;
use evenkeel_control::{ControlError, NodeName, NodeNames, by_load};
use evenkeel_core::{BlastRadius, Impossible, RoomLoss};
use evenkeel_model::NodeId;
use serde::{Deserialize, Serialize};

use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode, refused};
use super::object::{milliseconds, object};
use super::operations::is_zone;
use room_count::RoomCount;

/// Maximum number of labels in an answer. The labels with the most sessions come first.
const LABELS_MAX: usize = 20;

/// Time to copy and play a gateway with all its sessions, and for the check of each minute that may run before.
const PLAYED_WITHIN: Duration = Duration::from_secs(50);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlastQuery {
    /// Names of nodes, separated by commas.
    #[serde(default)]
    nodes: String,
    /// Names of zones: `a`, or `eu/a` if several regions have a zone of the name.
    #[serde(default)]
    zones: String,
    #[serde(default)]
    regions: String,
    /// Carriers of clients, of advertised addresses and of nodes.
    #[serde(default)]
    carriers: String,
    /// A member of the group; this gateway, if it is empty.
    gateway: Option<String>,
    /// Names of policies: `call/routing`.
    #[serde(default)]
    policies: String,
    /// This many nodes with most load, beside those that are named.
    #[serde(default)]
    busiest: usize,
    /// Further losses: `nodes=-1,zone=b`.
    #[serde(default)]
    what_if: String,
    /// Lists each room.
    #[serde(default)]
    rooms: bool,
    /// Adds the loss in each redundancy mode, if all rooms had it.
    #[serde(default)]
    modes: bool,
}

pub(super) async fn blast(
    State(shared): ApiState,
    query: Result<Query<BlastQuery>, QueryRejection>,
) -> Result<Json<impl Serialize>, ApiError> {
    let Query(mut query) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    query.read_what_if()?;
    // Each member knows its group.
    let gateway = match &query.gateway {
        Some(name) => Some(gateway::lost_gateway(&shared, name).await?),
        None => None,
    };
    if gateway.is_none() || query.names_calls() {
        shared.require_owner()?;
    }
    let lost = lost_nodes(&shared, &query).await?;
    let policies = policies::lost_policies(&shared, &query.policies).await?;
    let carriers = lost_carriers(&shared, &query, &lost).await?;
    // The loss of a carrier may reach no node.
    let (mut loss, mut modes) = (None, None);
    if !lost.is_empty() {
        let mut radii = played(&shared, shared.handle.blast(vec![lost.clone()])).await?;
        // One for the one loss.
        loss = Some(blast_view(&radii.swap_remove(0), query.rooms, &shared.names));
        if query.modes {
            let predicted = played(&shared, shared.handle.predict_modes(lost)).await?;
            modes = Some(predicted.iter().map(modes::view).collect::<Vec<_>>());
        }
    }
    let carriers = (!carriers.is_empty()).then_some(carriers);
    let policies = (!policies.is_empty()).then_some(policies);
    // Services beside the nodes that calls would miss as well.
    let down = shared.alerts.as_ref().and_then(AlertHandle::dependencies_down);
    Ok(Json(object! {
        carriers?: carriers,
        gateway?: gateway,
        policies?: policies,
        dependencies_down?: down,
        #[serde(flatten)]
        loss: loss,
        modes?: modes,
    }))
}

/// Waits for a copy of the gateway that is played.
async fn played<T>(
    shared: &ApiContext,
    asked: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ApiError> {
    let played = tokio::time::timeout(PLAYED_WITHIN, asked).await;
    let played = played.unwrap_or(Err(ControlError::Unavailable));
    played.map_err(|error| refused(error, "", &shared.names))
}

/// The nodes that the request names.
async fn lost_nodes(shared: &ApiContext, query: &BlastQuery) -> Result<BTreeSet<NodeId>, ApiError> {
    let nodes = shared.ask("", shared.handle.nodes()).await?;
    let listed: Vec<_> =
        nodes.iter().map(|node| (node.hop.node, shared.names.of_node(node.hop.node))).collect();
    let mut lost = BTreeSet::new();
    for NamedPlaces { names, reason, is_at, shown } in query.places() {
        for name in names.split(',').filter(|name| !name.is_empty()) {
            let found = listed.iter().filter(|(_, at)| is_at(at, name));
            let found: BTreeMap<NodeId, String> = found.map(|(id, at)| (*id, shown(at))).collect();
            let places: BTreeSet<&String> = found.values().collect();
            if places.len() != 1 {
                let known: BTreeSet<String> = listed.iter().map(|(_, at)| shown(at)).collect();
                let known = known.into_iter().map(String::into_boxed_str).collect();
                let unfound = ControlError::Unfound { reason, known };
                return Err(refused(unfound, name, &shared.names));
            }
            lost.extend(found.into_keys());
        }
    }
    let carriers: BTreeSet<&str> = query.lost_carriers().collect();
    let is_lost = |at: &NodeName| at.carrier.as_deref().is_some_and(|it| carriers.contains(it));
    lost.extend(listed.iter().filter(|(_, at)| is_lost(at)).map(|(id, _)| *id));
    let others = by_load(&nodes).into_iter().filter(|node| !lost.contains(node));
    let busiest: Vec<NodeId> = others.take(query.busiest).collect();
    lost.extend(busiest);
    if lost.is_empty() && query.busiest > 0 {
        return Err(ApiError::new(ApiErrorCode::NotFound, "no node runs"));
    }
    if query.gateway.is_none() && !query.names_calls() {
        let right = "expected a name in `nodes`, `zones`, `regions`, `carriers`, `gateway` or `policies`, or a number in `busiest`";
        return Err(ApiError::new(ApiErrorCode::BadRequest, right));
    }
    Ok(lost)
}

/// The loss of a carrier's network, and of the nodes and addresses in it.
#[derive(Serialize)]
struct CarrierLoss {
    carrier: String,
    nodes: Vec<Arc<str>>,
    /// Rooms of clients of the carrier.
    rooms: usize,
    sessions: usize,
    /// The addresses that clients of the carrier are told first.
    addresses: BTreeSet<SocketAddr>,
    /// The addresses of all listeners that stay, of which one is the alternate of its clients.
    other_addresses: BTreeSet<SocketAddr>,
    /// Ids of the sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Vec<String>>,
}

async fn lost_carriers(
    shared: &ApiContext,
    query: &BlastQuery,
    lost: &BTreeSet<NodeId>,
) -> Result<Vec<CarrierLoss>, ApiError> {
    let mut losses = Vec::new();
    let carriers: BTreeSet<&str> = query.lost_carriers().collect();
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
            return Err(ApiError::new(ApiErrorCode::NotFound, message));
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

impl BlastQuery {
    /// Adds the losses of `what_if` to those of the other keys.
    fn read_what_if(&mut self) -> Result<(), ApiError> {
        for part in std::mem::take(&mut self.what_if).split(',').filter(|part| !part.is_empty()) {
            let wrong = || {
                let right = "`nodes=-1`, `node=NAME`, `zone=NAME`, `region=NAME` or `carrier=NAME`";
                ApiError::field("what_if", format!("found `{part}`, expected {right}"))
            };
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let names = match key {
                "nodes" => {
                    let fewer = value.strip_prefix('-').and_then(|fewer| fewer.parse::<u16>().ok());
                    let fewer = usize::from(fewer.ok_or_else(wrong)?);
                    self.busiest = self.busiest.saturating_add(fewer);
                    continue;
                }
                "node" => &mut self.nodes,
                "zone" => &mut self.zones,
                "region" => &mut self.regions,
                "carrier" => &mut self.carriers,
                _ => return Err(wrong()),
            };
            names.push(',');
            names.push_str(value);
        }
        Ok(())
    }

    /// It names more than a gateway.
    fn names_calls(&self) -> bool {
        let lists = [&self.nodes, &self.zones, &self.regions, &self.carriers, &self.policies];
        let is_named = |names: &&String| names.split(',').any(|name| !name.is_empty());
        self.busiest > 0 || lists.iter().any(is_named)
    }

    fn lost_carriers(&self) -> impl Iterator<Item = &str> {
        self.carriers.split(',').filter(|name| !name.is_empty())
    }

    fn places(&self) -> [NamedPlaces<'_>; 3] {
        [
            NamedPlaces {
                names: &self.nodes,
                reason: Impossible::NoSuchNode,
                is_at: |at, name| *at.node == *name,
                shown: |at| at.node.to_string(),
            },
            NamedPlaces {
                names: &self.zones,
                reason: Impossible::NoSuchZone,
                is_at: is_zone,
                shown: |at| format!("{}/{}", at.region, at.zone),
            },
            NamedPlaces {
                names: &self.regions,
                reason: Impossible::NoSuchRegion,
                is_at: |at, name| *at.region == *name,
                shown: |at| at.region.to_string(),
            },
        ]
    }
}

/// The losses of one scenario.
#[derive(Default, Serialize)]
struct ScenarioLoss {
    #[serde(flatten)]
    hit: RoomCount,
    unplaced: RoomCount,
    /// Sessions that get less bit rate.
    reduced_sessions: u32,
}

fn blast_view(blast: &BlastRadius, lists_rooms: bool, names: &NodeNames) -> impl Serialize + use<> {
    let mut scenarios: BTreeMap<Arc<str>, ScenarioLoss> = BTreeMap::new();
    let mut targets: BTreeMap<NodeId, RoomCount> = BTreeMap::new();
    for room in &blast.rooms {
        let of_scenario = scenarios.entry(Arc::clone(&room.scenario)).or_default();
        of_scenario.hit.add(room.sessions);
        of_scenario.reduced_sessions += room.reduced;
        match room.to {
            Some(to) => targets.entry(to).or_default().add(room.sessions),
            None => of_scenario.unplaced.add(room.sessions),
        }
    }
    let loads: Vec<_> = blast
        .loads
        .iter()
        .map(|load| {
            object! {
                #[serde(flatten)]
                node: names.of_node(load.node),
                #[serde(flatten)]
                takes: targets.get(&load.node).copied().unwrap_or_default(),
                // Load and reservations, thousandths of the capacity.
                load_permille: load.after_permille,
                load_permille_before: load.before_permille,
            }
        })
        .collect();
    let mut labels: Vec<_> = blast.labels.iter().collect();
    labels.sort_by_key(|(label, sessions)| (Reverse(**sessions), *label));
    let labels: Vec<_> = labels
        .into_iter()
        .take(LABELS_MAX)
        .map(|((name, value), sessions)| {
            object! { label: name.clone(), value: value.clone(), sessions: *sessions }
        })
        .collect();
    let named = |nodes: &[NodeId]| -> Vec<Arc<str>> {
        nodes.iter().map(|node| names.of_node(*node).node).collect()
    };
    let slowest: Option<Duration> = blast.rooms.iter().filter_map(|room| room.after).max();
    let rooms = lists_rooms
        .then(|| blast.rooms.iter().map(|room| room_view(room, names)).collect::<Vec<_>>());
    object! {
        // The nodes that would be lost.
        nodes: named(&blast.nodes),
        #[serde(flatten)]
        hit: RoomCount::of(blast.rooms.iter()),
        // Rooms that no node has capacity for.
        unplaced: RoomCount::of(blast.unplaced()),
        reduced_sessions: blast.rooms.iter().map(|room| room.reduced).sum::<u32>(),
        // From the detection until the last room has a node, without the time in which it opens sessions.
        slowest_ms: milliseconds(slowest),
        // Rooms with a mode that keeps a spare, and without one that packets may take, after the loss and before it.
        unprotected_rooms: blast.unprotected,
        unprotected_rooms_before: blast.unprotected_before,
        scenarios: scenarios,
        // The other nodes, with the rooms that they would take.
        loads: loads,
        labels: labels,
        // Cold nodes whose start would begin.
        started_nodes: named(&blast.started),
        details?: rooms,
        without_spare?: lists_rooms.then(|| blast.without_spare.clone()),
    }
}

fn room_view(room: &RoomLoss, names: &NodeNames) -> impl Serialize + use<> {
    object! {
        room: Arc::clone(&room.name),
        scenario: Arc::clone(&room.scenario),
        sessions: room.sessions,
        from: names.of_node(room.from).node,
        // Null: no node has capacity for the room.
        to: room.to.map(|to| names.of_node(to).node),
        after_ms: milliseconds(room.after),
        reduced_sessions: room.reduced,
    }
}
