//! Strangers, and clients with tokens, at the address of WHIP and WHEP.

use std::time::{Duration, Instant};

use evenkeel_lab::network::Host;
use evenkeel_model::{CloseReason, CoreEvent};
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::tempdir;

use crate::harness::whip::{
    Connection, FRAGMENT, SDP, WEBRTC, Whip, certificate, claims, hears_on, location, signed, token,
};
use crate::harness::{
    Credentials, GatewayProcess, Hosts, Node, SECRET, TIMEOUT, WebrtcPhone, World,
};
use crate::index::at;

#[test]
fn forged_whip_requests_open_and_end_nothing() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_identities("[\"stun\"]");
    world.admin = WEBRTC.into();
    let gateway = world.start();
    let whip = Whip::of(&gateway);
    let idle: Vec<_> = (0..300).map(|_| whip.connect()).collect();
    let mut ann = WebrtcPhone::new(1);
    let (sdp, of_ann) = (ann.sdp(), token(&claims("t1")));
    let (status, answer) = whip.ask("POST /whip/call/room", &of_ann, &sdp);
    assert_eq!(status, 201, "a token gets in beside idle connections: {answer}");
    drop(idle);
    let (address, credentials) = Credentials::in_answer(&answer);
    ann.connect(address, &credentials).unwrap();
    let mut bob = WebrtcPhone::new(2);
    let mut view = claims("t0");
    view["direction"] = "view".into();
    let (status, viewed) = whip.ask("POST /whep/call/room", &token(&view), &bob.sdp());
    assert_eq!(status, 201, "{viewed}");
    let (address, credentials) = Credentials::in_answer(&viewed);
    bob.connect(address, &credentials).unwrap();
    hears_on(&mut ann.phone, &mut bob.phone);

    let with = |claim: &str, value: Value| {
        let mut claims = claims("t2");
        claims[claim] = value;
        token(&claims)
    };
    let none = signed("{\"alg\":\"none\"}", &claims("t2"), SECRET);
    let (unsigned, _) = none.rsplit_once('.').unwrap();
    let other_offer = sdp.replace("a=ice-ufrag:", "a=ice-ufrag:x");
    let large = format!("{sdp}{}", "a=x\r\n".repeat(1 << 18));
    let candidates = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(1_000);
    let good = token(&claims("t3"));
    for (attack, token, body, right) in [
        ("expired", with("exp", 1_000.into()), &sdp, 401),
        ("another room", with("room", "other".into()), &sdp, 403),
        ("another scenario", with("scenario", "live".into()), &sdp, 403),
        ("another direction", with("direction", "view".into()), &sdp, 403),
        ("alg none", none.clone(), &sdp, 401),
        ("alg none, unsigned", format!("{unsigned}."), &sdp, 401),
        ("another key", signed("{\"alg\":\"HS256\"}", &claims("t2"), b"guessed"), &sdp, 401),
        ("replayed with another offer", of_ann.clone(), &other_offer, 409),
        ("1 MiB", good.clone(), &large, 413),
        ("1,000 candidates", good.clone(), &format!("{sdp}{candidates}"), 400),
        ("duplicate mid", good.clone(), &sdp.replace("a=mid:1", "a=mid:0"), 400),
        ("no fingerprint", good, &sdp.replace("a=fingerprint", "a=x"), 400),
    ] {
        let (status, answer) = whip.ask("POST /whip/call/room", &token, body);
        assert_eq!(status, right, "{attack}: {answer}");
    }
    let (status, again) = whip.ask("POST /whip/call/room", &of_ann, &sdp);
    let body = |answer: &str| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    assert_eq!(status, 201);
    assert_eq!(body(&again), body(&answer), "the same offer gets the same answer");
    let location = location(&answer);
    let (start, code) = location.rsplit_once('-').unwrap();
    let guessed = format!("{start}-{}", code.chars().rev().collect::<String>());
    for (line, token, right) in [
        (format!("DELETE {guessed}"), &of_ann, 404),
        (format!("DELETE {location}"), &with("room", "other".into()), 403),
        (format!("DELETE {location}"), &none, 401),
    ] {
        assert_eq!(whip.ask(&line, token, "").0, right, "{line}");
    }
    assert_eq!(gateway.status().sessions, 2);
    hears_on(&mut ann.phone, &mut bob.phone);

    assert_eq!(whip.ask(&format!("DELETE {location}"), &of_ann, "").0, 200);
    let reason = gateway.expect_event("the session ends", |event| match event {
        CoreEvent::Closed { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, CloseReason::Requested);
}

/// Connections of a flood: as many as have places.
const FLOOD: usize = 2_048;

/// Attackers that open connections at the same time.
const ATTACKERS: usize = 4;

/// An idle connection is closed after this time.
const IDLE_FOR: Duration = Duration::from_secs(5);

/// A flood of requests with this first line, headers about the content, and token.
struct ConnectionFlood {
    line: String,
    kind: &'static str,
    token: String,
    /// The length of the bodies, which do not come.
    body: usize,
}

impl ConnectionFlood {
    /// Opens the connections. Each has been answered, if it has no body, or has given way.
    fn open(&self, whip: &Whip, from: Option<&Host>) -> Vec<Box<dyn Connection>> {
        let ConnectionFlood { line, kind, token, body } = self;
        let attack = || {
            let _inside = from.map(|host| host.enter().unwrap());
            let opened = (0..FLOOD / ATTACKERS).map(|_| {
                let mut stream = whip.hold(line, kind, token, *body);
                if *body == 0 {
                    let _ = stream.read(&mut [0; 16]);
                }
                stream
            });
            opened.collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let attackers: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(attack)).collect();
            attackers.into_iter().flat_map(|attacker| attacker.join().unwrap()).collect()
        })
    }
}

/// A client that opened a session with this token.
struct Member {
    token: String,
    location: String,
}

impl Member {
    fn join(whip: &Whip, id: &str) -> Member {
        let token = token(&claims(id));
        let (status, answer) = whip.ask("POST /whip/call/room", &token, &WebrtcPhone::new(1).sdp());
        assert_eq!(status, 201, "{id}: {answer}");
        Member { token, location: location(&answer).to_owned() }
    }

    /// The client's requests about its own session are answered.
    fn leave(&self, whip: &Whip) {
        let Member { token, location } = self;
        let patch = format!("PATCH {location}");
        let (status, answer) = whip.ask_of(&patch, FRAGMENT, token, "a=end-of-candidates\r\n");
        assert_eq!(status, 204, "{answer}");
        let (status, answer) = whip.ask(&format!("DELETE {location}"), token, "");
        assert_eq!(status, 200, "{answer}");
    }
}

/// Clients join and leave.
fn assert_clients_get_in(whip: &Whip, member: &Member, round: usize) {
    for number in 0..8 {
        Member::join(whip, &format!("newcomer-{round}-{number}"));
    }
    member.leave(whip);
}

#[test]
fn expired_token_takes_no_place() {
    let node = Node::agent("east-a1");
    let (_gateway, whip) = Whip::of_process(&node);
    let mut expired = claims("expired");
    expired["exp"] = 1_000.into();
    let line = "DELETE /whip/call/room/s1-0123456789abcdef".to_owned();
    let flood = ConnectionFlood { line, kind: SDP, token: token(&expired), body: 0 };
    // A round counts if no connection of the flood was closed because it was idle.
    let counts = (0..5).any(|round| {
        let ann = Member::join(&whip, &format!("ann-{round}"));
        let began = Instant::now();
        let held = flood.open(&whip, None);
        assert_clients_get_in(&whip, &ann, round);
        drop(held);
        began.elapsed() < IDLE_FOR
    });
    assert!(counts, "the machine is too slow to attack");
}

#[test]
fn live_token_takes_few_places() {
    let node = Node::agent("east-a1");
    let (_gateway, whip) = Whip::of_process(&node);
    let ann = Member::join(&whip, "ann");
    let (line, token) = ("POST /whip/call/room".to_owned(), token(&claims("flood")));
    let held = ConnectionFlood { line, kind: SDP, token, body: 100 }.open(&whip, None);
    assert_clients_get_in(&whip, &ann, 0);
    drop(held);
}

/// The flood comes over TLS from another host than the clients.
#[required(Namespaces)]
#[test]
fn session_url_takes_few_places() {
    let (place, folder) = (Hosts::lay(), tempdir().unwrap());
    let node = place.node();
    let [own, attacker, _] = &place.gateways[..] else { panic!("three hosts") };
    let (certificate, lines) = certificate(folder.path());
    let mut world = World::of(&[&node]);
    world.listens =
        format!("[[listen]]\nudp = \"{}:7000\"\nidentity = [\"stun\"]\n", own.address());
    let address = (own.address(), 8_443).into();
    world.admin = WEBRTC.replace("127.0.0.1:0", &format!("{address}")) + &lines;
    let _gateway = at(own, || GatewayProcess::start(&world));
    let whip = Whip::secure(address, certificate);
    let mut mallory = claims("mallory");
    let session = at(attacker, || Member::join(&whip, "mallory"));
    mallory["exp"] = 1_000.into();
    let (line, token) = (format!("PATCH {}", session.location), token(&mallory));
    let flood = ConnectionFlood { line, kind: FRAGMENT, token, body: 100 };
    let ann = at(&place.client, || Member::join(&whip, "ann"));
    let held = flood.open(&whip, Some(attacker));
    at(&place.client, || assert_clients_get_in(&whip, &ann, 0));
    drop(held);
}

#[test]
fn used_token_opens_nothing_after_a_restart() {
    let node = Node::agent("east-a1");
    let (mut gateway, whip) = Whip::of_process(&node);
    let (sdp, used) = (WebrtcPhone::new(1).sdp(), token(&claims("token-that-is-used")));
    let (status, answer) = whip.ask("POST /whip/call/room", &used, &sdp);
    assert_eq!(status, 201, "{answer}");
    // The answer waits for the disk, but no longer than a fifth of a second.
    gateway.await_written("token-that-is-used");
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    let (status, answer) = whip.ask("POST /whip/call/room", &used, &sdp);
    assert_eq!(status, 409, "{answer}");
    let (status, answer) = whip.ask("POST /whip/call/room", &token(&claims("t2")), &sdp);
    assert_eq!(status, 201, "{answer}");
}
