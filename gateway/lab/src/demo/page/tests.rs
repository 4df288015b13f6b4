use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

/// A page of a gateway that does not run.
async fn page() -> Arc<DemoPage> {
    let nowhere = ApiEndpoint::Unix("/nonexistent/evenkeel.sock".into());
    DemoPage::start(nowhere, 7).await.expect("loopback has a free port")
}

/// Sends a request with these headers, in which `SELF` is the page's address. Returns the response.
async fn ask(page: &DemoPage, line: &str, headers: &[&str], body: &str) -> String {
    let headers: Vec<_> =
        headers.iter().map(|header| header.replace("SELF", &page.address.to_string())).collect();
    let (headers, length) = (headers.join("\r\n"), body.len());
    let request = format!(
        "{line} HTTP/1.1\r\n{headers}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(page.address).await.expect("the page listens");
    stream.write_all(request.as_bytes()).await.expect("the page reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("the page answers");
    response
}

#[track_caller]
fn assert_status(response: &str, status: u16) {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
}

#[tokio::test]
async fn files_are_served_with_a_policy() {
    let page = page().await;
    for (path, media_type, text) in FILES {
        let response = ask(&page, &format!("GET {path}"), &["host: SELF"], "").await;
        assert_status(&response, 200);
        assert!(response.contains(&format!("content-type: {media_type}\r\n")), "{path}");
        assert!(response.contains("content-security-policy: default-src 'none'; "), "{path}");
        assert!(response.ends_with(text) && !text.is_empty(), "{path}");
    }
    assert_status(&ask(&page, "GET /other", &["host: SELF"], "").await, 404);
}

#[tokio::test]
async fn requests_of_other_sites_are_refused() {
    let page = page().await;
    let foreign = ask(&page, "GET /", &["host: evil.example"], "").await;
    assert_status(&foreign, 403);
    assert!(foreign.contains("expected 127.0.0.1:"), "{foreign}");
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
    assert!(malformed.contains("expected one of `call`, `publish`, `watch`"), "{malformed}");
    for offer in
        [r#"{"role": "call", "room": "r", "offer": "v=0"}"#, r#"{"role": "call", "room": "r"}"#]
    {
        let unreached = ask(&page, "POST /sessions", &own, offer).await;
        assert_status(&unreached, 503);
        assert!(unreached.contains("the admin API is out of reach"), "{unreached}");
    }
}
