//! A relay without features: the cost of a plain loop (the floor), and the lowest possible cost (the limit).
//!
//! It makes the same system calls as the gateway's workers, so that a comparison shows the rest.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use clap::ValueEnum;
use evenkeel_dataplane::mmsg::{BATCH, Family, ReceiveBatch, SendBatch};
use evenkeel_media::trunk::{self, Bundle, Tag};
use evenkeel_media::{demux, rtp};
use foldhash::fast::RandomState as Fast;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::namespace::RELAY;

/// The limit gathers packets for this time while they keep coming.
const GATHER: Duration = Duration::from_micros(200);
/// Timer slack of the limit's waits, nanoseconds.
const TIMER_SLACK: u64 = 1_000;
const BUNDLE_MAX: usize = 1_400;
/// The socket buffer that the gateway requests.
const SOCKET_BUFFER: usize = 512 << 10;
/// The epoll key of the listener; lower keys are upstream sockets.
const LISTENER: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Manner {
    /// Waits, reads until nothing is left, sends.
    Floor,
    /// Gathers for 200 µs while packets keep coming, and bundles on trunk legs.
    Limit,
}

/// Configuration that the relay reads from standard input.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Orders {
    /// Each session has its own socket to its node, instead of one per node.
    pub(crate) socket_per_session: bool,
    pub(crate) clients: Vec<SocketAddr>,
    /// Session `n` is at node `n` modulo their number.
    pub(crate) nodes: Vec<SocketAddr>,
}

/// A socket to nodes, and its queue.
struct Upstream {
    socket: UdpSocket,
    outbox: SendBatch,
    bundle: Bundle,
    waits: bool,
}

struct Relay {
    bundles: bool,
    socket_per_session: bool,
    listener: UdpSocket,
    to_clients: SendBatch,
    upstreams: Vec<Upstream>,
    clients: Vec<SocketAddr>,
    by_address: HashMap<SocketAddr, u32, Fast>,
    by_tag: HashMap<u64, u32, Fast>,
    by_ssrc: HashMap<u32, u32, Fast>,
    dirty: Vec<usize>,
}

/// Relays until killed; prints its address as a line of JSON.
pub(crate) fn run(manner: Manner) -> Result<(), String> {
    let orders: Orders = serde_json::from_reader(io::stdin().lock())
        .map_err(|error| format!("orders on standard input: {error}"))?;
    Relay::new(manner, &orders).and_then(|relay| relay.run(manner)).map_err(|e| e.to_string())
}

impl Relay {
    fn new(manner: Manner, orders: &Orders) -> io::Result<Relay> {
        let local = SocketAddr::from((RELAY, 0));
        let nodes = orders.nodes.iter();
        let reached: Vec<&SocketAddr> = match orders.socket_per_session {
            true => nodes.cycle().take(orders.clients.len()).collect(),
            false => nodes.collect(),
        };
        let upstream = |to: &SocketAddr| -> io::Result<Upstream> {
            let socket = UdpSocket::bind(local)?;
            socket.connect(to)?;
            Ok(Upstream {
                socket: prepared(socket)?,
                outbox: SendBatch::new(Family::V4),
                bundle: Bundle::new(BUNDLE_MAX),
                waits: false,
            })
        };
        let sessions = || (0..).take(orders.clients.len());
        Ok(Relay {
            bundles: manner == Manner::Limit && !orders.socket_per_session,
            socket_per_session: orders.socket_per_session,
            listener: prepared(UdpSocket::bind(local)?)?,
            to_clients: SendBatch::new(Family::V4),
            upstreams: reached.into_iter().map(upstream).collect::<io::Result<_>>()?,
            clients: orders.clients.clone(),
            by_address: orders.clients.iter().copied().zip(0..).collect(),
            by_tag: sessions().map(|session: u32| (session.into(), session)).collect(),
            by_ssrc: HashMap::default(),
            dirty: Vec::new(),
        })
    }

    fn run(mut self, manner: Manner) -> io::Result<()> {
        if manner == Manner::Limit {
            nix::sys::prctl::set_timerslack(TIMER_SLACK)?;
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&self.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        for (number, upstream) in (0..).zip(&self.upstreams) {
            epoll.add(&upstream.socket, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
        }
        println!("{}", serde_json::json!({"listening": self.listener.local_addr()?}));
        io::stdout().flush()?;
        let mut events = [EpollEvent::empty(); BATCH];
        let mut inbox = ReceiveBatch::default();
        let mut keep_coming = false;
        loop {
            let patience = if keep_coming { EpollTimeout::ZERO } else { EpollTimeout::NONE };
            let ready = match epoll.wait(&mut events, patience) {
                Err(nix::errno::Errno::EINTR) => continue,
                ready => ready?,
            };
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.read_clients(&mut inbox),
                    upstream => self.read_nodes(upstream as usize, &mut inbox),
                }
            }
            self.flush();
            keep_coming = manner == Manner::Limit && ready > 0;
            // With more ready sockets than one batch of events, waiting gathers nothing.
            if keep_coming && ready < BATCH {
                std::thread::sleep(GATHER);
            }
        }
    }

    fn read_clients(&mut self, inbox: &mut ReceiveBatch) {
        while let Ok(count) = inbox.receive(self.listener.as_fd()) {
            for place in 0..count {
                let Some((packet, source)) = inbox.datagram(place) else { continue };
                let Some(&session) = self.by_address.get(&source) else { continue };
                let way = match self.socket_per_session {
                    true => session as usize,
                    false => session as usize % self.upstreams.len(),
                };
                let upstream = &mut self.upstreams[way];
                if !upstream.waits {
                    upstream.waits = true;
                    self.dirty.push(way);
                }
                match self.bundles {
                    true => upstream.bundle(Tag(session.into()), packet),
                    false => {
                        upstream.outbox.push(None, 0, packet);
                    }
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    fn read_nodes(&mut self, way: usize, inbox: &mut ReceiveBatch) {
        let Relay { upstreams, to_clients, clients, by_tag, by_ssrc, .. } = self;
        while let Ok(count) = inbox.receive(upstreams[way].socket.as_fd()) {
            for place in 0..count {
                let Some((datagram, _)) = inbox.datagram(place) else { continue };
                if self.socket_per_session {
                    to_clients.push(Some(clients[way]), 0, datagram);
                } else if datagram.first() == Some(&demux::BUNDLE) {
                    for (tag, packet) in trunk::entries(datagram).flatten() {
                        let Some(&session) = by_tag.get(&tag.0) else { continue };
                        to_clients.push(Some(clients[session as usize]), 0, packet);
                    }
                } else if let Ok(header) = rtp::RtpHeader::parse(datagram) {
                    // The first packet of a stream names its session.
                    let session = *by_ssrc.entry(header.ssrc).or_insert_with(|| named(datagram));
                    let Some(client) = clients.get(session as usize) else { continue };
                    to_clients.push(Some(*client), 0, datagram);
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    fn flush(&mut self) {
        for way in self.dirty.drain(..) {
            let upstream = &mut self.upstreams[way];
            upstream.waits = false;
            upstream.close_bundle();
            upstream.outbox.flush(upstream.socket.as_fd());
        }
        self.to_clients.flush(self.listener.as_fd());
    }
}

impl Upstream {
    fn bundle(&mut self, tag: Tag, packet: &[u8]) {
        if !self.bundle.push(tag, packet) {
            self.close_bundle();
            // No packet of a load is longer.
            let _fits = self.bundle.push(tag, packet);
        }
    }

    fn close_bundle(&mut self) {
        if !self.bundle.is_empty() {
            self.outbox.push(None, 0, self.bundle.as_bytes());
            self.bundle.clear();
        }
    }
}

/// The session in a packet's mark; `u32::MAX` without a mark.
fn named(packet: &[u8]) -> u32 {
    let payload = packet.get(rtp::HEADER_LEN..).unwrap_or_default();
    let session = evenkeel_lab::TestHeader::read(payload).map(|mark| mark.session);
    session.and_then(|session| u32::try_from(session).ok()).unwrap_or(u32::MAX)
}

fn prepared(socket: UdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    // Ignores the system's limit, like the gateway.
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER)?;
    Ok(socket)
}
