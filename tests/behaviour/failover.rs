//! A node dies under calls, and they go on.

use evenkeel_core::{Cause, Event, Health, Hop, Incarnation, Witness};
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_media::rtcp;
use evenkeel_server::control::Opened;

use crate::harness::{
    Gateway, Heard, Node, Phone, World, complete, continuous, declared, offer, talk, udp_of,
    wait_until,
};

/// Those of one room, who film themselves: one who hears herself, or two who hear each other.
struct Company {
    phones: Vec<Phone>,
    opened: Opened,
}

impl Company {
    fn of(gateway: &Gateway, number: u64) -> Company {
        let mut phones: Vec<Phone> = (1..=number).map(Phone::new).collect();
        let mut last = None;
        for phone in &mut phones {
            phone.films = true;
            let opened = gateway.open(offer("room", declared(phone)));
            phone.dial(udp_of(&opened));
            last = Some(opened);
        }
        Company { phones, opened: last.unwrap() }
    }

    /// Whom this one hears.
    fn other(&self, phone: &Phone) -> u64 {
        self.phones.len() as u64 + 1 - phone.number
    }

    /// They talk until each heard so much more by this node.
    fn hear(&mut self, what: &str, by: u32, more: usize) {
        let count = self.phones.len() as u64;
        let heard = |phone: &Phone, stream| {
            let heard = phone.heard_of(count + 1 - phone.number, stream);
            heard.iter().filter(|heard| heard.mark.node == by).count()
        };
        let before: Vec<usize> =
            self.phones.iter().flat_map(|phone| [heard(phone, 0), heard(phone, 1)]).collect();
        let mut phones: Vec<&mut Phone> = self.phones.iter_mut().collect();
        talk(&mut phones, what, |phones| {
            let now = phones.iter().flat_map(|phone| [heard(phone, 0), heard(phone, 1)]);
            now.zip(&before).all(|(now, before)| now >= before + more)
        });
    }

    /// They talk until something holds.
    fn talk(&mut self, what: &str, mut until: impl FnMut() -> bool) {
        let mut phones: Vec<&mut Phone> = self.phones.iter_mut().collect();
        talk(&mut phones, what, |_| until());
    }
}

fn moved(event: &Event) -> Option<(Cause, Hop, Option<Hop>)> {
    match event {
        Event::Moved { cause, from, to, .. } => Some((*cause, *from, *to)),
        _ => None,
    }
}

fn nodes(make: fn(&str) -> Node) -> [Node; 3] {
    ["east-a1", "east-b1", "west-a1"].map(make)
}

/// The node that carries them dies by this; they go on, and so does what they hear.
fn they_go_on(
    mut nodes: [Node; 3],
    people: u64,
    die: impl FnOnce(&mut Node),
    look: impl Fn(&[Heard], u64),
) {
    let gateway = World::of(&nodes.each_ref()).start();
    let mut company = Company::of(&gateway, people);
    let opened = company.opened.clone();
    let (first, second) = (opened.route[0].node.0 as usize, opened.route[1].node.0 as usize);
    let (was, is) = (nodes[first].number(), nodes[second].number());
    company.hear("they talk", was, 10);

    let session = gateway.session(&opened).unwrap().session;
    die(&mut nodes[first]);
    company.hear("they go on by the second hop", is, 20);

    for phone in &company.phones {
        let other = company.other(phone);
        for stream in [0, 1] {
            let heard = phone.heard_of(other, stream);
            assert!(heard.iter().all(|heard| heard.mark.node == was || heard.mark.node == is));
            continuous(&heard);
            look(&heard, other);
        }
        let asked = phone.other.iter().flat_map(|bytes| rtcp::packets(bytes)).any(
            |packet| matches!(packet, Ok(rtcp::Packet::Pli(pli)) if pli.media == phone.video.ssrc),
        );
        assert!(asked, "the sender is asked for a key frame by its own SSRC");
    }
    assert_eq!(gateway.session(&opened).unwrap().session, session);
    let (cause, from, to) = gateway.expect_event("it is told", moved);
    // A closed port accuses its hop before it accuses the node.
    assert!(matches!(cause, Cause::NodeDown | Cause::Link));
    assert_eq!((from, to), (opened.route[0], Some(opened.route[1])));
    let switches: Vec<u32> = gateway
        .ask(gateway.handle.sessions())
        .unwrap()
        .iter()
        .map(|session| session.totals.switches)
        .collect();
    assert_eq!(switches, vec![1; people as usize]);
    assert!(gateway.status().key_frames_to_node >= people);
    drop(gateway);
    assert!(nodes[second].kill().pli >= people, "the new hop is asked too");
}

/// Another numbering, which the receivers never see.
fn rewritten(heard: &[Heard], _: u64) {
    assert_ne!(heard[0].header.ssrc, 0);
}

/// What came is what was sent.
fn as_sent(heard: &[Heard], sender: u64) {
    let track = Phone::new(sender);
    for heard in heard {
        let track = if heard.mark.stream == 0 { &track.voice } else { &track.video };
        let number = heard.mark.number as u16;
        assert_eq!(heard.header.ssrc, track.ssrc);
        assert_eq!(heard.header.sequence, track.sequence.wrapping_add(number));
        let timestamp = track.timestamp.wrapping_add(u32::from(number) * track.step);
        assert_eq!(heard.header.timestamp, timestamp);
    }
}

#[test]
fn a_killed_node_that_rewrites_is_not_missed() {
    they_go_on(nodes(Node::agent), 2, Node::die, rewritten);
}

#[test]
fn a_killed_node_that_leaves_packets_alone_is_not_missed_and_they_stay_untouched() {
    they_go_on(nodes(Node::untouched), 2, Node::die, as_sent);
}

#[test]
fn a_node_that_falls_silent_is_not_missed() {
    they_go_on(nodes(Node::agent), 2, |node| node.stop(true), rewritten);
}

#[test]
fn a_killed_node_with_port_legs_is_not_missed() {
    let plain = |name: &str| Node::plain(name, "echo", PlainRoom::Alone);
    they_go_on(nodes(plain), 1, Node::die, rewritten);
}

#[test]
fn a_silent_node_with_port_legs_is_not_missed() {
    let plain = |name: &str| Node::plain(name, "stun", PlainRoom::Alone);
    they_go_on(nodes(plain), 1, |node| node.stop(true), rewritten);
}

#[test]
fn silence_itself_accuses_a_node() {
    // Nothing answers probes here, and the socket stays open: silence is the only witness.
    let plain = |name: &str| Node::plain(name, "none", PlainRoom::Alone);
    let nodes = nodes(plain);
    let gateway = World::of(&nodes.each_ref()).start();
    let mut company = Company::of(&gateway, 1);
    let opened = company.opened.clone();
    let was = &nodes[opened.route[0].node.0 as usize];
    company.hear("she talks", was.number(), 10);
    was.stop(true);
    let is = nodes[opened.route[1].node.0 as usize].number();
    company.hear("she goes on", is, 5);
    let witnesses = gateway.expect_event("who accused it", |event| match event {
        Event::Node { hop, to: Health::Down, witnesses, .. } if *hop == opened.route[0] => {
            Some(witnesses.iter().map(|(witness, _)| *witness).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(witnesses, [Witness::Silence]);
}

fn comes_back_as_another(make: fn(&str) -> Node, people: u64) {
    let mut nodes = ["east-a1", "east-b1"].map(make);
    let gateway = World::of(&nodes.each_ref()).start();
    let mut company = Company::of(&gateway, people);
    let opened = company.opened.clone();
    let (first, second) = (opened.route[0].node, opened.route[1].node);
    let [this, that] = [first, second].map(|node| nodes[node.0 as usize].number());
    company.hear("they talk", this, 5);
    nodes[first.0 as usize].kill();
    company.hear("they go on", that, 5);
    company.talk("it is given up", || {
        let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
        nodes[first.0 as usize].health == Health::Down
    });
    let stayed = company.phones[0].heard.len();
    nodes[first.0 as usize].revive();
    let again = Hop { node: first, incarnation: Incarnation(2) };
    let route = || gateway.ask(gateway.handle.rooms()).unwrap().remove(0).route;
    company.talk("it is back as a spare", || route().contains(&again));
    assert_eq!(route()[0].node, second, "they stay where they are");
    assert!(company.phones[0].heard[stayed..].iter().all(|heard| heard.mark.node == that));
    assert!(!route().contains(&opened.route[0]), "what it was is gone for good");

    nodes[second.0 as usize].kill();
    company.hear("it carries them again", this, 20);
    for phone in &company.phones {
        continuous(&phone.heard_of(company.other(phone), 0));
        continuous(&phone.heard_of(company.other(phone), 1));
    }
}

#[test]
fn a_node_that_returns_is_used_only_as_another() {
    comes_back_as_another(Node::agent, 2);
}

#[test]
fn a_node_with_port_legs_that_returns_is_used_only_as_another() {
    comes_back_as_another(|name| Node::plain(name, "echo", PlainRoom::Alone), 1);
}

#[test]
fn without_any_other_node_they_wait_for_it_and_go_on() {
    let mut node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.dial(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    node.kill();
    talk(&mut [&mut ann], "nothing is left", |_| gateway.drops("no-hop") > 0);
    assert!(gateway.session(&opened).is_some());
    node.revive();
    let before = ann.heard.len();
    talk(&mut [&mut ann], "she hears herself again", |phones| phones[0].heard.len() >= before + 20);
    continuous(&ann.heard);
    // Nothing more is lost, once it goes on.
    let first = ann.heard[before].mark.number;
    wait_until("all is heard", || {
        ann.listen();
        ann.heard.last().unwrap().mark.number + 1 == ann.voice.sent
    });
    complete(&ann.heard[before..], first, ann.voice.sent);
}
