//! Alerts that a gateway sent continue at the process after it.

use std::net::SocketAddr;

use evenkeel_testkit::http::HttpSink;
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    GatewayProcess, Hosts, NODE, Node, TIMEOUT, World, await_armed, await_replica, wait_until,
};
use crate::index::at;

/// It fires as soon as a node is marked down.
const RULE: &str = "EvenkeelNodeFailed";

fn receiver(name: &str, sink: &HttpSink) -> String {
    format!("[[alert]]\nname = \"{name}\"\nurl = \"http://{}/\"\n", sink.address())
}

/// The notices of the rule that a receiver got.
fn notices(sink: &HttpSink) -> Vec<Value> {
    let bodies = sink.bodies().into_iter();
    let notices = bodies.map(|body| serde_json::from_slice::<Value>(&body.bytes).unwrap());
    notices.filter(|notice| notice["alert"] == RULE).collect()
}

/// Waits until the receiver got the notice, and acknowledges the alert.
fn acknowledge(gateway: &mut GatewayProcess, sink: &HttpSink) {
    wait_until("the alert is sent", || !notices(sink).is_empty());
    gateway.post(&format!("/v1/alerts/{RULE}:acknowledge"), &Value::Null);
}

/// Waits until the gateway has continued the alert with its acknowledgement.
fn expect_acknowledged(gateway: &mut GatewayProcess) {
    wait_until("the alert continues", || {
        let listed = gateway.ask(async |client| client.read("/v1/alerts").await);
        let listed = listed.unwrap_or_default();
        let mut alerts = listed["alerts"].as_array().into_iter().flatten();
        alerts.any(|alert| alert["alert"] == RULE && alert["acknowledged"] == true)
    });
}

#[required(Namespaces)]
#[test]
fn takeover_continues_alerts() {
    let place = Hosts::lay();
    let [ops, late] = [9_095, 9_096].map(|port| {
        let address: SocketAddr = (place.client.address(), port).into();
        at(&place.client, || HttpSink::start(address))
    });
    // Two are left to vote.
    let mut nodes = ["east-a1", "east-b1", "east-c1"]
        .map(|name| at(&place.node, || Node::with(name, &format!("{NODE}:0"), |_| {})));
    let text: String = nodes.iter().map(Node::text).collect();
    let [mut owner, mut standby] = place.group_before(&(text + &receiver("ops", &ops)), "");
    await_replica(&mut owner);
    await_armed(&owner);
    nodes[0].kill();
    acknowledge(&mut owner, &ops);
    await_replica(&mut owner);
    owner.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the standby owns the address", || place.has_address(1));
    expect_acknowledged(&mut standby);

    // A new receiver is sent all alerts at once, and the others what they lack.
    let config = standby.folder().join("evenkeel.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, written + &receiver("late", &late)).unwrap();
    standby.post("/v1/configuration:reload", &json!({}));
    wait_until("the new receiver has the alert", || !notices(&late).is_empty());
    assert_eq!(notices(&ops).len(), 1, "{:#?}", notices(&ops));
}

/// A gateway that has sent an alert, which was acknowledged.
fn acknowledged(ops: &HttpSink) -> (GatewayProcess, [Node; 2]) {
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let mut world = World::of(&nodes.each_ref());
    world.nodes += &receiver("ops", ops);
    let mut gateway = GatewayProcess::start(&world);
    nodes[0].kill();
    acknowledge(&mut gateway, ops);
    (gateway, nodes)
}

#[test]
fn upgrade_continues_alerts() {
    let ops = HttpSink::start(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (mut gateway, _nodes) = acknowledged(&ops);
    let upgraded = gateway.upgrade(json!({})).join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    expect_acknowledged(&mut gateway);
    assert_eq!(notices(&ops).len(), 1, "{:#?}", notices(&ops));
}

#[test]
fn restart_continues_alerts() {
    let ops = HttpSink::start(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (mut gateway, _nodes) = acknowledged(&ops);
    // Without a farewell: the file has the alerts.
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    expect_acknowledged(&mut gateway);
    assert_eq!(notices(&ops).len(), 1, "{:#?}", notices(&ops));
}
