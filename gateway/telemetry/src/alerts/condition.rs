//! Conditions of alert rules: the text for Prometheus is made from the structure that a gateway evaluates.

use std::time::Duration;

/// Label of Prometheus that tells gateways apart. A gateway that evaluates its own metrics has no such label.
const INSTANCE: &str = "instance";

/// The series of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlertSeries {
    /// As Prometheus names it: `evenkeel_node_failures_total`.
    pub metric: &'static str,
    /// A label, and the values of it that count. `None`: all series.
    pub only: Option<(&'static str, &'static [&'static str])>,
}

/// The reading of one series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeriesFunction {
    /// Its last value.
    Last,
    /// The growth of a counter within this time.
    Increase(Duration),
    /// The growth of a counter within this time, per second.
    Rate(Duration),
    /// The number of changes of the value within this time.
    Changes(Duration),
    /// The mean of a window.
    Mean {
        /// Length of the window.
        within: Duration,
        /// The window ended so long ago.
        before: Duration,
    },
}

impl SeriesFunction {
    /// The age of the oldest value that it reads.
    pub const fn reach(self) -> Duration {
        match self {
            SeriesFunction::Last => Duration::ZERO,
            SeriesFunction::Increase(within)
            | SeriesFunction::Rate(within)
            | SeriesFunction::Changes(within) => within,
            SeriesFunction::Mean { within, before } => within.saturating_add(before),
        }
    }
}

/// A value for each series, or for each sum of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlertValue {
    /// The reading of each series.
    pub function: SeriesFunction,
    pub series: AlertSeries,
    /// Series with the same values of these labels are summed. Empty: none is.
    pub sum_by: &'static [&'static str],
}

/// When a rule holds: for each series or sum by itself.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum AlertCondition {
    /// The value is above a limit.
    Above(AlertValue, f64),
    /// The value is below a limit.
    Below(AlertValue, f64),
    /// The value is this one.
    Is(AlertValue, f64),
    /// A gauge is above a limit in both of two windows.
    AboveInWindows {
        /// The gauge.
        metric: &'static str,
        /// The label with the window.
        label: &'static str,
        windows: [&'static [&'static str; 1]; 2],
        limit: f64,
    },
    /// A part is above a share of the whole.
    AboveShare {
        part: AlertValue,
        share: f64,
        whole: AlertValue,
        /// The labels that part and whole have in common, if the part has more.
        on: &'static [&'static str],
    },
    /// A gauge is above `margin + factor * mean` of a window.
    AboveMean {
        /// The gauge.
        metric: &'static str,
        /// Added.
        margin: f64,
        /// Factor of the mean.
        factor: f64,
        /// Length of the window.
        within: Duration,
        /// The window ended so long ago.
        before: Duration,
    },
}

impl AlertValue {
    const fn of(function: SeriesFunction, metric: &'static str) -> AlertValue {
        AlertValue { function, series: AlertSeries { metric, only: None }, sum_by: &[] }
    }

    /// Only the series with these values of a label.
    pub(super) const fn only(
        self,
        label: &'static str,
        values: &'static [&'static str],
    ) -> AlertValue {
        let series = AlertSeries { metric: self.series.metric, only: Some((label, values)) };
        AlertValue { series, ..self }
    }

    pub(super) const fn sum_by(self, labels: &'static [&'static str]) -> AlertValue {
        AlertValue { sum_by: labels, ..self }
    }

    pub(super) const fn above(self, limit: f64) -> AlertCondition {
        AlertCondition::Above(self, limit)
    }

    pub(super) const fn below(self, limit: f64) -> AlertCondition {
        AlertCondition::Below(self, limit)
    }

    pub(super) const fn is(self, value: f64) -> AlertCondition {
        AlertCondition::Is(self, value)
    }

    fn promql(&self) -> String {
        let series = self.series.promql();
        let value = match self.function {
            SeriesFunction::Last => series,
            SeriesFunction::Increase(within) => format!("increase({series}[{}])", spell(within)),
            SeriesFunction::Rate(within) => format!("rate({series}[{}])", spell(within)),
            SeriesFunction::Changes(within) => format!("changes({series}[{}])", spell(within)),
            SeriesFunction::Mean { within, before } => {
                format!("avg_over_time({series}[{}] offset {})", spell(within), spell(before))
            }
        };
        match self.sum_by {
            [] => value,
            labels => format!("sum by ({}) ({value})", of_instance(labels)),
        }
    }
}

impl AlertSeries {
    fn promql(&self) -> String {
        let metric = self.metric;
        match self.only {
            None => metric.to_owned(),
            Some((label, [value])) => format!("{metric}{{{label}=\"{value}\"}}"),
            Some((label, values)) => format!("{metric}{{{label}=~\"{}\"}}", values.join("|")),
        }
    }
}

/// The last value of a gauge.
pub(super) const fn last(metric: &'static str) -> AlertValue {
    AlertValue::of(SeriesFunction::Last, metric)
}

pub(super) const fn increase(metric: &'static str, within: Duration) -> AlertValue {
    AlertValue::of(SeriesFunction::Increase(within), metric)
}

pub(super) const fn rate(metric: &'static str, within: Duration) -> AlertValue {
    AlertValue::of(SeriesFunction::Rate(within), metric)
}

pub(super) const fn changes(metric: &'static str, within: Duration) -> AlertValue {
    AlertValue::of(SeriesFunction::Changes(within), metric)
}

impl AlertCondition {
    /// All values that the condition reads.
    pub fn values(&self) -> Vec<AlertValue> {
        match *self {
            AlertCondition::Above(value, _)
            | AlertCondition::Below(value, _)
            | AlertCondition::Is(value, _) => vec![value],
            AlertCondition::AboveInWindows { metric, label, windows, .. } => {
                windows.map(|window| last(metric).only(label, window)).to_vec()
            }
            AlertCondition::AboveShare { part, whole, .. } => vec![part, whole],
            AlertCondition::AboveMean { metric, within, before, .. } => {
                let mean = SeriesFunction::Mean { within, before };
                vec![last(metric), AlertValue::of(mean, metric)]
            }
        }
    }

    /// The condition for Prometheus.
    pub fn promql(&self) -> String {
        let values: Vec<String> = self.values().iter().map(AlertValue::promql).collect();
        match (self, &values[..]) {
            (AlertCondition::Above(_, limit), [value]) => format!("{value} > {limit}"),
            (AlertCondition::Below(_, limit), [value]) => format!("{value} < {limit}"),
            (AlertCondition::Is(_, right), [value]) => format!("{value} == {right}"),
            (AlertCondition::AboveInWindows { label, limit, .. }, [short, long]) => {
                format!("{short} > {limit} and ignoring ({label}) {long} > {limit}")
            }
            (AlertCondition::AboveShare { share, on: [], .. }, [part, whole]) => {
                format!("{part} > {share} * {whole}")
            }
            (AlertCondition::AboveShare { share, on, .. }, [part, whole]) => {
                format!("{part} > on ({}) group_left () {share} * {whole}", of_instance(on))
            }
            (AlertCondition::AboveMean { margin, factor, .. }, [value, mean]) => {
                format!("{value} > {margin} + {factor} * {mean}")
            }
            // `values` has as many as each condition reads.
            _ => String::new(),
        }
    }
}

/// Labels with that of the gateway before them.
fn of_instance(labels: &[&str]) -> String {
    [&[INSTANCE][..], labels].concat().join(", ")
}

/// A duration of PromQL.
pub(super) fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        1.. if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        1.. if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
