//! Worlds that lose nodes. No policy decides in them.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_lab::links::Conditions;
use evenkeel_model::{
    FailureScope, NodeId, RedundancyMode, RegionId, RegionRole, Scenario, Timings,
};
use fastrand::Rng;

use super::{LASTS, QUIET_AFTER, ms};
use crate::fault::{Episode, Fault};
use crate::rows::setup::{Place, calls};
use crate::script::{Join, NodeScript, Script, settings};

/// The regions of the zones.
const REGIONS: [usize; 4] = [0, 0, 0, 1];

/// Modes that open spares ahead, and reserve capacity at them.
const AHEAD: [RedundancyMode; 3] =
    [RedundancyMode::Hot, RedundancyMode::ActiveActive, RedundancyMode::Hitless];

fn scenarios(script: &mut Script) -> impl Iterator<Item = &mut Scenario> {
    script.settings.scenarios.values_mut()
}

/// The world of the seed, with its faults.
pub(super) fn faulty(seed: u64) -> Script {
    let mut script = Script::from_seed(seed);
    scenarios(&mut script).for_each(|scenario| scenario.bound.fill(false));
    script.thorough = false;
    script
}

/// Nodes that are nearly full, and rooms of any mode.
pub(super) fn crowded(rng: &mut Rng, seed: u64) -> Script {
    let count = rng.usize(3..10);
    let nodes: Vec<(usize, u64)> =
        (0..count).map(|_| (rng.usize(..REGIONS.len()), rng.u64(300..2_500))).collect();
    let rooms = rng.u32(5..40);
    let mut script = crowd(rng, seed, &nodes, rooms);
    for node in &mut script.settings.nodes {
        node.role = if rng.u8(0..4) == 0 { RegionRole::Standby } else { RegionRole::Active };
    }
    for scenario in scenarios(&mut script) {
        scenario.mode = RedundancyMode::ALL[rng.usize(..RedundancyMode::ALL.len())];
        scenario.reserve = Some(FailureScope::ALL[rng.usize(..FailureScope::ALL.len())]);
    }
    script.settings.limits.lost_at_once = rng.usize(1..20);
    script
}

/// Rooms that reserve capacity for the death of a zone, and nodes that mostly have it.
pub(super) fn reserving(rng: &mut Rng, seed: u64) -> Script {
    let nodes: Vec<(usize, u64)> =
        (0..rng.usize(4..10)).map(|at| (at % 3, rng.u64(800..4_000))).collect();
    let rooms = rng.u32(3..25);
    let mut script = crowd(rng, seed, &nodes, rooms);
    for scenario in scenarios(&mut script) {
        scenario.mode = AHEAD[rng.usize(..AHEAD.len())];
        scenario.reserve = Some(FailureScope::Zone);
    }
    script
}

/// Sessions without media, some of which leave.
fn crowd(rng: &mut Rng, seed: u64, nodes: &[(usize, u64)], rooms: u32) -> Script {
    let mut settings = settings(&REGIONS, nodes);
    settings.timings = Timings::default();
    for scenario in settings.scenarios.values_mut() {
        scenario.bound.fill(false);
        scenario.regions = vec![RegionId(0), RegionId(1)];
        scenario.spares = rng.u8(1..4);
    }
    let mut joins = Vec::new();
    for room in 0..rooms {
        let call = rng.bool();
        for _ in 0..rng.u8(1..4) {
            joins.push(Join {
                at: ms(rng.u64(0..1_200)),
                room,
                call,
                video: rng.u8(0..3) == 0,
                sends: false,
                delay: ms(rng.u64(3..40)),
                stays: (rng.u8(0..4) == 0).then(|| ms(rng.u64(100..1_000))),
                vanishes: false,
            });
        }
    }
    joins.sort_by_key(|join| join.at);
    let node = |&(zone, _): &(usize, u64)| NodeScript {
        link: Conditions { delay: delay(zone), ..Conditions::default() },
        mixes: false,
        ports: false,
        agent: false,
        starts: None,
    };
    let (nodes, lasts) = (nodes.iter().map(node).collect(), Duration::from_secs(8));
    // Refused clients do not try again.
    let calm = lasts;
    let faults = Vec::new();
    Script {
        seed,
        settings,
        nodes,
        joins,
        faults,
        lasts,
        calm,
        baseline: None,
        thorough: false,
        rated: false,
    }
}

/// The one-way delay to nodes of a zone.
fn delay(zone: usize) -> Duration {
    if REGIONS[zone] == 0 { ms(1) } else { ms(20) }
}

/// Calls with media, and the nodes of one place, which die in one moment.
pub(super) fn detected(rng: &mut Rng, seed: u64) -> (Script, BTreeSet<NodeId>) {
    let place = |rng: &mut Rng| -> Place {
        let zone = rng.usize(..REGIONS.len());
        (zone, rng.u64(500..4_000), delay(zone))
    };
    let places: Vec<Place> = (0..rng.usize(3..10)).map(|_| place(rng)).collect();
    let rooms = rng.u32(5..40);
    let mut script = calls(seed, rooms, &REGIONS, &places, QUIET_AFTER + LASTS + ms(1_000));
    for scenario in scenarios(&mut script) {
        scenario.bound.fill(false);
        scenario.mode = AHEAD[rng.usize(..AHEAD.len())];
        scenario.regions = vec![RegionId(0), RegionId(1)];
        scenario.reserve = Some(FailureScope::ALL[rng.usize(..FailureScope::ALL.len())]);
        scenario.spares = rng.u8(1..4);
    }
    let one = rng.usize(..places.len());
    let is_zone = !rng.bool();
    let dies = |at: &usize| if is_zone { places[*at].0 == places[one].0 } else { *at == one };
    let lost: Vec<usize> = (0..places.len()).filter(dies).collect();
    script.faults = lost
        .iter()
        .map(|node| Episode { at: QUIET_AFTER, lasts: 2 * LASTS, fault: Fault::Kill(*node) })
        .collect();
    (script, lost.into_iter().map(|node| NodeId(node as u32)).collect())
}
