//! I9: packets flow whatever else is dead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::{Health, Mode, RoomId};

use super::Scene;

/// A room without a hop finds one within this, if there is one.
const RESCUED_WITHIN: Duration = Duration::from_secs(4);

/// A hop that did not take a room is not tried again for 10 s.
const SHUNNED_FOR: Duration = Duration::from_secs(12);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Flow {
    stranded: BTreeMap<RoomId, Instant>,
    /// When rooms last found a hop again.
    rescued: BTreeMap<RoomId, Instant>,
    /// When drivers, nodes or the way to them last did less than they should.
    hindered: Option<Instant>,
    /// When a node's hook was last called.
    started: Option<Instant>,
}

/// A hook that was called has so long, with all that follows a failure.
const STARTING_FOR: Duration = Duration::from_secs(12);

impl Flow {
    pub(super) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    pub(crate) fn hindered(&mut self, now: Instant) {
        self.hindered = Some(now);
    }

    /// Whether the room found a hop only within this time.
    pub(crate) fn rescued_within(&self, room: RoomId, time: Duration, now: Instant) -> bool {
        self.rescued.get(&room).is_some_and(|at| now - *at < time)
    }

    /// I9: a room stands nowhere only where no node can take it.
    pub(super) fn nobody_stranded_for_nothing(&mut self, scene: &Scene, now: Instant) -> Found {
        let lost =
            |room: &super::scene::SeenRoom| room.is_placed() && room.stands(&scene.board).is_none();
        let found_again =
            self.stranded.extract_if(.., |id, _| !scene.rooms.get(id).is_some_and(lost));
        self.rescued.extend(found_again.map(|(id, _)| (id, now)));
        let mut found = None;
        for (id, room) in scene.rooms.iter().filter(|(_, room)| lost(room)) {
            let since = *self.stranded.entry(*id).or_insert(now);
            let start = self.hindered.map_or(since, |at| since.max(at + SHUNNED_FOR));
            if now.saturating_duration_since(start) < RESCUED_WITHIN || found.is_some() {
                continue;
            }
            let (loads, reserved) = scene.loads();
            let taker = scene.nodes.iter().enumerate().find(|(at, node)| {
                let kept = reserved
                    .iter()
                    .filter(|((standby, _), _)| standby == at)
                    .map(|(_, kbps)| *kbps)
                    .max();
                let full = loads[*at] + kept.unwrap_or(0) + room.kbps > node.measured;
                node.health == Health::Up && !node.draining && !full
            });
            let cold = room.route.load().mode == Mode::Cold
                && self.started.is_none_or(|at| now - at > STARTING_FOR);
            let startable =
                scene.nodes.iter().position(|node| node.health == Health::Cold && !node.draining);
            if let Some(at) = startable.filter(|_| cold) {
                let text = format!(
                    "room {id} stands nowhere since {:?}, and nobody starts n{at}",
                    now - since
                );
                found = Some(("I9", text));
                continue;
            }
            found = taker.map(|(at, _)| {
                (
                    "I9",
                    format!(
                        "room {id} stands nowhere since {:?}, and n{at} could take it",
                        now - since
                    ),
                )
            });
        }
        found
    }
}
