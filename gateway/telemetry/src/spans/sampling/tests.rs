use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use opentelemetry_sdk::trace::SamplingDecision;

use super::*;

fn sampled(share: f64, trace: u128, name: &str, outcome: &'static str) -> bool {
    let attributes = [KeyValue::new(Attribute::Outcome.key(), outcome)];
    let kind = SpanKind::Server;
    let sampling = SpanSampler { share: TraceShare(share) }.should_sample(
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
fn share_is_that_of_other_services() {
    for share in [0.0, 0.001, 0.1, 0.5, 0.999, 1.0, 2.0] {
        let sampler = Sampler::TraceIdRatioBased(share);
        for trace in (0..1_000).map(|_| TraceId::from(fastrand::u128(..))) {
            let result = sampler.should_sample(None, trace, "", &SpanKind::Internal, &[], &[]);
            let is_sampled = result.decision == SamplingDecision::RecordAndSample;
            assert_eq!(SpanSampler { share: TraceShare(share) }.is_in_share(trace), is_sampled);
        }
    }
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
        SpanSampler { share: TraceShare(share) }
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

#[test]
fn span_gets_the_known_ids_and_others_random_ones() {
    let ids = SpanIds::default();
    let (trace, span) = (TraceId::from(7), SpanId::from(9));
    let known = SpanIds::with(trace, span, || (ids.new_trace_id(), ids.new_span_id()));
    assert_eq!(known, (trace, span));
    assert_ne!((ids.new_trace_id(), ids.new_span_id()), (trace, span));
}
