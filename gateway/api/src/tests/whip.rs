//! WHIP and WHEP: tokens, offers, changes and ends of sessions, pages of other origins, TLS.

use std::net::{SocketAddr, TcpStream};
use std::time::{Instant, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use evenkeel_config::token::{TokenKeys, TokenRefusal};
use evenkeel_config::{GatewayConfig, IceServer, IceServerLogin, WebrtcSettings};
use evenkeel_control::history::{RatableSession, SessionHistory};
use evenkeel_control::samples::closed_session;
use evenkeel_control::{IceFragments, Inherited, LaterOffer, SessionView};
use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_handover::RequestGate;
use evenkeel_media::probe::{PathMeasurement, ProbeTransport};
use evenkeel_model::{Advice, AdviceKind, CloseReason, Latency, OfferRefusal, PathSegment};
use evenkeel_telemetry::Telemetry;
use ring::hmac;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::probe_results::sign;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

const CHROMIUM: &str = include_str!("../../../../tests/fuzz/corpus/sdp_offer/chromium");
const VIEWER: &str = include_str!("../../../../tests/fuzz/corpus/sdp_offer/whep-recvonly");

const ORIGIN: &str = "https://live.example.org";

const SDP: &str = "content-type: application/sdp";
const FRAGMENT: &str = "content-type: application/trickle-ice-sdpfrag";

/// A gateway with `[webrtc]`. The test plays its control.
struct WhipWorld {
    world: World,
    address: SocketAddr,
    telemetry: Telemetry,
}

impl WhipWorld {
    fn start() -> WhipWorld {
        let credential = SecretFile::new(b"0123456789abcdef".to_vec());
        WhipWorld::with(WebrtcSettings {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            certificate: None,
            host: None,
            token_keys: TokenKeys::read(SECRET).unwrap(),
            origins: vec![ORIGIN.into()],
            ice_servers: vec![
                IceServer { url: "stun:stun.example.org".into(), login: None },
                IceServer {
                    url: "turn:turn.example.org?transport=udp".into(),
                    login: Some(IceServerLogin { username: "user".into(), credential }),
                },
            ],
        })
    }

    fn with(settings: WebrtcSettings) -> WhipWorld {
        let (handle, requests, events) = handle(64);
        let socket = socket_path();
        let telemetry =
            Telemetry::start(&GatewayConfig::load(None, None, &[]).unwrap(), "test").unwrap();
        let admin = admin(socket.clone(), None);
        let mut api = bind(admin, Some(settings), &mut Inherited::default()).unwrap();
        api.instruments = Some(telemetry.instruments());
        let ends = api.webrtc_certificate().and_then(WebrtcCertificate::ends);
        let credential = ends.map(|ends| CredentialEnd { credential: "webrtc-certificate", ends });
        let credentials = credential.into_iter().collect();
        let thread = api.serve(handle.clone(), Box::new(|_| String::new()), credentials).unwrap();
        thread.open();
        let address = thread.webrtc.unwrap();
        let world = World { thread, handle, socket, requests, events };
        WhipWorld { world, address, telemetry }
    }

    /// Method and path, then headers, with a token.
    fn ask(&self, head: &str, token: &str, body: &str) -> Asking<TcpStream> {
        let (line, headers) = head.split_once('\n').unwrap_or((head, "x: y"));
        let head = format!("{line}\nauthorization: Bearer {token}\r\n{headers}");
        Asking::at(TcpStream::connect(self.address).unwrap(), &head, body)
    }

    fn post(&self, path: &str, token: &str, sdp: &str) -> Asking<TcpStream> {
        self.ask(&format!("POST {path}\n{SDP}"), token, sdp)
    }

    /// Opens session 17 by WHIP, and returns its URL and `etag`.
    fn opened(&mut self) -> (String, String) {
        let mut asking = self.post("/whip/live/stage", &token(&claims()), CHROMIUM);
        self.accept();
        assert_eq!(asking.status(), 201);
        let value = |line: String| line.split_once(": ").unwrap().1.to_owned();
        let location = value(asking.find("location:"));
        (location, value(asking.find("etag:")))
    }

    /// Accepts the next offer as session 17.
    fn accept(&mut self) -> Box<evenkeel_control::OfferedSession> {
        let ControlRequest::Offer(wanted, reply) = self.world.request() else { panic!("offer") };
        let ice = IceAnswer {
            ufrag: "gate".into(),
            password: "a22characterpassword22".into(),
            certificate_sha256: [7; 32],
            announced: None,
        };
        let addresses = vec![(Ipv4Addr::LOCALHOST, 5004).into()];
        let ingress = IngressAnswer::Udp { addresses, rtcp: Vec::new(), ice: Some(ice) };
        reply.send(Ok(SessionAnswer { ingress, ..opened(17) })).unwrap();
        wanted
    }

    /// Answers the next question about session 17.
    fn show(&mut self, lives: bool) {
        self.show_advised(lives, None);
    }

    fn show_advised(&mut self, lives: bool, advice: Option<Advice>) {
        let ControlRequest::Session(SessionId(17), reply) = self.world.request() else {
            panic!("session")
        };
        let trace = self.world.handle.traces.of(SessionId(17), None);
        let ice = Some(IceFragments { gateway: "gate".into(), client: "Zp4k".into() });
        let mut view = SessionView { trace, ice, ..views::session(17) };
        view.state.advice = advice;
        reply.send(lives.then_some(view)).unwrap();
    }

    fn asks_nothing(&mut self) -> bool {
        self.world.requests.try_recv().is_err()
    }

    fn refused(&self, reason: &str) -> u64 {
        let text = self.telemetry.prometheus().render();
        let lines = text.lines().filter(|line| {
            line.starts_with("evenkeel_webrtc_tokens_refused_total{")
                && line.contains(&format!("\"{reason}\""))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({
        "scenario": "live", "room": "stage", "direction": "publish", "jti": "t1", "exp": now() + 60,
        "labels": {"region": "east"}, "latency": "200ms",
    })
}

fn changed(claim: &str, value: impl Into<Value>) -> String {
    let mut claims = claims();
    claims[claim] = value.into();
    token(&claims)
}

fn token(claims: &Value) -> String {
    signed(&json!({"alg": "HS256"}), claims, SECRET)
}

fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let [header, claims] =
        [header, claims].map(|it| BASE64URL_NOPAD.encode(it.to_string().as_bytes()));
    let message = format!("{header}.{claims}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

#[test]
fn whip_offer_opens_a_session_that_sends_to_the_gateway() {
    let mut whip = WhipWorld::start();
    let mut asking = whip.post("/whip/live/stage", &token(&claims()), CHROMIUM);
    let wanted = whip.accept();
    assert_eq!((&*wanted.scenario, &*wanted.room), ("live", "stage"));
    assert_eq!(&*wanted.labels, [("region".into(), "east".into())]);
    assert_eq!(wanted.media.latency, Latency(200));
    assert_eq!(wanted.caller, None);
    let Some(SrtpKeying::Dtls { answered, .. }) = wanted.srtp else { panic!("no WebRTC client") };
    assert_eq!((answered.may_send, answered.may_receive), (true, false));
    let answer = asking.client.answer().unwrap().to_string();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    for line in [
        "content-type: application/sdp",
        "location: /whip/live/stage/s17-",
        "etag: \"",
        "accept-patch: application/trickle-ice-sdpfrag",
        "link: <stun:stun.example.org>; rel=\"ice-server\"\r\n",
        "link: <turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"user\"; \
         credential=\"0123456789abcdef\"; credential-type=\"password\"",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(body.contains("a=recvonly\r\n") && body.contains("a=ice-lite\r\n"), "{body}");
    assert!(!body.contains("a=sendrecv") && !body.contains("a=sendonly"), "{body}");
}

#[test]
fn whep_offer_opens_a_session_that_receives() {
    let mut whip = WhipWorld::start();
    let token = changed("direction", "view");
    let asking = whip.post("/whep/live/stage", &token, VIEWER);
    let Some(SrtpKeying::Dtls { answered, .. }) = whip.accept().srtp else {
        panic!("no WebRTC client")
    };
    assert_eq!((answered.may_send, answered.may_receive), (false, true));
    let (status, body) = asking.whole();
    assert_eq!(status, 201);
    assert!(body.contains("a=sendonly\r\n") && !body.contains("a=recvonly"), "{body}");
}

#[test]
fn names_in_paths_are_decoded() {
    let mut whip = WhipWorld::start();
    let mut asking = whip.post("/whip/live/a%2Fb%20%C3%A9", &changed("room", "a/b é"), CHROMIUM);
    assert_eq!(&*whip.accept().room, "a/b é");
    assert_eq!(asking.status(), 201);
    assert!(asking.find("location:").starts_with("location: /whip/live/a%2Fb%20%C3%A9/s17-"));
}

#[test]
fn offer_in_the_wrong_direction_is_refused() {
    let mut whip = WhipWorld::start();
    for (path, direction, sdp, expected) in [
        ("/whip/live/stage", "publish", VIEWER, "a=sendonly"),
        ("/whep/live/stage", "view", &CHROMIUM.replace("a=sendrecv", "a=sendonly"), "a=recvonly"),
    ] {
        let (status, body) = whip.post(path, &changed("direction", direction), sdp).answer();
        assert_eq!(status, 400);
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    assert!(whip.asks_nothing());
}

#[test]
fn repeated_token_gets_the_same_answer_to_the_same_offer() {
    let mut whip = WhipWorld::start();
    let token = token(&claims());
    let first = whip.post("/whip/live/stage", &token, CHROMIUM);
    whip.accept();
    let answer = first.whole();
    assert_eq!(answer.0, 201);
    assert_eq!(whip.post("/whip/live/stage", &token, CHROMIUM).whole(), answer);
    let other = CHROMIUM.replace("a=ice-ufrag:", "a=ice-ufrag:x");
    let (status, body) = whip.post("/whip/live/stage", &token, &other).answer();
    assert_eq!((status, &body["error"]["code"]), (409, &json!("conflict")));
    // The same id in another token is the same token.
    let again = changed("exp", now() + 90);
    assert_eq!(whip.post("/whip/live/stage", &again, &other).status(), 409);
    assert!(whip.asks_nothing());
    assert_eq!(whip.refused("replayed"), 2);
}

#[test]
fn refused_offer_does_not_use_up_the_token() {
    let mut whip = WhipWorld::start();
    let token = token(&claims());
    let (status, body) = whip.post("/whip/live/stage", &token, "v=0\r\nnonsense").answer();
    assert_eq!((status, &body["error"]["code"]), (400, &json!("bad-request")));
    assert!(body["error"].get("field").is_none(), "{body}");
    let full = whip.post("/whip/live/stage", &token, CHROMIUM);
    let ControlRequest::Offer(_, reply) = whip.world.request() else { panic!("offer") };
    let retry_after = Duration::from_secs(2);
    reply.send(Err(ControlError::Refused(OfferRefusal::Full { retry_after }))).unwrap();
    let (status, body) = full.answer();
    assert_eq!((status, &body["error"]["retry_after_ms"]), (503, &json!(2_000)));
    let mut opened = whip.post("/whip/live/stage", &token, CHROMIUM);
    whip.accept();
    assert_eq!(opened.status(), 201);
}

/// An offer with the result of a probe.
fn probed(whip: &WhipWorld, token: &str, result: &str) -> Asking<TcpStream> {
    let head = format!("POST /whip/live/stage\n{SDP}\r\nevenkeel-probe: {result}");
    whip.ask(&head, token, CHROMIUM)
}

/// The result of the probe with this id, on a path of 30 ms without loss.
fn probe_result(whip: &WhipWorld, id: &str, signed_at: SystemTime) -> String {
    let times = [Some(30_000); ProbeTransport::Udp.packets()];
    let path = PathMeasurement::new(ProbeTransport::Udp, |_| true, &times);
    sign(&whip.world.handle.session_urls, id, &path, signed_at)
}

#[test]
fn offer_carries_the_result_of_a_probe_once() {
    let mut whip = WhipWorld::start();
    let result = probe_result(&whip, "probe-1", SystemTime::now());
    let mut asking = probed(&whip, &token(&claims()), &result);
    let labels = whip.accept().labels;
    for (name, value) in [("region", "east"), ("probe-r", "91"), ("probe-rtt", "30")] {
        assert!(labels.iter().any(|it| (&*it.0, &*it.1) == (name, value)), "{name}: {labels:?}");
    }
    assert_eq!(asking.status(), 201);
    let (status, body) = probed(&whip, &changed("jti", "t2"), &result).answer();
    assert_eq!((status, &body["error"]["field"]), (400, &json!("evenkeel-probe")), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("once"), "{body}");
    assert!(whip.asks_nothing());
}

#[test]
fn refused_result_does_not_use_up_the_token() {
    let mut whip = WhipWorld::start();
    let token = token(&claims());
    let fresh = probe_result(&whip, "probe-1", SystemTime::now());
    let old = probe_result(&whip, "probe-2", SystemTime::now() - Duration::from_secs(61));
    for (result, reason) in [
        (&*old, "expired"),
        (&*fresh.replace(".91.", ".93."), "signed"),
        ("caf\u{e9}", "visible ASCII"),
    ] {
        let (status, body) = probed(&whip, &token, result).answer();
        assert_eq!((status, &body["error"]["field"]), (400, &json!("evenkeel-probe")), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(reason), "{body}");
    }
    assert!(whip.asks_nothing());
    let mut asking = whip.post("/whip/live/stage", &token, CHROMIUM);
    whip.accept();
    assert_eq!(asking.status(), 201);
}

#[test]
fn refused_offers_use_up_the_rate_of_their_token() {
    let mut whip = WhipWorld::start();
    let token = token(&claims());
    let mut refused = 0;
    let mut limited = loop {
        let mut asking = whip.post("/whip/live/stage", &token, "v=0\r\n");
        match asking.status() {
            400 => refused += 1,
            status => break (status, asking),
        }
    };
    assert!(refused >= 8 && limited.0 == 429, "{refused} refused, then {}", limited.0);
    limited.1.find("retry-after: 1");
    assert_eq!(whip.refused("rate"), 1);
    let mut other = whip.post("/whip/live/stage", &changed("jti", "t2"), CHROMIUM);
    whip.accept();
    assert_eq!(other.status(), 201);
}

#[test]
fn refused_tokens_are_counted_by_reason() {
    let mut whip = WhipWorld::start();
    let none = signed(&json!({"alg": "none"}), &claims(), SECRET);
    let (unsigned, _) = none.rsplit_once('.').unwrap();
    for (token, status, reason) in [
        (format!("{unsigned}."), 401, "malformed"),
        (none.clone(), 401, "malformed"),
        ("secret".to_owned(), 401, "malformed"),
        (changed("jti", Value::Null), 401, "malformed"),
        (signed(&json!({"alg": "HS384"}), &claims(), SECRET), 401, "algorithm"),
        (signed(&json!({"alg": "HS256"}), &claims(), b"another"), 401, "signature"),
        (changed("exp", now() - 60), 401, "expired"),
        (changed("nbf", now() + 60), 401, "early"),
        (changed("direction", "view"), 403, "direction"),
        (changed("scenario", "call"), 403, "scenario"),
        (changed("room", "stage2"), 403, "room"),
    ] {
        let before = whip.refused(reason);
        let (found, body) = whip.post("/whip/live/stage", &token, CHROMIUM).answer();
        let code = if status == 401 { "unauthorized" } else { "refused" };
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)), "{reason}: {body}");
        assert_eq!(whip.refused(reason), before + 1, "{reason}");
    }
    let head = format!("POST /whip/live/stage\n{SDP}");
    let stream = || TcpStream::connect(whip.address).unwrap();
    let mut asking = Asking::at(stream(), &head, CHROMIUM);
    assert_eq!(asking.status(), 401);
    asking.find("www-authenticate: Bearer");
    assert_eq!(whip.refused("missing"), 1);
    let names: Vec<_> = TokenRefusal::NAMES.iter().filter(|name| whip.refused(name) == 0).collect();
    assert_eq!(names, [&"replayed", &"rate", &"sessions"]);
    assert!(whip.asks_nothing());
}

#[test]
fn bodies_and_types_are_checked_after_the_token() {
    let mut whip = WhipWorld::start();
    let token = token(&claims());
    let large = format!("v=0\r\n{}", "a=x\r\n".repeat(1 << 18));
    let (status, body) = whip.post("/whip/live/stage", &token, &large).answer();
    assert_eq!((status, &body["error"]["code"]), (413, &json!("too-large")));
    assert_eq!(whip.post("/whip/live/stage", "wrong", &large).status(), 401);
    let ask = |headers: &str| {
        whip.ask(&format!("POST /whip/live/stage\n{headers}"), &token, CHROMIUM).status()
    };
    assert_eq!(ask("content-type: application/json"), 415);
    assert_eq!(ask("x: y"), 415);
    assert_eq!(ask(&format!("{SDP}\r\naccept: text/html, application/json")), 406);
    assert_eq!(ask(&format!("{SDP}\r\naccept: application/sdp;q=0")), 406);
    assert!(whip.asks_nothing());
    for accept in ["*/*", "text/html, application/*;q=0.1", "Application/SDP"] {
        let token = changed("jti", accept.len().to_string());
        let head = format!("POST /whip/live/stage\n{SDP}; charset=utf-8\r\naccept: {accept}");
        let mut asking = whip.ask(&head, &token, CHROMIUM);
        whip.accept();
        assert_eq!(asking.status(), 201, "{accept}");
    }
}

#[test]
fn internal_reasons_are_not_shown_to_clients() {
    let mut whip = WhipWorld::start();
    let retry_after = Duration::from_secs(2);
    let reason = "webhook 10.0.0.9: secret";
    for (number, (error, status)) in [
        (ControlError::NotOpened { node: NodeId(0), reason: reason.into() }, 503),
        (ControlError::Refused(OfferRefusal::NotOpened { node: NodeId(0), retry_after }), 503),
        (ControlError::Refused(OfferRefusal::Redirected(RegionId(1))), 403),
        (
            ControlError::Refused(OfferRefusal::PlacementRefused {
                reason: Some(reason.into()),
                retry_after,
            }),
            429,
        ),
        (ControlError::Refused(OfferRefusal::ScenarioOfRoom("secret".into())), 409),
        (ControlError::RoomFull { node: "east-a1".into(), most: 2 }, 409),
    ]
    .into_iter()
    .enumerate()
    {
        let token = changed("jti", number.to_string());
        let asking = whip.post("/whip/live/stage", &token, CHROMIUM);
        let ControlRequest::Offer(_, reply) = whip.world.request() else { panic!("offer") };
        reply.send(Err(error)).unwrap();
        let (found, body) = asking.answer();
        assert_eq!(found, status, "{body}");
        let text = body.to_string();
        for internal in ["east", "west", "10.0.0.9", "secret"] {
            assert!(!text.contains(internal), "{text}");
        }
        assert_eq!(body["error"]["request_id"].as_str().map(str::len), Some(16), "{body}");
        assert_eq!(
            body["error"]["retry_after_ms"].is_u64(),
            [429, 503].contains(&status),
            "{body}"
        );
    }
}

#[test]
fn unknown_scenario_is_not_found() {
    let mut whip = WhipWorld::start();
    let asking = whip.post("/whip/live/stage", &token(&claims()), CHROMIUM);
    let ControlRequest::Offer(_, reply) = whip.world.request() else { panic!("offer") };
    let refusal = OfferRefusal::UnknownScenario("live".into());
    reply.send(Err(ControlError::Refused(refusal))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")));
}

#[test]
fn session_ends_by_its_url_alone() {
    let mut whip = WhipWorld::start();
    let (location, _) = whip.opened();
    // The session outlives its token.
    let token = changed("exp", now() - 600);
    let ending = whip.ask(&format!("DELETE {location}"), &token, "");
    whip.show(true);
    let ControlRequest::Close(SessionId(17), reply) = whip.world.request() else { panic!("close") };
    reply.send(Ok(())).unwrap();
    assert_eq!(ending.whole().0, 200);

    let ending = whip.ask(&format!("DELETE {location}"), &token, "");
    whip.show(false);
    assert_eq!(ending.whole().0, 404, "it has ended");
    let last = location.chars().last().unwrap();
    let guessed = format!("{}{}", &location[..location.len() - 1], if last == '0' { 1 } else { 0 });
    for path in [&*guessed, "/whip/live/stage/s17", "/whip/live/stage/x"] {
        assert_eq!(whip.ask(&format!("DELETE {path}"), &token, "").whole().0, 404, "{path}");
    }
    let others = [changed("room", "other"), changed("direction", "view"), "none".to_owned()];
    for other in others {
        let status = whip.ask(&format!("DELETE {location}"), &other, "").status();
        assert!([401, 403].contains(&status), "{status}");
    }
    assert!(whip.asks_nothing());
}

#[test]
fn candidates_are_taken() {
    let mut whip = WhipWorld::start();
    let (location, etag) = whip.opened();
    let token = token(&claims());
    let same = fragment();
    let current = format!("{FRAGMENT}\r\nif-match: {etag}");
    for (headers, body, status) in [
        (current.clone(), &*same, 204),
        (format!("{FRAGMENT}\r\nif-match: *"), &*same, 204),
        (format!("{FRAGMENT}\r\nif-match: \"*\""), &*same, 204),
        (format!("{FRAGMENT}\r\nif-match: \"old\", {etag}"), "a=end-of-candidates\r\n", 204),
        (FRAGMENT.to_owned(), &*same, 428),
        (format!("{FRAGMENT}\r\nif-match: \"old\""), &*same, 412),
        (current, "nonsense", 400),
    ] {
        let asking = whip.ask(&format!("PATCH {location}\n{headers}"), &token, body);
        whip.show(true);
        let (found, text) = asking.whole();
        assert_eq!((found, text.is_empty()), (status, status == 204), "{headers} {body}: {text}");
    }
    let head = format!("PATCH {location}\n{SDP}");
    assert_eq!(whip.ask(&head, &token, &same).status(), 415);
    assert!(whip.asks_nothing());
}

/// Follows session 17 while this advice holds.
fn followed(whip: &mut WhipWorld, location: &str, advice: Option<Advice>) -> Asking<TcpStream> {
    let head = format!("GET {location}\naccept: text/event-stream\r\norigin: {ORIGIN}");
    let mut following = whip.ask(&head, &token(&claims()), "");
    whip.show(true);
    whip.show_advised(true, advice);
    assert_eq!(following.status(), 200);
    following
}

fn advised(kind: AdviceKind) -> CoreEvent {
    let advice = Advice { kind, cause: PathSegment::Downlink };
    let (room_name, scenario) = ("stage".into(), "live".into());
    CoreEvent::Advised { session: SessionId(17), room_name, scenario, advice }
}

fn ended(session: SessionId) -> CoreEvent {
    let closed = Box::new(closed_session(Instant::now()));
    let reason = CloseReason::Requested;
    CoreEvent::Closed { session, room: RoomId(1), room_name: "stage".into(), reason, closed }
}

#[test]
fn session_url_follows_advice_until_the_end() {
    let mut whip = WhipWorld::start();
    let (location, _) = whip.opened();
    let mut following = followed(&mut whip, &location, None);
    following.find(&format!("access-control-allow-origin: {ORIGIN}"));
    assert_eq!(following.notice("advice"), json!({"advice": "restored"}));
    whip.world.tell(advised(AdviceKind::AudioOnly), None);
    let right = json!({"advice": "audio-only", "cause": "downlink"});
    assert_eq!(following.notice("advice"), right);
    whip.world.tell(ended(SessionId(18)), None);
    whip.world.tell(advised(AdviceKind::Restored), None);
    let right = json!({"advice": "restored", "cause": "downlink"});
    assert_eq!(following.notice("advice"), right, "another session has ended");
    whip.world.tell(ended(SessionId(17)), None);
    following.end();
}

#[test]
fn newer_stream_replaces_the_older() {
    let mut whip = WhipWorld::start();
    let (location, _) = whip.opened();
    let holds = Advice { kind: AdviceKind::SwitchNetwork, cause: PathSegment::Uplink };
    let mut older = followed(&mut whip, &location, Some(holds));
    let right = json!({"advice": "switch-network", "cause": "uplink"});
    assert_eq!(older.notice("advice"), right);
    let mut newer = followed(&mut whip, &location, Some(holds));
    assert_eq!(newer.notice("advice"), right);
    older.end();
    whip.world.tell(advised(AdviceKind::LowerQuality), None);
    assert_eq!(newer.notice("advice")["advice"], "lower-quality");
}

#[test]
fn advice_is_for_the_holder_of_the_session_url() {
    let mut whip = WhipWorld::start();
    let (location, _) = whip.opened();
    let events = "accept: text/event-stream";
    let ask = |path: &str, token: &str, headers: &str| {
        whip.ask(&format!("GET {path}\n{headers}"), token, "").status()
    };
    assert_eq!(ask(&location, &token(&claims()), "accept: text/html"), 204);
    assert_eq!(ask(&location, "none", events), 401);
    assert_eq!(ask(&location, &changed("room", "other"), events), 403);
    assert_eq!(ask("/whip/live/stage/s17-00", &token(&claims()), events), 404);
    assert!(whip.asks_nothing());
}

#[test]
fn session_is_rated_by_its_url_after_its_end() {
    let mut whip = WhipWorld::start();
    let (location, _) = whip.opened();
    let history = Arc::new(SessionHistory::default());
    history.note_ended(RatableSession {
        session: SessionId(17),
        scenario: "live".into(),
        node: None,
        decided_by: ["native".to_owned(), "native".to_owned()],
        mean_r_centi: None,
    });
    let token = changed("exp", now() - 600);
    let head = format!("POST {location}/feedback\ncontent-type: application/json");
    let mut rate = |feedback: Value| {
        let asking = whip.ask(&head, &token, &feedback.to_string());
        let ControlRequest::Explain(SessionId(17), reply) = whip.world.request() else {
            panic!("explain")
        };
        reply.send(None).unwrap();
        let ControlRequest::History(reply) = whip.world.request() else { panic!("history") };
        reply.send(Arc::clone(&history)).unwrap();
        asking.whole()
    };
    assert_eq!(rate(json!({"rating": 3})), (204, String::new()));
    assert_eq!(rate(json!({"rating": 4})).0, 409);
    let ratings = history.ratings();
    assert_eq!(ratings.iter().map(|it| it.rating).collect::<Vec<_>>(), [3]);
    let (status, body) = whip.ask(&head, &token, r#"{"rating": 9}"#).answer();
    assert_eq!((status, &body["error"]["field"]), (400, &json!("rating")));
    assert_eq!(whip.ask(&head, "none", r#"{"rating": 3}"#).status(), 401);
    let guessed = format!("POST {location}0/feedback\ncontent-type: application/json");
    assert_eq!(whip.ask(&guessed, &token, r#"{"rating": 3}"#).status(), 404);
    let plain = format!("POST {location}/feedback\ncontent-type: text/plain");
    assert_eq!(whip.ask(&plain, &token, r#"{"rating": 3}"#).status(), 415);
    assert!(whip.asks_nothing());
}

/// The credentials of Chromium's offer, as a fragment.
fn fragment() -> String {
    let lines = CHROMIUM.lines().filter(|line| line.starts_with("a=ice-"));
    let credentials: Vec<_> = lines.take(2).collect();
    format!("{}\r\na=end-of-candidates\r\n", credentials.join("\r\n"))
}

#[test]
fn other_credentials_restart_ice() {
    let mut whip = WhipWorld::start();
    let (location, etag) = whip.opened();
    let other = fragment().replace("a=ice-ufrag:", "a=ice-ufrag:x");
    let head = format!("PATCH {location}\n{FRAGMENT}\r\nif-match: *");
    let mut asking = whip.ask(&head, &token(&claims()), &other);
    whip.show(true);
    let ControlRequest::Renegotiate(later, reply) = whip.world.request() else { panic!("restart") };
    let wanted = LaterOffer { session: SessionId(17), ufrag: "xZp4k".into(), streams: None };
    assert_eq!(*later, wanted);
    let ice = IceAnswer {
        ufrag: "next".into(),
        password: "another22characterpass".into(),
        certificate_sha256: [7; 32],
        announced: None,
    };
    let addresses = vec![(Ipv4Addr::LOCALHOST, 5004).into()];
    let answer = IngressAnswer::Udp { addresses, rtcp: Vec::new(), ice: Some(ice) };
    reply.send(Ok(answer)).unwrap();
    let text = asking.client.answer().unwrap().to_string();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(head.contains("etag: \"next\"\r\n") && !head.contains(&etag), "{head}");
    for line in [
        "a=ice-lite",
        "a=ice-ufrag:next",
        "a=ice-pwd:another22characterpass",
        "a=candidate:1 1 udp 2130706431 127.0.0.1 5004 typ host",
    ] {
        assert!(body.lines().any(|other| other == line), "{line} is not in {body}");
    }
}

#[test]
fn other_methods_and_paths_are_refused() {
    let whip = WhipWorld::start();
    let token = token(&claims());
    let ask = |head: &str| whip.ask(head, &token, "").whole().0;
    assert_eq!(ask("GET /whip/live/stage"), 204);
    assert_eq!(ask("PUT /whip/live/stage"), 405);
    assert_eq!(ask("PATCH /whip/live/stage"), 405);
    assert_eq!(ask("POST /whip/live/stage/s17-a-b"), 405);
    for path in ["/", "/whip/live", "/v1/sessions", "/v1/status", "/metrics", "/whap/live/stage"] {
        assert_eq!(ask(&format!("GET {path}")), 404, "{path}");
    }
}

#[test]
fn listed_origins_may_ask() {
    let whip = WhipWorld::start();
    let options = |origin: &str| {
        let head = format!(
            "OPTIONS /whip/live/stage\norigin: {origin}\r\naccess-control-request-method: POST"
        );
        let mut asking = Asking::at(TcpStream::connect(whip.address).unwrap(), &head, "");
        asking.client.answer().unwrap().to_string()
    };
    let allowed = options("https://live.example.org");
    for line in [
        "HTTP/1.1 200 OK\r\n",
        "accept-post: application/sdp\r\n",
        "access-control-allow-origin: https://live.example.org\r\n",
        "access-control-allow-methods: POST, PATCH, DELETE, OPTIONS\r\n",
        "access-control-allow-headers: authorization, content-type, if-match, evenkeel-probe\r\n",
        "vary: origin\r\n",
    ] {
        assert!(allowed.contains(line), "{line} is not in {allowed}");
    }
    for origin in ["https://evil.example.org", "https://live.example.org.evil", "null"] {
        let answer = options(origin);
        assert!(!answer.contains("access-control-"), "{answer}");
    }
    let head = "POST /whip/live/stage\norigin: https://live.example.org";
    let mut asking = whip.ask(head, "wrong", "");
    asking.find("access-control-allow-origin: https://live.example.org");
    asking.find("access-control-expose-headers: location, etag, link");
}

#[test]
fn tls_protects_requests() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = |key: &std::path::Path| WebrtcSettings {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        certificate: Some(evenkeel_config::CertificateFiles {
            chain: chain.clone(),
            key: key.into(),
        }),
        host: Some("localhost".into()),
        token_keys: TokenKeys::read(SECRET).unwrap(),
        origins: Vec::new(),
        ice_servers: Vec::new(),
    };
    let mut whip = WhipWorld::with(settings(&key));
    let asking = whip.world.ask("GET /v1/status", "");
    let ControlRequest::Status(reply) = whip.world.request() else { panic!("status") };
    reply.send(status("serving")).unwrap();
    let right = json!([{
        "credential": "webrtc-certificate", "ends_us": 67_090_118_400_000_000_u64,
        "ends": "4096-01-01 00:00 UTC",
    }]);
    assert_eq!(asking.answer().1["credentials"], right);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(client), name).unwrap();
    let stream = StreamOwned::new(connection, TcpStream::connect(whip.address).unwrap());
    let mut asking = Asking::at(stream, "GET /whip/live/stage", "");
    assert_eq!(asking.status(), 204);
    let plain = Asking::at(TcpStream::connect(whip.address).unwrap(), "GET /whip/live/stage", "");
    let (status, body) = plain.answer();
    let message = "found HTTP without TLS, expected `https://` at this address";
    assert_eq!((status, &body["error"]["message"]), (400, &json!(message)));

    let bound = bind(admin(socket_path(), None), Some(settings(&chain)), &mut Inherited::default());
    let refused = bound.err().unwrap().to_string();
    assert!(
        refused.contains("[webrtc]: cannot read") && refused.contains("chain.pem"),
        "{refused}"
    );
}
