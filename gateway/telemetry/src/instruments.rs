//! The instruments of the metrics, and the Prometheus text format.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality,
};
use prometheus::proto::MetricType;

use super::alerts::SeriesLabels;
use super::node_levels::NodeLevels;
use super::registry::{Attribute, Count, Described, Histogram, Level};

/// One instrument per metric of the registry. Thread-safe.
#[derive(Debug)]
pub struct Instruments {
    counts: Vec<Counter<u64>>,
    /// `None` for a level that is observed by callback.
    levels: Vec<Option<Gauge<f64>>>,
    nodes: NodeLevels,
    histograms: Vec<opentelemetry::metrics::Histogram<f64>>,
}

/// Values of a metric's labels, each at most once.
pub type MetricLabels<'a> = &'a [(Attribute, &'a str)];

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Instruments {
        let counts = Count::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            meter.u64_counter(name).with_unit(unit).with_description(doc).build()
        });
        let levels = Level::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            let gauge = || meter.f64_gauge(name).with_unit(unit).with_description(doc).build();
            (!NodeLevels::has(*metric)).then(gauge)
        });
        let nodes = NodeLevels::default();
        nodes.observed_by(meter);
        let histograms = Histogram::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            let bounds = metric.bounds().to_vec();
            let histogram = meter.f64_histogram(name).with_unit(unit).with_description(doc);
            histogram.with_boundaries(bounds).build()
        });
        let (counts, levels) = (counts.collect(), levels.collect());
        Instruments { counts, levels, nodes, histograms: histograms.collect() }
    }

    /// Adds `n` to a counter.
    pub fn count(&self, metric: Count, n: u64, labels: MetricLabels<'_>) {
        self.counts[metric as usize].add(n, &points(metric.described(), labels));
    }

    /// Sets a gauge.
    pub fn level(&self, metric: Level, value: f64, labels: MetricLabels<'_>) {
        let Some(gauge) = &self.levels[metric as usize] else {
            return debug_assert!(
                false,
                "{} is looked at where it stands",
                metric.described().name
            );
        };
        gauge.record(value, &points(metric.described(), labels));
    }

    /// The nodes, for gauges of their states.
    pub fn nodes(&self) -> &NodeLevels {
        &self.nodes
    }

    /// Adds a value to a histogram.
    pub fn value(&self, metric: Histogram, value: f64, labels: MetricLabels<'_>) {
        self.histograms[metric as usize].record(value, &points(metric.described(), labels));
    }

    pub(crate) fn time(&self, metric: Histogram, took: Duration, labels: MetricLabels<'_>) {
        self.value(metric, took.as_secs_f64(), labels);
    }
}

fn points(metric: Described, labels: MetricLabels<'_>) -> Vec<KeyValue> {
    debug_assert!(
        labels.iter().all(|(attribute, _)| metric.attributes.contains(attribute)),
        "{labels:?} are not all registered for {}",
        metric.name
    );
    labels
        .iter()
        .map(|(attribute, value)| KeyValue::new(attribute.key(), value.to_string()))
        .collect()
}

/// The registry behind `/metrics`.
#[derive(Clone, Debug)]
pub struct Prometheus(prometheus::Registry);

impl Prometheus {
    /// The response to `/metrics` with `content-type: text/plain; version=0.0.4`. Names contain underscores, the unit
    /// and `_total`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&self.0.gather(), &mut text)
        {
            tracing::warn!(%error, "cannot render metrics");
        }
        text
    }

    /// The present values of these metrics. Of a histogram the parts `_bucket` and `_count` are metrics.
    pub fn samples(&self, metrics: &BTreeSet<&'static str>) -> Vec<MetricSample> {
        let mut samples = Vec::new();
        for family in self.0.gather() {
            let chosen = |part: &str| metrics.get(&*format!("{}{part}", family.name())).copied();
            let (own, buckets, count) = (chosen(""), chosen("_bucket"), chosen("_count"));
            if own.or(buckets).or(count).is_none() {
                continue;
            }
            for series in family.get_metric() {
                let labels = series.get_label().iter();
                let labels: SeriesLabels =
                    labels.map(|it| (it.name().to_owned(), it.value().to_owned())).collect();
                let mut add = |metric: Option<&'static str>, labels: SeriesLabels, value: f64| {
                    samples.extend(metric.map(|metric| MetricSample { metric, labels, value }));
                };
                match family.get_field_type() {
                    MetricType::COUNTER => add(own, labels, series.get_counter().get_value()),
                    MetricType::GAUGE => add(own, labels, series.get_gauge().get_value()),
                    MetricType::HISTOGRAM => {
                        let histogram = series.get_histogram();
                        for bucket in histogram.get_bucket() {
                            let mut labels = labels.clone();
                            labels.insert("le".to_owned(), bucket.upper_bound().to_string());
                            add(buckets, labels, bucket.cumulative_count() as f64);
                        }
                        add(count, labels, histogram.get_sample_count() as f64);
                    }
                    MetricType::SUMMARY | MetricType::UNTYPED => {}
                }
            }
        }
        samples
    }
}

/// The present value of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct MetricSample {
    /// As Prometheus names it.
    pub metric: &'static str,
    /// All labels of the series.
    pub labels: SeriesLabels,
    /// The total of a counter, or the level of a gauge.
    pub value: f64,
}

/// The meter provider, read by Prometheus and by the [`MetricCollector`].
pub(super) fn meters(
    resource: Resource,
) -> Result<(SdkMeterProvider, Arc<Instruments>, Prometheus, MetricCollector), OTelSdkError> {
    let registry = prometheus::Registry::new();
    let text = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let reader = MetricCollector(Arc::new(ManualReader::builder().build()));
    let provider = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(text)
        .with_reader(reader.clone())
        .build();
    let instruments = Arc::new(Instruments::new(&provider.meter("evenkeel")));
    Ok((provider, instruments, Prometheus(registry), reader))
}

#[derive(Clone, Debug)]
pub(super) struct MetricCollector(Arc<ManualReader>);

impl MetricReader for MetricCollector {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, within: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(within)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

#[cfg(test)]
mod tests;
