//! I4 and I5: every move is on record, and there are few.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_core::{Cause, Decider, Event, Health, Hop, RoomId};

use super::Scene;

/// A move that packets made by themselves is on record after so long at most: a herd goes on in turns.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// More than so many within a minute are too many.
const MOVES_MAX: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Moves {
    /// Where each room stands as far as was told; `None`: nowhere, since its hop died.
    told: BTreeMap<RoomId, Option<Hop>>,
    /// Since when a room stands elsewhere than was told.
    untold: BTreeMap<RoomId, Instant>,
    recent: BTreeMap<RoomId, VecDeque<Instant>>,
    /// Hops whose death was told.
    dead: BTreeSet<Hop>,
}

impl Moves {
    /// I4: a move begins where the last one ended, its cause is true, and it did not begin after its end.
    pub(super) fn on_record(&mut self, event: &Event, scene: &Scene, now: Instant) -> Found {
        if let Event::Node { hop, to: Health::Down, .. } = event {
            self.dead.insert(*hop);
        }
        let Event::Moved { room, from, to, cause, started, .. } = event else { return None };
        let told = self.told.insert(*room, *to);
        if let Some(Some(stood)) = told
            && stood != *from
        {
            return Some((
                "I4",
                format!("room {room} stood at {stood:?}, and moved from {from:?} to {to:?}"),
            ));
        }
        if Some(*from) == *to {
            return Some(("I4", format!("room {room} moved from {from:?} to itself")));
        }
        if *started > now {
            return Some(("I4", format!("room {room} moved before it began to")));
        }
        let lives = scene.board.is_up(from.node, from.incarnation);
        if *cause == Cause::NodeDown && lives {
            return Some(("I4", format!("room {room} left {from:?} for its death, which lives")));
        }
        let dead = to.filter(|to| self.dead.contains(to))?;
        Some(("I4", format!("room {room} moved to {dead:?}, which is down")))
    }

    /// I5: no more than three moves a minute, but off the dead and by hand.
    pub(super) fn few(&mut self, event: &Event, now: Instant) -> Found {
        let Event::Moved { room, cause, by, .. } = event else { return None };
        if *cause == Cause::NodeDown || *by == Decider::Operator {
            return None;
        }
        let recent = self.recent.entry(*room).or_default();
        recent.push_back(now);
        recent.retain(|at| now - *at < MINUTE);
        (recent.len() > MOVES_MAX).then(|| {
            (
                "I5",
                format!(
                    "room {room} moved {} times within a minute, last for {}",
                    recent.len(),
                    cause.name()
                ),
            )
        })
    }

    /// I4: nothing moves that is not told of.
    pub(super) fn all_told(&mut self, scene: &Scene, now: Instant) -> Found {
        self.told.retain(|id, _| scene.rooms.contains_key(id));
        self.untold.retain(|id, _| scene.rooms.contains_key(id));
        let mut found = None;
        for (id, room) in &scene.rooms {
            if !room.is_placed() {
                continue;
            }
            let stands = room.stands(&scene.board);
            let told = *self.told.entry(*id).or_insert(stands);
            if told == stands {
                self.untold.remove(id);
                continue;
            }
            let since = *self.untold.entry(*id).or_insert(now);
            if now - since > TOLD_WITHIN {
                let text = format!(
                    "room {id} stands at {stands:?} for {:?}, and was told to be at {told:?}",
                    now - since
                );
                found.get_or_insert(("I4", text));
            }
        }
        found
    }
}
