//! Agents beside media servers: a death that speaks, trunk legs for who knows none, drills.

use std::net::SocketAddr;

use evenkeel_core::{Cause, Decider, Event, Health, Hop, Witness};
use evenkeel_lab::sample_node::{PlainRoom, number_of};
use evenkeel_media::trunk::message::Break;
use evenkeel_server::control::{Disobeyed, Failed, Opened, Order};
use nix::sys::signal::Signal;

use crate::harness::{
    Beside, Gateway, Heard, Node, Phone, Process, World, complete, continuous, declared, offer,
    talk, udp_of, wait_until,
};

fn node(name: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nregion = \"east\"\nzone = \"a\"\n\
         capacity = \"200 Mbit/s\"\n{more}\n"
    )
}

const AGENT: &str = "driver = \"agent\"\nsecret_file = \"secret\"";

/// A gateway in front of one node more than there are.
fn gateway_before(nodes: &[&Node], more: &str) -> Gateway {
    let mut world = World::of(nodes);
    world.nodes += more;
    world.start()
}

/// Somebody who talks with herself at this node.
fn call_at(gateway: &Gateway, node: &str) -> (Phone, Opened) {
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.dial(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 3);
    match gateway.ask(gateway.handle.move_room("room".into(), node.into())) {
        Ok(()) | Err(Failed::Impossible(evenkeel_core::Impossible::AlreadyThere)) => {}
        Err(other) => panic!("{other:?}"),
    }
    hears_by(&mut ann, node);
    (ann, opened)
}

fn hears_by(ann: &mut Phone, node: &str) {
    let number = number_of(node);
    let by = |phone: &Phone| phone.heard.iter().filter(|heard| heard.mark.node == number).count();
    let before = by(ann);
    talk(&mut [ann], "she hears herself there", |phones| by(phones[0]) >= before + 10);
}

/// A move may leave numbers free for what comes late, so numbers are not what is counted.
fn missed_nothing(ann: &Phone) {
    let heard = ann.heard_of(1, 0);
    continuous(&heard);
    let number = |heard: Option<&Heard>| heard.map(|heard| heard.mark.number);
    let (first, last) = number(heard.first()).zip(number(heard.last())).unwrap();
    complete(&heard, first, last + 1);
}

/// The witnesses of a node's death.
fn death(gateway: &Gateway, place: u32) -> Vec<Witness> {
    gateway.expect_event("it is down", |event| match event {
        Event::Node { hop, to: Health::Down, witnesses, .. } if hop.node.0 == place => {
            Some(witnesses.iter().map(|(witness, _)| *witness).collect())
        }
        _ => None,
    })
}

fn health(gateway: &Gateway, place: usize) -> (Health, u32) {
    let node = &gateway.ask(gateway.handle.nodes()).unwrap()[place];
    (node.health, node.incarnation.0)
}

#[test]
fn a_server_that_knows_nothing_of_trunks_is_carried_watched_and_missed_at_once() {
    let place = Beside::new("third-party");
    let mut server = Process::server("east-a9", "127.0.0.1:0");
    let at = server.address;
    place.note(&server);
    let agent = place.agent(&format!(
        "[check]\naddress = \"{at}\"\nhow = \"echo\"\n[media]\nserver = \"{at}\"\nsessions = 7"
    ));
    let other = Node::agent("east-b1");
    let gateway = gateway_before(&[&other], &node("east-a9", agent.address, AGENT));
    let (mut ann, opened) = call_at(&gateway, "east-a9");
    missed_nothing(&ann);
    wait_until("its load is known", || {
        let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
        nodes[1].measured_permille.is_some_and(|permille| permille >= 1_000 / 7)
    });

    server.kill();
    assert!(death(&gateway, 1).contains(&Witness::Agent));
    hears_by(&mut ann, "east-b1");
    assert!(gateway.session(&opened).is_some());

    let server = Process::server("east-a9", &at.to_string());
    place.note(&server);
    wait_until("it is back, as another", || {
        matches!(health(&gateway, 1), (Health::Wary | Health::Up, 2..))
    });
    gateway.ask(gateway.handle.move_room("room".into(), "east-a9".into())).unwrap();
    hears_by(&mut ann, "east-a9");
    continuous(&ann.heard_of(1, 0));
    // Nothing answers for it, though the agent lives.
    server.signal(Signal::SIGSTOP);
    hears_by(&mut ann, "east-b1");
    server.signal(Signal::SIGCONT);
}

#[test]
fn a_node_that_speaks_for_itself_is_watched_and_broken_by_the_agent_beside_it() {
    let place = Beside::new("sample");
    let sample = Process::node("east-a9", &place);
    place.note(&sample);
    let agent = place.agent("drills = true");
    let other = Node::agent("east-b1");
    let beside = format!("{AGENT}\nagent = \"{}\"", agent.address);
    let gateway = gateway_before(&[&other], &node("east-a9", sample.address, &beside));
    let (mut ann, _) = call_at(&gateway, "east-a9");
    let order = |how| gateway.ask(gateway.handle.order("east-a9".into(), Order::Break(how)));

    let forbidden = Failed::Agent { node: "east-a9".into(), why: Disobeyed::Forbidden };
    assert_eq!(
        order(Break::Cut),
        Err(forbidden),
        "its packets are its own, and it allows no drills"
    );
    order(Break::Hang).unwrap();
    hears_by(&mut ann, "east-b1");
    assert!(!death(&gateway, 1).contains(&Witness::Agent), "it lives, and does nothing");
    order(Break::Wake).unwrap();
    wait_until("it is back, as another", || {
        matches!(health(&gateway, 1), (Health::Wary | Health::Up, 2..))
    });
    gateway.ask(gateway.handle.move_room("room".into(), "east-a9".into())).unwrap();
    hears_by(&mut ann, "east-a9");

    order(Break::Kill).unwrap();
    hears_by(&mut ann, "east-b1");
    gateway.expect_event("the agent's word", |event| match event {
        Event::Node { hop, to: Health::Down, witnesses, .. } if hop.incarnation.0 == 2 => {
            assert_eq!(hop.node.0, 1);
            witnesses.iter().any(|(witness, _)| *witness == Witness::Agent).then_some(())
        }
        _ => None,
    });
    let unable =
        |how| Failed::Agent { node: "east-a9".into(), why: Disobeyed::Unable(Order::Break(how)) };
    assert_eq!(order(Break::Kill), Err(unable(Break::Kill)), "it is dead");
}

#[test]
fn a_way_that_is_cut_carries_nothing_until_it_is_healed() {
    let place = Beside::new("cut");
    let server = Process::server("east-a9", "127.0.0.1:0");
    place.note(&server);
    let at = server.address;
    let agent = place.agent(&format!("drills = true\n[media]\nserver = \"{at}\""));
    let other = Node::agent("east-b1");
    let gateway = gateway_before(&[&other], &node("east-a9", agent.address, AGENT));
    let (mut ann, _) = call_at(&gateway, "east-a9");
    let order = |how| gateway.ask(gateway.handle.order("east-a9".into(), Order::Break(how)));
    order(Break::Cut).unwrap();
    hears_by(&mut ann, "east-b1");
    assert!(!death(&gateway, 1).contains(&Witness::Agent));
    order(Break::Heal).unwrap();
    wait_until("it is back", || matches!(health(&gateway, 1), (Health::Wary | Health::Up, 2..)));
}

#[test]
fn who_may_not_be_broken_is_not_and_the_reason_is_told() {
    let place = Beside::new("forbidden");
    let server = Process::server("east-a9", "127.0.0.1:0");
    place.note(&server);
    let agent = place.agent("");
    let nodes = [Node::agent("east-a1"), Node::plain("east-b1", "echo", PlainRoom::Alone)];
    let beside = format!(
        "driver = \"plain\"\nprobe = \"echo\"\nagent = \"{}\"\nsecret_file = \"secret\"",
        agent.address
    );
    let gateway = gateway_before(&nodes.each_ref(), &node("east-a9", server.address, &beside));
    let order = |name: &str, order| gateway.ask(gateway.handle.order(name.into(), order));
    let kill = Order::Break(Break::Kill);
    let why = |name: &str, why| Err(Failed::Agent { node: name.into(), why });
    assert_eq!(order("east-a9", kill), why("east-a9", Disobeyed::Forbidden));
    assert_eq!(order("east-a9", Order::Start), Ok(()), "it runs");
    assert_eq!(order("east-a1", kill), why("east-a1", Disobeyed::Unable(kill)));
    assert_eq!(order("east-b1", kill), why("east-b1", Disobeyed::NoAgent));
    let nowhere = order("east-z", kill);
    assert!(matches!(nowhere, Err(Failed::Unfound { known, .. }) if known.len() == 3));
    drop(agent);
    assert_eq!(order("east-a9", kill), why("east-a9", Disobeyed::Silent));
    assert_eq!(health(&gateway, 2), (Health::Up, 1), "an agent that is gone says nothing of it");
}

#[test]
fn a_node_that_drains_by_itself_loses_its_rooms_and_no_packet() {
    let place = Beside::new("drain");
    let sample = Process::node("east-a9", &place);
    place.note(&sample);
    let agent = place.agent("");
    let other = Node::agent("east-b1");
    let beside = format!("{AGENT}\nagent = \"{}\"", agent.address);
    let gateway = gateway_before(&[&other], &node("east-a9", sample.address, &beside));
    let (mut ann, _) = call_at(&gateway, "east-a9");
    agent.signal(Signal::SIGUSR1);
    hears_by(&mut ann, "east-b1");
    let (by, from, to) = gateway.expect_event("it is told", |event| match event {
        Event::Moved { cause: Cause::Drain, by, from, to, .. } => {
            Some((by.clone(), from.node.0, to.map(|hop: Hop| hop.node.0)))
        }
        _ => None,
    });
    assert_eq!((by, from, to), (Decider::Node, 1, Some(0)));
    missed_nothing(&ann);
    let draining = || gateway.ask(gateway.handle.nodes()).unwrap()[1].draining;
    assert!(draining());
    agent.signal(Signal::SIGUSR2);
    wait_until("it serves again", || !draining());
}
