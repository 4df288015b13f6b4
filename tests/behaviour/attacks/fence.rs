//! Attacks on the ownership of a group's sessions, by strangers and by a gateway that was the owner.

use std::net::UdpSocket;
use std::time::Duration;

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::message::{NodeSecret, TrunkAnswer, TrunkQuestion};
use evenkeel_media::trunk::{self, Bundle, GroupOwner, Hold, Tag, Vote};

use super::trunk::{Tap, TappedDatagram, now_us, receive, stranger};
use crate::harness::{
    AgentFiles, Node, Phone, SECRET, World, declared, offer, talk, talk_for, udp_of, wait_until,
};

const NODE: &str = "east-a9";
/// The gateways of these tests are configured without a group, whose number is then 0.
const GROUP: u32 = 0;

fn secret() -> NodeSecret {
    NodeSecret::new(SECRET, NODE).unwrap()
}

fn signed(question: &TrunkQuestion, secret: &NodeSecret, epoch: u64, at_us: u64) -> Vec<u8> {
    let (mut bytes, owner) = (Vec::new(), GroupOwner { group: GROUP, epoch });
    question.write_for(Some(owner), secret, 1, at_us, &mut bytes);
    bytes
}

/// Asks as the owner with this epoch, and returns the answer.
fn ask(socket: &UdpSocket, question: &TrunkQuestion, epoch: u64) -> TrunkAnswer {
    socket.send(&signed(question, &secret(), epoch, now_us())).unwrap();
    loop {
        let answer = receive(socket);
        if demux::classify(&answer) == DatagramKind::Signed {
            return TrunkAnswer::read(&answer, &secret(), now_us()).unwrap().message;
        }
    }
}

/// Sends a packet of the session to the node, and returns whether its echo comes back.
fn is_served(socket: &UdpSocket, tag: Tag) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bundle = Bundle::new(1_400);
    assert!(bundle.push(tag, &Phone::new(9).voice.packet(9)));
    socket.send(bundle.as_bytes()).unwrap();
    let mut buffer = [0; 2_048];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
        .any(|came| trunk::entries(&came).any(|entry| entry.is_ok_and(|(to, _)| to == tag)))
}

#[test]
fn only_a_newer_owner_moves_a_session() {
    let files = AgentFiles::new();
    let server = files.server(NODE, "127.0.0.1:0");
    files.write_pid(&server);
    let agent = files.agent(&format!("[media]\nserver = \"{}\"", server.address));
    let tap = Tap::before(agent.address);
    let mut world = World::of(&[]);
    world.nodes = format!(
        "[[node]]\nname = \"{NODE}\"\naddress = \"{}\"\nregion = \"east\"\nzone = \"a\"\n\
         capacity = \"200 Mbit/s\"\ndriver = \"agent\"\nsecret_file = \"secret\"\ncanary = false\n",
        tap.address
    );
    let mut gateway = world.start();
    gateway.running().fencing.set_epoch(3);
    let mut ann = Phone::new(1);
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    let hears = |ann: &mut Phone, more: usize| {
        let before = ann.audio_from(1);
        talk(&mut [ann], "ann hears the echo", |phones| phones[0].audio_from(1) >= before + more);
    };
    hears(&mut ann, 20);

    // A stranger floods the node with forged, changed, late and repeated epochs.
    let eve = stranger();
    eve.connect(agent.address).unwrap();
    let mut forged = vec![
        signed(&TrunkQuestion::Probe, &NodeSecret::new(SECRET, "east-a8").unwrap(), 99, now_us()),
        signed(
            &TrunkQuestion::Probe,
            &NodeSecret::new(b"a guess of some length", NODE).unwrap(),
            99,
            now_us(),
        ),
        signed(&TrunkQuestion::Probe, &secret(), 99, now_us() - 60_000_000),
    ];
    let questions = |seen: &TappedDatagram| {
        seen.is_to_node && demux::classify(&seen.bytes) == DatagramKind::Signed
    };
    let recorded = tap.seen(questions);
    assert!(recorded.iter().all(|seen| seen.bytes[1] == 3 || seen.bytes[1] == 2));
    let owned = recorded.iter().filter(|seen| seen.bytes[1] == 3);
    for seen in owned.clone().take(20) {
        let mut raised = seen.bytes.clone();
        raised[31] = 99;
        forged.extend([seen.bytes.clone(), raised]);
    }
    assert!(owned.clone().count() > 0, "the gateway signs its epoch");
    (0..20).flat_map(|_| &forged).for_each(|datagram| _ = eve.send(datagram).unwrap());
    hears(&mut ann, 20);
    assert!(gateway.running().refused_epochs.try_recv().is_err());

    // The other member of the group takes over: it has the records, so it knows the tag.
    let media = |seen: &TappedDatagram| {
        seen.is_to_node && demux::classify(&seen.bytes) == DatagramKind::Bundle
    };
    let tag = trunk::first_tag(&tap.seen(media)[0].bytes).unwrap();
    let heir = stranger();
    heir.connect(agent.address).unwrap();
    let keep = TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: [tag].into() };
    assert_eq!(ask(&heir, &keep, 4), TrunkAnswer::Keep { unknown: [].into() });
    wait_until("the new owner is served", || is_served(&heir, tag));
    wait_until("the old owner hears of it", || {
        gateway.running().refused_epochs.try_recv() == Ok(4)
    });

    // The old owner goes on: what it signs, and what it signed before, moves nothing.
    let old = stranger();
    old.connect(agent.address).unwrap();
    for question in [&keep, &TrunkQuestion::Close { tag }, &TrunkQuestion::Probe] {
        assert_eq!(ask(&old, question, 3), TrunkAnswer::Superseded { epoch: 4 });
    }
    recorded.iter().for_each(|seen| tap.forge(seen, &seen.bytes));
    ann.listen();
    let heard = ann.audio_from(1);
    talk_for(&mut [&mut ann], 25);
    wait_until("the new owner is still served", || is_served(&heir, tag));
    ann.listen();
    assert_eq!(ann.audio_from(1), heard, "no packet of the old owner passes");
}

#[test]
fn standby_claims_nothing_during_a_hold() {
    let files = AgentFiles::new();
    let server = files.server(NODE, "127.0.0.1:0");
    files.write_pid(&server);
    let agent = files.agent("");
    let socket = stranger();
    socket.connect(agent.address).unwrap();
    let vote = |vote| {
        let mut bytes = Vec::new();
        TrunkQuestion::Vote { group: GROUP, vote }.write(&secret(), 1, now_us(), &mut bytes);
        socket.send(&bytes).unwrap();
        match TrunkAnswer::read(&receive(&socket), &secret(), now_us()).unwrap().message {
            TrunkAnswer::Vote(voted) => voted,
            other => panic!("{other:?}"),
        }
    };
    let claim = Vote::Claim { base: 3, claim: 4 };
    let held = vote(Vote::Owner { epoch: 3, hold: Hold::Epoch });
    assert_eq!((held.epoch, held.promised), (3, 0));
    assert_eq!(vote(claim).promised, 0);
    let brief = Hold::For(Duration::ZERO);
    assert_eq!(vote(Vote::Owner { epoch: 4, hold: brief }).epoch, 4);
    assert_eq!(vote(Vote::Claim { base: 3, claim: 5 }).promised, 0, "of an epoch that has ended");
    assert_eq!(vote(Vote::Claim { base: 4, claim: 5 }).promised, 5);
}

#[test]
fn owner_without_a_lease_closes_no_session() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.scenario += "close_after = \"1s\"\n";
    let mut gateway = world.start();
    gateway.running().fencing.set_epoch(3);
    let (mut ann, silent) = (Phone::new(1), Phone::new(2));
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    let quiet = gateway.open(offer("other", declared(&silent)));
    // As in a process that was stopped and continues.
    gateway.running().lease.end();
    let heard = ann.heard.len();
    talk_for(&mut [&mut ann], 150);
    assert!(gateway.session(&quiet).is_some(), "it may live at another gateway");
    assert!(ann.heard.len() <= heard + 5, "no packet passes");
    gateway.running().lease.renew_forever();
    wait_until("the session is closed", || gateway.session(&quiet).is_none());
}
