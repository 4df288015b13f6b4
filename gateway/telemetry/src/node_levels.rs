//! Gauges of nodes. They are read when they are collected, so that those of a removed node end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_control::NodeName;
use evenkeel_model::{Health, NodeId};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use super::registry::{Attribute, Described, Level};

/// Bytes in 1,000 bit.
const BYTES_PER_KBIT: f64 = 125.0;

/// Reads a gauge of a node; `None` if it is absent.
type NodeValue = fn(&NodeLevel) -> Option<f64>;

/// The gauges of each node.
const NODE_LEVELS: &[(Level, NodeValue)] = &[
    (Level::NodeHealth, |it| Some(f64::from(it.health as u32))),
    (Level::NodeDraining, |it| Some(it.draining.into())),
    (Level::NodeRoundTrip, |it| Some(it.load?.round_trip?.as_secs_f64())),
    (Level::NodeLoss, |it| Some(it.load?.loss)),
    (Level::NodeLoad, |it| Some(it.load?.share)),
    (Level::NodeCapacity, |it| Some(it.load?.capacity_kbps as f64 * BYTES_PER_KBIT)),
    (Level::NodeRooms, |it| Some(it.load?.rooms.into())),
    (Level::NodeSessions, |it| Some(it.load?.sessions?.into())),
];

/// A node as gauges show it.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeLevel {
    /// The node's name and place. The name is not unique: a removed node and its replacement may share it.
    pub name: NodeName,
    /// The node was removed from the list.
    pub leaving: bool,
    /// The health that the board has.
    pub health: Health,
    /// An operator or its agent drains it.
    pub draining: bool,
    /// Its load; unknown until it was read once.
    pub load: Option<NodeLoad>,
}

/// The load of a node as gauges show it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NodeLoad {
    /// Load and reservations, as a share of the capacity.
    pub share: f64,
    /// Measured capacity, which may be below the configured one.
    pub capacity_kbps: u64,
    /// The number of rooms.
    pub rooms: u32,
    /// The number of sessions; `None` before they were counted.
    pub sessions: Option<u32>,
    /// Smoothed; `None` while none is measured.
    pub round_trip: Option<Duration>,
    /// Recent share of probes that were not answered.
    pub loss: f64,
}

impl NodeLevel {
    /// Capacity that is left for rooms, in bytes per second; `None` while the load is unknown.
    fn capacity_left(&self) -> Option<f64> {
        let NodeLoad { share, capacity_kbps, .. } = self.load?;
        let is_closed =
            self.leaving || self.draining || matches!(self.health, Health::Down | Health::Cold);
        let left = if is_closed { 0.0 } else { (1.0 - share).max(0.0) };
        Some(capacity_kbps as f64 * BYTES_PER_KBIT * left)
    }
}

/// All nodes by slot. Clones share them.
#[derive(Clone, Default, Debug)]
pub struct NodeLevels(Arc<Mutex<BTreeMap<NodeId, NodeLevel>>>);

impl NodeLevels {
    /// Replaces all nodes.
    pub fn set(&self, nodes: impl IntoIterator<Item = (NodeId, NodeLevel)>) {
        *self.nodes() = nodes.into_iter().collect();
    }

    pub(super) fn health(&self, node: NodeId, name: NodeName, health: Health) {
        self.change(node, name, |level| level.health = health);
    }

    pub(super) fn draining(&self, node: NodeId, name: NodeName, draining: bool) {
        self.change(node, name, |level| level.draining = draining);
    }

    pub(super) fn remove_node(&self, node: NodeId) {
        self.nodes().remove(&node);
    }

    fn change(&self, node: NodeId, name: NodeName, change: impl FnOnce(&mut NodeLevel)) {
        let (leaving, health, draining, load) = (false, Health::Down, false, None);
        let new = NodeLevel { name, leaving, health, draining, load };
        change(self.nodes().entry(node).or_insert(new));
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, NodeLevel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Levels by name. A present node takes precedence over a removed one.
    fn by_name(&self) -> BTreeMap<Arc<str>, NodeLevel> {
        let all = self.nodes().values().cloned().collect::<Vec<_>>();
        let (go, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(|level| level.leaving);
        // Later entries replace earlier ones.
        go.into_iter().chain(stay).map(|level| (Arc::clone(&level.name.node), level)).collect()
    }

    /// The level is observed by this callback.
    pub(super) fn has(level: Level) -> bool {
        level == Level::ZoneCapacityLeft || NODE_LEVELS.iter().any(|(own, _)| *own == level)
    }

    pub(super) fn observed_by(&self, meter: &Meter) {
        for (level, value) in NODE_LEVELS {
            self.observe(meter, *level, *value);
        }
        self.observe_all(meter, Level::ZoneCapacityLeft, |own, observer| {
            let mut zones: BTreeMap<(Arc<str>, Arc<str>), f64> = BTreeMap::new();
            for level in own.by_name().into_values() {
                let Some(left) = level.capacity_left() else { continue };
                *zones.entry((level.name.region, level.name.zone)).or_default() += left;
            }
            for ((region, zone), left) in &zones {
                observer.observe(*left, &place(region, zone));
            }
        });
    }

    fn observe(&self, meter: &Meter, level: Level, value: NodeValue) {
        self.observe_all(meter, level, move |own, observer| {
            for level in own.by_name().into_values() {
                if let Some(value) = value(&level) {
                    let NodeName { node, region, zone, .. } = &level.name;
                    let [region, zone] = place(region, zone);
                    let node = KeyValue::new(Attribute::Node.key(), node.to_string());
                    observer.observe(value, &[node, region, zone]);
                }
            }
        });
    }

    fn observe_all(
        &self,
        meter: &Meter,
        level: Level,
        observe: impl Fn(&NodeLevels, &dyn AsyncInstrument<f64>) + Send + Sync + 'static,
    ) {
        let Described { name, unit, doc, .. } = level.described();
        let own = self.clone();
        let gauge = meter.f64_observable_gauge(name).with_unit(unit).with_description(doc);
        let observed = gauge.with_callback(move |observer| observe(&own, observer));
        // The meter keeps the callback.
        let _kept = observed.build();
    }
}

fn place(region: &str, zone: &str) -> [KeyValue; 2] {
    [(Attribute::Region, region), (Attribute::Zone, zone)]
        .map(|(key, value)| KeyValue::new(key.key(), value.to_owned()))
}
