//! Offers and media servers that name other hosts' addresses, to aim media at them.

use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint};
use evenkeel_control::ControlError;
use evenkeel_lab::sample_node::PlainRoom;
use hyper::Method;
use serde_json::{Value, json};

use crate::drivers::operator;
use crate::harness::{Gateway, Node, Phone, World, declared, offer, talk, udp_of, wait_until};

/// A room of three, to whose addresses nothing is sent before a packet came from there.
fn room_with_victim(node: &Node) -> (Gateway, [Phone; 3]) {
    let mut world = World::of(&[node]);
    world.await_first_packet = true;
    let gateway = world.start();
    let mut phones = [1, 2, 3].map(Phone::new);
    for phone in &mut phones {
        let opened = gateway.open(offer("room", declared(phone)));
        phone.set_target(udp_of(&opened));
    }
    (gateway, phones)
}

#[test]
fn declared_victim_is_sent_nothing() {
    let node = Node::agent("east-a1");
    let (gateway, [mut ann, mut bob, mut victim]) = room_with_victim(&node);
    talk(&mut [&mut ann, &mut bob], "those who send hear each other", |phones| {
        phones[0].audio_from(2) >= 20 && phones[1].audio_from(1) >= 20
    });
    wait_until("media to the victim is dropped", || gateway.drops("no-address") >= 30);
    victim.listen();
    assert_eq!((victim.heard.len(), victim.other.len()), (0, 0));
    // The owner of the address takes part with its first packet.
    talk(&mut [&mut ann, &mut bob, &mut victim], "all hear all", |phones| {
        phones[2].audio_from(1) >= 5 && phones[2].audio_from(2) >= 5 && phones[0].audio_from(3) >= 5
    });
}

#[test]
fn forged_first_packet_aims_media_for_seconds_only() {
    let node = Node::agent("east-a1");
    let (gateway, [mut ann, mut bob, mut victim]) = room_with_victim(&node);
    // The victim's socket stands for an attacker that forges its address.
    victim.send_media();
    talk(&mut [&mut ann, &mut bob], "media to the victim is dropped", |_| {
        gateway.drops("unvalidated") >= 30
    });
    victim.listen();
    let heard = victim.heard.len();
    let dropped = gateway.drops("unvalidated");
    talk(&mut [&mut ann, &mut bob], "it remains so", |_| {
        gateway.drops("unvalidated") >= dropped + 100
    });
    victim.listen();
    assert_eq!(victim.heard.len(), heard);
}

/// Posts an offer of a client at this address; returns status and body.
fn post(gateway: &Gateway, client: &mut ApiClient, address: &str) -> (u16, Value) {
    let body = json!({
        "scenario": "call",
        "room": "room",
        "ingress": {"udp": {"identity": "declared", "address": address}},
        "media": [{
            "kind": "audio",
            "payload_types": [{"payload_type": 111, "codec": "opus", "clock_rate": 48_000}],
        }],
    });
    let (method, path, body) = (Method::POST, "/v1/sessions", body.to_string().into());
    let reply = gateway.ask(client.ask(ApiCall { method, path, headers: &[], body })).unwrap();
    (reply.status, reply.json().unwrap())
}

#[test]
fn offered_address_of_no_single_host_is_refused() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let admin = gateway.settings.admin.clone();
    let mut client = ApiClient::new(ApiEndpoint::Unix(admin.socket.clone()));
    let _api =
        evenkeel_api::start(admin, gateway.handle.clone(), Box::new(|_| String::new())).unwrap();
    for (address, reason) in [
        ("0.0.0.0:4000", "unspecified"),
        ("[::]:4000", "unspecified"),
        ("224.0.0.1:4000", "multicast"),
        ("[::ffff:224.0.0.1]:4000", "multicast"),
        ("255.255.255.255:4000", "broadcast"),
        ("127.0.0.1:0", "port 0"),
    ] {
        let (status, body) = post(&gateway, &mut client, address);
        let (field, message) = (&body["error"]["field"], body["error"]["message"].as_str());
        assert_eq!((status, field), (400, &json!("ingress.udp.address")), "{address}: {body}");
        let message = message.unwrap();
        assert!(message.contains(address) && message.contains(reason), "{message}");
    }
    assert_eq!(gateway.status().sessions, 0);
    let mut ann = Phone::new(1);
    let (status, body) = post(&gateway, &mut client, &ann.address().to_string());
    assert_eq!(status, 201, "{body}");
    ann.set_target(body["udp"]["addresses"][0].as_str().unwrap().parse().unwrap());
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
}

#[test]
fn offered_node_address_outside_networks_is_refused() {
    let node = Node::plain("east-a1", "echo", PlainRoom::Alone);
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let wanted = |address| {
        let mut wanted = offer("room", declared(&ann));
        wanted.nodes = vec![("east-a1".into(), address)];
        wanted
    };
    for address in ["203.0.113.7:4000", "127.0.0.2:4000", "[2001:db8::7]:4000"] {
        let address = address.parse().unwrap();
        let refused = ControlError::OutsideNetworks { node: "east-a1".into(), address };
        assert_eq!(gateway.try_open(wanted(address)), Err(refused));
    }
    let opened = gateway.open(wanted(node.address));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
}

/// A gateway and a node with a webhook that gives this answer.
fn webhooked(node: &Node, answer: &Value) -> Gateway {
    let (url, _asked) = operator("200 OK", answer.to_string());
    let mut world = World::of(&[]);
    world.nodes = format!(
        "[[node]]\nname = \"east-a1\"\nregion = \"east\"\nzone = \"a\"\ncapacity = \"200 Mbit/s\"\n\
         driver = \"webhook\"\naddress = \"{}\"\nprobe = \"echo\"\nwebhook = \"{url}\"\n",
        node.address
    );
    world.start()
}

#[test]
fn webhook_cannot_name_a_multicast_address() {
    let node = Node::plain("media", "echo", PlainRoom::Alone);
    let mut ann = Phone::new(1);
    for address in ["239.1.2.3:4000", "255.255.255.255:4000", "0.0.0.0:4000"] {
        let gateway = webhooked(&node, &json!({"address": address}));
        let refused = gateway.try_open(offer("room", declared(&ann))).unwrap_err();
        let ControlError::NotOpened { reason, .. } = refused else { panic!("{refused:?}") };
        assert!(reason.contains("`address`") && reason.contains(address), "{reason}");
    }
    let gateway = webhooked(&node, &json!({"address": node.address}));
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
}
