//! What the gateway tells of itself: spans, metrics and logs over OTLP, and metrics as text for Prometheus.
//!
//! Nothing here waits: what a receiver does not take in time is dropped and counted.

mod caller;
mod instruments;
mod log;
mod otlp;
mod queue;
mod recorder;
pub mod registry;
mod sampler;
mod spans;
mod standing;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

pub use caller::Caller;
pub use instruments::{Instruments, Labels, Prometheus};
pub use recorder::Recorder;
pub use spans::Moment;
pub use standing::{Standing, Stands};

use crate::control::Names;
use crate::settings::Settings;
use queue::Flush;
use registry::Attribute;
use sampler::Sampler;

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its thread could not.
    #[error("the telemetry thread cannot start: {0}")]
    Thread(io::Error),
    /// The exporters could not be made.
    #[error("the OTLP exporter cannot be made: {0}")]
    Exporter(ExporterBuildError),
    /// The text for Prometheus could not be set up.
    #[error("metrics cannot be set up: {0}")]
    Meters(OTelSdkError),
}

/// The pipeline. Dropped, it sends nothing more; [`flush`](Telemetry::flush) first.
#[derive(Debug)]
pub struct Telemetry {
    tracers: Option<SdkTracerProvider>,
    loggers: Option<SdkLoggerProvider>,
    /// Kept, since a reader reads only as long as it lives.
    _meters: SdkMeterProvider,
    instruments: Arc<Instruments>,
    prometheus: Prometheus,
    scenarios: BTreeSet<Arc<str>>,
    flushes: Vec<Flush>,
}

impl Telemetry {
    /// Sets everything up; with a receiver configured, starts the thread that sends to it.
    ///
    /// `instance` tells this gateway from others: `service.instance.id`. A receiver that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Error`]: no thread, or an endpoint that is no URL.
    pub fn start(settings: &Settings, instance: &str) -> Result<Telemetry, Error> {
        let resource = Resource::builder_empty()
            .with_service_name("evenkeel")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance.to_owned()),
                KeyValue::new(Attribute::Region.key(), settings.gateway.region.clone()),
            ])
            .build();
        let (meters, instruments, prometheus, reader) =
            instruments::meters(resource.clone()).map_err(Error::Meters)?;
        let mut telemetry = Telemetry {
            tracers: None,
            loggers: None,
            _meters: meters,
            instruments,
            prometheus,
            scenarios: settings.core().scenarios.into_keys().collect(),
            flushes: Vec::new(),
        };
        let Some(to) = &settings.telemetry.otlp else { return Ok(telemetry) };
        let every = settings.telemetry.metrics_interval;
        let pipeline = otlp::start(to, every, &resource, reader, &telemetry.instruments)?;
        telemetry.flushes = pipeline.flushes.into();
        let tracers = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(Sampler { share: settings.telemetry.sample_ratio })
            .with_span_processor(pipeline.spans);
        telemetry.tracers = Some(tracers.build());
        let loggers =
            SdkLoggerProvider::builder().with_resource(resource).with_log_processor(pipeline.logs);
        telemetry.loggers = Some(loggers.build());
        Ok(telemetry)
    }

    /// Who hears of the core's events, and calls nodes and regions by these names.
    pub fn recorder(&self, names: Arc<Names>) -> Recorder {
        let tracer = self.tracers.as_ref().map(|tracers| tracers.tracer("evenkeel"));
        let scenarios = self.scenarios.clone();
        Recorder::new(Arc::clone(&self.instruments), names, scenarios, tracer)
    }

    /// The instruments, for what the core does not see: packets, bytes, drops.
    pub fn instruments(&self) -> Arc<Instruments> {
        Arc::clone(&self.instruments)
    }

    /// What `/metrics` answers.
    pub fn prometheus(&self) -> Prometheus {
        self.prometheus.clone()
    }

    /// Sends everything that waits. True: nothing waits any more, sent or given up, before `within` was over.
    pub fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let waiting: Vec<_> = self
            .flushes
            .iter()
            .map(|flush| {
                let (done, waiting) = sync_channel(1);
                flush.request(done);
                waiting
            })
            .collect();
        waiting.into_iter().all(|waiting| {
            let left = until.saturating_duration_since(Instant::now());
            // Dropped, not sent: that is how the end says that it is done.
            waiting.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        })
    }
}
