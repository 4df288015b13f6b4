//! Moves on record: each has a cause, an actor, a start, an end and an outcome, those that were given up too.

use std::sync::Arc;
use std::time::Instant;

use super::Gateway;
use super::standing::Step;
use crate::room::Pending;
use crate::{Cause, Decider, Event, Hop, RoomId};

/// What became of a move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MoveOutcome {
    /// The room is there.
    Done,
    /// No hop was left; the core looks for one.
    Stranded,
    /// Another move took its place.
    Superseded,
    /// Where it was to go died before it was there.
    TargetLost,
    /// Where it was to go did not open its sessions.
    NotOpened,
    /// The room had moved too often within a minute.
    Damped,
    /// The room ended.
    Closed,
}

impl MoveOutcome {
    /// The word in metrics and records: `target-lost`.
    pub fn name(self) -> &'static str {
        match self {
            MoveOutcome::Done => "done",
            MoveOutcome::Stranded => "stranded",
            MoveOutcome::Superseded => "superseded",
            MoveOutcome::TargetLost => "target-lost",
            MoveOutcome::NotOpened => "not-opened",
            MoveOutcome::Damped => "damped",
            MoveOutcome::Closed => "closed",
        }
    }
}

/// A move of a room, as it is on record.
#[derive(Clone, PartialEq, Debug)]
pub struct MoveRecord {
    /// Why.
    pub cause: Cause,
    /// Who decided.
    pub by: Arc<Decider>,
    /// Where it was.
    pub from: Hop,
    /// Where it went, or should have gone; `None`: no hop was left.
    pub to: Option<Hop>,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What became of it.
    pub outcome: MoveOutcome,
}

/// A move that began, and has not ended.
#[derive(Clone, PartialEq, Debug)]
pub struct MoveUnderWay {
    /// The room.
    pub room: RoomId,
    /// Why.
    pub cause: Cause,
    /// Who decided.
    pub by: Decider,
    /// Where it is, or stood before that died.
    pub from: Hop,
    /// Where it goes.
    pub to: Hop,
    /// When it began.
    pub started: Instant,
}

impl Gateway {
    /// Every move that is under way, by its room. It ends with an [`Event::Moved`] to where it goes, or with an
    /// [`Event::MoveEnded`].
    pub fn moves_under_way(&self) -> impl Iterator<Item = MoveUnderWay> {
        self.rooms.values().filter_map(|room| {
            let Pending { hops, cause, by, started, .. } = room.pending.as_deref()?;
            let (to, from) = (hops[0], room.stood().filter(|from| *from != hops[0])?);
            let (cause, by, started) = (*cause, by.clone(), *started);
            Some(MoveUnderWay { room: room.id, cause, by, from, to, started })
        })
    }

    /// A route that was under way is not any more. Where it would have moved the room, that is told.
    pub(super) fn given_up(
        &mut self,
        id: RoomId,
        pending: Option<Box<Pending>>,
        outcome: MoveOutcome,
        now: Instant,
    ) {
        let Some(Pending { hops, cause, by, started, .. }) = pending.map(|pending| *pending) else {
            return;
        };
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let Some(from) = room.stood().filter(|from| *from != hops[0]) else {
            return;
        };
        let to = hops[0];
        let room_name = self.name_of(id);
        let step = Step { cause, by: by.clone(), from, to: Some(to), started };
        self.record(id, step, outcome, now);
        self.effects.event(Event::MoveEnded {
            room: id,
            room_name,
            cause,
            by,
            from,
            to,
            started,
            outcome,
        });
    }

    /// Keeps it among the room's last moves.
    pub(super) fn record(&mut self, id: RoomId, step: Step, outcome: MoveOutcome, now: Instant) {
        let Step { cause, by, from, to, started } = step;
        let by = self.rooms.deciders.share(by);
        if let Some(room) = self.rooms.get_mut(&id) {
            room.record(MoveRecord { cause, by, from, to, started, ended: now, outcome });
        }
    }
}
