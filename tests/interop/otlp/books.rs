//! The telemetry that a receiver keeps.

use std::collections::BTreeMap;

use super::Malformed;

/// Limit of kept spans; further spans are only counted. A demo sends a few thousand.
const SPANS_MAX: usize = 100_000;
/// Limit of kept refusal reasons; further refusals are only counted.
const REASONS_MAX: usize = 100;

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

/// A reference from one span to another.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Link {
    /// Trace id of the target, in lower-case hex.
    pub(crate) trace_id: String,
    /// Span id of the target, in lower-case hex.
    pub(crate) span_id: String,
    pub(crate) attributes: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Scope {
    pub(crate) name: String,
    /// Version of the scope; may be empty.
    pub(crate) version: String,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    /// Trace id in lower-case hex.
    pub(crate) trace_id: String,
    /// Span id in lower-case hex.
    pub(crate) span_id: String,
    /// The parent's id; `None` for a root.
    pub(crate) parent: Option<String>,
    /// OTLP number of the span's kind: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub(crate) kind: i32,
    /// Start time, nanoseconds since the Unix epoch.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) links: Vec<Link>,
    /// Names of the span's events, in order.
    pub(crate) events: Vec<String>,
    /// The message of an error status.
    pub(crate) error: Option<String>,
    pub(crate) resource: BTreeMap<String, Value>,
    pub(crate) scope: Scope,
}

#[derive(Default, Debug)]
pub(crate) struct Books {
    spans: Vec<Span>,
    spans_by_name: BTreeMap<String, u64>,
    metrics: BTreeMap<String, u64>,
    logs: u64,
    refused: u64,
    reasons: Vec<String>,
    requests: u64,
}

/// Counts of received telemetry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    pub(crate) spans_received: BTreeMap<String, u64>,
    /// Data points by metric.
    pub(crate) metrics_received: BTreeMap<String, u64>,
    pub(crate) logs_received: u64,
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    /// Reasons of the first hundred refusals.
    pub(crate) reasons: Vec<String>,
}

impl Books {
    /// Received spans of this name, in order of arrival.
    pub(crate) fn spans_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |span| span.name == name)
    }

    /// All spans, in order of arrival.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The span with these ids, in lower-case hex.
    pub(crate) fn span(&self, trace_id: &str, span_id: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.trace_id == trace_id && span.span_id == span_id)
    }

    /// Counts of received telemetry.
    pub(crate) fn report(&self) -> Report {
        Report {
            spans_received: self.spans_by_name.clone(),
            metrics_received: self.metrics.clone(),
            logs_received: self.logs,
            requests: self.requests,
            refused: self.refused,
            reasons: self.reasons.clone(),
        }
    }

    pub(super) fn take_spans(&mut self, spans: Vec<Span>) {
        self.requests += 1;
        for span in spans {
            *self.spans_by_name.entry(span.name.clone()).or_default() += 1;
            if self.spans.len() < SPANS_MAX {
                self.spans.push(span);
            }
        }
    }

    pub(super) fn take_metrics(&mut self, points: Vec<(String, u64)>) {
        self.requests += 1;
        for (name, count) in points {
            *self.metrics.entry(name).or_default() += count;
        }
    }

    pub(super) fn take_logs(&mut self, count: u64) {
        self.requests += 1;
        self.logs += count;
    }

    pub(super) fn refuse(&mut self, reason: &Malformed) {
        self.refused += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason.to_string());
        }
    }
}
