//! Levels of nodes, observed when metrics are read; they end with their node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_model::{Health, NodeId};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::registry::{Attribute, Described, Level};

/// A node as gauges show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeLevel {
    /// The node's name. Not unique: a removed node and its replacement may share it.
    pub name: Arc<str>,
    /// The node was removed from the list.
    pub leaving: bool,
    /// The health that the board has.
    pub health: Health,
    /// An operator or its agent drains it.
    pub draining: bool,
}

/// All nodes by slot. Clones share them.
#[derive(Clone, Default, Debug)]
pub struct NodeLevels(Arc<Mutex<BTreeMap<NodeId, NodeLevel>>>);

impl NodeLevels {
    /// Replaces all nodes.
    pub fn set(&self, nodes: impl IntoIterator<Item = (NodeId, NodeLevel)>) {
        *self.nodes() = nodes.into_iter().collect();
    }

    pub(super) fn health(&self, node: NodeId, name: Arc<str>, health: Health) {
        self.change(node, name, |level| level.health = health);
    }

    pub(super) fn draining(&self, node: NodeId, name: Arc<str>, draining: bool) {
        self.change(node, name, |level| level.draining = draining);
    }

    pub(super) fn gone(&self, node: NodeId) {
        self.nodes().remove(&node);
    }

    fn change(&self, node: NodeId, name: Arc<str>, change: impl FnOnce(&mut NodeLevel)) {
        let (leaving, health, draining) = (false, Health::Down, false);
        let new = NodeLevel { name, leaving, health, draining };
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
        go.into_iter().chain(stay).map(|level| (Arc::clone(&level.name), level)).collect()
    }

    /// The level is observed by this callback.
    pub(super) fn has(level: Level) -> bool {
        matches!(level, Level::NodeHealth | Level::NodeDraining)
    }

    pub(super) fn observed_by(&self, meter: &Meter) {
        self.observe(meter, Level::NodeHealth, |level| i64::from(level.health as u32));
        self.observe(meter, Level::NodeDraining, |level| i64::from(level.draining));
    }

    fn observe(&self, meter: &Meter, level: Level, value: fn(&NodeLevel) -> i64) {
        let Described { name, unit, doc, .. } = level.described();
        let own = self.clone();
        let gauge = meter.i64_observable_gauge(name).with_unit(unit).with_description(doc);
        let observed = gauge.with_callback(move |observer| {
            for (name, level) in own.by_name() {
                let node = KeyValue::new(Attribute::Node.key(), name.to_string());
                observer.observe(value(&level), &[node]);
            }
        });
        // The meter keeps the callback.
        let _kept = observed.build();
    }
}
