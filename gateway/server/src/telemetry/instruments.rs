//! Instruments for the metrics of the registry, and the Prometheus text format.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality,
};

use super::nodes::NodeLevels;
use super::registry::{Attribute, Count, Described, Level, Time};

/// One instrument per metric of the registry. Thread-safe.
pub struct Instruments {
    counts: Vec<Counter<u64>>,
    /// `None` for a level that is observed by callback.
    levels: Vec<Option<Gauge<i64>>>,
    nodes: NodeLevels,
    times: Vec<Histogram<f64>>,
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instruments")
    }
}

pub type Labels<'a> = &'a [(Attribute, &'a str)];

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Instruments {
        let counts = Count::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            meter.u64_counter(name).with_unit(unit).with_description(doc).build()
        });
        let levels = Level::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            let gauge = || meter.i64_gauge(name).with_unit(unit).with_description(doc).build();
            (!NodeLevels::has(*metric)).then(gauge)
        });
        let nodes = NodeLevels::default();
        nodes.observed_by(meter);
        let times = Time::ALL.iter().map(|metric| {
            let Described { name, unit, doc, .. } = metric.described();
            let bounds = metric.bounds().to_vec();
            let histogram = meter.f64_histogram(name).with_unit(unit).with_description(doc);
            histogram.with_boundaries(bounds).build()
        });
        let (counts, levels, times) = (counts.collect(), levels.collect(), times.collect());
        Instruments { counts, levels, nodes, times }
    }

    pub fn count(&self, metric: Count, n: u64, labels: Labels<'_>) {
        self.counts[metric as usize].add(n, &points(metric.described(), labels));
    }

    pub fn level(&self, metric: Level, value: i64, labels: Labels<'_>) {
        let Some(gauge) = &self.levels[metric as usize] else {
            return debug_assert!(
                false,
                "{} is looked at where it stands",
                metric.described().name
            );
        };
        gauge.record(value, &points(metric.described(), labels));
    }

    pub fn nodes(&self) -> &NodeLevels {
        &self.nodes
    }

    pub fn time(&self, metric: Time, took: Duration, labels: Labels<'_>) {
        self.times[metric as usize].record(took.as_secs_f64(), &points(metric.described(), labels));
    }
}

fn points(metric: Described, labels: Labels<'_>) -> Vec<KeyValue> {
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

#[derive(Clone, Debug)]
pub struct Prometheus(prometheus::Registry);

impl Prometheus {
    /// The answer to `/metrics` with `content-type: text/plain; version=0.0.4`: names with underscores, unit and
    /// `_total`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&self.0.gather(), &mut text)
        {
            tracing::warn!(%error, "cannot render metrics");
        }
        text
    }
}

/// The meter provider, read by Prometheus and by the [`Reader`].
pub(super) fn meters(
    resource: Resource,
) -> Result<(SdkMeterProvider, Arc<Instruments>, Prometheus, Reader), OTelSdkError> {
    let registry = prometheus::Registry::new();
    let text = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let reader = Reader(Arc::new(ManualReader::builder().build()));
    let provider = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(text)
        .with_reader(reader.clone())
        .build();
    let instruments = Arc::new(Instruments::new(&provider.meter("evenkeel")));
    Ok((provider, instruments, Prometheus(registry), reader))
}

#[derive(Clone, Debug)]
pub(super) struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
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
mod tests {
    use evenkeel_core::{Health, NodeId};

    use super::super::nodes::NodeLevel;
    use super::*;

    #[test]
    fn prometheus_uses_base_units() {
        let (_provider, instruments, prometheus, _) =
            meters(Resource::builder_empty().build()).unwrap();
        instruments.count(Count::SessionsOpened, 2, &[(Attribute::Scenario, "call")]);
        instruments.level(Level::RegionBreaker, 1, &[(Attribute::Region, "east")]);
        instruments.time(
            Time::Detection,
            Duration::from_millis(15),
            &[(Attribute::Node, "east-a1")],
        );
        let text = prometheus.render();
        for line in [
            "# HELP evenkeel_sessions_opened_total Sessions that came to life.",
            "evenkeel_sessions_opened_total{evenkeel_scenario=\"call\"} 2",
            "evenkeel_region_breaker{evenkeel_region=\"east\"} 1",
            "evenkeel_node_detection_duration_seconds_bucket{evenkeel_node=\"east-a1\",le=\"0.02\"} 1",
            "evenkeel_node_detection_duration_seconds_bucket{evenkeel_node=\"east-a1\",le=\"0.01\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn levels_of_a_removed_node_end() {
        let (_provider, instruments, prometheus, _) =
            meters(Resource::builder_empty().build()).unwrap();
        let nodes = instruments.nodes();
        let levels = || -> Vec<String> {
            let text = prometheus.render();
            let of_nodes = text.lines().filter(|line| line.starts_with("evenkeel_node_"));
            of_nodes.map(|line| line.replace("evenkeel_node", "")).collect()
        };
        let name = || Arc::<str>::from("a");
        nodes.health(NodeId(0), name(), Health::Up);
        nodes.draining(NodeId(0), name(), true);
        assert_eq!(levels(), ["_draining{=\"a\"} 1", "_health{=\"a\"} 0"]);
        // A removed node and its replacement may have the same name: the replacement's values are reported.
        let level =
            |leaving, health, draining| NodeLevel { name: name(), leaving, health, draining };
        let new = (NodeId(0), level(false, Health::Up, false));
        nodes.set([new, (NodeId(1), level(true, Health::Down, true))]);
        nodes.draining(NodeId(1), name(), true);
        assert_eq!(levels(), ["_draining{=\"a\"} 0", "_health{=\"a\"} 0"]);
        nodes.gone(NodeId(0));
        assert_eq!(levels(), ["_draining{=\"a\"} 1", "_health{=\"a\"} 3"]);
        nodes.gone(NodeId(1));
        assert_eq!(levels(), [""; 0]);
    }
}
