//! I4: every move that begins ends, once, and that is told in its time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::{Cause, Event, Hop, MoveUnderWay, RoomId};

/// A move that waits for nothing but openings is over within this: a node has up to 2 s for each, and they go in turns.
const ENDS_WITHIN: Duration = Duration::from_secs(6);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Ends {
    /// Moves that were seen to be under way, and whose end was not told.
    under_way: BTreeMap<RoomId, MoveUnderWay>,
    looked: Option<Instant>,
}

impl Ends {
    /// I4: what ends had begun, and has not ended before. A death takes rooms without having been under way, maybe to
    /// where they were to go.
    pub(super) fn once(&mut self, event: &Event) -> Found {
        let (room, to, started, died) = match event {
            Event::Moved { room, to: Some(to), started, cause, .. } => {
                (*room, *to, *started, *cause == Cause::NodeDown)
            }
            Event::MoveEnded { room, to, started, .. } => (*room, *to, *started, false),
            _ => return None,
        };
        let arrives = matches!(event, Event::Moved { .. });
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

    /// I4: what was under way and is not any more has ended, and what is has not been for too long.
    pub(super) fn told_in_time(
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
            return Some(("I4", format!("nobody told that this move ended: {way:?}")));
        }
        let since = |way: &MoveUnderWay| hindered.map_or(way.started, |at| at.max(way.started));
        let late = |way: &&MoveUnderWay| now.saturating_duration_since(since(way)) > ENDS_WITHIN;
        let late = self.under_way.values().find(late)?;
        let lasted = now.saturating_duration_since(late.started);
        Some(("I4", format!("this move is under way for {lasted:?}: {late:?}")))
    }

    /// Moves that are under way, as they were seen last.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &MoveUnderWay> {
        self.under_way.values()
    }
}
