//! Attacks on the legs between gateway and nodes by a host that sees their packets.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_control::{AgentError, ControlError, NodeOrder};
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::message::{
    NodeFault, NodeSecret, ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::trunk::{self, Bundle, Tag};

use crate::harness::{
    AgentFiles, Gateway, Node, Phone, SECRET, TIMEOUT, World, assert_complete, assert_continuous,
    declared, offer, talk, talk_for, udp_of, wait_until,
};

/// Forwards packets between a gateway and a node, each of the gateway's sockets by a socket of its own, and keeps them.
pub(super) struct Tap {
    pub(super) address: SocketAddr,
    wire: Arc<Mutex<Wire>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Wire {
    near: UdpSocket,
    node: SocketAddr,
    /// The gateway's sockets, and the sockets that the node sees instead.
    senders: Vec<(SocketAddr, UdpSocket)>,
    seen: Vec<TappedDatagram>,
}

#[derive(Clone, Debug)]
pub(super) struct TappedDatagram {
    pub(super) is_to_node: bool,
    sender: usize,
    pub(super) bytes: Vec<u8>,
}

impl Tap {
    pub(super) fn before(node: SocketAddr) -> Tap {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        near.set_nonblocking(true).unwrap();
        let address = near.local_addr().unwrap();
        let wire = Arc::new(Mutex::new(Wire { near, node, senders: Vec::new(), seen: Vec::new() }));
        let ending = Arc::<AtomicBool>::default();
        let (forwarding, ended) = (Arc::clone(&wire), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                forwarding.lock().unwrap_or_else(PoisonError::into_inner).forward();
                std::thread::park_timeout(Duration::from_micros(200));
            }
        });
        Tap { address, wire, ending, thread: Some(thread) }
    }

    /// The node's table, at the address of the tap.
    fn text(&self, node: &Node) -> String {
        node.text().replace(&node.address.to_string(), &self.address.to_string())
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends bytes from the sender of a recorded datagram to its receiver.
    pub(super) fn forge(&self, like: &TappedDatagram, bytes: &[u8]) {
        let wire = self.wire();
        let (source, far) = &wire.senders[like.sender];
        match like.is_to_node {
            true => far.send(bytes).unwrap(),
            false => wire.near.send_to(bytes, *source).unwrap(),
        };
    }

    pub(super) fn seen(&self, is: impl Fn(&TappedDatagram) -> bool) -> Vec<TappedDatagram> {
        self.wire().seen.iter().filter(|seen| is(seen)).cloned().collect()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Wire {
    fn forward(&mut self) {
        let mut buffer = [0; 4_096];
        while let Ok((length, source)) = self.near.recv_from(&mut buffer) {
            let sender = self.sender(source);
            let bytes = buffer[..length].to_vec();
            let _lost_at_worst = self.senders[sender].1.send(&bytes);
            self.seen.push(TappedDatagram { is_to_node: true, sender, bytes });
        }
        for (sender, (source, far)) in self.senders.iter().enumerate() {
            while let Ok(length) = far.recv(&mut buffer) {
                let bytes = buffer[..length].to_vec();
                let _lost_at_worst = self.near.send_to(&bytes, *source);
                self.seen.push(TappedDatagram { is_to_node: false, sender, bytes });
            }
        }
    }

    fn sender(&mut self, source: SocketAddr) -> usize {
        if let Some(known) = self.senders.iter().position(|(known, _)| *known == source) {
            return known;
        }
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.connect(self.node).unwrap();
        far.set_nonblocking(true).unwrap();
        self.senders.push((source, far));
        self.senders.len() - 1
    }
}

pub(super) fn stranger() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

pub(super) fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

pub(super) fn now_us() -> u64 {
    evenkeel_lab::clock::now_ns() / 1_000
}

fn table(name: &str, address: SocketAddr, driver: &str, agent: SocketAddr) -> String {
    format!(
        "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nregion = \"east\"\nzone = \"a\"\n\
         capacity = \"200 Mbit/s\"\n{driver}\nsecret_file = \"secret\"\nagent = \"{agent}\"\n"
    )
}

#[test]
fn order_for_another_node_is_refused() {
    let files = AgentFiles::new();
    let mut victim = files.node("east-a9");
    files.write_pid(&victim);
    let agent = files.agent("drills = true");
    let other = Node::plain("east-b1", "echo", PlainRoom::Alone);
    // The attacker sees the packets to the agent of the other node.
    let eve = stranger();
    let mut world = World::of(&[]);
    world.nodes += &table("east-a9", victim.address, "driver = \"agent\"", agent.address);
    let echo = "driver = \"plain\"\nprobe = \"echo\"";
    world.nodes += &table("east-b1", other.address, echo, eve.local_addr().unwrap());
    let gateway = world.start();
    let order =
        |name: &str, how| gateway.ask(gateway.handle.order(name.into(), NodeOrder::Break(how)));
    let silent = ControlError::Agent { node: "east-b1".into(), why: AgentError::Silent };
    assert_eq!(order("east-b1", NodeFault::Kill), Err(silent));
    let (victims, others) =
        ["east-a9", "east-b1"].map(|name| NodeSecret::new(SECRET, name).unwrap()).into();
    let kill = loop {
        let seen = receive(&eve);
        let read = TrunkQuestion::read(&seen, &others, now_us());
        if read.is_ok_and(|read| read.message == TrunkQuestion::Break(NodeFault::Kill)) {
            break seen;
        }
    };

    eve.send_to(&kill, agent.address).unwrap();
    // The agent answers in order: had it taken the order, it would have said so before it answers this probe.
    let mut probe = Vec::new();
    TrunkQuestion::Probe.write(&victims, 1, now_us(), &mut probe);
    eve.send_to(&probe, agent.address).unwrap();
    let answer = loop {
        let answer = receive(&eve);
        if answer.get(3) == Some(&1) {
            break TrunkAnswer::read(&answer, &victims, now_us()).unwrap().message;
        }
    };
    assert!(
        matches!(answer, TrunkAnswer::Probe(load) if load.state == ServingState::Serving),
        "{answer:?}"
    );
    assert!(victim.process.is_running());
    // The same order by the gateway is carried out.
    order("east-a9", NodeFault::Kill).unwrap();
    wait_until("the process ends", || !victim.process.is_running());
}

/// Starts a call of two clients through a tap before the node, and waits until each has heard this many packets.
fn call_through_tap(node: &Node, heard: usize) -> (Tap, Gateway, Phone, Phone) {
    let tap = Tap::before(node.address);
    let mut world = World::of(&[]);
    world.nodes = tap.text(node);
    let gateway = world.start();
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    for phone in [&mut ann, &mut bob] {
        let opened = gateway.open(offer("room", declared(phone)));
        phone.set_target(udp_of(&opened));
    }
    talk(&mut [&mut ann, &mut bob], "they hear each other", |phones| {
        phones[0].audio_from(2) >= heard && phones[1].audio_from(1) >= heard
    });
    (tap, gateway, ann, bob)
}

#[test]
fn observed_tag_moves_no_stream() {
    let node = Node::agent("east-a1").without_canaries();
    let (tap, _gateway, mut ann, mut bob) = call_through_tap(&node, 5);

    let bundles =
        tap.seen(|seen| seen.is_to_node && demux::classify(&seen.bytes) == DatagramKind::Bundle);
    let entries = bundles.iter().flat_map(|bundle| trunk::entries(&bundle.bytes));
    let tags: BTreeSet<Tag> = entries.map(|entry| entry.unwrap().0).collect();
    assert_eq!(tags.len(), 2);
    let eve = stranger();
    for tag in tags {
        let mut bundle = Bundle::new(1_400);
        assert!(bundle.push(tag, &Phone::new(9).voice.packet(9)));
        eve.send_to(bundle.as_bytes(), node.address).unwrap();
    }
    // The node handles datagrams in order: after this echo it has seen the bundles.
    let echo = [demux::ECHO, 9];
    eve.send_to(&echo, node.address).unwrap();
    assert_eq!(receive(&eve), echo, "the node sends nothing else to the stranger");

    // The listener is silent, so no packet of its own restores its stream.
    let first = ann.voice.sent;
    talk_for(&mut [&mut ann], 50);
    let last = ann.voice.sent - 1;
    wait_until("the listener hears the last packet", || {
        bob.listen();
        bob.heard_from(1, 0).last().is_some_and(|heard| heard.mark.number == last)
    });
    let mut heard = bob.heard_from(1, 0);
    heard.retain(|heard| heard.mark.number >= first);
    assert_complete(&heard, first, last + 1);
    assert_eq!((ann.audio_from(9), bob.audio_from(9)), (0, 0), "no packet of the stranger passes");
    eve.set_nonblocking(true).unwrap();
    assert!(eve.recv(&mut [0; 4_096]).is_err(), "the stranger receives nothing");
}

#[test]
fn encrypted_media_is_neither_read_nor_replayed() {
    let mut node = Node::agent("east-a1").without_canaries().encrypted();
    let (tap, gateway, mut ann, mut bob) = call_through_tap(&node, 20);

    let media = |seen: &TappedDatagram| seen.bytes.windows(8).any(|bytes| bytes == [0x5a; 8]);
    assert_eq!(tap.seen(media).len(), 0, "no payload is readable");
    let sealed = tap.seen(|seen| demux::classify(&seen.bytes) == DatagramKind::Sealed);
    let (up, down): (Vec<TappedDatagram>, Vec<TappedDatagram>) =
        sealed.into_iter().partition(|seen| seen.is_to_node);
    assert!(up.len() >= 40 && down.len() >= 40, "{} {}", up.len(), down.len());
    for seen in up.iter().chain(&down) {
        tap.forge(seen, &seen.bytes);
        // With the number of a datagram that has not come yet, and with other content.
        for byte in [9, 16, 40] {
            let mut changed = seen.bytes.clone();
            changed[9] ^= 1;
            changed[byte] ^= 2;
            tap.forge(seen, &changed);
        }
    }
    let downs = down.len() as u64;
    wait_until("the gateway drops each", || {
        gateway.drops("stale") >= downs && gateway.drops("bad-integrity") >= 3 * downs
    });

    let first = ann.voice.sent;
    talk_for(&mut [&mut ann, &mut bob], 50);
    let last = ann.voice.sent - 1;
    wait_until("the listener hears the last packet", || {
        bob.listen();
        bob.heard_from(1, 0).last().is_some_and(|heard| heard.mark.number == last)
    });
    let mut heard = bob.heard_from(1, 0);
    assert_continuous(&heard);
    heard.retain(|heard| heard.mark.number >= first);
    assert_complete(&heard, first, last + 1);
    let sent = ann.voice.sent + bob.voice.sent;
    drop(gateway);
    let counters = node.kill();
    let refused = (counters.refused.replayed, counters.refused.unreadable);
    assert_eq!(refused, (up.len() as u64, 3 * up.len() as u64));
    assert!(counters.packets_in <= sent, "the node takes no packet twice");
}
