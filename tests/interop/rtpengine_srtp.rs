//! Calls through two rtpengine daemons with SRTP between them and the gateway. A capture shows the packets of the legs.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_client::ApiCall;
use evenkeel_lab::clock;
use evenkeel_media::rtp;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::capture::{Capture, CapturedDatagram};
use evenkeel_testkit::required;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::meter::GapLimits;
use crate::rtpengine::{MEDIA_PORTS, STEP_MS, Talker, Talking, before_two};
use crate::stage::Stage;

const ROOMS: usize = 4;
/// Packets of the daemons before and after a fault: a second of all talkers. The capture sees each packet of loopback twice.
const PACKETS: usize = 2 * 2 * ROOMS * 1_000 / STEP_MS;
const POLL: Duration = Duration::from_millis(10);
const LIMITS: GapLimits = GapLimits("rtpengine_srtp.*");
const SDES: &str = "srtp = \"sdes\"";

/// The payload of a talker's packet.
const PLAIN: [u8; 60] = [7; 60];

/// A talker's packet with the tag of AEAD_AES_128_GCM or AEAD_AES_256_GCM.
const SRTP_LEN: usize = rtp::HEADER_LEN + PLAIN.len() + 16;

/// RTP of one source on one leg, in one direction: the ports of sender and receiver, and the SSRC.
type Stream = (u16, u16, u32);

/// An RTP packet on a leg between gateway and daemon.
struct LegPacket {
    stream: Stream,
    /// Nanoseconds since the Unix epoch.
    at_ns: u64,
    bytes: Vec<u8>,
}

impl LegPacket {
    fn is_to_daemon(&self) -> bool {
        MEDIA_PORTS.contains(&self.stream.1)
    }
}

/// Adds the voice packets of a datagram on a leg.
fn take(datagram: &CapturedDatagram<'_>, packets: &mut Vec<LegPacket>) {
    let ports = (datagram.source.port(), datagram.destination.port());
    let is_leg = MEDIA_PORTS.contains(&ports.0) || MEDIA_PORTS.contains(&ports.1);
    let is_voice = datagram.payload.get(1).is_some_and(|kind| kind & 0x7f == 111);
    if !is_leg || !is_voice {
        return;
    }
    // The kernel splits what is sent together (UDP_SEGMENT) after the capture.
    for packet in datagram.payload.chunks(SRTP_LEN) {
        let ssrc = rtp::ssrc_and_sequence(packet).map_or(0, |(ssrc, _)| ssrc);
        let stream = (ports.0, ports.1, ssrc);
        packets.push(LegPacket { stream, at_ns: datagram.at_ns, bytes: packet.to_vec() });
    }
}

/// The packets of each stream, in the order in which they were sent.
fn by_stream(packets: &[LegPacket]) -> BTreeMap<Stream, Vec<&LegPacket>> {
    let mut streams: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in packets {
        streams.entry(packet.stream).or_default().push(packet);
    }
    streams
}

/// All packets are encrypted, and no index has two packets.
fn assert_encrypted(packets: &[LegPacket]) {
    for (stream, packets) in by_stream(packets) {
        let mut sent: BTreeMap<u16, &[u8]> = BTreeMap::new();
        for LegPacket { bytes, .. } in packets {
            assert_eq!(bytes.len(), SRTP_LEN, "{stream:?}");
            let run = PLAIN.len() / 10;
            assert!(!bytes.windows(run).any(|part| part == &PLAIN[..run]), "plain: {stream:?}");
            let number = rtp::ssrc_and_sequence(bytes).map_or(0, |(_, number)| number);
            let before = sent.insert(number, bytes);
            assert!(before.is_none_or(|it| it == bytes), "{stream:?} has {number} twice");
        }
    }
}

/// Talkers in their rooms, and the packets of their legs.
struct Calls {
    talking: Talking,
    capture: Capture<LegPacket>,
    node: String,
}

impl Calls {
    fn begin(stage: &mut Stage) -> Calls {
        let capture = Capture::of_all(take).expect("a capture needs CAP_NET_RAW");
        let mut talkers = Vec::new();
        for room in 0..ROOMS {
            let room = format!("room-{room}");
            talkers.extend([Talker::join(stage, &room), Talker::join(stage, &room)]);
        }
        let node = talkers[0].node.clone();
        let talking = Talking::begin(talkers);
        Calls { talking, capture, node }
    }

    /// Waits until each talker has heard the other one for a second, and the daemons have sent [`PACKETS`] more.
    fn go_on(&self) {
        self.talking.await_heard(1_000 / STEP_MS);
        let from_daemons =
            |packets: &[LegPacket]| packets.iter().filter(|it| !it.is_to_daemon()).count();
        let carried = || self.capture.read(from_daemons);
        let (enough, until) = (carried() + PACKETS, Instant::now() + TIMEOUT);
        while carried() < enough {
            assert!(Instant::now() < until, "timed out: {} of {enough} packets", carried());
            thread::sleep(POLL);
        }
    }

    /// Ends the calls, and judges the gaps from the fault on.
    fn end(self, fault: Instant) -> Vec<LegPacket> {
        let ended = Instant::now();
        let talkers = self.talking.end();
        let packets = self.capture.take();
        let to_daemons = packets.iter().filter(|packet| packet.is_to_daemon()).count();
        let longest = |from, to| -> Vec<Duration> {
            talkers.iter().filter_map(|talker| talker.longest(from, to)).collect()
        };
        let begun = talkers.iter().filter_map(|talker| Some(talker.heard.first()?.0)).min();
        let control = longest(begun.expect("each hears packets"), fault);
        let gaps = longest(fault - Duration::from_millis(2 * STEP_MS as u64), ended);
        let lost: Vec<u16> = talkers.iter().map(Talker::lost).collect();
        println!(
            "{to_daemons} packets captured to daemons, {} from them; gaps {gaps:.1?}; lost {lost:?}",
            packets.len() - to_daemons
        );
        let [gap, control] = [gaps, control].map(|gaps| gaps.into_iter().max().unwrap_or_default());
        LIMITS.judge("a client", gap, control);
        assert!(to_daemons > PACKETS, "the capture misses packets");
        assert_encrypted(&packets);
        packets
    }
}

#[required(Rtpengine)]
#[test]
fn sdes_legs_are_encrypted_and_survive_a_kill() {
    let mut stage = before_two("rtpengine-srtp", SDES);
    let calls = Calls::begin(&mut stage);
    calls.go_on();
    let (node, killed) = (calls.node.clone(), Instant::now());
    stage.kill_under(&node, "room-0");
    calls.go_on();
    calls.end(killed);
    let sessions = stage.read("/v1/sessions");
    assert_eq!(sessions["sessions"].as_array().map_or(0, Vec::len), 2 * ROOMS, "no session ended");
    stage.end_gateway();
}

/// The process of an upgrade, ended on drop.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ended = kill(self.0, Signal::SIGTERM);
    }
}

#[required(Rtpengine)]
#[test]
fn sdes_legs_go_on_in_an_upgrade() {
    let mut stage = before_two("rtpengine-srtp-upgrade", SDES);
    let calls = Calls::begin(&mut stage);
    calls.go_on();
    let asked = Instant::now();
    let upgraded = stage.ask(ApiCall {
        method: "POST".parse().expect("a method"),
        body: "{}".into(),
        ..ApiCall::get("/v1/gateway:upgrade")
    });
    let at_ns = clock::now_ns();
    let upgraded = upgraded.accepted().expect("the upgrade succeeds");
    let pid = Pid::from_raw(upgraded["pid"].as_i64().expect("a process") as i32);
    let successor = Successor(pid);
    calls.go_on();
    let packets = calls.end(asked);
    // The streams before the upgrade are those after it: other ports or keys would need another exchange.
    let goes_on = |packets: &&Vec<&LegPacket>| {
        packets.iter().any(|it| it.at_ns < at_ns) && packets.iter().any(|it| it.at_ns > at_ns)
    };
    let streams = by_stream(&packets);
    assert_eq!(streams.values().filter(goes_on).count(), 4 * ROOMS, "in both directions");
    drop(successor);
    let until = Instant::now() + TIMEOUT;
    while kill(pid, None).is_ok() && Instant::now() < until {
        thread::sleep(POLL);
    }
    assert!(stage.outcome().success(), "the first gateway has ended");
}
