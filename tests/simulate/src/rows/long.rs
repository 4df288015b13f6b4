//! What goes on for minutes.

use std::time::Duration;

use super::stage::{calls, ms, with};
use super::{Row, play, row};
use crate::fault::Fault;
use crate::guests::Library;
use crate::outcome::Outcome;
use crate::script::Script;

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

/// Jitter of ±80 ms takes so long to grow: the way's queues fill.
const GROWS_OVER: Duration = Duration::from_secs(25);

/// Each node in turn: up to 80 ms later or sooner than the mean, growing evenly, then for 70 s as it is. Beside it, and
/// not promised: the same within one packet. A way on which nothing comes for up to 160 ms that was steady until then
/// looks as a death does, and is left as one.
pub(super) fn jitter(library: &Library) -> Row {
    let grown = play(jittery(GROWS_OVER, ms(70_000)), library);
    let abrupt = play(jittery(Duration::ZERO, ms(20_000)), library);
    let false_deaths =
        |outcomes: &[Outcome]| outcomes.iter().map(|one| one.false_deaths).sum::<u64>();
    let (false_failovers, at_onset) = (false_deaths(&grown), false_deaths(&abrupt));
    let limit = "0 false failovers while it grows over 25 s and for 70 s after; an abrupt onset is not promised";
    row("link.jitter", "jitter", &grown, limit)
        .with("false_failovers", false_failovers as f64)
        .with("abrupt_onset_failovers", at_onset as f64)
        .holds(false_failovers == 0)
}

fn jittery(grows_over: Duration, then: Duration) -> Vec<Script> {
    let places = [(0, 10_000, NEAR), (1, 10_000, NEAR), (0, 10_000, NEAR)];
    (0..12)
        .map(|seed| {
            let lasts = grows_over + then;
            let script = calls(seed, ROOMS, &[0, 0], &places, lasts + ms(6_000));
            let fault = Fault::Jitter(seed as usize % 3, ms(160), grows_over);
            with(script, ms(3_000), lasts, fault)
        })
        .collect()
}
