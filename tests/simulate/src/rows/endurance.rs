//! What goes on for minutes.

use std::time::Duration;

use super::setup::{calls, ms, with};
use super::{Row, Scale, play, row};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::policies::Library;
use crate::script::Script;

const NEAR: Duration = Duration::from_micros(400);
const ROOMS: u32 = 20;

/// The node's process is killed and started again once a second, for 10 minutes.
pub(super) fn node_flap(library: &Library, scale: Scale) -> Row {
    flap("node.flap", "flap", &Fault::Flap(0, ms(1_000)), library, scale)
}

/// The way to the node is gone for half of each second, and nobody says so, for 10 minutes.
pub(super) fn link_flap(library: &Library, scale: Scale) -> Row {
    flap("link.flap", "link-flap", &Fault::FlapLink(0, ms(1_000)), library, scale)
}

fn flap(
    id: &'static str,
    kind: &'static str,
    fault: &Fault,
    library: &Library,
    scale: Scale,
) -> Row {
    let (minutes, worlds, rooms) = scale.pick((10, 4, ROOMS), (2, 1, 8));
    let places = [(0, 10_000, NEAR), (1, 10_000, NEAR), (0, 10_000, NEAR)];
    let scripts = (0..worlds)
        .map(|seed| {
            let script = calls(seed, rooms, &[0, 0], &places, ms(minutes * 60_000 + 5_000));
            with(script, ms(3_000), ms(minutes * 60_000), fault.clone())
        })
        .collect();
    let outcomes = play(scripts, library);
    let row = row(id, kind, &outcomes, "at most 1 move of each session within any minute");
    let worst = outcomes.iter().map(Outcome::worst_minute).max().unwrap_or(0);
    let per_minute = row.moves_per_session / minutes as f64;
    let moved = outcomes.iter().all(|one| one.session_moves > 0);
    row.with("moves_per_session_and_minute", per_minute)
        .with("moves_of_a_session_in_its_worst_minute", worst as f64)
        .holds(moved && worst <= 1)
}

/// Jitter of ±80 ms takes so long to grow.
const GROWS_OVER: Duration = Duration::from_secs(25);

/// Each node in turn: each way up to 80 ms later or sooner than the mean, growing evenly, then for 70 s as it is. In one half
/// of the worlds in order, as in a queue; in the other who is less late overtakes, as where packets take several ways.
/// Beside it, and not promised: the same within one packet. A way on which nothing comes for up to 160 ms that was steady
/// until then looks as a death does, and is left as one.
pub(super) fn jitter(library: &Library, _: Scale) -> Row {
    let both = |grows_over: Duration, then: Duration| -> Vec<Script> {
        let queued = jittery(grows_over, then, Fault::Jitter);
        queued.into_iter().chain(jittery(grows_over, then, Fault::Scatter)).collect()
    };
    let grown = play(both(GROWS_OVER, ms(70_000)), library);
    let abrupt = play(both(Duration::ZERO, ms(10_000)), library);
    let false_deaths =
        |outcomes: &[Outcome]| outcomes.iter().map(|one| one.false_deaths).sum::<u64>();
    let (false_failovers, at_onset) = (false_deaths(&grown), false_deaths(&abrupt));
    let limit = "0 false failovers while it grows over 25 s and for 70 s after; an abrupt onset is not promised";
    row("link.jitter", "jitter", &grown, limit)
        .with("false_failovers", false_failovers as f64)
        .with("abrupt_onset_failovers", at_onset as f64)
        .holds(false_failovers == 0)
}

fn jittery(
    grows_over: Duration,
    then: Duration,
    fault: impl Fn(usize, Duration, Duration) -> Fault,
) -> Vec<Script> {
    let places = [(0, 10_000, NEAR), (1, 10_000, NEAR), (0, 10_000, NEAR)];
    (0..6)
        .map(|seed| {
            let lasts = grows_over + then;
            let script = calls(seed, ROOMS, &[0, 0], &places, lasts + ms(6_000));
            let fault = fault(seed as usize % 3, ms(160), grows_over);
            with(script, ms(3_000), lasts, fault)
        })
        .collect()
}
