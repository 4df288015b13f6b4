//! Names of nodes and regions by number. Control writes them before it mentions a node; the API and telemetry read
//! them.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use evenkeel_model::{CoreSettings, Hop, Incarnation, NodeId, RegionId};

/// Remembered nodes per slot. A slot is not reused for 10 s after a node, so a late reader needs the previous node at
/// most. Older nodes occur in old move records and in spans of sessions that a failure affects late, by number.
const KNOWN_MAX: usize = 4;

/// Name of a node with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeName {
    /// The node's name; its number, if the name is unknown.
    pub node: Arc<str>,
    /// Name of the node's region.
    pub region: Arc<str>,
    /// Name of the node's zone.
    pub zone: Arc<str>,
    /// Carrier of the node's network, if it is named.
    pub carrier: Option<Arc<str>>,
}

/// The nodes of a slot with their first incarnation, newest last.
type SlotNames = VecDeque<(Incarnation, NodeName)>;

/// Names by slot and incarnation, so that an event of a removed node does not show the name of the slot's next node.
#[derive(Default, Debug)]
pub struct NodeNames {
    slots: RwLock<Vec<SlotNames>>,
    regions: Box<[Arc<str>]>,
}

impl NodeNames {
    /// Returns the names of the nodes and regions in these settings.
    pub fn of(settings: &CoreSettings) -> NodeNames {
        let regions: Box<[Arc<str>]> =
            settings.regions.iter().map(|name| (**name).into()).collect();
        let slot = |node: &evenkeel_model::NodeSettings| {
            let zone = &settings.zones[node.zone.0 as usize];
            let region = Arc::clone(&regions[zone.region.0 as usize]);
            let (name, zone) = ((*node.name).into(), (*zone.name).into());
            let named = NodeName { node: name, region, zone, carrier: node.carrier.clone() };
            SlotNames::from([(Incarnation(1), named)])
        };
        NodeNames { slots: RwLock::new(settings.nodes.iter().map(slot).collect()), regions }
    }

    /// Records a new node in its slot, from this incarnation on.
    pub(super) fn come(&self, first: Hop, node: &evenkeel_config::NodeConfig) {
        self.write(first.node, |slot| {
            if slot.len() == KNOWN_MAX {
                slot.pop_front();
            }
            slot.push_back((first.incarnation, named(node)));
        });
    }

    /// Records a new name or region of the slot's node.
    pub(super) fn change(&self, id: NodeId, node: &evenkeel_config::NodeConfig) {
        self.write(id, |slot| {
            if let Some((_, standing)) = slot.back_mut() {
                *standing = named(node);
            }
        });
    }

    fn write(&self, id: NodeId, change: impl FnOnce(&mut SlotNames)) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let place = id.0 as usize;
        let length = slots.len().max(place + 1);
        slots.resize_with(length, SlotNames::new);
        change(&mut slots[place]);
    }

    /// The node of a hop; its number, if unknown.
    pub fn of_hop(&self, hop: Hop) -> NodeName {
        self.read(hop.node, |since| since <= hop.incarnation)
    }

    /// The current or last node of the slot, for current events.
    pub fn of_node(&self, id: NodeId) -> NodeName {
        self.read(id, |_| true)
    }

    fn read(&self, id: NodeId, is_it: impl Fn(Incarnation) -> bool) -> NodeName {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let known = slots.get(id.0 as usize).into_iter().flatten();
        match known.rev().find(|(since, _)| is_it(*since)) {
            Some((_, named)) => named.clone(),
            None => NodeName {
                node: id.to_string().into(),
                region: "".into(),
                zone: "".into(),
                carrier: None,
            },
        }
    }

    /// Returns the name of a region; its number, if unknown.
    pub fn of_region(&self, id: RegionId) -> Arc<str> {
        let name = self.regions.get(id.0 as usize);
        name.map_or_else(|| id.to_string().into(), Arc::clone)
    }
}

fn named(node: &evenkeel_config::NodeConfig) -> NodeName {
    NodeName {
        node: node.name.clone(),
        region: node.region.clone(),
        zone: node.zone.clone(),
        carrier: node.carrier.clone(),
    }
}

#[cfg(test)]
mod tests;
