use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

use super::registry::{Attribute, Sampled, Span};

/// Follows the parent. Without a parent it samples always-on spans, failures, and the configured share of the rest;
/// the share depends on the trace id, so that other services with the same share choose the same traces.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    /// 0 to 1.
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
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    use super::*;

    fn sampled(share: f64, trace: u128, name: &str, outcome: &'static str) -> bool {
        let attributes = [KeyValue::new(Attribute::Outcome.key(), outcome)];
        Sampler { share }.chosen(TraceId::from(trace), name, &attributes)
    }

    #[test]
    fn share_is_sampled_by_trace_id() {
        let half = 1u128 << 55;
        assert!(sampled(0.5, half - 1, "session.open", WELL));
        assert!(!sampled(0.5, half, "session.open", WELL));
        assert!(!sampled(0.0, 0, "session.open", WELL));
        assert!(sampled(1.0, u128::MAX, "session.open", WELL));
    }

    #[test]
    fn failures_and_rare_spans_are_always_sampled() {
        assert!(sampled(0.0, 1 << 55, "session.open", "refused"));
        assert!(sampled(0.0, 1 << 55, "node.failover", WELL));
    }

    #[test]
    fn child_follows_its_parent() {
        let context = |flags| {
            let span =
                SpanContext::new(TraceId::from(9), SpanId::from(9), flags, true, TraceState::NONE);
            Context::new().with_remote_span_context(span)
        };
        let decide = |share, flags| {
            let parent = context(flags);
            Sampler { share }
                .should_sample(
                    Some(&parent),
                    TraceId::from(9),
                    "session.open",
                    &SpanKind::Server,
                    &[],
                    &[],
                )
                .decision
        };
        assert_eq!(decide(0.0, TraceFlags::SAMPLED), SamplingDecision::RecordAndSample);
        assert_eq!(decide(1.0, TraceFlags::default()), SamplingDecision::Drop);
    }
}
