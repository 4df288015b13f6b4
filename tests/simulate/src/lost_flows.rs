//! Lost flows: rooms of which a node forwards one flow no longer, and when they left it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::{Hop, RoomId};

/// What came of lost flows in a world.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct LostFlows {
    /// From the first packet that was not forwarded to the room's move, of each room that had such a flow and moved.
    pub moved_after: Vec<Duration>,
    /// Moves of rooms off a hop that forwarded all of their flows.
    pub others_moved: u64,
    /// Rooms that lost a flow and stay there, and since when in the life of the world.
    stay: BTreeMap<(RoomId, Hop), Duration>,
    /// Those that moved for it.
    left: BTreeSet<(RoomId, Hop)>,
}

impl LostFlows {
    /// A packet of the room's is not forwarded, as none of its flow is.
    pub(crate) fn lost(&mut self, room: RoomId, hop: Hop, at: Duration) {
        // What is still on its way there is lost as well.
        if !self.left.contains(&(room, hop)) {
            self.stay.entry((room, hop)).or_insert(at);
        }
    }

    /// The room moved.
    pub(crate) fn moved(&mut self, room: RoomId, from: Hop, at: Duration) {
        match self.stay.remove(&(room, from)) {
            Some(since) => {
                self.moved_after.push(at - since);
                self.left.insert((room, from));
            }
            None => self.others_moved += 1,
        }
    }

    /// Rooms that lost a flow and did not move.
    pub fn not_moved(&self) -> usize {
        self.stay.len()
    }
}
