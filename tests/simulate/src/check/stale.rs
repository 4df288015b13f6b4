//! I3: what is still heard of hops that were left.
//!
//! When an old hop may be heard is known from the records of moves alone, never from the route that forwards: from the
//! end of a move, which is told as it is published, for as long as a make-before-break may last.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_core::{Board, Cause, Event, Hop, Mode, ModeChange, RoomId};

use super::Scene;
use super::hops::{BREAK_WITHIN, Delivered};

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Old {
    /// Of each room, the hop that it left last without a death, and until when that may be heard.
    left: BTreeMap<RoomId, (Hop, Instant)>,
    /// In hitless mode: the second hop of a room.
    second: BTreeMap<RoomId, Hop>,
}

impl Old {
    /// A room moved, or has one hop where it had two.
    pub(super) fn hear(&mut self, event: &Event, now: Instant) {
        let until = now + BREAK_WITHIN;
        match event {
            Event::Moved { room, cause: Cause::NodeDown, .. } => _ = self.left.remove(room),
            Event::Moved { room, from, .. } => _ = self.left.insert(*room, (*from, until)),
            Event::Mode { room, from: Mode::Hitless, why, .. } if *why != ModeChange::Capacity => {
                let leaves = self.left.get(room).is_some_and(|(_, until)| now < *until);
                if let Some(second) = self.second.get(room).filter(|_| !leaves) {
                    self.left.insert(*room, (*second, until));
                }
            }
            _ => {}
        }
    }

    /// Which hops carry rooms beside the first, now that the core has spoken.
    pub(super) fn look(&mut self, scene: &Scene) {
        self.left.retain(|id, _| scene.rooms.contains_key(id));
        self.second.clear();
        let second = |room: &super::scene::SeenRoom| room.route.carriers(&scene.board)?.1;
        let carried = scene.rooms.iter().filter_map(|(id, room)| Some((*id, second(room)?)));
        self.second.extend(carried);
    }

    /// I3: nothing of a hop where the room does not stand, but of the one that it left last, for as long as that may take
    /// and that lives.
    pub(super) fn nothing_old(
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
        let (stands, how) = (carriers.map(|(hop, _)| hop), if lives { "lives" } else { "died" });
        let until = left.map(|(_, until)| now.saturating_duration_since(*until));
        Some((
            "I3",
            format!(
                "{session} is at {stands:?} and got packet {index} of client {origin} from {hop:?}, which {how}; it may not since {until:?}"
            ),
        ))
    }
}
