//! I3: packets of hops that a room has left.
//!
//! The period in which an old hop may deliver follows from the reported moves alone, not from the forwarding route: it
//! is the duration of a make-before-break, from the end of the move.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_model::{Board, CoreEvent, Hop, ModeChange, RedundancyMode, RoomId};

use super::Scene;
use super::hops::{BREAK_WITHIN, Delivered};

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Stale {
    /// The hop that each room left last without a death, and the time until which that hop may deliver.
    left: BTreeMap<RoomId, (Hop, Instant)>,
    /// The second hop of each hitless room.
    second: BTreeMap<RoomId, Hop>,
}

impl Stale {
    /// Records moves, and the end of hitless mode.
    pub(super) fn hear(&mut self, event: &CoreEvent, now: Instant) {
        let until = now + BREAK_WITHIN;
        match event {
            CoreEvent::Moved { room, cause, .. } if cause.is_loss() => _ = self.left.remove(room),
            CoreEvent::Moved { room, from, .. } => _ = self.left.insert(*room, (*from, until)),
            CoreEvent::Mode { room, from: RedundancyMode::Hitless, why, .. }
                if *why != ModeChange::Capacity =>
            {
                let leaves = self.left.get(room).is_some_and(|(_, until)| now < *until);
                if let Some(second) = self.second.get(room).filter(|_| !leaves) {
                    self.left.insert(*room, (*second, until));
                }
            }
            _ => {}
        }
    }

    /// Updates the second hops after the core's outputs.
    pub(super) fn update(&mut self, scene: &Scene) {
        self.left.retain(|id, _| scene.rooms.contains_key(id));
        self.second.clear();
        let second = |room: &super::scene::SeenRoom| room.route.carriers(&scene.board)?.1;
        let carried = scene.rooms.iter().filter_map(|(id, room)| Some((*id, second(room)?)));
        self.second.extend(carried);
    }

    /// I3: packets arrive only from the room's hops, and for a limited time from the live hop that it left last.
    pub(super) fn check(
        &self,
        got: &Delivered,
        scene: &Scene,
        board: &Board,
        now: Instant,
    ) -> Found {
        let carriers = scene.rooms.get(&got.room).and_then(|room| room.route.carriers(board));
        let carries = |(first, second)| first == got.hop || second == Some(got.hop);
        if carriers.is_some_and(carries) {
            return None;
        }
        let left = self.left.get(&got.room).filter(|(hop, _)| *hop == got.hop);
        let lives = board.is_up(got.hop.node, got.hop.incarnation);
        if lives && left.is_some_and(|(_, until)| now < *until) {
            return None;
        }
        let Delivered { session, index, origin, hop, .. } = got;
        let (stands, how) = (carriers.map(|(hop, _)| hop), if lives { "is up" } else { "is down" });
        let until = left.map(|(_, until)| now.saturating_duration_since(*until));
        Some((
            "I3",
            format!(
                "{session} is at {stands:?} and got packet {index} of client {origin} from {hop:?}, which {how}; not allowed since {until:?}"
            ),
        ))
    }
}
