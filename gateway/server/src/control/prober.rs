//! Probes nodes' media ports, each from a socket of its own, connected, so that the kernel's word names the node.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use evenkeel_core::NodeId;
use evenkeel_media::demux;
use evenkeel_media::stun;
use evenkeel_media::trunk::message::{Answer, Question, Secret};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::driver::Clock;

/// What a probe brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probed {
    /// The node answered this one, then.
    Answered { node: NodeId, sequence: u64, at: Instant },
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
        let asked = Rc::<Asked>::default();
        let reader = match &way {
            Way::Signed(secret) => Reader::Signed(secret.clone()),
            Way::Stun => Reader::Stun(Rc::clone(&asked)),
            Way::Echo => Reader::Echo(Rc::clone(&asked)),
        };
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 512];
            loop {
                let word = match reading.recv(&mut buffer).await {
                    Ok(length) => match reader.sequence(&buffer[..length]) {
                        Some(sequence) => Probed::Answered { node, sequence, at: Instant::now() },
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
        Ok(Prober { way, socket, asked })
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
        self.socket.try_send(&datagram).map(|_| ()).map_err(|error| error.kind())
    }
}

/// What an answer says, by the way it was asked.
enum Reader {
    Signed(Secret),
    Stun(Rc<Asked>),
    Echo(Rc<Asked>),
}

impl Reader {
    /// The sequence of the probe that this answers.
    fn sequence(&self, datagram: &[u8]) -> Option<u64> {
        match self {
            Reader::Signed(secret) => {
                let verified = Answer::read(datagram, secret, Clock::read().unix_us).ok()?;
                matches!(verified.message, Answer::Probe(_)).then_some(verified.nonce)
            }
            Reader::Stun(asked) => {
                asked.answered(&stun::Response::parse(datagram).ok()?.transaction().0)
            }
            Reader::Echo(asked) => match datagram.split_first()? {
                (&demux::ECHO, token) => asked.answered(token),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_repeats_the_question_answers_it_and_once() {
        let asked = Rc::<Asked>::default();
        let reader = Reader::Echo(Rc::clone(&asked));
        let echo = |token: Token| [&[demux::ECHO][..], &token].concat();
        asked.ask([1; 12], 41);
        asked.ask([2; 12], 42);
        assert_eq!(reader.sequence(&echo([3; 12])), None, "a guess");
        assert_eq!(reader.sequence(&echo([1; 12])[..12]), None, "a part");
        assert_eq!(reader.sequence(&echo([2; 12])), Some(42));
        assert_eq!(reader.sequence(&echo([2; 12])), None, "a copy");
        assert_eq!(reader.sequence(&echo([1; 12])), Some(41), "late, and out of turn");
    }

    #[test]
    fn a_binding_response_answers_the_transaction_it_repeats() {
        let asked = Rc::<Asked>::default();
        let reader = Reader::Stun(Rc::clone(&asked));
        asked.ask([7; 12], 42);
        let answer = |transaction| {
            let mut answer = Vec::new();
            let mapped = ([192, 0, 2, 1], 4_000).into();
            stun::write_success(stun::Transaction(transaction), mapped, None, &mut answer);
            answer
        };
        assert_eq!(reader.sequence(&answer([8; 12])), None);
        assert_eq!(reader.sequence(&answer([7; 12])), Some(42));
    }

    #[test]
    fn questions_that_nobody_answers_are_forgotten_in_turn() {
        let asked = Asked::default();
        let token = |number: u64| -> Token {
            let [.., a, b] = number.to_be_bytes();
            [a, b].repeat(6).try_into().unwrap()
        };
        (0..=ASKED_MAX as u64).for_each(|number| asked.ask(token(number), number));
        assert_eq!(asked.answered(&token(0)), None);
        assert_eq!(asked.answered(&token(1)), Some(1));
    }
}
