//! Client identities on a UDP listener, and where packets to a client are sent.

use evenkeel_media::rtcp;
use evenkeel_model::{ClientIdentity, IngressProtocol};

use crate::harness::{
    Credentials, Node, Nominate, Phone, World, assert_complete, declared, offer, talk, talk_for,
    udp_of, wait_until,
};

#[test]
fn undeclared_address_is_dropped() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let (mut ann, mut eve) = (Phone::new(1), Phone::new(6));
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    eve.set_target(udp_of(&opened));
    talk(&mut [&mut ann, &mut eve], "she hears herself", |phones| phones[0].heard.len() >= 10);
    talk_for(&mut [&mut ann, &mut eve], 5);
    assert!(eve.heard.is_empty() && eve.other.is_empty());
    assert_eq!(ann.heard_from(6, 0).len(), 0);
    wait_until("each unknown packet is counted", || {
        gateway.drops("unknown-source") == eve.voice.sent
    });
}

#[test]
fn declared_ip_port_is_learned_once() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_identities("[\"declared-ip\"]").start();
    let (mut ann, mut eve) = (Phone::new(1), Phone::new(6));
    let ingress = IngressProtocol::Udp(ClientIdentity::DeclaredIp(ann.address().ip()));
    let opened = gateway.open(offer("room", ingress));
    ann.set_target(udp_of(&opened));
    eve.set_target(udp_of(&opened));
    // An undeclared payload type and RTCP do not bind the port.
    eve.voice.payload_type = 5;
    talk_for(&mut [&mut eve], 3);
    eve.send(b"\x80\xc9\0\x01\0\0\0\x06");
    wait_until("no port is bound", || gateway.drops("unknown-source") == 4);

    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    eve.voice.payload_type = 111;
    talk_for(&mut [&mut ann, &mut eve], 10);
    wait_until("another port is unknown", || gateway.drops("unknown-source") == eve.voice.sent + 1);
    assert_eq!(ann.heard_from(6, 0).len(), 0);
    assert!(eve.heard.is_empty());
}

#[test]
fn declared_ip_packets_before_answer_are_kept() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_identities("[\"declared-ip\"]");
    world.limits += "early_for = \"5s\"\n";
    world.probe_timeout = "30s";
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.set_target(gateway.status().udp[0]);
    node.stop(true);
    let handle = gateway.handle.clone();
    let wanted =
        offer("room", IngressProtocol::Udp(ClientIdentity::DeclaredIp(ann.address().ip())));
    let opening = gateway.runtime.spawn(async move { handle.offer(wanted).await });
    // The first packets may arrive before the session exists.
    talk(&mut [&mut ann], "some packets are held", |phones| {
        phones[0].voice.sent >= gateway.drops("unknown-source") + 5
    });
    let before = ann.voice.sent;
    node.stop(false);
    gateway.ask(opening).unwrap().unwrap();
    talk(&mut [&mut ann], "she hears herself", |phones| {
        phones[0].heard.iter().any(|heard| heard.mark.number >= before)
    });
    let first = ann.heard[0].mark.number;
    assert!(first < before, "{first} of {before} came through: {:?}", gateway.status().drops);
    assert_complete(&ann.heard, first, first + ann.heard.len() as u64);
}

#[test]
fn second_client_of_ip_is_learned_after_first() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_identities("[\"declared-ip\"]").start();
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    let ingress = IngressProtocol::Udp(ClientIdentity::DeclaredIp(ann.address().ip()));
    let first = gateway.open(offer("one", ingress.clone()));
    gateway.try_open(offer("two", ingress.clone())).expect_err("one unbound client per IP");
    ann.set_target(udp_of(&first));
    bob.set_target(udp_of(&first));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    gateway.open(offer("two", ingress));
    talk(&mut [&mut ann, &mut bob], "each hears its own room", |phones| {
        phones[0].audio_from(1) >= 10 && phones[1].audio_from(2) >= 5
    });
    assert_eq!((ann.audio_from(2), bob.audio_from(1)), (0, 0));
}

#[test]
fn stun_password_admits_and_is_answered() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_identities("[\"stun\"]").start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", IngressProtocol::Udp(ClientIdentity::Stun)));
    let credentials = Credentials::of(&opened);
    ann.set_target(udp_of(&opened));

    talk_for(&mut [&mut ann], 3);
    wait_until("media before a check is unknown", || gateway.drops("unknown-source") == 3);
    let wrong =
        Credentials { password: "not the password at all".into(), ..Credentials::of(&opened) };
    wrong.check(&ann, Nominate::Yes);
    let unknown = Credentials { ufrag: "nobody".into(), ..Credentials::of(&opened) };
    unknown.check(&ann, Nominate::Yes);
    talk_for(&mut [&mut ann], 3);
    wait_until("wrong checks are counted", || gateway.drops("bad-integrity") == 2);
    wait_until("they bind no address", || gateway.drops("unknown-source") == 6);
    assert!(ann.heard.is_empty() && ann.other.is_empty(), "they are not answered");

    credentials.check(&ann, Nominate::No);
    let address = ann.address();
    talk(&mut [&mut ann], "the check is answered and she hears herself", |phones| {
        credentials.mapped(phones[0]) == Some(address) && phones[0].heard.len() >= 10
    });
}

#[test]
fn nomination_moves_media_and_old_may_send() {
    let node = Node::unchanged("east-a1");
    let gateway = World::of(&[&node]).with_identities("[\"stun\"]").start();
    let (mut old, mut new, mut third) = (Phone::new(1), Phone::new(2), Phone::new(3));
    let opened = gateway.open(offer("room", IngressProtocol::Udp(ClientIdentity::Stun)));
    let credentials = Credentials::of(&opened);
    for phone in [&mut old, &mut new, &mut third] {
        phone.set_target(udp_of(&opened));
    }
    credentials.check(&old, Nominate::Yes);
    talk(&mut [&mut old], "the first hears itself", |phones| phones[0].heard.len() >= 5);

    credentials.check(&new, Nominate::Yes);
    // Both send; media goes to the new address only.
    talk(&mut [&mut old, &mut new], "media goes to the second", |phones| {
        phones[1].audio_from(1) >= 5 && phones[1].audio_from(2) >= 5
    });
    credentials.check(&third, Nominate::No);
    let heard = (old.heard.len(), third.heard.len());
    talk(&mut [&mut old, &mut new, &mut third], "the third may send", |phones| {
        phones[1].audio_from(3) >= 5
    });
    assert_eq!(
        (old.heard.len(), third.heard.len()),
        heard,
        "a check without nomination moves nothing"
    );
}

#[test]
fn first_packet_to_open_listener_opens_session() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.listens =
        "[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = [\"open\"]\nscenario = \"call\"\n".into();
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.set_target(gateway.running.as_ref().unwrap().udp[0]);
    // RTCP may arrive first; it does not tell which media is sent.
    let mut report = Vec::new();
    rtcp::write_receiver_report(7, &[], &mut report);
    ann.send(&report);
    wait_until("it opens nothing", || gateway.drops("not-opened") == 1);
    assert_eq!(gateway.status().sessions, 0);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(*sessions[0].state.room, *format!("open-0-{}", ann.address()));
}
