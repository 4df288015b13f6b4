//! Probes nodes' media ports. Each prober has its own connected socket, so that ICMP errors identify the node. An error
//! is believed only if it quotes a probe.

mod pending;
mod probe_event;
mod signed;

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_drivers::socket::{self, Received};
use evenkeel_drivers::{Clock, Fencing, LocalTask};
use evenkeel_media::trunk::message::{NodeLoad, NodeSecret, OrderOutcome, TrunkQuestion};
use evenkeel_media::{demux, stun};
use evenkeel_model::NodeId;
use pending::{ProbeTokens, Token};
pub(crate) use probe_event::{ProbeEvent, ProbeSender, Subscription};
pub(crate) use signed::Mismatch;
use signed::{Answers, SignedProbe, SignedReply, Who};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProbeResult {
    /// The node answered this probe.
    Answered { node: NodeId, sequence: u64, vouched: bool, at: Instant },
    /// The node, or the agent beside it, reported its state.
    Said { node: NodeId, beside: bool, load: NodeLoad, at: Instant },
    /// The answer to the order with this nonce.
    Obeyed { node: NodeId, nonce: u64, outcome: OrderOutcome },
    /// Either end refused a signed message.
    Mismatch { node: NodeId, mismatch: Mismatch },
    /// ICMP reports no listener, and quotes this probe.
    Refused { node: NodeId, sequence: u64 },
    /// The node refused a message because its group has this newer epoch.
    Fenced { node: NodeId, epoch: u64 },
    /// A packet crossed between the canary sessions.
    CanaryPassed { node: NodeId, sequence: u64 },
    /// Both canary sessions are open.
    CanaryOpen { node: NodeId, at: Instant },
}

pub enum ProbeMethod {
    Signed(NodeSecret),
    /// A signed question to the agent beside the node. Its answer is no evidence that the node is up.
    Beside(NodeSecret),
    /// A STUN binding request (RFC 8489).
    Stun,
    /// A datagram that the node returns unchanged.
    Echo,
    /// A ping of rtpengine's NG protocol.
    Ping,
}

pub(crate) struct Prober {
    _reading: LocalTask,
    _listens: Subscription,
    questions: Rc<ProbesInFlight>,
    /// Set once a route to the node exists.
    socket: Rc<OnceCell<UdpSocket>>,
}

enum ProbesInFlight {
    Signed(Box<SignedProbe>),
    Stun(ProbeTokens),
    Echo(ProbeTokens),
    Ping(ProbeTokens),
}

impl Prober {
    /// Starts a task that connects as soon as a route to the node exists and reads answers. Must be called on control's
    /// runtime. `connect` returns a socket like [`socket::connected`]; `first` is random.
    pub(crate) fn start(
        node: NodeId,
        (way, fencing): (ProbeMethod, Arc<Fencing>),
        first: u64,
        told: mpsc::Sender<ProbeEvent>,
        connect: impl Fn() -> std::io::Result<std::net::UdpSocket> + 'static,
    ) -> Prober {
        let socket = Rc::new(OnceCell::new());
        socket::fill(&socket, node, connect());
        let (questions, subscription) =
            (Rc::new(way.questions(fencing, first)), Subscription::default());
        let tells = subscription.sender(told);
        let (asked, connected) = (Rc::clone(&questions), Rc::clone(&socket));
        let reading = LocalTask::spawn(async move {
            let socket = socket::connect_in_time(&connected, node, connect).await;
            read(socket, node, &asked, &tells).await;
        });
        Prober { _reading: reading, _listens: subscription, questions, socket }
    }

    /// A probe that cannot be sent counts as unanswered.
    pub(crate) fn probe(&self, sequence: u64, token: Token, clock: Clock) {
        let mut datagram = Vec::new();
        match &*self.questions {
            ProbesInFlight::Signed(signed) => datagram = signed.probe(sequence, clock),
            ProbesInFlight::Stun(asked) => {
                asked.ask(token, sequence);
                stun::BindingBuilder::probe(stun::Transaction(token)).write(&mut datagram);
            }
            ProbesInFlight::Echo(asked) => {
                asked.ask(token, sequence);
                datagram.push(demux::ECHO);
                datagram.extend_from_slice(&token);
            }
            ProbesInFlight::Ping(asked) => {
                let cookie = cookie(token);
                asked.ask(cookie, sequence);
                datagram.extend_from_slice(&cookie);
                datagram.extend_from_slice(PING);
            }
        }
        self.send(&datagram);
    }

    /// Returns true if the node speaks signed messages and so takes orders.
    pub(crate) fn takes_orders(&self) -> bool {
        matches!(*self.questions, ProbesInFlight::Signed(_))
    }

    /// Sends a signed order. If it is lost no answer comes, and the caller repeats it.
    pub(crate) fn order(&self, order: &TrunkQuestion, nonce: u64, clock: Clock) {
        if let ProbesInFlight::Signed(signed) = &*self.questions {
            self.send(&signed.write(order, nonce, clock));
        }
    }

    fn send(&self, datagram: &[u8]) {
        if let Some(socket) = self.socket.get() {
            let _lost_at_worst = socket::send(socket, datagram);
        }
    }
}

/// Sends answers to control until control has ended.
async fn read(socket: &UdpSocket, node: NodeId, questions: &ProbesInFlight, told: &ProbeSender) {
    let mut buffer = [0; 512];
    loop {
        let words: Vec<ProbeResult> = match socket::receive(socket, &mut buffer).await {
            Ok(Received::Datagram(length, at)) => {
                let Some(heard) = questions.read(&buffer[..length]) else { continue };
                if let Some(receipt) = &heard.receipt {
                    // If the receipt is lost, the node repeats its notice.
                    let _ = socket::send(socket, receipt);
                }
                words(&heard, node, questions.beside(), at).into_iter().flatten().collect()
            }
            Ok(Received::Refused(quotes)) => {
                let sequences = quotes.iter().filter_map(|quoted| questions.refused(quoted));
                sequences.map(|sequence| ProbeResult::Refused { node, sequence }).collect()
            }
            Err(_) => continue,
        };
        for word in words {
            if told.send(word).await.is_err() {
                return;
            }
        }
    }
}

/// The events of a message. The node's state comes first, because it may report the death of the node.
fn words(heard: &SignedReply, node: NodeId, beside: bool, at: Instant) -> [Option<ProbeResult>; 5] {
    [
        heard.load.map(|load| ProbeResult::Said { node, beside, load, at }),
        heard.answers.map(|Answers { sequence, vouched }| ProbeResult::Answered {
            node,
            sequence,
            vouched,
            at,
        }),
        heard.obeyed.map(|(nonce, outcome)| ProbeResult::Obeyed { node, nonce, outcome }),
        heard.mismatch.map(|mismatch| ProbeResult::Mismatch { node, mismatch }),
        heard.fenced.map(|epoch| ProbeResult::Fenced { node, epoch }),
    ]
}

impl ProbeMethod {
    fn questions(self, fencing: Arc<Fencing>, first: u64) -> ProbesInFlight {
        match self {
            ProbeMethod::Signed(secret) => ProbesInFlight::Signed(Box::new(SignedProbe::new(
                secret,
                Who::Node,
                fencing,
                first,
            ))),
            ProbeMethod::Beside(secret) => ProbesInFlight::Signed(Box::new(SignedProbe::new(
                secret,
                Who::Beside,
                fencing,
                first,
            ))),
            ProbeMethod::Stun => ProbesInFlight::Stun(ProbeTokens::default()),
            ProbeMethod::Echo => ProbesInFlight::Echo(ProbeTokens::default()),
            ProbeMethod::Ping => ProbesInFlight::Ping(ProbeTokens::default()),
        }
    }
}

impl ProbesInFlight {
    fn beside(&self) -> bool {
        matches!(self, ProbesInFlight::Signed(signed) if signed.who() == Who::Beside)
    }

    /// The sequence of the probe that this datagram begins with. A closed port of the agent is no evidence about the
    /// node.
    fn refused(&self, quoted: &[u8]) -> Option<u64> {
        match self {
            ProbesInFlight::Signed(signed) => signed.refused(quoted, Clock::read()),
            ProbesInFlight::Stun(asked) => {
                asked.sequence(&stun::BindingRequest::parse(quoted).ok()?.transaction().0)
            }
            ProbesInFlight::Echo(asked) => match quoted.split_first()? {
                (&demux::ECHO, token) => asked.sequence(token),
                _ => None,
            },
            ProbesInFlight::Ping(asked) => match quoted.split_at_checked(size_of::<Token>())? {
                (cookie, PING) => asked.sequence(cookie),
                _ => None,
            },
        }
    }

    /// The content of a datagram, if it answers a probe.
    fn read(&self, datagram: &[u8]) -> Option<SignedReply> {
        let sequence = match self {
            ProbesInFlight::Signed(signed) => return signed.read(datagram, Clock::read()),
            ProbesInFlight::Stun(asked) => {
                let response = stun::Response::parse(datagram).ok()?;
                asked.answered(&response.transaction().0)?
            }
            ProbesInFlight::Echo(asked) => match datagram.split_first()? {
                (&demux::ECHO, token) => asked.answered(token)?,
                _ => return None,
            },
            ProbesInFlight::Ping(asked) => match datagram.split_at_checked(size_of::<Token>())? {
                (cookie, b" d6:result4:ponge") => asked.answered(cookie)?,
                _ => return None,
            },
        };
        let answers = Some(Answers { sequence, vouched: true });
        Some(SignedReply { answers, ..SignedReply::default() })
    }
}

/// A ping after its cookie.
const PING: &[u8] = b" d7:command4:pinge";

/// The token without spaces, which end a cookie: 60 random bits.
fn cookie(token: Token) -> Token {
    token.map(|byte| b'@' | (byte & 0x1f))
}

#[cfg(test)]
mod tests;
