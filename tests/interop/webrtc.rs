//! Two ends of a WebRTC library in a call through a gateway, with DTLS, encrypted audio and video; the node that carries their sessions dies.

use std::path::Path;
use std::process::Command;

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::{Client, present, python};
use serde_json::Value;

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

/// Waits until each end has received this many packets of audio and video. Returns the numbers.
fn received(ends: &ChildProcess, at_least: [[u64; 2]; 2]) -> [[u64; 2]; 2] {
    let found = ends.wait_for("packets at both ends", TIMEOUT, |lines| {
        let last: Value = serde_json::from_str(lines.last()?).ok()?;
        let counts = [0, 1].map(|end| {
            [0, 1].map(|kind| last["ends"][end]["received"][kind].as_u64().unwrap_or_default())
        });
        let counts_of = |counts: [[u64; 2]; 2]| counts.into_iter().flatten();
        counts_of(counts)
            .zip(counts_of(at_least))
            .all(|(count, least)| count >= least)
            .then_some(counts)
    });
    found.unwrap_or_else(|error| panic!("{error}; {:?}", ends.lines().last()))
}

/// Each end must receive audio and video before and after the death of the node, and notice nothing.
fn call_survives_node_death(test: &str, module: &str) {
    let mut stage = Stage::before(test, CONFIGURATION, |folder| {
        NODES.map(|node| sample_node(node, folder, &[])).into()
    });
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/webrtc_call.py")).args([
        module.as_ref(),
        stage.folder().join("admin.sock").as_os_str(),
        ROOM.as_ref(),
    ]);
    let ends = ChildProcess::start("webrtc-call", &mut command, stage.folder());
    let ends = ends.expect("Python starts");
    let before = received(&ends, [[PACKETS; 2]; 2]);
    let rooms = stage.read("/v1/rooms");
    let carries = rooms["rooms"][0]["route"][0]["node"].as_str();
    let carries = carries.unwrap_or_else(|| panic!("{rooms}")).to_owned();
    let moved = stage.kill_under(&carries, ROOM);
    assert!(moved["to"].is_string() && moved["to"] != *carries, "{moved}");
    let after = received(&ends, before.map(|end| end.map(|count| count + PACKETS)));
    println!(
        "{module}, packets of audio and video at each end: {before:?} before the death of {carries}, {after:?} in all"
    );
    // From the first connection on.
    let states: Vec<Value> = ends.lines().iter().flat_map(|line| states_of(line)).collect();
    let mut connected = states.iter().skip_while(|states| states[0] != "connected");
    let other = connected.find(|states| states[0] != "connected");
    assert_eq!(other, None, "an end was connected, and then something else");
    let drops = &stage.read("/v1/status")["drops"];
    for reason in ["srtp-forged", "srtp-replayed", "srtp-index"] {
        assert_eq!(drops[reason].as_u64().unwrap_or_default(), 0, "{drops}");
    }
}

/// The states of both ends by a line of output.
fn states_of(line: &str) -> Vec<Value> {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    let ends = line["ends"].as_array().cloned().unwrap_or_default();
    ends.into_iter().map(|mut end| end["states"].take()).collect()
}

#[test]
fn call_of_aiortc_survives_node_death() {
    let test = "call_of_aiortc_survives_node_death";
    if present(test, Client::Aiortc) {
        call_survives_node_death("webrtc-aiortc", "aiortc");
    }
}

#[test]
fn call_of_libwebrtc_survives_node_death() {
    let test = "call_of_libwebrtc_survives_node_death";
    if present(test, Client::Libwebrtc) {
        call_survives_node_death("webrtc-libwebrtc", "webrtc");
    }
}
