//! The text format OpenMetrics 1.0, which has exemplars, and the choice of a format by the client.

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::alerts::SeriesLabels;
use super::exemplars::{Exemplar, ExemplarTable};
use super::registry::Histogram;

/// A text format of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsFormat {
    /// The text format 0.0.4 of Prometheus.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// The format that a client prefers by the value of its header `Accept` (RFC 9110, 12.5.1). The first one of equal quality is
    /// preferred, and the text format of Prometheus answers all others.
    pub fn preferred(accept: &str) -> MetricsFormat {
        let mut best = (0.0_f64, MetricsFormat::Prometheus);
        for range in accept.to_ascii_lowercase().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0, None);
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match name {
                    "q" => quality = value.parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim_matches('"')),
                    _ => {}
                }
            }
            let format = match (media_type, version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => {
                    MetricsFormat::OpenMetrics
                }
                ("text/plain" | "text/*" | "*/*", _) => MetricsFormat::Prometheus,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// The value of the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            MetricsFormat::Prometheus => "text/plain; version=0.0.4",
            MetricsFormat::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }
}

/// These families, with the exemplars of histograms.
pub(super) fn text(families: &[MetricFamily], exemplars: &ExemplarTable) -> String {
    let mut out = String::new();
    for family in families {
        // A string takes all text.
        let _ = write_family(&mut out, family, exemplars);
    }
    out.push_str("# EOF\n");
    out
}

fn write_family(
    out: &mut String,
    family: &MetricFamily,
    exemplars: &ExemplarTable,
) -> std::fmt::Result {
    let full = family.name();
    let (name, kind) = match family.get_field_type() {
        MetricType::COUNTER => (full.strip_suffix("_total").unwrap_or(full), "counter"),
        MetricType::GAUGE => (full, "gauge"),
        MetricType::HISTOGRAM => (full, "histogram"),
        // The registry has none.
        MetricType::SUMMARY | MetricType::UNTYPED => return Ok(()),
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    writeln!(out, "# HELP {name} {}", escaped(family.help()))?;
    for series in family.get_metric() {
        let labels = label_texts(series);
        match family.get_field_type() {
            MetricType::COUNTER => {
                let value = series.get_counter().get_value();
                writeln!(out, "{name}_total{} {value}", braced(&labels, None))?;
            }
            MetricType::HISTOGRAM => {
                let of_series = Histogram::of_prometheus_name(name)
                    .map(|metric| exemplars.of(metric, &series_labels(series)));
                write_histogram(out, name, series, &labels, &of_series.unwrap_or_default())?;
            }
            _ => {
                let value = series.get_gauge().get_value();
                writeln!(out, "{name}{} {value}", braced(&labels, None))?;
            }
        }
    }
    Ok(())
}

fn write_histogram(
    out: &mut String,
    name: &str,
    series: &Metric,
    labels: &[String],
    exemplars: &[Option<Exemplar>],
) -> std::fmt::Result {
    let histogram = series.get_histogram();
    let count = histogram.get_sample_count();
    let buckets = histogram.get_bucket().iter();
    let buckets = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    for (at, (bound, below)) in buckets.chain([(f64::INFINITY, count)]).enumerate() {
        write!(out, "{name}_bucket{} {below}", braced(labels, Some(bound)))?;
        if let Some(Exemplar { value, trace, span, at }) = exemplars.get(at).copied().flatten() {
            let unix = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            write!(out, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value} {unix:.3}")?;
        }
        out.push('\n');
    }
    writeln!(out, "{name}_count{} {count}", braced(labels, None))?;
    writeln!(out, "{name}_sum{} {}", braced(labels, None), histogram.get_sample_sum())
}

fn series_labels(series: &Metric) -> SeriesLabels {
    let pair = |pair: &LabelPair| (pair.name().to_owned(), pair.value().to_owned());
    series.get_label().iter().map(pair).collect()
}

/// `name="value"` of each label.
fn label_texts(series: &Metric) -> Vec<String> {
    let text = |pair: &LabelPair| format!("{}=\"{}\"", pair.name(), escaped(pair.value()));
    series.get_label().iter().map(text).collect()
}

fn braced(labels: &[String], bound: Option<f64>) -> String {
    let bound = bound.map(|bound| format!("le=\"{}\"", canonical(bound)));
    let all: Vec<&str> = labels.iter().chain(&bound).map(String::as_str).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// The bound of a bucket as a canonical number: `0.02`, `1.0`, `1e-06`.
fn canonical(bound: f64) -> String {
    if bound == f64::INFINITY {
        return "+Inf".to_owned();
    }
    if bound == 0.0 || (1e-4..1e6).contains(&bound.abs()) {
        return format!("{bound:?}");
    }
    let text = format!("{bound:e}");
    let exponential = text.split_once('e');
    let exponential = exponential.and_then(|(mantissa, exponent)| {
        let exponent: i32 = exponent.parse().ok()?;
        Some(format!("{mantissa}e{exponent:+03}"))
    });
    exponential.unwrap_or(text)
}

#[cfg(test)]
mod tests;
