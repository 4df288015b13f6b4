//! The rules beside which the forecasts stand, each with its parameters.

use std::collections::VecDeque;

use evenkeel_forecast::NodeSample;

use crate::load_days::{LoadDays, MINUTES_OF_DAY};

const WEEK: usize = 7 * MINUTES_OF_DAY;

/// Values are means, or medians, of so many minutes.
const MEAN_MINUTES: usize = 15;
const MEDIAN_MINUTES: usize = 10;

/// The usual delay is the median of so many values: a day.
const USUAL_VALUES: usize = MINUTES_OF_DAY / MEDIAN_MINUTES;

/// Minutes between two values of a forecast.
const STEP_MINUTES: usize = 5;

/// A rule warns if a load is expected that reaches this share of the capacity within so many minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadLimits {
    pub(crate) share: f64,
    pub(crate) horizon: usize,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The load of a week ago, scaled by the load now.
pub(crate) fn same_minute_last_week(days: &LoadDays, limits: LoadLimits) -> Vec<bool> {
    let warns = |now: usize| {
        let limit = limits.share * days.capacity[now];
        let Some(then) = now.checked_sub(WEEK + MEAN_MINUTES) else { return false };
        let before = &days.load[then..][..MEAN_MINUTES];
        let scale = mean(&days.load[now + 1 - MEAN_MINUTES..=now]) / mean(before).max(1.0);
        let ahead = days.load[now - WEEK..][..=limits.horizon].iter().step_by(STEP_MINUTES);
        let highest = ahead.copied().fold(0.0, f64::max) * scale;
        highest.max(days.load[now]) >= limit
    };
    (0..days.load.len()).map(warns).collect()
}

/// The line through the last half hour.
pub(crate) fn linear_trend(days: &LoadDays, limits: LoadLimits) -> Vec<bool> {
    let warns = |now: usize| {
        let Some(first) = (now + 1).checked_sub(2 * MEAN_MINUTES) else { return false };
        let (earlier, later) = days.load[first..=now].split_at(MEAN_MINUTES);
        let slope = (mean(later) - mean(earlier)) / MEAN_MINUTES as f64;
        let ahead = (limits.horizon + MEAN_MINUTES / 2) as f64;
        let expected = mean(later) + slope * ahead;
        expected.max(days.load[now]) >= limits.share * days.capacity[now]
    };
    (0..days.load.len()).map(warns).collect()
}

/// Limits of a node's delay, as a multiple of the usual one, and of its loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeLimits {
    pub(crate) delay_factor: f64,
    pub(crate) loss: f64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A limit on medians of ten minutes.
pub(crate) fn node_limits(samples: &[NodeSample], limits: NodeLimits) -> Vec<bool> {
    let mut delays = VecDeque::new();
    let (mut warnings, mut warns) = (Vec::with_capacity(samples.len()), false);
    for samples in samples.chunks(MEDIAN_MINUTES) {
        warnings.extend(std::iter::repeat_n(warns, MEDIAN_MINUTES.min(samples.len())));
        let delay = median(samples.iter().filter_map(|sample| sample.round_trip_ms));
        let loss = median(samples.iter().map(|sample| sample.loss));
        delays.push_back(delay);
        if delays.len() > USUAL_VALUES {
            delays.pop_front();
        }
        let usual = median(delays.iter().copied());
        let is_late = delays.len() >= USUAL_VALUES / 2 && delay >= limits.delay_factor * usual;
        warns = is_late || loss >= limits.loss;
    }
    warnings
}
