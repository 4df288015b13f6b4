//! Spans, metrics and logs over OTLP, and metrics as Prometheus text.
//!
//! No caller waits: items that the receiver does not accept in time are dropped and counted.

pub mod alerts;
mod date;
mod exemplars;
mod export_failures;
mod instruments;
mod node_levels;
mod open_metrics;
mod otlp;
mod queue;
mod recorder;
pub mod registry;
mod replaced_levels;
mod series;
mod spans;
mod stderr;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

pub use date::date;
use evenkeel_config::GatewayConfig;
use evenkeel_control::{EventRecord, Handle, NodeNames, TraceRegistry, TraceShare};
use evenkeel_process::host;
pub use export_failures::{ExportFailure, ExportFailures};
use instruments::Meters;
pub use instruments::{Instruments, MetricSample, Prometheus};
pub use node_levels::{NodeLevel, NodeLevels, NodeLoad};
pub use open_metrics::MetricsFormat;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
pub use otlp::TelemetryError;
use queue::Flush;
pub use recorder::EventRecorder;
pub use replaced_levels::LevelTable;
pub use spans::Moment;
use spans::{SpanIds, SpanPipeline, SpanSampler};
pub use stderr::{LastLines, LogLines};
use tokio::sync::broadcast::Receiver;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, reload};

/// Crates that transport log lines must not log into their own transport.
const CARRIERS: [&str; 6] = ["opentelemetry", "opentelemetry_sdk", "tonic", "tower", "h2", "hyper"];

/// Selects the lines of the log. It can be replaced while the gateway runs.
pub struct LogFilter {
    default: Targets,
    /// Replaces the filters of the lines for people, and of the lines for the receiver.
    replace: Box<dyn Fn(Targets, Targets) + Send + Sync>,
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter").field("default", &self.default).finish_non_exhaustive()
    }
}

impl LogFilter {
    /// Selects lines as operators decide, until control ends.
    pub async fn follow(&self, handle: &Handle) {
        let mut decided = handle.log_filter.subscribe();
        decided.mark_changed();
        while decided.changed().await.is_ok() {
            let chosen = decided.borrow_and_update().clone();
            self.select(chosen.as_deref());
        }
    }

    /// Selects these lines; `None`: those with which the process started. A filter that cannot be read changes nothing.
    fn select(&self, chosen: Option<&str>) {
        match chosen.map(log_targets) {
            None => (self.replace)(self.default.clone(), all_lines()),
            Some(Ok(targets)) => (self.replace)(targets.clone(), targets),
            Some(Err(error)) => return tracing::warn!(?chosen, %error, "log filter cannot be read"),
        }
        tracing::info!(?chosen, "log filter in force");
    }
}

/// Checks a log filter: a level, or levels of crates. The error says what was found and what is expected.
pub fn check_log_filter(chosen: &str) -> Result<(), String> {
    // A misspelt level would be taken for the name of a crate.
    let is_level =
        |part: &str| part.contains('=') || !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    match chosen.split(',').all(is_level) && log_targets(chosen).is_ok() {
        true => Ok(()),
        false => Err(format!(
            "found `{chosen}`, expected `error`, `warn`, `info`, `debug`, `trace` or `off`, or levels of crates such as `warn,evenkeel_group=debug`"
        )),
    }
}

fn all_lines() -> Targets {
    Targets::new().with_default(LevelFilter::TRACE)
}

fn log_targets(chosen: &str) -> Result<Targets, ParseError> {
    // The index says what matters; the client would repeat it with each attempt.
    format!("async_nats=off,{chosen}").parse()
}

/// Telemetry of one gateway. After it is dropped nothing more is sent; call [`flush`](Telemetry::flush) first.
#[derive(Debug)]
pub struct Telemetry {
    tracers: Option<SdkTracerProvider>,
    loggers: Option<SdkLoggerProvider>,
    /// Kept because readers work only as long as their providers live.
    _meters: Vec<SdkMeterProvider>,
    instruments: Arc<Instruments>,
    prometheus: Prometheus,
    scenarios: BTreeSet<Arc<str>>,
    sampler: SpanSampler,
    failures: ExportFailures,
    flushes: Vec<Flush>,
}

impl Telemetry {
    /// Sets telemetry up; with a receiver configured, starts the thread that exports to it.
    ///
    /// `instance` is the `service.instance.id`. An unreachable receiver is no error.
    pub fn start(settings: &GatewayConfig, instance: &str) -> Result<Telemetry, TelemetryError> {
        let named = settings.telemetry.resource.iter();
        let host = Some(host::name()).filter(|name| !name.is_empty());
        let resource = Resource::builder_empty()
            .with_service_name("evenkeel")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance.to_owned()),
                KeyValue::new("cloud.region", settings.gateway.region.clone()),
            ])
            .with_attributes(host.map(|name| KeyValue::new("host.name", name)))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(named.map(|(name, value)| KeyValue::new(name.clone(), value.clone())))
            .build();
        let Meters { providers, instruments, prometheus, collector } =
            instruments::meters(&resource, settings.telemetry.metrics.is_some())
                .map_err(TelemetryError::Meters)?;
        instruments.begin(settings);
        let mut telemetry = Telemetry {
            tracers: None,
            loggers: None,
            _meters: providers,
            instruments,
            prometheus,
            scenarios: settings.core().scenarios.into_keys().collect(),
            sampler: SpanSampler { share: TraceShare(settings.telemetry.sample_ratio) },
            failures: ExportFailures::default(),
            flushes: Vec::new(),
        };
        if !settings.telemetry.exports() {
            return Ok(telemetry);
        }
        let (instruments, failures) = (&telemetry.instruments, &telemetry.failures);
        let pipeline =
            otlp::start(&settings.telemetry, &resource, collector, instruments, failures)?;
        telemetry.flushes = pipeline.flushes;
        telemetry.tracers = pipeline.spans.map(|spans| {
            let tracers = SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_sampler(telemetry.sampler.clone())
                .with_id_generator(SpanIds::default())
                .with_span_processor(spans);
            tracers.build()
        });
        telemetry.loggers = pipeline.logs.map(|logs| {
            SdkLoggerProvider::builder().with_resource(resource).with_log_processor(logs).build()
        });
        Ok(telemetry)
    }

    /// Records these events, with these names of nodes and regions, and these ids of traces.
    pub fn recorder(
        &self,
        events: Receiver<Arc<EventRecord>>,
        names: Arc<NodeNames>,
        traces: Arc<TraceRegistry>,
    ) -> EventRecorder {
        let pipeline = self.tracers.as_ref().map(|tracers| SpanPipeline {
            tracer: tracers.tracer("evenkeel"),
            sampler: self.sampler.clone(),
        });
        let (instruments, scenarios) = (self.instruments(), self.scenarios.clone());
        EventRecorder::new(events, instruments, names, scenarios, traces, pipeline)
    }

    /// Instruments for facts that the core does not see: packets, bytes, drops.
    pub fn instruments(&self) -> Arc<Instruments> {
        Arc::clone(&self.instruments)
    }

    /// Exports that the receiver does not take.
    pub fn export_failures(&self) -> ExportFailures {
        self.failures.clone()
    }

    /// The registry for `/metrics`.
    pub fn prometheus(&self) -> Prometheus {
        self.prometheus.clone()
    }

    /// The `tracing` subscriber: lines selected by `chosen` (`info`, or `warn,evenkeel=debug`) go to `people`, lines
    /// from `info` up to the OTLP receiver; and the filter that replaces `chosen`, and selects among the latter. Peer addresses are logged at debug
    /// level only, and so are never sent.
    pub fn subscriber(
        &self,
        chosen: &str,
        people: LogLines,
    ) -> Result<(impl Subscriber + Send + Sync + 'static, LogFilter), ParseError> {
        let default = log_targets(chosen)?;
        let (chosen, targets) = reload::Layer::new(default.clone());
        let (chosen_to_send, targets_to_send) = reload::Layer::new(all_lines());
        let people = tracing_subscriber::fmt::layer().with_writer(people);
        let carriers = CARRIERS.map(|target| (target, LevelFilter::OFF));
        let sent = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_targets(carriers)
            .with_target("async_nats", LevelFilter::OFF);
        let bridge = self.loggers.as_ref().map(OpenTelemetryTracingBridge::new);
        let bridge = bridge.map(|bridge| bridge.with_filter(sent.and(chosen_to_send)));
        let subscriber =
            tracing_subscriber::registry().with(people.with_filter(chosen)).with(bridge);
        let replace = Box::new(move |people: Targets, sent: Targets| {
            // Each fails only without its layer.
            let _ = targets.reload(people);
            let _ = targets_to_send.reload(sent);
        });
        Ok((subscriber, LogFilter { default, replace }))
    }

    /// Exports everything queued. Returns true if the queues became empty, by export or drop, within `within`.
    pub fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let waiting: Vec<_> = self
            .flushes
            .iter()
            .map(|flush| {
                let (done, waiting) = sync_channel(1);
                // If the exporter has ended, nothing is queued, and `done` is dropped.
                let _ = flush.try_send(done);
                waiting
            })
            .collect();
        waiting.into_iter().all(|waiting| {
            let left = until.saturating_duration_since(Instant::now());
            // The sender is dropped once the queues are empty.
            waiting.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        })
    }
}
