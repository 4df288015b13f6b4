//! What operators want of nodes and regions.

use std::time::{Duration, Instant};

use evenkeel_core::{FailBack, Impossible, NodeId, RegionId};

use super::messages::Failed;
use super::thread::Control;

/// What an operator wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// It takes no new rooms, and those it has move, within the time given if they fit elsewhere by then; or it takes them
    /// again.
    Drain {
        /// What.
        place: Place,
        /// Whether it is drained.
        draining: bool,
        /// When it is to be empty; none: as soon as others can take its rooms.
        within: Option<Duration>,
    },
    /// The node is dead, whatever it says, until it is let back.
    Eject(Box<str>),
    /// The node need not wait out its ejection.
    Return(Box<str>),
    /// Whether rooms go back to a region by themselves; none: to any of them.
    FailBack(Option<Box<str>>, FailBack),
}

/// A node or a region, by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A node.
    Node(Box<str>),
    /// A region, with all its nodes.
    Region(Box<str>),
}

impl Control {
    pub(super) fn operate(&mut self, operation: Operation, now: Instant) -> Result<(), Impossible> {
        let node = |name: &str| self.node_named(name).ok_or(Impossible::NoSuchNode);
        match operation {
            Operation::Drain { place: Place::Node(name), draining, within } => {
                let node = node(&name)?;
                self.gateway.handle_drain_within(node, draining, within, now)
            }
            Operation::Drain { place: Place::Region(name), draining, within } => {
                let region = self.region_named(&name)?;
                self.gateway.handle_drain_region(region, draining, within, now)
            }
            Operation::Eject(name) => {
                let node = node(&name)?;
                self.gateway.handle_eject(node, now)
            }
            Operation::Return(name) => {
                let node = node(&name)?;
                self.gateway.handle_return(node)
            }
            Operation::FailBack(name, fail_back) => {
                let region = name.map(|name| self.region_named(&name)).transpose()?;
                self.gateway.handle_fail_back(region, fail_back, now)
            }
        }
    }

    /// Why it cannot be, with what is there instead, or how the node fares that was named.
    pub(super) fn why_impossible(&self, reason: Impossible, node: Option<NodeId>) -> Failed {
        match reason {
            Impossible::NoSuchNode => {
                let nodes = self.listed.iter().flatten();
                let known = nodes.map(|listed| (*listed.node.name).into()).collect();
                Failed::Unfound { reason, known }
            }
            Impossible::NoSuchRegion => {
                let regions = self.settings.regions.iter();
                Failed::Unfound { reason, known: regions.map(|name| (**name).into()).collect() }
            }
            Impossible::NodeUnfit => {
                let standing =
                    self.gateway.nodes().find(|standing| Some(standing.hop.node) == node);
                standing.map_or(Failed::Impossible(reason), |standing| Failed::Unfit {
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
            | Impossible::NoRoomForNodes => Failed::Impossible(reason),
        }
    }

    pub(super) fn region_named(&self, name: &str) -> Result<RegionId, Impossible> {
        let place = self.settings.regions.iter().position(|known| **known == *name);
        place.map(|place| RegionId(place as u32)).ok_or(Impossible::NoSuchRegion)
    }
}
