//! Two weeks of a link, a sample each minute: some links flap before an outage, and all have single losses and maintenance.

use evenkeel_forecast::NODE_HOLD_MINUTES;
use fastrand::Rng;

use crate::load_days::MINUTES_OF_DAY;
use crate::random::{chance, exponential, uniform};
use crate::truth::TruthEvent;

const DAYS: usize = 14;

pub(crate) struct LinkDays {
    /// Changes between up and down in each minute.
    pub(crate) changes: Vec<u32>,
    /// The outage after which the link stays down for long, if it flaps before.
    pub(crate) outage: Option<TruthEvent>,
}

impl LinkDays {
    pub(crate) fn generate(seed: u64) -> LinkDays {
        let rng = &mut Rng::with_seed(seed);
        let mut changes = vec![0; DAYS * MINUTES_OF_DAY];
        if chance(rng, 0.3) {
            let minute = rng.usize(0..MINUTES_OF_DAY);
            changes.iter_mut().skip(minute).step_by(MINUTES_OF_DAY).for_each(|it| *it += 2);
        }
        for day in changes.chunks_mut(MINUTES_OF_DAY) {
            if chance(rng, 0.3) {
                day[rng.usize(0..MINUTES_OF_DAY)] += 2;
            }
            if chance(rng, 0.08) {
                // Maintenance: down and up a few times.
                let begins = rng.usize(0..MINUTES_OF_DAY - 30);
                for _ in 0..rng.usize(1..4) {
                    day[begins + rng.usize(0..15)] += 1;
                    day[begins + rng.usize(0..30)] += 1;
                }
            }
        }
        let outage = rng.bool().then(|| {
            let (from, lasts) = (rng.usize(0..changes.len() - 240), rng.usize(30..181));
            let interval = uniform(rng, 1.0, 6.0);
            let mut at = from as f64;
            while at < (from + lasts) as f64 {
                changes[at as usize] += 1;
                at += exponential(rng, interval);
            }
            let at = from + lasts;
            TruthEvent { from, at, until: at + 30 + NODE_HOLD_MINUTES as usize }
        });
        LinkDays { changes, outage }
    }
}
