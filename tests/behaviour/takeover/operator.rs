//! An operator makes a gateway the owner although its peer is silent.

use std::process::{Command, Output};

use evenkeel_client::ClientError;
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{PACKETS, expect_echo, group_without_agent, ng_server};
use crate::harness::{
    GatewayProcess, Hosts, TIMEOUT, assert_continuous, await_armed, await_replica, ids, talk_for,
    wait_until,
};
use crate::relay::metric;

const TAKE_OVER: &str = "/v1/gateway:take-over";

fn gateway(at: &GatewayProcess, words: &[&str]) -> Output {
    let socket = at.folder().join("admin.sock");
    let mut command = Command::new(evenkeel());
    command.arg("gateway").args(words).arg("--api").arg(socket).output().unwrap()
}

/// Repeats the command until it is accepted, and returns its output. The peer must have been silent for a second, and
/// agents must have missed it for two.
fn take_over(at: &GatewayProcess, peer: &str) -> String {
    let mut said = String::new();
    wait_until("the takeover is accepted", || {
        let output = gateway(at, &["take-over", "--confirm-down", peer]);
        said = String::from_utf8(output.stdout).unwrap();
        output.status.success()
    });
    said
}

/// The status and message of a refusal.
fn refusal(at: &mut GatewayProcess, peer: &str) -> (u16, String) {
    let asked = json!({"confirm_down": peer});
    match at.ask(async |client| client.post(TAKE_OVER, &asked).await) {
        Err(ClientError::Refused { status, message, .. }) => (status, message),
        other => panic!("{other:?}"),
    }
}

/// Waits until the gateway shows that it does not replace its silent peer, and returns the reason.
fn await_blocked(at: &mut GatewayProcess) -> String {
    let mut reason = Value::Null;
    wait_until("the gateway waits for its peer", || {
        reason = at.read("/v1/gateways")["gateways"][0]["blocked"].clone();
        reason.is_string()
    });
    reason.as_str().unwrap().to_owned()
}

fn await_gauge(at: &mut GatewayProcess, name: &str, value: u64) {
    wait_until(name, || metric(at, name, "") == Some(value));
}

const LAG: &str = "evenkeel_group_lag_seconds";

fn is_ready(at: &mut GatewayProcess) -> bool {
    at.ask(async |client| client.is_ready().await).unwrap()
}

#[required(Namespaces)]
#[test]
fn operator_lets_a_lone_gateway_serve() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut first, mut second] = place.group(&node);
    // Both hosts disappear, and one returns.
    second.process.signal(Signal::SIGKILL).unwrap();
    place.set_link(0, false);
    first.process.signal(Signal::SIGKILL).unwrap();
    second.process.wait(TIMEOUT).unwrap();
    {
        let _inside = place.gateways[1].enter().unwrap();
        second.start_again_unready();
    }
    let reason = await_blocked(&mut second);
    assert!(reason.starts_with("edge-1 is silent: "), "{reason}");
    let listed = String::from_utf8(gateway(&second, &["list"]).stdout).unwrap();
    assert!(listed.contains(&reason) && listed.contains("--confirm-down edge-1"), "{listed}");
    assert!(!is_ready(&mut second) && !place.has_address(1));
    let (status, message) = refusal(&mut second, "edge-2");
    assert_eq!(
        (status, message.contains("another gateway of the group: `edge-1`")),
        (400, true),
        "{message}"
    );

    let said = take_over(&second, "edge-1");
    assert!(said.ends_with("; sessions that continue: 0\n"), "{said}");
    wait_until("it admits sessions", || is_ready(&mut second));
    assert!(place.has_address(1));
    second.open("room", &mut ann);
    expect_echo(&mut ann, "packets come back");
    let (status, message) = refusal(&mut second, "edge-1");
    assert_eq!((status, &*message), (409, "this gateway owns the addresses already"));
    wait_until("no standby has its records", || {
        metric(&mut second, LAG, "").is_some_and(|seconds| seconds > 0)
    });

    place.set_link(0, true);
    {
        let _inside = place.gateways[0].enter().unwrap();
        first.start_again();
    }
    await_replica(&mut second);
    await_gauge(&mut second, LAG, 0);
    assert_eq!(ids(&mut first).len(), 1, "relayed");
    expect_echo(&mut ann, "its return changes nothing");
}

#[required(Namespaces)]
#[test]
fn operator_replaces_an_owner_without_a_witness() {
    let place = Hosts::lay();
    let (server, mut ann) = (ng_server(&place), place.phone());
    let [mut owner, mut standby] = group_without_agent(&place, &server, "port_legs = true\n");
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    place.set_link(0, false);
    await_blocked(&mut standby);
    await_gauge(&mut standby, "evenkeel_group_blocked", 1);
    assert_eq!(metric(&mut standby, "evenkeel_group_owned", ""), Some(0));
    let said = take_over(&standby, "edge-1");
    assert_eq!(said, "edge-2 owns the addresses in epoch 2; sessions that continue: 1\n");
    expect_echo(&mut ann, "packets arrive again");
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);

    // The former owner lived on. It ends once it hears the newer epoch.
    place.set_link(0, true);
    assert_eq!(owner.process.wait(TIMEOUT).unwrap().code(), Some(1));
    wait_until("its addresses are gone", || !place.has_address(0));
    assert!(place.has_address(1));
    expect_echo(&mut ann, "the new owner goes on");
}

#[required(Namespaces)]
#[test]
fn operator_lets_a_doubting_owner_send() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, _standby] = place.group(&node);
    owner.open("room", &mut ann);
    await_replica(&mut owner);
    await_armed(&owner);
    place.set_link(0, false);
    let reason = await_blocked(&mut owner);
    assert!(
        reason.ends_with("neither it nor a majority of the agents and witnesses answers"),
        "{reason}"
    );
    await_gauge(&mut owner, "evenkeel_group_owned", 0);
    assert_eq!(metric(&mut owner, "evenkeel_group_blocked", ""), Some(0), "it is the owner");
    let said = take_over(&owner, "edge-2");
    assert!(said.ends_with("; sessions that continue: 1\n"), "{said}");
    assert_eq!(owner.read("/v1/gateways")["gateways"][0]["role"], "owner");
}

#[required(Namespaces)]
#[test]
fn heard_owner_is_not_replaced_on_request() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    let (status, message) = refusal(&mut standby, "edge-1");
    assert_eq!(status, 409);
    assert!(message.contains("`evenkeel gateway hand-over --to edge-2` at `edge-1`"), "{message}");
    assert_eq!(refusal(&mut owner, "edge-2").0, 409);
    assert_eq!(refusal(&mut standby, "edge-3").0, 400);
    assert_eq!((place.has_address(0), place.has_address(1)), (true, false));
    assert!(standby.read("/v1/gateways")["gateways"][0].get("blocked").is_none());
}
