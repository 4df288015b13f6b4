//! Probes nodes' media ports, each from a socket of its own, connected, so that the kernel's word names the node.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use evenkeel_core::NodeId;
use evenkeel_media::demux;
use evenkeel_media::stun;
use evenkeel_media::trunk::message::{Answer, Question, Secret, State};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::driver::Clock;

/// How often a node that no network leads to is tried again.
const CONNECT_AGAIN: Duration = Duration::from_millis(500);

/// What a probe brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probed {
    /// The node answered this one, then; and it takes new sessions, or does not, if it said so.
    Answered { node: NodeId, sequence: u64, willing: Option<bool>, at: Instant },
    /// Nobody listens there.
    Refused { node: NodeId },
    /// What went in at one canary session came out at the other.
    CanaryPassed { node: NodeId, sequence: u64 },
    /// The node says that both canary sessions are open.
    CanaryOpen { node: NodeId, at: Instant },
}

/// How a node is asked whether it lives.
pub(crate) enum Way {
    /// A signed question.
    Signed(Secret),
    /// A STUN binding request (RFC 8489).
    Stun,
    /// A datagram that comes back as it went.
    Echo,
}

/// One node's probe.
pub(crate) struct Prober {
    way: Way,
    /// There once the network leads to the node.
    socket: Rc<OnceCell<UdpSocket>>,
    asked: Rc<Asked>,
}

/// What an answer repeats: random, so that only who saw the question can give it (RFC 8489, 5).
type Token = [u8; 12];

/// Questions whose answers may still come; the oldest gives way. At one every 10 ms, two seconds and a half.
const ASKED_MAX: usize = 256;

/// The tokens of the last questions, and the probes that they are of.
#[derive(Default)]
struct Asked(RefCell<VecDeque<(Token, u64)>>);

impl Asked {
    fn ask(&self, token: Token, sequence: u64) {
        let mut asked = self.0.borrow_mut();
        if asked.len() == ASKED_MAX {
            asked.pop_front();
        }
        asked.push_back((token, sequence));
    }

    /// The sequence of the probe that this token was of. It counts once.
    fn answered(&self, token: &[u8]) -> Option<u64> {
        let mut asked = self.0.borrow_mut();
        let place = asked.iter().position(|(known, _)| known == token)?;
        asked.remove(place).map(|(_, sequence)| sequence)
    }
}

impl Prober {
    /// A task that connects as soon as the network leads to the node, and reads what comes back; to be called on
    /// control's own runtime. `connect` gives a socket like [`connected`].
    pub(crate) fn start(
        node: NodeId,
        way: Way,
        told: mpsc::Sender<Probed>,
        connect: impl Fn() -> std::io::Result<std::net::UdpSocket> + 'static,
    ) -> Prober {
        let socket = Rc::new(OnceCell::new());
        fill(&socket, node, connect());
        let asked = Rc::<Asked>::default();
        let (reading, reader) = (Rc::clone(&socket), way.reader(&asked));
        tokio::task::spawn_local(async move {
            let socket = reach(&reading, node, &connect).await;
            read(socket, node, &reader, &told).await;
        });
        Prober { way, socket, asked }
    }

    /// Asks. A probe that cannot be sent stays unanswered, which says enough; but the kernel may refuse at once.
    pub(crate) fn probe(
        &self,
        sequence: u64,
        token: Token,
        clock: Clock,
    ) -> Result<(), std::io::ErrorKind> {
        let mut datagram = Vec::with_capacity(128);
        match &self.way {
            Way::Signed(secret) => {
                Question::Probe.write(secret, sequence, clock.unix_us, &mut datagram);
            }
            Way::Stun => {
                self.asked.ask(token, sequence);
                stun::Binding::probe(stun::Transaction(token)).write(&mut datagram);
            }
            Way::Echo => {
                self.asked.ask(token, sequence);
                datagram.push(demux::ECHO);
                datagram.extend_from_slice(&token);
            }
        }
        let Some(socket) = self.socket.get() else {
            return Err(std::io::ErrorKind::NotConnected);
        };
        socket.try_send(&datagram).map(|_| ()).map_err(|error| error.kind())
    }
}

/// The socket in the cell, as soon as the network leads to the node.
pub(super) async fn reach<'a>(
    cell: &'a OnceCell<UdpSocket>,
    node: NodeId,
    connect: &impl Fn() -> std::io::Result<std::net::UdpSocket>,
) -> &'a UdpSocket {
    loop {
        if let Some(socket) = cell.get() {
            return socket;
        }
        tokio::time::sleep(CONNECT_AGAIN).await;
        fill(cell, node, connect());
    }
}

/// Fills the cell where the network leads to the node.
pub(super) fn fill(
    cell: &OnceCell<UdpSocket>,
    node: NodeId,
    connected: std::io::Result<std::net::UdpSocket>,
) {
    match connected.and_then(UdpSocket::from_std) {
        Ok(socket) => _ = cell.set(socket),
        Err(error) => tracing::debug!(?node, %error, "no network leads to the node"),
    }
}

/// A socket that knows no other peer.
///
/// # Errors
/// What the system says.
pub(crate) fn connected(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Tells what comes back, until nobody listens.
async fn read(socket: &UdpSocket, node: NodeId, reader: &Reader, told: &mpsc::Sender<Probed>) {
    let mut buffer = [0; 512];
    loop {
        let word = match socket.recv(&mut buffer).await {
            Ok(length) => match reader.read(&buffer[..length]) {
                Some((sequence, willing)) => {
                    Probed::Answered { node, sequence, willing, at: Instant::now() }
                }
                None => continue,
            },
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Probed::Refused { node }
            }
            Err(_) => continue,
        };
        if told.send(word).await.is_err() {
            return;
        }
    }
}

impl Way {
    fn reader(&self, asked: &Rc<Asked>) -> Reader {
        match self {
            Way::Signed(secret) => Reader::Signed(secret.clone()),
            Way::Stun => Reader::Stun(Rc::clone(asked)),
            Way::Echo => Reader::Echo(Rc::clone(asked)),
        }
    }
}

/// What an answer says, by the way it was asked.
enum Reader {
    Signed(Secret),
    Stun(Rc<Asked>),
    Echo(Rc<Asked>),
}

impl Reader {
    /// The sequence of the probe that this answers, and whether the node takes new sessions.
    fn read(&self, datagram: &[u8]) -> Option<(u64, Option<bool>)> {
        match self {
            Reader::Signed(secret) => {
                let verified = Answer::read(datagram, secret, Clock::read().unix_us).ok()?;
                let Answer::Probe(load) = verified.message else {
                    return None;
                };
                let willing = load.state == State::Serving && load.permille < 1_000;
                Some((verified.nonce, Some(willing)))
            }
            Reader::Stun(asked) => {
                let response = stun::Response::parse(datagram).ok()?;
                Some((asked.answered(&response.transaction().0)?, None))
            }
            Reader::Echo(asked) => match datagram.split_first()? {
                (&demux::ECHO, token) => Some((asked.answered(token)?, None)),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
