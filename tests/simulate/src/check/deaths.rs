//! Nobody who is well is condemned, and a death is known in its time.

use std::time::{Duration, Instant};

use evenkeel_core::{Event, Health, Timings, Witness};

type Found = Option<(&'static str, String)>;

/// What one node's condemning may take beyond its rule: two probes, a round trip, a watch.
const SLACK: Duration = Duration::from_millis(400);

pub(crate) struct Deaths {
    /// Since when each node cannot answer; our own stalls begin it anew.
    dead_since: Vec<Option<Instant>>,
}

/// A node is condemned: something was wrong with it, or with the way there.
pub(crate) fn of_the_guilty(event: &Event, troubled: &[Option<Instant>], now: Instant) -> Found {
    let Event::Node { hop, to: Health::Down, witnesses, .. } = event else { return None };
    let trouble = troubled[hop.node.0 as usize];
    if trouble.is_some_and(|until| now < until) {
        return None;
    }
    let words: Vec<&str> = witnesses.iter().map(|(witness, _)| Witness::name(*witness)).collect();
    Some((
        "false death",
        format!("{hop:?} was condemned by {words:?}, and nothing was wrong with it"),
    ))
}

impl Deaths {
    pub(super) fn new(nodes: usize) -> Deaths {
        Deaths { dead_since: vec![None; nodes] }
    }

    /// A node whose media port is probed and does not answer is Down after what one witness takes alone; where the
    /// gateway doubts its own uplink, after what that takes.
    pub(crate) fn in_time(
        &mut self,
        dead: &[Option<Instant>],
        scene: &super::Scene,
        timings: &Timings,
        (stalled, doubted): (bool, bool),
        now: Instant,
    ) -> Found {
        let doubt = if doubted { timings.panic_for } else { Duration::ZERO };
        let limit = timings.condemn_alone_far + SLACK + doubt;
        let mut found = None;
        self.dead_since.resize(scene.nodes.len(), None);
        for (at, (since, node)) in self.dead_since.iter_mut().zip(&scene.nodes).enumerate() {
            let known = matches!(node.health, Health::Down | Health::Cold) || !node.probed;
            *since = match (dead[at], *since) {
                (Some(_), _) if known || stalled => Some(now),
                (Some(dead), Some(since)) => Some(since.max(dead)),
                (dead, _) => dead,
            };
            let lasted = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            if dead[at].is_some() && !known && lasted > limit {
                let text =
                    format!("n{at} is dead for {lasted:?}, and is still {}", node.health.name());
                found.get_or_insert(("late death", text));
            }
        }
        found
    }
}
