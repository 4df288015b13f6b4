//! Reviews of rooms that can wait: a routing policy that changed nothing would read the same figures again.
//!
//! A policy names the time after which it reviews a room. A gateway with many rooms leaves out a review if the figures of the
//! room and of the nodes are those of the last one, and that changed nothing. Policies also wait for times of their own and
//! read figures that are not compared, so no review is left out for longer than a minute.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use evenkeel_model::{IdMap, Measures, Metric, RoomId, Row};

use crate::rooms::room::Room;

/// Up to this number of rooms, each is reviewed at the time that its policy named.
const ROOMS_MAX: usize = 1_000;

/// Average interval of the reviews that read nothing new: they take a small part of a core.
const APART: Duration = Duration::from_millis(5);

/// Maximum interval of two reviews of a room, unless its policy named a longer one.
const REVIEWED_WITHIN: Duration = Duration::from_secs(60);

/// Jitter in microseconds above which more of it makes no difference.
const JITTER_MAX: u32 = 50_000;

/// The last review of each room, and the figures of the nodes.
#[derive(Default, Debug)]
pub(crate) struct Reviews {
    last: IdMap<RoomId, LastReview>,
    nodes: u64,
}

#[derive(Debug)]
struct LastReview {
    asked: Instant,
    /// A hash of the figures that the policy read.
    figures: u64,
    changed_nothing: bool,
}

impl Reviews {
    /// Takes the figures of all nodes.
    pub(crate) fn note_nodes(&mut self, nodes: &[Row]) {
        let mut hasher = DefaultHasher::new();
        for node in nodes {
            node.id.hash(&mut hasher);
            hash_steps(&node.measures, &mut hasher);
        }
        self.nodes = hasher.finish();
    }

    /// The policy is asked about the room.
    pub(crate) fn begin(&mut self, room: &Room, measures: &Measures, now: Instant) {
        let figures = self.figures(room, measures);
        self.last.insert(room.id(), LastReview { asked: now, figures, changed_nothing: false });
    }

    /// The policy has answered. It neither moved the room nor wrote its state.
    pub(crate) fn note_unchanged(&mut self, room: RoomId) {
        if let Some(last) = self.last.get_mut(room) {
            last.changed_nothing = true;
        }
    }

    /// The policy would read what it read when it changed nothing. `rooms`: the number of rooms of this gateway.
    pub(crate) fn can_wait(
        &self,
        room: &Room,
        measures: impl FnOnce() -> Measures,
        rooms: usize,
        now: Instant,
    ) -> bool {
        let every = (APART * rooms as u32).min(REVIEWED_WITHIN);
        rooms > ROOMS_MAX
            && self.last.get(room.id()).is_some_and(|last| {
                last.changed_nothing
                    && now.saturating_duration_since(last.asked) < every
                    && last.figures == self.figures(room, &measures())
            })
    }

    pub(crate) fn forget(&mut self, room: RoomId) {
        self.last.remove(room);
    }

    pub(crate) fn clear(&mut self) {
        self.last.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.last.len()
    }

    fn figures(&self, room: &Room, measures: &Measures) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.nodes.hash(&mut hasher);
        room.route().version.hash(&mut hasher);
        hash_steps(measures, &mut hasher);
        hasher.finish()
    }
}

/// An unmeasured value counts as 0: the start or the end of a measurement without a bad value changes no route.
fn hash_steps(measures: &Measures, hasher: &mut DefaultHasher) {
    for &metric in Metric::ALL {
        step(metric, measures.measured(metric).unwrap_or(0)).hash(hasher);
    }
}

/// The step in which the value lies. Differences within a step are noise of the measurement.
fn step(metric: Metric, value: u32) -> u32 {
    match metric {
        Metric::LossUp | Metric::LossDown | Metric::LossNode => value / 5_000,
        Metric::JitterUp | Metric::JitterDown | Metric::JitterNode => {
            value.min(JITTER_MAX) / 10_000
        }
        Metric::RttClient => value / 10_000,
        Metric::Delay => value / 2_000,
        Metric::Load | Metric::Carried => value / 50,
        Metric::Decay => value / 100,
        // The number of rooms of a node shows in its load.
        Metric::Rooms => 0,
        _ => value,
    }
}

#[cfg(test)]
mod tests;
