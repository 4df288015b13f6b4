//! ffmpeg streams to ffmpeg with RTCP on its own port, while the node between them is killed.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_contract::offers::{OfferMedia, OfferRequest, OfferRtcp};
use nix::sys::signal::Signal;

use crate::meter::{Death, Findings, GapLimits, Stream};
use crate::stage::{Stage, declared, free_pair, offer, picture, voice};
use crate::tap::{ProgramAddresses, Tap};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::required;

const LIMITS: GapLimits = GapLimits("ffmpeg.*");

/// A stream with its ffmpeg arguments.
struct Medium {
    name: &'static str,
    media: OfferMedia,
    payload_type: u8,
    clock_rate: u32,
    /// The timestamp step between frames; packets of one frame share a timestamp.
    frame: u32,
    source: &'static [&'static str],
    /// The media type of `m=` and the encoding of `a=rtpmap:` in the receiver's SDP.
    kind: &'static str,
    map: &'static str,
    /// Frames decoded before the kill and again after it: two seconds.
    frames: usize,
}

fn opus() -> Medium {
    Medium {
        name: "opus",
        media: voice(),
        payload_type: 111,
        clock_rate: 48_000,
        frame: 960,
        source: &[
            "-f",
            "lavfi",
            "-i",
            "anoisesrc=sample_rate=48000:amplitude=0.3",
            "-c:a",
            "libopus",
            "-ac",
            "2",
            "-frame_duration",
            "20",
            "-payload_type",
            "111",
        ],
        kind: "audio",
        map: "opus/48000/2",
        frames: 100,
    }
}

fn vp8() -> Medium {
    Medium {
        name: "vp8",
        media: picture("vp8"),
        payload_type: 96,
        clock_rate: 90_000,
        frame: 3_600,
        // ffmpeg ignores key frame requests, so it produces two key frames a second.
        source: &[
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=320x240:rate=25",
            "-c:v",
            "libvpx",
            "-deadline",
            "realtime",
            "-cpu-used",
            "8",
            "-b:v",
            "300k",
            "-g",
            "12",
            "-pix_fmt",
            "yuv420p",
            "-payload_type",
            "96",
        ],
        kind: "video",
        map: "VP8/90000",
        frames: 50,
    }
}

fn own_port(mut offer: OfferRequest) -> OfferRequest {
    offer.rtcp = Some(OfferRtcp::OwnPort);
    offer
}

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-loglevel", "warning"]);
    command
}

/// Presentation times of decoded frames; each line of `framecrc` is one frame.
fn shown(lines: &[String], clock_rate: u32) -> Vec<Duration> {
    let frames = lines.iter().filter(|line| !line.starts_with('#'));
    let time = |line: &String| line.split(',').nth(2)?.trim().parse::<f64>().ok();
    frames.filter_map(time).map(|at| Duration::from_secs_f64(at / f64::from(clock_rate))).collect()
}

/// Sends from the declared addresses directly to the gateway, and receives through a tap.
fn assert_stream_survives_kill(medium: &Medium) {
    let mut stage = Stage::set(&format!("ffmpeg-{}", medium.name), "");
    let room = medium.name;
    let media = || vec![medium.media.clone()];
    let (rtp, rtcp) = free_pair();
    let outgoing = stage.open(&own_port(offer(room, declared(rtp, Some(rtcp)), media())));
    let tap = Tap::bind();
    let ingress = declared(tap.rtp(), Some(tap.rtcp()));
    let incoming = stage.open(&own_port(offer(room, ingress, media())));
    let node = outgoing.route[0].place.node.to_string();

    let (rtp_in, rtcp_in) = free_pair();
    let lane = ProgramAddresses { payload_type: medium.payload_type, rtp: rtp_in, rtcp: rtcp_in };
    let tap = tap.run(&incoming.udp.expect("by UDP"), vec![lane]);
    let receiving = receive(medium, rtp_in, &stage);

    let to = outgoing.udp.expect("by UDP");
    let url = format!(
        "rtp://{}?rtcpport={}&localrtpport={}&localrtcpport={}&pkt_size=1200",
        to.addresses[0],
        to.rtcp[0].port(),
        rtp.port(),
        rtcp.port()
    );
    let mut command = ffmpeg();
    command.arg("-re").args(medium.source).args(["-f", "rtp", &url]);
    let sending = ChildProcess::start("sender", &mut command, stage.folder());
    let sending = sending.expect("ffmpeg starts");

    let decoded = |frames: usize| {
        let enough = |lines: &[String]| Some(shown(lines, 1).len()).filter(|now| *now >= frames);
        receiving.wait_for("decoded frames", TIMEOUT, enough).expect("frames are decoded")
    };
    let before = decoded(medium.frames);
    let killed = Instant::now();
    let moved = stage.kill_under(&node, room);
    let death = Death { killed, moved: Instant::now() };
    let at_switch = shown(&receiving.lines(), 1).len();
    decoded(at_switch + medium.frames);
    // ffmpeg sends a report every five seconds.
    tap.wait_for("sender report", |books| books.sender_reports > 0);

    let sessions = stage.read("/v1/sessions");
    sending.end(Signal::SIGINT, TIMEOUT).expect("the sender runs");
    let lines = receiving.end(Signal::SIGINT, TIMEOUT).expect("the receiver runs");
    let time_base = if medium.kind == "audio" { medium.clock_rate } else { 25 };
    let frames = shown(&lines, time_base);
    let longest = frames.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
    let longest = longest.unwrap_or_default();
    let books = tap.books();
    let stream = Stream::of(&books.came, medium.payload_type, medium.clock_rate, death);
    let findings: Findings = stream.alone(|step| step == 0 || step == medium.frame);
    println!(
        "{room}: decoded before {before}, in all {}; longest between frames shown {longest:.1?}\n\
         on the wire: {findings}; {} sender reports; {moved}",
        frames.len(),
        books.sender_reports
    );

    assert_eq!(findings.breaks, [""; 0]);
    assert_eq!(findings.ssrcs.len(), 1, "the SSRC is unchanged");
    LIMITS.judge(room, findings.gap, findings.control);
    LIMITS.judge_shown(room, longest, findings.control);
    assert_eq!(books.strange, 0, "unexpected packets");
    assert_eq!(sessions["sessions"].as_array().map_or(0, Vec::len), 2, "no session ended");
}

fn receive(medium: &Medium, at: SocketAddr, stage: &Stage) -> ChildProcess {
    let description = stage.folder().join("receiver.sdp");
    let Medium { kind, payload_type, map, .. } = medium;
    let text = format!(
        "v=0\no=- 0 0 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm={kind} {port} RTP/AVP {payload_type}\n\
         a=rtpmap:{payload_type} {map}\n",
        ip = at.ip(),
        port = at.port()
    );
    fs::write(&description, text).expect("a file can be written");
    let mut command = ffmpeg();
    command.args(["-protocol_whitelist", "file,rtp,udp", "-sdp_flags", "rtcp_to_source", "-i"]);
    command.arg(description).args(["-fps_mode", "passthrough", "-flush_packets", "1"]);
    let command = command.args(["-f", "framecrc", "pipe:1"]);
    ChildProcess::start("receiver", command, stage.folder()).expect("ffmpeg starts")
}

#[required(Ffmpeg)]
#[test]
fn ffmpeg_opus_continues_when_node_killed() {
    assert_stream_survives_kill(&opus());
}

#[required(Ffmpeg)]
#[test]
fn ffmpeg_vp8_continues_when_node_killed() {
    assert_stream_survives_kill(&vp8());
}
