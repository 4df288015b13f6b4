//! Nodes are added and removed during calls.

use std::time::Duration;

use evenkeel_control::{ControlError, GatewayEvent, ListChange, NodeList, NotListed, Shrinks};
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_model::{CoreEvent, Health};
use evenkeel_revisions::Actor;

use crate::harness::{
    Gateway, Node, Phone, World, assert_complete, assert_continuous, declared, offer, talk, udp_of,
    wait_until,
};

/// Replaces the node list by the nodes with these names.
fn list(
    gateway: &Gateway,
    all: &[evenkeel_config::NodeConfig],
    names: &[&str],
    force: bool,
) -> Result<ListChange, NotListed> {
    let nodes = all.iter().filter(|node| names.contains(&&*node.name)).cloned().collect();
    let by = if force { Actor::Operator } else { Actor::File };
    let list = NodeList { nodes, force, within: None, by };
    gateway.ask(gateway.handle.list_nodes(Box::new(list))).unwrap()
}

fn standing(gateway: &Gateway) -> Vec<(String, Health)> {
    let (nodes, names) = (gateway.ask(gateway.handle.nodes()).unwrap(), gateway.handle.names());
    nodes.iter().map(|node| (names.of_hop(node.hop).node.to_string(), node.health)).collect()
}

fn change(added: &[&str], removed: &[&str]) -> ListChange {
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    ListChange { added: names(added), removed: names(removed), changed: Vec::new() }
}

#[test]
fn node_list_changes_during_call_without_loss() {
    let names = ["east-a1", "east-b1", "east-c1", "east-d1", "east-e1"];
    let nodes = names.map(Node::agent);
    let all = World::of(&nodes.each_ref()).listed();
    let [a, b, c, d, new] = &nodes;
    let gateway = World::of(&[a, b, c, d]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    let first = ann.heard_from(1, 0).last().map_or(0, |heard| heard.mark.number);

    assert_eq!(list(&gateway, &all, &names, false), Ok(change(&["east-e1"], &[])));
    talk(&mut [&mut ann], "the new node is up", |_| {
        standing(&gateway).iter().any(|(name, health)| name == "east-e1" && *health == Health::Up)
    });
    gateway.ask(gateway.handle.move_room("room".into(), "east-e1".into())).unwrap();
    talk(&mut [&mut ann], "it takes the room", |phones| phones[0].last_heard_via(new.number()));

    let refused = list(&gateway, &all, &["east-a1", "east-b1", "east-c1"], false);
    let shrinks = Shrinks { removing: 2, before: 0, of: 5 };
    assert_eq!(refused, Err(NotListed::Shrinks(shrinks)), "too many at once");
    assert_eq!(standing(&gateway).len(), 5, "nothing changed");

    let four = &names[..4];
    assert_eq!(list(&gateway, &all, four, false), Ok(change(&[], &["east-e1"])));
    talk(&mut [&mut ann], "the empty node is removed", |_| standing(&gateway).len() == 4);
    talk(&mut [&mut ann], "the room moved", |phones| !phones[0].last_heard_via(new.number()));

    let here = nodes.iter().find(|node| ann.last_heard_via(node.number())).unwrap();
    let others: Vec<&str> = four.iter().copied().filter(|name| *name != here.name).collect();
    let refused = list(&gateway, &all, &others[..1], false);
    assert!(matches!(refused, Err(NotListed::Shrinks(_))), "{refused:?}");
    let forced = list(&gateway, &all, &others[..1], true).unwrap();
    assert_eq!(forced.removed.len(), 3);
    talk(&mut [&mut ann], "one is left", |_| standing(&gateway).len() == 1);
    let left = nodes.iter().find(|node| node.name == others[0]).unwrap();
    talk(&mut [&mut ann], "she hears it", |phones| phones[0].last_heard_via(left.number()));

    assert_no_loss_since(first, &mut ann);

    let explained = gateway.ask(gateway.handle.explain(opened.session)).unwrap().unwrap();
    let names = gateway.handle.names();
    let went = explained.room.moves.iter().filter_map(|step| Some(names.of_hop(step.to?).node));
    assert_eq!(went.map(|name| name.to_string()).next(), Some("east-e1".to_owned()));

    let mut told = Vec::new();
    gateway.happened(|happened| {
        match &happened.event {
            GatewayEvent::NodeList(list) => told.push((list.by, list.forced, list.outcome.is_ok())),
            GatewayEvent::NodeRemoved { name, .. } if **name == *"east-e1" => {
                told.push((Actor::File, false, true));
            }
            _ => {}
        }
        None::<()>
    });
    let (file, person) = (Actor::File, Actor::Operator);
    let lists = [
        (file, false, true),
        (file, false, false),
        (file, false, true),
        (file, false, true),
        (file, false, false),
        (person, true, true),
    ];
    assert_eq!(told, lists, "each list change and the removed node are reported");
    wait_until("the gateway answers", || gateway.status().sessions == 1);
}

#[test]
fn renamed_node_at_same_address_keeps_calls() {
    let node = Node::plain("east-a1", "echo", PlainRoom::Alone);
    let mut world = World::of(&[&node]);
    world.nodes = world.nodes.replace("200 Mbit/s", "640 kbit/s");
    let mut renamed = World::of(&[]);
    renamed.nodes = world.nodes.replace("east-a1", "east-z9");
    let all = [world.listed(), renamed.listed()].concat();
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    let first = ann.heard_from(1, 0).last().map_or(0, |heard| heard.mark.number);

    let taken = list(&gateway, &all, &["east-z9"], false);
    assert_eq!(taken, Ok(change(&["east-z9"], &["east-a1"])));
    let loads = gateway.ask(gateway.handle.nodes()).unwrap();
    let loads: Vec<u32> = loads.iter().map(|node| node.load_permille).collect();
    assert!(loads.len() == 2 && loads[0] == loads[1] && loads[0] > 0, "one machine: {loads:?}");
    let bob = Phone::new(2);
    let opened = gateway.try_open(offer("other room", declared(&bob)));
    let is_shared = matches!(opened, Err(ControlError::SharedNodeAddress { .. }));
    assert!(!is_shared, "a leaving node does not reserve its address: {opened:?}");
    talk(&mut [&mut ann], "the old node is removed", |_| standing(&gateway).len() == 1);
    assert_no_loss_since(first, &mut ann);
}

#[test]
fn changed_node_entry_keeps_drain() {
    let node = Node::plain("east-a1", "echo", PlainRoom::Alone);
    let world = World::of(&[&node]);
    let mut changed = World::of(&[]);
    changed.nodes = world.nodes.replace("echo", "stun");
    let all = changed.listed();
    let gateway = world.start();
    // The client keeps the leaving node in use.
    let mut ann = Phone::new(1);
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    gateway.ask(gateway.handle.drain_node("east-a1".into(), true)).unwrap();
    assert_eq!(
        list(&gateway, &all, &["east-a1"], true),
        Ok(change(&["east-a1"], &["east-a1"])),
        "it is removed and added"
    );
    let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
    let drains: Vec<(bool, bool)> = nodes.iter().map(|node| (node.leaves, node.draining)).collect();
    assert_eq!(drains, [(true, true), (false, true)]);
}

/// No packet sent from `first` on is lost.
fn assert_no_loss_since(first: u64, ann: &mut Phone) {
    let sent = ann.voice.sent;
    talk(&mut [&mut *ann], "all packets are heard", |phones| {
        let heard = phones[0].heard_from(1, 0);
        heard.iter().any(|heard| heard.mark.number + 1 >= sent)
    });
    let mut heard = ann.heard_from(1, 0);
    heard.retain(|heard| (first..sent).contains(&heard.mark.number));
    assert_continuous(&heard);
    assert_complete(&heard, first, sent);
}

#[test]
fn deadline_applies_to_leaving_node() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    let empty = |within| NodeList { nodes: Vec::new(), force: true, within, by: Actor::Operator };
    let list = |within| gateway.ask(gateway.handle.list_nodes(Box::new(empty(within)))).unwrap();
    assert_eq!(list(None), Ok(change(&[], &["east-a1"])));
    assert_eq!(list(None), Ok(change(&[], &[])), "it is already leaving");
    let soon = Duration::from_millis(100);
    assert_eq!(list(Some(soon)), Ok(change(&[], &["east-a1"])));
    gateway.expect_event("the drain ends with the room left", |event| match event {
        CoreEvent::Drained { left: 1, .. } => Some(()),
        _ => None,
    });
}

#[test]
fn refused_node_list_opens_no_socket() {
    let node = Node::agent("east-a1");
    let world = World::of(&[&node]);
    let mut all = [world.listed(), world.listed()].concat();
    all[1].name = "east-b1".into();
    all[1].address = ([255, 255, 255, 255], 9).into();
    let gateway = world.start();
    let unfit = list(&gateway, &all, &["east-a1", "east-b1"], false);
    assert!(matches!(unfit, Err(NotListed::Unfit { .. })), "a broadcast address: {unfit:?}");
    let held = list(&gateway, &all, &["east-b1"], false);
    assert!(matches!(held, Err(NotListed::Shrinks(_))), "{held:?}");
}
