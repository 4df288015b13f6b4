use std::time::{Duration, Instant};

use evenkeel_core::{Failback, Impossible};
use evenkeel_model::{NodeId, RegionId};

use super::messages::ControlError;
use super::thread::Control;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A draining place takes no new rooms, and its rooms move, by the deadline if other nodes have capacity.
    Drain {
        place: OperationTarget,
        draining: bool,
        /// Deadline of a drain. Without a deadline rooms move once other nodes have capacity.
        within: Option<Duration>,
    },
    /// Marks the node down until it is returned.
    Eject(Box<str>),
    Return(Box<str>),
    /// Sets failback of a region, or of all regions.
    Failback(Option<Box<str>>, Failback),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OperationTarget {
    Node(Box<str>),
    Region(Box<str>),
}

impl Control {
    pub(super) fn operate(&mut self, operation: Operation, now: Instant) -> Result<(), Impossible> {
        let node = |name: &str| self.nodes.node_named(name).ok_or(Impossible::NoSuchNode);
        match operation {
            Operation::Drain { place: OperationTarget::Node(name), draining, within } => {
                let node = node(&name)?;
                self.gateway
                    .change_nodes(now, |nodes| nodes.handle_drain(node, draining, within, now))
            }
            Operation::Drain { place: OperationTarget::Region(name), draining, within } => {
                let region = self.region_named(&name)?;
                self.gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_region(region, draining, within, now)
                })
            }
            Operation::Eject(name) => {
                let node = node(&name)?;
                self.gateway.change_nodes(now, |nodes| nodes.handle_eject(node, now))
            }
            Operation::Return(name) => {
                let node = node(&name)?;
                self.gateway.change_nodes(now, |nodes| nodes.handle_return(node))
            }
            Operation::Failback(name, failback) => {
                let region = name.map(|name| self.region_named(&name)).transpose()?;
                self.gateway.handle_failback(region, failback, now)
            }
        }
    }

    pub(super) fn why_impossible(&self, reason: Impossible, node: Option<NodeId>) -> ControlError {
        match reason {
            Impossible::NoSuchNode => {
                let nodes = self.nodes.listed.iter().flatten();
                let known = nodes.map(|listed| (*listed.node.name).into()).collect();
                ControlError::Unfound { reason, known }
            }
            Impossible::NoSuchRegion => {
                let regions = self.settings.regions.iter();
                ControlError::Unfound {
                    reason,
                    known: regions.map(|name| (**name).into()).collect(),
                }
            }
            Impossible::NodeUnfit => {
                let standing =
                    self.gateway.views().nodes().find(|standing| Some(standing.hop.node) == node);
                standing.map_or(ControlError::Impossible(reason), |standing| ControlError::Unfit {
                    health: standing.health,
                    draining: standing.draining,
                    load_permille: standing.load_permille,
                    capacity_kbps: standing.capacity_kbps,
                })
            }
            Impossible::NoSuchSession
            | Impossible::NoSuchRoom
            | Impossible::AlreadyThere
            | Impossible::AlreadyEjected
            | Impossible::NotDown
            | Impossible::NodeLeaves
            | Impossible::NodeDrains
            | Impossible::NoRoomForNodes => ControlError::Impossible(reason),
        }
    }

    pub(super) fn region_named(&self, name: &str) -> Result<RegionId, Impossible> {
        let place = self.settings.regions.iter().position(|known| **known == *name);
        place.map(|place| RegionId(place as u32)).ok_or(Impossible::NoSuchRegion)
    }
}
