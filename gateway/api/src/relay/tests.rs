use serde_json::Value;

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
    assert_eq!(headers, ["idempotency-key", "traceparent", PRIVATE], "no TCP: the Unix socket");
}

#[test]
fn owner_learns_whether_another_host_saw_a_request() {
    let place = |is_of_this_host| {
        let mut place = TcpPlace::of_a_stranger();
        place.is_of_this_host = is_of_this_host;
        Arc::new(place)
    };
    for (is_of_this_host, is_private) in [(None, true), (Some(true), true), (Some(false), false)] {
        let mut parts = parts("POST", "/v1/sessions", "");
        // A client's own word is not relayed, and not read here.
        parts.headers.insert(PRIVATE, HeaderValue::from_static("1"));
        is_of_this_host.map(|of_this| parts.extensions.insert(place(of_this)));
        assert_eq!(super::is_private(&parts.extensions, &parts.headers), is_private);
        let mut at_owner = relayed(&parts, &Bytes::new());
        assert_eq!(at_owner.headers().contains_key(PRIVATE), is_private);
        at_owner.extensions_mut().insert(Relayed);
        assert_eq!(super::is_private(at_owner.extensions(), at_owner.headers()), is_private);
    }
}

#[test]
fn declined_request_was_not_executed() {
    let after = |seconds| HeaderMap::from_iter([(header::RETRY_AFTER, seconds)]);
    let is_executed = |seconds: &'static str, body: &str| {
        let headers = after(HeaderValue::from_static(seconds));
        require_executed("edge-1", &headers, body.as_bytes()).is_ok()
    };
    assert!(!is_executed("0", r#"{"error": {"code": "unavailable"}}"#));
    assert!(!is_executed("1", r#"{"error": {"code": "standby"}}"#));
    assert!(is_executed("1", r#"{"error": {"code": "unavailable"}}"#));
    assert!(is_executed("1", "no JSON"));
}

/// In earlier versions each gateway answered `/v1/changes` itself, and had no such path for its peer.
#[tokio::test]
async fn owner_of_another_version_is_named() {
    let answer = async |body: &'static str| {
        let head = hyper::Response::builder().status(404).body(()).unwrap().into_parts().0;
        let request = parts("GET", "/v1/changes?since=24h", "");
        let answer = answer_of("edge-1", &request, head, Bytes::from_static(body.as_bytes()));
        let (head, body) = answer.ok().unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap()["error"].take())
    };
    let unknown = r#"{"error": {"code": "not-found", "message": "unknown path"}}"#;
    let (status, error) = answer(unknown).await;
    assert_eq!((status, &error["code"]), (503, &"unavailable".into()));
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("edge-1, the owner, runs another version"), "{message}");
    assert!(message.contains("GET /v1/changes to its standby"), "{message}");
    let gone = r#"{"error": {"code": "not-found", "message": "there is no session `s1`"}}"#;
    let (status, error) = answer(gone).await;
    assert_eq!((status, &error["message"]), (404, &"there is no session `s1`".into()));
}
