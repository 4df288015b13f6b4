use super::*;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn traceparent_is_read() {
    let caller = CallerSpan::parse(TRACEPARENT).unwrap();
    assert_eq!(HEXLOWER.encode(&caller.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(HEXLOWER.encode(&caller.span_id), "b7ad6b7169203331");
    assert!(caller.is_sampled);
    let unsampled = format!("{}00", &TRACEPARENT[..53]);
    assert!(!CallerSpan::parse(&unsampled).unwrap().is_sampled);
    // A later version.
    assert!(CallerSpan::parse(&format!("01{}-more", &TRACEPARENT[2..])).is_some());
}

#[test]
fn malformed_traceparent_is_ignored() {
    let zero_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
    let upper_case = TRACEPARENT.to_uppercase();
    for header in [
        "",
        "00-0-0-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        zero_span,
        &upper_case,
        &format!("ff{}", &TRACEPARENT[2..]),
        &format!("{TRACEPARENT}-more"),
        &TRACEPARENT[..52],
    ] {
        assert_eq!(CallerSpan::parse(header), None, "{header}");
    }
}

#[test]
fn process_that_continues_has_the_same_ids() {
    let [before, after] = [Traceparent::Link, Traceparent::Link].map(TraceRegistry::new);
    let trace = before.of(SessionId(7), None);
    assert_ne!(trace, before.of(SessionId(8), None));
    assert_ne!(trace, after.of(SessionId(7), None));
    after.resume(before.seed());
    assert_eq!(trace, after.of(SessionId(7), None));
}

#[test]
fn trusted_caller_gives_the_trace() {
    let caller = CallerSpan::parse(TRACEPARENT);
    let caller = caller.as_ref();
    let [links, continues] = [Traceparent::Link, Traceparent::Parent].map(TraceRegistry::new);
    continues.resume(links.seed());
    let own = links.of(SessionId(7), None);
    assert_eq!(links.of(SessionId(7), caller), own);
    let theirs = continues.of(SessionId(7), caller);
    assert_eq!(theirs.trace_id, caller.unwrap().trace_id);
    assert_eq!(theirs.span_id, own.span_id);
}

#[test]
fn requests_about_a_session_continue_its_trace() {
    let caller =
        CallerSpan::parse(TRACEPARENT).map(|caller| caller.with_state(["a=1"].into_iter()));
    let (caller, session) = (caller.as_ref(), SessionId(7));
    let traces = |trust, share| TraceRegistry::new(trust).sending(TraceShare(share));
    for (share, flags) in [(1.0, "01"), (0.0, "00")] {
        let traces = traces(Traceparent::Link, share);
        let TraceIds { trace_id, span_id } = traces.of(session, None);
        let (trace, span) = (HEXLOWER.encode(&trace_id), HEXLOWER.encode(&span_id));
        let traceparent = format!("00-{trace}-{span}-{flags}");
        let expected = Some(TraceHeaders { traceparent, tracestate: None });
        assert_eq!(traces.headers(session, None), expected);
        assert_eq!(traces.headers(session, caller), expected);
    }
    let trusting = traces(Traceparent::Parent, 0.0);
    let TraceHeaders { traceparent, tracestate } = trusting.headers(session, caller).unwrap();
    assert_eq!((&traceparent[..36], &traceparent[52..]), (&TRACEPARENT[..36], "-01"));
    assert_ne!(traceparent, TRACEPARENT, "the session's span is the parent");
    assert_eq!(tracestate.as_deref(), Some("a=1"));
}

#[test]
fn trusted_callers_are_passed_on_where_no_spans_are_sent() {
    let caller = CallerSpan::parse(TRACEPARENT);
    for (trust, expected) in
        [(Traceparent::Link, None), (Traceparent::Parent, Some(TRACEPARENT.to_owned()))]
    {
        let traces = TraceRegistry::new(trust);
        let headers = traces.headers(SessionId(7), caller.as_ref());
        assert_eq!(headers.map(|headers| headers.traceparent), expected);
        assert_eq!(traces.headers(SessionId(7), None), None);
    }
}

#[test]
fn usable_tracestate_is_kept() {
    let state = |headers: &[&str]| {
        let caller = CallerSpan::parse(TRACEPARENT).unwrap();
        caller.with_state(headers.iter().copied()).state
    };
    assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
    assert_eq!(state(&[" a=1 "]).as_deref(), Some("a=1"));
    let longest = format!("a={}", "1".repeat(510));
    assert_eq!(state(&[&longest]).as_deref(), Some(longest.as_str()));
    for unusable in [&[][..], &[""], &["a=\u{1}"], &[&format!("{longest}1")]] {
        assert_eq!(state(unusable), None);
    }
}

#[test]
fn hook_has_a_trace_of_its_own_if_spans_are_sent() {
    let (node, hook) = (NodeId(3), NodeHook::Start);
    let silent = TraceRegistry::new(Traceparent::Link);
    assert_eq!((silent.begin_hook(hook, node), silent.take_hook(hook, node)), (None, None));
    let traces = silent.sending(TraceShare(0.0));
    let first = traces.begin_hook(hook, node).unwrap();
    let second = traces.begin_hook(hook, node).unwrap();
    traces.begin_hook(NodeHook::Stop, node);
    assert_ne!(first, second);
    let TraceIds { trace_id, span_id } = traces.take_hook(hook, node).unwrap();
    let caller = CallerSpan { trace_id, span_id, is_sampled: true, state: None };
    assert_eq!(CallerSpan::parse(&second.traceparent), Some(caller));
    assert_eq!(traces.take_hook(hook, node), None);
}
