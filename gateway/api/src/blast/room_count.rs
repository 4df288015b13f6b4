//! Numbers of rooms, with their sessions.

use evenkeel_core::RoomLoss;
use serde::Serialize;

/// Rooms and sessions.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct RoomCount {
    pub(super) rooms: u32,
    pub(super) sessions: u32,
}

impl RoomCount {
    /// Adds a room with so many sessions.
    pub(super) fn add(&mut self, sessions: u32) {
        self.rooms += 1;
        self.sessions += sessions;
    }

    pub(super) fn of<'a>(rooms: impl Iterator<Item = &'a RoomLoss>) -> RoomCount {
        let mut count = RoomCount::default();
        rooms.for_each(|room| count.add(room.sessions));
        count
    }
}
