//! Repair of a trunk leg that loses bundles, between a gateway and a sample node.

use evenkeel_lab::links::Conditions;
use evenkeel_lab::relay::link::Link;

use crate::harness::{Gateway, Node, Phone, World, declared, offer, talk, udp_of, wait_until};

/// Packets of which two do not fit a datagram: each is a bundle of its own.
const LENGTH: usize = 800;
/// Packets at once: so many that repair datagrams follow within a pass.
const BURST: u64 = 10;
const BURSTS: u64 = 30;

/// A client that hears its own packets by a node behind this link.
fn call(node: &Node, seed: u64) -> (Link, Gateway, Phone) {
    let link = Link::start("127.0.0.1:0".parse().unwrap(), node.address, seed).unwrap();
    let mut world = World::of(&[]);
    world.nodes = node.text().replace(&node.address.to_string(), &link.near().to_string());
    let gateway = world.start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].audio_from(1) >= 5);
    ann.voice.size = LENGTH;
    (link, gateway, ann)
}

/// Sends bursts of packets. Returns how many of them came back.
fn came_back(ann: &mut Phone) -> usize {
    let first = ann.voice.sent;
    for _ in 0..BURSTS {
        for _ in 0..BURST {
            ann.send_media();
        }
        ann.listen();
    }
    // The last ones may be on their way.
    for _ in 0..20 {
        ann.listen();
    }
    let heard = ann.heard_from(1, 0);
    heard.iter().filter(|heard| heard.mark.number >= first).count()
}

fn assert_leg_is_repaired(mut node: Node, seed: u64) {
    let (link, gateway, mut ann) = call(&node, seed);
    link.set_both(Conditions::loss_percent(5));
    // Without repair 29 of 300 packets are missing.
    let sent = (BURSTS * BURST) as usize;
    wait_until("lost packets come back", || came_back(&mut ann) >= sent - sent / 50);
    drop(gateway);
    let counters = node.kill();
    assert!(counters.repairs_in > 0 && counters.bundles_recovered > 0, "{counters:?}");
    assert!(link.tally().dropped > 0);
}

#[test]
fn packets_lost_on_a_leg_reach_the_client() {
    assert_leg_is_repaired(Node::agent("east-a1").without_canaries(), 1);
}

#[test]
fn packets_lost_on_an_encrypted_leg_reach_the_client() {
    assert_leg_is_repaired(Node::agent("east-a1").without_canaries().encrypted(), 2);
}

#[test]
fn leg_without_loss_has_no_repair_datagram() {
    let mut node = Node::agent("east-a1").without_canaries();
    let (link, gateway, mut ann) = call(&node, 3);
    let sent = (BURSTS * BURST) as usize;
    wait_until("all packets come back", || came_back(&mut ann) == sent);
    drop(gateway);
    let counters = node.kill();
    assert_eq!((counters.repairs_in, counters.bundles_recovered), (0, 0));
    assert_eq!(link.tally().dropped, 0);
}
