//! Worlds of the long runs: equal nodes, calls of two, and one fault.

use std::time::Duration;

use evenkeel_lab::links::Conditions;
use evenkeel_model::{Hook, Timings};
use fastrand::Rng;

use crate::fault::{Episode, Fault};
use crate::script::{Join, NodeScript, Script, settings};

/// A node's zone, capacity in kbit/s, and one-way delay.
pub(crate) type Place = (usize, u64, Duration);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Calls of two clients that stay, at these nodes; `regions` holds the region of each zone.
pub(crate) fn calls(
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
        // Degradation is asked all the time and has no effect here.
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
        rated: false,
    }
}

/// Adds a fault with a random phase to all clocks.
pub(super) fn with(mut script: Script, at: Duration, lasts: Duration, fault: Fault) -> Script {
    let phase = Duration::from_micros(Rng::with_seed(script.seed ^ 0xfa_17).u64(0..20_000));
    script.faults.push(Episode { at: at + phase, lasts, fault });
    script
}
