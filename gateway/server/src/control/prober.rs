//! Probes nodes' media ports, each from a socket of its own, connected, so that the kernel's word names the node.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use evenkeel_core::NodeId;
use evenkeel_media::demux;
use evenkeel_media::stun;
use evenkeel_media::trunk::message::{Answer, Question, Secret, State};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::driver::Clock;

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
    socket: Rc<UdpSocket>,
}

impl Prober {
    /// A socket, and a task that reads what comes back; to be called on control's own runtime.
    ///
    /// # Errors
    /// What the socket says.
    pub(crate) fn start(
        node: NodeId,
        address: SocketAddr,
        way: Way,
        told: mpsc::Sender<Probed>,
    ) -> std::io::Result<Prober> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        let reading = Rc::clone(&socket);
        let reader = match &way {
            Way::Signed(secret) => Reader::Signed(secret.clone()),
            Way::Stun => Reader::Stun,
            Way::Echo => Reader::Echo,
        };
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 512];
            loop {
                let word = match reading.recv(&mut buffer).await {
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
        });
        Ok(Prober { way, socket })
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
        self.socket.try_send(&datagram).map(|_| ()).map_err(|error| error.kind())
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
    use evenkeel_media::trunk::message::Load;

    use super::*;

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
