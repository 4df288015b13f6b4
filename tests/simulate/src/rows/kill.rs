//! One node fails, with 1,000 sessions.

use std::time::Duration;

use evenkeel_model::{Hook, RedundancyMode};

use super::setup::{Place, calls, ms, with};
use super::{Row, Scale, play, row};
use crate::fault::{Episode, Fault};
use crate::policies::Library;
use crate::script::Script;

/// Worlds per row.
const TIMES: u64 = 30;
const ROOMS: u32 = 500;
const ROOMS_SMALL: u32 = 60;
/// All clients have joined, and the rate of each node is known.
const SETTLED: Duration = Duration::from_millis(2_500);

/// Four nodes in two zones of the home region, of which three suffice.
fn home() -> [Place; 4] {
    let near = Duration::from_micros(400);
    [(0, 30_000, near), (1, 30_000, near), (0, 30_000, near), (1, 30_000, near)]
}

fn worlds(
    scale: Scale,
    regions: &[usize],
    places: &[Place],
    lasts: Duration,
    fault: &Fault,
) -> Vec<Script> {
    (0..scale.pick(TIMES, 2))
        .map(|seed| {
            with(
                calls(seed, scale.pick(ROOMS, ROOMS_SMALL), regions, places, ms(6_000)),
                SETTLED,
                lasts,
                fault.clone(),
            )
        })
        .collect()
}

/// The number of gaps that a row needs.
fn enough(scale: Scale) -> usize {
    scale.pick(3_000, 20)
}

pub(super) fn hot(library: &Library, scale: Scale) -> Row {
    let outcomes = play(worlds(scale, &[0, 0], &home(), ms(3_000), &Fault::Kill(0)), library);
    let row = row("node.kill.hot", "kill", &outcomes, "p99 <= 50 ms, max <= 150 ms");
    let held = row.gap_ms.n >= enough(scale) && row.gap_ms.p99 <= 50.0 && row.gap_ms.max <= 150.0;
    row.holds(held)
}

pub(super) fn silent(library: &Library, scale: Scale) -> Row {
    let outcomes = play(worlds(scale, &[0, 0], &home(), ms(3_000), &Fault::Silent(0)), library);
    let row = row("node.kill.hot.silent", "silent-kill", &outcomes, "p99 <= 70 ms, max <= 170 ms");
    let held = row.gap_ms.n >= enough(scale) && row.gap_ms.p99 <= 70.0 && row.gap_ms.max <= 170.0;
    row.holds(held)
}

/// Like `hot`, without policies, drivers, agents and hooks, which packets do not need.
pub(super) fn alone(library: &Library, scale: Scale) -> Row {
    let mut scripts = worlds(scale, &[0, 0], &home(), ms(3_000), &Fault::Kill(0));
    for script in &mut scripts {
        let (at, lasts) = (SETTLED - ms(200), ms(3_000));
        script.faults.push(Episode { at, lasts, fault: Fault::BackendsDead });
    }
    let outcomes = play(scripts, library);
    let row = row("node.kill.alone", "kill", &outcomes, "p99 <= 50 ms, max <= 150 ms");
    let held = row.gap_ms.n >= enough(scale) && row.gap_ms.p99 <= 50.0 && row.gap_ms.max <= 150.0;
    row.holds(held)
}

/// The node in the home region dies; the next one is 80 ms away (round trip).
pub(super) fn cross_region(library: &Library, scale: Scale) -> Row {
    let places = [(0, 70_000, Duration::from_micros(400)), (1, 70_000, ms(40))];
    let outcomes = play(worlds(scale, &[0, 1], &places, ms(3_000), &Fault::Kill(0)), library);
    let row = row("node.kill.cross-region", "kill", &outcomes, "p99 <= 300 ms");
    let held = row.gap_ms.n >= enough(scale) && row.gap_ms.p99 <= 300.0;
    row.holds(held)
}

/// The node that dies silently is 80 ms away (round trip).
pub(super) fn far(library: &Library, scale: Scale) -> Row {
    let places =
        [(1, 70_000, ms(40)), (2, 70_000, ms(40)), (1, 70_000, ms(40)), (2, 70_000, ms(40))];
    let mut scripts = worlds(scale, &[0, 1, 1], &places, ms(3_000), &Fault::Silent(1));
    for scenario in scripts.iter_mut().flat_map(|script| script.settings.scenarios.values_mut()) {
        // The admission policy would redirect sessions to a gateway there.
        scenario.bound[Hook::Admission as usize] = false;
    }
    let outcomes = play(scripts, library);
    let row = row("node.kill.far", "silent-kill", &outcomes, "p99 <= 300 ms");
    let held = row.gap_ms.n >= enough(scale) && row.gap_ms.p99 <= 300.0;
    row.holds(held)
}

/// The node is stopped for 5 s, then handles what waited in its sockets; none of that may reach a client (I3).
pub(super) fn stop(library: &Library, scale: Scale) -> Row {
    let scripts = worlds(scale, &[0, 0], &home(), ms(5_000), &Fault::Stop(0));
    let scripts =
        scripts.into_iter().take(10).map(|script| Script { lasts: ms(9_500), ..script }).collect();
    let outcomes = play(scripts, library);
    let row = row(
        "node.stop",
        "stop",
        &outcomes,
        "p99 <= 70 ms, max <= 170 ms, nothing of the old owner's is heard",
    );
    let held = row.gap_ms.n > 0 && row.gap_ms.p99 <= 70.0 && row.gap_ms.max <= 170.0;
    row.holds(held)
}

/// The node is drained without loss.
pub(super) fn drain(library: &Library, scale: Scale) -> Row {
    let scripts =
        worlds(scale, &[0, 0], &home(), ms(2_000), &Fault::Drain(0)).into_iter().take(10).collect();
    let outcomes = play(scripts, library);
    let row = row("node.drain", "drain", &outcomes, "0 lost");
    let held = row.packets_lost == 0 && row.gap_ms.n > 0 && row.moves_per_session > 0.0;
    row.holds(held)
}

/// Two nodes carry each call, and one dies.
fn twice(
    id: &'static str,
    kind: &'static str,
    fault: &Fault,
    library: &Library,
    scale: Scale,
) -> Row {
    let mut scripts = worlds(scale, &[0, 0], &home(), ms(3_000), fault);
    for script in &mut scripts {
        script
            .settings
            .scenarios
            .values_mut()
            .for_each(|scenario| scenario.mode = RedundancyMode::Hitless);
        // Streams of mixers are not copies of each other.
        script.nodes.iter_mut().for_each(|node| node.mixes = false);
    }
    let row = row(id, kind, &play(scripts, library), "0 lost");
    let held = row.packets_lost == 0 && row.gap_ms.n >= enough(scale);
    row.holds(held)
}

pub(super) fn hitless(library: &Library, scale: Scale) -> Row {
    twice("node.kill.hitless", "kill", &Fault::Kill(0), library, scale)
}

pub(super) fn hitless_silent(library: &Library, scale: Scale) -> Row {
    twice("node.kill.hitless.silent", "silent-kill", &Fault::Silent(0), library, scale)
}
