//! The trace context of a request.

use std::time::Instant;

use evenkeel_config::Traceparent;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Link, SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The trace context of a caller (W3C Trace Context).
#[derive(Clone, Debug)]
pub struct CallerTrace {
    pub(crate) arrived: Instant,
    trace: Option<SpanContext>,
    trust: Traceparent,
}

struct Headers<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

impl CallerTrace {
    /// Reads the headers of W3C Trace Context; malformed ones are ignored.
    pub fn new(
        arrived: Instant,
        traceparent: Option<&str>,
        tracestate: Option<&str>,
        trust: Traceparent,
    ) -> CallerTrace {
        let trace = traceparent.and_then(|traceparent| {
            let headers = Headers { traceparent, tracestate };
            let context =
                TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
            Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
        });
        CallerTrace { arrived, trace, trust }
    }

    /// The parent of the span: the caller's context if it is trusted.
    pub(super) fn parent(&self) -> Context {
        match (&self.trace, self.trust) {
            (Some(trace), Traceparent::Parent) => {
                Context::new().with_remote_span_context(trace.clone())
            }
            (Some(_), Traceparent::Link) | (None, _) => Context::new(),
        }
    }

    /// The link of the span: the caller's context if it is not trusted.
    pub(super) fn link(&self) -> Option<Link> {
        match self.trust {
            Traceparent::Link => self.trace.clone().map(Link::with_context),
            Traceparent::Parent => None,
        }
    }
}

#[cfg(test)]
mod tests;
