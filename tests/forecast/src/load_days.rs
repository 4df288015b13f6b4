//! Weeks of a region's load, a sample each minute: the shape of days and weeks, growth, holidays, flash crowds, and the sessions of
//! other regions that failed.

use evenkeel_forecast::LOAD_HOLD_MINUTES;
use fastrand::Rng;

use crate::random::{bump, normal, uniform};
use crate::truth::TruthEvent;

pub(crate) const MINUTES_OF_DAY: usize = 24 * 60;

/// Weeks of each seed. Events of the first [`WARM_UP_DAYS`] are not counted.
const WEEKS: usize = 6;
pub(crate) const WARM_UP_DAYS: usize = 14;

/// A region is exhausted anew only after this many minutes with capacity left.
const RECOVERED_MINUTES: usize = 60;
/// The region has recovered once the load stays below the capacity for this long.
const BELOW_MINUTES: usize = 30;

/// The load of one region and its capacity, in sessions.
pub(crate) struct LoadDays {
    pub(crate) load: Vec<f64>,
    pub(crate) capacity: Vec<f64>,
}

impl LoadDays {
    pub(crate) fn generate(seed: u64) -> LoadDays {
        let rng = &mut Rng::with_seed(seed);
        let minutes = WEEKS * 7 * MINUTES_OF_DAY;
        let shape = day_shape(rng);
        let weekdays = weekdays(rng);
        let peak = uniform(rng, 300.0, 4_000.0);
        let growth = uniform(rng, -0.01, 0.04);
        let days: Vec<f64> = (0..WEEKS * 7).map(|_| (0.04 * normal(rng)).exp()).collect();
        let mut holidays = vec![1.0; WEEKS * 7];
        for _ in 0..rng.usize(0..3) {
            holidays[rng.usize(0..WEEKS * 7)] = uniform(rng, 0.35, 0.65);
        }
        let mut extra = vec![0.0; minutes];
        for _ in 0..rng.usize(2..6) {
            add_flash_crowd(&mut extra, rng);
        }
        for _ in 0..rng.usize(1..4) {
            add_failover(&mut extra, &shape, rng);
        }
        // Changes slowly, with a time constant of 90 minutes.
        let (keep, mut wander) = ((-1.0_f64 / 90.0).exp(), 0.0);
        let fresh = 0.03 * (1.0 - keep * keep).sqrt();
        let mut call_noise = 0.0;
        let load: Vec<f64> = (0..minutes)
            .map(|minute| {
                // Calls last for minutes, so their number changes as slowly.
                if minute % 5 == 0 {
                    call_noise = normal(rng);
                }
                let day = minute / MINUTES_OF_DAY;
                wander = wander * keep + fresh * normal(rng);
                let week = minute as f64 / (7 * MINUTES_OF_DAY) as f64;
                let usual = shape[minute % MINUTES_OF_DAY]
                    * weekdays[day % 7]
                    * days[day]
                    * holidays[day]
                    * (1.0 + growth).powf(week)
                    * (1.0 + wander);
                let mean = peak * (usual + extra[minute]);
                (mean + (mean / 5.0).sqrt() * call_noise).max(0.0).round()
            })
            .collect();
        let capacity = capacities(&load, peak * uniform(rng, 0.95, 1.25), rng);
        LoadDays { load, capacity }
    }

    /// Times at which the capacity was exhausted. A warning counts from an hour before.
    pub(crate) fn exhaustions(&self) -> Vec<TruthEvent> {
        let mut events: Vec<TruthEvent> = Vec::new();
        let (mut is_exhausted, mut below) = (false, RECOVERED_MINUTES);
        for (minute, (load, capacity)) in self.load.iter().zip(&self.capacity).enumerate() {
            if load < capacity {
                below += 1;
                is_exhausted &= below < BELOW_MINUTES;
                continue;
            }
            if !is_exhausted && below >= RECOVERED_MINUTES {
                let from = minute.saturating_sub(60);
                events.push(TruthEvent { from, at: minute, until: minute });
            }
            (is_exhausted, below) = (true, 0);
            if let Some(event) = events.last_mut() {
                event.until = minute + LOAD_HOLD_MINUTES as usize;
            }
        }
        events.retain(|event| event.at >= WARM_UP_DAYS * MINUTES_OF_DAY);
        events
    }
}

/// Two peaks of business hours and one of the evening, of random height; the highest load is 1.
fn day_shape(rng: &mut Rng) -> Vec<f64> {
    let peaks = [
        (uniform(rng, 9.5, 11.0), uniform(rng, 1.2, 2.2), uniform(rng, 0.5, 1.0)),
        (uniform(rng, 14.5, 16.0), uniform(rng, 1.3, 2.4), uniform(rng, 0.4, 1.0)),
        (uniform(rng, 19.5, 21.5), uniform(rng, 1.2, 2.2), uniform(rng, 0.1, 1.0)),
    ];
    let load = |minute: usize| {
        let hour = minute as f64 / 60.0;
        0.06 + peaks.iter().map(|(at, width, height)| height * bump(hour, *at, *width)).sum::<f64>()
    };
    let shape: Vec<f64> = (0..MINUTES_OF_DAY).map(load).collect();
    let highest = shape.iter().copied().fold(0.0, f64::max);
    shape.into_iter().map(|load| load / highest).collect()
}

fn weekdays(rng: &mut Rng) -> [f64; 7] {
    let weekend = uniform(rng, 0.3, 0.9);
    std::array::from_fn(|day| match day {
        0..5 => uniform(rng, 0.92, 1.08),
        _ => weekend * uniform(rng, 0.9, 1.1),
    })
}

/// Grows for 10 to 40 minutes, stays, and ends slowly.
fn add_flash_crowd(extra: &mut [f64], rng: &mut Rng) {
    let begins = rng.usize(0..extra.len());
    let (grows, stays) = (rng.usize(10..41), rng.usize(30..121));
    let height = uniform(rng, 0.15, 0.6);
    let ends = 3 * grows;
    for (minute, extra) in extra[begins..].iter_mut().take(grows + stays + ends).enumerate() {
        let share = if minute < grows {
            minute as f64 / grows as f64
        } else {
            1.0 - minute.saturating_sub(grows + stays) as f64 / ends as f64
        };
        *extra += height * share;
    }
}

/// Another region fails, and its sessions come at once, for one to four hours.
fn add_failover(extra: &mut [f64], shape: &[f64], rng: &mut Rng) {
    let begins = rng.usize(0..extra.len());
    let lasts = rng.usize(60..241);
    let share = uniform(rng, 0.2, 0.5);
    // Three time zones at most.
    let offset = rng.usize(0..360) + MINUTES_OF_DAY - 180;
    for (minute, extra) in (begins..).zip(extra[begins..].iter_mut().take(lasts)) {
        *extra += share * shape[(minute + offset) % MINUTES_OF_DAY];
    }
}

/// The operator adds nodes after half of the weeks in which the load was too high.
fn capacities(load: &[f64], first: f64, rng: &mut Rng) -> Vec<f64> {
    let mut capacity = first;
    let mut capacities = Vec::with_capacity(load.len());
    for week in load.chunks(7 * MINUTES_OF_DAY) {
        capacities.resize(capacities.len() + week.len(), capacity);
        let highest = week.iter().copied().fold(0.0, f64::max);
        if highest > 1.1 * capacity && rng.bool() {
            capacity *= 1.15;
        }
    }
    capacities
}
