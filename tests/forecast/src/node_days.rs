//! Two weeks of a node, a sample each minute: some nodes decay before they fail, and all have harmless disturbances.

use evenkeel_forecast::DecaySign;
use fastrand::Rng;

use crate::load_days::MINUTES_OF_DAY;
use crate::noise::{bump, chance, normal, uniform};
use crate::truth::TruthEvent;

const DAYS: usize = 14;
const MINUTES: usize = DAYS * MINUTES_OF_DAY;

/// Failures come after days on which the node was healthy.
const FIRST_FAILURE_DAY: f64 = 4.0;

/// A sample of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GeneratedMinute {
    pub(crate) round_trip_ms: f64,
    /// Share of lost packets.
    pub(crate) loss: f64,
    /// Restarts within the minute.
    pub(crate) restarts: u32,
    /// Share of used memory, if an agent reports it.
    pub(crate) memory: Option<f64>,
}

pub(crate) struct NodeDays {
    pub(crate) samples: Vec<GeneratedMinute>,
    /// The failure, if the node decays. Samples after it are those of a new process.
    pub(crate) failure: Option<TruthEvent>,
}

impl NodeDays {
    pub(crate) fn generate(seed: u64) -> NodeDays {
        let rng = &mut Rng::with_seed(seed);
        let mut samples = healthy(rng);
        disturb(&mut samples, rng);
        let failure = rng.bool().then(|| decay(&mut samples, rng));
        if chance(rng, 0.33) {
            samples.iter_mut().for_each(|sample| sample.memory = None);
        }
        for sample in &mut samples {
            sample.loss = sample.loss.clamp(0.0, 1.0);
            sample.memory = sample.memory.map(|memory| memory.clamp(0.0, 1.0));
        }
        // Without the agent a leak shows no sign.
        let has_memory = samples[0].memory.is_some();
        let failure = failure.filter(|(sign, _)| has_memory || *sign != DecaySign::Memory);
        NodeDays { samples, failure: failure.map(|(_, failure)| failure) }
    }
}

fn healthy(rng: &mut Rng) -> Vec<GeneratedMinute> {
    let (round_trip, busy_hour) = (uniform(rng, 1.0, 40.0), uniform(rng, 9.0, 21.0));
    let (delay_swing, memory_swing) = (uniform(rng, 0.0, 0.1), uniform(rng, 0.0, 0.05));
    let (loss, memory) = (uniform(rng, 0.0, 0.001), uniform(rng, 0.25, 0.55));
    let sample = |minute: usize| {
        let hour = (minute % MINUTES_OF_DAY) as f64 / 60.0;
        let load = bump(hour, busy_hour, 3.0);
        GeneratedMinute {
            round_trip_ms: round_trip * (1.0 + delay_swing * load + 0.03 * normal(rng)).max(0.5),
            loss: (loss * (1.0 + 0.5 * normal(rng))).max(0.0),
            restarts: 0,
            memory: Some(memory + memory_swing * load + 0.005 * normal(rng)),
        }
    };
    (0..MINUTES).map(sample).collect()
}

fn disturb(samples: &mut [GeneratedMinute], rng: &mut Rng) {
    if chance(rng, 0.3) {
        add_backup(samples, rng);
    }
    if chance(rng, 0.3) {
        fill_cache(samples, rng);
    }
    for day in 0..DAYS {
        let minute = day * MINUTES_OF_DAY + rng.usize(0..MINUTES_OF_DAY);
        let later = &mut samples[minute..];
        if chance(rng, 0.3) {
            add_spike(later, rng);
        }
        if chance(rng, 0.15) {
            change_route(later, rng);
        }
        if chance(rng, 0.2) {
            add_congestion(later, rng);
        }
        if chance(rng, 0.1) {
            let restarts = rng.usize(1..3);
            for sample in later.iter_mut().step_by(rng.usize(3..10)).take(restarts) {
                sample.restarts += 1;
            }
        }
    }
}

/// The same minutes of each night.
fn add_backup(samples: &mut [GeneratedMinute], rng: &mut Rng) {
    let (begins, lasts) = (rng.usize(0..300), rng.usize(20..61));
    let (delay, loss) = (uniform(rng, 1.3, 2.5), uniform(rng, 0.0, 0.01));
    for night in samples.chunks_mut(MINUTES_OF_DAY) {
        for sample in night[begins..].iter_mut().take(lasts) {
            sample.round_trip_ms *= delay;
            sample.loss += loss;
            sample.memory = sample.memory.map(|memory| memory + 0.1);
        }
    }
}

/// Caches take memory for hours, then no more.
fn fill_cache(samples: &mut [GeneratedMinute], rng: &mut Rng) {
    let begins = rng.usize(0..MINUTES / 2);
    let (share, hours) = (uniform(rng, 0.1, 0.3), uniform(rng, 2.0, 10.0));
    for (minute, sample) in samples[begins..].iter_mut().enumerate() {
        let filled = 1.0 - (-(minute as f64) / (hours * 60.0)).exp();
        sample.memory = sample.memory.map(|memory| memory + share * filled);
    }
}

fn add_spike(samples: &mut [GeneratedMinute], rng: &mut Rng) {
    let lasts = rng.usize(1..6);
    let (delay, loss) = (uniform(rng, 2.0, 10.0), uniform(rng, 0.02, 0.2));
    let (has_delay, has_loss) = (rng.bool(), rng.bool());
    for sample in samples.iter_mut().take(lasts) {
        sample.round_trip_ms *= if has_delay { delay } else { 1.0 };
        sample.loss += if has_loss { loss } else { 0.0 };
    }
}

/// The round trip has a new steady level.
fn change_route(samples: &mut [GeneratedMinute], rng: &mut Rng) {
    let factor = uniform(rng, 0.6, 2.0);
    samples.iter_mut().for_each(|sample| sample.round_trip_ms *= factor);
}

/// Delay and loss rise for an hour or two, and recede.
fn add_congestion(samples: &mut [GeneratedMinute], rng: &mut Rng) {
    let half = rng.usize(60..150);
    let (delay, loss) = (uniform(rng, 0.2, 0.6), uniform(rng, 0.0, 0.005));
    for (minute, sample) in samples.iter_mut().take(2 * half).enumerate() {
        let share = 1.0 - minute.abs_diff(half) as f64 / half as f64;
        sample.round_trip_ms *= 1.0 + delay * share;
        sample.loss += loss * share;
    }
}

/// Lets the node decay until it fails. The samples afterwards are as before the decay.
fn decay(samples: &mut [GeneratedMinute], rng: &mut Rng) -> (DecaySign, TruthEvent) {
    let signs = [DecaySign::Delay, DecaySign::Loss, DecaySign::Restarts, DecaySign::Memory];
    let sign = signs[rng.usize(0..signs.len())];
    let at = (uniform(rng, FIRST_FAILURE_DAY, DAYS as f64) * MINUTES_OF_DAY as f64) as usize;
    let at = at.min(MINUTES - 1);
    let hours = match sign {
        DecaySign::Delay => uniform(rng, 2.0, 12.0),
        DecaySign::Loss => uniform(rng, 1.5, 8.0),
        DecaySign::Restarts => uniform(rng, 4.0, 24.0),
        DecaySign::Memory => uniform(rng, 6.0, 48.0),
    };
    let lasts = (hours * 60.0) as usize;
    let from = at.saturating_sub(lasts);
    let curve = uniform(rng, 1.0, 2.0);
    let highest = match sign {
        DecaySign::Delay => uniform(rng, 2.5, 6.0),
        DecaySign::Loss => uniform(rng, 0.03, 0.15),
        DecaySign::Restarts => 0.0,
        DecaySign::Memory => 0.99,
    };
    let decaying = &mut samples[from..at];
    let length = decaying.len().max(1) as f64;
    let mut restarts_at = from as f64;
    for (minute, sample) in (from..).zip(decaying) {
        let share = ((minute - from) as f64 / length).powf(curve);
        match sign {
            DecaySign::Delay => sample.round_trip_ms *= 1.0 + (highest - 1.0) * share,
            DecaySign::Loss => sample.loss += highest * share,
            DecaySign::Memory => {
                sample.memory = sample.memory.map(|memory| memory + (highest - memory) * share);
            }
            DecaySign::Restarts if minute as f64 >= restarts_at => {
                sample.restarts += 1;
                // The node runs for a shorter time after each restart.
                restarts_at += ((at - minute) as f64 * uniform(rng, 0.15, 0.35)).max(3.0);
            }
            DecaySign::Restarts => {}
        }
    }
    // The failure itself is one restart.
    samples[at].restarts += 1;
    (sign, TruthEvent { from, at, until: at + 30 })
}
