use super::*;

fn parts(method: &str, path: &str, key: &str) -> Parts {
    let mut request = hyper::Request::builder().method(method).uri(path);
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    let request = request.header("authorization", "Bearer secret").header("traceparent", "00-1");
    request.body(()).unwrap().into_parts().0
}

#[test]
fn requests_without_harm_are_repeatable() {
    for (method, path, key, right) in [
        ("GET", "/v1/sessions", "", true),
        ("DELETE", "/v1/sessions/s1", "", true),
        ("POST", "/v1/sessions", "k", true),
        ("POST", "/v1/sessions", "", false),
        // Keys of other requests are not read.
        ("POST", "/v1/rooms/room:move", "k", false),
    ] {
        assert_eq!(is_repeatable(&parts(method, path, key)), right, "{method} {path} {key}");
    }
}

#[test]
fn token_of_the_client_is_not_relayed() {
    let body = Bytes::from_static(b"body");
    let request = relayed(&parts("POST", "/v1/sessions?a=%2F", "k"), &body);
    assert_eq!(request.uri(), "https://evenkeel/v1/sessions?a=%2F");
    let headers: Vec<_> = request.headers().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(headers, ["idempotency-key", "traceparent"]);
}

#[test]
fn declined_request_was_not_executed() {
    let after = |seconds| HeaderMap::from_iter([(header::RETRY_AFTER, seconds)]);
    let is_executed = |seconds: &'static str, body: &str| {
        let headers = after(header::HeaderValue::from_static(seconds));
        require_executed("edge-1", &headers, body.as_bytes()).is_ok()
    };
    assert!(!is_executed("0", r#"{"error": {"code": "unavailable"}}"#));
    assert!(!is_executed("1", r#"{"error": {"code": "standby"}}"#));
    assert!(is_executed("1", r#"{"error": {"code": "unavailable"}}"#));
    assert!(is_executed("1", "no JSON"));
}
