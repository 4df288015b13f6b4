//! A host that forges the address of a WebRTC client.

use std::time::{Duration, Instant};

use evenkeel_media::stun::is_stun;

use crate::harness::{
    GatewayProcess, Node, Nominate, Phone, WebrtcPhone, World, assert_continuous, talk, wait_until,
};

/// Longer than an address is held for a client that only checked it.
const CHECKS_APART: Duration = Duration::from_secs(11);

fn start(node: &Node) -> GatewayProcess {
    GatewayProcess::start(&World::of(&[node]).with_identities("[\"stun\"]"))
}

/// The client hears itself.
fn hears_on(phone: &mut Phone) {
    let goal = phone.heard.len() + 50;
    talk(&mut [phone], "the client hears itself", |phones| phones[0].heard.len() >= goal);
}

/// A record of DTLS 1.2 in plain text.
fn record(kind: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99][..], &length, contents].concat()
}

#[test]
fn forged_records_end_no_handshake() {
    let node = Node::agent("east-a1");
    let mut gateway = start(&node);
    let mut ann = WebrtcPhone::new(1);
    // 21 bytes of a message, the same of an alert, and a fatal alert.
    let forged =
        [record(22, &[0; 8]), record(21, &[2, 40, 0, 0, 0, 0, 0, 0]), record(21, &[2, 40])];
    let forge = |ann: &WebrtcPhone| forged.iter().for_each(|record| ann.phone.send(record));
    let flight = ann.begin_handshake(&mut gateway, "room");
    forge(&ann);
    ann.answer(&flight);
    forge(&ann);
    ann.complete_handshake().unwrap();
    hears_on(&mut ann.phone);
    let ended = gateway.read("/v1/sessions/history");
    assert_eq!(ended["sessions"].as_array().map(Vec::len), Some(0), "{ended}");
}

#[test]
fn address_of_a_call_is_not_taken() {
    let node = Node::agent("east-a1");
    let mut gateway = start(&node);
    let (mut ann, mut eve) = (WebrtcPhone::new(1), WebrtcPhone::new(6));
    let (address, credentials) = ann.open(&mut gateway, "room");
    ann.connect(address, &credentials).unwrap();
    let (_, of_eve) = eve.open(&mut gateway, "other");
    // The client sends SRTP, and no checks.
    let connected = Instant::now();
    while connected.elapsed() < CHECKS_APART {
        hears_on(&mut ann.phone);
    }
    ann.phone.other.clear();
    of_eve.check(&ann.phone, Nominate::Yes);
    hears_on(&mut ann.phone);
    assert!(
        !ann.phone.other.iter().any(|datagram| is_stun(datagram)),
        "the forged check is dropped"
    );
    credentials.check(&ann.phone, Nominate::Yes);
    let own = ann.phone.address();
    wait_until("the client's check is answered", || {
        ann.phone.listen();
        credentials.mapped(&ann.phone) == Some(own)
    });
    hears_on(&mut ann.phone);
    assert_continuous(&ann.phone.heard);
    let ended = gateway.read("/v1/sessions/history");
    assert_eq!(ended["sessions"].as_array().map(Vec::len), Some(0), "{ended}");
}
