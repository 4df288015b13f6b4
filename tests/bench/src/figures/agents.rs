//! Nodes that open every session, answer every probe, and count packets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evenkeel_lab::{TestHeader, clock};
use evenkeel_media::trunk::entries;
use evenkeel_media::trunk::message::{
    NodeLoad, NodeSecret, OpenStatus, ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::{demux, rtp};
use nix::sys::socket::{setsockopt, sockopt};

use crate::namespace::NODES;

pub(super) const SECRET: &str = "secret of bench nodes and gateway";

/// Interval at which an idle node checks whether it has to end.
const NAP: Duration = Duration::from_millis(20);

/// Enough to bridge the time in which other processes have the processor.
const RECEIVE_BUFFER: usize = 8 << 20;

pub(super) fn node_name(number: usize) -> String {
    format!("east-{}{number}", zone(number))
}

pub(super) fn zone(number: usize) -> &'static str {
    ["a", "b"][number % 2]
}

/// The arrival of the first packet with a test header by session, nanoseconds since the Unix epoch.
type FirstPackets = Arc<Mutex<BTreeMap<u64, u64>>>;

/// Node threads, ended on drop.
pub(super) struct Agents {
    pub(super) addresses: Vec<SocketAddr>,
    packets: Arc<AtomicU64>,
    first_ns: FirstPackets,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Agents {
    pub(super) fn start(nodes: usize) -> Result<Agents, String> {
        let mut agents = Agents {
            addresses: Vec::new(),
            packets: Arc::default(),
            first_ns: Arc::default(),
            ending: Arc::default(),
            threads: Vec::new(),
        };
        for number in 0..nodes {
            let system = |error: std::io::Error| format!("a node has no socket: {error}");
            let socket = UdpSocket::bind((Ipv4Addr::from(NODES), 0)).map_err(system)?;
            socket.set_read_timeout(Some(NAP)).map_err(system)?;
            // A smaller buffer loses packets, which shows.
            let _less = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
            agents.addresses.push(socket.local_addr().map_err(system)?);
            let secret = NodeSecret::new(SECRET.as_bytes(), &node_name(number));
            let secret = secret.map_err(|error| error.to_string())?;
            let (packets, ending) = (Arc::clone(&agents.packets), Arc::clone(&agents.ending));
            let first_ns = Arc::clone(&agents.first_ns);
            agents.threads.push(std::thread::spawn(move || {
                serve(&socket, &secret, &packets, &first_ns, &ending);
            }));
        }
        Ok(agents)
    }

    /// The arrival of the session's first packet with a test header, nanoseconds since the Unix epoch.
    pub(super) fn first_ns(&self, session: u64) -> Option<u64> {
        self.first_ns.lock().unwrap_or_else(PoisonError::into_inner).get(&session).copied()
    }

    /// Packets that all nodes received so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        // A panic was printed already.
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

fn serve(
    socket: &UdpSocket,
    secret: &NodeSecret,
    packets: &AtomicU64,
    first_ns: &FirstPackets,
    ending: &AtomicBool,
) {
    let (mut datagram, mut answer) = (vec![0; 65_536], Vec::new());
    while !ending.load(Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        let datagram = &datagram[..length];
        if demux::classify(datagram) == demux::DatagramKind::Bundle {
            let at_ns = clock::now_ns();
            for (_, packet) in entries(datagram).filter_map(Result::ok) {
                packets.fetch_add(1, Relaxed);
                if let Some(session) = sender(packet) {
                    first_ns
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(session)
                        .or_insert(at_ns);
                }
            }
            continue;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = since.as_micros() as u64;
        let Ok(asked) = TrunkQuestion::read(datagram, secret, now_us) else {
            continue;
        };
        let Some(said) = reply(&asked.message) else {
            continue;
        };
        answer.clear();
        said.write(secret, asked.nonce, now_us, &mut answer);
        // A lost answer is requested again.
        let _lost = socket.send_to(&answer, from);
    }
}

/// The session in the test header of a packet.
fn sender(packet: &[u8]) -> Option<u64> {
    let header = rtp::RtpHeader::parse(packet).ok()?;
    TestHeader::read(header.payload(packet)).map(|mark| mark.session)
}

fn reply(question: &TrunkQuestion) -> Option<TrunkAnswer> {
    match *question {
        TrunkQuestion::Probe => {
            let load = NodeLoad {
                permille: 100,
                state: ServingState::Serving,
                sessions: 0,
                vouched: true,
            };
            Some(TrunkAnswer::Probe(load))
        }
        TrunkQuestion::Open { tag, .. } => Some(TrunkAnswer::Open { tag, status: OpenStatus::Ok }),
        TrunkQuestion::Close { tag } => Some(TrunkAnswer::Close { tag, status: OpenStatus::Ok }),
        TrunkQuestion::Keep { .. } => Some(TrunkAnswer::Keep { unknown: [].into() }),
        _ => None,
    }
}
