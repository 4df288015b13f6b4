//! I4: each move that begins ends once, and the end is reported in time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::MoveUnderWay;
use evenkeel_model::{CoreEvent, Hop, RoomId};

/// The longest move without obstacles: up to 2 s per opening, in turns.
const ENDS_WITHIN: Duration = Duration::from_secs(6);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct MoveEnds {
    /// Moves under way without a reported end.
    under_way: BTreeMap<RoomId, MoveUnderWay>,
    looked: Option<Instant>,
}

impl MoveEnds {
    /// I4: a reported end belongs to a move under way. A node's death moves rooms without one, possibly to the target of
    /// one.
    pub(super) fn check_event(&mut self, event: &CoreEvent) -> Found {
        let (room, to, started, died) = match event {
            CoreEvent::Moved { room, to: Some(to), started, cause, .. } => {
                (*room, *to, *started, cause.is_loss())
            }
            CoreEvent::MoveEnded { room, to, started, .. } => (*room, *to, *started, false),
            _ => return None,
        };
        let arrives = matches!(event, CoreEvent::Moved { .. });
        let ends = |way: &MoveUnderWay| way.to == to && (arrives || way.started == started);
        let known = self.under_way.get(&room).is_some_and(ends);
        if known {
            self.under_way.remove(&room);
        }
        let just_began = self.looked.is_none_or(|looked| started >= looked);
        (!known && !died && !just_began).then(|| {
            let text = format!("room {room} ended a move to {to:?} that was not under way");
            ("I4", text)
        })
    }

    /// I4: each move that is no longer under way was reported, and no move takes too long.
    pub(super) fn check_moves(
        &mut self,
        moves: impl Iterator<Item = MoveUnderWay>,
        hindered: Option<Instant>,
        now: Instant,
    ) -> Found {
        let moves: BTreeMap<RoomId, MoveUnderWay> = moves.map(|way| (way.room, way)).collect();
        let key = |way: &MoveUnderWay| -> (Hop, Instant) { (way.to, way.started) };
        let goes_on =
            |way: &MoveUnderWay| moves.get(&way.room).is_some_and(|on| key(on) == key(way));
        let untold = self.under_way.values().find(|way| !goes_on(way)).cloned();
        (self.under_way, self.looked) = (moves, Some(now));
        if let Some(way) = untold {
            return Some(("I4", format!("the end of this move was not reported: {way:?}")));
        }
        let since = |way: &MoveUnderWay| hindered.map_or(way.started, |at| at.max(way.started));
        let late = |way: &&MoveUnderWay| now.saturating_duration_since(since(way)) > ENDS_WITHIN;
        let late = self.under_way.values().find(late)?;
        let lasted = now.saturating_duration_since(late.started);
        Some(("I4", format!("this move has taken {lasted:?}: {late:?}")))
    }

    /// The moves under way as of the last check.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &MoveUnderWay> {
        self.under_way.values()
    }
}
