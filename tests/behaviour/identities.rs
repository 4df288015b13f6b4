//! Who may send on a UDP listener, and where what is for them goes.

use evenkeel_core::{Identity, Ingress};
use evenkeel_media::rtcp;

use crate::harness::{
    Credentials, Node, Nominate, Phone, World, complete, declared, offer, talk, talk_for, udp_of,
    wait_until,
};

#[test]
fn only_the_declared_address_is_let_in() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let (mut ann, mut eve) = (Phone::new(1), Phone::new(6));
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.dial(udp_of(&opened));
    eve.dial(udp_of(&opened));
    talk(&mut [&mut ann, &mut eve], "she hears herself", |phones| phones[0].heard.len() >= 10);
    talk_for(&mut [&mut ann, &mut eve], 5);
    assert!(eve.heard.is_empty() && eve.other.is_empty());
    assert_eq!(ann.heard_of(6, 0).len(), 0);
    wait_until("each of the stranger's packets is counted", || {
        gateway.drops("unknown-source") == eve.voice.sent
    });
}

#[test]
fn the_port_of_a_declared_ip_is_learned_once() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).taking("[\"declared-ip\"]").start();
    let (mut ann, mut eve) = (Phone::new(1), Phone::new(6));
    let ingress = Ingress::Udp(Identity::DeclaredIp(ann.address().ip()));
    let opened = gateway.open(offer("room", ingress));
    ann.dial(udp_of(&opened));
    eve.dial(udp_of(&opened));
    // What was not declared teaches nothing.
    eve.voice.payload_type = 5;
    talk_for(&mut [&mut eve], 3);
    eve.send(b"\x80\xc9\0\x01\0\0\0\x06");
    wait_until("nothing was learned", || gateway.drops("unknown-source") == 4);

    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    eve.voice.payload_type = 111;
    talk_for(&mut [&mut ann, &mut eve], 10);
    wait_until("another port is a stranger's", || {
        gateway.drops("unknown-source") == eve.voice.sent + 1
    });
    assert_eq!(ann.heard_of(6, 0).len(), 0);
    assert!(eve.heard.is_empty());
}

#[test]
fn what_a_declared_ip_says_before_its_node_has_answered_is_kept() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).taking("[\"declared-ip\"]");
    world.limits += "early_for = \"5s\"\n";
    world.alone = "30s";
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.dial(gateway.status().udp[0]);
    node.stop(true);
    let handle = gateway.handle.clone();
    let wanted = offer("room", Ingress::Udp(Identity::DeclaredIp(ann.address().ip())));
    let opening = gateway.runtime.spawn(async move { handle.offer(wanted).await });
    // The first of them may come before there is a session.
    talk(&mut [&mut ann], "some wait", |phones| {
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
    complete(&ann.heard, first, first + ann.heard.len() as u64);
}

#[test]
fn a_second_phone_behind_the_same_address_is_learned_after_the_first() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).taking("[\"declared-ip\"]").start();
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    let ingress = Ingress::Udp(Identity::DeclaredIp(ann.address().ip()));
    let first = gateway.open(offer("one", ingress.clone()));
    gateway.try_open(offer("two", ingress.clone())).expect_err("whose would the next packet be?");
    ann.dial(udp_of(&first));
    bob.dial(udp_of(&first));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    gateway.open(offer("two", ingress));
    talk(&mut [&mut ann, &mut bob], "each hears the own room", |phones| {
        phones[0].voices_of(1) >= 10 && phones[1].voices_of(2) >= 5
    });
    assert_eq!((ann.voices_of(2), bob.voices_of(1)), (0, 0));
}

#[test]
fn who_proves_the_password_may_send_and_is_answered() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).taking("[\"stun\"]").start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", Ingress::Udp(Identity::Stun)));
    let credentials = Credentials::of(&opened);
    ann.dial(udp_of(&opened));

    talk_for(&mut [&mut ann], 3);
    wait_until("media before a check is a stranger's", || gateway.drops("unknown-source") == 3);
    let wrong =
        Credentials { password: "not the password at all".into(), ..Credentials::of(&opened) };
    wrong.check(&ann, Nominate::Yes);
    let nobody = Credentials { ufrag: "nobody".into(), ..Credentials::of(&opened) };
    nobody.check(&ann, Nominate::Yes);
    talk_for(&mut [&mut ann], 3);
    wait_until("wrong ones are counted", || gateway.drops("bad-integrity") == 2);
    wait_until("and teach nothing", || gateway.drops("unknown-source") == 6);
    assert!(ann.heard.is_empty() && ann.other.is_empty(), "nor are they answered");

    credentials.check(&ann, Nominate::No);
    let address = ann.address();
    talk(&mut [&mut ann], "she is answered, and hears herself", |phones| {
        credentials.mapped(phones[0]) == Some(address) && phones[0].heard.len() >= 10
    });
}

#[test]
fn media_follow_the_nominated_address_and_the_old_one_may_send_for_a_moment() {
    let node = Node::untouched("east-a1");
    let gateway = World::of(&[&node]).taking("[\"stun\"]").start();
    let (mut old, mut new, mut third) = (Phone::new(1), Phone::new(2), Phone::new(3));
    let opened = gateway.open(offer("room", Ingress::Udp(Identity::Stun)));
    let credentials = Credentials::of(&opened);
    for phone in [&mut old, &mut new, &mut third] {
        phone.dial(udp_of(&opened));
    }
    credentials.check(&old, Nominate::Yes);
    talk(&mut [&mut old], "the first is there", |phones| phones[0].heard.len() >= 5);

    credentials.check(&new, Nominate::Yes);
    // Both send; everything comes back to the new one.
    talk(&mut [&mut old, &mut new], "it moved", |phones| {
        phones[1].voices_of(1) >= 5 && phones[1].voices_of(2) >= 5
    });
    credentials.check(&third, Nominate::No);
    let heard = (old.heard.len(), third.heard.len());
    talk(&mut [&mut old, &mut new, &mut third], "the third may send", |phones| {
        phones[1].voices_of(3) >= 5
    });
    assert_eq!(
        (old.heard.len(), third.heard.len()),
        heard,
        "no check without a nomination moves it"
    );
}

#[test]
fn the_first_packet_to_an_open_listener_opens_a_session() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.listens =
        "[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = [\"open\"]\nscenario = \"call\"\n".into();
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.dial(gateway.running.as_ref().unwrap().udp[0]);
    // A report comes first, as it may; it does not say what is sent.
    let mut report = Vec::new();
    rtcp::write_receiver_report(7, &[], &mut report);
    ann.send(&report);
    wait_until("it opens nothing", || gateway.drops("not-opened") == 1);
    assert_eq!(gateway.status().sessions, 0);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(*sessions[0].room, *format!("open-0-{}", ann.address()));
}
