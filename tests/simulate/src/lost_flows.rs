//! Rooms with a flow that their node no longer forwards, and when they moved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_model::{Hop, RoomId};

#[derive(Clone, PartialEq, Default, Debug)]
pub struct LostFlows {
    /// Time from the first lost packet to the move, for each affected room that moved.
    pub moved_after: Vec<Duration>,
    /// Moves off hops that forwarded all flows.
    pub others_moved: u64,
    /// Affected rooms that have not moved, with the time of the first lost packet.
    stay: BTreeMap<(RoomId, Hop), Duration>,
    left: BTreeSet<(RoomId, Hop)>,
}

impl LostFlows {
    /// A packet of the room was dropped with its whole flow.
    pub(crate) fn lost(&mut self, room: RoomId, hop: Hop, at: Duration) {
        // Packets in flight to a hop that the room has left do not count.
        if !self.left.contains(&(room, hop)) {
            self.stay.entry((room, hop)).or_insert(at);
        }
    }

    pub(crate) fn moved(&mut self, room: RoomId, from: Hop, at: Duration) {
        match self.stay.remove(&(room, from)) {
            Some(since) => {
                self.moved_after.push(at - since);
                self.left.insert((room, from));
            }
            None => self.others_moved += 1,
        }
    }

    /// Affected rooms that did not move.
    pub fn not_moved(&self) -> usize {
        self.stay.len()
    }
}
