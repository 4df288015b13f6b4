//! Which spans are sent, and the ids of spans that are known before they are created.

use std::cell::Cell;

use evenkeel_control::TraceShare;
use opentelemetry::trace::{Link, SpanId, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingResult, ShouldSample,
};

use crate::registry::{Attribute, Sampled, Span};

/// Follows the parent's decision. Without a parent it samples always-on spans, failures, decisions about sampled sessions, and the
/// configured share of the rest. The share depends on the trace id, so that other services with the same share sample the same
/// traces.
#[derive(Clone, Debug)]
pub(crate) struct SpanSampler {
    pub(crate) share: TraceShare,
}

/// The status of a span that may be dropped.
pub(super) const WELL: &str = "ok";

impl SpanSampler {
    /// The share contains this trace.
    pub(super) fn is_in_share(&self, trace: TraceId) -> bool {
        self.share.contains(trace.to_bytes())
    }
}

impl ShouldSample for SpanSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let span = Span::ALL.iter().find(|span| span.name() == name);
        let is_shared = span.is_some_and(|span| span.sampled() == Sampled::Share);
        let outcome = attributes.iter().find(|kv| kv.key.as_str() == Attribute::Outcome.key());
        let root = match outcome {
            Some(outcome) if outcome.value.as_str() != WELL => Sampler::AlwaysOn,
            // A caller's link, which any client may send, does not switch sampling on.
            _ if span == Some(&Span::PolicyDecide)
                && links.iter().any(|link| link.span_context.is_sampled()) =>
            {
                Sampler::AlwaysOn
            }
            _ if is_shared && !self.is_in_share(trace) => Sampler::AlwaysOff,
            _ => Sampler::AlwaysOn,
        };
        let sampler = Sampler::ParentBased(Box::new(root));
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

thread_local! {
    static KNOWN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Random ids, except for a span that is created by [`SpanIds::with`].
#[derive(Debug, Default)]
pub(crate) struct SpanIds(RandomIdGenerator);

impl SpanIds {
    /// Creates a span with these ids. A parent's trace takes precedence.
    pub(super) fn with<T>(trace: TraceId, span: SpanId, create: impl FnOnce() -> T) -> T {
        KNOWN.set(Some((trace, span)));
        let created = create();
        KNOWN.set(None);
        created
    }
}

impl IdGenerator for SpanIds {
    fn new_trace_id(&self) -> TraceId {
        KNOWN.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        KNOWN.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

#[cfg(test)]
mod tests;
