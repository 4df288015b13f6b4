//! The instruments of the metrics, and their values for Prometheus.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::metrics::{Counter, Gauge, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream,
    Temporality,
};
use prometheus::proto::MetricType;

use super::alerts::SeriesLabels;
use super::exemplars::{ExemplarTable, SampledSpan};
use super::node_levels::NodeLevels;
use super::open_metrics::{self, MetricsFormat};
use super::registry::{Count, Described, Histogram, Level, MetricLabels};
use super::replaced_levels::{LevelTable, ReplacedLevels};

/// Buckets of an exponential histogram, and its finest scale, as the specification of OpenTelemetry's SDK has them by default.
const EXPONENTIAL: Aggregation =
    Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 20, record_min_max: true };

/// One instrument per metric of the registry. Thread-safe.
#[derive(Debug)]
pub struct Instruments {
    /// For Prometheus and, if metrics are exported, for OTLP: histograms differ.
    meters: Vec<MeterInstruments>,
    nodes: NodeLevels,
    replaced: ReplacedLevels,
    exemplars: Arc<ExemplarTable>,
}

#[derive(Debug)]
struct MeterInstruments {
    counts: Vec<Counter<u64>>,
    /// `None` for a level that is observed by callback.
    levels: Vec<Option<Gauge<f64>>>,
    histograms: Vec<opentelemetry::metrics::Histogram<f64>>,
}

impl MeterInstruments {
    fn new(meter: &Meter) -> MeterInstruments {
        let counts = Count::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            meter.u64_counter(name).with_unit(unit).with_description(doc).build()
        });
        let levels = Level::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            let gauge = || meter.f64_gauge(name).with_unit(unit).with_description(doc).build();
            let is_observed = NodeLevels::has(*metric) || ReplacedLevels::has(*metric);
            (!is_observed).then(gauge)
        });
        let histograms = Histogram::ALL.iter().map(|metric| {
            let Described { name, unit, doc, bounds, .. } = metric.described();
            let histogram = meter.f64_histogram(name).with_unit(unit).with_description(doc);
            histogram.with_boundaries(bounds.to_vec()).build()
        });
        let (counts, levels) = (counts.collect(), levels.collect());
        MeterInstruments { counts, levels, histograms: histograms.collect() }
    }
}

impl Instruments {
    pub(super) fn new(meters: &[Meter]) -> Instruments {
        let (nodes, replaced) = (NodeLevels::default(), ReplacedLevels::default());
        for meter in meters {
            nodes.observed_by(meter);
            replaced.observed_by(meter);
        }
        let meters = meters.iter().map(MeterInstruments::new).collect();
        Instruments { meters, nodes, replaced, exemplars: Arc::default() }
    }

    /// Adds `n` to a counter.
    pub fn count(&self, metric: Count, n: u64, labels: MetricLabels<'_>) {
        let points = metric.described().points(labels);
        self.meters.iter().for_each(|meter| meter.counts[metric as usize].add(n, &points));
    }

    /// Sets a gauge.
    pub fn level(&self, metric: Level, value: f64, labels: MetricLabels<'_>) {
        let points = metric.described().points(labels);
        for meter in &self.meters {
            let Some(gauge) = &meter.levels[metric as usize] else {
                return debug_assert!(
                    false,
                    "{} is looked at where it stands",
                    metric.described().name
                );
            };
            gauge.record(value, &points);
        }
    }

    /// The nodes, for gauges of their states.
    pub fn nodes(&self) -> &NodeLevels {
        &self.nodes
    }

    /// Replaces all series of a gauge.
    pub fn replace(&self, table: LevelTable) {
        self.replaced.set(table);
    }

    /// Adds a value to a histogram.
    pub fn value(&self, metric: Histogram, value: f64, labels: MetricLabels<'_>) {
        let points = metric.described().points(labels);
        self.meters.iter().for_each(|meter| {
            meter.histograms[metric as usize].record(value, &points);
        });
    }

    /// Adds a time to a histogram.
    pub fn time(&self, metric: Histogram, took: Duration, labels: MetricLabels<'_>) {
        self.value(metric, took.as_secs_f64(), labels);
    }

    /// Adds the time of a session to a histogram. A span that is sent becomes the exemplar of its bucket.
    pub(crate) fn time_of(
        &self,
        metric: Histogram,
        took: Duration,
        labels: MetricLabels<'_>,
        span: Option<SampledSpan>,
    ) {
        self.time(metric, took, labels);
        if let Some(span) = span {
            self.exemplars.note(metric, took.as_secs_f64(), labels, span);
        }
    }
}

/// The registry behind `/metrics`.
#[derive(Clone, Debug)]
pub struct Prometheus {
    registry: prometheus::Registry,
    exemplars: Arc<ExemplarTable>,
}

impl Prometheus {
    /// The metrics in the text format of Prometheus. Names contain underscores, the unit and `_total`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let families = self.registry.gather();
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::warn!(%error, "cannot render metrics");
        }
        text
    }

    /// The metrics in this format. Only OpenMetrics has exemplars.
    pub fn render_as(&self, format: MetricsFormat) -> String {
        match format {
            MetricsFormat::Prometheus => self.render(),
            MetricsFormat::OpenMetrics => {
                open_metrics::text(&self.registry.gather(), &self.exemplars)
            }
        }
    }

    /// The present values of these metrics. Of a histogram the parts `_bucket` and `_count` are metrics.
    pub fn samples(&self, metrics: &BTreeSet<&'static str>) -> Vec<MetricSample> {
        let mut samples = Vec::new();
        for family in self.registry.gather() {
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

/// The parts of metrics.
pub(super) struct Meters {
    /// Readers work only as long as their providers live.
    pub(super) providers: Vec<SdkMeterProvider>,
    pub(super) instruments: Arc<Instruments>,
    pub(super) prometheus: Prometheus,
    /// Collects for OTLP, if metrics are exported.
    pub(super) collector: MetricCollector,
}

/// A meter provider for Prometheus and, if metrics are exported, another one for OTLP.
pub(super) fn meters(resource: &Resource, exports: bool) -> Result<Meters, OTelSdkError> {
    let registry = prometheus::Registry::new();
    let text = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let provider = || SdkMeterProvider::builder().with_resource(resource.clone());
    let mut providers = vec![provider().with_reader(text).build()];
    let collector = MetricCollector(Arc::new(ManualReader::builder().build()));
    if exports {
        let exported = provider().with_reader(collector.clone()).with_view(exponential);
        providers.push(exported.build());
    }
    let meters: Vec<Meter> = providers.iter().map(|provider| provider.meter("evenkeel")).collect();
    let instruments = Arc::new(Instruments::new(&meters));
    let exemplars = Arc::clone(&instruments.exemplars);
    let prometheus = Prometheus { registry, exemplars };
    Ok(Meters { providers, instruments, prometheus, collector })
}

/// The aggregation of this instrument over OTLP, if it is not the default.
fn exponential(instrument: &Instrument) -> Option<Stream> {
    let is_it = |metric: &&Histogram| metric.described().name == instrument.name();
    let metric = Histogram::ALL.iter().find(is_it)?;
    let stream = metric.is_exponential().then(|| Stream::builder().with_aggregation(EXPONENTIAL));
    stream?.build().ok()
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
