use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper::service::service_fn;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use evenkeel_contract::offers::{
    AnswerSdp, OfferIngress, OfferMedia, OfferPayloadType, OfferSdp, OfferStreamKind,
};

mod events;
mod unix;

type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A test server that answers by path and counts its connections.
async fn gateway() -> (ApiClient, Asked, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = ApiEndpoint::Tcp(listener.local_addr().unwrap());
    let (asked, connections) = (Asked::default(), Arc::new(AtomicUsize::new(0)));
    let (theirs, counted) = (Arc::clone(&asked), Arc::clone(&connections));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let asked = Arc::clone(&theirs);
            let service = service_fn(move |request| answer(request, Arc::clone(&asked)));
            let serving = hyper::server::conn::http1::Builder::new();
            tokio::spawn(
                async move { serving.serve_connection(TokioIo::new(stream), service).await },
            );
        }
    });
    (ApiClient::new(place), asked, connections)
}

async fn answer(
    request: Request<Incoming>,
    asked: Asked,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().to_owned();
    let after = head.uri.query().unwrap_or("");
    let noted = serde_json::from_slice(&body).unwrap_or(Value::Null);
    asked.lock().unwrap().push((head.method.to_string(), path.clone(), noted));
    let (status, text) = match path.as_str() {
        "/v1/sessions" => (201, OPENED.to_owned()),
        "/v1/sessions/s17" => (200, String::new()),
        "/v1/rooms" if after == "after=r1" => (200, json!({"rooms": [2]}).to_string()),
        "/v1/rooms" => (200, json!({"rooms": [0, 1], "next": "r1"}).to_string()),
        "/v1/events" => (200, "event: opened\ndata: {\"session\":\"s17\"}\n\n".to_owned()),
        "/v1/policies/call/routing" => {
            (400, json!({"outcome": "refused", "reason": "imports clock"}).to_string())
        }
        _ => (503, json!({"error": {"code": "draining", "message": "on its way out"}}).to_string()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
    Ok(response)
}

const OPENED: &str = r#"{"id":"s17","room":"room-1","scenario":"call",
    "udp":{"addresses":["127.0.0.1:5004"]},
    "quic":{"addresses":["127.0.0.1:4433"],"alpn":"roq-14",
        "certificate_sha256":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "flow_to_gateway":"4611686018427387903","flow_from_gateway":"5"},
    "route":[{"node":"east-a1","region":"east","zone":"a","incarnation":1}],
    "decided_by":{"routing":"native"}}"#;

fn offer() -> OfferRequest {
    OfferRequest {
        scenario: "call".into(),
        room: "room-1".into(),
        labels: [("region", "east")].into_iter().collect(),
        ingress: Some(OfferIngress::declared("127.0.0.1:40000".parse().unwrap())),
        media: Some(vec![OfferMedia {
            kind: OfferStreamKind::Audio,
            payload_types: vec![OfferPayloadType::new(111, "opus", 48_000)],
            feedback: vec![],
            bitrate: None,
        }]),
        ..OfferRequest::default()
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn offer_and_answer_match_the_api() {
    block_on(async {
        let (mut admin, asked, _) = gateway().await;
        let opened = admin.open(&offer()).await.unwrap();
        assert_eq!((&*opened.id, &*opened.route[0].place.node), ("s17", "east-a1"));
        let quic = opened.quic.unwrap();
        assert_eq!(quic.certificate().unwrap()[31], 0x1f);
        let expected = json!({
            "scenario": "call", "room": "room-1", "labels": {"region": "east"},
            "ingress": {"udp": {"identity": "declared", "address": "127.0.0.1:40000"}},
            "media": [{"kind": "audio", "payload_types": [
                {"payload_type": 111, "codec": "opus", "clock_rate": 48000}]}],
        });
        assert_eq!(asked.lock().unwrap()[0], ("POST".into(), "/v1/sessions".into(), expected));
    });
}

#[test]
fn webrtc_offer_and_answer_match_the_api() {
    let offer = OfferRequest {
        scenario: "call".into(),
        room: "room-1".into(),
        webrtc: Some(OfferSdp { offer: "v=0".into(), direction: None }),
        ..OfferRequest::default()
    };
    let worded = serde_json::to_value(offer).unwrap();
    let webrtc = json!({"offer": "v=0"});
    let expected = json!({"scenario": "call", "room": "room-1", "labels": {}, "webrtc": webrtc});
    assert_eq!(worded, expected);
    let answer = json!({"id": "s1", "webrtc": {"answer": "v=0"}});
    let answer: OfferAnswer = serde_json::from_value(answer).unwrap();
    assert_eq!(answer.webrtc, Some(AnswerSdp { answer: "v=0".into() }));
}

#[test]
fn other_ingresses_match_the_api() {
    let worded = |ingress: OfferIngress| serde_json::to_value(ingress).unwrap();
    assert_eq!(worded(OfferIngress::quic()), json!({"quic": {}}));
    assert_eq!(worded(OfferIngress::stun()), json!({"udp": {"identity": "stun"}}));
}

#[test]
fn connection_is_reused_and_reopened() {
    block_on(async {
        let (mut admin, _, connections) = gateway().await;
        for _ in 0..3 {
            admin.close("s17").await.unwrap();
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
        admin.connection = None;
        admin.close("s17").await.unwrap();
        assert_eq!(connections.load(Ordering::Relaxed), 2);
        admin.connection.as_mut().unwrap().used -= KEPT_FOR;
        admin.close("s17").await.unwrap();
        assert_eq!(connections.load(Ordering::Relaxed), 3, "the gateway may close the other one");
    });
}

#[test]
fn refusal_carries_status_code_and_message() {
    block_on(async {
        let (mut admin, _, _) = gateway().await;
        let Err(ClientError::Refused { status, code, message }) = admin.read("/v1/nodes").await
        else {
            panic!()
        };
        assert_eq!((status, code.as_str(), message.as_str()), (503, "draining", "on its way out"));
        let outcome = admin.push("call", "routing", b"\0asm").await.unwrap();
        assert_eq!(outcome["reason"], "imports clock");
    });
}

#[test]
fn list_follows_pages() {
    block_on(async {
        let (mut admin, asked, _) = gateway().await;
        assert_eq!(admin.list("rooms").await.unwrap(), [0, 1, 2]);
        assert_eq!(asked.lock().unwrap().len(), 2);
    });
}

#[test]
fn events_use_a_separate_connection() {
    block_on(async {
        let (admin, _, connections) = gateway().await;
        let mut events = admin.events().await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((event.name.as_str(), &event.data["session"]), ("opened", &json!("s17")));
        assert_eq!(events.next().await.unwrap(), None);
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn missing_socket_is_unreached() {
    block_on(async {
        let mut admin = ApiClient::new(ApiEndpoint::Unix("/nonexistent/evenkeel.sock".into()));
        assert!(matches!(admin.read("/v1/status").await, Err(ClientError::Unreached(_))));
    });
}
