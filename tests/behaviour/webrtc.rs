//! Calls of WebRTC clients: ICE, DTLS and SRTP end at the gateway.

use std::sync::Arc;

use evenkeel_client::ApiCall;
use evenkeel_control::{GatewayEvent, LaterOffer, LaterStreams, SessionAnswer};
use evenkeel_dtls::HandshakeFailure;
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::srtp::SrtpProfile;
use evenkeel_model::{CloseReason, CoreEvent, Latency, MediaDescription, StreamKind};
use evenkeel_testkit::required;
use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Credentials, Gateway, GatewayProcess, Heard, Hosts, Node, Phone, SHARED, WebrtcPhone, World,
    assert_complete, assert_continuous, await_replica, declared, ids, offer, talk, talk_by, udp_of,
    wait_until,
};

fn open(gateway: &Gateway, client: &mut WebrtcPhone) -> SessionAnswer {
    let opened = gateway.open(client.offer("room"));
    client.connect(udp_of(&opened), &Credentials::of(&opened)).unwrap();
    opened
}

fn world(nodes: &[&Node]) -> World {
    World::of(nodes).with_identities("[\"stun\", \"declared\"]")
}

/// Waits for the end of the session.
fn closed(gateway: &Gateway, session: &SessionAnswer) -> CloseReason {
    gateway.expect_event("the session ends", |event| match event {
        CoreEvent::Closed { session: ended, reason, .. } if *ended == session.session => {
            Some(*reason)
        }
        _ => None,
    })
}

#[test]
fn webrtc_call_with_a_phone_survives_its_node() {
    let mut nodes = ["east-a1", "east-b1", "west-a1"].map(Node::agent);
    let gateway = world(&nodes.each_ref()).start();
    let (mut ann, mut bob) = (WebrtcPhone::new(1), Phone::new(2));
    (ann.phone.sends_video, bob.sends_video) = (true, true);
    let opened = open(&gateway, &mut ann);
    let second = gateway.open(offer("room", declared(&bob)));
    bob.set_target(udp_of(&second));
    let (first, next) = (opened.route[0].node.0 as usize, opened.route[1].node.0 as usize);
    talk_by(&mut [&mut ann.phone, &mut bob], "both hear", nodes[first].number());
    nodes[first].die();
    talk_by(&mut [&mut ann.phone, &mut bob], "both hear by the other node", nodes[next].number());
    for stream in [0, 1] {
        assert_continuous(&ann.phone.heard_from(2, stream));
        assert_continuous(&bob.heard_from(1, stream));
    }
    let profile = gateway.expect("the handshake", |told| match &told.event {
        GatewayEvent::Handshake { session, result } if *session == opened.session => {
            Some(result.clone())
        }
        _ => None,
    });
    assert_eq!(profile, Ok(SrtpProfile::AeadAes256Gcm));
    for reason in ["srtp-forged", "srtp-replayed", "srtp-index"] {
        assert_eq!(gateway.drops(reason), 0, "{reason}");
    }
    ann.close();
    assert_eq!(closed(&gateway, &opened), CloseReason::ClientClosed);
}

#[test]
fn client_with_another_certificate_is_refused() {
    let node = Node::agent("east-a1");
    let gateway = world(&[&node]).start();
    let mut eve = WebrtcPhone::new(6);
    let wanted = WebrtcPhone::new(1).offer("room");
    let opened = gateway.open(wanted);
    let refused = eve.connect(udp_of(&opened), &Credentials::of(&opened)).unwrap_err();
    assert!(matches!(refused, HandshakeFailure::Alert(_)), "{refused}");
    assert_eq!(closed(&gateway, &opened), CloseReason::HandshakeFailed);
}

#[test]
fn dtls_of_strangers_gets_no_answer() {
    let node = Node::agent("east-a1");
    let gateway = world(&[&node]).start();
    let mut ann = WebrtcPhone::new(1);
    let opened = gateway.open(ann.offer("room"));
    let mut eve = WebrtcPhone::new(6);
    eve.phone.set_target(udp_of(&opened));
    let (socket, target) = (&eve.phone.socket, eve.phone.target);
    let mut hellos = 0;
    for _ in 0..20 {
        let now = eve.dtls.next_timeout();
        let send = &mut |datagram: &[u8]| {
            hellos += 1;
            socket.send_to(datagram, target).unwrap();
        };
        if eve.dtls.handle_timeout(now, send).is_err() {
            break;
        }
    }
    assert!(hellos > 0);
    wait_until("each is counted", || gateway.drops("unknown-source") == hellos);
    eve.phone.listen();
    assert!(eve.phone.other.is_empty() && eve.phone.heard.is_empty());
    ann.connect(udp_of(&opened), &Credentials::of(&opened)).unwrap();
    talk(&mut [&mut ann.phone], "she hears herself", |phones| phones[0].heard.len() >= 10);
}

#[test]
fn webrtc_call_survives_upgrades_without_a_handshake() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&[&node]));
    let mut clients = [1, 2].map(WebrtcPhone::new);
    for client in &mut clients {
        client.call(&mut gateway, "room");
    }
    let [mut ann, mut bob] = clients.map(|client| client.phone);
    let hear = |phones: &mut [&mut Phone; 2]| {
        let before = phones.each_ref().map(|phone| phone.heard.len());
        talk(phones, "both hear", |phones| {
            [0, 1].iter().all(|&phone| phones[phone].heard.len() >= before[phone] + 25)
        });
    };
    hear(&mut [&mut ann, &mut bob]);
    for _ in 0..2 {
        let upgrading = gateway.upgrade(json!({}));
        talk(&mut [&mut ann, &mut bob], "the upgrade is answered", |_| upgrading.is_finished());
        let upgraded = upgrading.join().unwrap().unwrap();
        gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
        assert_eq!(upgraded["sessions"], 2, "{upgraded}");
        hear(&mut [&mut ann, &mut bob]);
    }
    for (phone, other) in [(&ann, &bob), (&bob, &ann)] {
        let heard = phone.heard_from(other.number, 0);
        let last = heard.last().unwrap().mark.number;
        assert_complete(&heard, heard[0].mark.number, last + 1);
        assert_eq!(assert_continuous(&heard), 0);
    }
}

#[test]
fn handshake_that_another_process_began_is_lost_and_the_next_offer_works() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&[&node]));
    let mut ann = WebrtcPhone::new(1);
    let flight = ann.begin_handshake(&mut gateway, "room");
    let upgraded = gateway.upgrade(json!({})).join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    ann.answer(&flight);
    wait_until("the session ends", || {
        let ended = gateway.read("/v1/sessions/history");
        ended["sessions"][0]["reason"] == "handshake-lost"
    });
    let mut ann = WebrtcPhone::new(1);
    ann.call(&mut gateway, "room");
    talk(&mut [&mut ann.phone], "she hears herself", |phones| phones[0].heard.len() >= 10);
}

#[test]
fn client_restarts_ice_at_another_address_and_keeps_its_keys() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&[&node]));
    let mut ann = WebrtcPhone::new(1);
    ann.call(&mut gateway, "room");
    let hear = |ann: &mut WebrtcPhone, what: &str| {
        let before = ann.phone.heard.len();
        talk(&mut [&mut ann.phone], what, |phones| phones[0].heard.len() >= before + 10);
    };
    hear(&mut ann, "she hears herself");
    let [id] = &ids(&mut gateway)[..] else { panic!("one session") };
    ann.change_network(&mut gateway, id);
    hear(&mut ann, "at another address");
    let shown = gateway.read(&format!("/v1/sessions/{id}"));
    assert_eq!(shown["ice"]["client_ufrag"], ann.ufrag(), "{shown}");
    let upgraded = gateway.upgrade(json!({})).join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    hear(&mut ann, "by another process");
    ann.change_network(&mut gateway, id);
    hear(&mut ann, "at a third address");
    assert_one_stream(&ann.phone.heard, ann.announced);
}

/// The ids of the streams that an answer announces, in the order of its m-lines.
fn stream_ids(answer: &Value) -> Vec<String> {
    let sdp = answer["webrtc"]["answer"].as_str().unwrap();
    let ids = sdp.lines().filter_map(|line| line.strip_prefix("a=msid:")?.split(' ').next());
    ids.map(str::to_owned).collect()
}

#[test]
fn answer_names_the_session_that_sends() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&[&node]));
    let (ann, bob) = (WebrtcPhone::new(1), WebrtcPhone::new(2));
    let mut offer = json!({"scenario": "call", "room": "room", "webrtc": {"offer": ann.sdp()}});
    offer["labels"] = json!({"participant": "ann"});
    let opened = gateway.post("/v1/sessions", &offer);
    let first = opened["id"].as_str().unwrap().to_owned();
    assert_eq!(stream_ids(&opened), [first.as_str(); 2], "no other sender was there");
    let shown = gateway.read(&format!("/v1/sessions/{first}"));
    assert_eq!(shown["participant"], "ann", "{shown}");

    let offer = json!({"scenario": "call", "room": "room", "webrtc": {"offer": bob.sdp()}});
    let joined = gateway.post("/v1/sessions", &offer);
    let ids = stream_ids(&joined);
    assert_eq!(ids, [format!("{first}.ann"), format!("{first}.ann")]);
    let sdp = joined["webrtc"]["answer"].as_str().unwrap();
    assert!(sdp.contains(&format!(" cname:{first}.ann\r\n")), "{sdp}");

    // The answer to a later offer names the newcomer.
    let second = joined["id"].as_str().unwrap();
    let later =
        gateway.put(&format!("/v1/sessions/{first}"), &json!({"webrtc": {"offer": ann.sdp()}}));
    assert_eq!(stream_ids(&later), [second; 2]);
}

#[test]
fn events_tell_of_streams_that_begin_and_end() {
    let node = Node::agent("east-a1");
    let gateway = world(&[&node]).start();
    let mut wanted = WebrtcPhone::new(1).offer("room");
    wanted.labels = [("participant".into(), "ann".into())].into();
    let opened = gateway.open(wanted);
    let told = |is_added: bool, kind: StreamKind| {
        gateway.expect("an event of the stream", |told| match &told.event {
            GatewayEvent::StreamAdded(stream) if is_added && stream.kind == kind => {
                Some(stream.clone())
            }
            GatewayEvent::StreamRemoved(stream) if !is_added && stream.kind == kind => {
                Some(stream.clone())
            }
            _ => None,
        })
    };
    for kind in [StreamKind::Audio, StreamKind::Video] {
        let added = told(true, kind);
        assert_eq!((added.session, &*added.room), (opened.session, "room"));
        assert_eq!(added.participant.as_deref(), Some("ann"));
        assert_eq!(*added.id, format!("{}.ann", opened.session));
    }
    gateway.ask(gateway.handle.close(opened.session)).unwrap();
    for kind in [StreamKind::Audio, StreamKind::Video] {
        assert_eq!(told(false, kind).session, opened.session);
    }
}

#[test]
fn later_offer_keeps_the_latency() {
    let node = Node::agent("east-a1");
    let gateway = world(&[&node]).start();
    let mut wanted = WebrtcPhone::new(1).offer("room");
    let described = Arc::clone(&wanted.media);
    wanted.media = MediaDescription { latency: Latency(200), ..(*described).clone() }.into();
    let keying = wanted.srtp.clone().unwrap();
    let session = gateway.open(wanted).session;
    let streams = Some(LaterStreams { media: described, keying });
    let later = LaterOffer { session, ufrag: "next".into(), streams };
    gateway.ask(gateway.handle.renegotiate(Box::new(later))).unwrap();
    let streams_changed = gateway.expect("the offer is followed", |told| match &told.event {
        GatewayEvent::Renegotiated { streams_changed, .. } => Some(*streams_changed),
        _ => None,
    });
    assert!(!streams_changed, "SDP says no latency");
}

#[test]
fn later_offer_turns_the_media() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&[&node]));
    let (mut ann, mut bob) = (WebrtcPhone::new(1), WebrtcPhone::new(2));
    ann.call(&mut gateway, "room");
    bob.call(&mut gateway, "room");
    talk_by(&mut [&mut ann.phone, &mut bob.phone], "both hear", node.number());
    let [id, _] = &ids(&mut gateway)[..] else { panic!("two sessions") };
    let credentials = ann.turn(&mut gateway, id, "recvonly");
    let refused = |gateway: &mut GatewayProcess| {
        gateway.read("/v1/status")["drops"]["undeclared-payload"].as_u64().unwrap_or_default()
    };
    let heard = ann.phone.heard.len();
    talk(&mut [&mut ann.phone, &mut bob.phone], "she only hears", |phones| {
        phones[0].heard.len() >= heard + 10
    });
    talk(&mut [&mut ann.phone, &mut bob.phone], "her packets are refused", |_| {
        refused(&mut gateway) > 0
    });
    ann.turn(&mut gateway, id, "inactive");
    let before = refused(&mut gateway);
    talk(&mut [&mut ann.phone, &mut bob.phone], "she is on hold", |_| {
        refused(&mut gateway) >= before + 20
    });
    let again = ann.turn(&mut gateway, id, "sendrecv");
    assert_eq!(again.ufrag, credentials.ufrag, "no restart of ICE");
    let heard = bob.phone.heard.len();
    talk(&mut [&mut ann.phone, &mut bob.phone], "both hear again", |phones| {
        phones[1].heard.len() >= heard + 10
    });
    assert_one_stream(&ann.phone.heard, ann.announced);
    for counted in [
        "evenkeel_renegotiations_total{evenkeel_outcome=\"streams\"} 3",
        "evenkeel_handshakes_total{evenkeel_outcome=\"done\"} 2",
    ] {
        wait_until(counted, || gateway.metrics().lines().any(|line| line == counted));
    }
    // Another client does not get into the session.
    let other = WebrtcPhone::new(3).sdp();
    let body = json!({"webrtc": {"offer": other}}).to_string();
    let path = format!("/v1/sessions/{id}");
    let call = ApiCall { method: Method::PUT, body: body.into(), ..ApiCall::get(&path) };
    let answer = gateway.ask(async |client| client.ask(call).await).unwrap();
    assert_eq!(answer.status, 409, "{answer:?}");
}

/// Asserts that the packets of a stream have the SSRC of the answer, and that no number is used twice or jumps by 3,000 (RFC 3550, appendix A.1).
fn assert_one_stream(heard: &[Heard], announced: Option<u32>) {
    assert_eq!(heard.first().map(|first| first.header.ssrc), announced);
    for pair in heard.windows(2) {
        let (before, after) = (&pair[0].header, &pair[1].header);
        assert_eq!(before.ssrc, after.ssrc, "{pair:?}");
        let step = after.sequence.wrapping_sub(before.sequence);
        assert!((1..3_000).contains(&step), "a step of {step}: {pair:?}");
    }
}

#[required(Namespaces)]
#[test]
fn webrtc_call_survives_two_takeovers_without_a_handshake() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), WebrtcPhone::on(place.phone()));
    let [mut owner, mut standby] = place.group_with(&node.text(), |_, world| {
        world.listens = world.listens.replace("declared", "stun");
    });
    ann.call(&mut owner, "room");
    let mut ann = ann.phone;
    let hear = |ann: &mut Phone, what: &str| {
        let before = ann.heard.len();
        talk(&mut [ann], what, |phones| phones[0].heard.len() >= before + 50);
    };
    hear(&mut ann, "she hears herself");
    let opened = ids(&mut owner);
    await_replica(&mut owner);
    hear(&mut ann, "the standby has the indices");
    owner.process.signal(Signal::SIGKILL).unwrap();
    // The phone fails at a packet that its SRTP refuses: a forged or a repeated index.
    hear(&mut ann, "packets arrive again");
    assert_eq!(ids(&mut standby), opened);
    {
        let _inside = place.gateways[0].enter().unwrap();
        owner.start_again();
    }
    await_replica(&mut standby);
    hear(&mut ann, "the new standby has the indices");
    standby.process.signal(Signal::SIGKILL).unwrap();
    hear(&mut ann, "packets arrive once more");
    assert_eq!(ids(&mut owner), opened);
    assert_one_stream(&ann.heard, ann.heard.first().map(|first| first.header.ssrc));
}

#[required(Namespaces)]
#[test]
fn takeover_keeps_the_certificates_that_clients_know() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), WebrtcPhone::on(place.phone()));
    let [mut owner, mut standby] = place.group_with(&node.text(), |_, world| {
        world.listens = world.listens.replace("declared", "stun");
        world.listens += &format!("[[listen]]\nquic = \"{SHARED}:7443\"\n");
    });
    let offered = json!({"scenario": "call", "room": "room", "webrtc": {"offer": ann.sdp()}});
    let answer = owner.post("/v1/sessions", &offered);
    let sdp = answer["webrtc"]["answer"].as_str().unwrap();
    let fingerprint = sdp.lines().find_map(|line| line.strip_prefix("a=fingerprint:")).unwrap();
    let fingerprint: CertificateFingerprint = fingerprint.parse().unwrap();
    let opus = json!({"payload_type": 111, "codec": "opus", "clock_rate": 48_000});
    let page = json!({
        "scenario": "call", "room": "stage", "ingress": {"webtransport": {}},
        "media": [{"kind": "audio", "payload_types": [opus]}],
    });
    let hashes = |gateway: &mut GatewayProcess| -> Value {
        gateway.post("/v1/sessions", &page)["webtransport"]["certificates_sha256"].clone()
    };
    let known = hashes(&mut owner);
    assert_eq!(known.as_array().unwrap().len(), 2, "{known}");
    await_replica(&mut owner);
    owner.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the standby serves", || {
        place.has_address(1) && standby.ask(async |client| client.is_ready().await).unwrap()
    });
    let (address, credentials) = Credentials::in_answer(sdp);
    ann.connect(address, &credentials).unwrap();
    assert!(fingerprint.matches(ann.dtls.gateway_certificate().unwrap()));
    talk(&mut [&mut ann.phone], "she hears herself", |phones| phones[0].heard.len() >= 10);
    assert_eq!(hashes(&mut standby), known);
}
