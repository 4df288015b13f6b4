//! Sessions end by inactivity, by request and at shutdown.

use std::time::Duration;

use evenkeel_control::{
    AdmissionState, ControlError, GatewayEvent, ScenarioTraffic, SessionAnswer,
};
use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{CloseReason, CoreEvent, Impossible, OfferRefusal};

use crate::harness::{
    Gateway, Node, Phone, TIMEOUT, World, assert_continuous, declared, offer, talk, udp_of,
    wait_until,
};

fn closed(gateway: &Gateway, opened: &SessionAnswer) -> (CloseReason, Totals) {
    gateway.expect("the close event", |told| match &told.event {
        GatewayEvent::Core(CoreEvent::Closed { session, reason, .. })
            if *session == opened.session =>
        {
            Some((*reason, told.totals.expect("totals of the session")))
        }
        _ => None,
    })
}

/// A client alone in its room, which hears itself.
fn client_with_media(gateway: &Gateway) -> (Phone, SessionAnswer) {
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    ann.hear_rest();
    (ann, opened)
}

#[test]
fn silent_session_is_closed_active_one_kept() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.scenario += "close_after = \"1s\"\n";
    let gateway = world.start();
    let (mut ann, opened) = client_with_media(&gateway);
    let (mut bob, silent) = (Phone::new(2), Phone::new(3));
    let quiet = gateway.open(offer("other", declared(&silent)));
    let left = gateway.open(offer("left", declared(&bob)));
    bob.set_target(udp_of(&left));
    bob.send_media();
    talk(&mut [&mut ann], "both are closed", |_| {
        gateway.session(&quiet).is_none() && gateway.session(&left).is_none()
    });
    assert_eq!(closed(&gateway, &quiet), (CloseReason::MediaTimeout, Totals::default()));
    let (reason, totals) = closed(&gateway, &left);
    assert_eq!((reason, totals.packets_up), (CloseReason::MediaTimeout, 1));
    assert!(gateway.session(&opened).is_some());
}

#[test]
fn closed_session_forwards_nothing() {
    let mut node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    assert_eq!(gateway.status().scenario_traffic["call"], ScenarioTraffic::default());
    let (mut ann, opened) = client_with_media(&gateway);
    gateway.ask(gateway.handle.close(opened.session)).unwrap();
    let (reason, totals) = closed(&gateway, &opened);
    assert_eq!(reason, CloseReason::Requested);
    assert_eq!(totals.packets_up, ann.voice.sent);
    let bytes: usize = ann.heard.iter().map(|heard| heard.length).sum();
    assert_eq!((totals.packets_down, totals.bytes_down), (ann.heard.len() as u64, bytes as u64));
    let traffic = gateway.status().scenario_traffic["call"];
    assert_eq!(
        (traffic.packets_up, traffic.packets_down),
        (totals.packets_up, totals.packets_down)
    );
    let heard = ann.heard.len();
    let to_node = gateway.status().packets_to_node;
    talk(&mut [&mut ann], "it is counted", |_| gateway.drops("unknown-source") >= 5);
    assert_eq!(ann.heard.len(), heard);
    assert_eq!(gateway.status().packets_to_node, to_node);
    gateway.ask(gateway.handle.close(opened.session)).expect("a repetition is answered alike");
    assert_eq!(gateway.status().rooms, 0);
    drop(gateway);
    assert_eq!(node.kill().closed, 1, "the node was notified");
}

#[test]
fn session_of_another_group_is_not_closed() {
    let node = Node::agent("east-a1");
    let world = World::of(&[&node]);
    let gateways = [world.start(), world.start()];
    let phones = [Phone::new(1), Phone::new(2)];
    let offers = phones.each_ref().map(|phone| offer("room", declared(phone)));
    let opened: Vec<_> =
        gateways.iter().zip(offers).map(|(gateway, wanted)| gateway.open(wanted)).collect();
    for (gateway, other) in gateways.iter().zip([1, 0]) {
        let none = gateway.ask(gateway.handle.close(opened[other].session)).unwrap_err();
        assert!(matches!(none, ControlError::Impossible(Impossible::NoSuchSession)), "{none:?}");
    }
    let both = gateways.iter().zip(&opened);
    assert!(both.clone().all(|(gateway, opened)| gateway.session(opened).is_some()));
    for (gateway, opened) in both {
        gateway.ask(gateway.handle.close(opened.session)).unwrap();
        gateway.ask(gateway.handle.close(opened.session)).expect("a repetition is answered alike");
    }
}

#[test]
fn panic_on_packet_ends_only_its_session() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let (mut ann, broken) = client_with_media(&gateway);
    let mut bob = Phone::new(2);
    let whole = gateway.open(offer("other", declared(&bob)));
    bob.set_target(udp_of(&whole));
    talk(&mut [&mut ann, &mut bob], "he hears himself", |phones| phones[1].heard.len() >= 10);
    gateway.ask(gateway.handle.panic_session(broken.session)).unwrap();
    talk(&mut [&mut ann, &mut bob], "her session is gone", |_| gateway.session(&broken).is_none());
    let (reason, totals) = closed(&gateway, &broken);
    assert_eq!(reason, CloseReason::Panicked);
    assert!(totals.packets_up > 0, "totals of the last report");
    assert!(gateway.ask(gateway.handle.panic_session(broken.session)).is_err());
    let again = gateway.open(offer("room", declared(&ann)));
    let (hers, his) = (ann.heard.len(), bob.heard.len());
    talk(&mut [&mut ann, &mut bob], "both are heard", |phones| {
        phones[0].heard.len() >= hers + 20 && phones[1].heard.len() >= his + 20
    });
    assert!(gateway.session(&again).is_some() && gateway.session(&whole).is_some());
    let heard = bob.heard_from(2, 0);
    assert_eq!((assert_continuous(&heard), heard.len()), (0, bob.heard.len()), "he lost no packet");
}

#[test]
fn shutdown_refuses_offers_and_waits_for_last() {
    let node = Node::agent("east-a1");
    let mut gateway = World::of(&[&node]).start();
    let (mut ann, opened) = client_with_media(&gateway);
    let handle = gateway.handle.clone();
    let ending = gateway.runtime.spawn(async move { handle.shut_down(TIMEOUT * 2).await });
    gateway.expect_event("the shutdown event", |event| {
        gateway.ask(tokio::task::yield_now());
        matches!(event, CoreEvent::ShuttingDown).then_some(())
    });
    let bob = Phone::new(2);
    let refused = gateway.try_open(offer("room", declared(&bob)));
    assert_eq!(refused, Err(ControlError::Refused(OfferRefusal::Draining)));
    assert_eq!(gateway.status().state, AdmissionState::Draining);
    let heard = ann.heard.len();
    talk(&mut [&mut ann], "she talks on", |phones| phones[0].heard.len() >= heard + 20);
    gateway.ask(gateway.handle.close(opened.session)).unwrap();
    gateway.ask(ending).unwrap().unwrap();
    assert_eq!(closed(&gateway, &opened).0, CloseReason::Requested);
    gateway.running.take().unwrap().join().unwrap();
}

#[test]
fn shutdown_deadline_closes_sessions() {
    let node = Node::agent("east-a1");
    let mut gateway = World::of(&[&node]).start();
    let (ann, opened) = client_with_media(&gateway);
    gateway.ask(gateway.handle.shut_down(Duration::from_millis(100))).unwrap();
    let (reason, totals) = closed(&gateway, &opened);
    assert_eq!((reason, totals.packets_up), (CloseReason::Shutdown, ann.voice.sent));
    gateway.running.take().unwrap().join().unwrap();
    std::net::UdpSocket::bind(ann.target).unwrap();
}

#[test]
fn second_shutdown_request_ends_at_once() {
    let node = Node::agent("east-a1");
    let mut gateway = World::of(&[&node]).start();
    let (_ann, opened) = client_with_media(&gateway);
    let handle = gateway.handle.clone();
    let patient = gateway.runtime.spawn(async move { handle.shut_down(TIMEOUT * 100).await });
    wait_until("it refuses offers", || gateway.status().state == AdmissionState::Draining);
    gateway.ask(gateway.handle.shut_down(Duration::ZERO)).unwrap();
    assert_eq!(closed(&gateway, &opened).0, CloseReason::Shutdown);
    patient.abort();
    gateway.running.take().unwrap().join().unwrap();
}
