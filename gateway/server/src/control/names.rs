//! What nodes and regions are called. Control writes it before it says a word of a node; whoever shows or records what
//! control says by number reads it.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use evenkeel_core::{Hop, Incarnation, NodeId, RegionId, Settings};

use crate::settings;

/// Nodes that had a slot one after the other and are known still. A slot rests for 10 s between two of them, so whoever
/// reads late is one behind; only moves on record reach farther back, and go by number before these.
const KNOWN_MAX: usize = 4;

/// A node's name, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// Its name; its number where nobody knows it.
    pub node: Arc<str>,
    /// Its region's; empty where nobody knows it.
    pub region: Arc<str>,
    /// Its zone's.
    pub zone: Arc<str>,
}

/// Who had a slot, from which incarnation on; the newest last.
type Slot = VecDeque<(Incarnation, Named)>;

/// Names by slot and incarnation, so that what is said of a node that left is not said of the one that took its slot.
#[derive(Default, Debug)]
pub struct Names {
    slots: RwLock<Vec<Slot>>,
    regions: Box<[Arc<str>]>,
}

impl Names {
    /// The names of these settings, whose nodes are the first in their slots.
    pub fn of(settings: &Settings) -> Names {
        let regions: Box<[Arc<str>]> =
            settings.regions.iter().map(|name| (**name).into()).collect();
        let slot = |node: &evenkeel_core::NodeSettings| {
            let zone = &settings.zones[node.zone.0 as usize];
            let region = Arc::clone(&regions[zone.region.0 as usize]);
            let named = Named { node: (*node.name).into(), region, zone: (*zone.name).into() };
            Slot::from([(Incarnation(1), named)])
        };
        Names { slots: RwLock::new(settings.nodes.iter().map(slot).collect()), regions }
    }

    /// The node has the slot from this incarnation on.
    pub(super) fn come(&self, first: Hop, node: &settings::Node) {
        self.write(first.node, |slot| {
            if slot.len() == KNOWN_MAX {
                slot.pop_front();
            }
            slot.push_back((first.incarnation, named(node)));
        });
    }

    /// The node that has the slot stays, and is this from now on.
    pub(super) fn change(&self, id: NodeId, node: &settings::Node) {
        self.write(id, |slot| {
            if let Some((_, standing)) = slot.back_mut() {
                *standing = named(node);
            }
        });
    }

    fn write(&self, id: NodeId, change: impl FnOnce(&mut Slot)) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let place = id.0 as usize;
        let length = slots.len().max(place + 1);
        slots.resize_with(length, Slot::new);
        change(&mut slots[place]);
    }

    /// Whose hop it is; one that nobody knows goes by its number.
    pub fn of_hop(&self, hop: Hop) -> Named {
        self.read(hop.node, |since| since <= hop.incarnation)
    }

    /// Who has the slot, or had it last: for words that come while they are news.
    pub fn of_node(&self, id: NodeId) -> Named {
        self.read(id, |_| true)
    }

    fn read(&self, id: NodeId, is_it: impl Fn(Incarnation) -> bool) -> Named {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let known = slots.get(id.0 as usize).into_iter().flatten();
        match known.rev().find(|(since, _)| is_it(*since)) {
            Some((_, named)) => named.clone(),
            None => Named { node: id.to_string().into(), region: "".into(), zone: "".into() },
        }
    }

    /// The region's name.
    pub fn of_region(&self, id: RegionId) -> Arc<str> {
        let name = self.regions.get(id.0 as usize);
        name.map_or_else(|| id.to_string().into(), Arc::clone)
    }
}

fn named(node: &settings::Node) -> Named {
    Named { node: node.name.clone(), region: node.region.clone(), zone: node.zone.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{BitRate, Driver, Probe};

    const A: NodeId = NodeId(0);

    fn hop(incarnation: u32) -> Hop {
        Hop { node: A, incarnation: Incarnation(incarnation) }
    }

    fn node(name: &str) -> settings::Node {
        settings::Node {
            name: name.into(),
            address: ([10, 0, 0, 1], 4_000).into(),
            region: "east".into(),
            zone: "a".into(),
            driver: Driver::Plain { probe: Probe::None },
            capacity: BitRate(1_000_000),
            canary: false,
            standby: false,
            start: None,
            agent: None,
        }
    }

    #[test]
    fn a_hop_is_called_by_who_had_its_slot_then() {
        let names = Names::default();
        for (since, name) in [(1, "first"), (4, "second")] {
            names.come(hop(since), &node(name));
        }
        let called = |at| names.of_hop(hop(at)).node;
        assert_eq!([1, 3, 4, 9].map(called), ["first", "first", "second", "second"].map(Arc::from));
        assert_eq!(*names.of_node(A).node, *"second");
        names.change(A, &settings::Node { zone: "elsewhere".into(), ..node("second") });
        assert_eq!((*names.of_hop(hop(9)).zone).to_owned(), "elsewhere");
        assert_ne!((*names.of_hop(hop(1)).zone).to_owned(), "elsewhere", "it is another's");
    }

    #[test]
    fn of_those_who_had_a_slot_the_last_few_are_known_and_the_others_go_by_number() {
        let names = Names::default();
        (1..=KNOWN_MAX as u32 + 1).for_each(|since| names.come(hop(since), &node("some")));
        assert_eq!(*names.of_hop(hop(1)).node, *A.to_string());
        assert_eq!(*names.of_hop(hop(2)).node, *"some");
        let nobody = Hop { node: NodeId(7), incarnation: Incarnation(1) };
        assert_eq!(*names.of_hop(nobody).node, *NodeId(7).to_string());
    }
}
