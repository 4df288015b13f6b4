//! Sessions behind a simulated webhook under a virtual clock.

use evenkeel_config::{ConfigBitRate, NodeProbe, NodeSrtp};
use evenkeel_dataplane::flows::Home;
use evenkeel_fuzz::Corpus;
use evenkeel_http::HttpAnswer;
use evenkeel_model::{
    ExtensionUri, FeedbackSupport, HeaderExtension, Incarnation, MediaDescription, MediaStream,
    PayloadType, RoomId, RtcpPort, Srtp, StreamKind,
};
use serde_json::{Value, json};

use super::*;
use crate::session::REASON_CHARS_MAX;

const HOP: Hop = Hop { node: NodeId(3), incarnation: Incarnation(1) };
const MS: Duration = Duration::from_millis(1);

fn facts() -> SessionFacts {
    let opus = PayloadType::new(111, "opus", 48_000);
    let red = PayloadType { repairs: Some(111), ..PayloadType::new(63, "red", 48_000) };
    let stream = MediaStream {
        kind: StreamKind::Audio,
        payload_types: vec![opus, red],
        feedback: FeedbackSupport {
            nack: true,
            transport_cc: true,
            ccfb: true,
            ..FeedbackSupport::default()
        },
        bitrate_kbps: Some(64),
    };
    let mut media = MediaDescription::new(vec![stream], RtcpPort::Own, Srtp::Plain);
    media.extensions = vec![HeaderExtension { id: 1, uri: ExtensionUri::AudioLevel }];
    SessionFacts {
        room: "studio".into(),
        labels: [("device".into(), "phone".into())].into(),
        media: Arc::new(media),
        ports: (4_000, Some(4_017)),
    }
}

fn webhook() -> WebhookNode {
    let hook = Arc::new(WebhookTarget { url: "http://10.0.0.9/".parse().unwrap(), token: None });
    let posts = Signalling::Posts(Arc::clone(&hook));
    let config = NodeConfig::new(
        "east-a1".into(),
        "10.0.0.9:4000".parse().unwrap(),
        "east".into(),
        "a".into(),
        DriverSettings::new("webhook", NodeProbe::Stun, posts),
        ConfigBitRate(1_000_000),
    );
    WebhookNode::new(HOP.node, &config, hook, LocalSource::Bound([10, 0, 0, 1].into()))
}

fn clock(now: Instant) -> Clock {
    Clock { now, unix_us: 0 }
}

fn recorded(webhook: &WebhookNode) -> Vec<WebhookLeaseRecord> {
    let mut record = DriversRecord::new(None);
    webhook.record(RecordScope::All, &mut record);
    record.webhooks
}

fn open(webhook: &mut WebhookNode, session: u64, nonce: u64, now: Instant) -> (u64, Value) {
    let facts = facts();
    let wish = OpenRequest {
        session: SessionId(session),
        home: Home { worker: 0, slot: 0, generation: 1 },
        room: RoomId(1),
        hop: HOP,
        address: None,
        rtcp_apart: true,
        client_srtp: Srtp::Plain,
        srtp: NodeSrtp::Off,
        facts: Some(&facts),
    };
    post(webhook.open(&wish, &mut || nonce, clock(now)))
}

fn post(act: Option<DriverAction>) -> (u64, Value) {
    let Some(DriverAction::Send {
        node: NodeId(3),
        transport: Transport::Post { number, .. },
        bytes,
    }) = act
    else {
        panic!("{act:?}")
    };
    (number, serde_json::from_slice(&bytes).unwrap())
}

fn says(status: u16, body: &str) -> Posted {
    Ok(HttpAnswer { status, body: body.to_owned().into() })
}

fn told(webhook: &mut WebhookNode, now: Instant) -> Option<String> {
    Some(match webhook.poll(clock(now))? {
        DriverAction::Opened { leg: NodeLeg::Port(port), .. } => {
            format!("{}/{}", port.address, port.rtcp_port)
        }
        DriverAction::Changed { leg: NodeLeg::Port(port), .. } => {
            format!("now {}/{}", port.address, port.rtcp_port)
        }
        DriverAction::Refused { unwilling, reason, .. } => {
            format!("{reason}{}", if unwilling { " (unwilling)" } else { "" })
        }
        act => panic!("{act:?}"),
    })
}

#[test]
fn opening_describes_the_session_and_gets_an_address() {
    let (mut webhook, now) = (webhook(), Instant::now());
    let (number, body) = open(&mut webhook, 7, 0xab, now);
    let expected = json!({
        "verb": "open",
        "node": "east-a1",
        "room": "studio",
        "session": SessionId(7).to_string(),
        "nonce": "00000000000000ab",
        "labels": {"device": "phone"},
        "media": [{
            "kind": "audio",
            "payload_types": [
                {"payload_type": 111, "codec": "opus", "clock_rate": 48_000},
                {"payload_type": 63, "codec": "red", "clock_rate": 48_000, "apt": 111},
            ],
            "feedback": ["nack", "transport-cc", "ccfb"],
            "bitrate_kbps": 64,
        }],
        "extensions": [{"id": 1, "uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level"}],
        "rtcp": "own",
        "srtp": false,
        "gateway": {"address": "10.0.0.1:4000", "rtcp": 4_017},
        "lease_s": 30,
    });
    assert_eq!(body, expected);
    assert_eq!(told(&mut webhook, now), None, "not before it is answered");
    webhook.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:5000\",\"rtcp\":5007}"));
    assert_eq!(told(&mut webhook, now).unwrap(), "10.0.0.9:5000/5007");
    assert_eq!(told(&mut webhook, now), None);
}

#[test]
fn failed_opening_has_a_reason() {
    let refused = |posted| {
        let (mut webhook, now) = (webhook(), Instant::now());
        let (number, _) = open(&mut webhook, 7, 1, now);
        webhook.handle_posted(number, posted);
        assert!(webhook.leases.is_empty());
        told(&mut webhook, now).unwrap()
    };
    assert_eq!(
        refused(says(409, "{\"error\":\"no such codec\"}")),
        "HTTP status 409: no such codec"
    );
    assert_eq!(refused(says(500, "")), "HTTP status 500");
    assert_eq!(refused(says(503, "full")), "HTTP status 503: full (unwilling)");
    assert_eq!(refused(Err("no answer in time".to_owned())), "no answer in time");
    assert!(refused(says(200, "{}")).starts_with("response without an address"));
    for (body, parts) in [
        (json!({"address": "10.0.0.9:0"}), ["`address`", "port 0"]),
        (json!({"address": "0.0.0.0:4000"}), ["`address`", "unspecified"]),
        (json!({"address": "239.1.2.3:4000"}), ["`address`", "multicast"]),
        (json!({"address": "255.255.255.255:4000"}), ["`address`", "broadcast"]),
        (json!({"address": "10.0.0.9:5000", "rtcp": 0}), ["`rtcp`", "found 0"]),
        (json!({"address": "10.0.0.9:65535"}), ["`rtcp`", "missing"]),
    ] {
        let reason = refused(says(200, &body.to_string()));
        assert!(parts.iter().all(|part| reason.contains(part)), "{parts:?} in: {reason}");
    }
    let v6 = "address [::1]:5 is IPv6, the node's `address` is IPv4";
    assert_eq!(refused(says(200, "{\"address\":\"[::1]:5\"}")), v6);
}

#[test]
fn rtcp_port_defaults_to_the_next_port() {
    let (mut webhook, now) = (webhook(), Instant::now());
    let (number, _) = open(&mut webhook, 7, 1, now);
    webhook.handle_posted(number, says(201, "{\"address\":\"10.0.0.9:5000\"}"));
    assert_eq!(told(&mut webhook, now).unwrap(), "10.0.0.9:5000/5001");
}

#[test]
fn refresh_reopens_forgotten_sessions() {
    let (mut webhook, start) = (webhook(), Instant::now());
    for session in 1..=3 {
        let (number, _) = open(&mut webhook, session, session, start);
        if session < 3 {
            webhook.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:5000\"}"));
            told(&mut webhook, start).unwrap();
        }
    }
    assert!(webhook.poll(clock(start + 8_999 * MS)).is_none());
    let (number, body) = post(webhook.poll(clock(start + 9_000 * MS)));
    let named = |session: u64| json!({"session": SessionId(session).to_string(), "nonce": format!("{session:016x}")});
    let refresh = json!({
        "verb": "refresh", "node": "east-a1", "sessions": [named(1), named(2)], "lease_s": 30,
    });
    assert_eq!(body, refresh, "the third is not open");
    webhook.handle_posted(number, says(200, "{\"unknown\":[\"0000000000000002\",\"77\"]}"));
    let (number, body) = post(webhook.poll(clock(start + 9_010 * MS)));
    assert_eq!((&body["verb"], &body["nonce"]), (&json!("open"), &json!("0000000000000002")));
    webhook.handle_posted(number, Err("no answer in time".to_owned()));
    assert_eq!(told(&mut webhook, start + 9_020 * MS), None, "it may come back");
    let (number, _) = post(webhook.poll(clock(start + 18_000 * MS)));
    webhook.handle_posted(number, says(200, "{\"unknown\":[\"0000000000000002\"]}"));
    let (number, _) = post(webhook.poll(clock(start + 18_010 * MS)));
    webhook.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:6000\"}"));
    assert_eq!(told(&mut webhook, start + 18_020 * MS).unwrap(), "now 10.0.0.9:6000/6001");
}

#[test]
fn closed_session_is_not_refreshed() {
    let (mut webhook, now) = (webhook(), Instant::now());
    let (number, _) = open(&mut webhook, 7, 0xab, now);
    let (_, body) = post(webhook.close(SessionId(7), HOP, clock(now)));
    let session = SessionId(7).to_string();
    let close = json!({"verb": "close", "node": "east-a1", "session": session, "nonce": "00000000000000ab"});
    assert_eq!(body, close);
    webhook.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:5000\"}"));
    assert!(webhook.poll(clock(now + 60_000 * MS)).is_none(), "a late answer is ignored");
    assert!(webhook.close(SessionId(7), HOP, clock(now)).is_none());
}

#[test]
fn sessions_of_another_process_stay_open() {
    let (mut before, start) = (webhook(), Instant::now());
    for session in 1..=3 {
        let (number, _) = open(&mut before, session, session, start);
        if session < 3 {
            before.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:5000\"}"));
        }
    }
    let hop = Hop { node: HOP.node, incarnation: Incarnation(4) };
    let mut now = webhook();
    for lease in recorded(&before) {
        now.restore_lease(WebhookLeaseRecord { hop, ..lease }, &facts(), start);
    }
    assert!(now.poll(clock(start + 8_999 * MS)).is_none());
    let (number, body) = post(now.poll(clock(start + 9_000 * MS)));
    let nonces: Vec<&Value> =
        body["sessions"].as_array().unwrap().iter().map(|session| &session["nonce"]).collect();
    assert_eq!(nonces, ["0000000000000001", "0000000000000002"], "the third was not open");
    now.handle_posted(number, says(200, "{\"unknown\":[\"0000000000000002\"]}"));
    let (number, again) = post(now.poll(clock(start + 9_010 * MS)));
    let (_, first) = open(&mut webhook(), 2, 2, start);
    assert_eq!(again, first, "the server lost it");
    now.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:6000\"}"));
    assert_eq!(told(&mut now, start + 9_020 * MS).unwrap(), "now 10.0.0.9:6000/6001");
    assert!(now.close(SessionId(1), hop, clock(start)).is_some());
    assert!(now.close(SessionId(1), HOP, clock(start)).is_none(), "the hop has a new number");
}

#[test]
fn fuzz_webhook_answer() {
    Corpus::of("webhook").check(|body| {
        let says = |status| Ok(HttpAnswer { status, body: body.to_vec().into() });
        for (status, rtcp_apart) in [(200, false), (200, true), (409, false), (503, false)] {
            match messages::opened(says(status), rtcp_apart) {
                WebhookAnswer::At(port) => assert!(status == 200 && port.address.port() != 0),
                WebhookAnswer::Refused(reason) | WebhookAnswer::Unwilling(reason) => {
                    let text = reason.strip_prefix(&format!("HTTP status {status}: "));
                    let count = text.unwrap_or(&reason).chars().count();
                    assert!(count <= REASON_CHARS_MAX, "{reason}");
                    assert!(!reason.contains(char::is_control), "{reason:?}");
                }
                WebhookAnswer::Unanswered(reason) => panic!("{reason}"),
            }
        }
        assert!(messages::unknown(says(200)).len() <= body.len());
    });
}

#[test]
fn lease_on_other_ports_is_replaced() {
    let (mut before, now) = (webhook(), Instant::now());
    let (number, _) = open(&mut before, 7, 0xab, now);
    before.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:5000\",\"rtcp\":5007}"));
    let lease = WebhookLeaseRecord { taken: None, ..recorded(&before)[0] };
    let mut webhook = webhook();
    webhook.restore_lease(lease, &facts(), now);
    let (number, body) = open(&mut webhook, 7, 0xcd, now);
    assert_eq!(body["nonce"], "00000000000000cd");
    webhook.handle_posted(number, says(200, "{\"address\":\"10.0.0.9:6000\",\"rtcp\":6007}"));
    let (_, close) = post(webhook.poll(clock(now)));
    assert_eq!((&close["verb"], &close["nonce"]), (&json!("close"), &json!("00000000000000ab")));
    assert_eq!(told(&mut webhook, now).unwrap(), "10.0.0.9:6000/6007");
    assert_eq!(webhook.leases.len(), 1);
}
