//! Sessions that clients open by WHIP (RFC 9725) and WHEP.

use evenkeel_model::{CloseReason, CoreEvent};
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::whip::{WEBRTC, Whip, claims, hears_on, location, token};
use crate::harness::{
    Credentials, Gateway, Hosts, Node, WebrtcPhone, World, assert_continuous, await_replica, talk,
    wait_until,
};

fn world(nodes: &[&Node]) -> World {
    let mut world = World::of(nodes).with_identities("[\"stun\"]");
    world.admin = WEBRTC.into();
    world
}

/// A client that has connected by this request, with the answer.
pub(crate) fn client(whip: &Whip, id: u64, path: &str, direction: &str) -> (WebrtcPhone, String) {
    let mut claims = claims(&format!("token-{id}"));
    claims["direction"] = direction.into();
    let mut client = WebrtcPhone::new(id);
    let (status, answer) = whip.ask(&format!("POST {path}"), &token(&claims), &client.sdp());
    assert_eq!(status, 201, "{answer}");
    let (address, credentials) = Credentials::in_answer(&answer);
    client.connect(address, &credentials).unwrap();
    (client, answer)
}

fn publisher_and_viewer(gateway: &Gateway) -> (Whip, [WebrtcPhone; 2], String) {
    let whip = Whip::of(gateway);
    let (publisher, answer) = client(&whip, 1, "/whip/call/room", "publish");
    let (viewer, _) = client(&whip, 2, "/whep/call/room", "view");
    (whip, [publisher, viewer], answer)
}

#[test]
fn viewer_hears_publisher_until_it_deletes_its_session() {
    let node = Node::agent("east-a1");
    let gateway = world(&[&node]).start();
    let (whip, [mut publisher, mut viewer], answer) = publisher_and_viewer(&gateway);
    hears_on(&mut publisher.phone, &mut viewer.phone);
    let delete = format!("DELETE {}", location(&answer));
    assert_eq!(whip.ask(&delete, &token(&claims("token-1")), "").0, 200);
    let reason = gateway.expect_event("the session ends", |event| match event {
        CoreEvent::Closed { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, CloseReason::Requested);
    wait_until("only the viewer's is left", || gateway.status().sessions == 1);
}

#[test]
fn viewer_hears_on_after_the_death_of_its_node() {
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway = world(&nodes.each_ref()).start();
    let (_whip, [mut publisher, mut viewer], _) = publisher_and_viewer(&gateway);
    hears_on(&mut publisher.phone, &mut viewer.phone);
    let at = viewer.phone.heard.last().unwrap().mark.node;
    nodes.sort_by_key(|node| node.number() != at);
    let [victim, other] = &mut nodes;
    victim.die();
    let mut phones = [&mut publisher.phone, &mut viewer.phone];
    talk(&mut phones, "the viewer hears by the other node", |phones| {
        phones[1].last_heard_via(other.number())
    });
    assert_continuous(&viewer.phone.heard_from(1, 0));
}

#[required(Namespaces)]
#[test]
fn session_url_holds_at_standby_and_after_takeover() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, _standby] = place.group_with(&node.text(), |_, world| {
        world.listens = world.listens.replace("declared", "stun");
        world.admin = WEBRTC.replace("127.0.0.1:0", "127.0.0.1:8443");
    });
    let whip = Whip::at(([127, 0, 0, 1], 8443).into());
    let ask = |edge: usize, line: &str, token: &str, body: &str| {
        let _inside = place.gateways[edge].enter().unwrap();
        whip.ask(line, token, body)
    };
    await_replica(&mut owner);
    let open = |edge: usize, id: &str| {
        let token = token(&claims(id));
        let sdp = WebrtcPhone::new(1 + edge as u64).sdp();
        let (status, answer) = ask(edge, "POST /whip/call/room", &token, &sdp);
        assert_eq!(status, 201, "{answer}");
        (format!("DELETE {}", location(&answer)), token)
    };
    let (end_ann, of_ann) = open(0, "t1");
    let (end_bob, of_bob) = open(1, "t2");
    let (status, answer) = ask(0, &end_bob, &of_bob, "");
    assert_eq!(status, 200, "the owner knows a URL that its standby made: {answer}");
    owner.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the standby owns the address", || place.has_address(1));
    let mut answer = (503, String::new());
    wait_until("the new owner answers", || {
        answer = ask(1, &end_ann, &of_ann, "");
        answer.0 != 503
    });
    assert_eq!(answer.0, 200, "{}", answer.1);
}

/// Sends an offer with this token, and returns the status and the text of the answer.
fn publish(whip: &Whip, sdp: &str, claims: &Value) -> (u16, String) {
    whip.ask("POST /whip/call/room", &token(claims), sdp)
}

#[test]
fn new_session_of_a_reused_token_ends_the_one_before() {
    let node = Node::agent("east-a1");
    let gateway = world(&[&node]).start();
    let whip = Whip::of(&gateway);
    let mut claims = claims("encoder");
    claims["reuse"] = true.into();
    let mut newest = String::new();
    for number in 1..=3 {
        let sdp = WebrtcPhone::new(number).sdp();
        let (status, answer) = publish(&whip, &sdp, &claims);
        assert_eq!(status, 201, "{answer}");
        let again = publish(&whip, &sdp, &claims);
        assert_eq!((again.0, location(&again.1)), (201, location(&answer)), "a repetition");
        wait_until("one session is left", || gateway.status().sessions == 1);
        newest = location(&answer).to_owned();
    }
    let delete = whip.ask(&format!("DELETE {newest}"), &token(&claims), "");
    assert_eq!(delete.0, 200, "the newest session is the one that is left");
}

#[test]
fn token_has_as_many_sessions_as_it_says() {
    let node = Node::agent("east-a1");
    let gateway = world(&[&node]).start();
    let whip = Whip::of(&gateway);
    let mut claims = claims("players");
    claims["sessions"] = 2.into();
    let offers = [1, 2, 3, 4].map(|number| WebrtcPhone::new(number).sdp());
    let [one, _two] = [0, 1].map(|at| publish(&whip, &offers[at], &claims));
    assert_eq!(one.0, 201, "{}", one.1);
    wait_until("both are open", || gateway.status().sessions == 2);
    let (status, answer) = publish(&whip, &offers[2], &claims);
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains("as many sessions open as it allows"), "{answer}");
    assert_eq!(whip.ask(&format!("DELETE {}", location(&one.1)), &token(&claims), "").0, 200);
    wait_until("a place is free", || publish(&whip, &offers[2], &claims).0 == 201);
    assert_eq!(publish(&whip, &offers[3], &claims).0, 409);
}
