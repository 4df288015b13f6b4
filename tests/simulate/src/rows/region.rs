//! A whole region, lost with 10,000 sessions.

use std::time::Duration;

use super::stage::{Place, calls, ms, with};
use super::{Row, play, row};
use crate::fault::Fault;
use crate::guests::Library;

const ROOMS: u32 = 5_000;
const KBPS: u64 = 128;

/// Four nodes at home that carry everybody, and four abroad of this capacity each.
fn lose(id: &'static str, abroad: u64, limit: &'static str, library: &Library) -> Row {
    let all = u64::from(ROOMS) * KBPS;
    let (near, away) = (Duration::from_micros(400), ms(20));
    let mut places: Vec<Place> = (0..4).map(|at| (at % 2, all / 2, near)).collect();
    places.extend((0..4).map(|at| (2 + at % 2, abroad, away)));
    let script = calls(7, ROOMS, &[0, 0, 1, 1], &places, ms(9_000));
    let outcomes = play(vec![with(script, ms(4_000), ms(4_500), Fault::RegionSilent(0))], library);
    let homeless = outcomes.iter().map(|one| one.homeless).sum::<u64>();
    let peak = outcomes.iter().map(|one| one.peak_permille).max().unwrap_or(0);
    let row = row(id, "region-silent", &outcomes, limit);
    let (sessions, fits) = (row.sessions as u64, abroad * 4 / KBPS * 2);
    // What no node can take stays where it is; what fits by the room has to be there, but for a room on each node.
    let re_homed = sessions - homeless;
    let wanted = sessions.min(fits.saturating_sub(8));
    row.with("re_homed_share", re_homed as f64 / sessions.max(1) as f64)
        .with("re_homed_of_what_fits", re_homed as f64 / wanted.max(1) as f64)
        .with("peak_load", peak as f64 / 1_000.0)
        .holds(re_homed >= wanted && peak <= 1_000)
}

/// Abroad there is room for all of them.
pub(super) fn kill(library: &Library) -> Row {
    let abroad = u64::from(ROOMS) * KBPS * 3 / 10;
    lose("region.kill", abroad, "all re-homed, no node above its limit", library)
}

/// Abroad there is room for 60 in 100.
pub(super) fn tight(library: &Library) -> Row {
    let abroad = u64::from(ROOMS) * KBPS * 15 / 100;
    lose("region.kill.tight", abroad, "all that fit re-homed, no node above its limit", library)
}
