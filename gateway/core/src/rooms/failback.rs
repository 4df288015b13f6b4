//! Failback: once a node is trusted again, rooms return to their native place.

use std::time::Duration;

use evenkeel_model::{NodeId, RegionRole};
use evenkeel_nodes::{Node, NodeTable};
use serde::{Deserialize, Serialize};

use super::Room;

/// Interval of checks while no room can return.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub enum Failback {
    /// Rooms return to nodes that are Up and lose little, unless the room moved too often or the region accepts no new
    /// rooms.
    #[default]
    Auto,
    /// An operator forces the return: also to nodes that are Wary or lossy, regardless of the limit of moves and the
    /// region's breaker.
    Force,
    /// An operator forbids the return.
    Forbid,
}

impl Failback {
    pub const ALL: [Failback; 3] = [Failback::Auto, Failback::Force, Failback::Forbid];

    /// The setting's name in the API: `forbid`.
    pub fn name(self) -> &'static str {
        match self {
            Failback::Auto => "auto",
            Failback::Force => "force",
            Failback::Forbid => "forbid",
        }
    }
}

impl Room {
    /// The node is not the room's native place: it is in another region, or is a standby.
    pub(crate) fn is_away(&self, on: NodeId, nodes: &NodeTable) -> bool {
        let stands_by = nodes.get(on).is_some_and(|node| self.leaves_to_others(node));
        nodes.region_of(on) != self.region || stands_by
    }

    /// The node is a standby to be avoided while other nodes can take the room.
    pub(crate) fn leaves_to_others(&self, node: &Node) -> bool {
        self.mode.leaves_standbys() && node.settings.role == RegionRole::Standby
    }
}
