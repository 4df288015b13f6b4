//! Two weeks of a node, a sample each minute: some nodes decay before they fail, and all have harmless disturbances.

use evenkeel_forecast::{DecaySign, NODE_HOLD_MINUTES, NodeSample};
use fastrand::Rng;

use crate::load_days::MINUTES_OF_DAY;
use crate::random::{bump, chance, normal, uniform};
use crate::truth::TruthEvent;

const DAYS: usize = 14;
const MINUTES: usize = DAYS * MINUTES_OF_DAY;

/// Failures come after days on which the node was healthy.
const FIRST_FAILURE_DAY: f64 = 4.0;

/// Round trip in milliseconds, and the share of lost packets.
#[derive(Clone, Copy, Debug)]
struct GeneratedMinute {
    round_trip_ms: f64,
    loss: f64,
}

pub(crate) struct NodeDays {
    pub(crate) samples: Vec<NodeSample>,
    /// The failure, if the node decays. Samples after it are those of a new process.
    pub(crate) failure: Option<TruthEvent>,
}

impl NodeDays {
    pub(crate) fn generate(seed: u64) -> NodeDays {
        let rng = &mut Rng::with_seed(seed);
        let mut samples = healthy(rng);
        disturb(&mut samples, rng);
        let failure = rng.bool().then(|| decay(&mut samples, rng));
        let sample = |GeneratedMinute { round_trip_ms, loss }: GeneratedMinute| NodeSample {
            round_trip_ms: Some(round_trip_ms),
            loss: loss.clamp(0.0, 1.0),
            ..NodeSample::default()
        };
        NodeDays { samples: samples.into_iter().map(sample).collect(), failure }
    }
}

fn healthy(rng: &mut Rng) -> Vec<GeneratedMinute> {
    let (round_trip, busy_hour) = (uniform(rng, 1.0, 40.0), uniform(rng, 9.0, 21.0));
    let (delay_swing, loss) = (uniform(rng, 0.0, 0.1), uniform(rng, 0.0, 0.001));
    let sample = |minute: usize| {
        let hour = (minute % MINUTES_OF_DAY) as f64 / 60.0;
        let load = bump(hour, busy_hour, 3.0);
        GeneratedMinute {
            round_trip_ms: round_trip * (1.0 + delay_swing * load + 0.03 * normal(rng)).max(0.5),
            loss: (loss * (1.0 + 0.5 * normal(rng))).max(0.0),
        }
    };
    (0..MINUTES).map(sample).collect()
}

fn disturb(samples: &mut [GeneratedMinute], rng: &mut Rng) {
    if chance(rng, 0.3) {
        add_backup(samples, rng);
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
        }
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

/// Lets the node decay until it fails. The samples afterwards are as before the decay. A warning counts from two hours before
/// the failure.
fn decay(samples: &mut [GeneratedMinute], rng: &mut Rng) -> TruthEvent {
    let at = (uniform(rng, FIRST_FAILURE_DAY, DAYS as f64) * MINUTES_OF_DAY as f64) as usize;
    let at = at.min(MINUTES - 1);
    let (sign, hours, highest) = match rng.bool() {
        true => (DecaySign::Delay, uniform(rng, 2.0, 12.0), uniform(rng, 2.5, 6.0)),
        false => (DecaySign::Loss, uniform(rng, 1.5, 8.0), uniform(rng, 0.03, 0.15)),
    };
    let from = at.saturating_sub((hours * 60.0) as usize);
    let curve = uniform(rng, 1.0, 2.0);
    let decaying = &mut samples[from..at];
    let length = decaying.len().max(1) as f64;
    for (minute, sample) in decaying.iter_mut().enumerate() {
        let share = (minute as f64 / length).powf(curve);
        match sign {
            DecaySign::Delay => sample.round_trip_ms *= 1.0 + (highest - 1.0) * share,
            DecaySign::Loss => sample.loss += highest * share,
            DecaySign::Memory | DecaySign::Restarts => unreachable!("no day has this sign"),
        }
    }
    let until = at + 30 + NODE_HOLD_MINUTES as usize;
    TruthEvent { from: from.max(at.saturating_sub(120)), at, until }
}
