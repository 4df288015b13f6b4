//! I10: the core's state is within named limits.

use std::time::{Duration, Instant};

use evenkeel_core::{Gateway, TableSizes};
use evenkeel_model::{CoreSettings, Hook};

use super::outputs::LEGS_MAX;

const ASKS_MAX: usize = 256;

/// Concurrent openings at a node.
const OPENING_MAX: usize = 1_024;

/// Recorded moves of a room.
const MOVES_MAX: usize = 8;

/// Timers of a node: probes, canaries, drain, start, removal.
const TIMERS_OF_A_NODE: usize = 5;

/// Timers of a room: the hop being left, and the next review.
const TIMERS_OF_A_ROOM: usize = 2;

/// Timers of the gateway itself, at most one of each kind.
const TIMERS_ALONE: usize = 16;

/// Interval of counting in a large world; a small one is counted after each step.
const COUNTED_EVERY: Duration = Duration::from_millis(50);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Memory {
    counted: Option<Instant>,
    limits: Limits,
}

/// The limits that settings give.
#[derive(Default)]
struct Limits {
    sessions: usize,
    slots: usize,
    scenarios: usize,
    damped: usize,
}

impl Memory {
    pub(super) fn new(settings: &CoreSettings) -> Memory {
        let limits = Limits {
            sessions: settings.limits.sessions_max,
            slots: settings.limits.nodes_max.max(settings.nodes.len()),
            scenarios: settings.scenarios.len(),
            damped: settings.limits.moves_per_minute,
        };
        Memory { counted: None, limits }
    }

    /// I10: nothing exceeds its limit, and state of sessions and rooms belongs to existing ones.
    pub(super) fn check(&mut self, gateway: &Gateway, large: bool, now: Instant) -> Found {
        if large && self.counted.is_some_and(|at| now - at < COUNTED_EVERY) {
            return None;
        }
        self.counted = Some(now);
        let kept = gateway.views().table_sizes();
        let over = self.limits.of(&kept).into_iter().find(|(_, size, limit)| size > limit);
        over.map(|(what, size, limit)| ("I10", format!("{size} {what}; the limit is {limit}")))
    }
}

impl Limits {
    /// The name, size and limit of each collection.
    fn of(&self, kept: &TableSizes) -> [(&'static str, usize, usize); 15] {
        let policies = self.scenarios * Hook::ALL.len();
        let timers = kept.slots * TIMERS_OF_A_NODE
            + kept.rooms * TIMERS_OF_A_ROOM
            + kept.sessions
            + kept.asks
            + policies
            + TIMERS_ALONE;
        [
            ("sessions", kept.sessions, self.sessions),
            ("rooms with a session", kept.rooms, kept.sessions),
            ("calls with a room", kept.calls, kept.rooms),
            ("listed rooms", kept.rooms_listed, kept.rooms),
            ("listed sessions", kept.sessions_listed, kept.sessions),
            ("questions in flight", kept.asks, ASKS_MAX),
            ("hops of a session", kept.legs, LEGS_MAX),
            ("concurrent openings at a node", kept.opening, OPENING_MAX),
            ("waiting openings", kept.waiting, kept.sessions * LEGS_MAX),
            ("recorded moves of a room", kept.moves, MOVES_MAX),
            ("counted moves of a room", kept.damped, self.damped),
            ("ballots about nodes", kept.ballots, kept.slots * self.scenarios),
            ("drains of nodes", kept.drains, kept.slots),
            ("numbers of nodes", kept.slots, self.slots),
            ("timers", kept.timers, timers),
        ]
    }
}

/// I10: after the end only node numbers and their timers are left.
pub(super) fn nothing_left(gateway: &Gateway) -> Found {
    let TableSizes { slots, timers, drains, ballots, .. } = gateway.views().table_sizes();
    let empty = TableSizes { slots, timers, drains, ballots, ..TableSizes::default() };
    let kept = gateway.views().table_sizes();
    (kept != empty).then(|| ("I10", format!("left without sessions: {kept:?}")))
}
