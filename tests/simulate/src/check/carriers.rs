//! The hops that carry each room, and since when.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_model::{Hop, RoomId};

use super::Scene;

#[derive(Default)]
pub(crate) struct Carriers {
    rooms: BTreeMap<RoomId, Pair>,
}

/// The hop that packets take first, and the second one in hitless mode.
type Pair = [Option<(Hop, Instant)>; 2];

impl Carriers {
    /// Updates the carriers after the core's outputs.
    pub(super) fn update(&mut self, scene: &Scene, now: Instant) {
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

    pub(crate) fn of(&self, room: RoomId) -> impl Iterator<Item = (Hop, Instant)> + Clone {
        self.rooms.get(&room).copied().unwrap_or_default().into_iter().flatten()
    }
}
