//! The core compared with a health check every 5 s and clients that reopen sessions, at the same faults and seeds. The
//! baseline's clients use the healthy nodes of their region, as the core's do.

use std::time::Duration;

use fastrand::Rng;

use super::setup::{calls, ms, with};
use super::{Row, Scale, play, row};
use crate::fault::Fault;
use crate::policies::Library;
use crate::script::Script;

const CHECKED_EVERY: Duration = Duration::from_secs(5);
const WORLDS: u64 = 60;

pub(super) fn beside(library: &Library, _: Scale) -> Row {
    let near = Duration::from_micros(400);
    let places = [
        (0, 20_000, near),
        (1, 20_000, near),
        (0, 20_000, near),
        (2, 20_000, ms(20)),
        (2, 20_000, ms(20)),
    ];
    let scripts: Vec<Script> = (0..WORLDS)
        .map(|seed| {
            let node = Rng::with_seed(seed).usize(0..3);
            let fault = match seed % 4 {
                0 => Fault::Kill(node),
                1 => Fault::Silent(node),
                2 => Fault::Stop(node),
                _ => Fault::Cut(node),
            };
            with(calls(seed, 50, &[0, 0, 1], &places, ms(24_000)), ms(4_000), ms(18_000), fault)
        })
        .collect();
    let theirs: Vec<Script> = scripts
        .iter()
        .map(|script| Script { baseline: Some(CHECKED_EVERY), ..script.clone() })
        .collect();
    let (ours, theirs) = (play(scripts, library), play(theirs, library));
    let outage = |outcomes: &[crate::Outcome]| {
        outcomes.iter().map(|one| one.outage.as_secs_f64()).sum::<f64>()
    };
    let (mine, others) = (outage(&ours), outage(&theirs));
    let cut = 1.0 - mine / others.max(f64::EPSILON);
    let hit = |outcomes: &[crate::Outcome]| outcomes.iter().map(|one| one.noticed).sum::<u64>();
    let mean = |outage: f64, hit: u64| outage / hit.max(1) as f64;
    let (my_hit, others_hit) = (hit(&ours), hit(&theirs));
    let mut row = row("baseline", "kill", &ours, "outage cut by 99 % or more");
    row.times = WORLDS as usize;
    row.with("outage_s", mine)
        .with("outage_of_baseline_s", others)
        .with("sessions_hit", my_hit as f64)
        .with("sessions_hit_of_baseline", others_hit as f64)
        .with("outage_of_each_hit_s", mean(mine, my_hit))
        .with("outage_of_each_hit_of_baseline_s", mean(others, others_hit))
        .with("outage_cut", cut)
        .holds(cut >= 0.99)
}
