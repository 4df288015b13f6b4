//! GStreamer sends audio and video to GStreamer, while the node between them is killed.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_contract::offers::{OfferFeedback, OfferRequest};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::meter::{Death, GapLimits, Stream};
use crate::stage::{Stage, declared, free_pair, offer, picture, voice};
use crate::tap::{Packet, ProgramAddresses, Tap};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::required;

/// Video frames decoded before the kill and again after it: two seconds each.
const PICTURES: usize = 50;
/// Audio frames decoded before the kill and again after it: two seconds each.
const VOICE: usize = 100;
const LIMITS: GapLimits = GapLimits("gstreamer.*");

const OPUS: u8 = 111;
const H264: u8 = 96;

/// After the first key frame the encoder sends one only on request.
const PICTURE: &str = "videotestsrc is-live=true pattern=ball \
    ! video/x-raw,width=320,height=240,framerate=25/1 \
    ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=300 key-int-max=100000 \
    ! rtph264pay pt=96 config-interval=-1";
const SOUND: &str = "audiotestsrc is-live=true wave=pink-noise samplesperbuffer=960 \
    ! audio/x-raw,rate=48000,channels=1 ! opusenc ! rtpopuspay pt=111";

#[derive(Clone, Copy)]
pub(crate) struct Ports {
    rtp: SocketAddr,
    rtcp: SocketAddr,
}

impl Ports {
    pub(crate) fn free() -> Ports {
        let (rtp, rtcp) = free_pair();
        Ports { rtp, rtcp }
    }

    pub(crate) fn lane(self, payload_type: u8) -> ProgramAddresses {
        ProgramAddresses { payload_type, rtp: self.rtp, rtcp: self.rtcp }
    }
}

pub(crate) fn udp_source(at: SocketAddr) -> String {
    format!("udpsrc address={} port={}", at.ip(), at.port())
}

pub(crate) fn udp_sink(to: SocketAddr) -> String {
    format!("udpsink host={} port={} sync=false async=false", to.ip(), to.port())
}

/// A pipeline that sends audio and video from one address (BUNDLE).
fn sender(to: SocketAddr, picture: Ports, voice: Ports) -> String {
    let medium = |number: u8, source: &str, ports: Ports| {
        format!(
            "{source} ! bin.send_rtp_sink_{number} bin.send_rtp_src_{number} ! {sink} \
             bin.send_rtcp_src_{number} ! {sink} {feedback} ! bin.recv_rtcp_sink_{number}",
            sink = udp_sink(to),
            feedback = udp_source(ports.rtcp),
        )
    };
    let (first, second) = (medium(0, PICTURE, picture), medium(1, SOUND, voice));
    format!("rtpbin name=bin rtp-profile=avpf {first} {second}")
}

/// A pipeline that decodes both streams and logs each frame. After a loss it shows no video until the next key frame,
/// and requests one.
fn receiver(to: SocketAddr, picture: Ports, voice: Ports) -> String {
    let medium = |number: u8, caps: &str, decode: &str, name: &str, ports: Ports| {
        format!(
            "{rtp} caps=\"application/x-rtp,{caps}\" ! bin.recv_rtp_sink_{number} \
             bin. ! {decode} ! fakesink name={name} silent=false sync=false async=false \
             {rtcp} ! bin.recv_rtcp_sink_{number} bin.send_rtcp_src_{number} ! {sink}",
            rtp = udp_source(ports.rtp),
            rtcp = udp_source(ports.rtcp),
            sink = udp_sink(to),
        )
    };
    let h264 =
        "media=video,payload=96,clock-rate=90000,encoding-name=H264,rtcp-fb-nack-pli=(boolean)true";
    let depay =
        "rtph264depay wait-for-keyframe=true request-keyframe=true ! h264parse ! avdec_h264";
    let opus = "media=audio,payload=111,clock-rate=48000,encoding-name=OPUS";
    let first = medium(0, h264, depay, "picture", picture);
    let second = medium(1, opus, "rtpopusdepay ! opusdec", "voice", voice);
    format!("rtpbin name=bin latency=60 rtp-profile=avpf {first} {second}")
}

fn launch(name: &str, pipeline: &str, stage: &Stage) -> ChildProcess {
    // Arguments are split at spaces only, without a shell, so quotes are removed.
    let words = pipeline.split_whitespace().map(|word| word.replace('"', ""));
    let mut command = Command::new("gst-launch-1.0");
    let started = ChildProcess::start(name, command.arg("-v").args(words), stage.folder());
    started.expect("GStreamer starts")
}

/// Presentation times of the frames that reached a sink.
fn shown(lines: &[String], sink: &str) -> Vec<Duration> {
    let frame = format!("GstFakeSink:{sink}: last-message = chain");
    let frames = lines.iter().filter(|line| line.contains(&frame));
    frames.filter_map(|line| clock(line.split("pts: ").nth(1)?.split(',').next()?)).collect()
}

/// Parses `0:00:03.970595033`.
fn clock(text: &str) -> Option<Duration> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let seconds = Duration::try_from_secs_f64(parts.next()?.parse().ok()?).ok()?;
    Some(Duration::from_secs(hours * 3_600 + minutes * 60) + seconds)
}

/// The longest time between consecutive frames.
fn longest(frames: &[Duration]) -> Duration {
    frames.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

/// True if an H.264 packet begins an IDR picture (RFC 6184, 5.4; NAL unit type 5).
fn begins_key_frame(packet: &Packet) -> bool {
    const IDR: u8 = 5;
    const FU_A: u8 = 28;
    match packet.payload[..] {
        [unit, ..] if unit & 0x1f == IDR => true,
        [unit, fragment, ..] => {
            unit & 0x1f == FU_A && fragment & 0x80 != 0 && fragment & 0x1f == IDR
        }
        _ => false,
    }
}

#[required(GStreamer)]
#[test]
fn gstreamer_continues_when_rewriting_node_killed() {
    let mut stage = Stage::set("gstreamer", "");
    let moved = assert_decoding_survives_kill(&mut stage, &["node-down"]);
    let standby = stage.end_node(moved["to"].as_str().expect("the room moved"));
    assert!(
        standby["pli"].as_u64() > Some(0),
        "no key frame was requested from the standby: {standby}"
    );
}

/// Two GStreamer clients in one room; its node is killed, and the room moves for one of these causes.
pub(crate) fn assert_decoding_survives_kill(stage: &mut Stage, causes: &[&str]) -> Value {
    let (talker, listener) = (Tap::bind(), Tap::bind());
    let media = || vec![voice(), picture("h264")];
    let outgoing = stage.open(&offer("studio", declared(talker.rtp(), None), media()));
    let incoming = stage.open(&offer("studio", declared(listener.rtp(), None), media()));
    let node = outgoing.route[0].place.node.to_string();
    assert_eq!(*incoming.route[0].place.node, *node, "both are at one node");

    let (picture_in, voice_in) = (Ports::free(), Ports::free());
    let pipeline = receiver(listener.inside(), picture_in, voice_in);
    let lanes = vec![picture_in.lane(H264), voice_in.lane(OPUS)];
    let listener = listener.run(&incoming.udp.expect("by UDP"), lanes);
    let receiving = launch("receiver", &pipeline, stage);
    let playing = |lines: &[String]| lines.iter().find(|line| line.contains("PLAYING")).cloned();
    receiving.wait_for("PLAYING", TIMEOUT, playing).expect("the pipeline starts");

    let (picture_out, voice_out) = (Ports::free(), Ports::free());
    let pipeline = sender(talker.inside(), picture_out, voice_out);
    let lanes = vec![picture_out.lane(H264), voice_out.lane(OPUS)];
    let talker = talker.run(&outgoing.udp.expect("by UDP"), lanes);
    let sending = launch("sender", &pipeline, stage);

    let decoded = |pictures: usize, frames: usize| {
        let enough = |lines: &[String]| {
            let now = (shown(lines, "picture").len(), shown(lines, "voice").len());
            (now.0 >= pictures && now.1 >= frames).then_some(now)
        };
        receiving.wait_for("decoded frames", TIMEOUT, enough).expect("frames are decoded")
    };
    let before = decoded(PICTURES, VOICE);
    let killed = Instant::now();
    let moved = stage.kill_under(&node, "studio");
    let death = Death { killed, moved: Instant::now() };
    assert!(causes.iter().any(|cause| moved["cause"] == *cause), "{moved}");
    // Twice as many frames include all that was in flight or in the jitter buffer at the switch.
    let lines = receiving.lines();
    let at_switch = (shown(&lines, "picture").len(), shown(&lines, "voice").len());
    decoded(at_switch.0 + PICTURES, at_switch.1 + VOICE);

    // GStreamer sends a report every few seconds.
    listener
        .wait_for("reports both ways", |books| books.sender_reports > 0 && books.feedback_sent > 0);
    let sessions = stage.read("/v1/sessions");
    sending.end(Signal::SIGINT, TIMEOUT).expect("the sender runs");
    let lines = receiving.end(Signal::SIGINT, TIMEOUT).expect("the receiver runs");
    let (pictures, frames) = (shown(&lines, "picture"), shown(&lines, "voice"));
    let (heard, said) = (listener.books(), talker.books());
    let by_picture = Stream::of(&heard.came, H264, 90_000, death).follow(&said.sent);
    let by_voice = Stream::of(&heard.came, OPUS, 48_000, death).follow(&said.sent);
    let asked: Vec<_> = said.key_frame_requests.iter().filter(|asked| asked.at >= killed).collect();
    println!(
        "decoded before {before:?}, in all ({}, {}); longest between frames shown: picture {:.1?}, voice {:.1?}\n\
         picture on the wire: {by_picture}\nvoice on the wire: {by_voice}\n\
         key frames requested from the sender since the kill: {}; {moved}",
        pictures.len(),
        frames.len(),
        longest(&pictures),
        longest(&frames),
        asked.len()
    );

    for (what, findings) in [("picture", &by_picture), ("voice", &by_voice)] {
        assert_eq!(findings.breaks, [""; 0], "{what}");
        assert_eq!(findings.ssrcs.len(), 1, "{what} kept its SSRC");
        assert_eq!(
            findings.lost, findings.lost_to_death,
            "{what} lost packets before or after the switch"
        );
        LIMITS.judge(what, findings.gap, findings.control);
    }
    LIMITS.judge_shown("voice", longest(&frames), by_voice.control);
    assert_eq!((heard.strange, said.strange), (0, 0), "unexpected packets");

    let ours = said.sent.iter().find(|packet| packet.header.payload_type == H264);
    let ours = ours.expect("pictures were sent").header.ssrc;
    let first = asked.iter().find(|asked| asked.ssrc == ours).expect("a key frame is requested");
    let answered = |packet: &&Packet| packet.at >= first.at && begins_key_frame(packet);
    assert!(said.sent.iter().any(|packet| answered(&packet)), "the encoder sends a key frame");
    // The gateway counts none of its own if the standby passed on the receiver's request first.
    if !heard.key_frames_asked.iter().any(|asked| *asked >= killed) {
        stage.await_status("the request is counted", |status| {
            status["key_frames_to_client"].as_u64() > Some(0)
        });
    }
    let sessions = sessions["sessions"].as_array().map_or(0, Vec::len);
    assert_eq!(sessions, 2, "no session ended");
    moved
}

/// The network loses one of this many packets to the receiver.
const LOST_EACH: u64 = 20;
/// Packets that are lost, and sent again.
const LOST: u64 = 20;
/// The jitter buffer of a receiver that asks for packets: several round trips on a busy machine, too.
const LATENCY_MS: u32 = 1_000;
/// The longest time between frames of 20 ms none of which is missing. Jitter moves their times a little.
const COMPLETE: Duration = Duration::from_millis(35);
/// Frames at the start, while the receiver learns of the sender's clock.
const FIRST: usize = 10;

/// A pipeline that decodes voice, logs each frame, and asks for lost packets by NACK. Reports are not held back. `rtpssrcdemux` adds the
/// SSRC to the requests of the jitter buffer.
fn asking_receiver(to: SocketAddr, voice: Ports) -> String {
    let caps =
        "media=audio,payload=111,clock-rate=48000,encoding-name=OPUS,rtcp-fb-nack=(boolean)true";
    format!(
        "rtpsession name=session rtp-profile=avpf bandwidth=1000000 rtcp-min-interval=10000000 \
         {rtp} caps=\"application/x-rtp,{caps}\" ! session.recv_rtp_sink \
         session.recv_rtp_src ! rtpssrcdemux ! rtpjitterbuffer do-retransmission=true latency={LATENCY_MS} \
         ! rtpopusdepay ! opusdec ! fakesink name=voice silent=false sync=false async=false \
         {rtcp} ! session.recv_rtcp_sink session.send_rtcp_src ! {sink}",
        rtp = udp_source(voice.rtp),
        rtcp = udp_source(voice.rtcp),
        sink = udp_sink(to),
    )
}

/// A receiver that negotiated no RTX gets the packets that it asks for once more, under their own numbers.
#[required(GStreamer)]
#[test]
fn gstreamer_gets_lost_packets_again() {
    let mut stage = Stage::set("gstreamer-nack", "");
    let (talker, listener) = (Tap::bind(), Tap::bind().losing_each(LOST_EACH));
    let with_nack = || {
        let mut voice = voice();
        voice.feedback.push(OfferFeedback::Nack);
        vec![voice]
    };
    let outgoing = stage.open(&offer("studio", declared(talker.rtp(), None), with_nack()));
    let incoming = offer("studio", declared(listener.rtp(), None), with_nack());
    let latency = Some(format!("{LATENCY_MS}ms"));
    let incoming = stage.open(&OfferRequest { latency, ..incoming });

    let ports = Ports::free();
    let pipeline = asking_receiver(listener.inside(), ports);
    let listener = listener.run(&incoming.udp.expect("by UDP"), vec![ports.lane(OPUS)]);
    let receiving = launch("receiver", &pipeline, &stage);
    let playing = |lines: &[String]| lines.iter().find(|line| line.contains("PLAYING")).cloned();
    receiving.wait_for("PLAYING", TIMEOUT, playing).expect("the pipeline starts");
    let pipeline = format!("{SOUND} ! {}", udp_sink(talker.inside()));
    let talker = talker.run(&outgoing.udp.expect("by UDP"), Vec::new());
    let sending = launch("sender", &pipeline, &stage);

    listener.wait_for("lost packets", |books| books.lost >= LOST);
    let sent = talker.books().sent.len();
    let decoded = |lines: &[String]| (shown(lines, "voice").len() >= sent).then_some(());
    receiving.wait_for("decoded frames", TIMEOUT, decoded).expect("frames are decoded");
    sending.end(Signal::SIGINT, TIMEOUT).expect("the sender runs");
    let frames = shown(&receiving.lines(), "voice");
    let (heard, said) = (listener.books(), talker.books());
    let repeated = heard.came.len().saturating_sub(said.sent.len());
    println!(
        "{} packets sent, {} to the receiver, {} lost on the way; {} frames shown, longest between them {:.1?}",
        said.sent.len(),
        heard.came.len(),
        heard.lost,
        frames.len(),
        longest(&frames[FIRST..]),
    );
    assert!(longest(&frames[FIRST..]) < COMPLETE, "a frame is missing");
    assert!(repeated > 0 && (heard.strange, said.strange) == (0, 0), "unexpected packets");
    drop((heard, said));
    stage.await_counted("evenkeel_scenario_retransmissions_total", "evenkeel_direction=\"down\"");
}

#[test]
fn gstreamer_clock_is_parsed() {
    assert_eq!(clock("0:00:03.970595033"), Some(Duration::from_nanos(3_970_595_033)));
    assert_eq!(clock("1:02:03.5"), Some(Duration::from_millis(3_723_500)));
    assert_eq!(clock("none"), None);
}
