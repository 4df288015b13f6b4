//! A region with 10,000 sessions fails.

use std::time::Duration;

use super::setup::{Place, calls, ms, with};
use super::{Row, Scale, play, row};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::policies::Library;

const ROOMS: u32 = 5_000;
const KBPS: u64 = 128;

/// Four nodes in the home region carry all sessions; four in another one have capacity for `percent` of them. Sessions
/// without a hop are counted while the region is down.
fn lose(
    id: &'static str,
    fault: &Fault,
    (percent, limit): (u64, &'static str),
    library: &Library,
    scale: Scale,
) -> Row {
    let (rooms, seeds) = scale.pick((ROOMS, 3), (100, 1));
    let all = u64::from(rooms) * KBPS;
    let abroad = all * percent / 400;
    let (near, away) = (Duration::from_micros(400), ms(20));
    let mut places: Vec<Place> = (0..4).map(|at| (at % 2, all / 2, near)).collect();
    places.extend((0..4).map(|at| (2 + at % 2, abroad, away)));
    let scripts = (7..7 + seeds)
        .map(|seed| {
            let script = calls(seed, rooms, &[0, 0, 1, 1], &places, ms(8_500));
            with(script, ms(4_000), ms(9_000), fault.clone())
        })
        .collect();
    let outcomes = play(scripts, library);
    let peak = outcomes.iter().map(|one| one.peak_permille).max().unwrap_or(0);
    let row = row(id, fault.name(), &outcomes, limit);
    // All sessions that fit must be re-homed, except for one room per node.
    let fits = (abroad / KBPS * 4 * 2).saturating_sub(8);
    let re_homed = |one: &Outcome| one.admitted - one.homeless;
    let wanted = |one: &Outcome| one.admitted.min(fits);
    let all_that_fit = outcomes.iter().all(|one| re_homed(one) >= wanted(one));
    let sum = |of: &dyn Fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>() as f64;
    let re_homed_sum = sum(&re_homed);
    row.with("re_homed_share", re_homed_sum / sum(&|one| one.admitted).max(1.0))
        .with("re_homed_of_what_fits", re_homed_sum / sum(&wanted).max(1.0))
        .with("peak_load", peak as f64 / 1_000.0)
        .holds(all_that_fit && peak <= 1_000)
}

/// The other region has capacity for all sessions.
const FOR_ALL: (u64, &str) = (120, "all re-homed, p99 <= 300 ms, no node above its limit");

fn in_time(row: Row) -> Row {
    let held = row.gap_ms.n >= row.sessions / 2 && row.gap_ms.p99 <= 300.0;
    row.holds(held)
}

pub(super) fn kill(library: &Library, scale: Scale) -> Row {
    in_time(lose("region.kill", &Fault::RegionKilled(0), FOR_ALL, library, scale))
}

pub(super) fn silent(library: &Library, scale: Scale) -> Row {
    in_time(lose("region.kill.silent", &Fault::RegionSilent(0), FOR_ALL, library, scale))
}

/// The other region has capacity for 60 %.
pub(super) fn tight(library: &Library, scale: Scale) -> Row {
    let limit = (60, "all that fit re-homed, no node above its limit");
    lose("region.kill.tight", &Fault::RegionSilent(0), limit, library, scale)
}
