use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
use opentelemetry_sdk::trace::SamplingDecision;

use super::*;

fn sampled(share: f64, trace: u128, name: &str, outcome: &'static str) -> bool {
    let attributes = [KeyValue::new(Attribute::Outcome.key(), outcome)];
    let kind = SpanKind::Server;
    let sampling = SpanSampler { share }.should_sample(
        None,
        TraceId::from(trace),
        name,
        &kind,
        &attributes,
        &[],
    );
    sampling.decision == SamplingDecision::RecordAndSample
}

#[test]
fn share_is_sampled_by_trace_id() {
    let half = 1u128 << 63;
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
        SpanSampler { share }
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

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn trace(traceparent: &str, trust: Traceparent) -> (Context, Vec<Link>) {
    let caller = TraceCaller { arrived: Instant::now(), traceparent: Some(traceparent.into()) };
    trace_of(Some(&caller), trust)
}

#[test]
fn untrusted_caller_is_link_trusted_is_parent() {
    let (parent, links) = trace(TRACEPARENT, Traceparent::Link);
    assert!(!parent.has_active_span());
    assert_eq!(links[0].span_context.span_id().to_string(), "b7ad6b7169203331");
    let (parent, links) = trace(TRACEPARENT, Traceparent::Parent);
    assert!(links.is_empty());
    let trace = parent.span().span_context().trace_id().to_string();
    assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn malformed_traceparent_is_ignored() {
    for header in ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        let (parent, links) = trace(header, Traceparent::Link);
        assert!(links.is_empty() && !parent.has_active_span(), "{header}");
    }
}
