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
    let [before, after] = [Traceparent::Link, Traceparent::Link].map(SessionTraces::new);
    let trace = before.of(SessionId(7), None);
    assert_ne!(trace, before.of(SessionId(8), None));
    assert_ne!(trace, after.of(SessionId(7), None));
    after.resume(before.seed());
    assert_eq!(trace, after.of(SessionId(7), None));
}

#[test]
fn trusted_caller_gives_the_trace() {
    let caller = CallerSpan::parse(TRACEPARENT);
    let [links, continues] = [Traceparent::Link, Traceparent::Parent].map(SessionTraces::new);
    continues.resume(links.seed());
    let own = links.of(SessionId(7), None);
    assert_eq!(links.of(SessionId(7), caller), own);
    let theirs = continues.of(SessionId(7), caller);
    assert_eq!(theirs.trace_id, caller.unwrap().trace_id);
    assert_eq!(theirs.span_id, own.span_id);
}
