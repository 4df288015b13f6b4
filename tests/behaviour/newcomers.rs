//! What plugins say of newcomers comes into force: what stands ready for them, and how much they may send.

use evenkeel_core::Decider;
use evenkeel_media::rtcp;
use evenkeel_server::control::Opened;

use crate::harness::{Gateway, Node, Phone, World, declared, offer, talk, udp_of};

/// How often is tried: on a busy machine an answer may come too late, and the native default stands.
const TRIES: std::ops::Range<u64> = 1..40;

/// Opens rooms of one until one is as its plugin says.
fn until(
    gateway: &Gateway,
    what: &str,
    is_so: impl Fn(&Gateway, &Opened) -> bool,
) -> (Phone, Opened) {
    for number in TRIES {
        let phone = Phone::new(number);
        let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
        if is_so(gateway, &opened) {
            return (phone, opened);
        }
    }
    panic!("never: {what}");
}

#[test]
fn the_scenario_plugin_says_how_many_nodes_stand_by() {
    let nodes = ["east-a1", "east-b1", "west-a1", "west-b1"].map(Node::agent);
    let mut world = World::of(&nodes.each_ref());
    // The text says two.
    world.hooks = "[resolve]\nplugin = \"scenario-call\"\nsettings = { spares = 3 }\n".into();
    let gateway = world.start();
    until(&gateway, "three stand by", |_, opened| opened.route.len() == 4);
}

#[test]
fn the_admission_plugin_caps_whoever_comes_while_it_is_full() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.hooks = "[admission]\nplugin = \"admit-capacity\"\n\
        settings = { cap_above = 0.0, cap = 300 }\non_fault = \"admit\"\n"
        .into();
    let gateway = world.start();
    let (mut ann, opened) = until(&gateway, "a newcomer is capped", |gateway, opened| {
        gateway.session(opened).is_some_and(|session| session.cap_kbps == 300)
    });
    assert!(matches!(opened.admitted_by, Decider::Policy { .. }), "{opened:?}");
    ann.films = true;
    ann.dial(udp_of(&opened));
    talk(&mut [&mut ann], "she is told", |phones| {
        let mut packets = phones[0].other.iter().flat_map(|bytes| rtcp::packets(bytes));
        packets.any(
            |packet| matches!(packet, Ok(rtcp::Packet::Remb(remb)) if remb.bitrate_bps <= 300_000),
        )
    });
}
