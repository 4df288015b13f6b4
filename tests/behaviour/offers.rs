//! Offers that cannot be are refused with their reason, and nothing changes.

use std::sync::Arc;

use evenkeel_core::{Identity, Ingress, Refused};
use evenkeel_server::control::Failed;

use crate::harness::{Node, Phone, World, declared, offer, talk, udp_of, wait_until};

#[test]
fn an_address_has_one_session_at_a_time() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    let again = gateway.try_open(offer("another", declared(&ann)));
    assert_eq!(again, Err(Failed::AddressTaken(ann.address())));
    gateway.ask(gateway.handle.close(opened.session)).unwrap();
    gateway.open(offer("another", declared(&ann)));
}

#[test]
fn two_offers_for_one_address_at_once_get_one_session() {
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
    assert_eq!(refused, Some(&Failed::AddressTaken(ann.address())));
    let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
    assert_eq!(
        sessions.iter().map(|session| session.session).collect::<Vec<_>>(),
        [opened.session]
    );
}

#[test]
fn what_does_not_exist_cannot_be_asked_for() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let ann = Phone::new(1);
    let named = |name: &str| {
        let mut wanted = offer("room", declared(&ann));
        wanted.nodes = vec![(name.into(), ann.address())];
        wanted
    };
    assert_eq!(gateway.try_open(named("nobody")), Err(Failed::UnknownNode("nobody".into())));
    let mut unknown = offer("room", declared(&ann));
    unknown.scenario = Arc::from("opera");
    assert_eq!(
        gateway.try_open(unknown),
        Err(Failed::Refused(Refused::UnknownScenario("opera".into())))
    );
    for ingress in [
        Ingress::Quic,
        Ingress::Udp(Identity::Stun),
        Ingress::Udp(Identity::DeclaredIp(ann.address().ip())),
        // The one listener is of the other kind, and this client could never reach it.
        Ingress::Udp(Identity::Declared { address: "[::1]:4000".parse().unwrap(), rtcp: None }),
    ] {
        assert_eq!(gateway.try_open(offer("room", ingress)), Err(Failed::NoListener));
    }
    assert_eq!(gateway.status().rooms, 0);
    gateway.open(named("east-a1"));
}

#[test]
fn sessions_are_bounded() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.limits += "sessions = 2\n";
    let gateway = world.start();
    let phones: Vec<Phone> = (1..=3).map(Phone::new).collect();
    let first = gateway.open(offer("room", declared(&phones[0])));
    gateway.open(offer("room", declared(&phones[1])));
    let third = offer("room", declared(&phones[2]));
    let refused = gateway.try_open(third.clone());
    assert!(matches!(refused, Err(Failed::Refused(Refused::Full { .. }))), "{refused:?}");
    gateway.ask(gateway.handle.close(first.session)).unwrap();
    gateway.open(third);
}

#[test]
fn a_node_without_room_refuses_the_newcomer_and_a_dead_one_takes_nobody() {
    let node = Node::with("east-a1", "127.0.0.1:0", |options| options.sessions_max = 1);
    let mut node = node.without_canaries();
    let gateway = World::of(&[&node]).start();
    let (mut ann, bob) = (Phone::new(1), Phone::new(2));
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.dial(udp_of(&opened));
    let refused = gateway.try_open(offer("room", declared(&bob)));
    let Err(Failed::NotOpened { node: by, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(by, opened.route[0].node);
    talk(&mut [&mut ann], "who talks talks on", |phones| phones[0].heard.len() >= 10);
    node.kill();
    wait_until("nobody is let in", || {
        matches!(
            gateway.try_open(offer("other", declared(&bob))),
            Err(Failed::Refused(Refused::NoNode { .. }) | Failed::NotOpened { .. })
        )
    });
}

#[test]
fn only_what_was_declared_passes() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.dial(udp_of(&opened));
    ann.voice.payload_type = 112;
    ann.speak();
    ann.send(&[0x80, 111, 0]);
    wait_until("it is counted", || {
        gateway.drops("undeclared-payload") == 1 && gateway.drops("malformed") == 1
    });
    assert_eq!(gateway.status().packets_to_node, 0);
}

#[test]
fn a_packet_too_large_to_share_a_datagram_goes_alone() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.dial(udp_of(&opened));
    ann.voice.size = 1_388;
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    assert_eq!(ann.heard[0].length, 1_400);
    assert_eq!(gateway.drops("oversize"), 0);
}

#[test]
fn a_port_is_not_shared_with_another_gateway() {
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
