//! Runs of several minutes.

use std::time::Duration;

use super::setup::{calls, ms, with};
use super::{Row, Scale, play, row};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::policies::Library;
use crate::script::Script;

const NEAR: Duration = Duration::from_micros(400);
const ROOMS: u32 = 20;

/// The node's process is killed and restarted every second for 10 minutes.
pub(super) fn node_flap(library: &Library, scale: Scale) -> Row {
    flap("node.flap", "flap", &Fault::Flap(0, ms(1_000)), library, scale)
}

/// The link to the node is down for half of each second for 10 minutes.
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

/// The time in which jitter grows to ±80 ms.
const GROWS_OVER: Duration = Duration::from_secs(25);

/// Each node in turn: jitter of ±80 ms in each direction, growing linearly and then constant for 70 s. Half of the worlds
/// keep the packet order, as a queue does; the other half reorders, as multiple paths do. Also measured, without a limit:
/// the same jitter at once. A link without packets for 160 ms after a steady phase looks dead, and is left.
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
    let limit = "0 false failovers while jitter grows over 25 s and for 70 s after; no limit for an abrupt onset";
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
