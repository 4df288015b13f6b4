//! Checks each minute whether the nodes that remain could carry the sessions of each busy node, and of each zone, and compares
//! real losses with the last check.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_core::{BlastRadius, NodeStanding};
use evenkeel_model::{FailureScope, Health, NodeId};
use evenkeel_process::unix_us;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, timeout_at};

use crate::faults::FaultObserver;
use crate::handle::Handle;
use crate::messages::{ControlError, LossComparison, LossFigures, PredictedLoss, UncoveredLoss};
use crate::names::NodeName;
use crate::reporting::{EventRecord, GatewayEvent};

const CHECKED_EVERY: Duration = Duration::from_secs(60);

/// After a check that takes long, the next one comes after so many times its duration.
const PAUSE_FACTOR: u32 = 50;

/// Maximum pause between two checks: a check may have waited for a gateway that was suspended.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Maximum rooms of a gateway that is checked each minute. With more the pause is the maximum: a copy takes as much memory as the
/// sessions in the core.
const ROOMS_OFTEN_MAX: u32 = 10_000;

/// Maximum number of nodes, and of zones, in a check. Those with most load come first.
const CASES_MAX: usize = 8;

/// Interval at which the end of a fault is looked for.
const FAULT_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// The worst of the losses that were checked, for metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LossLevels {
    /// The worst loss of one node, and that of one zone.
    pub worst: [WorstLoss; 2],
    /// Rooms that have no spare.
    pub rooms_unprotected: u32,
}

/// The greatest figures of all losses of a scope, each of some loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorstLoss {
    /// A node or a zone.
    pub scope: FailureScope,
    /// Sessions in rooms that no node has capacity for.
    pub unplaced_sessions: u32,
    /// Sessions with a lower bit rate than before.
    pub reduced_sessions: u32,
    /// Rooms that would lose their spare.
    pub unprotected_rooms: u32,
}

/// Checks losses, and reports those that the fleet could not bear.
pub struct LossFollower {
    handle: Handle,
    reported: Vec<UncoveredLoss>,
    events: Receiver<Arc<EventRecord>>,
    faults: FaultObserver,
}

/// A loss to check.
struct LossCase {
    scope: FailureScope,
    place: Arc<str>,
    nodes: BTreeSet<NodeId>,
    load_kbps: u64,
}

impl LossFollower {
    /// Follows faults from now on.
    pub fn new(handle: Handle) -> LossFollower {
        let events = handle.events();
        LossFollower { handle, reported: Vec::new(), events, faults: FaultObserver::default() }
    }

    /// Checks again and again, and measures each check. Returns when control has ended.
    pub async fn follow(&mut self, measure: impl Fn(&LossLevels)) {
        loop {
            let began = Instant::now();
            let Ok(nodes) = self.handle.nodes().await else { return };
            match self.check(&nodes).await {
                Ok(levels) => measure(&levels),
                // Another process continues the sessions, or rooms changed meanwhile.
                Err(ControlError::Replaced | ControlError::NotCopied(_)) => {}
                Err(error) => tracing::warn!(?error, "losses of nodes were not checked"),
            }
            let pause = pause(began.elapsed(), rooms(&nodes));
            if !self.observe(Instant::now() + pause).await {
                return;
            }
        }
    }

    async fn check(&mut self, nodes: &[NodeStanding]) -> Result<LossLevels, ControlError> {
        // A standby has no rooms.
        let cases = if rooms(nodes) == 0 { Vec::new() } else { self.cases(nodes) };
        let mut radii = Vec::new();
        let at_us = unix_us(SystemTime::now());
        if !cases.is_empty() {
            let losses = cases.iter().map(|case| case.nodes.clone()).collect();
            radii = self.handle.blast(losses).await?;
        }
        // Deaths during the check belong to the predictions before.
        self.take_events();
        let predicted = |(case, radius): (&LossCase, &BlastRadius)| PredictedLoss {
            at_us,
            scope: case.scope,
            place: Arc::clone(&case.place),
            nodes: radius.nodes.iter().copied().collect(),
            figures: LossFigures::from(radius),
        };
        self.faults.predict(cases.iter().zip(&radii).map(predicted).collect());
        Ok(self.report(&cases, &radii))
    }

    /// Follows faults until then. Returns false if there are no more events.
    async fn observe(&mut self, until: Instant) -> bool {
        loop {
            let now = Instant::now();
            let ended = self.faults.end(unix_us(SystemTime::now()));
            self.publish(ended);
            if now >= until {
                return true;
            }
            let looks = now + FAULT_LOOKED_AT_EVERY;
            let next = if self.faults.follows_fault() { until.min(looks) } else { until };
            match timeout_at(next, self.events.recv()).await {
                Ok(Ok(record)) => self.take_event(&record),
                Ok(Err(RecvError::Lagged(_))) => self.faults.forget(),
                Ok(Err(RecvError::Closed)) => return false,
                Err(_) => {}
            }
        }
    }

    /// Takes the events so far.
    fn take_events(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(record) => self.take_event(&record),
                Err(TryRecvError::Lagged(_)) => self.faults.forget(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn take_event(&mut self, record: &EventRecord) {
        let ended = self.faults.handle(record);
        self.publish(ended);
    }

    fn publish(&self, ended: Option<LossComparison>) {
        let Some(compared) = ended else { return };
        let nodes: Vec<_> =
            compared.nodes.iter().map(|hop| self.handle.names().of_hop(*hop).node).collect();
        let predicted = compared.predicted.as_ref().map(|predicted| predicted.figures);
        if compared.actual.rooms > 0 || predicted.is_some_and(|figures| figures.rooms > 0) {
            tracing::info!(?nodes, actual = ?compared.actual, ?predicted, "loss of nodes compared with its prediction");
        }
        self.handle.publish(GatewayEvent::LossCompared(Box::new(compared)));
    }

    /// The nodes that carry most, and the zones, if there are several.
    fn cases(&self, nodes: &[NodeStanding]) -> Vec<LossCase> {
        let names = self.handle.names();
        let busiest = by_load(nodes).into_iter().take(CASES_MAX).map(|id| LossCase {
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
        zones.truncate(if zones.len() > 1 { CASES_MAX } else { 0 });
        zones.retain(|case| case.load_kbps > 0);
        busiest.chain(zones).collect()
    }

    fn report(&mut self, cases: &[LossCase], radii: &[BlastRadius]) -> LossLevels {
        let mut worst = [FailureScope::Node, FailureScope::Zone].map(WorstLoss::none);
        let mut uncovered = Vec::new();
        for (LossCase { scope, place, .. }, radius) in cases.iter().zip(radii) {
            let loss = UncoveredLoss {
                scope: *scope,
                place: Arc::clone(place),
                figures: LossFigures::from(radius),
                unprotected_rooms: radius.unprotected.saturating_sub(radius.unprotected_before),
            };
            worst.iter_mut().for_each(|worst| worst.add(&loss));
            if harm(&loss) != [0; 3] {
                uncovered.push(loss);
            }
        }
        let rooms_unprotected = radii.first().map_or(0, |radius| radius.unprotected_before);
        self.report_changed(uncovered);
        LossLevels { worst, rooms_unprotected }
    }

    /// Reports losses of other nodes or zones, or of another kind, than those that were reported.
    fn report_changed(&mut self, uncovered: Vec<UncoveredLoss>) {
        let kinds = |losses: &[UncoveredLoss]| -> BTreeSet<(FailureScope, Arc<str>, [bool; 3])> {
            let kind = |loss: &UncoveredLoss| {
                (loss.scope, Arc::clone(&loss.place), harm(loss).map(|figure| figure > 0))
            };
            losses.iter().map(kind).collect()
        };
        if kinds(&self.reported) == kinds(&uncovered) {
            return;
        }
        for loss in &uncovered {
            let (scope, place) = (loss.scope.name(), &loss.place);
            let LossFigures { sessions, unplaced_sessions, reduced_sessions, .. } = loss.figures;
            let unprotected_rooms = loss.unprotected_rooms;
            match unplaced_sessions {
                0 => tracing::info!(
                    scope, %place, sessions, reduced_sessions, unprotected_rooms,
                    "loss would leave sessions with a lower bit rate, or rooms without a spare"
                ),
                _ => tracing::warn!(
                    scope, %place, sessions, unplaced_sessions, reduced_sessions, unprotected_rooms,
                    "loss would leave sessions without a node"
                ),
            }
        }
        if uncovered.is_empty() {
            tracing::info!("the fleet can bear the loss of one node or zone again");
        }
        self.reported.clone_from(&uncovered);
        self.handle.publish(GatewayEvent::LossesUncovered(uncovered));
    }
}

impl WorstLoss {
    fn none(scope: FailureScope) -> WorstLoss {
        WorstLoss { scope, unplaced_sessions: 0, reduced_sessions: 0, unprotected_rooms: 0 }
    }

    fn add(&mut self, loss: &UncoveredLoss) {
        if self.scope == loss.scope {
            let LossFigures { unplaced_sessions, reduced_sessions, .. } = loss.figures;
            self.unplaced_sessions = self.unplaced_sessions.max(unplaced_sessions);
            self.reduced_sessions = self.reduced_sessions.max(reduced_sessions);
            self.unprotected_rooms = self.unprotected_rooms.max(loss.unprotected_rooms);
        }
    }
}

/// The running nodes, those that carry most first.
pub fn by_load(nodes: &[NodeStanding]) -> Vec<NodeId> {
    let runs = |node: &&NodeStanding| !matches!(node.health, Health::Down | Health::Cold);
    let mut running: Vec<&NodeStanding> = nodes.iter().filter(runs).collect();
    running.sort_by_key(|node| Reverse((node.carried_kbps, node.rooms)));
    running.into_iter().map(|node| node.hop.node).collect()
}

/// Sessions without a node, sessions with a lower bit rate, and rooms without a spare.
fn harm(loss: &UncoveredLoss) -> [u32; 3] {
    let LossFigures { unplaced_sessions, reduced_sessions, .. } = loss.figures;
    [unplaced_sessions, reduced_sessions, loss.unprotected_rooms]
}

fn rooms(nodes: &[NodeStanding]) -> u32 {
    nodes.iter().map(|node| node.rooms).sum()
}

/// The time until the next check.
fn pause(took: Duration, rooms: u32) -> Duration {
    let least = if rooms > ROOMS_OFTEN_MAX { PAUSE_MAX } else { CHECKED_EVERY };
    (took * PAUSE_FACTOR).clamp(least, PAUSE_MAX)
}

#[cfg(test)]
mod tests;
