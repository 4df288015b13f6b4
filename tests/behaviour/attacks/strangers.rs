//! Packets of unknown senders are dropped, counted by reason, and not answered.

use evenkeel_lab::stranger::{SESSION, Stranger, knock_quic};
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::{Bundle, Tag};
use evenkeel_model::{ClientIdentity, IngressProtocol};

use crate::harness::{
    Credentials, Node, Phone, TIMEOUT, World, declared, offer, quic_of, talk, talk_for, udp_of,
    wait_until,
};

#[test]
fn unknown_udp_packets_are_dropped_by_reason() {
    let node = Node::agent("east-a1").without_canaries();
    let gateway = World::of(&[&node]).with_identities("[\"declared\", \"stun\"]").start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    let by_stun = gateway.open(offer("room", IngressProtocol::Udp(ClientIdentity::Stun)));
    ann.set_target(udp_of(&opened));
    let to = udp_of(&opened);
    let mut stranger = Stranger::new(7);
    stranger.send_rtp(to, 10).unwrap();
    stranger.send_checks(to, &Credentials::of(&by_stun).ufrag, 10).unwrap();
    stranger.send_bundles(to, 10).unwrap();
    stranger.send_messages(to, 10).unwrap();
    wait_until("all drops are counted", || {
        gateway.drops("unknown-source") == 20
            && gateway.drops("bad-integrity") == 10
            && gateway.drops("malformed") == 20
    });
    let report = stranger.report().unwrap();
    assert_eq!((report.sent, report.learned()), (50, 0));
    let status = gateway.status();
    assert_eq!((status.packets_to_node, status.packets_to_client), (0, 0));
    drop(gateway);
    let mut node = node;
    assert_eq!(node.kill().packets_in, 0);
}

#[test]
fn flood_from_prefix_spares_known_clients() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.limits += "misses_per_prefix = 1\n";
    let gateway = world.start();
    let (mut ann, mut eve) = (Phone::new(1), Phone::new(6));
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    eve.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    let begun = ann.heard.len() as u64;
    // 150 packets take longer than a cached lookup is valid.
    talk(&mut [&mut ann, &mut eve], "she sends", |phones| phones[0].voice.sent >= 150);
    talk(&mut [&mut ann], "she hears herself", |phones| {
        phones[0].heard.len() as u64 + 20 >= phones[0].voice.sent
    });
    assert!(gateway.drops("limited") > 0, "there was a flood");
    assert!(begun < 150);
    let numbers: Vec<u64> = ann.heard.iter().map(|heard| heard.mark.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn unknown_trunk_tag_is_dropped() {
    let mut node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    // An impostor at the node's address knows the gateway's trunk address but no tag.
    node.kill();
    let impostor = std::net::UdpSocket::bind(node.address).unwrap();
    impostor.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut buffer = [0; 2_048];
    let trunk = loop {
        ann.send_media();
        let (length, from) = impostor.recv_from(&mut buffer).unwrap();
        if demux::classify(&buffer[..length]) == DatagramKind::Bundle {
            break from;
        }
    };
    let heard = ann.heard.len();
    let mut packet = ann.voice.clone();
    for tag in 0..10 {
        let mut bundle = Bundle::new(1_400);
        assert!(bundle.push(Tag(tag), &packet.packet(SESSION)));
        impostor.send_to(bundle.as_bytes(), trunk).unwrap();
    }
    wait_until("each drop is counted", || gateway.drops("unknown-tag") == 10);
    ann.listen();
    assert_eq!(ann.heard_from(SESSION, 0).len(), 0);
    assert!(ann.heard.len() <= heard + 50);
}

#[test]
fn unknown_quic_flow_is_dropped_and_stopped() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_quic().start();
    let way = quic_of(&gateway.open(offer("room", IngressProtocol::Quic)));
    let report = gateway.ask(knock_quic(way.gateway, way.certificate_sha256, 5, 3)).unwrap();
    assert_eq!((report.datagrams, report.streams, report.streams_stopped), (5, 5, 5));
    assert!(report.kept && report.closed_for_bidirectional);
    assert_eq!(report.came, 0);
    wait_until("each flow is counted", || {
        ["unknown-flow-datagrams", "unknown-flow-streams"].map(|it| gateway.quic_count(it))
            == [5; 2]
    });
    assert_eq!(gateway.status().packets_to_node, 0);
}

#[test]
fn undeclared_dtls_is_dropped() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    for byte in [20, 22, 63] {
        ann.send(&[byte, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }
    wait_until("the drops are counted", || gateway.drops("dtls") == 3);
    talk_for(&mut [&mut ann], 1);
    assert!(ann.other.is_empty());
}
