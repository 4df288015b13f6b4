//! One relay's clients and nodes.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use evenkeel_media::srtp::SrtpKey;
use evenkeel_media::trunk::message::NodeSecret;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::books::Tally;
use super::clients::Clients;
use super::nodes::Nodes;
use super::register::Wire;
use evenkeel_lab::clock;

/// Maximum of sinks per epoll call.
const EVENTS: usize = 64;
/// The length of a first packet.
const HELLO: usize = 60;
/// Repetition interval of first packets.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Interval between the first packets of two clients.
const BETWEEN_HELLOS: Duration = Duration::from_micros(50);
/// The longest sleep of nodes that answer in the background.
const NAP_MS: u8 = 5;

/// The setup around a relay.
pub(crate) struct Plan {
    /// Sessions, each a client of its own.
    pub(crate) sessions: usize,
    /// The address of clients; each has its own port.
    pub(crate) clients_at: SocketAddrV4,
    pub(crate) nodes_at: Vec<SocketAddrV4>,
    pub(crate) wire: Wire,
    /// The keys of each node; empty if no gateway asks the nodes.
    pub(crate) secrets: Vec<NodeSecret>,
}

/// Clients and nodes around one relay.
pub(crate) struct Rig {
    pub(super) clients: Clients,
    pub(super) nodes: Nodes,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    node_count: usize,
    /// The number of the window that packets belong to.
    pub(super) window: u8,
    /// Packets received, of any window.
    pub(super) received: u64,
    pub(super) tally: Tally,
}

impl Rig {
    pub(crate) fn bind(plan: Plan) -> io::Result<Rig> {
        let Plan { sessions, clients_at, nodes_at, wire, secrets } = plan;
        let nodes = Nodes::bind(&nodes_at, sessions, wire, secrets)?;
        let clients = Clients::bind(clients_at, sessions)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (number, socket) in (0..).zip(nodes.sockets().iter().chain(clients.sockets())) {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
        }
        Ok(Rig {
            clients,
            nodes,
            epoll,
            events: vec![EpollEvent::empty(); EVENTS],
            node_count: nodes_at.len(),
            window: 0,
            received: 0,
            tally: Tally::default(),
        })
    }

    pub(crate) fn sessions(&self) -> usize {
        self.clients.sockets().len()
    }

    pub(crate) fn clients_at(&self) -> io::Result<Vec<SocketAddr>> {
        self.clients.sockets().iter().map(std::net::UdpSocket::local_addr).collect()
    }

    pub(crate) fn nodes_at(&self) -> io::Result<Vec<SocketAddr>> {
        self.nodes.sockets().iter().map(std::net::UdpSocket::local_addr).collect()
    }

    /// Sets the destination of a session's client.
    pub(crate) fn connect(&self, session: u32, to: SocketAddr) -> io::Result<()> {
        self.clients.connect(session, to)
    }

    /// Has the client of a session send and expect SRTP under these keys.
    pub(crate) fn encrypt(
        &mut self,
        session: u32,
        client: &SrtpKey,
        relay: &SrtpKey,
    ) -> Result<(), String> {
        self.clients.encrypt(session, client, relay)
    }

    /// Maps a gateway's session to one of the load, so that packets with its tags are checked.
    pub(crate) fn know(&mut self, number: u64, session: u32) {
        self.nodes.register.know(number, session);
    }

    /// Runs `work` in the background while the nodes answer.
    pub(crate) fn serving<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let background = scope.spawn(work);
            while !background.is_finished() {
                self.look(EpollTimeout::from(NAP_MS))?;
            }
            background.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
        })
    }

    /// Sends from every client until one packet of each has arrived at a node, and returns the number of sessions per
    /// node. Sessions without a packet in time are an error.
    pub(crate) fn greet(&mut self, within: Duration) -> io::Result<Vec<usize>> {
        let until = Instant::now() + within;
        loop {
            let unmet = self.nodes.unmet();
            if unmet.is_empty() {
                return Ok(self.nodes.shares());
            }
            if Instant::now() > until {
                let message = format!("packets of {} sessions reach no node", unmet.len());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            self.say_hello(unmet)?;
            self.settle(AGAIN_AFTER)?;
        }
    }

    /// Sends a packet from every client.
    pub(super) fn greet_all(&mut self) -> io::Result<()> {
        self.say_hello((0..).take(self.sessions()))
    }

    fn say_hello(&mut self, sessions: impl IntoIterator<Item = u32>) -> io::Result<()> {
        for session in sessions {
            self.clients.send(session, HELLO, self.window, clock::now_ns());
            // Paced, so that no relay has to accept a thousand new clients at once.
            self.settle(BETWEEN_HELLOS)?;
        }
        Ok(())
    }

    /// Reads the sinks for this long.
    pub(crate) fn settle(&mut self, long: Duration) -> io::Result<()> {
        let until = Instant::now() + long;
        loop {
            self.look(EpollTimeout::ZERO)?;
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Reads all ready sinks once, and returns the number of packets.
    pub(super) fn look(&mut self, patience: EpollTimeout) -> io::Result<u64> {
        let ready = match self.epoll.wait(&mut self.events, patience) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let mut packets = 0;
        for place in 0..ready {
            let number = self.events[place].data() as usize;
            packets += match number.checked_sub(self.node_count) {
                None => self.nodes.receive(number, self.window, &mut self.tally)?,
                Some(client) => {
                    self.clients.receive(client as u32, self.window, &mut self.tally)?
                }
            };
        }
        self.received += packets;
        Ok(packets)
    }

    /// Lets the nodes answer probes while other relays are measured.
    pub(crate) fn idle(&mut self) -> io::Result<()> {
        self.look(EpollTimeout::ZERO).map(drop)
    }
}
