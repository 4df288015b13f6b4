//! I4 and I5: each move is reported, and moves are rare.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, Decider, Health, Hop, RoomId};

use super::Scene;

/// Longest delay of the report of a move that packets made; rooms of a failed node are reported in turns.
const REPORTED_WITHIN: Duration = Duration::from_millis(500);

/// Limit of moves per minute.
const MOVES_MAX: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Moves {
    /// The hop of each room as reported; `None` after its death.
    reported: BTreeMap<RoomId, Option<Hop>>,
    /// The time since which a room's hop differs from the reported one.
    unreported: BTreeMap<RoomId, Instant>,
    recent: BTreeMap<RoomId, VecDeque<Instant>>,
    /// Hops reported as down.
    dead: BTreeSet<Hop>,
}

impl Moves {
    /// I4: a move begins at the reported hop, has a true cause, and does not begin after its end.
    pub(super) fn check_report(&mut self, event: &CoreEvent, scene: &Scene, now: Instant) -> Found {
        if let CoreEvent::Node { hop, to: Health::Down, .. } = event {
            self.dead.insert(*hop);
        }
        let CoreEvent::Moved { room, from, to, cause, started, .. } = event else { return None };
        let reported = self.reported.insert(*room, *to);
        if let Some(Some(stood)) = reported
            && stood != *from
        {
            return Some((
                "I4",
                format!("room {room} was at {stood:?} but moved from {from:?} to {to:?}"),
            ));
        }
        if Some(*from) == *to {
            return Some(("I4", format!("room {room} moved from {from:?} to itself")));
        }
        if *started > now {
            return Some(("I4", format!("the move of room {room} ended before it began")));
        }
        let lives = scene.board.is_up(from.node, from.incarnation);
        if cause.is_loss() && lives {
            return Some((
                "I4",
                format!("room {room} left {from:?} because of its death, but it is up"),
            ));
        }
        let dead = to.filter(|to| self.dead.contains(to))?;
        Some(("I4", format!("room {room} moved to {dead:?}, which is down")))
    }

    /// I5: at most three moves a minute, except off down nodes and by operators.
    pub(super) fn check_rate(&mut self, event: &CoreEvent, now: Instant) -> Found {
        let CoreEvent::Moved { room, cause, by, .. } = event else { return None };
        if cause.is_loss() || *by == Decider::Operator {
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

    /// I4: no room changes its hop without a report.
    pub(super) fn check_all(&mut self, scene: &Scene, now: Instant) -> Found {
        self.reported.retain(|id, _| scene.rooms.contains_key(id));
        self.unreported.retain(|id, _| scene.rooms.contains_key(id));
        let mut found = None;
        for (id, room) in &scene.rooms {
            if !room.is_placed() {
                continue;
            }
            let stands = room.stands(&scene.board);
            let reported = *self.reported.entry(*id).or_insert(stands);
            if reported == stands {
                self.unreported.remove(id);
                continue;
            }
            let since = *self.unreported.entry(*id).or_insert(now);
            if now - since > REPORTED_WITHIN {
                let text = format!(
                    "room {id} has been at {stands:?} for {:?}, but was reported at {reported:?}",
                    now - since
                );
                found.get_or_insert(("I4", text));
            }
        }
        found
    }
}
