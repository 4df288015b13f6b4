//! Two ends of a WebRTC library, or two pages of browsers, in a call through a gateway, with DTLS, encrypted audio and video; the node
//! that carries their sessions dies.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evenkeel_lab::links::Conditions;
use evenkeel_lab::process::ChildProcess;
use evenkeel_lab::relay::Direction;
use evenkeel_lab::relay::link::Link;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::{
    SYSTEM_PYTHON, browser_packages, ecdsa_certificate, pion_call, python,
};
use evenkeel_testkit::{client, figure, required};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::lossy::LossyPath;
use crate::meter::{GapLimits, judge_in_round_trip};
use crate::stage::{NODES, Stage, free_pair, sample_node};

const ROOM: &str = "webrtc";

pub(crate) const CONFIGURATION: &str = r#"
[gateway]
region = "east"
drain_timeout = "0s"

[[listen]]
udp = "127.0.0.1:0"
identity = ["stun"]

[admin]
socket = "admin.sock"
"#;

/// Packets of a kind that each end receives before the node dies, and after its room has moved. Pages decode as many frames.
const PACKETS: u64 = 50;

/// Of concealed audio and frozen video in pages.
const LIMITS: GapLimits = GapLimits("webrtc.*");

/// The path of a file in `tests/interop`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

/// The last line of clients.
pub(crate) struct ClientReport {
    /// Per end: packets of audio, packets of video and, in pages, frames decoded.
    counts: Vec<Vec<u64>>,
    ends: Vec<Value>,
}

impl ClientReport {
    fn of(line: &str) -> Option<ClientReport> {
        let ends = ends_of(line);
        let count = |end: &Value| serde_json::from_value(end["received"].clone()).ok();
        let counts: Option<Vec<Vec<u64>>> = ends.iter().map(count).collect();
        counts.filter(|counts| !counts.is_empty()).map(|counts| ClientReport { counts, ends })
    }

    /// True if each number is larger than the other one by `PACKETS`.
    fn exceeds(&self, other: Option<&ClientReport>) -> bool {
        let other = |end: usize, index: usize| other.map_or(0, |other| other.counts[end][index]);
        let mut counts = self.counts.iter().enumerate();
        counts.all(|(end, counts)| {
            let mut counts = counts.iter().enumerate();
            counts.all(|(index, &count)| count >= other(end, index) + PACKETS)
        })
    }
}

/// Waits until each end has received more since `before`.
pub(crate) fn received(clients: &ChildProcess, before: Option<&ClientReport>) -> ClientReport {
    let found = clients.wait_for("packets at each end", TIMEOUT, |lines| {
        let last = ClientReport::of(lines.last()?)?;
        last.exceeds(before).then_some(last)
    });
    found.unwrap_or_else(|error| panic!("{error}; {:?}", clients.lines().last()))
}

/// Adds the clients and their versions to the report.
pub(crate) fn note_versions(clients: &ChildProcess) {
    let lines = clients.lines();
    let line: Value = serde_json::from_str(lines.last().expect("a line")).unwrap_or_default();
    let versions = line["clients"].as_array().unwrap_or_else(|| panic!("no clients in {line}"));
    versions.iter().filter_map(Value::as_str).for_each(client);
}

/// The growth of a figure of an end.
fn grown(field: &str, before: &Value, after: &Value) -> f64 {
    let figure = |end: &Value| end[field].as_f64().unwrap_or_else(|| panic!("no {field} in {end}"));
    let grown = figure(after) - figure(before);
    assert!(grown >= 0.0, "{field} shrinks from {before} to {after}");
    grown
}

/// The packets that an end lost. One that was counted may have come late.
fn lost(before: &Value, after: &Value) -> f64 {
    let lost = |end: &Value| end["lost"].as_f64().unwrap_or_else(|| panic!("no lost in {end}"));
    (lost(after) - lost(before)).max(0.0)
}

/// The ends by a line of output.
fn ends_of(line: &str) -> Vec<Value> {
    let mut line: Value = serde_json::from_str(line).unwrap_or_default();
    serde_json::from_value(line["ends"].take()).unwrap_or_default()
}

/// Each end must receive before and after the death of the node that carries the room, and notice nothing. Returns a report of the call
/// that has begun, and those before and after the death.
pub(crate) fn survives_node_death(
    test: &str,
    stage: &mut Stage,
    room: &str,
    clients: &ChildProcess,
) -> [ClientReport; 3] {
    let calm = received(clients, None);
    let before = received(clients, Some(&calm));
    let sessions =
        |stage: &mut Stage| stage.read("/v1/sessions")["sessions"].as_array().map(Vec::len);
    let open = sessions(stage);
    let rooms = stage.read("/v1/rooms");
    let carries = rooms["rooms"][0]["route"][0]["node"].as_str();
    let carries = carries.unwrap_or_else(|| panic!("{rooms}")).to_owned();
    let moved = stage.kill_under(&carries, room);
    assert!(moved["to"].is_string() && moved["to"] != *carries, "{moved}");
    let after = received(clients, Some(&before));
    println!(
        "{test}, packets of audio and video at each end: {:?} before the death of {carries}, {:?} in all",
        before.counts, after.counts
    );
    for end in 0..after.ends.len() {
        let lines = clients.lines();
        let states =
            lines.iter().filter_map(|line| Some(ends_of(line).get(end)?["states"].clone()));
        // From the first connection on.
        let mut connected = states.skip_while(|states| states[0] != "connected");
        let other = connected.find(|states| states[0] != "connected");
        assert_eq!(other, None, "end {end} was connected, and then something else");
    }
    assert!(open >= Some(2), "{open:?} sessions");
    assert_eq!(sessions(stage), open);
    let drops = &stage.read("/v1/status")["drops"];
    for reason in ["srtp-forged", "srtp-index"] {
        assert_eq!(drops[reason].as_u64().unwrap_or_default(), 0, "{drops}");
    }
    // Only packets before the clients' answers to the gateway's checks may be held back.
    judge_in_round_trip("webrtc.*", drops["unvalidated"].as_f64().unwrap_or_default());
    note_versions(clients);
    for (before, after) in before.ends.iter().zip(&after.ends) {
        figure("lost", lost(before, after));
    }
    let sessions = stage.read("/v1/sessions");
    for session in sessions["sessions"].as_array().into_iter().flatten() {
        figure("moves", session["totals"]["switches"].as_f64().expect("a total"));
    }
    [calm, before, after]
}

/// The number of packets that the gateway had before (RFC 3711, section 3.3.2).
pub(crate) fn replayed(stage: &mut Stage) -> u64 {
    stage.read("/v1/status")["drops"]["srtp-replayed"].as_u64().unwrap_or_default()
}

/// A gateway and two nodes.
fn set_stage(test: &str, configuration: &str) -> Stage {
    Stage::before(test, configuration, |folder| {
        NODES.map(|node| sample_node(node, folder, &["--webrtc"])).into()
    })
}

/// Starts clients, which open their sessions by the API.
fn start_call(stage: &Stage, mut command: Command) -> ChildProcess {
    command.arg(stage.folder().join("admin.sock")).arg(ROOM);
    let clients = ChildProcess::start("webrtc-call", &mut command, stage.folder());
    // A browser ends with its driver.
    clients.expect("the client starts").with_grace(TIMEOUT)
}

/// A call by the clients that the command starts.
fn call_survives_node_death(test: &str, command: Command) -> [ClientReport; 3] {
    let mut stage = set_stage(test, CONFIGURATION);
    let clients = start_call(&stage, command);
    let reports = survives_node_death(test, &mut stage, ROOM, &clients);
    assert_eq!(replayed(&mut stage), 0);
    reports
}

fn library(module: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(script("webrtc_call.py")).arg(module);
    command
}

#[required(Aiortc)]
#[test]
fn call_of_aiortc_survives_node_death() {
    call_survives_node_death("webrtc-aiortc", library("aiortc"));
}

#[required(Libwebrtc)]
#[test]
fn call_of_libwebrtc_survives_node_death() {
    call_survives_node_death("webrtc-libwebrtc", library("webrtc"));
}

/// aiortc offers H.264, which the distribution's Chromium may not encode.
#[required(Aiortc)]
#[test]
fn aiortc_by_h264_and_pcmu_survives_node_death() {
    let mut command = library("aiortc");
    command.arg("--codecs=H264,PCMU");
    let [.., after] = call_survives_node_death("webrtc-h264", command);
    for end in &after.ends {
        assert_eq!(end["codecs"], json!(["H264", "PCMU", "rtx"]), "{end}");
    }
}

/// webrtcbin with an ECDSA certificate, at these local addresses of its ends. The file has the certificate and its key.
pub(crate) fn webrtcbin(addresses: &str) -> (Command, NamedTempFile) {
    let mut file = NamedTempFile::new().expect("a file can be made");
    file.write_all(ecdsa_certificate().as_bytes()).expect("a file can be written");
    let mut command = Command::new(SYSTEM_PYTHON);
    command.arg(script("webrtc_gstreamer.py")).arg(file.path()).arg(addresses);
    (command, file)
}

#[required(Webrtcbin)]
#[test]
fn call_of_gstreamer_survives_node_death() {
    let (mut command, _certificate) = webrtcbin("127.0.0.1");
    command.arg("call");
    call_survives_node_death("webrtc-gstreamer", command);
}

/// GStreamer 1.22 makes a certificate with an RSA key, which `dimpl` cannot verify.
#[required(Webrtcbin)]
#[test]
fn webrtcbin_with_its_rsa_certificate_is_refused() {
    let mut stage = set_stage("webrtc-rsa", CONFIGURATION);
    let mut command = Command::new(SYSTEM_PYTHON);
    command.arg(script("webrtc_gstreamer.py")).args(["-", "127.0.0.1", "call"]);
    let clients = start_call(&stage, command);
    stage.wait_for_event("a failed handshake", |event| {
        let ended = event.name == "closed" && event.data["reason"] == "handshake-failed";
        ended.then_some(())
    });
    stage.wait_for_log("no client certificate received");
    let line = clients.wait_for("a line", TIMEOUT, |lines| lines.first().cloned());
    line.expect("GStreamer goes on");
    note_versions(&clients);
}

/// A call of GStreamer's ends at these addresses, through one listener.
fn call_at(test: &str, listener: &str, addresses: &str) {
    let configuration = CONFIGURATION.replace("udp = \"127.0.0.1:0\"", listener);
    let mut stage = set_stage(test, &configuration);
    let (mut command, _certificate) = webrtcbin(addresses);
    command.arg("call");
    let clients = start_call(&stage, command);
    survives_node_death(test, &mut stage, ROOM, &clients);
    assert_eq!(replayed(&mut stage), 0);
}

#[required(Webrtcbin, Ipv6)]
#[test]
fn call_by_ipv6_survives_node_death() {
    call_at("webrtc-ipv6", "udp = \"[::1]:0\"", "::1");
}

/// One end has IPv4 alone, the other one IPv6 alone.
#[required(Webrtcbin, Ipv6)]
#[test]
fn call_of_both_ip_versions_survives_node_death() {
    let listener = r#"udp = "[::]:0"
advertise = [{ address = "127.0.0.1" }, { address = "::1" }]"#;
    call_at("webrtc-dual-stack", listener, "127.0.0.1,::1");
}

#[required(Pion)]
#[test]
fn call_of_pion_survives_node_death() {
    let mut command = Command::new(pion_call());
    command.arg("--reports");
    call_survives_node_death("webrtc-pion", command);
}

/// Pion repeats packets with their SRTP index, which are dropped if only the node lost them.
#[required(Pion)]
#[test]
fn call_of_pion_as_it_is_survives_node_death() {
    let test = "webrtc-pion-default";
    let mut stage = set_stage(test, CONFIGURATION);
    let clients = start_call(&stage, Command::new(pion_call()));
    survives_node_death(test, &mut stage, ROOM, &clients);
    figure("replayed", replayed(&mut stage) as f64);
}

/// A call of pages, each in this browser. Each page decodes the pictures of all others.
fn call_of_pages(test: &str, browsers: &[&str]) -> [ClientReport; 3] {
    let mut command = Command::new("node");
    command.arg(script("browser/call.js")).arg(browser_packages()).args(browsers);
    let reports = call_survives_node_death(test, command);
    let [calm, before, after] = &reports;
    for ((calm, before), after) in calm.ends.iter().zip(&before.ends).zip(&after.ends) {
        assert_eq!(
            after["states"],
            json!(["connected", "connected", "connected"]),
            "connection, ICE and DTLS"
        );
        assert!(before["path"][0].is_string(), "{before}");
        assert_eq!(after["path"], before["path"], "candidate pairs and certificates");
        judge_page(test, calm, before, after);
    }
    reports
}

/// Judges the media that a page missed between two reports, beside that of as long a time before them.
fn judge_page(test: &str, calm: &Value, before: &Value, after: &Value) {
    let scale = grown("at_ms", before, after) / grown("at_ms", calm, before);
    let [concealed, frozen] = ["concealed_ms", "frozen_ms"].map(|field| {
        let seconds = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let control = grown(field, calm, before) * scale;
        (seconds(grown(field, before, after)), seconds(control))
    });
    let kbps = &after["kbps"];
    println!(
        "{test}: {concealed:?} of audio concealed and {frozen:?} of video frozen after the fault and in as long a time before it, \
         may send {kbps} kbit/s"
    );
    figure("freezes", grown("freezes", before, after));
    LIMITS.judge_concealed(test, concealed.0, concealed.1);
    LIMITS.judge_frozen(test, frozen.0, frozen.1);
}

#[required(Chromium)]
#[test]
fn call_of_chromium_survives_node_death() {
    call_of_pages("webrtc-chromium", &["chromium"; 2]);
}

/// A call of Chromium by these codecs alone.
fn call_by_codecs(test: &str, video: &str, audio: &str) {
    let option = format!("--codecs={video},{audio}");
    let [.., after] = call_of_pages(test, &[option.as_str(), "chromium", "chromium"]);
    for end in &after.ends {
        assert_eq!(end["codecs"], json!([format!("audio/{audio}"), format!("video/{video}")]));
    }
}

#[required(Chromium)]
#[test]
fn chromium_by_vp9_and_pcma_survives_node_death() {
    call_by_codecs("webrtc-vp9", "VP9", "PCMA");
}

#[required(Chromium)]
#[test]
fn chromium_by_av1_and_pcmu_survives_node_death() {
    call_by_codecs("webrtc-av1", "AV1", "PCMU");
}

/// A page restarts ICE, adds a track, which the other page asks for, and removes it.
#[required(Chromium)]
#[test]
fn later_offers_of_a_page_lose_no_media() {
    let test = "webrtc-offers";
    let mut stage = set_stage(test, CONFIGURATION);
    let mut command = Command::new("node");
    command.arg(script("browser/offers.js")).arg(browser_packages());
    let clients = start_call(&stage, command);
    let lines = clients.wait_for("all offers", 2 * TIMEOUT, |lines| {
        lines.last()?.contains("\"step\":\"ended\"").then(|| lines.to_vec())
    });
    let lines = lines.unwrap_or_else(|error| panic!("{error}; {:?}", clients.lines().last()));
    let lines: Vec<Value> = lines.iter().filter_map(|it| serde_json::from_str(it).ok()).collect();
    let of_step = |step: &'static str| lines.iter().filter(move |line| line["step"] == step);
    let begun = of_step("calm").next().expect("a time without offers");
    let calm = of_step("calm").next_back().expect("a time without offers");
    let ended = of_step("ended").next().expect("the last offer was answered");
    assert_eq!((&calm["credentials"], &ended["credentials"]), (&json!(1), &json!(2)));
    note_versions(&clients);
    for end in 0..2_usize {
        let of = |line: &Value| line["ends"][end].clone();
        for line in lines.iter().skip_while(|line| line["step"] == "") {
            let states = of(line)["states"].to_string();
            let is_broken =
                ["disconnected", "failed", "closed"].iter().any(|it| states.contains(it));
            assert!(!is_broken, "end {end}: {states}");
        }
        for index in [2_usize, 3] {
            // Chromium tells of no certificate until the next offer if it was asked before the handshake's end.
            let told = lines.iter().map(|line| of(line)["path"][index].clone());
            let certificates: BTreeSet<String> =
                told.filter_map(|it| it.as_str().map(str::to_owned)).collect();
            assert_eq!(certificates.len(), 1, "{certificates:?}");
        }
        figure("lost", lost(&of(calm), &of(ended)));
        judge_page(test, &of(begun), &of(calm), &of(ended));
    }
    // The restart, the new track, the request of the other page, and the end of the track.
    for restarts in [true, false, false, false] {
        stage.wait_for_event("an offer", |event| {
            let is_due = event.name == "renegotiated" && event.data["ice_restarted"] == restarts;
            (is_due && (restarts || event.data["streams_changed"] == true)).then_some(())
        });
    }
    let sessions = stage.read("/v1/sessions");
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(2));
}

/// The page that joins reads the speaker in its answer, and the level in the packets. Chromium's fake microphone beeps once a second.
#[required(Chromium)]
#[test]
fn voice_of_a_page_has_name_and_level() {
    let mut stage = set_stage("webrtc-voices", CONFIGURATION);
    let mut command = Command::new("node");
    command.arg(script("browser/call.js")).arg(browser_packages()).args(["chromium"; 2]);
    let clients = start_call(&stage, command);
    let name = clients.wait_for("a voice", TIMEOUT, |lines| {
        let ends = ends_of(lines.last()?);
        let [name, level] = &ends.get(1)?["voices"][0].as_array()?[..] else { return None };
        (level.as_f64()? > 0.01).then(|| name.as_str().map(str::to_owned))?
    });
    let name = name.unwrap_or_else(|error| panic!("{error}; {:?}", clients.lines().last()));
    let sessions = stage.read("/v1/sessions");
    let sessions = sessions["sessions"].as_array().expect("a list");
    let of = |participant| {
        let session = sessions.iter().find(|session| session["participant"] == participant);
        session.and_then(|session| session["id"].as_str()).expect("both have a label")
    };
    assert_eq!(name, format!("{}.page%200", of("page 0")));
    let lines = clients.lines();
    let ends = ends_of(lines.last().expect("there are"));
    let first = ends[0]["voices"][0][0].as_str().expect("a name");
    assert_eq!(first, of("page 0"), "it was alone");
}

#[required(Firefox)]
#[test]
fn call_of_firefox_survives_node_death() {
    call_of_pages("webrtc-firefox", &["firefox"; 2]);
}

#[required(Chromium, Firefox)]
#[test]
fn call_of_chromium_and_firefox_survives_node_death() {
    call_of_pages("webrtc-mixed", &["chromium", "firefox"]);
}

#[required(Chromium)]
#[test]
fn room_of_three_pages_survives_node_death() {
    call_of_pages("webrtc-room", &["chromium"; 3]);
}

/// Packets that each page gets again.
const REPAIRED: f64 = 10.0;
/// The time without losses, and with them.
const WATCHED_MS: f64 = 10_000.0;

/// Waits for a call of pages. Returns a report after a time without losses, and one after as long a time with them, once this holds. The limit of
/// frozen video has the name of the test.
fn call_with_losses(
    test: &'static str,
    clients: &ChildProcess,
    begin_to_lose: impl FnOnce(),
    holds: impl Fn(&ClientReport, &ClientReport) -> bool,
) -> [ClientReport; 2] {
    let wait_for = |what: &str, before: &ClientReport, holds: &dyn Fn(&ClientReport) -> bool| {
        let found = clients.wait_for(what, 2 * TIMEOUT, |lines| {
            let last = ClientReport::of(lines.last()?)?;
            let lasted = each_grown("at_ms", before, &last).iter().all(|ms| *ms >= WATCHED_MS);
            (lasted && holds(&last)).then_some(last)
        });
        found.unwrap_or_else(|error| panic!("{error}; {:?}", clients.lines().last()))
    };
    let frozen = |before: &ClientReport, after: &ClientReport| {
        let (frozen, lasted) =
            (each_grown("frozen_ms", before, after), each_grown("at_ms", before, after));
        let shares = frozen.iter().zip(lasted).map(|(frozen, lasted)| frozen / lasted);
        Duration::from_secs_f64(shares.fold(0.0, f64::max) * WATCHED_MS / 1e3)
    };
    let first = received(clients, None);
    let before = wait_for("a call without losses", &first, &|_| true);
    begin_to_lose();
    let after = wait_for("repaired packets", &before, &|last| holds(&before, last));
    GapLimits(test).judge_frozen("pictures", frozen(&before, &after), frozen(&first, &before));
    [before, after]
}

/// The growth of a figure of each end.
fn each_grown(field: &str, before: &ClientReport, after: &ClientReport) -> Vec<f64> {
    let ends = before.ends.iter().zip(&after.ends);
    ends.map(|(before, after)| grown(field, before, after)).collect()
}

fn pages() -> Command {
    let mut command = Command::new("node");
    command.arg(script("browser/call.js")).arg(browser_packages()).args(["chromium"; 2]);
    command
}

/// A call of pages, while three of a hundred datagrams with media are lost between the nodes and the gateway.
#[required(Chromium)]
#[test]
fn losses_behind_the_node_are_repaired() {
    let mut paths = Vec::new();
    let mut stage = Stage::before("webrtc-losses", CONFIGURATION, |folder| {
        let behind_path = |name| {
            let mut node = sample_node(name, folder, &["--webrtc"]);
            let path = LossyPath::to(node.address());
            node.table = node.table.replace(&node.address().to_string(), &path.address.to_string());
            paths.push(path);
            node
        };
        NODES.map(behind_path).into()
    });
    let clients = start_call(&stage, pages());
    let test = "webrtc.losses_behind_the_node_are_repaired";
    let begin_to_lose = || paths.iter().for_each(LossyPath::begin_to_lose);
    let [before, after] = call_with_losses(test, &clients, begin_to_lose, |before, last| {
        each_grown("repaired", before, last).iter().all(|packets| *packets >= REPAIRED)
    });
    let lost: u64 = paths.iter().map(LossyPath::lost).sum();
    let repaired = each_grown("repaired", &before, &after);
    println!("{lost} datagrams lost, packets repaired {repaired:?}");
    drop(clients);
    let counters = NODES.map(|node| stage.end_node(node));
    let asked = counters.iter().map(|counters| counters["nack"].as_f64().expect("a counter"));
    assert!(asked.sum::<f64>() >= REPAIRED / 2.0, "{counters:?}");
    stage.end_gateway();
}

/// The loss of a path between pages and the gateway, in per cent.
const LOSS: u32 = 5;

/// A gateway whose clients send to this link in place of it.
fn stage_behind_link(test: &str) -> (Stage, Link) {
    let (gateway, _) = free_pair();
    let link = Link::start((Ipv4Addr::LOCALHOST, 0).into(), gateway, 1).expect("a link starts");
    let listener = format!("udp = \"{gateway}\"\nadvertise = \"{}\"", link.near());
    let configuration = CONFIGURATION.replace("udp = \"127.0.0.1:0\"", &listener);
    (set_stage(test, &configuration), link)
}

/// The gateway answers the requests of pages from its cache: the nodes get none.
#[required(Chromium)]
#[test]
fn losses_to_pages_are_repaired() {
    let (mut stage, link) = stage_behind_link("webrtc-losses-down");
    let clients = start_call(&stage, pages());
    let test = "webrtc.losses_to_pages_are_repaired";
    let begin_to_lose = || link.set(Direction::Down, Conditions::loss_percent(LOSS));
    // Pages negotiate a stream of its own for what is sent again (RTX), which leaves `packetsLost` as it is.
    let [before, after] = call_with_losses(test, &clients, begin_to_lose, |before, last| {
        each_grown("repaired", before, last).iter().all(|packets| *packets >= REPAIRED)
    });
    let repaired = each_grown("repaired", &before, &after);
    println!("packets of video repaired at receivers {repaired:?}");
    stage.await_counted("evenkeel_scenario_retransmissions_total", "evenkeel_direction=\"down\"");
    note_versions(&clients);
    drop(clients);
    stage.end_gateway();
}

/// The gateway asks pages for what was lost on the way from them, and their video goes on.
#[required(Chromium)]
#[test]
fn losses_from_pages_are_repaired() {
    let (mut stage, link) = stage_behind_link("webrtc-losses-up");
    let clients = start_call(&stage, pages());
    let test = "webrtc.losses_from_pages_are_repaired";
    let begin_to_lose = || link.set(Direction::Up, Conditions::loss_percent(LOSS));
    let nacked = |end: &Value| end["nacks"][1].as_f64().expect("a counter");
    let [before, after] = call_with_losses(test, &clients, begin_to_lose, |before, last| {
        let mut ends = before.ends.iter().zip(&last.ends);
        ends.all(|(before, last)| nacked(last) >= nacked(before) + REPAIRED / 2.0)
    });
    let dropped = link.tally().dropped;
    // The node gets the packets in retransmissions of pages (RTX) under their own numbers.
    let missing = each_grown("video_lost", &before, &after);
    println!("{dropped} datagrams lost, packets of video missing at receivers {missing:?}");
    stage.await_counted("evenkeel_scenario_retransmissions_total", "evenkeel_direction=\"up\"");
    note_versions(&clients);
    drop(clients);
    stage.end_gateway();
}

/// The receiver has one m-line of video, and so plays one of the sender's layers.
#[required(Chromium)]
#[test]
fn simulcast_call_survives_node_death() {
    let browsers = ["--simulcast", "chromium", "chromium"];
    let [_, before, after] = call_of_pages("webrtc-simulcast", &browsers);
    let sent = |report: &ClientReport, layer: &str| report.ends[0]["sent"][layer].as_u64();
    // On a busy machine Chromium may lack the rate for the large one for a while.
    assert!(sent(&after, "large") > Some(0), "{}", after.ends[0]);
    assert!(sent(&after, "small") > sent(&before, "small"), "{}", after.ends[0]);
}
