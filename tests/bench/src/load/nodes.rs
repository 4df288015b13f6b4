//! The nodes behind a relay: they count packets, and send packets to clients.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Instant;

use evenkeel_media::trunk::message::NodeSecret;
use evenkeel_media::trunk::{self, Bundle};

use super::arrivals::{Arrivals, socket};
use super::books::Tally;
use super::register::{LastSource, Peer, Register, Wire};
use super::stream::{Stream, Way};
use evenkeel_lab::clock;

/// Datagrams read at once.
const BATCH: usize = 64;
/// Bytes of a bundle, slightly below a path MTU of 1,500 bytes.
const BUNDLE_MAX: usize = 1_400;
/// A node gathers packets to clients into a bundle for this time.
const GATHER_NS: u64 = 200_000;

pub(super) struct Nodes {
    sockets: Vec<UdpSocket>,
    arrivals: Arrivals,
    pub(super) register: Register,
    streams: Vec<Stream>,
    gathering: Vec<Gathering>,
    bundle: Bundle,
    packet: Vec<u8>,
}

/// Packets at a node that will share a datagram.
#[derive(Default)]
struct Gathering {
    packets: Vec<(u32, usize)>,
    bytes: usize,
    since_ns: u64,
}

impl Nodes {
    pub(super) fn bind(
        at: &[SocketAddrV4],
        sessions: usize,
        wire: Wire,
        secrets: Vec<NodeSecret>,
    ) -> io::Result<Nodes> {
        Ok(Nodes {
            sockets: at.iter().map(|&at| socket(at)).collect::<io::Result<_>>()?,
            arrivals: Arrivals::new(BATCH),
            register: Register::new(wire, at.len(), sessions, secrets),
            streams: (0..).take(sessions).map(|k| Stream::new(k, Way::ToClient)).collect(),
            gathering: at.iter().map(|_| Gathering::default()).collect(),
            bundle: Bundle::new(BUNDLE_MAX),
            packet: vec![0x5a; BUNDLE_MAX],
        })
    }

    pub(super) fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// Sessions without a packet at any node yet.
    pub(super) fn unmet(&self) -> Vec<u32> {
        let sessions = (0..).take(self.streams.len());
        sessions.filter(|&session| self.register.met(session).is_none()).collect()
    }

    /// Number of sessions at each node.
    pub(super) fn shares(&self) -> Vec<usize> {
        let mut shares = vec![0; self.sockets.len()];
        for met in (0..).take(self.streams.len()).filter_map(|session| self.register.met(session)) {
            shares[met.node] += 1;
        }
        shares
    }

    /// Reads at most a batch of a node's packets, and returns the number of packets of sessions.
    pub(super) fn receive(
        &mut self,
        node: usize,
        window: u8,
        tally: &mut Tally,
    ) -> io::Result<u64> {
        let began = Instant::now();
        let Nodes { sockets, arrivals, register, .. } = self;
        let socket = &sockets[node];
        let mut packets = 0;
        arrivals.receive(socket, |arrival| {
            packets += register.take((node, socket), arrival, window, tally);
        })?;
        if packets > 0 {
            tally.taken += packets;
            tally.taking_ns += clock::nanoseconds(began.elapsed());
        }
        Ok(packets)
    }

    /// Sends the next packet of a session to its client, or queues it for a bundle. Returns false on failure.
    pub(super) fn send(&mut self, session: u32, length: usize, window: u8, now_ns: u64) -> bool {
        let Some(LastSource { node, peer }) = self.register.met(session) else { return false };
        let to = match peer {
            Peer::Address(address) => Some(address),
            Peer::Nothing => self.register.upstream(node),
            Peer::Tag(_) => {
                if self.gathering[node].bytes + length + trunk::ENTRY_OVERHEAD > BUNDLE_MAX {
                    self.flush(node, window, now_ns);
                }
                let gathering = &mut self.gathering[node];
                if gathering.packets.is_empty() {
                    gathering.since_ns = now_ns;
                    gathering.bytes = trunk::OVERHEAD;
                }
                gathering.packets.push((session, length));
                gathering.bytes += length + trunk::ENTRY_OVERHEAD;
                return true;
            }
        };
        let Some(to) = to else { return false };
        let packet = &mut self.packet[..length];
        self.streams[session as usize].next(packet, window, now_ns);
        self.sockets[node].send_to(packet, to).is_ok()
    }

    /// Sends the bundles that have gathered for long enough.
    pub(super) fn flush_due(&mut self, window: u8, now_ns: u64) {
        for node in 0..self.gathering.len() {
            let gathering = &self.gathering[node];
            if !gathering.packets.is_empty() && now_ns - gathering.since_ns >= GATHER_NS {
                self.flush(node, window, now_ns);
            }
        }
    }

    /// Sends the bundle. Its packets get the current send time, so that delays exclude the gathering.
    pub(super) fn flush(&mut self, node: usize, window: u8, now_ns: u64) {
        let Some(to) = self.register.upstream(node) else { return };
        if self.gathering[node].packets.is_empty() {
            return;
        }
        self.bundle.clear();
        for (session, length) in self.gathering[node].packets.drain(..) {
            let Some(LastSource { peer: Peer::Tag(tag), .. }) = self.register.met(session) else {
                continue;
            };
            let packet = &mut self.packet[..length];
            self.streams[session as usize].next(packet, window, now_ns);
            let fitted = self.bundle.push(tag, packet);
            debug_assert!(fitted, "it was counted before");
        }
        let _lost = self.sockets[node].send_to(self.bundle.as_bytes(), to);
    }
}
