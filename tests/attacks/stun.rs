//! Captured STUN checks that an attacker on the path sends from an address of its own.

use evenkeel_model::{ClientIdentity, IngressProtocol};

use crate::harness::{
    Credentials, Gateway, Node, Nominate, Phone, World, assert_complete, offer, talk, talk_for,
    udp_of, wait_until,
};

/// A client with a captured check, and an attacker.
struct Scene {
    gateway: Gateway,
    credentials: Credentials,
    ann: Phone,
    eve: Phone,
    captured: Vec<u8>,
}

impl Scene {
    fn new(node: &Node, nominate: Nominate) -> Scene {
        let gateway = World::of(&[node]).with_identities("[\"stun\"]").start();
        let (mut ann, mut eve) = (Phone::new(1), Phone::new(6));
        let opened = gateway.open(offer("room", IngressProtocol::Udp(ClientIdentity::Stun)));
        let credentials = Credentials::of(&opened);
        ann.set_target(udp_of(&opened));
        eve.set_target(udp_of(&opened));
        let captured = credentials.check(&ann, nominate);
        talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
        Scene { gateway, credentials, ann, eve, captured }
    }
}

#[test]
fn replayed_check_takes_no_media() {
    for nominate in [Nominate::Yes, Nominate::No] {
        let node = Node::agent("east-a1");
        let Scene { gateway, mut ann, mut eve, captured, .. } = Scene::new(&node, nominate);
        let (first, unknown) = (ann.heard[0].mark.number, gateway.drops("unknown-source"));
        eve.send(&captured);
        wait_until("the replay is dropped", || gateway.drops("replayed") == 1);
        // If the gateway had accepted the check, media from this address would move the session's media there.
        talk_for(&mut [&mut ann, &mut eve], 50);
        eve.send(&captured);
        wait_until("the second replay is dropped", || gateway.drops("replayed") == 2);
        let sent = ann.voice.sent;
        talk(&mut [&mut ann], "the call goes on", |phones| {
            phones[0].heard.last().is_some_and(|heard| heard.mark.number >= sent)
        });
        assert_complete(&ann.heard, first, first + ann.heard.len() as u64);
        eve.listen();
        assert!(eve.heard.is_empty() && eve.other.is_empty(), "{nominate:?}");
        assert_eq!(gateway.drops("unknown-source") - unknown, eve.voice.sent);
    }
}

#[test]
fn new_check_moves_media_retransmission_does_not() {
    let node = Node::unchanged("east-a1");
    let Scene { gateway, credentials, mut ann, captured, .. } = Scene::new(&node, Nominate::Yes);
    let mut moved = Phone::new(2);
    moved.set_target(ann.target);
    credentials.check(&moved, Nominate::Yes);
    let address = moved.address();
    talk(&mut [&mut moved], "media follows the new check", |phones| {
        credentials.mapped(phones[0]) == Some(address) && phones[0].heard.len() >= 5
    });
    let answers = ann.other.len();
    ann.send(&captured);
    wait_until("the retransmission is answered", || {
        ann.listen();
        ann.other.len() > answers
    });
    let (before, elsewhere) = (moved.heard.len(), ann.heard.len());
    talk(&mut [&mut moved], "media stays", |phones| phones[0].heard.len() >= before + 10);
    ann.listen();
    assert_eq!((ann.heard.len(), gateway.drops("replayed")), (elsewhere, 0));
}
