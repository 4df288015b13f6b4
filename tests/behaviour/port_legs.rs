//! Port legs: nodes without trunk support, distinguished by address.

use std::net::{SocketAddr, UdpSocket};

use evenkeel_control::{ControlError, IngressAnswer};
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_media::{demux, rtcp};
use evenkeel_model::{ClientIdentity, Health, IngressProtocol, RtcpPort};

use crate::harness::{
    Node, Phone, TIMEOUT, World, assert_continuous, declared, offer, talk, udp_of, wait_until,
};

#[test]
fn clients_hear_each_other_through_port_legs() {
    for probe in ["echo", "stun", "none"] {
        let node = Node::plain("east-a1", probe, PlainRoom::Shared);
        let gateway = World::of(&[&node]).start();
        let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
        for phone in [&mut ann, &mut bob] {
            let opened = gateway.open(offer("room", declared(phone)));
            phone.set_target(udp_of(&opened));
        }
        talk(&mut [&mut ann, &mut bob], "both hear", |phones| {
            phones[0].audio_from(2) >= 20 && phones[1].audio_from(1) >= 20
        });
        assert_eq!(assert_continuous(&ann.heard_from(2, 0)), 0);
        wait_until("its probes are answered", || {
            let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
            assert_eq!(nodes[0].health, Health::Up);
            nodes[0].round_trip.is_some() == (probe != "none")
        });
        drop(gateway);
        let mut node = node;
        let counters = node.kill();
        assert_eq!((counters.echoes > 0, counters.stun > 0), (probe == "echo", probe == "stun"));
    }
}

#[test]
fn offer_names_media_address_at_node() {
    // The configured address belongs to another server.
    let (configured, named) = (
        Node::plain("east-a1", "echo", PlainRoom::Alone),
        Node::plain("west-a1", "echo", PlainRoom::Alone),
    );
    let gateway = World::of(&[&configured]).start();
    let mut ann = Phone::new(1);
    let mut wanted = offer("room", declared(&ann));
    wanted.nodes = vec![("east-a1".into(), named.address)];
    ann.set_target(udp_of(&gateway.open(wanted)));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    assert!(ann.heard.iter().all(|heard| heard.mark.node == named.number()));
}

#[test]
fn offer_with_shared_node_address_is_refused() {
    let nodes = ["east-a1", "west-a1"].map(|name| Node::plain(name, "echo", PlainRoom::Alone));
    let gateway = World::of(&[&nodes[0], &nodes[1]]).start();
    let ann = Phone::new(1);
    let mut wanted = offer("room", declared(&ann));
    wanted.nodes = vec![("east-a1".into(), nodes[1].address)];
    let named = ["east-a1".into(), "west-a1".into()];
    let refused = ControlError::SharedNodeAddress { nodes: named, address: nodes[1].address };
    assert_eq!(gateway.try_open(wanted), Err(refused));
    gateway.open(offer("room", declared(&ann)));
}

/// Two sockets on consecutive ports, for RTP and RTCP.
fn pair() -> (UdpSocket, UdpSocket) {
    loop {
        let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = rtp.local_addr().unwrap().port();
        if let Some(next) = port.checked_add(1)
            && let Ok(rtcp) = UdpSocket::bind(("127.0.0.1", next))
        {
            for socket in [&rtp, &rtcp] {
                socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            }
            return (rtp, rtcp);
        }
    }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2_048];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

#[test]
fn rtcp_on_own_port_keeps_its_port() {
    let (node_rtp, node_rtcp) = pair();
    let (ann_rtp, ann_rtcp) = pair();
    let template = Node::plain("east-a1", "none", PlainRoom::Alone);
    let mut world = World::of(&[]);
    world.nodes = template
        .text()
        .replace(&template.address.to_string(), &node_rtp.local_addr().unwrap().to_string());
    let gateway = world.start();
    let mut wanted = offer(
        "room",
        IngressProtocol::Udp(ClientIdentity::Declared {
            address: ann_rtp.local_addr().unwrap(),
            rtcp: Some(Box::new(ann_rtcp.local_addr().unwrap())),
        }),
    );
    std::sync::Arc::get_mut(&mut wanted.media).unwrap().rtcp = RtcpPort::Own;
    let opened = gateway.open(wanted);
    let IngressAnswer::Udp { addresses, rtcp, .. } = &opened.ingress else { panic!("{opened:?}") };
    let (address, rtcp) = (addresses[0], rtcp[0]);
    let mut track = Phone::new(1).voice;
    ann_rtp.send_to(&track.packet(1), address).unwrap();
    let (packet, session_rtp) = receive(&node_rtp);
    assert_eq!(demux::classify(&packet), demux::DatagramKind::Rtp);
    let mut report = Vec::new();
    rtcp::write_receiver_report(track.ssrc, &[], &mut report);
    ann_rtcp.send_to(&report, rtcp).unwrap();
    let (packet, session_rtcp) = receive(&node_rtcp);
    assert_eq!(packet, report);
    assert_ne!(session_rtp, session_rtcp);

    let to_session = |from: SocketAddr| SocketAddr::new([127, 0, 0, 1].into(), from.port());
    node_rtp.send_to(&track.packet(1), to_session(session_rtp)).unwrap();
    assert_eq!(receive(&ann_rtp).1, address);
    let mut report = Vec::new();
    let info = rtcp::SenderInfo {
        ssrc: track.ssrc,
        ntp: 1 << 32,
        timestamp: track.timestamp,
        packets: 1,
        octets: 100,
    };
    rtcp::write_sender_report(&info, &[], &mut report);
    node_rtcp.send_to(&report, to_session(session_rtcp)).unwrap();
    assert_eq!(receive(&ann_rtcp), (report, rtcp));
}

#[test]
fn unknown_source_at_session_port_is_dropped() {
    let node = Node::plain("east-a1", "echo", PlainRoom::Alone);
    let (fake, _) = pair();
    let mut world = World::of(&[]);
    world.nodes = node
        .text()
        .replace(&node.address.to_string(), &fake.local_addr().unwrap().to_string())
        .replace("\"echo\"", "\"none\"");
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    ann.send_media();
    let (packet, session) = receive(&fake);
    let session = SocketAddr::new([127, 0, 0, 1].into(), session.port());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&packet, session).unwrap();
    wait_until("the drop is counted", || gateway.drops("unknown-source") == 1);
    fake.send_to(&packet, session).unwrap();
    talk(&mut [&mut ann], "she hears the node", |phones| phones[0].heard.len() == 1);
}

#[test]
fn ipv6_clients_and_nodes_are_reached() {
    let agent = Node::with("east-a1", "[::1]:0", |_| {});
    let mut world = World::of(&[&agent]).with_quic();
    world.listens = "[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = [\"declared\"]\n\
                     [[listen]]\nudp = \"[::1]:0\"\nidentity = [\"declared\"]\n"
        .into();
    let gateway = world.start();
    let (mut ann, mut bob) = (Phone::on("[::1]:0", 1), Phone::new(2));
    for phone in [&mut ann, &mut bob] {
        let opened = gateway.open(offer("room", declared(phone)));
        assert_eq!(udp_of(&opened).is_ipv4(), phone.address().is_ipv4());
        phone.set_target(udp_of(&opened));
    }
    talk(&mut [&mut ann, &mut bob], "both hear", |phones| {
        phones[0].audio_from(2) >= 10 && phones[1].audio_from(1) >= 10
    });
}

#[test]
fn wildcard_listener_serves_ipv4_and_ipv6() {
    let node = Node::plain("east-a1", "echo", PlainRoom::Shared);
    let mut world = World::of(&[&node]);
    world.listens =
        "[[listen]]\nudp = \"[::]:0\"\nadvertise = \"127.0.0.1\"\nidentity = [\"declared\"]\n"
            .into();
    let gateway = world.start();
    let (mut ann, mut bob) = (Phone::on("[::1]:0", 1), Phone::new(2));
    for phone in [&mut ann, &mut bob] {
        let opened = gateway.open(offer("room", declared(phone)));
        let port = udp_of(&opened).port();
        phone.set_target(SocketAddr::new(phone.address().ip(), port));
    }
    talk(&mut [&mut ann, &mut bob], "both hear", |phones| {
        phones[0].audio_from(2) >= 10 && phones[1].audio_from(1) >= 10
    });
}
