//! The rules beside which the forecasts stand.

use crate::link_days::LinkDays;
use crate::load_days::{LoadDays, MINUTES_OF_DAY};
use crate::node_days::{GeneratedMinute, NodeDays};

const WEEK: usize = 7 * MINUTES_OF_DAY;

/// Values are means of so many minutes.
const MEAN_MINUTES: usize = 15;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The load of a week ago, scaled by the load now, reaches the capacity within the horizon.
pub(crate) fn same_minute_last_week(days: &LoadDays, horizon: usize) -> Vec<bool> {
    let warns = |now: usize| {
        let Some(then) = now.checked_sub(WEEK + MEAN_MINUTES) else { return false };
        let before = &days.load[then..][..MEAN_MINUTES];
        let scale = mean(&days.load[now + 1 - MEAN_MINUTES..=now]) / mean(before).max(1.0);
        let ahead = &days.load[now - WEEK..][..horizon.min(WEEK)];
        let highest = ahead.iter().copied().fold(0.0, f64::max) * scale;
        highest.max(days.load[now]) >= days.capacity[now]
    };
    (0..days.load.len()).map(warns).collect()
}

/// The line through the last half hour reaches the capacity within the horizon.
pub(crate) fn linear_trend(days: &LoadDays, horizon: usize) -> Vec<bool> {
    let warns = |now: usize| {
        let Some(first) = (now + 1).checked_sub(2 * MEAN_MINUTES) else { return false };
        let (earlier, later) = days.load[first..=now].split_at(MEAN_MINUTES);
        let slope = (mean(later) - mean(earlier)) / MEAN_MINUTES as f64;
        let ahead = (horizon + MEAN_MINUTES / 2) as f64;
        (mean(later) + slope * ahead).max(days.load[now]) >= days.capacity[now]
    };
    (0..days.load.len()).map(warns).collect()
}

/// A limit on each value of now. The usual delay is the mean of about a day.
pub(crate) fn node_limits(days: &NodeDays) -> Vec<bool> {
    let mut usual_ms = days.samples[0].round_trip_ms;
    let mut restarts_at = Vec::new();
    let warns = |(minute, sample): (usize, &GeneratedMinute)| {
        usual_ms += (sample.round_trip_ms - usual_ms) / MINUTES_OF_DAY as f64;
        restarts_at.extend((0..sample.restarts).map(|_| minute));
        let hour = restarts_at.iter().filter(|at| minute - **at < 60).count();
        sample.round_trip_ms >= 3.0 * usual_ms
            || sample.loss >= 0.03
            || sample.memory.is_some_and(|memory| memory >= 0.9)
            || hour >= 3
    };
    days.samples.iter().enumerate().map(warns).collect()
}

/// Four changes within ten minutes.
pub(crate) fn frequent_changes(days: &LinkDays) -> Vec<bool> {
    let recent = |minute: usize| &days.changes[minute.saturating_sub(9)..=minute];
    (0..days.changes.len()).map(|minute| recent(minute).iter().sum::<u32>() >= 4).collect()
}
