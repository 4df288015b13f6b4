//! Media servers that are informed of sessions by webhook and by rtpengine's NG protocol.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_control::{ControlError, GatewayEvent};
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_model::NodeId;
use serde_json::{Value, json};

use crate::harness::{
    Gateway, GatewayProcess, Node, Phone, World, declared, offer, talk, udp_of, wait_until,
};
use crate::relay::metric;

/// An operator's server, which records POSTs and gives the same answer to each.
pub(super) fn operator(
    status: &'static str,
    answer: String,
) -> (String, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/sessions", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    // The thread ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _no_receiver = sender.send(request(&mut stream));
            let length = answer.len();
            let _gone =
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{answer}");
        }
    });
    (url, received)
}

fn request(stream: &mut TcpStream) -> (String, Value) {
    let (mut text, mut bytes) = (String::new(), [0; 4_096]);
    loop {
        let length = stream.read(&mut bytes).unwrap();
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return (head.to_lowercase(), body);
        }
    }
}

/// A gateway with one node, a plain media server with one room for all clients.
fn before(node: &Node, driver: &str) -> Gateway {
    let mut world = World::of(&[]);
    world.nodes = format!(
        "[[node]]\nname = \"east-a1\"\nregion = \"east\"\nzone = \"a\"\ncapacity = \"200 Mbit/s\"\n{}\n",
        driver.replace("MEDIA", &node.address.to_string())
    );
    world.start()
}

pub(super) fn assert_two_clients_hear(gateway: &Gateway) {
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    for phone in [&mut ann, &mut bob] {
        let opened = gateway.open(offer("room", declared(phone)));
        phone.set_target(udp_of(&opened));
    }
    talk(&mut [&mut ann, &mut bob], "both hear", |phones| {
        phones[0].audio_from(2) >= 5 && phones[1].audio_from(1) >= 5
    });
}

#[test]
fn webhook_is_called_at_open_and_close() {
    let node = Node::plain("media", "echo", PlainRoom::Shared);
    let (url, asked) = operator("200 OK", json!({"address": node.address}).to_string());
    let driver = format!(
        "driver = \"webhook\"\naddress = \"MEDIA\"\nprobe = \"echo\"\nwebhook = \"{url}\"\ntoken_file = \"secret\"\n\
         [telemetry]\notlp = \"http://127.0.0.1:9\""
    );
    let mut gateway = before(&node, &driver);
    assert_two_clients_hear(&gateway);
    let opens: Vec<(String, Value)> = (0..2).map(|_| asked.recv().unwrap()).collect();
    for (head, open) in &opens {
        assert!(head.contains("authorization: bearer what both ends know"), "{head}");
        assert_eq!((&open["verb"], &open["room"]), (&json!("open"), &json!("room")));
        let own = open["gateway"]["address"].as_str().unwrap();
        assert!(own.starts_with("127.0.0.1:"), "{own}");
    }
    let one = opens[0].1["session"].clone();
    assert_ne!(one, opens[1].1["session"]);
    gateway.end();
    let (head, close) = asked.recv().unwrap();
    assert_eq!(close["verb"], "close");
    let opened = opens.iter().find(|(_, open)| open["nonce"] == close["nonce"]);
    let trace = |head: &str| {
        let header = head.lines().find_map(|line| line.strip_prefix("traceparent: 00-"));
        header.unwrap_or_else(|| panic!("{head}")).to_owned()
    };
    assert_eq!(trace(&head), trace(&opened.unwrap().0), "both are in the session's trace");
    assert_ne!(trace(&opens[0].0)[..32], trace(&opens[1].0)[..32]);
}

#[test]
fn webhook_refusal_reason_reaches_reply_and_event() {
    let node = Node::plain("media", "echo", PlainRoom::Shared);
    let (url, _asked) = operator("409 Conflict", json!({"error": "no licence left"}).to_string());
    let driver =
        format!("driver = \"webhook\"\naddress = \"MEDIA\"\nprobe = \"echo\"\nwebhook = \"{url}\"");
    let gateway = before(&node, &driver);
    let ann = Phone::new(1);
    let reason = "HTTP status 409: no licence left";
    let refused = ControlError::NotOpened { node: NodeId(0), reason: reason.into() };
    assert_eq!(gateway.try_open(offer("room", declared(&ann))), Err(refused));
    gateway.expect("the event with the reason", |told| match &told.event {
        GatewayEvent::NotOpened { node: NodeId(0), reason: told, .. } => {
            assert_eq!(&**told, reason);
            Some(())
        }
        _ => None,
    });
}

/// An rtpengine that offers one media address to all clients. Its port is closed once this is dropped.
struct Rtpengine {
    ng: SocketAddr,
    asked: mpsc::Receiver<String>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Rtpengine {
    fn start(media: SocketAddr) -> Rtpengine {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let ng = socket.local_addr().unwrap();
        let (sender, asked) = mpsc::channel();
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 8_192];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
                let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
                let cookie = text.split(' ').next().unwrap();
                let (ip, port) = (media.ip(), media.port());
                let sdp = format!("v=0\r\nc=IN IP4 {ip}\r\nm=audio {port} RTP/AVP 111\r\n");
                let answer = if text.contains("7:command4:ping") {
                    "d6:result4:ponge".to_owned()
                } else if text.contains("7:command6:delete") {
                    "d6:result2:oke".to_owned()
                } else {
                    format!("d6:result2:ok3:sdp{}:{sdp}e", sdp.len())
                };
                let _sent = socket.send_to(format!("{cookie} {answer}").as_bytes(), from);
                if !text.contains("4:ping") {
                    let _no_receiver = sender.send(text);
                }
            }
        });
        Rtpengine { ng, asked, ends, thread: Some(thread) }
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[test]
fn rtpengine_joins_two_and_refuses_a_third() {
    let node = Node::plain("media", "echo", PlainRoom::Shared);
    let engine = Rtpengine::start(node.address);
    let ng = engine.ng;
    let mut gateway = before(&node, &format!("driver = \"rtpengine\"\nng = \"{ng}\""));
    wait_until("its pings are answered", || {
        gateway.ask(gateway.handle.nodes()).unwrap()[0].round_trip.is_some()
    });
    assert_two_clients_hear(&gateway);
    let carol = Phone::new(3);
    let refused = gateway.try_open(offer("room", declared(&carol)));
    assert_eq!(refused, Err(ControlError::RoomFull { node: "east-a1".into(), most: 2 }));
    gateway.end();
    let messages: Vec<String> = engine.asked.try_iter().collect();
    let count = |word: &str| messages.iter().filter(|text| text.contains(word)).count();
    // One offer and answer alone, one when joined.
    assert_eq!((count("command5:offer"), count("command6:answer")), (2, 2), "{messages:#?}");
}

#[test]
fn one_of_three_offers_at_once_finds_the_room_full() {
    let node = Node::plain("media", "echo", PlainRoom::Shared);
    let engine = Rtpengine::start(node.address);
    let ng = engine.ng;
    let gateway = before(&node, &format!("driver = \"rtpengine\"\nng = \"{ng}\""));
    wait_until("its pings are answered", || {
        gateway.ask(gateway.handle.nodes()).unwrap()[0].round_trip.is_some()
    });
    let phones = [1, 2, 3].map(Phone::new);
    let offers =
        phones.each_ref().map(|phone| gateway.handle.offer(offer("room", declared(phone))));
    let [ann, bob, carol] = offers;
    let (ann, bob, carol) = gateway.ask(async { tokio::join!(ann, bob, carol) });
    let mut refused = [ann, bob, carol].into_iter().filter_map(Result::err);
    let full = ControlError::RoomFull { node: "east-a1".into(), most: 2 };
    assert_eq!((refused.next(), refused.next()), (Some(full), None));
}

#[test]
fn third_party_leaves_the_spare_rtpengine_in_the_route() {
    let node = Node::plain("media", "echo", PlainRoom::Shared);
    let engines = [(); 2].map(|()| Rtpengine::start(node.address));
    let [a, b] = engines.each_ref().map(|engine| engine.ng);
    let second = format!(
        "driver = \"rtpengine\"\nng = \"{a}\"\n[[node]]\nname = \"east-b1\"\nregion = \"east\"\nzone = \"b\"\n\
         capacity = \"200 Mbit/s\"\ndriver = \"rtpengine\"\nng = \"{b}\""
    );
    let gateway = before(&node, &second);
    wait_until("their pings are answered", || {
        let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
        nodes.iter().all(|node| node.round_trip.is_some())
    });
    assert_two_clients_hear(&gateway);
    let route = || gateway.ask(gateway.handle.rooms()).unwrap()[0].route.clone();
    let before = route();
    assert_eq!(before.len(), 2);
    let carol = Phone::new(3);
    let refused = gateway.try_open(offer("room", declared(&carol)));
    assert!(matches!(refused, Err(ControlError::RoomFull { most: 2, .. })), "{refused:?}");
    assert_eq!(route(), before);
}

#[test]
fn absent_rtpengine_refuses_without_delay() {
    let node = Node::plain("media", "echo", PlainRoom::Shared);
    let unused = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = before(&node, &format!("driver = \"rtpengine\"\nng = \"{unused}\""));
    let ann = Phone::new(1);
    let refused = gateway.try_open(offer("room", declared(&ann))).unwrap_err();
    // The answer depends on whether the node is already marked down.
    let dead =
        matches!(&refused, ControlError::Refused(evenkeel_model::OfferRefusal::NoNode { .. }));
    let unanswered = matches!(
        &refused,
        ControlError::NotOpened { reason, .. } if reason.contains(&format!("no NG listener at {unused}"))
    );
    assert!(dead || unanswered, "{refused:?}");
}

/// Five calls of two before these nodes. The node with most calls is killed. The event `node`, the comparison with the prediction, and
/// the metrics count as many as clients that hear by the other node from then on.
fn assert_death_is_counted_alike(nodes: [Node; 2], texts: &str) {
    assert_death_with_its_server_is_counted_alike(nodes.map(|node| (node, ())), texts);
}

/// The server of each node, such as its control port, is dropped once the node is dead.
fn assert_death_with_its_server_is_counted_alike<T>(mut nodes: [(Node, T); 2], texts: &str) {
    let world = World { nodes: texts.to_owned(), ..World::of(&[]) };
    let mut gateway = GatewayProcess::start(&world);
    wait_until("the nodes are heard", || {
        let nodes = gateway.read("/v1/nodes");
        let mut nodes = nodes["nodes"].as_array().unwrap().iter();
        nodes.all(|node| node["health"] == "up" && !node["round_trip_us"].is_null())
    });
    let events = gateway.client();
    let mut events = gateway.ask(async |_| events.events().await).unwrap();
    let mut phones: Vec<Phone> = (1..=10).map(Phone::new).collect();
    for (room, phone) in (0..10).zip(&mut phones) {
        gateway.open(&format!("room-{}", room / 2), phone);
    }
    let mut phones: Vec<&mut Phone> = phones.iter_mut().collect();
    talk(&mut phones, "all hear", |phones| phones.iter().all(|phone| phone.heard.len() >= 10));
    let before: Vec<u32> =
        phones.iter().map(|phone| phone.heard.last().unwrap().mark.node).collect();
    let at = |node: &Node| before.iter().filter(|on| **on == node.number()).count() as u64;
    nodes.sort_by_key(|(node, _)| at(node));
    let [(survivor, _its_server), (mut victim, server)] = nodes;
    let sessions = at(&victim);
    assert!(sessions >= 6 && sessions % 2 == 0, "{before:?}");
    victim.kill();
    drop(server);
    let other = survivor.number();
    talk(&mut phones, "all hear by the other node", |phones| {
        phones.iter().all(|phone| phone.last_heard_via(other))
    });

    let (mut rooms, mut compared) = (Vec::new(), None);
    while compared.is_none() {
        let event = gateway.ask(async |_| events.next().await).unwrap().unwrap();
        match &*event.name {
            "node" if event.data["to"] == "down" => rooms.push(event.data["rooms"].as_u64()),
            "loss-compared" => compared = Some(event.data["actual"].clone()),
            _ => {}
        }
    }
    assert_eq!(rooms, [Some(sessions / 2)]);
    let compared = compared.unwrap();
    assert_eq!(
        (&compared["rooms"], &compared["sessions"]),
        (&json!(sessions / 2), &json!(sessions))
    );
    let mut moved = |what: &str, cause: &str| {
        let cause = format!("evenkeel_cause=\"{cause}\"");
        metric(&mut gateway, &format!("evenkeel_{what}_moved_total"), &cause).unwrap_or(0)
    };
    let counts = ["rooms", "sessions"].map(|what| [moved(what, "node-down"), moved(what, "link")]);
    assert_eq!(counts, [[sessions / 2, 0], [sessions, 0]]);
}

fn media_nodes() -> [Node; 2] {
    ["east-a1", "east-b1"].map(|name| Node::plain(name, "echo", PlainRoom::Alone))
}

/// The table of a node that another driver tells of sessions.
fn table(node: &Node, driver: &str) -> String {
    let zone = if node.name == "east-a1" { "a" } else { "b" };
    let driver = driver.replace("MEDIA", &node.address.to_string());
    format!(
        "[[node]]\nname = \"{}\"\nregion = \"east\"\nzone = \"{zone}\"\ncapacity = \"200 Mbit/s\"\n{driver}\n",
        node.name
    )
}

#[test]
fn death_of_a_plain_node_is_counted_alike() {
    let nodes = media_nodes();
    let texts = nodes.each_ref().map(Node::text).concat();
    assert_death_is_counted_alike(nodes, &texts);
}

#[test]
fn death_of_an_agents_node_is_counted_alike() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let texts = nodes.each_ref().map(Node::text).concat();
    assert_death_is_counted_alike(nodes, &texts);
}

#[test]
fn death_of_a_webhooks_node_is_counted_alike() {
    let nodes = media_nodes();
    let (texts, _asked): (Vec<_>, Vec<_>) = nodes
        .iter()
        .map(|node| {
            let (url, asked) = operator("200 OK", json!({"address": node.address}).to_string());
            let driver = format!(
                "driver = \"webhook\"\naddress = \"MEDIA\"\nprobe = \"echo\"\nwebhook = \"{url}\""
            );
            (table(node, &driver), asked)
        })
        .unzip();
    assert_death_is_counted_alike(nodes, &texts.concat());
}

#[test]
fn death_of_an_rtpengine_is_counted_alike() {
    let nodes = media_nodes().map(|node| {
        let engine = Rtpengine::start(node.address);
        (node, engine)
    });
    let text = |(node, engine): &(Node, Rtpengine)| {
        table(node, &format!("driver = \"rtpengine\"\nng = \"{}\"", engine.ng))
    };
    let texts = nodes.each_ref().map(text).concat();
    assert_death_with_its_server_is_counted_alike(nodes, &texts);
}
