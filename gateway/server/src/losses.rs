//! Checks each minute whether the nodes that remain could carry the sessions of the busiest node, and of each zone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::{ControlError, GatewayEvent, Handle, NodeName, UncoveredLoss, by_load};
use evenkeel_core::{BlastRadius, NodeStanding};
use evenkeel_model::{FailureScope, NodeId};
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Level};
use tokio::time::Instant;

const CHECKED_EVERY: Duration = Duration::from_secs(60);

/// After a check that takes long, the next one comes after so many times its duration.
const PAUSE_FACTOR: u32 = 50;

/// Maximum pause between two checks: a check may have waited for a gateway that was suspended.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Maximum rooms of a gateway that is checked by itself: a copy takes as much memory as its sessions in the core.
const ROOMS_MAX: u32 = 10_000;

/// Maximum number of zones in a check. Those with most load come first.
const ZONES_MAX: usize = 8;

/// Checks losses, and reports those that would leave sessions without a node.
pub(super) struct LossFollower {
    handle: Handle,
    instruments: Arc<Instruments>,
    reported: Vec<UncoveredLoss>,
}

/// A loss to check.
struct LossCase {
    scope: FailureScope,
    place: Arc<str>,
    nodes: BTreeSet<NodeId>,
    load_kbps: u64,
}

impl LossFollower {
    pub(super) fn new(handle: Handle, instruments: Arc<Instruments>) -> LossFollower {
        LossFollower { handle, instruments, reported: Vec::new() }
    }

    /// Returns when control has ended.
    pub(super) async fn follow(&mut self) {
        loop {
            let began = Instant::now();
            let Ok(nodes) = self.handle.nodes().await else { return };
            match self.check(&nodes).await {
                // Another process continues the sessions, or rooms changed meanwhile.
                Ok(()) | Err(ControlError::Replaced | ControlError::NotCopied(_)) => {}
                Err(error) => tracing::warn!(?error, "losses of nodes were not checked"),
            }
            let pause = (began.elapsed() * PAUSE_FACTOR).clamp(CHECKED_EVERY, PAUSE_MAX);
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) async fn check(&mut self, nodes: &[NodeStanding]) -> Result<(), ControlError> {
        let rooms: u32 = nodes.iter().map(|node| node.rooms).sum();
        if rooms > ROOMS_MAX {
            return Ok(());
        }
        // A standby has no rooms.
        let cases = if rooms == 0 { Vec::new() } else { self.cases(nodes) };
        if cases.is_empty() {
            self.report(&[], &[]);
            return Ok(());
        }
        let losses = cases.iter().map(|case| case.nodes.clone()).collect();
        let radii = self.handle.blast(losses).await?;
        self.report(&cases, &radii);
        Ok(())
    }

    /// The node that carries most, and the zones, if there are several.
    fn cases(&self, nodes: &[NodeStanding]) -> Vec<LossCase> {
        let names = self.handle.names();
        let busiest = by_load(nodes).into_iter().take(1).map(|id| LossCase {
            scope: FailureScope::Node,
            place: names.of_node(id).node,
            nodes: BTreeSet::from([id]),
            load_kbps: 0,
        });
        let mut zones: BTreeMap<Arc<str>, LossCase> = BTreeMap::new();
        for node in nodes {
            let NodeName { region, zone, .. } = names.of_hop(node.hop);
            let place: Arc<str> = format!("{region}/{zone}").into();
            let case = zones.entry(Arc::clone(&place)).or_insert_with(|| LossCase {
                scope: FailureScope::Zone,
                place,
                nodes: BTreeSet::new(),
                load_kbps: 0,
            });
            case.nodes.insert(node.hop.node);
            case.load_kbps += node.carried_kbps;
        }
        let mut zones: Vec<LossCase> = zones.into_values().collect();
        zones.sort_by_key(|case| Reverse(case.load_kbps));
        zones.truncate(if zones.len() > 1 { ZONES_MAX } else { 0 });
        zones.retain(|case| case.load_kbps > 0);
        busiest.chain(zones).collect()
    }

    fn report(&mut self, cases: &[LossCase], radii: &[BlastRadius]) {
        let mut worst = BTreeMap::from([(FailureScope::Node, 0), (FailureScope::Zone, 0)]);
        let mut uncovered = Vec::new();
        for (LossCase { scope, place, .. }, radius) in cases.iter().zip(radii) {
            let unplaced: u32 = radius.unplaced().map(|room| room.sessions).sum();
            let most = worst.entry(*scope).or_default();
            *most = unplaced.max(*most);
            if unplaced > 0 {
                let (scope, place, sessions) = (*scope, Arc::clone(place), radius.sessions());
                uncovered.push(UncoveredLoss { scope, place, sessions, unplaced });
            }
        }
        for (scope, sessions) in worst {
            let labels = [(Attribute::Scope, scope.name())];
            self.instruments.level(Level::LossUnplaced, f64::from(sessions), &labels);
        }
        let unprotected = radii.first().map_or(0, |radius| radius.unprotected_before);
        self.instruments.level(Level::RoomsUnprotected, f64::from(unprotected), &[]);
        let places = |losses: &[UncoveredLoss]| -> BTreeSet<(FailureScope, Arc<str>)> {
            losses.iter().map(|loss| (loss.scope, Arc::clone(&loss.place))).collect()
        };
        if places(&self.reported) == places(&uncovered) {
            return;
        }
        for UncoveredLoss { scope, place, sessions, unplaced } in &uncovered {
            let scope = scope.name();
            tracing::warn!(scope, %place, sessions, unplaced, "loss would leave sessions without a node");
        }
        if uncovered.is_empty() {
            tracing::info!(
                "no loss of one node or zone would leave sessions without a node any more"
            );
        }
        self.reported.clone_from(&uncovered);
        self.handle.publish(GatewayEvent::LossesUncovered(uncovered));
    }
}

#[cfg(test)]
mod tests;
