//! Plugin answers about new sessions take effect: number of standbys and bandwidth cap.

use evenkeel_control::SessionAnswer;
use evenkeel_media::rtcp;
use evenkeel_model::Decider;

use crate::harness::{Gateway, Node, Phone, World, declared, offer, talk, udp_of};

/// Rooms to try: on a busy machine some answers are late and the native default decides.
const TRIES: std::ops::Range<u64> = 1..40;

/// Opens rooms until the condition holds for one.
fn until(
    gateway: &Gateway,
    what: &str,
    is_so: impl Fn(&Gateway, &SessionAnswer) -> bool,
) -> (Phone, SessionAnswer) {
    for number in TRIES {
        let phone = Phone::new(number);
        let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
        if is_so(gateway, &opened) {
            return (phone, opened);
        }
    }
    panic!("not reached: {what}");
}

#[test]
fn scenario_plugin_sets_number_of_standbys() {
    let nodes = ["east-a1", "east-b1", "west-a1", "west-b1"].map(Node::agent);
    let mut world = World::of(&nodes.each_ref());
    // The policy set's text has two.
    world.hooks = "[resolve]\nplugin = \"scenario-call\"\nsettings = { spares = 3 }\n".into();
    let gateway = world.start();
    until(&gateway, "three stand by", |_, opened| opened.route.len() == 4);
}

#[test]
fn admission_plugin_caps_sessions_when_full() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.hooks = "[admission]\nplugin = \"admit-capacity\"\n\
        settings = { cap_above = 0.0, cap = 300 }\non_fault = \"admit\"\n"
        .into();
    let gateway = world.start();
    let (mut ann, opened) = until(&gateway, "a session is capped", |gateway, opened| {
        gateway.session(opened).is_some_and(|session| session.state.plan.cap_kbps() == 300)
    });
    assert!(matches!(opened.admitted_by, Decider::Policy { .. }), "{opened:?}");
    ann.sends_video = true;
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "the client gets the cap", |phones| {
        let mut packets = phones[0].other.iter().flat_map(|bytes| rtcp::packets(bytes));
        packets.any(
            |packet| matches!(packet, Ok(rtcp::RtcpPacket::Remb(remb)) if remb.bitrate_bps <= 300_000),
        )
    });
}
