//! I10: what the core keeps is within limits that have names.

use std::time::{Duration, Instant};

use evenkeel_core::{Gateway, Hook, Kept, Settings};

use super::outputs::LEGS_MAX;

/// Questions in flight.
const ASKS_MAX: usize = 256;

/// Openings that a node has under way at a time, however well it does.
const OPENING_MAX: usize = 1_024;

/// Moves of a room that are kept on record.
const MOVES_MAX: usize = 8;

/// Timers of each node: probes, canaries, a drain, a start, and that it is forgotten.
const TIMERS_OF_A_NODE: usize = 5;

/// Timers of each room: what it leaves, and when it is looked at again.
const TIMERS_OF_A_ROOM: usize = 2;

/// Timers of the gateway itself, at most one of each kind.
const TIMERS_ALONE: usize = 16;

/// In a large world everything is counted so often, in a small one after each step.
const COUNTED_EVERY: Duration = Duration::from_millis(50);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Memory {
    counted: Option<Instant>,
    limits: Limits,
}

/// What of it is given by settings.
#[derive(Default)]
struct Limits {
    sessions: usize,
    slots: usize,
    scenarios: usize,
    damped: usize,
}

impl Memory {
    pub(super) fn new(settings: &Settings) -> Memory {
        let limits = Limits {
            sessions: settings.limits.sessions_max,
            slots: settings.limits.nodes_max.max(settings.nodes.len()),
            scenarios: settings.scenarios.len(),
            damped: settings.limits.moves_per_minute,
        };
        Memory { counted: None, limits }
    }

    /// I10: nothing grows beyond its limit; what is kept of sessions and rooms is of those that are there.
    pub(super) fn within_limits(&mut self, gateway: &Gateway, large: bool, now: Instant) -> Found {
        if large && self.counted.is_some_and(|at| now - at < COUNTED_EVERY) {
            return None;
        }
        self.counted = Some(now);
        let kept = gateway.kept();
        let over = self.limits.of(&kept).into_iter().find(|(_, size, limit)| size > limit);
        over.map(|(what, size, limit)| {
            ("I10", format!("{size} {what}, and at most {limit} may be"))
        })
    }
}

impl Limits {
    /// What is kept, how much of it, and how much may be.
    fn of(&self, kept: &Kept) -> [(&'static str, usize, usize); 15] {
        let policies = self.scenarios * Hook::ALL.len();
        let timers = kept.slots * TIMERS_OF_A_NODE
            + kept.rooms * TIMERS_OF_A_ROOM
            + kept.sessions
            + kept.asks
            + policies
            + TIMERS_ALONE;
        [
            ("sessions", kept.sessions, self.sessions),
            ("rooms, each with somebody", kept.rooms, kept.sessions),
            ("calls, each with a room", kept.calls, kept.rooms),
            ("rooms in a list of them", kept.rooms_listed, kept.rooms),
            ("sessions in a list of them", kept.sessions_listed, kept.sessions),
            ("questions in flight", kept.asks, ASKS_MAX),
            ("hops of a session", kept.legs, LEGS_MAX),
            ("openings under way at a node", kept.opening, OPENING_MAX),
            ("openings that wait", kept.waiting, kept.sessions * LEGS_MAX),
            ("moves of a room on record", kept.moves, MOVES_MAX),
            ("moves of a room that are counted", kept.damped, self.damped),
            ("ballots about nodes", kept.ballots, kept.slots * self.scenarios),
            ("drains, each of a node", kept.drains, kept.slots),
            ("numbers of nodes", kept.slots, self.slots),
            ("reasons to wake", kept.timers, timers),
        ]
    }
}

/// I10: of those who are gone nothing is kept, but the numbers of nodes and their timers.
pub(super) fn nothing_left(gateway: &Gateway) -> Found {
    let Kept { slots, timers, drains, ballots, .. } = gateway.kept();
    let empty = Kept { slots, timers, drains, ballots, ..Kept::default() };
    let kept = gateway.kept();
    (kept != empty).then(|| ("I10", format!("everybody is gone, and left are {kept:?}")))
}
