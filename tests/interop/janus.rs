//! Two phones in a call that AudioBridge of Janus mixes, opened by the webhook of docs/examples/janus; the Janus that
//! carries the call is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use evenkeel_client::ApiCall;
use evenkeel_contract::offers::{OfferRequest, OfferRtcp};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::required;
use serde_json::Value;

use crate::gstreamer::{Ports, udp_sink, udp_source};
use crate::stage::{CONFIGURATION, NODES, Node, Stage, declared, offer, picture, voice};
use crate::tap::{Running, Tap};

const ROOM: &str = "studio";
const OPUS: u8 = 111;

/// Levels that a phone measures before the kill, and after the room has moved: two seconds.
const LEVELS: usize = 20;
/// A phone with a higher level hears the tone, which is sent with -5 dBFS.
pub(crate) const LOUD_DBFS: f64 = -30.0;
/// A phone with a lower level hears silence.
const SILENT_DBFS: f64 = -60.0;

/// The bearer token of the webhooks, and the secrets of Janus.
const SECRET: &str = "a secret of the test";

/// The webhooks of both nodes.
type Webhooks = BTreeMap<&'static str, ChildProcess>;

/// A TCP port that was free a moment ago; Janus cannot report one that it chooses.
fn free_port() -> SocketAddr {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|port| port.local_addr());
    bound.expect("loopback has a port")
}

/// Starts Janus and its webhook, which keeps running when Janus is killed.
fn janus(name: &'static str, folder: &Path, webhooks: &mut Webhooks) -> Node {
    let at = NODES.iter().position(|node| *node == name).unwrap_or_default();
    let http = free_port();
    // Outside of the kernel's ephemeral ports.
    let (first, last) = (30_000 + at * 1_000, 30_999 + at * 1_000);
    let configuration = folder.join(name);
    fs::create_dir(&configuration).expect("the folder is ours");
    for (file, settings) in [
        ("janus.jcfg", format!("api_secret = \"{SECRET}\";")),
        (
            "janus.transport.http.jcfg",
            format!("http = true; ip = \"{}\"; port = {};", http.ip(), http.port()),
        ),
        (
            "janus.plugin.audiobridge.jcfg",
            format!(
                "admin_key = \"{SECRET}\"; local_ip = \"127.0.0.1\"; rtp_port_range = \"{first}-{last}\";"
            ),
        ),
    ] {
        fs::write(configuration.join(file), format!("general: {{ {settings} }}\n"))
            .expect("a file can be written");
    }
    fs::write(folder.join("janus.secret"), SECRET).expect("a file can be written");
    let mut command = Command::new("janus");
    // Its plugins create folders for recordings.
    command.current_dir(folder).args(["--disable-colors", "--interface=127.0.0.1"]);
    command.arg("--configs-folder").arg(configuration);
    let process = ChildProcess::start(name, &mut command, folder).expect("Janus starts");

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/janus/webhook.py");
    let mut command = Command::new("python3");
    command.arg(script).current_dir(folder).args(["--listen", "127.0.0.1:0"]);
    command.args(["--janus", &format!("http://{http}/janus")]);
    for option in ["--token-file", "--api-secret-file", "--admin-key-file"] {
        command.args([option, "janus.secret"]);
    }
    let started = ChildProcess::start(&format!("{name}-webhook"), &mut command, folder);
    let started = started.expect("Python starts");
    wait_for_line(&started, "connected to Janus ");
    let url = wait_for_line(&started, "listening at ");
    webhooks.insert(name, started);
    let table = format!(
        "driver = \"webhook\"\naddress = \"{http}\"\nwebhook = \"{url}\"\n\
         token_file = \"janus.secret\"\nprobe = \"none\""
    );
    Node { name, process, table }
}

/// The rest of the first line that begins so.
fn wait_for_line(process: &ChildProcess, start: &str) -> String {
    let line = process.wait_for(start, TIMEOUT, |lines| {
        lines.iter().find_map(|line| line.strip_prefix(start)).map(str::to_owned)
    });
    line.unwrap_or_else(|error| panic!("{error}"))
}

/// A GStreamer pipeline behind a tap. It sends a tone or silence, with RTCP, and measures the level of the audio that it
/// decodes.
struct Phone {
    session: String,
    node: String,
    tap: Running,
    pipeline: ChildProcess,
    hears_tone: bool,
}

impl Phone {
    /// Joins the room; the offer says where RTCP goes.
    fn join(stage: &mut Stage, wave: &str, offer: impl FnOnce(&Tap) -> OfferRequest) -> Phone {
        let tap = Tap::bind();
        let opened = stage.open(&offer(&tap));
        let lane = Ports::free().lane(OPUS);
        let (sink, source) = (udp_sink(tap.inside()), udp_source(lane.rtp));
        let pipeline = format!(
            "rtpbin name=bin audiotestsrc is-live=true wave={wave} samplesperbuffer=960 \
             ! audio/x-raw,rate=48000,channels=1 ! opusenc ! rtpopuspay pt={OPUS} ! bin.send_rtp_sink_0 \
             bin.send_rtp_src_0 ! {sink} bin.send_rtcp_src_0 ! {sink} \
             {source} caps=application/x-rtp,media=audio,payload={OPUS},clock-rate=48000,encoding-name=OPUS \
             ! rtpjitterbuffer latency=60 ! rtpopusdepay ! opusdec ! level interval=100000000 \
             ! fakesink sync=false async=false"
        );
        let tap = tap.run(&opened.udp.expect("by UDP"), vec![lane]);
        let mut command = Command::new("gst-launch-1.0");
        command.arg("--messages").args(pipeline.split_whitespace());
        let pipeline = ChildProcess::start(wave, &mut command, stage.folder());
        Phone {
            session: opened.id,
            node: opened.route[0].place.node.to_string(),
            tap,
            pipeline: pipeline.expect("GStreamer starts"),
            // AudioBridge leaves a participant's own audio out.
            hears_tone: wave == "silence",
        }
    }

    fn levels(&self) -> usize {
        levels(&self.pipeline.lines()).len()
    }

    /// Waits until it hears, after so many levels, the audio of the other phone.
    fn wait_for_other(&self, after: usize) {
        let is_other = |level: &&f64| {
            if self.hears_tone { **level > LOUD_DBFS } else { **level < SILENT_DBFS }
        };
        let heard = self.pipeline.wait_for("audio of the other phone", TIMEOUT, |lines| {
            let count = levels(lines).iter().skip(after).filter(is_other).count();
            (count >= LEVELS).then_some(())
        });
        heard.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The levels in messages of the element `level`: RMS of the first channel, in dBFS.
pub(crate) fn levels(lines: &[String]) -> Vec<f64> {
    let rms = |line: &String| {
        let values = line.split("rms=(GValueArray)<").nth(1)?;
        values.split_whitespace().next()?.trim_end_matches(',').parse().ok()
    };
    lines.iter().filter_map(rms).collect()
}

/// Offers a session that AudioBridge cannot mix. The gateway logs the reason that the webhook gives.
fn assert_video_is_refused(stage: &mut Stage) {
    let client = free_port();
    let media = vec![voice(), picture("vp8")];
    let body = serde_json::to_vec(&offer("pictures", declared(client, None), media));
    let call = ApiCall {
        method: "POST".parse().expect("a method"),
        body: body.expect("an offer is JSON").into(),
        ..ApiCall::get("/v1/sessions")
    };
    let answer = stage.ask(call);
    assert_eq!(answer.status, 503, "{:?}", answer.body);
    stage.wait_for_log("AudioBridge takes one audio stream; found audio and video");
}

#[required(Janus, GStreamer)]
#[test]
fn janus_killed_call_moves_to_another() {
    let mut webhooks = Webhooks::new();
    let mut stage = Stage::before("janus", CONFIGURATION, |folder| {
        NODES.map(|node| janus(node, folder, &mut webhooks)).into()
    });
    assert_video_is_refused(&mut stage);
    let talker = Phone::join(&mut stage, "sine", |tap| {
        offer(ROOM, declared(tap.rtp(), None), vec![voice()])
    });
    let listener = Phone::join(&mut stage, "silence", |tap| OfferRequest {
        rtcp: Some(OfferRtcp::OwnPort),
        ..offer(ROOM, declared(tap.rtp(), Some(tap.rtcp())), vec![voice()])
    });
    let (phones, node) = ([&talker, &listener], talker.node.clone());
    assert_eq!(listener.node, node, "both are at one node");
    for phone in phones {
        phone.wait_for_other(0);
        phone.tap.wait_for("RTCP of the phone", |books| books.feedback_sent > 0);
    }

    let killed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
    let moved = stage.kill_under(&node, ROOM);
    // AudioBridge has no port for RTCP. ICMP errors for it are no evidence against the node.
    let at_us = moved["at_us"].as_u64().map(u128::from);
    assert!(at_us >= Some(killed.as_micros()), "moved before the kill: {moved}");
    let to = moved["to"].as_str().expect("the room moved").to_owned();
    assert!(["link", "node-down"].iter().any(|cause| moved["cause"] == *cause), "{moved}");
    let at_switch = phones.map(Phone::levels);
    for (phone, at) in phones.into_iter().zip(at_switch) {
        phone.wait_for_other(at);
    }
    let heard = levels(&talker.pipeline.lines());
    assert!(!heard.iter().any(|level| *level > LOUD_DBFS), "the talker hears itself: {heard:?}");
    for phone in phones {
        let books = phone.tap.books();
        let ssrcs: BTreeSet<u32> = books.came.iter().map(|packet| packet.header.ssrc).collect();
        assert_eq!((ssrcs.len(), books.strange), (1, 0), "one SSRC, no unexpected packet");
    }
    println!("{moved}; levels at the switch {at_switch:?}");

    for phone in phones {
        let path = format!("/v1/sessions/{}", phone.session);
        let method = "DELETE".parse().expect("a method");
        let closed = stage.ask(ApiCall { method, ..ApiCall::get(&path) }).accepted();
        closed.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    wait_for_line(&webhooks[to.as_str()], "destroyed room ");
    let sessions: Value = stage.read("/v1/sessions");
    assert_eq!(sessions["sessions"].as_array().map_or(0, Vec::len), 0, "both sessions ended");
    stage.end_gateway();
}
