//! Strangers, and clients with tokens, at the address of WHIP and WHEP.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use evenkeel_model::{CloseReason, CoreEvent};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::whip::{WEBRTC, Whip, claims, hears_on, location, signed, token};
use crate::harness::{Credentials, GatewayProcess, Node, SECRET, TIMEOUT, WebrtcPhone, World};

#[test]
fn forged_whip_requests_open_and_end_nothing() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_identities("[\"stun\"]");
    world.admin = WEBRTC.into();
    let gateway = world.start();
    let whip = Whip::of(&gateway);
    let idle: Vec<TcpStream> = (0..300).map(|_| whip.connect()).collect();
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

/// Connections that a flood holds, as many as have places.
const FLOOD: usize = 2_048;

/// During a flood new offers are answered, and a client ends its session.
fn assert_clients_get_in(flood_token: &dyn Fn(&Whip) -> (String, String)) {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_identities("[\"stun\"]");
    world.admin = WEBRTC.into();
    let gateway = world.start();
    let whip = Whip::of(&gateway);
    let sdp = WebrtcPhone::new(1).sdp();
    let of_ann = token(&claims("ann"));
    let (status, answer) = whip.ask("POST /whip/call/room", &of_ann, &sdp);
    assert_eq!(status, 201, "{answer}");
    let location = location(&answer);

    let (line, flooding) = flood_token(&whip);
    let held: Vec<TcpStream> = (0..FLOOD).map(|_| whip.hold(&line, &flooding)).collect();
    // Each connection is answered, or has given way.
    for mut stream in &held {
        let _ = stream.read(&mut [0; 16]);
    }
    for number in 0..8 {
        let sdp = WebrtcPhone::new(2 + number).sdp();
        let token = token(&claims(&format!("newcomer-{number}")));
        let (status, answer) = whip.ask("POST /whip/call/room", &token, &sdp);
        assert_eq!(status, 201, "offer {number}: {answer}");
    }
    let (status, answer) = whip.ask(&format!("DELETE {location}"), &of_ann, "");
    assert_eq!(status, 200, "{answer}");
    drop(held);
}

#[test]
fn expired_token_takes_no_place() {
    assert_clients_get_in(&|_| {
        let mut expired = claims("expired");
        expired["exp"] = 1_000.into();
        ("DELETE /whip/call/room/s1-0123456789abcdef".to_owned(), token(&expired))
    });
}

#[test]
fn live_token_takes_few_places() {
    // The offer is refused for its type, after the token.
    assert_clients_get_in(&|_| ("POST /whip/call/room".to_owned(), token(&claims("flood"))));
}

#[test]
fn session_url_takes_few_places() {
    assert_clients_get_in(&|whip| {
        let mut expired = claims("mallory");
        let sdp = WebrtcPhone::new(20).sdp();
        let (status, answer) = whip.ask("POST /whip/call/room", &token(&expired), &sdp);
        assert_eq!(status, 201, "{answer}");
        let location = location(&answer);
        expired["exp"] = 1_000.into();
        (format!("PATCH {location}"), token(&expired))
    });
}

#[test]
fn used_token_opens_nothing_after_a_restart() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_identities("[\"stun\"]");
    // Free until the gateway binds it.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.admin = WEBRTC.replace("127.0.0.1:0", &address.to_string());
    let mut gateway = GatewayProcess::start(&world);
    let whip = Whip::at(address);
    let (sdp, used) = (WebrtcPhone::new(1).sdp(), token(&claims("t1")));
    let (status, answer) = whip.ask("POST /whip/call/room", &used, &sdp);
    assert_eq!(status, 201, "{answer}");
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    let (status, answer) = whip.ask("POST /whip/call/room", &used, &sdp);
    assert_eq!(status, 409, "{answer}");
    let (status, answer) = whip.ask("POST /whip/call/room", &token(&claims("t2")), &sdp);
    assert_eq!(status, 201, "{answer}");
}
