//! Offers: the request that reaches control, the answer, and repetitions.

use data_encoding::HEXLOWER;
use evenkeel_control::CallerSpan;
use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_model::{Impossible, IngressProtocol, OfferRefusal, StreamKind};

use super::*;

const CHROMIUM: &str = include_str!("../../../../tests/fuzz/corpus/sdp_offer/chromium");

#[test]
fn offer_reaches_control_and_is_answered() {
    let mut world = World::start();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = format!("traceparent: {trace}\r\ntracestate: a=1\r\ntracestate: b=2");
    let asking = world.ask(&format!("POST /v1/sessions\n{headers}"), OFFER);
    let ControlRequest::Offer(wanted, reply) = world.request() else { panic!("offer") };
    assert_eq!((&*wanted.scenario, &*wanted.room), ("call", "room-1"));
    assert_eq!(wanted.ingress, IngressProtocol::Quic);
    let caller = CallerSpan::parse(trace).map(|it| it.with_state(["a=1", "b=2"].into_iter()));
    assert!(caller.is_some() && wanted.caller == caller);
    reply.send(Ok(opened(17))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!(status, 201);
    let trace = world.handle.traces.of(SessionId(17), caller.as_ref());
    let right = json!({
        "id": "s17", "trace_id": HEXLOWER.encode(&trace.trace_id), "room": "room-1", "scenario": "call",
        "quic": {
            "addresses": ["127.0.0.1:4433"], "alpn": "roq-14",
            "certificate_sha256": "ab".repeat(32),
            "flow_to_gateway": "4611686018427387903", "flow_from_gateway": "7",
        },
        "route": [{"node": "east-a1", "region": "east", "zone": "a", "incarnation": 1}],
        "decided_by": {"admission": "native", "routing": "call/routing@5f0c5f0c5f0c"},
    });
    assert_eq!(body, right);
}

#[test]
fn later_offer_reaches_control_and_is_answered() {
    let mut world = World::start();
    let put = |world: &World, body: &Value| world.ask("PUT /v1/sessions/s17", &body.to_string());
    let answer = || IngressAnswer::Udp {
        addresses: vec![(Ipv4Addr::LOCALHOST, 5004).into()],
        rtcp: Vec::new(),
        ice: Some(IceAnswer {
            ufrag: "EsAw".into(),
            password: "a22characterpassword22".into(),
            certificate_sha256: [7; 32],
            announced: None,
        }),
    };
    let asking = put(&world, &json!({"webrtc": {"offer": CHROMIUM, "direction": "view"}}));
    let ControlRequest::Renegotiate(later, reply) = world.request() else { panic!("offer") };
    assert_eq!((later.session, &*later.ufrag), (SessionId(17), "Zp4k"));
    let SrtpKeying::Dtls { answered, .. } = later.streams.unwrap().keying else {
        panic!("no certificate")
    };
    assert!(!answered.may_send);
    reply.send(Ok(answer())).unwrap();
    let (status, body) = asking.answer();
    let sdp = body["webrtc"]["answer"].as_str().unwrap();
    assert!(status == 200 && sdp.contains("a=ice-ufrag:EsAw\r\n"), "{status} {sdp}");

    let asking = put(&world, &json!({"webrtc": {"ufrag": "Qq11"}}));
    let ControlRequest::Renegotiate(later, reply) = world.request() else { panic!("restart") };
    assert_eq!((&*later.ufrag, &later.streams), ("Qq11", &None));
    reply.send(Ok(answer())).unwrap();
    let ice = json!({
        "ufrag": "EsAw", "password": "a22characterpassword22", "addresses": ["127.0.0.1:5004"],
    });
    assert_eq!(asking.answer(), (200, json!({"id": "s17", "webrtc": {"ice": ice}})));

    for (error, status, field) in [
        (ControlError::NotWebrtc, 409, "webrtc"),
        (ControlError::OtherCertificate, 409, "webrtc.offer"),
        (ControlError::OpenedWithout(StreamKind::Video), 409, "webrtc.offer"),
        (ControlError::Impossible(Impossible::NoSuchSession), 404, ""),
    ] {
        let asking = put(&world, &json!({"webrtc": {"ufrag": "Qq11"}}));
        let ControlRequest::Renegotiate(_, reply) = world.request() else { panic!("restart") };
        reply.send(Err(error)).unwrap();
        let (found, body) = asking.answer();
        let at = body["error"]["field"].as_str().unwrap_or_default();
        assert_eq!((found, at), (status, field), "{body}");
    }
    for (body, field) in [
        (json!({"webrtc": {}}), "webrtc"),
        (json!({"webrtc": {"offer": CHROMIUM, "ufrag": "Qq11"}}), "webrtc"),
        (json!({"webrtc": {"offer": "v=0"}}), "webrtc.offer"),
        (json!({"webrtc": {"ufrag": "Qq11", "direction": "view"}}), "webrtc.direction"),
        (json!({"webrtc": {"ufrag": "x"}}), "webrtc.ufrag"),
    ] {
        let (status, answer) = put(&world, &body).answer();
        assert_eq!((status, &answer["error"]["field"]), (400, &json!(field)), "{body}: {answer}");
    }
}

#[test]
fn webtransport_answer_has_urls_and_hashes() {
    let mut world = World::start();
    let offer = OFFER.replace(r#""quic""#, r#""webtransport""#);
    let asking = world.ask("POST /v1/sessions", &offer);
    let ControlRequest::Offer(wanted, reply) = world.request() else { panic!("offer") };
    assert_eq!(wanted.ingress, IngressProtocol::WebTransport);
    reply.send(Ok(opened(17))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!(status, 201);
    let right = json!({
        "urls": ["https://127.0.0.1:4433/roq?token=4611686018427387903"],
        "certificates_sha256": ["01".repeat(32), "02".repeat(32)],
        "flow_to_gateway": "4611686018427387903", "flow_from_gateway": "7",
    });
    assert_eq!((&body["webtransport"], body.get("quic")), (&right, None));
}

#[test]
fn udp_answer_has_addresses_and_credentials() {
    let mut world = World::start();
    let asking = world.ask("POST /v1/sessions", OFFER);
    let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
    let ingress = IngressAnswer::Udp {
        addresses: [5004, 6004].map(|port| (Ipv4Addr::LOCALHOST, port).into()).into(),
        rtcp: [5005, 6005].map(|port| (Ipv4Addr::LOCALHOST, port).into()).into(),
        ice: Some(IceAnswer {
            ufrag: "EsAw".into(),
            password: "secret".into(),
            certificate_sha256: [7; 32],
            announced: None,
        }),
    };
    reply.send(Ok(SessionAnswer { ingress, ..opened(17) })).unwrap();
    let right = json!({
        "addresses": ["127.0.0.1:5004", "127.0.0.1:6004"],
        "rtcp": ["127.0.0.1:5005", "127.0.0.1:6005"],
        "ufrag": "EsAw", "password": "secret",
    });
    let (_, body) = asking.answer();
    assert_eq!((&body["udp"], body.get("quic")), (&right, None));
}

#[test]
fn sdp_offer_is_answered_with_sdp() {
    let mut world = World::start();
    let sdp = include_str!("../../../../tests/fuzz/corpus/sdp_offer/aiortc");
    let offer = json!({"scenario": "call", "room": "room-1", "webrtc": {"offer": sdp}});
    let asking = world.ask("POST /v1/sessions", &offer.to_string());
    let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
    let ingress = IngressAnswer::Udp {
        addresses: vec![(Ipv4Addr::LOCALHOST, 5004).into()],
        rtcp: Vec::new(),
        ice: Some(IceAnswer {
            ufrag: "EsAw".into(),
            password: "a22characterpassword22".into(),
            certificate_sha256: [7; 32],
            announced: None,
        }),
    };
    reply.send(Ok(SessionAnswer { ingress, ..opened(17) })).unwrap();
    let (_, body) = asking.answer();
    let answer = body["webrtc"]["answer"].as_str().unwrap();
    assert!(answer.contains(" 127.0.0.1 5004 typ host"), "{answer}");
    assert_eq!((body.get("udp"), body.get("srtp")), (None, None));
}

#[test]
fn repeated_traceparent_is_ignored() {
    let mut world = World::start();
    let valid = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let twice = format!("{valid}\r\n{valid}");
    for headers in ["x: y", "traceparent: a", &twice] {
        let _asking = world.ask(&format!("POST /v1/sessions\n{headers}"), OFFER);
        let ControlRequest::Offer(wanted, _) = world.request() else { panic!("offer") };
        assert_eq!(wanted.caller, None);
    }
}

#[test]
fn invalid_offer_never_reaches_control() {
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
fn refusals_have_code_and_retry_time() {
    let mut world = World::start();
    let wait = Duration::from_millis(1_000);
    let refused = ControlError::Refused;
    let address = (Ipv4Addr::LOCALHOST, 5).into();
    let cases = [
        (refused(OfferRefusal::UnknownScenario("x".into())), 400, "bad-request", "scenario", false),
        (refused(OfferRefusal::ScenarioOfRoom("live".into())), 409, "conflict", "room", false),
        (ControlError::UnknownNode("x".into()), 400, "bad-request", "nodes.x", false),
        (
            ControlError::OutsideNetworks { node: "x".into(), address },
            400,
            "bad-request",
            "nodes.x",
            false,
        ),
        (
            ControlError::SharedNodeAddress { nodes: ["x".into(), "y".into()], address },
            400,
            "bad-request",
            "nodes",
            false,
        ),
        (ControlError::RoomFull { node: "x".into(), most: 2 }, 409, "conflict", "room", false),
        (ControlError::SessionDataFull, 503, "full", "", true),
        (ControlError::NoListener, 400, "bad-request", "ingress", false),
        (ControlError::AddressTaken(address), 409, "conflict", "ingress.udp.address", false),
        (refused(OfferRefusal::Full { retry_after: wait }), 503, "full", "", true),
        (refused(OfferRefusal::Draining), 503, "draining", "", false),
        (refused(OfferRefusal::Rejected { retry_after: wait }), 429, "refused", "", true),
        (refused(OfferRefusal::Redirected(RegionId(0))), 403, "refused", "", false),
        (refused(OfferRefusal::Closed), 409, "conflict", "", false),
        (refused(OfferRefusal::NoNode { retry_after: wait }), 503, "unavailable", "", true),
        (
            refused(OfferRefusal::PlacementRefused {
                reason: Some("embargo".into()),
                retry_after: wait,
            }),
            429,
            "refused",
            "",
            true,
        ),
        (
            refused(OfferRefusal::ClientsImpaired { group: carrier(), retry_after: wait }),
            503,
            "unavailable",
            "",
            true,
        ),
        (
            refused(OfferRefusal::NotOpened { node: NodeId(0), retry_after: wait }),
            503,
            "unavailable",
            "",
            true,
        ),
        (ControlError::Full, 503, "full", "", true),
        (ControlError::Unavailable, 503, "unavailable", "", true),
        (ControlError::Replaced, 503, "unavailable", "", true),
        (ControlError::Starting, 503, "starting", "", true),
    ];
    for (refusal, status, code, field, again) in cases {
        let asking = world.ask("POST /v1/sessions", OFFER);
        let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
        reply.send(Err(refusal.clone())).unwrap();
        let (found, body) = asking.answer();
        let error = &body["error"];
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{refusal:?}");
        assert_eq!(error["field"].as_str().unwrap_or(""), field, "{refusal:?}");
        assert_eq!(error["retry_after_ms"].is_u64(), again, "{refusal:?}");
        let at_once = refusal == ControlError::Replaced;
        assert_eq!(error["retry_after_ms"] == 0, at_once, "{refusal:?}");
        if let ControlError::Refused(_) = refusal
            && again
        {
            assert_eq!(error["retry_after_ms"], 1_000, "what the core says: {refusal:?}");
        }
    }
}

#[test]
fn repeated_offer_opens_once() {
    let mut world = World::start();
    let key = "POST /v1/sessions\nidempotency-key: k1";
    let first = world.ask(key, OFFER);
    let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
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
fn repetition_without_a_stored_answer_opens_nothing() {
    let mut world = World::start();
    let sha256 = evenkeel_process::sha256(OFFER.as_bytes());
    let dropped =
        json!({"key": "k1", "body_sha256": sha256, "status": 409, "answer": "", "session": 17});
    world.handle.idempotency_keys.restore(vec![serde_json::from_value(dropped).unwrap()]);
    let key = "POST /v1/sessions\nidempotency-key: k1";
    let (status, body) = world.ask(key, OFFER).answer();
    assert_eq!((status, &body["error"]["field"]), (409, &json!("idempotency-key")));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("`k1` opened session `s17`"), "{message}");
    assert!(world.requests.try_recv().is_err());
}

#[test]
fn answer_survives_the_disconnect_of_its_caller() {
    let mut world = World::start();
    let key = "POST /v1/sessions\nidempotency-key: k1";
    let first = world.ask(key, OFFER);
    let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
    drop(first);
    reply.send(Ok(opened(17))).unwrap();
    assert_eq!(world.ask(key, OFFER).answer().1["id"], "s17");
    assert!(world.requests.try_recv().is_err());
}

#[test]
fn temporary_refusal_can_be_retried_with_its_key() {
    let mut world = World::start();
    let key = "POST /v1/sessions\nidempotency-key: k1";
    let first = world.ask(key, OFFER);
    let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
    let retry_after = Duration::from_millis(2_000);
    reply.send(Err(ControlError::Refused(OfferRefusal::Full { retry_after }))).unwrap();
    assert_eq!(first.answer().0, 503);
    let again = world.ask(key, OFFER);
    let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
    reply.send(Ok(opened(18))).unwrap();
    assert_eq!(again.answer().1["id"], "s18");
}

#[test]
fn body_as_list_is_refused() {
    let world = World::start();
    let list = r#"["call", "room-1", {}, {"quic": {}}, [], "mux", false, {}]"#;
    for (head, body) in [("POST /v1/sessions", list), ("POST /v1/rooms/r:move", r#"["east-a1"]"#)] {
        let (status, body) = world.ask(head, body).answer();
        assert_eq!(status, 400, "{head}");
        assert!(
            body["error"]["message"].as_str().unwrap().contains("expected an object"),
            "{body}"
        );
    }
}
