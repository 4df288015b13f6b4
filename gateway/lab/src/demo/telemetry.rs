//! Telemetry of the gateway: its metrics in the format of Prometheus, and the spans that it exports.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use evenkeel_process::lock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::http::serve;
use super::report::PolicyCalls;

/// The largest accepted request, as in the OpenTelemetry Collector.
const BODY_MAX: usize = 20 * 1_024 * 1_024;

type SpanCounts = Arc<Mutex<BTreeMap<String, u64>>>;

pub(super) fn calls(text: &str) -> PolicyCalls {
    let mut calls = PolicyCalls::default();
    for line in text.lines() {
        let Some((name, labels, value)) = sample(line) else { continue };
        match name {
            "evenkeel_policy_calls_total" => {
                calls.total += value;
                if labels.contains("outcome=\"applied\"") {
                    calls.applied += value;
                    if let Some(policy) = label(labels, "policy") {
                        *calls.applied_by.entry(policy.to_owned()).or_default() += value;
                    }
                }
            }
            "evenkeel_policy_differs_total" => calls.differs_from_native += value,
            "evenkeel_policy_faults_total" => calls.faults += value,
            _ => {}
        }
    }
    calls
}

/// The value of a label; policy names contain no quotation mark.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = labels.split_once(&format!("evenkeel_{name}=\""))?;
    Some(value.split_once('"')?.0)
}

/// Parses a line of the text format: name, labels, and value.
fn sample(line: &str) -> Option<(&str, &str, u64)> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
    Some((name, labels, value as u64))
}

/// Receives OTLP over HTTP with binary protobuf, and counts spans by name.
pub(super) struct TelemetryReceiver {
    pub(super) endpoint: String,
    counts: SpanCounts,
    serving: JoinHandle<()>,
}

impl TelemetryReceiver {
    pub(super) async fn start() -> io::Result<TelemetryReceiver> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let counts = SpanCounts::default();
        let counted = Arc::clone(&counts);
        let answer = move |request| count_spans(request, Arc::clone(&counted));
        let serving = tokio::spawn(serve(listener, answer));
        Ok(TelemetryReceiver { endpoint, counts, serving })
    }

    /// Closes the listener and all connections. Returns the counts.
    pub(super) fn end(&mut self) -> BTreeMap<String, u64> {
        self.serving.abort();
        std::mem::take(&mut *lock(&self.counts))
    }
}

/// Accepts metrics and logs without reading them. The empty answer is an empty protobuf message, which reports success.
async fn count_spans(request: Request<Incoming>, counts: SpanCounts) -> Response<Full<Bytes>> {
    let is_trace = request.uri().path() == "/v1/traces";
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let spans = match body.map(http_body_util::Collected::to_bytes) {
        Ok(body) if is_trace => ExportTraceServiceRequest::decode(body).ok(),
        Ok(_) => Some(ExportTraceServiceRequest::default()),
        Err(_) => None,
    };
    let mut response = Response::new(Full::default());
    let Some(spans) = spans else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let mut counts = lock(&counts);
    let scopes = spans.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    for span in scopes.flat_map(|scope| scope.spans) {
        *counts.entry(span.name).or_default() += 1;
    }
    response
}

#[cfg(test)]
mod tests;
