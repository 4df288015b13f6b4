//! Exports over OTLP, by gRPC or HTTP, on a thread of its own.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_config::{Otlp, OtlpProtocol, SecretFile, TelemetrySettings};
use evenkeel_http::tls;
use evenkeel_process::lock;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, RetryPolicy, SpanExporter,
    WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter as _;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::sleep;

use super::export_failures::ExportFailures;
use super::instruments::{Instruments, MetricCollector};
use super::queue::{
    Backoff, ExportQueue, ExportSender, ExportTally, FLUSHES_MAX, Flush, SEND_WITHIN, SendBatch,
    in_time, queue,
};

/// The client's own timeout, which is longer: the queue says that a receiver is late.
const CLIENT_WITHIN: Duration = SEND_WITHIN.saturating_mul(2);

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
    pub(super) spans: Option<ExportQueue<SpanData>>,
    pub(super) logs: Option<ExportQueue<LogLine>>,
    pub(super) flushes: Vec<Flush>,
}

/// Starts the export thread; it ends when both ends of the pipeline are dropped.
pub(super) fn start(
    settings: &TelemetrySettings,
    resource: &Resource,
    reader: MetricCollector,
    instruments: &Arc<Instruments>,
    failures: &ExportFailures,
) -> Result<Pipeline, TelemetryError> {
    let mut flushes = Vec::new();
    let tally = |signal| ExportTally::new(signal, instruments, failures);
    let (spans, sending_spans) = signal(&settings.traces, &tally("spans"), &mut flushes);
    let (logs, sending_logs) = signal(&settings.logs, &tally("logs"), &mut flushes);
    let metrics = settings.metrics.clone().map(|to| {
        let (flush, asked) = mpsc::channel(FLUSHES_MAX);
        flushes.push(flush);
        let (every, tally) = (settings.metrics_interval, tally("metrics"));
        (to, SendingMetrics { reader, every, flushes: asked, tally })
    });
    let resource = resource.clone();
    let (built, building) = sync_channel(1);
    std::thread::Builder::new()
        .name("telemetry".to_owned())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(built.send(Err(TelemetryError::Thread(error)))),
            };
            let exporters = || {
                let spans = exporter(sending_spans, |to| span_exporter(to, &resource))?;
                let logs = exporter(sending_logs, |to| log_exporter(to, &resource))?;
                Ok((spans, logs, exporter(metrics, metric_exporter)?))
            };
            runtime.block_on(async {
                match exporters() {
                    Ok((spans, logs, metrics)) => {
                        drop(built.send(Ok(())));
                        let sending_metrics = async {
                            if let Some((to, metrics)) = metrics {
                                metrics.run(to).await;
                            }
                        };
                        tokio::join!(send(spans), send(logs), sending_metrics);
                    }
                    Err(error) => drop(built.send(Err(TelemetryError::Exporter(error)))),
                }
            });
        })
        .map_err(TelemetryError::Thread)?;
    let gone =
        || TelemetryError::Thread(io::Error::other("the telemetry thread ended while it started"));
    building.recv().map_err(|_| gone())??;
    Ok(Pipeline { spans, logs, flushes })
}

/// The receiver of a signal, and the output of its queue.
type SignalOutput<T> = (Otlp, ExportSender<T>);

/// The queue of a signal that has a receiver.
fn signal<T>(
    to: &Option<Otlp>,
    tally: &ExportTally,
    flushes: &mut Vec<Flush>,
) -> (Option<ExportQueue<T>>, Option<SignalOutput<T>>) {
    let Some(to) = to else { return (None, None) };
    let (input, flush, output) = queue(tally);
    flushes.push(flush);
    (Some(input), Some((to.clone(), output)))
}

/// Replaces the receiver by its exporter.
fn exporter<E, T>(
    sending: Option<(Otlp, T)>,
    build: impl FnOnce(&Otlp) -> Result<E, ExporterBuildError>,
) -> Result<Option<(E, T)>, ExporterBuildError> {
    sending.map(|(to, items)| Ok((build(&to)?, items))).transpose()
}

async fn send<T>(sending: Option<(impl SendBatch<T>, ExportSender<T>)>) {
    if let Some((to, items)) = sending {
        items.run(to).await;
    }
}

fn span_exporter(
    to: &Otlp,
    resource: &Resource,
) -> Result<SignalExporter<SpanExporter>, ExporterBuildError> {
    let mut exporter = SignalExporter::of(
        to,
        || grpc(SpanExporter::builder().with_tonic(), to).build(),
        |connection| http(SpanExporter::builder().with_http(), to, connection).build(),
    )?;
    exporter.exporter.set_resource(resource);
    Ok(exporter)
}

fn log_exporter(
    to: &Otlp,
    resource: &Resource,
) -> Result<SignalExporter<LogExporter>, ExporterBuildError> {
    let mut exporter = SignalExporter::of(
        to,
        || grpc(LogExporter::builder().with_tonic(), to).build(),
        |connection| http(LogExporter::builder().with_http(), to, connection).build(),
    )?;
    exporter.exporter.set_resource(resource);
    Ok(exporter)
}

fn metric_exporter(to: &Otlp) -> Result<SignalExporter<MetricExporter>, ExporterBuildError> {
    SignalExporter::of(
        to,
        || grpc(MetricExporter::builder().with_tonic(), to).build(),
        |connection| http(MetricExporter::builder().with_http(), to, connection).build(),
    )
}

/// Settings of an exporter by gRPC. The queues retry, since they know the limits.
fn grpc<B: WithExportConfig + WithTonicConfig>(builder: B, to: &Otlp) -> B {
    let mut headers = HeaderMap::new();
    for (name, value) in &to.headers {
        let header = (HeaderName::try_from(name), HeaderValue::from_bytes(value.bytes()));
        if let (Ok(name), Ok(value)) = header {
            headers.append(name, value);
        }
    }
    let builder = builder
        .with_endpoint(to.endpoint.clone())
        .with_timeout(CLIENT_WITHIN)
        .with_retry_policy(RetryPolicy::disabled())
        .with_metadata(MetadataMap::from_headers(headers));
    if !to.endpoint.starts_with("https://") {
        return builder;
    }
    let roots = tls::roots(to.ca.as_deref()).roots;
    builder.with_tls_config(ClientTlsConfig::new().trust_anchors(roots))
}

/// Settings of an exporter by HTTP.
fn http<B: WithExportConfig + WithHttpConfig>(
    builder: B,
    to: &Otlp,
    connection: ConnectionError,
) -> B {
    // The exporter decodes percent signs in values.
    let encoded = |value: &SecretFile| String::from_utf8_lossy(value.bytes()).replace('%', "%25");
    let headers = to.headers.iter().map(|(name, value)| (name.clone(), encoded(value)));
    let builder = builder
        .with_endpoint(to.endpoint.clone())
        // Otherwise the environment's protocol is checked.
        .with_protocol(Protocol::HttpBinary)
        .with_retry_policy(RetryPolicy::disabled())
        .with_headers(headers.collect());
    if !to.endpoint.starts_with("https://") {
        let client = HyperClient::with_default_connector(CLIENT_WITHIN, None);
        return builder.with_http_client(NotingClient { client, connection });
    }
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls::client(tls::roots(to.ca.as_deref())))
        .https_only()
        .enable_http1()
        .build();
    let client = HyperClient::new(connector, CLIENT_WITHIN, None);
    builder.with_http_client(NotingClient { client, connection })
}

/// An exporter of one signal.
struct SignalExporter<E> {
    exporter: E,
    connection: ConnectionError,
}

impl<E> SignalExporter<E> {
    /// The exporter by the protocol of the receiver.
    fn of(
        to: &Otlp,
        grpc: impl FnOnce() -> Result<E, ExporterBuildError>,
        http: impl FnOnce(ConnectionError) -> Result<E, ExporterBuildError>,
    ) -> Result<SignalExporter<E>, ExporterBuildError> {
        let connection = ConnectionError::default();
        let exporter = match to.protocol {
            OtlpProtocol::Grpc => grpc(),
            OtlpProtocol::Http => http(connection.clone()),
        }?;
        Ok(SignalExporter { exporter, connection })
    }

    /// The reason of a failed export: the status by gRPC or HTTP, or the error of the connection.
    fn reason(&self, error: &OTelSdkError) -> String {
        self.connection.take().unwrap_or_else(|| reason_of(&error.to_string()))
    }
}

/// Finds the status in the text of an exporter's error, which has no other form.
fn reason_of(error: &str) -> String {
    if let Some((_, status)) = error.split_once("gRPC code: ") {
        let (code, cause) = status.split_at(status.find(':').unwrap_or(status.len()));
        // The names of the codes are those of the specification in another case.
        let mut name = String::new();
        for letter in code.chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        return format!("gRPC status {name}{cause}");
    }
    match error.split_once("status code: ") {
        Some((_, status)) => format!("HTTP status {status}"),
        None => error.to_owned(),
    }
}

/// The last error of the connection of an exporter by HTTP, which leaves it out of its own errors.
#[derive(Clone, Default, Debug)]
struct ConnectionError(Arc<Mutex<Option<String>>>);

impl ConnectionError {
    fn note(&self, error: &(dyn Error + 'static)) {
        let causes = std::iter::successors(Some(error), |&error| error.source());
        let last = causes.last().map(ToString::to_string);
        *lock(&self.0) = last;
    }

    fn take(&self) -> Option<String> {
        lock(&self.0).take()
    }
}

/// A client that notes errors of its connection.
#[derive(Debug)]
struct NotingClient<C> {
    client: C,
    connection: ConnectionError,
}

impl<C: HttpClient> HttpClient for NotingClient<C> {
    fn send_bytes<'client, 'sent>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'client: 'sent,
        Self: 'sent,
    {
        Box::pin(async move {
            let answered = self.client.send_bytes(request).await;
            if let Err(error) = &answered {
                self.connection.note(&**error);
            }
            answered
        })
    }
}

impl SendBatch<SpanData> for SignalExporter<SpanExporter> {
    async fn send_batch(&self, batch: &[SpanData]) -> Result<(), String> {
        self.exporter.export(batch.to_vec()).await.map_err(|error| self.reason(&error))
    }
}

impl SendBatch<LogLine> for SignalExporter<LogExporter> {
    async fn send_batch(&self, batch: &[LogLine]) -> Result<(), String> {
        let lines: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
        self.exporter.export(LogBatch::new(&lines)).await.map_err(|error| self.reason(&error))
    }
}

impl SpanProcessor for ExportQueue<SpanData> {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.push(span);
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
    async fn run(mut self, to: SignalExporter<MetricExporter>) {
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
            let sent = match self.reader.collect(&mut metrics) {
                // Strict receivers refuse an export without metrics.
                Ok(()) if metrics.scope_metrics().next().is_none() => continue,
                Ok(()) => {
                    let export = to.exporter.export(&metrics);
                    in_time(async { export.await.map_err(|error| to.reason(&error)) }).await
                }
                Err(error) => Err(error.to_string()),
            };
            match sent {
                Ok(()) => {
                    self.tally.sent(1);
                    backoff = Backoff::default();
                }
                Err(reason) => {
                    self.tally.failed(&reason);
                    self.tally.dropped(1, "not-taken");
                    backoff.fail();
                }
            }
            drop(asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_export_has_the_status_as_its_reason() {
        for (error, reason) in [
            (
                "TonicLogsClient export failed with gRPC code: Unimplemented",
                "gRPC status UNIMPLEMENTED",
            ),
            ("X export failed with gRPC code: PermissionDenied", "gRPC status PERMISSION_DENIED"),
            (
                "X export failed with gRPC code: Unavailable: tcp connect error",
                "gRPC status UNAVAILABLE: tcp connect error",
            ),
            ("HTTP export failed with status code: 401", "HTTP status 401"),
            ("another error", "another error"),
        ] {
            assert_eq!(reason_of(error), reason);
        }
    }
}
