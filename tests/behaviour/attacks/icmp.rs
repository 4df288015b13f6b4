//! Forged ICMP port unreachable marks no healthy node down and costs no packet. A closed port is still found by ICMP.
//!
//! The forger knows the addresses and ports of both ends, and none of the datagrams.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_control::GatewayEvent;
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_media::trunk::message::{NodeSecret, TrunkQuestion};
use evenkeel_media::trunk::{Bundle, Tag};
use evenkeel_media::{demux, rtcp, rtp, stun};
use evenkeel_model::{CoreEvent, EvidenceSource, Health, Hop, Strike};
use evenkeel_testkit::required;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::harness::{
    Gateway, Node, Phone, World, assert_complete, declared, offer, talk, udp_of, wait_until,
};

/// 200 errors a second for each pair of ports.
const FORGED_EVERY: Duration = Duration::from_millis(5);

/// Two ends of a path of the gateway: its socket and the node's.
type Ends = (SocketAddrV4, SocketAddrV4);

/// A raw socket, and datagrams such as the gateway sends.
struct Forger {
    raw: OwnedFd,
    guesses: Vec<Vec<u8>>,
}

struct Attack {
    stop: Arc<AtomicBool>,
    /// The number of errors for each path.
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Forger {
    fn new() -> Forger {
        let raw =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp);
        let mut signed = Vec::new();
        let secret = NodeSecret::new(b"a secret that the forger made up", "east-a1").unwrap();
        TrunkQuestion::Probe.write(&secret, 7, 1_700_000_000_000_000, &mut signed);
        let mut binding = Vec::new();
        stun::BindingBuilder::probe(stun::Transaction([7; 12])).write(&mut binding);
        let fields = rtp::Fields {
            payload_type: 111,
            marker: false,
            sequence: 65_501,
            timestamp: 4_000_000_000,
            ssrc: 0xdead_beef,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &[0x5a; 100], &mut packet);
        let mut report = Vec::new();
        rtcp::write_receiver_report(fields.ssrc, &[], &mut report);
        let mut bundle = Bundle::new(1_400);
        assert!(bundle.push(Tag(1), &packet));
        let echo = [&[demux::ECHO][..], &[7; 12]].concat();
        let bundle = bundle.as_bytes().to_vec();
        let guesses = vec![Vec::new(), signed, binding, packet, report, bundle, echo];
        let forger = Forger { raw: raw.unwrap(), guesses };
        forger.assert_effective();
        forger
    }

    /// Asserts that the kernel delivers forged errors to an ordinary connected socket.
    fn assert_effective(&self) {
        let [own, peer] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        own.connect(peer.local_addr().unwrap()).unwrap();
        self.send((v4(own.local_addr().unwrap()), v4(peer.local_addr().unwrap())), b"");
        wait_until("the error is at the socket", || {
            let error = own.take_error().unwrap();
            error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
    }

    /// Sends an error about a datagram from the first end to the second one.
    fn send(&self, ends: Ends, datagram: &[u8]) {
        let error = port_unreachable(ends, datagram);
        let to = SockaddrIn::from(SocketAddrV4::new(*ends.0.ip(), 0));
        sendto(self.raw.as_raw_fd(), &error, &to, MsgFlags::empty()).unwrap();
    }

    /// Forges errors for all paths until the attack is stopped.
    fn begin(self, paths: Vec<Ends>) -> Attack {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            let mut guesses = self.guesses.iter().cycle();
            while !stopped.load(Ordering::Relaxed) {
                let guess = guesses.next().expect("a cycle has no end");
                paths.iter().for_each(|ends| self.send(*ends, guess));
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(FORGED_EVERY);
            }
        });
        Attack { stop, rounds, thread }
    }
}

impl Attack {
    /// True after 100 errors for each path.
    fn is_long_enough(&self) -> bool {
        self.rounds.load(Ordering::Relaxed) >= 100
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// An ICMP message (RFC 792) with the IP and UDP headers of a datagram between these ends, and the datagram.
fn port_unreachable((from, to): Ends, datagram: &[u8]) -> Vec<u8> {
    let udp_length = 8 + datagram.len() as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    ip[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    ip.extend(from.ip().octets().into_iter().chain(to.ip().octets()));
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend(ip);
    for field in [from.port(), to.port(), udp_length, 0] {
        icmp.extend(field.to_be_bytes());
    }
    icmp.extend(datagram);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(v4) => v4,
        SocketAddr::V6(v6) => panic!("{v6} is not IPv4"),
    }
}

/// The sockets of this machine that are connected to the node: probes, canaries and trunks.
fn paths_to(node: SocketAddr) -> Vec<Ends> {
    let address = |field: &str| {
        let (ip, port) = field.split_once(':').unwrap();
        let ip = u32::from_str_radix(ip, 16).unwrap().to_ne_bytes();
        SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_str_radix(port, 16).unwrap())
    };
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    let rows = table.lines().skip(1).map(|row| {
        let mut fields = row.split_ascii_whitespace().skip(1).map(address);
        (fields.next().unwrap(), fields.next().unwrap())
    });
    rows.filter(|(_, remote)| SocketAddr::V4(*remote) == node).collect()
}

/// The first node that was marked down, with the evidence.
fn marked_down(gateway: &Gateway) -> Option<(Hop, Vec<EvidenceSource>)> {
    gateway.happened(|told| match &told.event {
        GatewayEvent::Core(CoreEvent::Node { hop, to: Health::Down, witnesses, .. }) => {
            Some((*hop, witnesses.iter().map(|(witness, _)| *witness).collect()))
        }
        _ => None,
    })
}

/// Why the first hop left a route although its node is up.
fn removed_hop(gateway: &Gateway) -> Option<Strike> {
    gateway.happened(|told| match &told.event {
        GatewayEvent::Core(CoreEvent::HopRemoved { why, .. }) => Some(*why),
        _ => None,
    })
}

/// Asserts that the phone hears all of this many packets of the other one, from the first that it heard.
fn assert_none_lost(phone: &mut Phone, other: u64, sent: u64) {
    wait_until("the last packet is heard", || {
        phone.listen();
        phone.heard_from(other, 0).last().is_some_and(|last| last.mark.number + 1 == sent)
    });
    let heard = phone.heard_from(other, 0);
    assert_complete(&heard, heard[0].mark.number, sent);
}

#[required(RawSockets)]
#[test]
fn forged_refusals_mark_no_node_down() {
    let forger = Forger::new();
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway = World::of(&[&nodes[0], &nodes[1]]).start();
    let [mut ann, mut bob] = [1, 2].map(Phone::new);
    let mut carrying = 0;
    for phone in [&mut ann, &mut bob] {
        let opened = gateway.open(offer("room", declared(phone)));
        phone.set_target(udp_of(&opened));
        carrying = opened.route[0].node.0 as usize;
    }
    talk(&mut [&mut ann, &mut bob], "both hear", |phones| {
        phones[0].audio_from(2) >= 20 && phones[1].audio_from(1) >= 20
    });
    let paths = nodes.each_ref().map(|node| paths_to(node.address));
    assert!(paths.iter().all(|of_node| of_node.len() >= 3), "{paths:?}");
    let attack = forger.begin(paths.concat());
    let goal = ann.voice.sent + 200;
    talk(&mut [&mut ann, &mut bob], "the call goes on", |phones| {
        phones[0].voice.sent >= goal && attack.is_long_enough()
    });
    attack.end();
    assert_eq!(marked_down(&gateway), None);
    let sent = [ann.voice.sent, bob.voice.sent];
    assert_none_lost(&mut ann, 2, sent[1]);
    assert_none_lost(&mut bob, 1, sent[0]);
    // The control: this node's port really closes.
    nodes[carrying].die();
    talk(&mut [&mut ann, &mut bob], "the node is down", |_| marked_down(&gateway).is_some());
    let (down, witnesses) = marked_down(&gateway).unwrap();
    assert_eq!(down.node.0 as usize, carrying);
    assert!(witnesses.contains(&EvidenceSource::KernelError), "{witnesses:?}");
}

#[required(RawSockets)]
#[test]
fn forged_refusals_spare_session_ports() {
    let forger = Forger::new();
    // The node is a socket of the test, which sees the session's port.
    let node = UdpSocket::bind("127.0.0.1:0").unwrap();
    node.set_nonblocking(true).unwrap();
    let template = Node::plain("east-a1", "none", PlainRoom::Alone);
    let address = node.local_addr().unwrap();
    let mut world = World::of(&[]);
    world.nodes = template.text().replace(&template.address.to_string(), &address.to_string());
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    let echo = || {
        let (mut buffer, mut port) = ([0; 2_048], None);
        while let Ok((length, from)) = node.recv_from(&mut buffer) {
            node.send_to(&buffer[..length], from).unwrap();
            port = Some(from);
        }
        port
    };
    let mut port = None;
    talk(&mut [&mut ann], "she hears herself", |phones| {
        port = echo().or(port);
        phones[0].heard.len() >= 20
    });
    let attack = forger.begin(vec![(v4(port.unwrap()), v4(address))]);
    let goal = ann.voice.sent + 200;
    talk(&mut [&mut ann], "the call goes on", |phones| {
        echo();
        phones[0].voice.sent >= goal && attack.is_long_enough()
    });
    attack.end();
    assert_eq!(removed_hop(&gateway), None);
    let sent = ann.voice.sent;
    wait_until("the last packet is heard", || {
        echo();
        ann.listen();
        ann.heard.last().is_some_and(|last| last.mark.number + 1 == sent)
    });
    assert_none_lost(&mut ann, 1, sent);
    // The control: the node's port really closes.
    drop(node);
    talk(&mut [&mut ann], "the hop leaves the route", |_| removed_hop(&gateway).is_some());
    assert_eq!(removed_hop(&gateway), Some(Strike::PortClosed));
}
