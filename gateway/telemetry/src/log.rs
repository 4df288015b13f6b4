//! Log lines, to standard error and over OTLP.

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use super::{LogLines, Telemetry};

/// Crates that transport log lines must not log into their own transport.
const CARRIERS: [&str; 6] = ["opentelemetry", "opentelemetry_sdk", "tonic", "tower", "h2", "hyper"];

impl Telemetry {
    /// The `tracing` subscriber: lines selected by `chosen` (`info`, or `warn,evenkeel=debug`) go to `people`, lines
    /// from `info` up to the OTLP receiver. Peer addresses are logged at debug level only, and so are never sent.
    pub fn subscriber(
        &self,
        chosen: &str,
        people: LogLines,
    ) -> Result<impl Subscriber + Send + Sync + 'static, tracing_subscriber::filter::ParseError>
    {
        // The index says what matters; the client would repeat it with each attempt.
        let chosen: Targets = format!("async_nats=off,{chosen}").parse()?;
        let people = tracing_subscriber::fmt::layer().with_writer(people);
        let carriers = CARRIERS.map(|target| (target, LevelFilter::OFF));
        let sent = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_targets(carriers)
            .with_target("async_nats", LevelFilter::OFF);
        let bridge = self.loggers.as_ref().map(OpenTelemetryTracingBridge::new);
        let bridge = bridge.map(|bridge| bridge.with_filter(sent));
        Ok(tracing_subscriber::registry().with(people.with_filter(chosen)).with(bridge))
    }
}
