use super::*;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn caller(traceparent: &str, trust: Traceparent) -> CallerTrace {
    CallerTrace::new(Instant::now(), Some(traceparent), Some("a=b"), trust)
}

#[test]
fn untrusted_caller_is_link_trusted_is_parent() {
    let stranger = caller(TRACEPARENT, Traceparent::Link);
    assert!(!stranger.parent().has_active_span());
    let link = stranger.link().unwrap();
    assert_eq!(link.span_context.span_id().to_string(), "b7ad6b7169203331");
    let trusted = caller(TRACEPARENT, Traceparent::Parent);
    assert!(trusted.link().is_none());
    let parent = trusted.parent();
    let trace = parent.span().span_context().trace_id().to_string();
    assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(parent.span().span_context().trace_state().get("a"), Some("b"));
}

#[test]
fn malformed_traceparent_is_ignored() {
    for header in ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        let caller = caller(header, Traceparent::Link);
        assert!(caller.link().is_none() && !caller.parent().has_active_span(), "{header}");
    }
}
