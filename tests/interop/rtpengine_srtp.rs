//! Calls through two rtpengine daemons with SRTP between them and the gateway. A capture shows the packets of the legs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use evenkeel_client::ApiCall;
use evenkeel_media::rtp;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::required;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
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

/// The RTP packets between gateway and daemons, in the order in which they were sent.
#[derive(Default)]
struct Legs {
    streams: BTreeMap<Stream, Vec<(Instant, Vec<u8>)>>,
    to_daemons: usize,
    to_gateway: usize,
}

impl Legs {
    /// Takes an IPv4 packet of the loopback interface.
    fn take(&mut self, packet: &[u8]) {
        let Some(&first) = packet.first() else { return };
        let Some((header, udp)) = packet.split_at_checked(usize::from(first & 15) * 4) else {
            return;
        };
        if first >> 4 != 4 || header.get(9) != Some(&17) || udp.len() < 8 {
            return;
        }
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let (from, to, datagram) = (port(0), port(2), &udp[8..]);
        let is_leg = MEDIA_PORTS.contains(&from) || MEDIA_PORTS.contains(&to);
        let is_voice = datagram.get(1).is_some_and(|kind| kind & 0x7f == 111);
        if !is_leg || !is_voice {
            return;
        }
        // The kernel splits what is sent together (UDP_SEGMENT) after the capture.
        for packet in datagram.chunks(SRTP_LEN) {
            match MEDIA_PORTS.contains(&to) {
                true => self.to_daemons += 1,
                false => self.to_gateway += 1,
            }
            let ssrc = rtp::ssrc_and_sequence(packet).map_or(0, |(ssrc, _)| ssrc);
            let stream = self.streams.entry((from, to, ssrc)).or_default();
            stream.push((Instant::now(), packet.to_vec()));
        }
    }

    /// All packets are encrypted, and no index has two packets.
    fn assert_encrypted(&self) {
        for (stream, packets) in &self.streams {
            let mut sent: BTreeMap<u16, &[u8]> = BTreeMap::new();
            for (_, packet) in packets {
                assert_eq!(packet.len(), SRTP_LEN, "{stream:?}");
                let run = PLAIN.len() / 10;
                assert!(
                    !packet.windows(run).any(|part| part == &PLAIN[..run]),
                    "plain: {stream:?}"
                );
                let number = rtp::ssrc_and_sequence(packet).map_or(0, |(_, number)| number);
                let before = sent.insert(number, packet);
                assert!(before.is_none_or(|it| it == packet), "{stream:?} has {number} twice");
            }
        }
    }
}

/// Captures until `ending` is set, and counts the packets of the daemons in `carried`.
fn capture(ending: Arc<AtomicBool>, carried: Arc<AtomicUsize>) -> JoinHandle<Legs> {
    let opened = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    );
    let opened: OwnedFd = opened.expect("a capture needs CAP_NET_RAW");
    setsockopt(&opened, sockopt::RcvBuf, &(4 << 20)).expect("a socket has a buffer");
    thread::spawn(move || {
        let (mut legs, mut bytes) = (Legs::default(), [0; 2_048]);
        while !ending.load(Ordering::Relaxed) {
            let mut watched = [PollFd::new(opened.as_fd(), PollFlags::POLLIN)];
            poll(&mut watched, PollTimeout::from(10_u8)).expect("a socket can be polled");
            loop {
                match recv(opened.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                    Ok(length) => legs.take(&bytes[..length]),
                    Err(Errno::EAGAIN) => break,
                    Err(error) => panic!("the capture ended: {error}"),
                }
            }
            carried.store(legs.to_gateway, Ordering::Relaxed);
        }
        legs
    })
}

/// Talkers in their rooms, and the packets of their legs.
struct Calls {
    ending: Arc<AtomicBool>,
    carried: Arc<AtomicUsize>,
    talking: Talking,
    captured: JoinHandle<Legs>,
    node: String,
}

impl Calls {
    fn begin(stage: &mut Stage) -> Calls {
        let ending = Arc::<AtomicBool>::default();
        let carried = Arc::<AtomicUsize>::default();
        let captured = capture(Arc::clone(&ending), Arc::clone(&carried));
        let mut talkers = Vec::new();
        for room in 0..ROOMS {
            let room = format!("room-{room}");
            talkers.extend([Talker::join(stage, &room), Talker::join(stage, &room)]);
        }
        let node = talkers[0].node.clone();
        let talking = Talking::begin(talkers);
        Calls { ending, carried, talking, captured, node }
    }

    /// Waits until each talker has heard the other one for a second, and the daemons have sent [`PACKETS`] more.
    fn go_on(&self) {
        self.talking.await_heard(1_000 / STEP_MS);
        let carried = || self.carried.load(Ordering::Relaxed);
        let (enough, until) = (carried() + PACKETS, Instant::now() + TIMEOUT);
        while carried() < enough {
            assert!(Instant::now() < until, "timed out: {} of {enough} packets", carried());
            thread::sleep(POLL);
        }
    }

    /// Ends the calls, and judges the gaps from the fault on.
    fn end(self, fault: Instant) -> Legs {
        let ended = Instant::now();
        let talkers = self.talking.end();
        self.ending.store(true, Ordering::Relaxed);
        let legs = self.captured.join().expect("the capture ends");
        let longest = |from, to| -> Vec<Duration> {
            talkers.iter().filter_map(|talker| talker.longest(from, to)).collect()
        };
        let begun = talkers.iter().filter_map(|talker| Some(talker.heard.first()?.0)).min();
        let control = longest(begun.expect("each hears packets"), fault);
        let gaps = longest(fault - Duration::from_millis(2 * STEP_MS as u64), ended);
        let lost: Vec<u16> = talkers.iter().map(Talker::lost).collect();
        println!(
            "{} packets captured to daemons, {} from them; gaps {gaps:.1?}; lost {lost:?}",
            legs.to_daemons, legs.to_gateway
        );
        let [gap, control] = [gaps, control].map(|gaps| gaps.into_iter().max().unwrap_or_default());
        LIMITS.judge("a client", gap, control);
        assert!(legs.to_daemons > PACKETS, "the capture misses packets");
        legs.assert_encrypted();
        legs
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
    let at = Instant::now();
    let upgraded = upgraded.accepted().expect("the upgrade succeeds");
    let pid = Pid::from_raw(upgraded["pid"].as_i64().expect("a process") as i32);
    let successor = Successor(pid);
    calls.go_on();
    let legs = calls.end(asked);
    // The streams before the upgrade are those after it: other ports or keys would need another exchange.
    let goes_on = |packets: &&Vec<(Instant, Vec<u8>)>| {
        packets.iter().any(|(sent, _)| *sent < at) && packets.iter().any(|(sent, _)| *sent > at)
    };
    assert_eq!(legs.streams.values().filter(goes_on).count(), 4 * ROOMS, "in both directions");
    drop(successor);
    let until = Instant::now() + TIMEOUT;
    while kill(pid, None).is_ok() && Instant::now() < until {
        thread::sleep(POLL);
    }
    assert!(stage.outcome().success(), "the first gateway has ended");
}
