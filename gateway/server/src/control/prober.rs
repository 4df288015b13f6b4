//! Probes nodes' media ports, each from a socket of its own, connected, so that the kernel's word names the node.

use std::cell::OnceCell;
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
        let (reading, reader) = (Rc::clone(&socket), way.reader());
        tokio::task::spawn_local(async move {
            let socket = loop {
                if let Some(socket) = reading.get() {
                    break socket;
                }
                tokio::time::sleep(CONNECT_AGAIN).await;
                fill(&reading, node, connect());
            };
            read(socket, node, &reader, &told).await;
        });
        Prober { way, socket }
    }

    /// Asks. A probe that cannot be sent stays unanswered, which says enough; but the kernel may refuse at once.
    pub(crate) fn probe(&self, sequence: u64, clock: Clock) -> Result<(), std::io::ErrorKind> {
        let mut datagram = Vec::with_capacity(128);
        match &self.way {
            Way::Signed(secret) => {
                Question::Probe.write(secret, sequence, clock.unix_us, &mut datagram);
            }
            Way::Stun => stun::Binding::probe(transaction(sequence)).write(&mut datagram),
            Way::Echo => {
                datagram.push(demux::ECHO);
                datagram.extend_from_slice(&sequence.to_be_bytes());
            }
        }
        let Some(socket) = self.socket.get() else {
            return Err(std::io::ErrorKind::NotConnected);
        };
        socket.try_send(&datagram).map(|_| ()).map_err(|error| error.kind())
    }
}

/// Fills the cell where the network leads to the node.
fn fill(cell: &OnceCell<UdpSocket>, node: NodeId, connected: std::io::Result<std::net::UdpSocket>) {
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
    fn reader(&self) -> Reader {
        match self {
            Way::Signed(secret) => Reader::Signed(secret.clone()),
            Way::Stun => Reader::Stun,
            Way::Echo => Reader::Echo,
        }
    }
}

/// What an answer says, by the way it was asked.
enum Reader {
    Signed(Secret),
    Stun,
    Echo,
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
            Reader::Stun => {
                let response = stun::Response::parse(datagram).ok()?;
                Some((u64::from_be_bytes(*response.transaction().0.last_chunk()?), None))
            }
            Reader::Echo => {
                let (&first, sequence) = datagram.split_first()?;
                let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
                (first == demux::ECHO).then_some((sequence, None))
            }
        }
    }
}

fn transaction(sequence: u64) -> stun::Transaction {
    let mut id = *b"keel\0\0\0\0\0\0\0\0";
    id[4..].copy_from_slice(&sequence.to_be_bytes());
    stun::Transaction(id)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use evenkeel_media::trunk::message::Load;
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_probed_once_a_network_leads_to_it() {
        let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = node.local_addr().unwrap();
        let (told, mut probed) = mpsc::channel(8);
        let tries = Rc::new(Cell::new(0));
        let tried = Rc::clone(&tries);
        let connect = move || {
            tried.set(tried.get() + 1);
            match tried.get() {
                ..4 => Err(std::io::ErrorKind::NetworkUnreachable.into()),
                _ => connected(address),
            }
        };
        let tasks = LocalSet::new();
        tasks
            .run_until(async {
                let prober = Prober::start(NodeId(3), Way::Echo, told, connect);
                let clock = Clock::read();
                prober.probe(7, clock).expect_err("it stays unanswered");
                tokio::time::sleep(CONNECT_AGAIN * 4).await;
                prober.probe(8, clock).unwrap();
                let mut buffer = [0; 64];
                let (length, from) = node.recv_from(&mut buffer).await.unwrap();
                node.send_to(&buffer[..length], from).await.unwrap();
                let word = probed.recv().await.unwrap();
                assert!(
                    matches!(word, Probed::Answered { node: NodeId(3), sequence: 8, .. }),
                    "{word:?}"
                );
            })
            .await;
        assert_eq!(tries.get(), 4);
    }

    #[test]
    fn the_answer_to_a_probe_says_whether_the_node_takes_sessions() {
        let secret = Secret::new(b"a secret of some length").unwrap();
        let reader = Reader::Signed(secret.clone());
        let read = |state, permille| {
            let mut answer = Vec::new();
            Answer::Probe(Load { permille, state, sessions: 3 }).write(
                &secret,
                7,
                Clock::read().unix_us,
                &mut answer,
            );
            reader.read(&answer)
        };
        assert_eq!(read(State::Serving, 999), Some((7, Some(true))));
        assert_eq!(read(State::Serving, 1_000), Some((7, Some(false))));
        assert_eq!(read(State::Draining, 0), Some((7, Some(false))));
    }
}
