use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

use super::registry::{Attribute, Sampled, Span};

/// Follows the parent's decision. Without a parent it samples always-on spans, failures, and the configured share of
/// the rest. The share depends on the trace id, so that other services with the same share sample the same traces.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    /// The share of sampled spans, 0 to 1.
    pub(super) share: f64,
}

/// The status of a span that may be dropped.
pub(super) const WELL: &str = "ok";

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let parent = parent.filter(|context| context.has_active_span());
        let sampled = match parent {
            Some(context) => context.span().span_context().is_sampled(),
            None => self.chosen(trace, name, attributes),
        };
        let state = parent.map(|context| context.span().span_context().trace_state().clone());
        SamplingResult {
            decision: if sampled {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: state.unwrap_or(TraceState::NONE),
        }
    }
}

impl Sampler {
    fn chosen(&self, trace: TraceId, name: &str, attributes: &[KeyValue]) -> bool {
        let span = Span::ALL.iter().find(|span| span.name() == name);
        let outcome = attributes.iter().find(|kv| kv.key.as_str() == Attribute::Outcome.key());
        match span.map(|span| span.sampled()) {
            Some(Sampled::Share) if outcome.is_none_or(|kv| kv.value.as_str() == WELL) => {
                // The low 7 bytes of a trace id are random (W3C Trace Context, level 2).
                let random = u128::from_be_bytes(trace.to_bytes()) & ((1 << 56) - 1);
                random < (self.share * (1u64 << 56) as f64) as u128
            }
            Some(Sampled::Share | Sampled::Always) | None => true,
        }
    }
}

#[cfg(test)]
mod tests;
