//! Exports over OTLP, by gRPC or HTTP, on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use evenkeel_config::{Otlp, Protocol};
use opentelemetry::InstrumentationScope;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, RetryPolicy, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter as _;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{sleep, timeout};

use super::instruments::{Instruments, MetricCollector};
use super::queue::{
    Backoff, ExportQueue, ExportTally, FLUSHES_MAX, Flush, SEND_WITHIN, Ship, queue,
};

/// Telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The system gives no thread.
    #[error("cannot start the telemetry thread: {0}")]
    Thread(io::Error),
    /// An exporter's settings are invalid.
    #[error("cannot create the OTLP exporter: {0}")]
    Exporter(ExporterBuildError),
    /// A reader of metrics is invalid.
    #[error("cannot set up metrics: {0}")]
    Meters(OTelSdkError),
}

pub(super) type LogLine = (SdkLogRecord, InstrumentationScope);

pub(super) struct Pipeline {
    pub(super) spans: ExportQueue<SpanData>,
    pub(super) logs: ExportQueue<LogLine>,
    pub(super) flushes: [Flush; 3],
}

/// Starts the export thread; it ends when both ends of the pipeline are dropped.
pub(super) fn start(
    to: &Otlp,
    metrics_interval: Duration,
    resource: &Resource,
    reader: MetricCollector,
    instruments: &Arc<Instruments>,
) -> Result<Pipeline, TelemetryError> {
    let (spans, flush_spans, sending_spans) = queue(&ExportTally::new("spans", instruments));
    let (logs, flush_logs, sending_logs) = queue(&ExportTally::new("logs", instruments));
    let (flush_metrics, flushes) = mpsc::channel(FLUSHES_MAX);
    let tally = ExportTally::new("metrics", instruments);
    let metrics = SendingMetrics { reader, every: metrics_interval, flushes, tally };
    let (to, resource) = (to.clone(), resource.clone());
    let (built, building) = sync_channel(1);
    std::thread::Builder::new()
        .name("telemetry".to_owned())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(built.send(Err(TelemetryError::Thread(error)))),
            };
            runtime.block_on(async {
                match exporters(&to, &resource) {
                    Ok((to_spans, to_logs, to_metrics)) => {
                        drop(built.send(Ok(())));
                        let (spans, logs) =
                            (sending_spans.run(to_spans), sending_logs.run(to_logs));
                        tokio::join!(spans, logs, metrics.run(to_metrics));
                    }
                    Err(error) => drop(built.send(Err(TelemetryError::Exporter(error)))),
                }
            });
        })
        .map_err(TelemetryError::Thread)?;
    let gone =
        || TelemetryError::Thread(io::Error::other("the telemetry thread ended while it started"));
    building.recv().map_err(|_| gone())??;
    let flushes = [flush_spans, flush_logs, flush_metrics];
    Ok(Pipeline { spans, logs, flushes })
}

fn exporters(
    to: &Otlp,
    resource: &Resource,
) -> Result<(SpanExporter, LogExporter, MetricExporter), ExporterBuildError> {
    // The queues retry instead, since they know the limits.
    let once = RetryPolicy::disabled;
    let (mut spans, mut logs, metrics) = match to.protocol {
        Protocol::Grpc => {
            let endpoint = || to.endpoint.clone();
            let spans = SpanExporter::builder().with_tonic().with_endpoint(endpoint());
            let logs = LogExporter::builder().with_tonic().with_endpoint(endpoint());
            let metrics = MetricExporter::builder().with_tonic().with_endpoint(endpoint());
            (
                spans.with_retry_policy(once()).with_timeout(SEND_WITHIN).build()?,
                logs.with_retry_policy(once()).with_timeout(SEND_WITHIN).build()?,
                metrics.with_retry_policy(once()).with_timeout(SEND_WITHIN).build()?,
            )
        }
        Protocol::Http => {
            let client = Arc::new(HyperClient::with_default_connector(SEND_WITHIN, None));
            let endpoint = |signal: &str| format!("{}/v1/{signal}", to.endpoint);
            let spans = SpanExporter::builder().with_http().with_endpoint(endpoint("traces"));
            let logs = LogExporter::builder().with_http().with_endpoint(endpoint("logs"));
            let metrics = MetricExporter::builder().with_http().with_endpoint(endpoint("metrics"));
            (
                spans.with_shared_http_client(client.clone()).with_retry_policy(once()).build()?,
                logs.with_shared_http_client(client.clone()).with_retry_policy(once()).build()?,
                metrics.with_shared_http_client(client).with_retry_policy(once()).build()?,
            )
        }
    };
    spans.set_resource(resource);
    logs.set_resource(resource);
    Ok((spans, logs, metrics))
}

impl Ship<SpanData> for SpanExporter {
    async fn ship(&self, batch: &[SpanData]) -> bool {
        self.export(batch.to_vec()).await.is_ok()
    }
}

impl Ship<LogLine> for LogExporter {
    async fn ship(&self, batch: &[LogLine]) -> bool {
        let lines: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
        self.export(LogBatch::new(&lines)).await.is_ok()
    }
}

impl SpanProcessor for ExportQueue<SpanData> {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.push(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl LogProcessor for ExportQueue<LogLine> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.push((record.clone(), scope.clone()));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Collects and exports metrics. They are cumulative, so the next export makes up for a failed one.
struct SendingMetrics {
    reader: MetricCollector,
    every: Duration,
    flushes: Receiver<SyncSender<()>>,
    tally: ExportTally,
}

impl SendingMetrics {
    async fn run(mut self, to: MetricExporter) {
        let mut backoff = Backoff::default();
        let mut metrics = ResourceMetrics::default();
        loop {
            let pause = backoff.pause().map_or(self.every, |pause| pause.max(self.every));
            let asked = tokio::select! {
                () = sleep(pause) => None,
                asked = self.flushes.recv() => match asked {
                    None => return,
                    some => some,
                },
            };
            let taken = match self.reader.collect(&mut metrics) {
                // Strict receivers refuse an export without metrics.
                Ok(()) if metrics.scope_metrics().next().is_none() => continue,
                Ok(()) => {
                    timeout(SEND_WITHIN, to.export(&metrics)).await.is_ok_and(|sent| sent.is_ok())
                }
                Err(_) => false,
            };
            if taken {
                self.tally.sent(1);
                backoff = Backoff::default();
            } else {
                self.tally.failed();
                self.tally.dropped(1, "not-taken");
                backoff.fail();
            }
            drop(asked);
        }
    }
}
