//! Two phones of baresip in a call with SDES keys, while the node between them is killed.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::clients::SYSTEM_PYTHON;
use evenkeel_testkit::{TIMEOUT, figure, required};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::stage::Stage;
use crate::webrtc::{note_versions, script};

const ROOM: &str = "phones";

/// Packets in each direction of each phone before the node dies, and after its room has moved: three seconds.
const PACKETS: u64 = 150;

/// The packets from and to each phone, by the gateway.
fn carried(stage: &mut Stage) -> Vec<u64> {
    let sessions = stage.read("/v1/sessions");
    let sessions = sessions["sessions"].as_array().expect("a list");
    let totals = sessions.iter().flat_map(|session| {
        ["packets_up", "packets_down"].map(|field| session["totals"][field].as_u64())
    });
    totals.map(|packets| packets.expect("a total")).collect()
}

fn await_packets(stage: &mut Stage, before: &[u64]) -> Vec<u64> {
    let until = Instant::now() + TIMEOUT;
    loop {
        let now = carried(stage);
        assert_eq!(now.len(), before.len(), "both sessions are open");
        if now.iter().zip(before).all(|(now, before)| *now >= before + PACKETS) {
            return now;
        }
        assert!(Instant::now() < until, "timed out: {before:?} packets, then {now:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[required(Baresip)]
#[test]
fn srtp_call_of_baresip_survives_node_death() {
    let mut stage = Stage::set("baresip", "");
    let mut command = Command::new(SYSTEM_PYTHON);
    command.arg(script("sip_calls.py")).arg(stage.folder().join("admin.sock")).arg(ROOM);
    let phones = ChildProcess::start("phones", &mut command, stage.folder());
    let phones = phones.expect("Python starts").with_grace(TIMEOUT);
    let answered = phones.wait_for("both calls", TIMEOUT, |lines| lines.first().cloned());
    answered.expect("both calls are answered");
    note_versions(&phones);
    let before = await_packets(&mut stage, &[0; 4]);
    let rooms = stage.read("/v1/rooms");
    let node = rooms["rooms"][0]["route"][0]["node"].as_str().expect("a node").to_owned();
    stage.kill_under(&node, ROOM);
    let at_move = carried(&mut stage);
    let after = await_packets(&mut stage, &at_move);
    let sessions = stage.read("/v1/sessions");
    for session in sessions["sessions"].as_array().into_iter().flatten() {
        figure("moves", session["totals"]["switches"].as_f64().expect("a total"));
    }
    // Before the end, at which baresip sends RTCP in the clear.
    let drops = &stage.read("/v1/status")["drops"];
    for reason in ["srtp-forged", "srtp-replayed", "srtp-index"] {
        assert_eq!(drops[reason].as_u64().unwrap_or_default(), 0, "{drops}");
    }
    let lines = phones.end(Signal::SIGTERM, TIMEOUT).expect("Python runs");
    let report: Value = serde_json::from_str(lines.last().expect("a line")).expect("JSON");
    println!(
        "packets from and to each phone {before:?} before the death, {after:?} after: {report}"
    );
    for phone in report["ends"].as_array().expect("two phones") {
        // Its last report of RTCP is seconds old.
        assert!(phone["received"].as_u64() >= Some(PACKETS), "{report}");
        assert_eq!(phone["refused"], 0, "{report}");
        figure("lost", phone["lost"].as_f64().expect("a number").max(0.0));
    }
}
