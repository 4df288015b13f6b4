//! Validation of OTLP requests by the rules of the specification and of the trace, metrics and logs data models.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as wire;

use super::{Link, Scope, Span, Value};

/// A rule that a request broke.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// The body is not the expected message.
    #[error("the body is not this message: {0}")]
    Body(String),
    /// A request without a resource, or an empty resource group.
    #[error("no resource")]
    NoResource,
    /// The resource does not name its service.
    #[error("resource without service.name")]
    NoServiceName,
    #[error("empty group")]
    Empty,
    /// An id of the wrong length, or an id of zeros only.
    #[error("{what} of {name:?} is {length} bytes or all zero")]
    Id { what: &'static str, name: String, length: usize },
    #[error("{0} without a name")]
    NoName(&'static str),
    /// A kind, status or severity that does not exist.
    #[error("{what} {number} of {name:?} does not exist")]
    Number { what: &'static str, name: String, number: i32 },
    /// No start, or an end before the start.
    #[error("{name:?} runs from {start_ns} to {end_ns}")]
    Times { name: String, start_ns: u64, end_ns: u64 },
    /// An attribute without a key or a value.
    #[error("attribute {0:?} without key or value")]
    Attribute(String),
    /// An attribute key that occurs twice.
    #[error("attribute {0:?} twice")]
    AttributeTwice(String),
    #[error("metric {0:?} without points")]
    NoPoints(String),
}

pub(super) fn spans(request: ExportTraceServiceRequest) -> Result<Vec<Span>, Malformed> {
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = resource(group.resource)?;
        for scoped in not_empty(group.scope_spans)? {
            let scope = scope(scoped.scope)?;
            for one in not_empty(scoped.spans)? {
                spans.push(span(one, &resource, &scope)?);
            }
        }
    }
    Ok(spans)
}

/// Number of data points per metric in a request.
pub(super) fn points(
    request: ExportMetricsServiceRequest,
) -> Result<Vec<(String, u64)>, Malformed> {
    let mut points = Vec::new();
    for group in request.resource_metrics {
        resource(group.resource)?;
        for scoped in not_empty(group.scope_metrics)? {
            scope(scoped.scope)?;
            for metric in not_empty(scoped.metrics)? {
                if metric.name.is_empty() {
                    return Err(Malformed::NoName("metric"));
                }
                let count = match metric.data {
                    Some(Data::Gauge(data)) => data.data_points.len(),
                    Some(Data::Sum(data)) => data.data_points.len(),
                    Some(Data::Histogram(data)) => data.data_points.len(),
                    Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
                    Some(Data::Summary(data)) => data.data_points.len(),
                    None => 0,
                };
                if count == 0 {
                    return Err(Malformed::NoPoints(metric.name));
                }
                points.push((metric.name, count as u64));
            }
        }
    }
    Ok(points)
}

/// Number of log records in a request.
pub(super) fn logs(request: ExportLogsServiceRequest) -> Result<u64, Malformed> {
    let mut count = 0;
    for group in request.resource_logs {
        resource(group.resource)?;
        for scoped in not_empty(group.scope_logs)? {
            scope(scoped.scope)?;
            for record in not_empty(scoped.log_records)? {
                if !(0..=24).contains(&record.severity_number) {
                    let (what, number) = ("severity", record.severity_number);
                    return Err(Malformed::Number { what, name: record.severity_text, number });
                }
                attributes(record.attributes)?;
                for (what, id, length) in
                    [("trace id", &record.trace_id, 16), ("span id", &record.span_id, 8)]
                {
                    if !id.is_empty() {
                        hex_id(what, "log record", id, length)?;
                    }
                }
                count += 1;
            }
        }
    }
    Ok(count)
}

fn span(
    span: wire::Span,
    resource: &BTreeMap<String, Value>,
    scope: &Scope,
) -> Result<Span, Malformed> {
    let name = span.name;
    if name.is_empty() {
        return Err(Malformed::NoName("span"));
    }
    if !(1..=5).contains(&span.kind) {
        return Err(Malformed::Number { what: "span kind", name, number: span.kind });
    }
    let (start_ns, end_ns) = (span.start_time_unix_nano, span.end_time_unix_nano);
    if start_ns == 0 || end_ns < start_ns {
        return Err(Malformed::Times { name, start_ns, end_ns });
    }
    let status = span.status.unwrap_or_default();
    if !(0..=2).contains(&status.code) {
        return Err(Malformed::Number { what: "status", name, number: status.code });
    }
    let links = span
        .links
        .into_iter()
        .map(|link| {
            Ok(Link {
                trace_id: hex_id("link's trace id", &name, &link.trace_id, 16)?,
                span_id: hex_id("link's span id", &name, &link.span_id, 8)?,
                attributes: attributes(link.attributes)?,
            })
        })
        .collect::<Result<_, Malformed>>()?;
    let mut events = Vec::new();
    for event in span.events {
        if event.name.is_empty() {
            return Err(Malformed::NoName("span event"));
        }
        attributes(event.attributes)?;
        events.push(event.name);
    }
    let parent = match &span.parent_span_id[..] {
        [] => None,
        id => Some(hex_id("parent's span id", &name, id, 8)?),
    };
    Ok(Span {
        trace_id: hex_id("trace id", &name, &span.trace_id, 16)?,
        span_id: hex_id("span id", &name, &span.span_id, 8)?,
        parent,
        kind: span.kind,
        start_ns,
        end_ns,
        attributes: attributes(span.attributes)?,
        links,
        events,
        error: (status.code == 2).then_some(status.message),
        resource: resource.clone(),
        scope: scope.clone(),
        name,
    })
}

fn resource(resource: Option<Resource>) -> Result<BTreeMap<String, Value>, Malformed> {
    let resource = attributes(resource.ok_or(Malformed::NoResource)?.attributes)?;
    match resource.get("service.name") {
        Some(Value::Text(name)) if !name.is_empty() => Ok(resource),
        _ => Err(Malformed::NoServiceName),
    }
}

fn scope(scope: Option<InstrumentationScope>) -> Result<Scope, Malformed> {
    let scope = scope.unwrap_or_default();
    if scope.name.is_empty() {
        return Err(Malformed::NoName("instrumentation scope"));
    }
    attributes(scope.attributes)?;
    Ok(Scope { name: scope.name, version: scope.version })
}

fn attributes(all: Vec<KeyValue>) -> Result<BTreeMap<String, Value>, Malformed> {
    let mut attributes = BTreeMap::new();
    for KeyValue { key, value, .. } in all {
        let value = value.and_then(value_of).filter(|_| !key.is_empty());
        let Some(value) = value else { return Err(Malformed::Attribute(key)) };
        if attributes.contains_key(&key) {
            return Err(Malformed::AttributeTwice(key));
        }
        attributes.insert(key, value);
    }
    Ok(attributes)
}

fn value_of(value: AnyValue) -> Option<Value> {
    Some(match value.value? {
        Wire::StringValue(text) => Value::Text(text),
        Wire::BoolValue(value) => Value::Bool(value),
        Wire::IntValue(number) => Value::Int(number),
        Wire::DoubleValue(number) => Value::Double(number),
        Wire::BytesValue(bytes) => Value::Bytes(bytes),
        Wire::ArrayValue(list) => {
            Value::List(list.values.into_iter().map(value_of).collect::<Option<_>>()?)
        }
        Wire::KvlistValue(list) => Value::Map(attributes(list.values).ok()?),
        Wire::StringValueStrindex(_) => return None,
    })
}

fn hex_id(what: &'static str, name: &str, id: &[u8], length: usize) -> Result<String, Malformed> {
    if id.len() != length || id.iter().all(|&byte| byte == 0) {
        return Err(Malformed::Id { what, name: name.to_owned(), length: id.len() });
    }
    Ok(data_encoding::HEXLOWER.encode(id))
}

fn not_empty<T>(group: Vec<T>) -> Result<Vec<T>, Malformed> {
    if group.is_empty() { Err(Malformed::Empty) } else { Ok(group) }
}
