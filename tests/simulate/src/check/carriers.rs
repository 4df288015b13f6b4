//! Which hops carry each room, and since when.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_core::{Hop, RoomId};

use super::Scene;

#[derive(Default)]
pub(crate) struct Carried {
    rooms: BTreeMap<RoomId, Carriers>,
}

/// The one that packets take first, and in hitless mode the other.
type Carriers = [Option<(Hop, Instant)>; 2];

impl Carried {
    /// Which do, now that the core has spoken.
    pub(super) fn look(&mut self, scene: &Scene, now: Instant) {
        self.rooms.retain(|id, _| scene.rooms.contains_key(id));
        for (id, room) in &scene.rooms {
            let carriers = room.route.carriers(&scene.board);
            let carriers = carriers.map_or([None, None], |(first, twin)| [Some(first), twin]);
            let seen = self.rooms.entry(*id).or_default();
            let before = *seen;
            let known = |hop| before.into_iter().flatten().find(|(known, _)| *known == hop);
            *seen = carriers.map(|hop| hop.map(|hop| known(hop).unwrap_or((hop, now))));
        }
    }

    /// The hops that carry the room, and since when each does.
    pub(crate) fn of(&self, room: RoomId) -> impl Iterator<Item = (Hop, Instant)> + Clone {
        self.rooms.get(&room).copied().unwrap_or_default().into_iter().flatten()
    }
}
