//! A real HTTP client at the API's sockets, a test at the place of control.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_core::{Hook, Impossible, Ingress, PolicyName, SessionId};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use super::*;

#[test]
fn an_offer_reaches_control_and_its_answer_the_client() {
    let mut world = World::start();
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let asking = world.ask(&format!("POST /v1/sessions\n{trace}"), OFFER);
    let Request::Offer { wanted, traceparent, reply } = world.request() else { panic!("offer") };
    assert_eq!((&*wanted.scenario, &*wanted.room), ("call", "room-1"));
    assert_eq!(wanted.ingress, Ingress::Quic);
    assert!(traceparent.unwrap().sampled);
    reply.send(Ok(opened(17))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!(status, 201);
    assert_eq!(body["id"], "s17");
    assert_eq!(body["quic"]["flow_to_gateway"], "4611686018427387903");
    assert_eq!(body["quic"]["alpn"], "roq-14");
    assert_eq!(body["route"][0]["node"], "east-a1");
    assert_eq!(body["decided_by"]["routing"], "native");
    assert!(body.get("udp").is_none());
}

#[test]
fn a_bad_offer_never_reaches_control() {
    let mut world = World::start();
    let (status, body) = world.ask("POST /v1/sessions", r#"{"scenario": 5}"#).answer();
    assert_eq!((status, &body["error"]["code"]), (400, &json!("bad-request")));
    assert_eq!(body["error"]["field"], "scenario");
    let large = format!("{{\"scenario\":\"{}\"}}", "x".repeat(200_000));
    let (status, body) = world.ask("POST /v1/sessions", &large).answer();
    assert_eq!((status, &body["error"]["code"]), (413, &json!("too-large")));
    assert!(world.requests.try_recv().is_err());
}

#[test]
fn every_refusal_says_what_kind_it_is_and_when_to_come_again() {
    let mut world = World::start();
    let wait = Duration::from_millis(1_000);
    let cases = [
        (Refusal::UnknownScenario, 400, "bad-request", "scenario", false),
        (Refusal::ScenarioOfRoom("live".into()), 409, "conflict", "room", false),
        (Refusal::UnknownNode("x".into()), 400, "bad-request", "nodes.x", false),
        (Refusal::NoListener("stun"), 400, "bad-request", "ingress", false),
        (Refusal::AddressTaken, 409, "conflict", "ingress.udp.address", false),
        (Refusal::Full, 503, "full", "", true),
        (Refusal::Draining, 503, "draining", "", false),
        (Refusal::Rejected { retry_after: wait }, 429, "refused", "", true),
        (Refusal::Redirected { region: "west".into() }, 403, "refused", "", false),
        (Refusal::NoNode, 503, "unavailable", "", true),
        (Refusal::NotOpened { node: "n".into() }, 503, "unavailable", "", true),
    ];
    for (refusal, status, code, field, again) in cases {
        let asking = world.ask("POST /v1/sessions", OFFER);
        let Request::Offer { reply, .. } = world.request() else { panic!("offer") };
        reply.send(Err(refusal.clone())).unwrap();
        let (found, body) = asking.answer();
        let error = &body["error"];
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{refusal:?}");
        assert_eq!(error["field"].as_str().unwrap_or(""), field, "{refusal:?}");
        assert_eq!(error["retry_after_ms"].is_u64(), again, "{refusal:?}");
        if code == "refused" && again {
            assert!((1_000..=1_500).contains(&error["retry_after_ms"].as_u64().unwrap()));
        }
    }
}

#[test]
fn a_repeated_offer_is_opened_once() {
    let mut world = World::start();
    let key = "POST /v1/sessions\nidempotency-key: k1";
    let first = world.ask(key, OFFER);
    let Request::Offer { reply, .. } = world.request() else { panic!("offer") };
    let second = world.ask(key, OFFER);
    reply.send(Ok(opened(17))).unwrap();
    let answers = [first.answer(), second.answer(), world.ask(key, OFFER).answer()];
    assert_eq!(
        answers.map(|(status, body)| (status, body["id"].clone())),
        [17, 17, 17].map(|id| (201, json!(format!("s{id}"))))
    );
    assert!(world.requests.try_recv().is_err());
    let (status, body) = world.ask(key, &OFFER.replace("room-1", "room-2")).answer();
    assert_eq!((status, &body["error"]["field"]), (409, &json!("idempotency-key")));
}

#[test]
fn an_offer_whose_caller_hung_up_is_still_on_record() {
    let mut world = World::start();
    let key = "POST /v1/sessions\nidempotency-key: k1";
    let first = world.ask(key, OFFER);
    let Request::Offer { reply, .. } = world.request() else { panic!("offer") };
    drop(first);
    reply.send(Ok(opened(17))).unwrap();
    assert_eq!(world.ask(key, OFFER).answer().1["id"], "s17");
    assert!(world.requests.try_recv().is_err());
}

#[test]
fn an_offer_refused_for_now_may_be_tried_again_with_its_key() {
    let mut world = World::start();
    let key = "POST /v1/sessions\nidempotency-key: k1";
    let first = world.ask(key, OFFER);
    let Request::Offer { reply, .. } = world.request() else { panic!("offer") };
    reply.send(Err(Refusal::Full)).unwrap();
    assert_eq!(first.answer().0, 503);
    let again = world.ask(key, OFFER);
    let Request::Offer { reply, .. } = world.request() else { panic!("offer") };
    reply.send(Ok(opened(18))).unwrap();
    assert_eq!(again.answer().1["id"], "s18");
}

#[test]
fn control_that_does_not_answer_makes_the_api_unavailable() {
    let mut world = World::start();
    let asking = world.ask("GET /readyz", "");
    drop(world.request());
    assert_eq!(asking.answer().1["error"]["code"], "unavailable");
    drop(world.requests);
    let (_requests, none) = mpsc::channel(1);
    world.requests = none;
    assert_eq!(world.ask("POST /v1/sessions", OFFER).answer().0, 503);
    assert_eq!(world.ask("GET /livez", "").answer().0, 200);
}

#[test]
fn readiness_follows_the_gateway() {
    let mut world = World::start();
    for (state, ready) in [(view::State::Serving, 200), (view::State::Draining, 503)] {
        let asking = world.ask("GET /readyz", "");
        let Request::Status { reply } = world.request() else { panic!("status") };
        reply.send(status(state)).unwrap();
        assert_eq!(asking.answer().0, ready);
    }
}

#[test]
fn sessions_are_shown_page_by_page() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/sessions?after=s5&limit=10", "");
    let Request::Sessions { after, limit, reply } = world.request() else { panic!("sessions") };
    assert_eq!((after, limit), (Some(SessionId(5)), 10));
    reply.send(view::Sessions { sessions: vec![], next: Some("s15".into()) }).unwrap();
    assert_eq!(asking.answer().1, json!({"sessions": [], "next": "s15"}));
    for wrong in ["limit=0", "limit=1001", "limit=x", "page=2"] {
        let (status, body) = world.ask(&format!("GET /v1/sessions?{wrong}"), "").answer();
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad-request")), "{wrong}");
    }
}

#[test]
fn a_session_is_shown_and_closed_by_its_id() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/sessions/s17", "");
    let Request::Session { session, reply } = world.request() else { panic!("session") };
    assert_eq!(session, SessionId(17));
    reply.send(None).unwrap();
    assert_eq!(asking.answer().0, 404);
    for (result, right) in [(Ok(()), 204), (Err(Impossible::NoSuchSession), 404)] {
        let asking = world.ask("DELETE /v1/sessions/s17", "");
        let Request::Close { session, reply } = world.request() else { panic!("close") };
        assert_eq!(session, SessionId(17));
        reply.send(result).unwrap();
        assert_eq!(asking.answer().0, right);
    }
    for wrong in ["17", "s", "s-1", "x17"] {
        assert_eq!(world.ask(&format!("DELETE /v1/sessions/{wrong}"), "").answer().0, 404);
    }
}

#[test]
fn rooms_move_and_nodes_drain_by_name() {
    let mut world = World::start();
    let asking = world.ask("POST /v1/rooms/a%2Fb:c:move", r#"{"node": "east-a1"}"#);
    let Request::MoveRoom { room, node, reply } = world.request() else { panic!("move") };
    assert_eq!((&*room, &*node), ("a/b:c", "east-a1"));
    reply.send(Err(Impossible::NodeUnfit)).unwrap();
    assert_eq!(asking.answer().0, 409);
    for (verb, right) in [("drain", Drain::Begin), ("undrain", Drain::End)] {
        let asking = world.ask(&format!("POST /v1/nodes/east-a1:{verb}"), "");
        let Request::DrainNode { node, drain, reply } = world.request() else { panic!("drain") };
        assert_eq!((&*node, drain), ("east-a1", right));
        reply.send(Ok(())).unwrap();
        assert_eq!(asking.answer().0, 204);
    }
    for wrong in ["/v1/nodes/east-a1", "/v1/nodes/east-a1:kill", "/v1/rooms/r:drain"] {
        let (status, body) = world.ask(&format!("POST {wrong}"), "{}").answer();
        assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")), "{wrong}");
    }
    assert_eq!(world.ask("POST /v1/rooms/r:move", "{}").answer().0, 400);
}

#[test]
fn a_policy_is_pushed_with_its_bytes_and_rolled_back() {
    let mut world = World::start();
    let wasm = "\0asm".repeat(100_000);
    let asking = world.ask("PUT /v1/policies/call/routing?settings=%7B%22a%22%3A1%7D", &wasm);
    let Request::PushPolicy { policy, bytes, settings, reply } = world.request() else {
        panic!("push")
    };
    assert_eq!(policy, PolicyName { set: "call".into(), hook: Hook::Routing });
    assert_eq!((bytes.len(), settings), (wasm.len(), Some(json!({"a": 1}))));
    reply.send(Some(rollout(view::RolloutOutcome::Refused))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["outcome"]), (400, &json!("refused")));

    let asking = world.ask("POST /v1/policies/call/routing:rollback", "");
    let Request::RollbackPolicy { reply, .. } = world.request() else { panic!("rollback") };
    reply.send(Some(rollout(view::RolloutOutcome::RolledBack))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["outcome"]), (200, &json!("rolled-back")));

    let asking = world.ask("PUT /v1/policies/none/routing", "x");
    let Request::PushPolicy { reply, .. } = world.request() else { panic!("push") };
    reply.send(None).unwrap();
    assert_eq!(asking.answer().0, 404);
    for (wrong, body, right) in [
        ("PUT /v1/policies/call/steering", "x", 404),
        ("PUT /v1/policies/call/routing", "", 400),
        ("PUT /v1/policies/call/routing?settings=%7B", "x", 400),
        ("POST /v1/policies/call/routing:promote", "", 404),
    ] {
        assert_eq!(world.ask(wrong, body).answer().0, right, "{wrong}");
    }
}

#[test]
fn what_happens_is_told_to_those_who_listen() {
    let world = World::start();
    let mut listening = world.ask("GET /v1/events", "");
    assert_eq!(listening.status(), 200);
    let notice = Notice::Draining { at_us: 5, node: Some("east-a1".into()), draining: true };
    world.notices.send(Arc::new(notice)).unwrap();
    assert_eq!(listening.find("event:"), "event: draining");
    let data = listening.find("data:");
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data, json!({"at_us": 5, "node": "east-a1", "draining": true}));
    drop(world.thread);
    assert_eq!(listening.end(), 0, "the stream ends with the API");
}

#[test]
fn listeners_are_bounded_and_their_places_come_back() {
    let world = World::start();
    let mut all: Vec<_> = (0..64).map(|_| world.ask("GET /v1/events", "")).collect();
    assert!(all.iter_mut().all(|listening| listening.status() == 200));
    let (status, body) = world.ask("GET /v1/events", "").answer();
    assert_eq!((status, &body["error"]["code"]), (503, &json!("unavailable")));
    drop(all);
    // Until the API has seen that they hung up.
    while world.ask("GET /v1/events", "").status() != 200 {}
}

#[test]
fn strangers_on_tcp_are_asked_for_the_token() {
    let mut world = World::start();
    let address = world.thread.address.unwrap();
    let tcp = |head: &str| Asking::at(TcpStream::connect(address).unwrap(), head, "");
    for wrong in ["", "\nauthorization: Bearer wrong", "\nauthorization: Basic secret"] {
        for path in ["GET /v1/nodes", "GET /livez", "GET /none"] {
            let (status, body) = tcp(&format!("{path}{wrong}")).answer();
            assert_eq!((status, &body["error"]["code"]), (401, &json!("unauthorized")));
        }
    }
    let asking = tcp("GET /v1/nodes\nauthorization: Bearer secret");
    let Request::Nodes { reply } = world.request() else { panic!("nodes") };
    reply.send(vec![]).unwrap();
    assert_eq!(asking.answer(), (200, json!({"nodes": []})));
}

#[test]
fn what_is_not_there_is_said_in_json_too() {
    let world = World::start();
    let (status, body) = world.ask("GET /v2", "").answer();
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")));
    let (status, body) = world.ask("DELETE /v1/nodes", "").answer();
    assert_eq!((status, &body["error"]["code"]), (405, &json!("method-not-allowed")));
}

#[test]
fn metrics_are_what_telemetry_says() {
    let world = World::start();
    assert_eq!(world.ask("GET /metrics", "").text(), "evenkeel_sessions 3\n");
}

#[test]
fn the_socket_is_its_owners_and_one_gateways() {
    let world = World::start();
    let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = || {
        let (handle, _requests, _notices) = Handle::channel();
        let settings = Settings { socket: world.socket.clone(), tcp: None };
        start(settings, handle, Box::new(String::new))
    };
    assert!(again().unwrap_err().to_string().contains("another gateway"));
    assert_eq!(world.ask("GET /livez", "").answer().0, 200, "it still is the first one's");
}

#[test]
fn a_dead_gateways_socket_is_replaced_and_another_file_is_not() {
    let path = socket_path();
    let (handle, _requests, _notices) = Handle::channel();
    let settings = Settings { socket: path.clone(), tcp: None };
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let thread = start(settings.clone(), handle.clone(), Box::new(String::new)).unwrap();
    UnixStream::connect(&path).unwrap();
    thread.shut_down();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    start(settings, handle, Box::new(String::new)).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
}

struct World {
    thread: Thread,
    socket: PathBuf,
    requests: mpsc::Receiver<Request>,
    notices: broadcast::Sender<Arc<Notice>>,
}

impl World {
    fn start() -> World {
        let (handle, requests, notices) = Handle::channel();
        let socket = socket_path();
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let tcp = Some(Tcp { address, token: "secret".into() });
        let settings = Settings { socket: socket.clone(), tcp };
        let metrics = Box::new(|| "evenkeel_sessions 3\n".to_owned());
        let thread = start(settings, handle, metrics).unwrap();
        World { thread, socket, requests, notices }
    }

    fn ask(&self, head: &str, body: &str) -> Asking<UnixStream> {
        Asking::at(UnixStream::connect(&self.socket).unwrap(), head, body)
    }

    fn request(&mut self) -> Request {
        self.requests.blocking_recv().unwrap()
    }
}

/// A request that was sent: method and path, then headers, one to a line.
struct Asking<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Asking<S> {
    fn at(mut stream: S, head: &str, body: &str) -> Asking<S> {
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        let length = body.len();
        write!(
            stream,
            "{line} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n"
        )
        .unwrap();
        // A body that is refused before it is read may end with a broken pipe.
        let _ = stream.write_all(body.as_bytes());
        Asking { stream: BufReader::new(stream) }
    }

    fn status(&mut self) -> u16 {
        let line = self.find("HTTP/1.1");
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next line that starts so.
    fn find(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "no {start}");
            if line.starts_with(start) {
                return line.trim_end().to_owned();
            }
        }
    }

    fn whole(mut self) -> (u16, String) {
        let status = self.status();
        let mut rest = Vec::new();
        // After the whole answer the API may reset what it did not read.
        let _ = self.stream.read_to_end(&mut rest);
        let rest = String::from_utf8(rest).unwrap();
        let (_, body) = rest.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    fn answer(self) -> (u16, Value) {
        let (status, body) = self.whole();
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    fn text(self) -> String {
        self.whole().1
    }

    /// Bytes until the stream ends.
    fn end(&mut self) -> usize {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest.iter().filter(|byte| !byte.is_ascii_whitespace()).count()
    }
}

const OFFER: &str = r#"{"scenario": "call", "room": "room-1", "ingress": {"quic": {}},
    "media": [{"kind": "audio",
               "payload_types": [{"payload_type": 111, "codec": "opus", "clock_rate": 48000}]}]}"#;

fn opened(number: u64) -> view::Opened {
    let hop = view::Hop {
        node: "east-a1".into(),
        region: "east".into(),
        zone: "a".into(),
        incarnation: 1,
    };
    let quic = view::Quic {
        addresses: vec![(Ipv4Addr::LOCALHOST, 4433).into()],
        alpn: "roq-14",
        certificate_sha256: "ab".repeat(32),
        flow_to_gateway: ((1u64 << 62) - 1).to_string(),
        flow_from_gateway: "7".into(),
    };
    view::Opened {
        id: SessionId(number).to_string(),
        room: "room-1".into(),
        scenario: "call".into(),
        udp: None,
        quic: Some(quic),
        route: vec![hop],
        decided_by: BTreeMap::from([("routing", "native".to_owned())]),
    }
}

fn status(state: view::State) -> view::Status {
    view::Status {
        state,
        version: "0.1.0",
        uptime_ms: 1,
        sessions: 0,
        rooms: 0,
        nodes: BTreeMap::new(),
        counters: BTreeMap::new(),
    }
}

fn rollout(outcome: view::RolloutOutcome) -> view::Rollout {
    view::Rollout {
        outcome,
        policy: "call/routing".into(),
        revision: None,
        previous: None,
        reason: Some("it imports a clock".into()),
        activate_us: 0,
    }
}

fn socket_path() -> PathBuf {
    static EVER: AtomicUsize = AtomicUsize::new(0);
    let number = EVER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("evenkeel-api-{}-{number}.sock", std::process::id()))
}
