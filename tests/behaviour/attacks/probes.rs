//! A holder of a probe's password, and a host on its path, that want the gateway to send more to a forged source than they send.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use evenkeel_dataplane::flows::Ufrag;
use evenkeel_media::probe::{ProbeTransport, transaction};
use evenkeel_media::stun::{StunKey, Username, write_padded_request};

use crate::harness::{
    Gateway, Node, Phone, TIMEOUT, World, declared, offer, talk, udp_of, wait_until,
};

const PACKETS: u16 = ProbeTransport::Udp.packets() as u16;

const UFRAG: &str = "0123456789abcdef";
const PASSWORD: &str = "0123456789abcdef0123456789abcdef";

/// Repetitions of a packet. Fewer than the failures that an address may have in a second.
const REPEATED: u64 = 200;

fn packet(number: u16, length: usize, password: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    let username = Username { server_ufrag: UFRAG, client_ufrag: "client" };
    let (transaction, key) = (transaction(number, [7; 10]), StunKey::new(password));
    write_padded_request(transaction, username, &key, length, &mut packet);
    packet
}

fn bytes_of(number: u16) -> usize {
    ProbeTransport::Udp.bytes_of(number).unwrap().into()
}

fn planned(number: u16) -> Vec<u8> {
    packet(number, bytes_of(number), PASSWORD)
}

/// A gateway with a probe, and a client whose session goes on beside it.
fn scene(node: &Node) -> (Gateway, SocketAddr, Phone) {
    let gateway = World::of(&[node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    let ufrag = Ufrag::new(UFRAG.as_bytes()).unwrap();
    let probes = &gateway.handle.client_probes;
    probes.open(ufrag, PASSWORD, ProbeTransport::Udp, Instant::now()).unwrap();
    (gateway, udp_of(&opened), ann)
}

fn hears_herself(ann: &mut Phone) {
    talk(&mut [ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// Nothing waits at the socket. All packets before have been counted.
fn assert_unanswered(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 2_048]).is_err(), "an answer came");
}

#[test]
fn probe_is_answered_with_no_more_bytes() {
    let node = Node::agent("east-a1");
    let (gateway, to, mut ann) = scene(&node);
    let (client, mut buffer) = (socket(), [0; 2_048]);
    let (mut sent, mut received) = (0, 0);
    for number in 0..PACKETS {
        let packet = planned(number);
        sent += client.send_to(&packet, to).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        received += length;
        assert!(length <= packet.len(), "{length} bytes for {} of {number}", packet.len());
    }
    assert!(received <= sent, "{received} bytes for {sent}");
    // The smallest packet that its password verifies would be shorter than an answer with an address of IPv6.
    client.send_to(&packet(0, 0, PASSWORD), to).unwrap();
    client.send_to(&packet(u16::MAX, 1_472, PASSWORD), to).unwrap();
    wait_until("both are dropped", || gateway.drops("oversize") == 2);
    assert_unanswered(&client);
    hears_herself(&mut ann);
}

#[test]
fn replayed_packet_of_a_probe_is_not_answered() {
    let node = Node::agent("east-a1");
    let (gateway, to, mut ann) = scene(&node);
    let (client, eve) = (socket(), socket());
    let captured = planned(0);
    client.send_to(&captured, to).unwrap();
    client.recv(&mut [0; 2_048]).unwrap();
    for _ in 0..REPEATED {
        eve.send_to(&captured, to).unwrap();
    }
    wait_until("all are dropped", || gateway.drops("replayed") == REPEATED);
    let probe = gateway.handle.client_probes.find(UFRAG, Instant::now()).unwrap();
    assert_eq!(u64::from(probe.refused()), REPEATED);
    assert_unanswered(&eve);
    hears_herself(&mut ann);
}

#[test]
fn stranger_to_a_probe_changes_nothing() {
    let node = Node::agent("east-a1");
    let (gateway, to, mut ann) = scene(&node);
    let eve = socket();
    for number in 0..REPEATED as u16 {
        let guess = packet(number, bytes_of(number), "a guess at the password");
        eve.send_to(&guess, to).unwrap();
    }
    wait_until("all are dropped", || gateway.drops("bad-integrity") == REPEATED);
    let probe = gateway.handle.client_probes.find(UFRAG, Instant::now()).unwrap();
    assert!((0..PACKETS).all(|number| !probe.has_received(number)));
    assert_eq!(probe.refused(), 0);
    assert_unanswered(&eve);
    hears_herself(&mut ann);
}
