//! Offers that cannot be served are refused with a reason and change nothing.

use std::sync::Arc;

use evenkeel_client::ApiCall;
use evenkeel_contract::offers::OfferIngress;
use evenkeel_control::ControlError;
use evenkeel_model::{ClientIdentity, IngressProtocol, OfferRefusal};

use nix::sys::signal::Signal;

use crate::harness::{
    GatewayProcess, Node, Phone, TIMEOUT, World, declared, offer, talk, udp_of, wait_until,
};

#[test]
fn address_has_one_session_at_a_time() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    let again = gateway.try_open(offer("another", declared(&ann)));
    assert_eq!(again, Err(ControlError::AddressTaken(ann.address())));
    gateway.ask(gateway.handle.close(opened.session)).unwrap();
    gateway.open(offer("another", declared(&ann)));
}

#[test]
fn concurrent_offers_of_address_get_one_session() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).routed().start();
    let ann = Phone::new(1);
    let (one, two) = gateway.ask(async {
        tokio::join!(
            gateway.handle.offer(offer("room", declared(&ann))),
            gateway.handle.offer(offer("room", declared(&ann)))
        )
    });
    let opened = one.as_ref().or(two.as_ref()).unwrap();
    let refused = one.as_ref().err().or(two.as_ref().err());
    assert_eq!(refused, Some(&ControlError::AddressTaken(ann.address())));
    let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
    assert_eq!(
        sessions.iter().map(|session| session.state.session).collect::<Vec<_>>(),
        [opened.session]
    );
}

#[test]
fn offer_for_unknown_names_is_refused() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let ann = Phone::new(1);
    let named = |name: &str| {
        let mut wanted = offer("room", declared(&ann));
        wanted.nodes = vec![(name.into(), ann.address())];
        wanted
    };
    assert_eq!(gateway.try_open(named("nobody")), Err(ControlError::UnknownNode("nobody".into())));
    let mut unknown = offer("room", declared(&ann));
    unknown.scenario = Arc::from("opera");
    assert_eq!(
        gateway.try_open(unknown),
        Err(ControlError::Refused(OfferRefusal::UnknownScenario("opera".into())))
    );
    for ingress in [
        IngressProtocol::Quic,
        IngressProtocol::Udp(ClientIdentity::Stun),
        IngressProtocol::Udp(ClientIdentity::DeclaredIp(ann.address().ip())),
        // The only listener is IPv4, which this client cannot reach.
        IngressProtocol::Udp(ClientIdentity::Declared {
            address: "[::1]:4000".parse().unwrap(),
            rtcp: None,
        }),
    ] {
        assert_eq!(gateway.try_open(offer("room", ingress)), Err(ControlError::NoListener));
    }
    assert_eq!(gateway.status().rooms, 0);
    gateway.open(named("east-a1"));
}

#[test]
fn session_limit_refuses_offers() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.limits += "sessions = 2\n";
    let gateway = world.start();
    let phones: Vec<Phone> = (1..=3).map(Phone::new).collect();
    let first = gateway.open(offer("room", declared(&phones[0])));
    gateway.open(offer("room", declared(&phones[1])));
    let third = offer("room", declared(&phones[2]));
    let refused = gateway.try_open(third.clone());
    assert!(
        matches!(refused, Err(ControlError::Refused(OfferRefusal::Full { .. }))),
        "{refused:?}"
    );
    gateway.ask(gateway.handle.close(first.session)).unwrap();
    gateway.open(third);
}

#[test]
fn full_or_dead_node_refuses_sessions() {
    let node = Node::with("east-a1", "127.0.0.1:0", |options| options.sessions_max = 1);
    let mut node = node.without_canaries();
    let gateway = World::of(&[&node]).start();
    let (mut ann, bob) = (Phone::new(1), Phone::new(2));
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    let refused = gateway.try_open(offer("room", declared(&bob)));
    let Err(ControlError::NotOpened { node: by, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(by, opened.route[0].node);
    talk(&mut [&mut ann], "the first client still hears itself", |phones| {
        phones[0].heard.len() >= 10
    });
    node.kill();
    wait_until("offers are refused", || {
        matches!(
            gateway.try_open(offer("other", declared(&bob))),
            Err(ControlError::Refused(OfferRefusal::NoNode { .. }) | ControlError::NotOpened { .. })
        )
    });
}

#[test]
fn undeclared_payload_type_is_dropped() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    ann.voice.payload_type = 112;
    ann.send_media();
    ann.send(&[0x80, 111, 0]);
    wait_until("both drops are counted", || {
        gateway.drops("undeclared-payload") == 1 && gateway.drops("malformed") == 1
    });
    assert_eq!(gateway.status().packets_to_node, 0);
}

#[test]
fn large_packet_is_sent_unbundled() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    ann.voice.size = 1_388;
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    assert_eq!(ann.heard[0].length, 1_400);
    assert_eq!(gateway.drops("oversize"), 0);
}

#[test]
fn port_of_another_gateway_is_refused() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let taken = gateway.running.as_ref().unwrap().udp[0];
    let mut world = World::of(&[&node]);
    world.listens = format!("[[listen]]\nudp = \"{taken}\"\nrtcp = \"mux\"\n");
    let failure = world.try_start().err().unwrap().to_string();
    assert!(
        failure.contains(&taken.to_string()) && failure.contains("another gateway"),
        "{failure}"
    );
}

/// Its session ended with the process, and its answer with the session.
#[test]
fn key_opens_no_second_session_after_a_kill() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let ingress = OfferIngress::declared(Phone::new(1).address());
    let offer = GatewayProcess::offer("room", ingress);
    let body = serde_json::to_vec(&offer).unwrap();
    let open = |gateway: &mut GatewayProcess, key: &str| {
        let call = ApiCall {
            method: hyper::Method::POST,
            path: "/v1/sessions",
            headers: &[("idempotency-key", key)],
            body: body.clone().into(),
        };
        gateway.ask(async |client| client.ask(call).await).unwrap()
    };
    assert_eq!(open(&mut gateway, "only-once").status, 201);
    gateway.await_written("only-once");
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    assert_eq!(open(&mut gateway, "only-once").status, 409);
    assert_eq!(open(&mut gateway, "another").status, 201);
}
