//! A few sources with many QUIC connections, beside a client at another address.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use evenkeel_lab::client::{QuicWay, client_config};
use evenkeel_media::roq::{self, FlowId};
use evenkeel_model::IngressProtocol;
use quinn::{Connection, ConnectionError, Endpoint};

use crate::harness::{Node, Phone, World, offer, quic_of, wait_until};

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

async fn connect(from: IpAddr, way: QuicWay) -> Result<(Endpoint, Connection), ConnectionError> {
    let endpoint = Endpoint::client((from, 0).into()).unwrap();
    let config = client_config(way.certificate_sha256);
    let connection = endpoint.connect_with(config, way.gateway, "evenkeel").unwrap().await?;
    Ok((endpoint, connection))
}

/// Sends voice until the client hears it.
async fn hear(connection: &Connection, way: QuicWay) {
    let mut voice = Phone::new(1).voice;
    let to = FlowId::new(way.flow_to_gateway).unwrap();
    let heard = loop {
        let mut datagram = Vec::new();
        roq::write_datagram(to, &voice.packet(1), &mut datagram);
        connection.send_datagram(datagram.into()).unwrap();
        let pace = Duration::from_millis(20);
        if let Ok(heard) = tokio::time::timeout(pace, connection.read_datagram()).await {
            break heard.unwrap();
        }
    };
    let (flow, _) = roq::read_datagram(&heard).unwrap();
    assert_eq!(flow.number(), way.flow_from_gateway);
}

#[test]
fn connections_of_four_sources_leave_room() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_quic();
    world.limits += "connections_max = 8\nconnections_per_source = 2\n";
    let gateway = world.start();
    let [first, second] =
        ["one", "two"].map(|room| quic_of(&gateway.open(offer(room, IngressProtocol::Quic))));
    let mut attack = Vec::new();
    let (_endpoint, live) = gateway.ask(async {
        let (endpoint, live) = connect(CLIENT, first).await.unwrap();
        hear(&live, first).await;
        for number in 0..12 {
            let from = Ipv4Addr::new(127, 0, 0, 3 + number % 4);
            attack.push(connect(from.into(), first).await);
        }
        (endpoint, live)
    });
    // All places are held.
    gateway.await_quic_counts(&["connections"], |count| count == 8);
    gateway.ask(async {
        let (_endpoint, new) = connect(Ipv4Addr::new(127, 0, 0, 9).into(), second).await.unwrap();
        hear(&new, second).await;
        hear(&live, first).await;
    });
    gateway.await_quic_counts(&["displaced"], |count| count >= 1);
}

#[test]
fn connections_of_one_source_leave_room() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_quic();
    world.limits += "connections_max = 8\nconnections_per_source = 4\n";
    let gateway = world.start();
    let way = quic_of(&gateway.open(offer("room", IngressProtocol::Quic)));
    let attack = gateway.ask(async {
        let mut attack = Vec::new();
        for _ in 0..12 {
            attack.push(connect(ATTACKER, way).await);
        }
        attack
    });
    let accepted = attack.iter().filter(|connected| connected.is_ok()).count();
    assert_eq!(accepted, 4);
    gateway.await_quic_counts(&["connections"], |count| count == 4);
    gateway.await_quic_counts(&["source-refused"], |count| count >= 8);

    // A client elsewhere connects and hears itself.
    gateway.ask(async {
        let (_endpoint, connection) = connect(CLIENT, way).await.unwrap();
        hear(&connection, way).await;
    });
    // Half of the connections are held.
    gateway.await_quic_counts(&["retries"], |count| count > 0);
    drop(attack);
    wait_until("the source may connect again", || gateway.ask(connect(ATTACKER, way)).is_ok());
}
