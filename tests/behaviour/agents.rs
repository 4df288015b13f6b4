//! Agents beside media servers: process exits, trunk legs for servers without trunks, drills.

use std::net::SocketAddr;

use evenkeel_control::{AgentError, ControlError, NodeOrder, SessionAnswer};
use evenkeel_lab::sample_node::{PlainRoom, number_of};
use evenkeel_media::trunk::message::NodeFault;
use evenkeel_model::{CoreEvent, Decider, EvidenceSource, Health, Hop, MoveCause};
use nix::sys::signal::Signal;

use crate::harness::{
    AgentFiles, Gateway, Heard, Node, Phone, World, assert_complete, assert_continuous, declared,
    offer, talk, udp_of, wait_until,
};

fn node(name: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nregion = \"east\"\nzone = \"a\"\n\
         capacity = \"200 Mbit/s\"\n{more}\n"
    )
}

const AGENT: &str = "driver = \"agent\"\nsecret_file = \"secret\"";

/// A gateway with these nodes and the tables of `more`.
fn gateway_before(nodes: &[&Node], more: &str) -> Gateway {
    let mut world = World::of(nodes);
    world.nodes += more;
    world.start()
}

/// A client alone in a room at this node, so it hears itself.
fn call_at(gateway: &Gateway, node: &str) -> (Phone, SessionAnswer) {
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 3);
    match gateway.ask(gateway.handle.move_room("room".into(), node.into())) {
        Ok(()) | Err(ControlError::Impossible(evenkeel_model::Impossible::AlreadyThere)) => {}
        Err(other) => panic!("{other:?}"),
    }
    wait_heard_via(&mut ann, node);
    (ann, opened)
}

fn wait_heard_via(ann: &mut Phone, node: &str) {
    let number = number_of(node);
    let by = |phone: &Phone| phone.heard.iter().filter(|heard| heard.mark.node == number).count();
    let before = by(ann);
    talk(&mut [ann], "she hears herself there", |phones| by(phones[0]) >= before + 10);
}

/// A move may skip sequence numbers for late packets, so packet counters are compared.
fn assert_no_loss(ann: &Phone) {
    let heard = ann.heard_from(1, 0);
    assert_continuous(&heard);
    let number = |heard: Option<&Heard>| heard.map(|heard| heard.mark.number);
    let (first, last) = number(heard.first()).zip(number(heard.last())).unwrap();
    assert_complete(&heard, first, last + 1);
}

fn death_witnesses(gateway: &Gateway, index: u32) -> Vec<EvidenceSource> {
    gateway.expect_event("node is down", |event| match event {
        CoreEvent::Node { hop, to: Health::Down, witnesses, .. } if hop.node.0 == index => {
            Some(witnesses.iter().map(|(witness, _)| *witness).collect())
        }
        _ => None,
    })
}

fn health(gateway: &Gateway, index: usize) -> (Health, u32) {
    let node = &gateway.ask(gateway.handle.nodes()).unwrap()[index];
    (node.health, node.hop.incarnation.0)
}

#[test]
fn agent_serves_plain_server_and_reports_exit() {
    let files = AgentFiles::new();
    let mut server = files.server("east-a9", "127.0.0.1:0");
    let at = server.address;
    files.write_pid(&server);
    let agent = files.agent(&format!(
        "[check]\naddress = \"{at}\"\nprobe = \"echo\"\n[media]\nserver = \"{at}\"\nsessions = 7"
    ));
    let other = Node::agent("east-b1");
    let gateway = gateway_before(&[&other], &node("east-a9", agent.address, AGENT));
    let (mut ann, opened) = call_at(&gateway, "east-a9");
    assert_no_loss(&ann);
    wait_until("its load is reported", || {
        let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
        nodes[1].reported_permille.is_some_and(|permille| permille >= 1_000 / 7)
    });

    server.process.kill();
    assert!(death_witnesses(&gateway, 1).contains(&EvidenceSource::Agent));
    wait_heard_via(&mut ann, "east-b1");
    assert!(gateway.session(&opened).is_some());

    let server = files.server("east-a9", &at.to_string());
    files.write_pid(&server);
    wait_until("it is back with a new incarnation", || {
        matches!(health(&gateway, 1), (Health::Wary | Health::Up, 2..))
    });
    gateway.ask(gateway.handle.move_room("room".into(), "east-a9".into())).unwrap();
    wait_heard_via(&mut ann, "east-a9");
    assert_continuous(&ann.heard_from(1, 0));
    // The agent runs, but the media check fails.
    server.process.signal(Signal::SIGSTOP).unwrap();
    wait_heard_via(&mut ann, "east-b1");
    server.process.signal(Signal::SIGCONT).unwrap();
}

#[test]
fn agent_beside_trunk_node_reports_and_drills() {
    let files = AgentFiles::new();
    let sample = files.node("east-a9");
    files.write_pid(&sample);
    let agent = files.agent("drills = true");
    let other = Node::agent("east-b1");
    let beside = format!("{AGENT}\nagent = \"{}\"", agent.address);
    let gateway = gateway_before(&[&other], &node("east-a9", sample.address, &beside));
    let (mut ann, _) = call_at(&gateway, "east-a9");
    let order = |how| gateway.ask(gateway.handle.order("east-a9".into(), NodeOrder::Break(how)));

    let forbidden = ControlError::Agent { node: "east-a9".into(), why: AgentError::Forbidden };
    assert_eq!(order(NodeFault::Cut), Err(forbidden), "the agent does not carry its packets");
    order(NodeFault::Hang).unwrap();
    wait_heard_via(&mut ann, "east-b1");
    assert!(
        !death_witnesses(&gateway, 1).contains(&EvidenceSource::Agent),
        "it is stopped, not dead"
    );
    order(NodeFault::Wake).unwrap();
    wait_until("it is back with a new incarnation", || {
        matches!(health(&gateway, 1), (Health::Wary | Health::Up, 2..))
    });
    gateway.ask(gateway.handle.move_room("room".into(), "east-a9".into())).unwrap();
    wait_heard_via(&mut ann, "east-a9");

    order(NodeFault::Kill).unwrap();
    wait_heard_via(&mut ann, "east-b1");
    gateway.expect_event("the agent reports the exit", |event| match event {
        CoreEvent::Node { hop, to: Health::Down, witnesses, .. } if hop.incarnation.0 == 2 => {
            assert_eq!(hop.node.0, 1);
            witnesses.iter().any(|(witness, _)| *witness == EvidenceSource::Agent).then_some(())
        }
        _ => None,
    });
    let unable = |how| ControlError::Agent {
        node: "east-a9".into(),
        why: AgentError::Unable(NodeOrder::Break(how)),
    };
    assert_eq!(order(NodeFault::Kill), Err(unable(NodeFault::Kill)), "it is dead");
}

#[test]
fn cut_path_drops_packets_until_healed() {
    let files = AgentFiles::new();
    let server = files.server("east-a9", "127.0.0.1:0");
    files.write_pid(&server);
    let at = server.address;
    let agent = files.agent(&format!("drills = true\n[media]\nserver = \"{at}\""));
    let other = Node::agent("east-b1");
    let gateway = gateway_before(&[&other], &node("east-a9", agent.address, AGENT));
    let (mut ann, _) = call_at(&gateway, "east-a9");
    let order = |how| gateway.ask(gateway.handle.order("east-a9".into(), NodeOrder::Break(how)));
    order(NodeFault::Cut).unwrap();
    wait_heard_via(&mut ann, "east-b1");
    assert!(!death_witnesses(&gateway, 1).contains(&EvidenceSource::Agent));
    order(NodeFault::Heal).unwrap();
    wait_until("it is back", || matches!(health(&gateway, 1), (Health::Wary | Health::Up, 2..)));
}

#[test]
fn drill_without_permission_is_refused() {
    let files = AgentFiles::new();
    let server = files.server("east-a9", "127.0.0.1:0");
    files.write_pid(&server);
    let agent = files.agent("");
    let nodes = [Node::agent("east-a1"), Node::plain("east-b1", "echo", PlainRoom::Alone)];
    let beside = format!(
        "driver = \"plain\"\nprobe = \"echo\"\nagent = \"{}\"\nsecret_file = \"secret\"",
        agent.address
    );
    let gateway = gateway_before(&nodes.each_ref(), &node("east-a9", server.address, &beside));
    let order = |name: &str, order| gateway.ask(gateway.handle.order(name.into(), order));
    let kill = NodeOrder::Break(NodeFault::Kill);
    let why = |name: &str, why| Err(ControlError::Agent { node: name.into(), why });
    assert_eq!(order("east-a9", kill), why("east-a9", AgentError::Forbidden));
    assert_eq!(order("east-a9", NodeOrder::Start), Ok(()), "it runs");
    assert_eq!(order("east-a1", kill), why("east-a1", AgentError::Unable(kill)));
    assert_eq!(order("east-b1", kill), why("east-b1", AgentError::NoAgent));
    let nowhere = order("east-z", kill);
    assert!(matches!(nowhere, Err(ControlError::Unfound { known, .. }) if known.len() == 3));
    drop(agent);
    assert_eq!(order("east-a9", kill), why("east-a9", AgentError::Silent));
    assert_eq!(health(&gateway, 2), (Health::Up, 1), "a lost agent is no witness");
}

#[test]
fn encryption_at_one_end_opens_no_session() {
    let strict = Node::agent("east-a1").without_canaries().restart_encrypted();
    let other = Node::agent("east-b1");
    let gateway = gateway_before(&[&strict, &other], "");
    let mut ann = Phone::new(1);
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    wait_heard_via(&mut ann, "east-b1");
}

#[test]
fn agent_encrypts_for_plain_server() {
    let files = AgentFiles::new();
    let server = files.server("east-a9", "127.0.0.1:0");
    files.write_pid(&server);
    let at = server.address;
    let agent = files.agent(&format!("[media]\nserver = \"{at}\"\nencrypt = true"));
    let encrypted = format!("{AGENT}\nencrypt = true");
    let gateway = gateway_before(&[], &node("east-a9", agent.address, &encrypted));
    let (ann, _) = call_at(&gateway, "east-a9");
    assert_no_loss(&ann);
}

#[test]
fn node_drain_by_signal_moves_rooms_without_loss() {
    let files = AgentFiles::new();
    let sample = files.node("east-a9");
    files.write_pid(&sample);
    let agent = files.agent("");
    let other = Node::agent("east-b1");
    let beside = format!("{AGENT}\nagent = \"{}\"", agent.address);
    let gateway = gateway_before(&[&other], &node("east-a9", sample.address, &beside));
    let (mut ann, _) = call_at(&gateway, "east-a9");
    agent.process.signal(Signal::SIGUSR1).unwrap();
    wait_heard_via(&mut ann, "east-b1");
    let (by, from, to) = gateway.expect_event("the move is reported", |event| match event {
        CoreEvent::Moved { cause: MoveCause::Drain, by, from, to, .. } => {
            Some((by.clone(), from.node.0, to.map(|hop: Hop| hop.node.0)))
        }
        _ => None,
    });
    assert_eq!((by, from, to), (Decider::Node, 1, Some(0)));
    assert_no_loss(&ann);
    let draining = || gateway.ask(gateway.handle.nodes()).unwrap()[1].draining;
    assert!(draining());
    agent.process.signal(Signal::SIGUSR2).unwrap();
    wait_until("it serves again", || !draining());
}
