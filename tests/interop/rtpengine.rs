//! Calls through two rtpengine daemons; the one that carries them is killed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::gstreamer::assert_decoding_survives_kill;
use crate::meter::GapLimits;
use crate::stage::{CONFIGURATION, NODES, Node, Stage, declared, offer, voice};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::required;

/// Rooms with two clients each.
const ROOMS: usize = 40;
/// Packets that each client hears before and after the kill: three seconds.
const PACKETS: usize = 150;
/// Time before the kill in which gaps are those without a fault.
const CONTROL: Duration = Duration::from_millis(1_500);
/// Packet interval of a client.
pub(crate) const STEP_MS: usize = 20;
const LIMITS: GapLimits = GapLimits("rtpengine.*");

/// The ports of all daemons for media, outside of the kernel's ephemeral range.
pub(crate) const MEDIA_PORTS: RangeInclusive<u16> = 20_000..=29_999;

/// A daemon in user space. `keys`: more of its `[[node]]`.
fn daemon(name: &'static str, folder: &Path, keys: &str) -> Node {
    let at = NODES.iter().position(|node| *node == name).unwrap_or_default() as u16;
    let ng = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let ng = ng.expect("loopback has a port");
    let first = MEDIA_PORTS.start() + at * 5_000;
    let last = first + 4_999;
    let mut command = Command::new("rtpengine");
    command.args(["--interface=127.0.0.1", "--table=-1", "--num-threads=1", "--foreground"]);
    // Ignores the configuration of the machine.
    command.args(["--config-file=none", "--log-stderr", "--log-level=4"]);
    command.arg(format!("--listen-ng={ng}"));
    command.arg(format!("--port-min={first}")).arg(format!("--port-max={last}"));
    let process = ChildProcess::start(name, &mut command, folder).expect("rtpengine starts");
    await_pong(name, ng);
    Node { name, process, table: format!("driver = \"rtpengine\"\nng = \"{ng}\"\n{keys}") }
}

/// Waits until the daemon answers pings at this address.
fn await_pong(name: &str, ng: SocketAddr) {
    let answers = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.connect(ng)?;
        socket.send(b"1 d7:command4:pinge")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(&answer[..length] == b"1 d6:result4:ponge")
    };
    let until = Instant::now() + TIMEOUT;
    while !answers().unwrap_or_default() {
        assert!(Instant::now() < until, "{name} does not answer at {ng}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// At free addresses of loopback.
#[required(Rtpengine)]
#[test]
fn rtpengine_takes_the_configuration_of_the_page() {
    let page = include_str!("../../docs/nodes-and-drivers.md");
    let (_, block) = page.split_once("```ini rtpengine.conf\n").expect("the page has it");
    let (block, _) = block.split_once("```").expect("the block ends");
    let free = (Ipv4Addr::LOCALHOST, 0);
    let ng = UdpSocket::bind(free).and_then(|socket| socket.local_addr());
    let cli = TcpListener::bind(free).and_then(|socket| socket.local_addr());
    let (ng, cli) = (ng.expect("loopback has a port"), cli.expect("loopback has a port"));
    let text = block
        .replace("10.0.1.21:2223", &ng.to_string())
        .replace("localhost:2224", &cli.to_string())
        .replace("10.0.1.21", "127.0.0.1");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("rtpengine.conf");
    std::fs::write(&file, text).expect("a file can be written");
    let mut command = Command::new("rtpengine");
    command.args(["--foreground", "--log-stderr"]).arg("--config-file").arg(&file);
    let _process = ChildProcess::start("rtpengine-of-the-page", &mut command, folder.path())
        .expect("rtpengine starts");
    await_pong("rtpengine", ng);
    TcpStream::connect(cli).expect("the address of rtpengine-ctl");
}

pub(crate) fn before_two(name: &str, keys: &str) -> Stage {
    let nodes = |folder: &Path| NODES.map(|node| daemon(node, folder, keys)).into();
    Stage::before(name, CONFIGURATION, nodes)
}

/// A client, with the arrival times of the other client's packets.
pub(crate) struct Talker {
    socket: UdpSocket,
    gateway: SocketAddr,
    /// The node that carries the room before the kill.
    pub(crate) node: String,
    pub(crate) heard: Vec<(Instant, u16)>,
}

impl Talker {
    pub(crate) fn join(stage: &mut Stage, room: &str) -> Talker {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
        socket.set_nonblocking(true).expect("a socket may be non-blocking");
        let address = socket.local_addr().expect("a bound socket has an address");
        let opened = stage.open(&offer(room, declared(address, None), vec![voice()]));
        let gateway = opened.udp.expect("by UDP").addresses[0];
        Talker { socket, gateway, node: opened.route[0].place.node.to_string(), heard: Vec::new() }
    }

    /// The longest gap within these bounds; `None` with fewer than two packets.
    pub(crate) fn longest(&self, from: Instant, to: Instant) -> Option<Duration> {
        let within = |(at, _): &&(Instant, u16)| (from..=to).contains(at);
        let heard: Vec<Instant> = self.heard.iter().filter(within).map(|(at, _)| *at).collect();
        heard.windows(2).map(|pair| pair[1] - pair[0]).max()
    }

    pub(crate) fn lost(&self) -> u16 {
        let numbers = self.heard.first().zip(self.heard.last());
        let sent = numbers.map_or(0, |((_, first), (_, last))| last.wrapping_sub(*first) + 1);
        sent - self.heard.len() as u16
    }
}

/// Clients that talk on a thread of their own.
pub(crate) struct Talking {
    ending: Arc<AtomicBool>,
    /// The number of packets that each client has heard.
    heard: Arc<[AtomicUsize]>,
    thread: JoinHandle<Vec<Talker>>,
}

impl Talking {
    pub(crate) fn begin(talkers: Vec<Talker>) -> Talking {
        let ending = Arc::<AtomicBool>::default();
        let heard: Arc<[AtomicUsize]> = talkers.iter().map(|_| AtomicUsize::default()).collect();
        let thread = talk(talkers, Arc::clone(&ending), Arc::clone(&heard));
        Talking { ending, heard, thread }
    }

    /// Waits until each client has heard this many packets more.
    pub(crate) fn await_heard(&self, more: usize) {
        let heard = || self.heard.iter().map(|heard| heard.load(Ordering::Relaxed));
        let (before, until) = (heard().collect::<Vec<_>>(), Instant::now() + TIMEOUT);
        while !heard().zip(&before).all(|(now, before)| now >= before + more) {
            let now: Vec<usize> = heard().collect();
            assert!(Instant::now() < until, "timed out: {more} more than {before:?}: {now:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn end(self) -> Vec<Talker> {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.join().expect("the talking thread ends")
    }
}

/// Sends packets of all clients every 20 ms, each client with its own phase, until `ending` is set.
fn talk(
    mut talkers: Vec<Talker>,
    ending: Arc<AtomicBool>,
    counts: Arc<[AtomicUsize]>,
) -> JoinHandle<Vec<Talker>> {
    thread::spawn(move || {
        let (start, mut turn, mut datagram) = (Instant::now(), 0_u64, [0; 2_048]);
        while !ending.load(Ordering::Relaxed) {
            let due = start.elapsed().as_millis() as u64;
            while turn <= due {
                let number = (turn / STEP_MS as u64) as u16;
                for (ssrc, talker) in (1_u32..).zip(&talkers) {
                    if ssrc as usize % STEP_MS == turn as usize % STEP_MS {
                        let _unreachable =
                            talker.socket.send_to(&packet(number, ssrc), talker.gateway);
                    }
                }
                turn += 1;
            }
            let ready = ready(&talkers);
            let readable = talkers.iter_mut().zip(&*counts).zip(ready);
            for ((talker, count), _) in readable.filter(|(_, ready)| *ready) {
                while let Ok((length, from)) = talker.socket.recv_from(&mut datagram) {
                    assert_eq!(from, talker.gateway, "only the gateway sends");
                    if length > 12 && datagram[1] & 0x7f == 111 {
                        let number = u16::from_be_bytes([datagram[2], datagram[3]]);
                        talker.heard.push((Instant::now(), number));
                    }
                }
                count.store(talker.heard.len(), Ordering::Relaxed);
            }
        }
        talkers
    })
}

/// For each client, whether a packet is queued; waits at most a millisecond.
fn ready(talkers: &[Talker]) -> Vec<bool> {
    let mut watched: Vec<PollFd<'_>> = Vec::new();
    for talker in talkers {
        watched.push(PollFd::new(talker.socket.as_fd(), PollFlags::POLLIN));
    }
    poll(&mut watched, PollTimeout::from(1_u8)).expect("sockets can be polled");
    watched.iter().map(|fd| fd.any() == Some(true)).collect()
}

/// A packet with an Opus payload type; the payload is not decoded.
fn packet(number: u16, ssrc: u32) -> Vec<u8> {
    let timestamp = u32::from(number) * 960;
    let number = number.to_be_bytes();
    let header = [&[0x80, 111][..], &number, &timestamp.to_be_bytes(), &ssrc.to_be_bytes()];
    [header.concat(), vec![7; 60]].concat()
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

#[required(Rtpengine)]
#[test]
fn rtpengine_killed_calls_move_to_another() {
    let mut stage = before_two("rtpengine", "");
    let mut talkers = Vec::new();
    for room in 0..ROOMS {
        let room = format!("room-{room}");
        talkers.extend([Talker::join(&mut stage, &room), Talker::join(&mut stage, &room)]);
    }
    let node = talkers[0].node.clone();
    let talking = Talking::begin(talkers);
    talking.await_heard(PACKETS);
    let killed = Instant::now();
    let moved = stage.kill_under(&node, "room-0");
    talking.await_heard(PACKETS);
    let talkers = talking.end();
    let ended = Instant::now();

    let step = Duration::from_millis(STEP_MS as u64);
    let hit: Vec<&Talker> = talkers.iter().filter(|talker| talker.node == node).collect();
    let longest = |from, to| -> Vec<Duration> {
        let mut gaps: Vec<Duration> =
            hit.iter().map(|talker| talker.longest(from, to).unwrap_or(CONTROL)).collect();
        gaps.sort_unstable();
        gaps
    };
    let control = longest(killed - CONTROL, killed);
    let gaps = longest(killed - 2 * step, ended);
    let lost: Vec<u16> = hit.iter().map(|talker| talker.lost()).collect();
    println!(
        "{} sessions at the killed rtpengine: gap p50 {:.1?}, p99 {:.1?}, max {:.1?} (without a kill p50 {:.1?}, \
         p99 {:.1?}, max {:.1?}); lost at most {} packets each; {moved}",
        hit.len(),
        quantile(&gaps, 0.5),
        quantile(&gaps, 0.99),
        quantile(&gaps, 1.0),
        quantile(&control, 0.5),
        quantile(&control, 0.99),
        quantile(&control, 1.0),
        lost.iter().max().copied().unwrap_or_default(),
    );
    let control = quantile(&control, 1.0);
    for talker in &talkers {
        let (last, _) = talker.heard.last().expect("each client hears packets");
        LIMITS.judge("a client, to the end", ended - *last, control);
    }
    LIMITS.judge("a client", quantile(&gaps, 1.0), control);
    let sessions = stage.read("/v1/sessions");
    assert_eq!(sessions["sessions"].as_array().map_or(0, Vec::len), 2 * ROOMS, "no session ended");
    stage.end_gateway();
}

#[required(Rtpengine, GStreamer)]
#[test]
fn gstreamer_continues_when_rtpengine_killed() {
    let mut stage = before_two("rtpengine-gstreamer", "");
    // The closed ports of a killed daemon move rooms with the cause `link`, unless its pings were refused first.
    assert_decoding_survives_kill(&mut stage, &["link", "node-down"]);
    stage.end_gateway();
}
