//! Two ends of a WebRTC library, or two pages of a browser, in a call through a gateway, with DTLS, encrypted audio and video; the node
//! that carries their sessions dies.

use std::path::Path;
use std::process::Command;

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::{Client, browser_packages, present, python};
use serde_json::{Value, json};

use crate::stage::{NODES, Stage, sample_node};

const ROOM: &str = "webrtc";

const CONFIGURATION: &str = r#"
[gateway]
region = "east"
drain_timeout = "0s"

[[listen]]
udp = "127.0.0.1:0"
identity = ["stun"]

[admin]
socket = "admin.sock"
"#;

/// Packets of a kind that each end receives before the node dies, and after its room has moved.
const PACKETS: u64 = 50;

/// Packets of audio and video at each end.
type Received = [[u64; 2]; 2];

/// Waits until each end has received this many packets. Returns the numbers and both ends.
fn received(ends: &ChildProcess, at_least: Received) -> (Received, Vec<Value>) {
    let found = ends.wait_for("packets at both ends", TIMEOUT, |lines| {
        let last = ends_of(lines.last()?);
        let count = |end: usize, kind: usize| last.get(end)?["received"][kind].as_u64();
        let counts = [0, 1].map(|end| [0, 1].map(|kind| count(end, kind).unwrap_or_default()));
        let counts_of = |counts: Received| counts.into_iter().flatten();
        let mut pairs = counts_of(counts).zip(counts_of(at_least));
        let is_enough = pairs.all(|(count, least)| count >= least);
        is_enough.then_some((counts, last))
    });
    found.unwrap_or_else(|error| panic!("{error}; {:?}", ends.lines().last()))
}

/// Both ends by a line of output.
fn ends_of(line: &str) -> Vec<Value> {
    let mut line: Value = serde_json::from_str(line).unwrap_or_default();
    serde_json::from_value(line["ends"].take()).unwrap_or_default()
}

/// Each end must receive audio and video before and after the death of the node, and notice nothing. Returns both ends before and after
/// it.
fn call_survives_node_death(test: &str, mut command: Command) -> [Vec<Value>; 2] {
    let mut stage = Stage::before(test, CONFIGURATION, |folder| {
        NODES.map(|node| sample_node(node, folder, &[])).into()
    });
    command.arg(stage.folder().join("admin.sock")).arg(ROOM);
    let ends = ChildProcess::start("webrtc-call", &mut command, stage.folder());
    // A browser ends with its driver.
    let ends = ends.expect("the script starts").with_grace(TIMEOUT);
    let (before, ends_before) = received(&ends, [[PACKETS; 2]; 2]);
    let rooms = stage.read("/v1/rooms");
    let carries = rooms["rooms"][0]["route"][0]["node"].as_str();
    let carries = carries.unwrap_or_else(|| panic!("{rooms}")).to_owned();
    let moved = stage.kill_under(&carries, ROOM);
    assert!(moved["to"].is_string() && moved["to"] != *carries, "{moved}");
    let (after, ends_after) = received(&ends, before.map(|end| end.map(|count| count + PACKETS)));
    println!(
        "{test}, packets of audio and video at each end: {before:?} before the death of {carries}, {after:?} in all"
    );
    // From the first connection on.
    let states: Vec<Value> = ends.lines().iter().flat_map(|line| states_of(line)).collect();
    let mut connected = states.iter().skip_while(|states| states[0] != "connected");
    let other = connected.find(|states| states[0] != "connected");
    assert_eq!(other, None, "an end was connected, and then something else");
    assert_eq!(stage.read("/v1/sessions")["sessions"].as_array().map(Vec::len), Some(2));
    let drops = &stage.read("/v1/status")["drops"];
    for reason in ["srtp-forged", "srtp-replayed", "srtp-index"] {
        assert_eq!(drops[reason].as_u64().unwrap_or_default(), 0, "{drops}");
    }
    [ends_before, ends_after]
}

/// The states of both ends by a line of output.
fn states_of(line: &str) -> Vec<Value> {
    ends_of(line).into_iter().map(|mut end| end["states"].take()).collect()
}

fn library(module: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/webrtc_call.py")).arg(module);
    command
}

#[test]
fn call_of_aiortc_survives_node_death() {
    let test = "call_of_aiortc_survives_node_death";
    if present(test, Client::Aiortc) {
        call_survives_node_death("webrtc-aiortc", library("aiortc"));
    }
}

#[test]
fn call_of_libwebrtc_survives_node_death() {
    let test = "call_of_libwebrtc_survives_node_death";
    if present(test, Client::Libwebrtc) {
        call_survives_node_death("webrtc-libwebrtc", library("webrtc"));
    }
}

#[test]
fn call_of_chromium_survives_node_death() {
    if !present("call_of_chromium_survives_node_death", Client::Chromium) {
        return;
    }
    let mut command = Command::new("node");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/browser/call.js"))
        .arg(browser_packages());
    let [before, after] = call_survives_node_death("webrtc-chromium", command);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            after["states"],
            json!(["connected", "connected", "connected"]),
            "connection, ICE and DTLS"
        );
        assert_eq!(after["path"], before["path"], "candidate pairs and certificates");
        let more = |field: &str| after[field].as_u64().zip(before[field].as_u64());
        let [gap, freezes, frozen] = ["concealed_ms", "freezes", "frozen_ms"]
            .map(|field| more(field).map_or(0, |(after, before)| after.saturating_sub(before)));
        let kbps = &after["kbps"];
        println!(
            "webrtc-chromium: {gap} ms of audio concealed, {freezes} freezes of {frozen} ms, may send {kbps} kbit/s"
        );
    }
}
