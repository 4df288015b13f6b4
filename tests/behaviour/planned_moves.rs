//! Planned moves lose no packet.

use std::collections::BTreeMap;

use evenkeel_client::ClientError;
use evenkeel_control::ControlError;
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_model::{CoreEvent, Impossible, MoveCause};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    GatewayProcess, Node, Phone, TIMEOUT, World, assert_complete, assert_continuous, declared,
    offer, talk, udp_of, wait_until,
};

/// Moves a room (one client that hears itself, or two that hear each other) to the other node and back.
fn assert_move_without_loss(make: fn(&str) -> Node, people: u64) {
    let nodes = ["east-a1", "east-b1"].map(make);
    let gateway = World::of(&nodes.each_ref()).start();
    let mut phones: Vec<Phone> = (1..=people).map(Phone::new).collect();
    let mut opened = None;
    for phone in &mut phones {
        phone.sends_video = true;
        let reply = gateway.open(offer("room", declared(phone)));
        phone.set_target(udp_of(&reply));
        opened = Some(reply);
    }
    let opened = opened.unwrap();
    let (here, there) = (opened.route[0].node.0 as usize, opened.route[1].node.0 as usize);
    let other = |phone: &Phone| people + 1 - phone.number;
    let mut talking: Vec<&mut Phone> = phones.iter_mut().collect();
    talk(&mut talking, "media flows", |phones| {
        phones.iter().all(|phone| phone.audio_from(other(phone)) >= 10)
    });
    // All clients are bound, so each packet from here on must arrive.
    let firsts: Vec<[u64; 2]> = talking
        .iter()
        .map(|phone| {
            [0, 1].map(|stream| {
                phone.heard_from(other(phone), stream).last().map_or(0, |heard| heard.mark.number)
            })
        })
        .collect();
    for to in [there, here] {
        let name = nodes[to].name.clone();
        gateway.ask(gateway.handle.move_room("room".into(), name.into())).unwrap();
        let number = nodes[to].number();
        let goal = talking[0].voice.sent + 40;
        talk(&mut talking, "the room moved", |phones| {
            phones[0].voice.sent >= goal && phones.iter().all(|phone| phone.last_heard_via(number))
        });
    }
    let sent: Vec<[u64; 2]> =
        talking.iter().map(|phone| [phone.voice.sent, phone.video.sent]).collect();
    let last = |phone: &Phone, stream| {
        phone.heard_from(other(phone), stream).iter().map(|heard| heard.mark.number).max()
    };
    let place = |phone: &Phone| (phone.number - 1) as usize;
    talk(&mut talking, "all packets are heard", |phones| {
        phones.iter().all(|phone| {
            let sent = sent[(other(phone) - 1) as usize];
            [0, 1].into_iter().all(|stream| last(phone, stream as u8) >= Some(sent[stream] - 1))
        })
    });
    for phone in &phones {
        for stream in [0, 1] {
            let first = firsts[place(phone)][stream];
            let sent = sent[(other(phone) - 1) as usize][stream];
            let mut heard = phone.heard_from(other(phone), stream as u8);
            heard.retain(|heard| (first..sent).contains(&heard.mark.number));
            for node in nodes.iter().map(Node::number) {
                let by_it = heard.iter().filter(|heard| heard.mark.node == node);
                assert!(by_it.is_sorted_by_key(|heard| heard.mark.number));
            }
            // The last packets of a busy node may come after the first ones of the next.
            heard.sort_by_key(|heard| heard.mark.number);
            assert_continuous(&heard);
            assert_complete(&heard, first, sent);
        }
    }
    let mut moves = Vec::new();
    gateway.happened(|told| {
        if let evenkeel_control::GatewayEvent::Core(CoreEvent::Moved { cause, to, .. }) =
            &told.event
        {
            moves.push((*cause, to.unwrap().node.0 as usize));
        }
        None::<()>
    });
    assert_eq!(moves, [(MoveCause::Manual, there), (MoveCause::Manual, here)]);
    wait_until("a move requests key frames from senders", || {
        gateway.status().key_frames_to_client >= people
    });
}

#[test]
fn move_between_rewriting_nodes_loses_nothing() {
    assert_move_without_loss(Node::agent, 2);
}

#[test]
fn move_between_transparent_nodes_loses_nothing() {
    assert_move_without_loss(Node::unchanged, 2);
}

#[test]
fn move_between_port_leg_nodes_loses_nothing() {
    assert_move_without_loss(|name| Node::plain(name, "echo", PlainRoom::Alone), 1);
}

#[test]
fn drained_node_loses_rooms_and_takes_none() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let gateway = World::of(&nodes.each_ref()).start();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    let (here, there) = (opened.route[0].node.0 as usize, opened.route[1].node.0 as usize);
    gateway.ask(gateway.handle.drain_node(nodes[here].name.as_str().into(), true)).unwrap();
    talk(&mut [&mut ann], "the room moved", |phones| {
        phones[0].last_heard_via(nodes[there].number())
    });
    let back = gateway.handle.move_room("room".into(), nodes[here].name.as_str().into());
    let unfit = gateway.ask(back);
    assert!(matches!(unfit, Err(ControlError::Unfit { draining: true, .. })), "{unfit:?}");
    let nobody = gateway.handle.move_room("room".into(), "nobody".into());
    let known = nodes.iter().map(|node| node.name.as_str().into()).collect();
    let reason = Impossible::NoSuchNode;
    assert_eq!(gateway.ask(nobody), Err(ControlError::Unfound { reason, known }));
    let nowhere = gateway.handle.move_room("nowhere".into(), nodes[there].name.as_str().into());
    assert_eq!(gateway.ask(nowhere), Err(ControlError::Impossible(Impossible::NoSuchRoom)));
}

#[test]
fn operators_decisions_continue_after_a_kill() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1"), Node::agent("west-a1")];
    let mut gateway = GatewayProcess::start(&World::of(&nodes.each_ref()));
    gateway.post("/v1/nodes/east-a1:drain", &json!({}));
    gateway.post("/v1/nodes/east-b1:eject", &json!({}));
    gateway.post("/v1/regions/west:failback", &json!({"mode": "forbid"}));
    let decided = |gateway: &mut GatewayProcess| {
        let nodes = gateway.read("/v1/nodes")["nodes"].take();
        let nodes = nodes.as_array().unwrap().iter();
        let nodes: Vec<_> =
            nodes.map(|node| (node["draining"].clone(), node["ejected"].clone())).collect();
        (nodes, gateway.read("/v1/regions")["regions"].to_string().contains("forbid"))
    };
    let before = decided(&mut gateway);
    assert_eq!(before.0[..2], [(json!(true), json!(false)), (json!(false), json!(true))]);
    assert!(before.1);
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    assert_eq!(decided(&mut gateway), before);
}

#[test]
fn last_node_that_takes_rooms_is_kept_without_force() {
    let nodes = [Node::agent("east-a1"), Node::agent("west-a1")];
    let mut gateway = GatewayProcess::start(&World::of(&nodes.each_ref()));
    let mut ask = |path: &str, body: Value| {
        gateway.ask(async |client| client.post(path, &body).await).map(|_| ())
    };
    ask("/v1/nodes/east-a1:drain", json!({})).unwrap();
    for path in ["/v1/nodes/west-a1:drain", "/v1/nodes/west-a1:eject", "/v1/regions/west:drain"] {
        match ask(path, json!({})) {
            Err(ClientError::Refused { status: 409, message, .. }) => {
                assert!(message.contains("no other node than `west-a1`"), "{message}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    ask("/v1/nodes/east-a1:drain", json!({})).unwrap();
    ask("/v1/nodes/west-a1:eject", json!({"force": true})).unwrap();
}

/// The rooms go where a copy of the gateway said, and nothing of the copy happens before.
#[test]
fn rooms_of_an_ejected_zone_go_where_blast_said() {
    let nodes = ["east-a1", "east-a2", "east-b1", "east-b2"].map(Node::agent);
    let mut gateway = GatewayProcess::start(&World::of(&nodes.each_ref()));
    let mut phones: Vec<Phone> = (1..=6).map(Phone::new).collect();
    for (number, phone) in phones.iter_mut().enumerate() {
        gateway.open(&format!("room-{number}"), phone);
    }
    let rooms = |gateway: &mut GatewayProcess| -> BTreeMap<String, String> {
        let rooms = gateway.read("/v1/rooms")["rooms"].take();
        let of = |room: &Value, key: &str| room[key].as_str().unwrap_or("none").to_owned();
        rooms
            .as_array()
            .unwrap()
            .iter()
            .map(|room| (of(room, "room"), of(&room["hop"], "node")))
            .collect()
    };
    let before = rooms(&mut gateway);
    let blast = gateway.read("/v1/blast?zones=east/a&rooms=true");
    assert_eq!(rooms(&mut gateway), before, "nothing moved");
    assert_eq!(
        (&blast["nodes"], &blast["unplaced"]["rooms"]),
        (&json!(["east-a1", "east-a2"]), &json!(0))
    );
    let foretold: BTreeMap<String, String> = blast["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| (room["room"].as_str().unwrap().into(), room["to"].as_str().unwrap().into()))
        .collect();
    let there = before.iter().filter(|(_, node)| node.starts_with("east-a"));
    let there: Vec<&String> = there.map(|(room, _)| room).collect();
    assert!(!there.is_empty() && there.iter().copied().eq(foretold.keys()), "{before:?}");
    gateway.post("/v1/zones/a:eject", &json!({}));
    let expected: BTreeMap<String, String> = before.into_iter().chain(foretold).collect();
    wait_until("the rooms are where they were foretold", || rooms(&mut gateway) == expected);
    let ejected = |gateway: &mut GatewayProcess| {
        gateway.read("/v1/zones")["zones"][0]["nodes_ejected"].as_u64()
    };
    assert_eq!(ejected(&mut gateway), Some(2));
    // The decision lasts, and is taken back for the zone.
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    assert_eq!(ejected(&mut gateway), Some(2));
    gateway.post("/v1/zones/east%2Fa:uneject", &json!({}));
    assert_eq!(ejected(&mut gateway), Some(0));
}
