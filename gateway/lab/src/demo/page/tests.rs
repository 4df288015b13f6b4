use std::net::TcpStream;

use evenkeel_testkit::http::{HttpAnswer, HttpClient};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::*;

/// A page of a gateway that does not run.
async fn page() -> Arc<DemoPage> {
    let nowhere = ApiEndpoint::Unix("/nonexistent/evenkeel.sock".into());
    DemoPage::start(nowhere, 7).await.expect("loopback has a free port")
}

/// The answer to a request with these headers, in which `SELF` is the page's address.
async fn ask(page: &DemoPage, line: &str, headers: &[&str], body: &str) -> HttpAnswer {
    let (address, line, body) = (page.address, line.to_owned(), body.to_owned());
    let headers = headers.iter().map(|header| header.replace("SELF", &address.to_string()));
    let headers: Vec<String> = headers.collect();
    let asked = spawn_blocking(move || {
        let headers: Vec<&str> = headers.iter().map(|header| &**header).collect();
        let stream = TcpStream::connect(address).expect("the page listens");
        HttpClient::over(stream).ask(&line, &headers, body.as_bytes())
    });
    asked.await.expect("a client does not panic").expect("the page answers")
}

#[track_caller]
fn assert_status(answer: &HttpAnswer, status: u16) {
    assert_eq!(answer.status, status, "{answer}");
}

#[tokio::test]
async fn files_are_served_with_a_policy() {
    let page = page().await;
    for (path, media_type, text) in FILES {
        let answer = ask(&page, &format!("GET {path}"), &["host: SELF"], "").await;
        assert_status(&answer, 200);
        assert_eq!(answer.header("content-type"), Some(media_type), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.is_some_and(|it| it.starts_with("default-src 'none'; ")), "{path}");
        assert!(answer.body == text && !text.is_empty(), "{path}");
    }
    assert_status(&ask(&page, "GET /other", &["host: SELF"], "").await, 404);
}

#[tokio::test]
async fn requests_of_other_sites_are_refused() {
    let page = page().await;
    let foreign = ask(&page, "GET /", &["host: evil.example"], "").await;
    assert_status(&foreign, 403);
    assert!(foreign.body.contains("expected 127.0.0.1:"), "{foreign}");
    let kill = "POST /gateway/kill";
    for origin in ["x-none: 1", "origin: http://evil.example", "origin: null"] {
        assert_status(&ask(&page, kill, &["host: SELF", origin], "").await, 403);
    }
    let killed = page.gateway_kill.notified();
    let own = ["host: SELF", "origin: http://SELF"];
    let early = timeout(Duration::from_millis(20), page.gateway_kill.notified()).await;
    assert!(early.is_err(), "a refused request killed the gateway");
    assert_status(&ask(&page, kill, &own, "").await, 204);
    timeout(Duration::from_secs(10), killed).await.expect("the order is heard");
}

#[tokio::test]
async fn errors_of_offers_and_gateway_are_told() {
    let page = page().await;
    let own = ["host: SELF", "origin: http://SELF"];
    let malformed = ask(&page, "POST /sessions", &own, r#"{"role": "sing"}"#).await;
    assert_status(&malformed, 400);
    assert!(malformed.body.contains("expected one of `call`, `publish`, `watch`"), "{malformed}");
    for offer in
        [r#"{"role": "call", "room": "r", "offer": "v=0"}"#, r#"{"role": "call", "room": "r"}"#]
    {
        let unreached = ask(&page, "POST /sessions", &own, offer).await;
        assert_status(&unreached, 503);
        assert!(unreached.body.contains("the admin API is out of reach"), "{unreached}");
    }
}

#[tokio::test]
async fn page_has_the_advice_of_its_session() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let admin = ApiEndpoint::Tcp(listener.local_addr().expect("the listener is bound"));
    let advice = json!({"advice": "audio-only", "cause": "leg"});
    let session = Bytes::from(json!({"id": "s1", "advice": advice}).to_string());
    tokio::spawn(serve(listener, move |_| {
        let session = session.clone();
        async move { Response::new(Full::new(session)) }
    }));
    let page = DemoPage::start(admin, 7).await.expect("loopback has a free port");
    let answer = ask(&page, "GET /sessions/s1", &["host: SELF"], "").await;
    assert_status(&answer, 200);
    let shown: Value = serde_json::from_str(&answer.body).expect("an object");
    assert_eq!(shown["advice"], advice);
}

#[tokio::test]
async fn page_passes_probes_and_their_results_on() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let admin = ApiEndpoint::Tcp(listener.local_addr().expect("the listener is bound"));
    // Answers with what it was asked.
    tokio::spawn(serve(listener, |request| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let verdict = format!("{} {} ", head.method, head.uri.path());
        let verdict = [verdict.as_bytes(), &body].concat();
        let verdict = String::from_utf8(verdict).expect("text");
        let answer = json!({"id": verdict, "verdict": verdict}).to_string();
        Response::new(Full::new(Bytes::from(answer)))
    }));
    let page = DemoPage::start(admin, 7).await.expect("loopback has a free port");
    let own = ["host: SELF", "origin: http://SELF"];
    let asked = async |line: &str, body: &str, key: &str| {
        let answer = ask(&page, line, &own, body).await;
        assert!(answer.status < 300, "{answer}");
        let answer: Value = serde_json::from_str(&answer.body).expect("an object");
        answer[key].as_str().expect("a text").to_owned()
    };
    let opened = asked("POST /probes", "", "id").await;
    assert_eq!(opened, r#"POST /v1/probes {"ingress":"webtransport"}"#);
    let times = r#"{"round_trips_us":[7,null]}"#;
    let measured = asked("PUT /probes/p1", times, "verdict").await;
    assert_eq!(measured, format!("PUT /v1/probes/p1 {times}"));
    let offer = r#"{"role": "watch", "room": "r", "probe": "signed"}"#;
    let offered = asked("POST /sessions", offer, "id").await;
    assert!(offered.contains(r#""probe":"signed""#), "{offered}");
    let malformed = ask(&page, "PUT /probes/p1", &own, "{}").await;
    assert_status(&malformed, 400);
}
