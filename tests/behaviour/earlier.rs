//! A gateway of an earlier program is replaced by this one: in place, by a start on its files, and by a standby of its group.
//!
//! The earlier program is that of `EVENKEEL_EARLIER`, which `tests/upgrade-from/run` sets; without it, this one plays both. Files of
//! a3d43ed3, the last version without a database, are a fixture.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use evenkeel_process::file::name_of;
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Behaviour, GatewayProcess, Hosts, Node, Phone, TIMEOUT, World, await_replica, ids,
    routing_plugin, talk, wait_until,
};
use crate::revisions::{act, await_kept, decided, kill_and_start, push, save};
use crate::takeover::hand_over;
use crate::upgrade::Calls;

const PAIRS: u64 = 8;

fn earlier() -> PathBuf {
    env::var_os("EVENKEEL_EARLIER").map_or_else(|| evenkeel().into(), PathBuf::from)
}

/// Has a revision quarantined, a canary paused, a node drained and a session in the history.
fn decide(gateway: &mut GatewayProcess, mut phone: impl FnMut(u64) -> Phone) {
    let good = decided(gateway)["active"].clone();
    let harmful = gateway.folder().join("policies").join("mine.wasm");
    fs::write(harmful, routing_plugin(Behaviour::TrapsFromRoom(0, 0))).unwrap();
    save(gateway, "[routing]\nplugin = \"mine.wasm\"\n[rollout]\ncanary = []\nshadow = \"0s\"\n");
    wait_until("the file is active", || decided(gateway)["active"] != good);
    let mut numbers = 1_000..;
    wait_until("it is rolled back", || {
        let mut phone = phone(numbers.next().unwrap());
        gateway.open(&format!("room-{}", phone.number), &mut phone);
        decided(gateway)["active"] == good
    });
    await_kept(gateway);
    push(gateway, 0, "now=true");
    push(gateway, 1, "canary=20,60&pace=1h");
    act(gateway, "pause");
    gateway.post("/v1/nodes/east-b1:drain", &json!({"force": true}));
    for id in ids(gateway) {
        gateway.ask(async |client| client.close(&id).await).unwrap();
    }
    wait_until("all are in the history", || ids(gateway).is_empty() && !ended(gateway).is_empty());
}

/// The ids in the history.
fn ended(gateway: &mut GatewayProcess) -> Vec<Value> {
    let history = gateway.read("/v1/sessions/history");
    history["sessions"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect()
}

/// What [`decide`] has decided.
fn decisions(gateway: &mut GatewayProcess) -> Value {
    let nodes = gateway.read("/v1/nodes");
    let drained = nodes["nodes"].as_array().unwrap().iter().filter(|it| it["draining"] == true);
    json!({
        "policy": decided(gateway),
        "drained": drained.map(|it| it["node"].clone()).collect::<Vec<_>>(),
        "ended": ended(gateway),
    })
}

fn assert_complete(decisions: &Value) {
    let policy = &decisions["policy"];
    assert_eq!((&policy["percent"], &policy["paused"]), (&json!(20), &json!(true)), "{decisions}");
    assert_eq!(policy["quarantined"].as_array().unwrap().len(), 1, "{decisions}");
    assert_eq!(decisions["drained"], json!(["east-b1"]));
}

/// Operators go on with what they have decided at the earlier program.
fn continue_decisions(gateway: &mut GatewayProcess) {
    act(gateway, "promote");
    assert_eq!(decided(gateway)["percent"], 60);
    gateway.post("/v1/nodes/east-b1:undrain", &json!({}));
    assert_eq!(decisions(gateway)["drained"], json!([]));
}

#[test]
fn earlier_program_is_upgraded_in_place() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let world = World::of(&nodes.each_ref()).routed();
    let mut gateway = GatewayProcess::start_by(&world, Command::new(earlier()));
    decide(&mut gateway, Phone::new);
    let mut calls = Calls::open(&mut gateway, PAIRS);
    let (before, sessions) = (decisions(&mut gateway), ids(&mut gateway));
    assert_complete(&before);
    calls.talk_over(&mut gateway, json!({"binary": evenkeel()})).unwrap();
    assert_eq!((decisions(&mut gateway), ids(&mut gateway)), (before, sessions));
    continue_decisions(&mut gateway);
    calls.assert_whole();
}

/// Has the earlier program decide, and waits until its decisions are on the disk.
fn leave_files(world: &World) -> (GatewayProcess, Value) {
    let mut gateway = GatewayProcess::start_by(world, Command::new(earlier()));
    decide(&mut gateway, Phone::new);
    let before = decisions(&mut gateway);
    assert_complete(&before);
    for id in before["ended"].as_array().unwrap() {
        gateway.await_written(id.as_str().unwrap());
    }
    (gateway, before)
}

#[test]
fn files_of_an_earlier_program_are_continued() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let world = World::of(&nodes.each_ref()).routed();
    let (mut gateway, before) = leave_files(&world);
    kill_and_start(&mut gateway);
    assert_eq!(decisions(&mut gateway), before);
    continue_decisions(&mut gateway);
    gateway.open("room", &mut Phone::new(1));
}

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/upgrade-from/a3d43ed3");

/// Folders of a gateway's files that last.
const KEPT: [&str; 2] = ["evenkeel", "policies"];

/// Copies a folder, for its owner alone. Files and folders that are named after the gateway's socket, `from`, are named after `to`.
fn copy(source: &Path, target: &Path, from: &str, to: &str) {
    fs::create_dir_all(target).unwrap();
    fs::set_permissions(target, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap().replace(from, to);
        // Compiled plugins are compiled again.
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &target.join(name), from, to),
            kind if kind.is_file() && !name.ends_with(".cwasm") => {
                let target = target.join(name);
                fs::copy(entry.path(), &target).unwrap();
                fs::set_permissions(target, Permissions::from_mode(0o600)).unwrap();
            }
            _ => {}
        }
    }
}

/// Writes the fixture of files: `EVENKEEL_EARLIER` is the program of a3d43ed3.
#[test]
#[ignore = "writes a fixture"]
fn write_files_of_a3d43ed3() {
    assert!(env::var_os("EVENKEEL_EARLIER").is_some(), "this program would write its own files");
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let (mut gateway, before) = leave_files(&World::of(&nodes.each_ref()).routed());
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    let name = name_of(&gateway.folder().join("admin.sock"));
    for folder in KEPT {
        copy(&gateway.folder().join(folder), &Path::new(FIXTURE).join(folder), &name, "NAME");
    }
    let text = serde_json::to_string_pretty(&before).unwrap();
    fs::write(Path::new(FIXTURE).join("decisions.json"), text).unwrap();
}

#[test]
fn files_of_a3d43ed3_are_continued() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let world = World::of(&nodes.each_ref()).routed();
    let command = Command::new(evenkeel());
    let mut gateway = GatewayProcess::start_on(&world, command, |folder| {
        let name = name_of(&folder.join("admin.sock"));
        for kept in KEPT {
            copy(&Path::new(FIXTURE).join(kept), &folder.join(kept), "NAME", &name);
        }
    });
    let before = fs::read(Path::new(FIXTURE).join("decisions.json")).unwrap();
    assert_eq!(decisions(&mut gateway), serde_json::from_slice::<Value>(&before).unwrap());
    continue_decisions(&mut gateway);
    gateway.open("room", &mut Phone::new(1));
}

#[required(Namespaces)]
#[test]
fn earlier_owner_hands_over_to_a_standby() {
    let mut place = Hosts::lay();
    place.program = earlier();
    let (node, second) = (place.node(), place.node_named("east-b1"));
    let [mut owner, mut standby] =
        place.routed_group_before(&format!("{}{}", node.text(), second.text()));
    decide(&mut owner, |number| place.phone_of(number));
    let phones = (1..=2 * PAIRS).map(|number| place.phone_of(number)).collect();
    let mut calls = Calls::of(&mut owner, phones);
    await_replica(&mut owner);
    let (before, sessions) = (decisions(&mut owner), ids(&mut owner));
    assert_complete(&before);
    let mut handing = hand_over(&owner, "edge-2");
    talk(&mut calls.phones(), "the hand-over is answered", |_| {
        handing.try_wait().unwrap().is_some()
    });
    assert!(handing.wait().unwrap().success());
    calls.assert_heard_again();
    assert_eq!((place.has_address(0), place.has_address(1)), (false, true));
    assert_eq!(ids(&mut standby), sessions);
    wait_until("the standby decides as the owner did", || decisions(&mut standby) == before);
    continue_decisions(&mut standby);
}
