//! What goes on for minutes.

use std::time::Duration;

use super::stage::{calls, ms, with};
use super::{Row, play, row};
use crate::fault::Fault;
use crate::guests::Library;

const NEAR: Duration = Duration::from_micros(400);
const ROOMS: u32 = 20;

/// Killed and started again once a second, for 10 minutes.
pub(super) fn flap(library: &Library) -> Row {
    let minutes = 10;
    let places = [(0, 10_000, NEAR), (1, 10_000, NEAR), (0, 10_000, NEAR)];
    let scripts = (0..4)
        .map(|seed| {
            let script = calls(seed, ROOMS, &[0, 0], &places, ms(minutes * 60_000 + 5_000));
            with(script, ms(3_000), ms(minutes * 60_000), Fault::Flap(0, ms(1_000)))
        })
        .collect();
    let outcomes = play(scripts, library);
    let row = row("link.flap", "flap", &outcomes, "at most 1 move per session and minute");
    let per_minute = row.moves_per_session / minutes as f64;
    row.with("moves_per_session_and_minute", per_minute).holds(per_minute <= 1.0)
}

/// Each node in turn, for a minute: up to 80 ms later or sooner than the mean.
pub(super) fn jitter(library: &Library) -> Row {
    let places = [(0, 10_000, NEAR), (1, 10_000, NEAR), (0, 10_000, NEAR)];
    let scripts = (0..12)
        .map(|seed| {
            let script = calls(seed, ROOMS, &[0, 0], &places, ms(66_000));
            with(script, ms(3_000), ms(60_000), Fault::Jitter(seed as usize % 3, ms(160)))
        })
        .collect();
    let outcomes = play(scripts, library);
    let false_deaths: u64 = outcomes.iter().map(|one| one.false_deaths).sum();
    let row = row("link.jitter", "jitter", &outcomes, "0 false failovers");
    row.with("false_failovers", false_deaths as f64).holds(false_deaths == 0)
}
