//! RTP over QUIC to UDP and back, in datagrams and streams.

use std::net::SocketAddr;

use evenkeel_control::{IngressAnswer, SessionAnswer};
use evenkeel_lab::client::{
    ClientFleet, ClientPath, Persona, QuicProtocol, QuicWay, client_config,
};
use evenkeel_lab::ledger::Books;
use evenkeel_media::roq::{self, FlowId, Item, StreamDecoder};
use evenkeel_media::rtp;
use evenkeel_model::IngressProtocol;

use crate::harness::{
    Gateway, Node, Phone, TIMEOUT, World, assert_complete, assert_continuous, declared, offer,
    quic_of, talk, udp_of, wait_until,
};

fn persona(session: u64) -> Persona {
    Persona { session, seed: session, voice: true, video: true }
}

/// A room at this node with a phone of UDP and a client that connects in this way.
fn room(node: &Node, way: impl FnOnce(&SessionAnswer) -> QuicWay) -> (Gateway, Phone, ClientFleet) {
    let gateway = World::of(&[node]).with_quic().start();
    let mut bob = Phone::new(2);
    let by_quic = gateway.open(offer("room", IngressProtocol::Quic));
    let by_udp = gateway.open(offer("room", declared(&bob)));
    bob.set_target(udp_of(&by_udp));
    let fleet = ClientFleet::start(&Books::default()).unwrap();
    fleet.join(persona(1), ClientPath::Quic(way(&by_quic)));
    (gateway, bob, fleet)
}

#[test]
fn quic_and_udp_clients_hear_each_other() {
    let node = Node::agent("east-a1");
    let (gateway, mut bob, fleet) = room(&node, quic_of);
    talk(&mut [&mut bob], "both hear", |phones| {
        let tally = fleet.state(1).unwrap().tally;
        let reports = tally.packets_received >= 20 && tally.reports_received > 0;
        reports && phones[0].audio_from(1) >= 20 && phones[0].heard_from(1, 1).len() >= 5
    });
    for stream in [0, 1] {
        assert_eq!(assert_continuous(&bob.heard_from(1, stream)), 0);
    }
    gateway.await_quic_counts(&["received-datagrams", "sent-datagrams"], |count| count > 0);
    let tally = fleet.state(1).unwrap().tally;
    assert_eq!((tally.foreign, tally.unreadable), (0, 0));
}

#[test]
fn quic_clients_hear_each_other() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_quic();
    world.limits = "workers = 2\n".into();
    let gateway = world.start();
    let fleet = ClientFleet::start(&Books::default()).unwrap();
    for session in [1, 2] {
        let opened = gateway.open(offer("room", IngressProtocol::Quic));
        fleet.join(persona(session), ClientPath::Quic(quic_of(&opened)));
    }
    let heard = |session| fleet.state(session).map_or(0, |state| state.tally.packets_received);
    wait_until("both hear", || heard(1) >= 50 && heard(2) >= 50);
}

#[test]
fn webtransport_and_udp_clients_hear_each_other() {
    let node = Node::agent("east-a1");
    let (gateway, mut bob, fleet) = room(&node, |opened| {
        let IngressAnswer::Quic { short_lived_sha256, .. } = &opened.ingress else { panic!() };
        QuicWay {
            protocol: QuicProtocol::Webtransport,
            certificate_sha256: short_lived_sha256[0],
            ..quic_of(opened)
        }
    });
    talk(&mut [&mut bob], "both hear", |phones| {
        let tally = fleet.state(1).unwrap().tally;
        tally.packets_received >= 20 && phones[0].audio_from(1) >= 20
    });
    gateway.await_quic_counts(&["webtransport-opened"], |count| count == 1);
    assert_eq!(gateway.quic_count("http3-errors"), 0);
    let tally = fleet.state(1).unwrap().tally;
    assert_eq!((tally.foreign, tally.unreadable), (0, 0));
}

/// A QUIC connection without the client library.
pub(crate) struct Line {
    pub(crate) connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
    pub(crate) to: FlowId,
    from: FlowId,
}

pub(crate) async fn connect(way: QuicWay) -> Line {
    let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let endpoint = quinn::Endpoint::client(here).unwrap();
    let config = client_config(way.certificate_sha256);
    let connection = endpoint.connect_with(config, way.gateway, "evenkeel").unwrap().await.unwrap();
    let flow = |number| FlowId::new(number).unwrap();
    Line {
        connection,
        _endpoint: endpoint,
        to: flow(way.flow_to_gateway),
        from: flow(way.flow_from_gateway),
    }
}

#[test]
fn stream_packets_arrive_in_order() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_quic().start();
    let mut bob = Phone::new(2);
    let way = quic_of(&gateway.open(offer("room", IngressProtocol::Quic)));
    bob.set_target(udp_of(&gateway.open(offer("room", declared(&bob)))));
    let mut ann = Phone::new(1).voice;
    gateway.ask(async {
        let line = connect(way).await;
        let mut stream = line.connection.open_uni().await.unwrap();
        let mut bytes = Vec::new();
        roq::write_stream_start(line.to, &mut bytes);
        for _ in 0..20 {
            roq::write_stream_packet(&ann.packet(1), &mut bytes);
        }
        // Writes need not end at packet boundaries.
        for piece in bytes.chunks(37) {
            stream.write_all(piece).await.unwrap();
        }
        stream.finish().unwrap();
        let _ = tokio::time::timeout(TIMEOUT, stream.stopped()).await;
        line.connection.close(0_u32.into(), b"");
    });
    talk(&mut [&mut bob], "all packets are heard", |phones| phones[0].audio_from(1) >= 20);
    assert_complete(&bob.heard_from(1, 0), 0, 20);
    gateway.await_quic_counts(&["received-in-streams"], |count| count == 20);
}

#[test]
fn packet_above_datagram_size_uses_stream() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_quic().start();
    let mut bob = Phone::new(2);
    let way = quic_of(&gateway.open(offer("room", IngressProtocol::Quic)));
    bob.set_target(udp_of(&gateway.open(offer("room", declared(&bob)))));
    let line = gateway.ask(connect(way));
    // The first packet attaches the session to the connection.
    let mut datagram = Vec::new();
    roq::write_datagram(line.to, &Phone::new(1).voice.packet(1), &mut datagram);
    gateway.ask(async { line.connection.send_datagram(datagram.into()).unwrap() });
    talk(&mut [&mut bob], "her packet is heard", |phones| {
        gateway.ask(tokio::task::yield_now());
        phones[0].audio_from(1) == 1
    });
    // Above the largest datagram: quinn probes up to 1,452 bytes.
    bob.voice.size = 1_440;
    bob.send_media();
    let packet = gateway.ask(async {
        let mut stream = line.connection.accept_uni().await.unwrap();
        let bytes = stream.read_to_end(4_096).await.unwrap();
        let mut decoder = StreamDecoder::new(2_048);
        let mut input = &bytes[..];
        assert!(
            matches!(decoder.next(&mut input), Ok(Some(Item::Flow(flow))) if flow == line.from)
        );
        match decoder.next(&mut input) {
            Ok(Some(Item::Packet(packet))) => packet.to_vec(),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(rtp::RtpHeader::parse(&packet).unwrap().payload_len(), 1_440);
    gateway.await_quic_counts(&["sent-in-streams"], |count| count >= 1);
}
