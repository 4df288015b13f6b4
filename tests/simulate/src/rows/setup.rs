//! Worlds of the rows: nodes alike, calls of two, and one thing that goes wrong.

use std::time::Duration;

use evenkeel_core::{Hook, Timings};
use evenkeel_links::Conditions;
use fastrand::Rng;

use crate::fault::{Episode, Fault};
use crate::script::{Join, NodeScript, Script, settings};

/// Where a node is: its zone, what it can carry, how far away it is, one way.
pub(super) type Place = (usize, u64, Duration);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// So many calls of two at these places; the region of each zone is given. Nobody leaves.
pub(super) fn calls(
    seed: u64,
    rooms: u32,
    regions: &[usize],
    places: &[Place],
    lasts: Duration,
) -> Script {
    let mut rng = Rng::with_seed(seed);
    let nodes: Vec<(usize, u64)> = places.iter().map(|(zone, kbps, _)| (*zone, *kbps)).collect();
    let mut settings = settings(regions, &nodes);
    settings.timings = Timings::default();
    for scenario in settings.scenarios.values_mut() {
        // It is asked of every session all the time, and has no say here.
        scenario.bound[Hook::Degradation as usize] = false;
    }
    let nodes = places
        .iter()
        .map(|(_, _, delay)| NodeScript {
            link: Conditions {
                delay: *delay,
                jitter: Duration::from_micros(200),
                ..Conditions::default()
            },
            mixes: rng.bool(),
            ports: false,
            agent: false,
            starts: None,
        })
        .collect();
    let over = Duration::from_micros(u64::from(rooms) * 300);
    let joins = (0..rooms * 2)
        .map(|person| Join {
            at: over.mul_f64(f64::from(person) / f64::from(rooms * 2)),
            room: person / 2,
            call: true,
            video: false,
            sends: true,
            delay: ms(rng.u64(3..40)),
            stays: None,
            vanishes: false,
        })
        .collect();
    let calm = ms(1_000);
    Script {
        seed,
        settings,
        nodes,
        joins,
        faults: Vec::new(),
        lasts,
        calm,
        baseline: None,
        thorough: true,
    }
}

/// With this going wrong from `at` on, at random phase of every clock.
pub(super) fn with(mut script: Script, at: Duration, lasts: Duration, fault: Fault) -> Script {
    let phase = Duration::from_micros(Rng::with_seed(script.seed ^ 0xfa_17).u64(0..20_000));
    script.faults.push(Episode { at: at + phase, lasts, fault });
    script
}
