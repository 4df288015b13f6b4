use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

use super::*;

fn span(trace: u128) -> SpanData {
    let (trace, span) = (TraceId::from(trace), SpanId::from(1));
    let flags = TraceFlags::default();
    SpanData {
        span_context: SpanContext::new(trace, span, flags, false, TraceState::NONE),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "session.open".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

#[test]
fn beyond_the_limit_the_oldest_session_is_dropped_whole() {
    let mut held = HeldSpans::default();
    for trace in [1, 2, 1] {
        held.hold(span(trace));
    }
    for trace in 3..HELD_MAX as u128 {
        held.hold(span(trace));
    }
    assert_eq!(held.spans, HELD_MAX, "full");
    held.hold(span(u128::MAX));
    assert_eq!(held.spans, HELD_MAX - 1, "both spans of the first one are gone");
    assert!(held.take(TraceId::from(1)).is_empty());
    assert_eq!(held.take(TraceId::from(2)).len(), 1);
    assert_eq!((held.traces.len(), held.oldest.len()), (HELD_MAX - 2, HELD_MAX - 2));
}
