//! Calls continue when a node dies.

use evenkeel_control::SessionAnswer;
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_media::rtcp;
use evenkeel_model::{CoreEvent, EvidenceSource, Health, Hop, Incarnation, MoveCause};

use crate::harness::{
    Gateway, Heard, Node, Phone, World, assert_complete, assert_continuous, declared, offer, talk,
    udp_of, wait_until,
};

/// The clients of one room, with video: one that hears itself, or two that hear each other.
struct Party {
    phones: Vec<Phone>,
    opened: SessionAnswer,
}

impl Party {
    fn of(gateway: &Gateway, number: u64) -> Party {
        let mut phones: Vec<Phone> = (1..=number).map(Phone::new).collect();
        let mut last = None;
        for phone in &mut phones {
            phone.sends_video = true;
            let opened = gateway.open(offer("room", declared(phone)));
            phone.set_target(udp_of(&opened));
            last = Some(opened);
        }
        Party { phones, opened: last.unwrap() }
    }

    fn peer(&self, phone: &Phone) -> u64 {
        self.phones.len() as u64 + 1 - phone.number
    }

    /// All clients send until each has received `more` further packets of each stream through this node.
    fn hear(&mut self, what: &str, by: u32, more: usize) {
        let count = self.phones.len() as u64;
        let heard = |phone: &Phone, stream| {
            let heard = phone.heard_from(count + 1 - phone.number, stream);
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

    fn talk(&mut self, what: &str, mut until: impl FnMut() -> bool) {
        let mut phones: Vec<&mut Phone> = self.phones.iter_mut().collect();
        talk(&mut phones, what, |_| until());
    }
}

fn moved(event: &CoreEvent) -> Option<(MoveCause, Hop, Option<Hop>)> {
    match event {
        CoreEvent::Moved { cause, from, to, .. } => Some((*cause, *from, *to)),
        _ => None,
    }
}

fn nodes(make: fn(&str) -> Node) -> [Node; 3] {
    ["east-a1", "east-b1", "west-a1"].map(make)
}

/// The carrying node fails by `die`; media and sequence numbers continue through the second hop.
fn assert_call_survives(
    mut nodes: [Node; 3],
    people: u64,
    die: impl FnOnce(&mut Node),
    look: impl Fn(&[Heard], u64),
) {
    let gateway = World::of(&nodes.each_ref()).start();
    let mut party = Party::of(&gateway, people);
    let opened = party.opened.clone();
    let (first, second) = (opened.route[0].node.0 as usize, opened.route[1].node.0 as usize);
    let (was, is) = (nodes[first].number(), nodes[second].number());
    party.hear("media through the first hop", was, 10);

    let session = gateway.session(&opened).unwrap().state.session;
    die(&mut nodes[first]);
    party.hear("media through the second hop", is, 20);
    let is_asked = |phone: &Phone| {
        phone.other.iter().flat_map(|bytes| rtcp::packets(bytes)).any(
            |packet| matches!(packet, Ok(rtcp::RtcpPacket::Pli(pli)) if pli.media == phone.video.ssrc),
        )
    };
    let mut phones: Vec<&mut Phone> = party.phones.iter_mut().collect();
    talk(&mut phones, "each sender is asked for a key frame by its own SSRC", |phones| {
        phones.iter().all(|phone| is_asked(phone))
    });

    for phone in &party.phones {
        let other = party.peer(phone);
        for stream in [0, 1] {
            let heard = phone.heard_from(other, stream);
            assert!(heard.iter().all(|heard| heard.mark.node == was || heard.mark.node == is));
            assert_continuous(&heard);
            look(&heard, other);
        }
    }
    assert_eq!(gateway.session(&opened).unwrap().state.session, session);
    let (cause, from, to) = gateway.expect_event("the move is reported", moved);
    // A closed port marks the hop down before the node.
    assert!(matches!(cause, MoveCause::NodeDown | MoveCause::Link));
    assert_eq!((from, to), (opened.route[0], Some(opened.route[1])));
    wait_until("each session's summary has its switch", || {
        let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
        assert_eq!(sessions.len() as u64, people);
        sessions.iter().all(|session| session.totals.switches == 1)
    });
    wait_until("the requests are counted", || gateway.status().key_frames_to_node >= people);
    drop(gateway);
    assert!(nodes[second].kill().pli >= people, "a key frame is requested from the new hop");
}

/// For nodes that rewrite RTP: the packets have an SSRC.
fn rewritten(heard: &[Heard], _: u64) {
    assert_ne!(heard[0].header.ssrc, 0);
}

/// For nodes that forward unchanged: SSRC, sequence number and timestamp are those of the sender.
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
fn rewriting_node_killed_call_continues() {
    assert_call_survives(nodes(Node::agent), 2, Node::die, rewritten);
}

#[test]
fn transparent_node_killed_packets_stay_unchanged() {
    assert_call_survives(nodes(Node::unchanged), 2, Node::die, as_sent);
}

#[test]
fn swallowed_voice_is_sent_again_and_heard_once() {
    let mut nodes = nodes(|name| Node::unchanged(name).keeping_ssrc());
    let gateway = World::of(&nodes.each_ref()).start();
    let mut party = Party::of(&gateway, 2);
    let [first, second] = [0, 1].map(|hop| party.opened.route[hop].node.0 as usize);
    party.hear("media through the first hop", nodes[first].number(), 10);
    nodes[first].die();
    party.hear("media through the second hop", nodes[second].number(), 20);
    for phone in &party.phones {
        let heard = phone.heard_from(party.peer(phone), 0);
        as_sent(&heard, party.peer(phone));
        assert_continuous(&heard);
    }
    wait_until("packets that were sent again are counted", || {
        gateway.status().scenario_traffic.iter().any(|(_, traffic)| traffic.replayed > 0)
    });
}

#[test]
fn silent_node_call_continues() {
    assert_call_survives(nodes(Node::agent), 2, |node| node.stop(true), rewritten);
}

#[test]
fn port_leg_node_killed_call_continues() {
    let plain = |name: &str| Node::plain(name, "echo", PlainRoom::Alone);
    assert_call_survives(nodes(plain), 1, Node::die, rewritten);
}

#[test]
fn port_leg_node_silent_call_continues() {
    let plain = |name: &str| Node::plain(name, "stun", PlainRoom::Alone);
    assert_call_survives(nodes(plain), 1, |node| node.stop(true), rewritten);
}

#[test]
fn media_silence_alone_marks_node_down() {
    // Nothing answers probes, and the socket stays open: silence is the only witness.
    let plain = |name: &str| Node::plain(name, "none", PlainRoom::Alone);
    let nodes = nodes(plain);
    let gateway = World::of(&nodes.each_ref()).start();
    let mut party = Party::of(&gateway, 1);
    let opened = party.opened.clone();
    let was = &nodes[opened.route[0].node.0 as usize];
    party.hear("media through the first hop", was.number(), 10);
    was.stop(true);
    let is = nodes[opened.route[1].node.0 as usize].number();
    party.hear("media through the second hop", is, 5);
    let witnesses = gateway.expect_event("its witnesses", |event| match event {
        CoreEvent::Node { hop, to: Health::Down, witnesses, .. } if *hop == opened.route[0] => {
            Some(witnesses.iter().map(|(witness, _)| *witness).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(witnesses, [EvidenceSource::Silence]);
}

fn assert_returns_as_new_incarnation(make: fn(&str) -> Node, people: u64) {
    let mut nodes = ["east-a1", "east-b1"].map(make);
    let gateway = World::of(&nodes.each_ref()).start();
    let mut party = Party::of(&gateway, people);
    let opened = party.opened.clone();
    let (first, second) = (opened.route[0].node, opened.route[1].node);
    let [this, that] = [first, second].map(|node| nodes[node.0 as usize].number());
    party.hear("media through the first hop", this, 5);
    nodes[first.0 as usize].kill();
    party.hear("media through the second hop", that, 5);
    party.talk("the node is down", || {
        let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
        nodes[first.0 as usize].health == Health::Down
    });
    let stayed = party.phones[0].heard.len();
    nodes[first.0 as usize].revive();
    let again = Hop { node: first, incarnation: Incarnation(2) };
    let route = || gateway.ask(gateway.handle.rooms()).unwrap().remove(0).route;
    party.talk("it is back as a spare", || route().contains(&again));
    assert_eq!(route()[0].node, second, "the call does not fail back");
    assert!(party.phones[0].heard[stayed..].iter().all(|heard| heard.mark.node == that));
    assert!(!route().contains(&opened.route[0]), "the old incarnation never returns");

    nodes[second.0 as usize].kill();
    party.hear("media through the first node again", this, 20);
    for phone in &party.phones {
        assert_continuous(&phone.heard_from(party.peer(phone), 0));
        assert_continuous(&phone.heard_from(party.peer(phone), 1));
    }
}

#[test]
fn returned_node_has_new_incarnation() {
    assert_returns_as_new_incarnation(Node::agent, 2);
}

#[test]
fn returned_port_leg_node_has_new_incarnation() {
    assert_returns_as_new_incarnation(|name| Node::plain(name, "echo", PlainRoom::Alone), 1);
}

#[test]
fn only_node_returns_and_call_resumes() {
    let mut node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    node.kill();
    talk(&mut [&mut ann], "no hop is left", |_| gateway.drops("no-hop") > 0);
    assert!(gateway.session(&opened).is_some());
    node.revive();
    let before = ann.heard.len();
    talk(&mut [&mut ann], "she hears herself again", |phones| phones[0].heard.len() >= before + 20);
    assert_continuous(&ann.heard);
    // No packet is lost after the return.
    let first = ann.heard[before].mark.number;
    ann.hear_rest();
    assert_complete(&ann.heard[before..], first, ann.voice.sent);
}
