//! Clients and a node around a relay, on one thread that sends due packets and reads in between.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::NodeSecret;
use nix::sys::socket::{setsockopt, sockopt};

use super::clients::{Clients, Way};
use super::node::Node;
use super::voice::{ReceivedVoice, due};
use crate::namespace::{CLIENTS, NODES};
use crate::row::Direction;

/// Socket buffer for packets that arrive during sends.
const SOCKET_BUFFER: usize = 8 << 20;
/// Concurrent handshakes.
const AT_ONCE: usize = 32;
/// Time limit of all handshakes and of a packet from each client.
const READY_WITHIN: Duration = Duration::from_secs(40);
/// Time after which a client's first packet is sent again.
const FIRST_PACKET_AGAIN: Duration = Duration::from_millis(250);

/// The longest transit time of the last packets.
const DRAINED_WITHIN: Duration = Duration::from_millis(20);

pub(super) struct Load {
    clients: Clients,
    /// `None` if the relay answers itself.
    node: Option<Node>,
    beginning: Instant,
}

pub(super) struct Window {
    pub(super) sent: u64,
    /// Packets that arrived at their final destination.
    pub(super) seen: ReceivedVoice,
    /// Packets that the relay delivered to either end.
    pub(super) delivered: u64,
    pub(super) misdelivered: u64,
    pub(super) seconds: f64,
}

impl Load {
    pub(super) fn new() -> io::Result<Load> {
        let clients = Clients::new(socket(CLIENTS)?)?;
        Ok(Load { clients, node: None, beginning: Instant::now() })
    }

    /// Adds a node for this many sessions, and returns its address.
    pub(super) fn with_node(
        &mut self,
        secret: NodeSecret,
        sessions: usize,
    ) -> io::Result<SocketAddr> {
        let socket = socket(NODES)?;
        let address = socket.local_addr()?;
        self.node = Some(Node::new(socket, secret, sessions)?);
        Ok(address)
    }

    pub(super) fn sessions(&self) -> usize {
        self.clients.count()
    }

    /// Reads packets, answers them, and sends due ones.
    pub(super) fn idle(&mut self) {
        self.clients.read(self.beginning);
        self.clients.tick();
        if let Some(node) = &mut self.node {
            node.read(self.beginning);
        }
    }

    /// Connects all clients and sends one packet of each, so that relay and node know them.
    pub(super) fn connect(&mut self, ways: &[Way]) -> Result<(), String> {
        let until = Instant::now() + READY_WITHIN;
        for some in ways.chunks(AT_ONCE) {
            let wanted = self.clients.connected() + some.len();
            for way in some {
                self.clients.join(way.clone()).map_err(|error| error.to_string())?;
            }
            self.idle_until(until, |load| load.clients.connected() == wanted)
                .ok_or("a handshake takes too long")?;
        }
        let missing = |load: &Load| {
            let seen = load.node.as_ref().map_or(&load.clients.seen, |node| &node.seen);
            seen.missing(ways.len())
        };
        // Datagrams are not sent again by QUIC (RFC 9221, 5.2).
        while Instant::now() < until {
            let numbers = missing(self);
            if numbers.is_empty() {
                return Ok(());
            }
            for number in numbers {
                self.clients.say(number, self.beginning);
                self.idle();
            }
            let round_ends = until.min(Instant::now() + FIRST_PACKET_AGAIN);
            self.idle_until(round_ends, |load| missing(load).is_empty());
        }
        let missing = missing(self).len();
        Err(format!("the first packets of {missing} of {} clients did not arrive", ways.len()))
    }

    fn idle_until(&mut self, until: Instant, done: impl Fn(&Load) -> bool) -> Option<()> {
        while !done(self) {
            if Instant::now() > until {
                return None;
            }
            self.idle();
        }
        Some(())
    }

    /// Sends for this long and calls `others` after each step.
    pub(super) fn run(
        &mut self,
        direction: Direction,
        long: Duration,
        mut others: impl FnMut(),
    ) -> Window {
        let Load { clients, node, .. } = self;
        clients.seen.clear();
        let before = clients.spoken;
        let mut node_before = 0;
        if let Some(node) = node {
            node.seen.clear();
            node.echoes = direction == Direction::Both;
            node_before = node.spoken;
        }
        let began = Instant::now();
        while began.elapsed() < long {
            let sessions = self.clients.count();
            let due = due(sessions, began.elapsed());
            match (direction, &mut self.node) {
                (Direction::ToClient, Some(node)) => node.speak(self.beginning, node_before + due),
                _ => self.clients.speak(self.beginning, before + due),
            }
            self.idle();
            others();
        }
        let seconds = began.elapsed().as_secs_f64();
        // Packets in flight belong to this window.
        let until = Instant::now() + DRAINED_WITHIN;
        while Instant::now() < until {
            self.idle();
            others();
        }
        let Load { clients, node, .. } = self;
        let at_clients = std::mem::take(&mut clients.seen);
        let at_node = node.as_mut().map(|node| std::mem::take(&mut node.seen)).unwrap_or_default();
        Window {
            sent: match direction {
                Direction::ToClient => node.as_ref().map_or(0, |node| node.spoken - node_before),
                Direction::ToNode | Direction::Both => clients.spoken - before,
            },
            delivered: at_clients.came + at_node.came,
            misdelivered: at_clients.misdelivered + at_node.misdelivered,
            seen: if direction == Direction::ToNode { at_node } else { at_clients },
            seconds,
        }
    }
}

fn socket(ip: [u8; 4]) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::from(ip), 0))?;
    socket.set_nonblocking(true)?;
    // The kernel limits the size.
    let _capped = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER);
    let _capped = setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER);
    Ok(socket)
}
