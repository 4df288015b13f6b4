use std::net::TcpListener;

use bytes::Bytes;
use evenkeel_config::{SecretFile, Url, WebhookTarget};
use evenkeel_testkit::http::{http_answer as says, http_server as server};

use super::*;
use crate::TraceHeaders;
use crate::client::ANSWER_MAX;

async fn posted(
    url: String,
    token: Option<&str>,
    within: Duration,
) -> Result<HttpAnswer, HttpError> {
    let url: Url = url.parse().unwrap();
    let token = token.map(|token| SecretFile::new(token.into()));
    let poster = Poster::start().unwrap();
    poster
        .post(
            WebhookMessage {
                hook: Arc::new(WebhookTarget { url, token }),
                body: Bytes::from_static(b"{\"verb\":\"open\"}"),
                trace: Some(TraceHeaders {
                    traceparent: "00-4bf9-00f0-01".to_owned(),
                    tracestate: Some("a=1".into()),
                }),
            },
            Effort::of_session(within),
        )
        .await
}

fn message(hook: Arc<WebhookTarget>, body: &'static str) -> WebhookMessage {
    WebhookMessage { hook, body: body.into(), trace: None }
}

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn post_sends_json_and_token() {
    let (url, asked) = server(vec![says("201 Created", "{\"address\":\"10.0.0.1:4\"}")]);
    let answer = posted(url, Some("a token of some length"), SOON).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (201, &b"{\"address\":\"10.0.0.1:4\"}"[..]));
    let request = asked.join().unwrap().remove(0);
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"verb\":\"open\"}"), "{request}");
    let head = request.to_lowercase();
    assert!(head.contains("authorization: bearer a token of some length\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains("traceparent: 00-4bf9-00f0-01\r\ntracestate: a=1\r\n"), "{head}");
}

#[tokio::test]
async fn connection_error_is_retried() {
    // The first attempt is cut off, and the second gets a proxy's error.
    let (url, asked) =
        server(vec![String::new(), says("502 Bad Gateway", ""), says("200 OK", "{}")]);
    let answer = posted(url, None, SOON).await.unwrap();
    assert_eq!(answer.status, 200);
    let asked = asked.join().unwrap();
    assert_eq!((asked.len(), &asked[0]), (3, &asked[2]));
}

#[tokio::test]
async fn refused_request_is_not_retried() {
    let (url, asked) = server(vec![says("409 Conflict", "no")]);
    let answer = posted(url, None, SOON).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (409, &b"no"[..]));
    assert_eq!(asked.join().unwrap().len(), 1);
}

#[tokio::test]
async fn endless_answer_is_cut_off() {
    let long = says("200 OK", &"x".repeat(ANSWER_MAX + 1));
    let (url, _asked) = server(vec![long]);
    let failed = posted(url, None, SOON).await.unwrap_err();
    assert!(matches!(failed, HttpError::TooLong(ANSWER_MAX)), "{failed}");
}

/// More POSTs than a server gets at once wait for one that hangs, and one to another server is answered meanwhile.
#[tokio::test]
async fn hung_server_delays_no_other() {
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let poster = Poster::start().unwrap();
    let hook = |url: String| Arc::new(WebhookTarget { url: url.parse().unwrap(), token: None });
    let hangs = hook(format!("http://{}", hung.local_addr().unwrap()));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..2 * AT_ONCE {
        let (poster, hangs) = (poster.clone(), Arc::clone(&hangs));
        let effort = Effort { within: SOON, each: SOON, cancels: true };
        waiting.spawn(async move { poster.post(message(hangs, ""), effort).await });
    }
    // All of them are in the queue before the next one.
    while poster.places.available_permits() > WAITING_MAX - 2 * AT_ONCE {
        tokio::task::yield_now().await;
    }
    let (url, _asked) = server(vec![says("200 OK", "{}")]);
    let answer = poster.post(message(hook(url), "{}"), Effort::of_session(SOON)).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(waiting.try_join_next().is_none(), "none of the others has ended");
}

#[tokio::test]
async fn silent_server_does_not_block_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let failed = posted(url, None, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(failed, HttpError::Late), "{failed}");
    let at = listener.local_addr().unwrap();
    drop(listener);
    let nobody = format!("http://{at}").parse().unwrap();
    let failed = posted(nobody, None, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(failed, HttpError::Connect(_)), "{failed}");
}

#[tokio::test]
async fn status_is_that_of_a_get_request() {
    let (url, asked) = server(vec![says("204 No Content", "")]);
    let url: Url = url.parse().unwrap();
    assert_eq!(HttpClient::default().get_status(&url).await.unwrap(), 204);
    let request = asked.join().unwrap().remove(0);
    assert!(request.starts_with("GET /hook HTTP/1.1\r\n"), "{request}");
}
