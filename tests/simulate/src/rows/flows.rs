//! A node that drops one flow of 64 and is otherwise healthy.

use std::time::Duration;

use super::setup::{calls, ms, with};
use super::{Row, Scale, play, row};
use crate::fault::Fault;
use crate::outcome::Spread;
use crate::policies::Library;

const WORLDS: u64 = 30;
const ROOMS: u32 = 500;

/// Rooms with a lost flow leave the node, and no other room does.
pub(super) fn lost(library: &Library, scale: Scale) -> Row {
    let worlds = scale.pick(WORLDS, 2);
    let near = Duration::from_micros(400);
    let places = [(0, 30_000, near), (1, 30_000, near), (0, 30_000, near), (1, 30_000, near)];
    let scripts = (0..worlds)
        .map(|seed| {
            let script = calls(seed, ROOMS, &[0, 0], &places, ms(9_000));
            with(script, ms(3_500), ms(4_000), Fault::GrayFlows(0, 64))
        })
        .collect();
    let outcomes = play(scripts, library);
    let moved: Vec<Duration> =
        outcomes.iter().flat_map(|one| &one.flows.moved_after).copied().collect();
    let others: u64 = outcomes.iter().map(|one| one.flows.others_moved).sum();
    let stay: usize = outcomes.iter().map(|one| one.flows.not_moved()).sum();
    let after = Spread::of(&moved);
    let limit = "rooms with such a flow moved within 2 s, no other room moved";
    row("link.lost-flows", "gray-flows", &outcomes, limit)
        .with("rooms_with_lost_flow", (moved.len() + stay) as f64)
        .with("not_moved", stay as f64)
        .with("moved_p50_ms", after.p50)
        .with("moved_p99_ms", after.p99)
        .with("moved_max_ms", after.max)
        .with("others_moved", others as f64)
        .holds(after.n >= scale.pick(100, 4) && stay == 0 && after.max <= 2_000.0 && others == 0)
}
