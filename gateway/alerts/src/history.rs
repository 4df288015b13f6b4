//! The values that alert rules read: of each series as many as the longest window needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_telemetry::MetricSample;
use evenkeel_telemetry::alerts::condition::{
    AlertCondition, AlertSeries, AlertValue, SeriesFunction,
};
use evenkeel_telemetry::alerts::{AlertRule, SeriesLabels};

/// Points of the longest window of a metric, at least: up to twice as many are kept. More would not change whether an alert fires, and a
/// node has several series.
const POINTS_PER_WINDOW: u32 = 60;

/// The points of one series, the oldest first.
type Points = VecDeque<(Instant, f64)>;

/// Values of the metrics that rules name.
pub(crate) struct MetricHistory {
    metrics: BTreeMap<&'static str, MetricPoints>,
}

#[derive(Default)]
struct MetricPoints {
    /// The longest window.
    kept: Duration,
    /// Only series that one of them selects are kept.
    selectors: Vec<AlertSeries>,
    series: BTreeMap<SeriesLabels, Points>,
}

impl MetricHistory {
    pub(crate) fn of(rules: &[AlertRule]) -> MetricHistory {
        let mut metrics = BTreeMap::new();
        for value in rules.iter().flat_map(|rule| rule.condition.values()) {
            let points: &mut MetricPoints = metrics.entry(value.series.metric).or_default();
            points.kept = points.kept.max(value.function.reach());
            points.selectors.push(value.series);
        }
        MetricHistory { metrics }
    }

    /// The metrics of which samples are read.
    pub(crate) fn metrics(&self) -> BTreeSet<&'static str> {
        self.metrics.keys().copied().collect()
    }

    /// Adds the present values. A series without one has ended, such as that of a removed node.
    pub(crate) fn record(&mut self, samples: Vec<MetricSample>, now: Instant) {
        let metrics = self.metrics.iter_mut();
        let mut before: BTreeMap<_, _> =
            metrics.map(|(metric, points)| (*metric, std::mem::take(&mut points.series))).collect();
        for MetricSample { metric, labels, value } in samples {
            let Some(points) = self.metrics.get_mut(metric) else { continue };
            if !points.selectors.iter().any(|selector| selects(selector, &labels)) {
                continue;
            }
            let earlier = before.get_mut(metric).and_then(|series| series.remove(&labels));
            let mut series = earlier.unwrap_or_default();
            push(&mut series, (now, value), points.kept);
            points.series.insert(labels, series);
        }
    }

    /// The series, or sums of them, for which the condition holds, with their values.
    pub(crate) fn holding(
        &self,
        condition: &AlertCondition,
        now: Instant,
    ) -> BTreeMap<SeriesLabels, f64> {
        let mut values = condition.values().into_iter().map(|value| self.values(&value, now));
        let (mut left, right) = (values.next().unwrap_or_default(), values.next());
        let right_of = |key: &SeriesLabels| right.as_ref()?.get(key).copied();
        left.retain(|labels, value| match *condition {
            AlertCondition::Above(_, limit) => *value > limit,
            AlertCondition::Below(_, limit) => *value < limit,
            AlertCondition::Is(_, right) => *value == right,
            AlertCondition::AboveInWindows { label, windows: [_, [long]], limit, .. } => {
                let mut key = labels.clone();
                key.insert(label.to_owned(), (*long).to_owned());
                *value > limit && right_of(&key).is_some_and(|right| right > limit)
            }
            AlertCondition::AboveShare { share, on, .. } => {
                let key = if on.is_empty() { labels.clone() } else { chosen(labels, on) };
                right_of(&key).is_some_and(|whole| *value > share * whole)
            }
            AlertCondition::AboveMean { margin, factor, .. } => {
                right_of(labels).is_some_and(|mean| *value > margin + factor * mean)
            }
        });
        left
    }

    fn values(&self, value: &AlertValue, now: Instant) -> BTreeMap<SeriesLabels, f64> {
        let mut values = BTreeMap::new();
        let metric = self.metrics.get(value.series.metric);
        for (labels, points) in metric.into_iter().flat_map(|metric| &metric.series) {
            if !selects(&value.series, labels) {
                continue;
            }
            let Some(read) = read(value.function, points, now) else { continue };
            let key = match value.sum_by {
                [] => labels.clone(),
                by => chosen(labels, by),
            };
            *values.entry(key).or_insert(0.0) += read;
        }
        values
    }
}

/// The series with these labels is one of them.
pub(crate) fn selects(selector: &AlertSeries, labels: &SeriesLabels) -> bool {
    selector.only.is_none_or(|(label, values)| {
        labels.get(label).is_some_and(|found| values.contains(&found.as_str()))
    })
}

/// These labels of a series.
fn chosen(labels: &SeriesLabels, names: &[&str]) -> SeriesLabels {
    let chosen = labels.iter().filter(|(name, _)| names.contains(&name.as_str()));
    chosen.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Appends a point. Points closer than a part of the longest window replace one another, and one point stays at or before its start.
fn push(points: &mut Points, point: (Instant, f64), kept: Duration) {
    let (now, _) = point;
    let age = |at: Instant| now.saturating_duration_since(at);
    let before_last = points.len().checked_sub(2).and_then(|index| points.get(index));
    if before_last.is_some_and(|(at, _)| age(*at) < kept / POINTS_PER_WINDOW) {
        points.pop_back();
    }
    points.push_back(point);
    while points.get(1).is_some_and(|(at, _)| age(*at) >= kept) {
        points.pop_front();
    }
}

fn read(function: SeriesFunction, points: &Points, now: Instant) -> Option<f64> {
    let age = |at: Instant| now.saturating_duration_since(at);
    // Pairs of successive points, the second one within the window.
    let steps = |within: Duration| {
        let pairs = points.iter().zip(points.iter().skip(1));
        pairs.filter(move |(_, (at, _))| age(*at) < within).map(|((_, a), (_, b))| (*a, *b))
    };
    // A counter that fell began again at 0.
    let growth = |within| -> f64 {
        steps(within)
            .map(|(before, after)| if after < before { after } else { after - before })
            .sum()
    };
    match function {
        SeriesFunction::Last => points.back().map(|(_, value)| *value),
        SeriesFunction::Increase(within) => Some(growth(within)),
        SeriesFunction::Rate(within) => Some(growth(within) / within.as_secs_f64()),
        SeriesFunction::Changes(within) => {
            Some(steps(within).filter(|(before, after)| before != after).count() as f64)
        }
        SeriesFunction::Mean { within, before } => {
            let window = before..before + within;
            let read = points.iter().filter(|(at, _)| window.contains(&age(*at)));
            let (sum, count) = read.fold((0.0, 0_u32), |(sum, n), (_, it)| (sum + it, n + 1));
            (count > 0).then(|| sum / f64::from(count))
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_telemetry::alerts::RULES;

    use super::*;

    #[test]
    fn unread_buckets_are_not_kept() {
        let metric = "evenkeel_session_r_factor_bucket";
        let sample = |bound: &str| {
            let labels = [("le".to_owned(), bound.to_owned())].into();
            MetricSample { metric, labels, value: 1.0 }
        };
        let mut history = MetricHistory::of(RULES);
        history.record(["60", "70", "80"].map(sample).into(), Instant::now());
        let kept = history.metrics[metric].series.keys();
        assert_eq!(kept.map(|labels| &*labels["le"]).collect::<Vec<_>>(), ["70"]);
    }
}
