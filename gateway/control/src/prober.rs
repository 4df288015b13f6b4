//! Probes nodes' media ports. Each prober has its own connected socket, so that ICMP errors identify the node. An error
//! is believed only if it quotes a probe.
//!
//! Control drops the events of a prober that is no longer in use, because the next prober may probe another agent, or
//! another node in the same slot.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_drivers::socket::{self, Received};
use evenkeel_drivers::{Clock, Fencing, LocalTask};
use evenkeel_media::trunk::message::{
    ClockRefusal, MessageError, NodeLoad, NodeSecret, OrderOutcome, ProcessReport, ServingState,
    TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::{demux, stun};
use evenkeel_model::NodeId;
use evenkeel_nodes::NodeEvidence;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProbeResult {
    Evidence {
        node: NodeId,
        evidence: NodeEvidence,
        at: Instant,
    },
    /// The node, or the agent beside it, reported its state.
    State {
        node: NodeId,
        beside: bool,
        load: NodeLoad,
        at: Instant,
    },
    /// The answer to the order with this nonce.
    Order {
        node: NodeId,
        nonce: u64,
        outcome: OrderOutcome,
    },
    /// The answer to the question with this nonce.
    Process {
        node: NodeId,
        nonce: u64,
        report: ProcessReport,
        at: Instant,
    },
    /// Either end refused a signed message.
    Mismatch {
        node: NodeId,
        mismatch: Mismatch,
    },
    /// The node refused a message because its group has this newer epoch.
    Fenced {
        node: NodeId,
        epoch: u64,
    },
}

pub enum ProbeMethod {
    Signed(NodeSecret, ProbedEnd),
    /// A STUN binding request (RFC 8489).
    Stun,
    /// A datagram that the node returns unchanged.
    Echo,
    /// A ping of rtpengine's NG protocol.
    Ping,
}

/// Datagrams that [`Prober::read_waiting`] reads at most, so that a flood does not hold control. The detector remembers
/// as many probes.
const WAITING_MAX: usize = 64;

/// The longest message of a node.
const MESSAGE_MAX: usize = 512;

pub(crate) struct Prober {
    _reading: LocalTask,
    _listens: Subscription,
    node: NodeId,
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
        method: ProbeMethod,
        fencing: Arc<Fencing>,
        first: u64,
        events: mpsc::Sender<ProbeEvent>,
        connect: impl Fn() -> std::io::Result<std::net::UdpSocket> + 'static,
    ) -> Prober {
        let socket = Rc::new(OnceCell::new());
        socket::fill(&socket, node, connect());
        let (questions, subscription) =
            (Rc::new(method.questions(fencing, first)), Subscription::default());
        let sender = subscription.sender(events);
        let (asked, connected) = (Rc::clone(&questions), Rc::clone(&socket));
        let reading = LocalTask::spawn(async move {
            let socket = socket::connect_in_time(&connected, node, connect).await;
            read(socket, node, &asked, &sender).await;
        });
        Prober { _reading: reading, _listens: subscription, node, questions, socket }
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

    /// Reads the answers that wait in the socket. The reading task has not run since they came if control was late.
    pub(crate) fn read_waiting(&self) -> Vec<ProbeResult> {
        let mut results = Vec::new();
        let Some(socket) = self.socket.get() else { return results };
        let mut buffer = [0; MESSAGE_MAX];
        for _ in 0..WAITING_MAX {
            let Ok(received) = socket::receive_now(socket, &mut buffer) else { break };
            results.extend(self.questions.results(received, &buffer, socket, self.node));
        }
        results
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
async fn read(socket: &UdpSocket, node: NodeId, questions: &ProbesInFlight, events: &ProbeSender) {
    let mut buffer = [0; MESSAGE_MAX];
    loop {
        let Ok(received) = socket::receive(socket, &mut buffer).await else { continue };
        for result in questions.results(received, &buffer, socket, node) {
            if events.send(result).await.is_err() {
                return;
            }
        }
    }
}

/// The events of a message. The node's state comes first, because it may report the death of the node.
fn results(
    heard: &SignedReply,
    node: NodeId,
    beside: bool,
    at: Instant,
) -> [Option<ProbeResult>; 6] {
    [
        heard.load.map(|load| ProbeResult::State { node, beside, load, at }),
        heard.answers.map(|evidence| ProbeResult::Evidence { node, evidence, at }),
        heard.order.map(|(nonce, outcome)| ProbeResult::Order { node, nonce, outcome }),
        heard.process.map(|(nonce, report)| ProbeResult::Process { node, nonce, report, at }),
        heard.mismatch.map(|mismatch| ProbeResult::Mismatch { node, mismatch }),
        heard.fenced.map(|epoch| ProbeResult::Fenced { node, epoch }),
    ]
}

impl ProbeMethod {
    fn questions(self, fencing: Arc<Fencing>, first: u64) -> ProbesInFlight {
        match self {
            ProbeMethod::Signed(secret, end) => {
                ProbesInFlight::Signed(Box::new(SignedProbe::new(secret, end, fencing, first)))
            }
            ProbeMethod::Stun => ProbesInFlight::Stun(ProbeTokens::default()),
            ProbeMethod::Echo => ProbesInFlight::Echo(ProbeTokens::default()),
            ProbeMethod::Ping => ProbesInFlight::Ping(ProbeTokens::default()),
        }
    }
}

impl ProbesInFlight {
    fn beside(&self) -> bool {
        matches!(self, ProbesInFlight::Signed(signed) if signed.end == ProbedEnd::Beside)
    }

    /// The events of what the socket returned. A receipt is sent back.
    fn results(
        &self,
        received: Received,
        buffer: &[u8],
        socket: &UdpSocket,
        node: NodeId,
    ) -> Vec<ProbeResult> {
        match received {
            Received::Datagram(length, at) => {
                let Some(heard) = self.read(&buffer[..length]) else { return Vec::new() };
                if let Some(receipt) = &heard.receipt {
                    // If the receipt is lost, the node repeats its notice.
                    let _ = socket::send(socket, receipt);
                }
                results(&heard, node, self.beside(), at).into_iter().flatten().collect()
            }
            Received::Refused(quotes) => {
                let at = Instant::now();
                let sequences = quotes.iter().filter_map(|quoted| self.refused(quoted));
                let refused = sequences.map(NodeEvidence::ProbeRefused);
                refused.map(|evidence| ProbeResult::Evidence { node, evidence, at }).collect()
            }
        }
    }

    /// The sequence of the probe that this datagram begins with. A closed port of the agent is no evidence about the
    /// node.
    fn refused(&self, quoted: &[u8]) -> Option<u64> {
        match self {
            ProbesInFlight::Signed(signed) => signed.refused(quoted, Clock::read()),
            ProbesInFlight::Stun(asked) => {
                asked.sequence(&stun::BindingRequest::parse(quoted).ok()?.message.transaction().0)
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
                asked.answered(&response.message.transaction().0)?
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
        let answers = Some(NodeEvidence::ProbeAnswered(sequence));
        Some(SignedReply { answers, ..SignedReply::default() })
    }
}

/// A ping after its cookie.
const PING: &[u8] = b" d7:command4:pinge";

/// The token without spaces, which end a cookie: 60 random bits.
fn cookie(token: Token) -> Token {
    token.map(|byte| b'@' | (byte & 0x1f))
}

/// Held by a prober while it is in use.
#[derive(Default, Debug)]
pub(crate) struct Subscription(Rc<()>);

#[derive(Debug)]
pub(crate) struct ProbeEvent {
    by: Weak<()>,
    probed: ProbeResult,
}

#[derive(Debug)]
pub(crate) struct ProbeSender {
    by: Weak<()>,
    to: mpsc::Sender<ProbeEvent>,
}

impl Subscription {
    pub(crate) fn sender(&self, to: mpsc::Sender<ProbeEvent>) -> ProbeSender {
        ProbeSender { by: Rc::downgrade(&self.0), to }
    }
}

impl ProbeSender {
    pub(crate) async fn send(&self, probed: ProbeResult) -> Result<(), SendError<ProbeEvent>> {
        self.to.send(ProbeEvent { by: self.by.clone(), probed }).await
    }
}

impl ProbeEvent {
    pub(crate) fn if_current(self) -> Option<ProbeResult> {
        (self.by.strong_count() > 0).then_some(self.probed)
    }
}

/// Maximum remembered probes: 10 s of one probe every 10 ms. For the same time a node sends notices to a prober.
const NONCES_MAX: usize = 1_024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbedEnd {
    /// The answer is evidence that the node is up.
    Node,
    /// The agent beside the node. The answer is no evidence that the node is up.
    Beside,
}

struct SignedProbe {
    secret: NodeSecret,
    end: ProbedEnd,
    fencing: Arc<Fencing>,
    /// The first nonce; sequences count from here. Random, so that no answer to another sender matches.
    first: u64,
    /// Of the last probes, answered or not: a notice repeats the nonce of an answered one.
    sent_nonces: RefCell<VecDeque<u64>>,
    /// Signing time of the newest state report. Older reports are ignored.
    newest_us: Cell<u64>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct SignedReply {
    answers: Option<NodeEvidence>,
    load: Option<NodeLoad>,
    /// Nonce and outcome of an answered order.
    order: Option<(u64, OrderOutcome)>,
    /// Nonce and content of a report on the process.
    process: Option<(u64, ProcessReport)>,
    /// The receipt of a notice, to be sent back.
    receipt: Option<Vec<u8>>,
    /// The two ends use different secrets, or their clocks differ by more than 5 s.
    mismatch: Option<Mismatch>,
    /// The newer epoch because of which the node refused a question.
    fenced: Option<u64>,
}

/// Why two ends refuse each other's datagrams. It is used only in logs and a metric, because a [`ClockRefusal`] is not
/// signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mismatch {
    Clock,
    Secret,
    Encryption,
}

impl Mismatch {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mismatch::Clock => "clock",
            Mismatch::Secret => "secret",
            Mismatch::Encryption => "encryption",
        }
    }
}

impl SignedProbe {
    fn new(secret: NodeSecret, end: ProbedEnd, fencing: Arc<Fencing>, first: u64) -> SignedProbe {
        let (sent_nonces, newest_us) = (RefCell::default(), Cell::default());
        SignedProbe { secret, end, fencing, first, sent_nonces, newest_us }
    }

    fn probe(&self, sequence: u64, clock: Clock) -> Vec<u8> {
        let nonce = self.first.wrapping_add(sequence);
        let mut nonces = self.sent_nonces.borrow_mut();
        if nonces.len() == NONCES_MAX {
            nonces.pop_front();
        }
        nonces.push_back(nonce);
        self.write(&TrunkQuestion::Probe, nonce, clock)
    }

    fn write(&self, question: &TrunkQuestion, nonce: u64, clock: Clock) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(128);
        let owner = self.fencing.owner();
        question.write_for(owner, &self.secret, nonce, clock.unix_us, &mut datagram);
        datagram
    }

    /// Returns `None` if the datagram is not authentic or answers no pending question.
    fn read(&self, datagram: &[u8], clock: Clock) -> Option<SignedReply> {
        let verified = match TrunkAnswer::read(datagram, &self.secret, clock.unix_us) {
            Ok(verified) => verified,
            Err(refused) => {
                let mismatch = Some(mismatch(datagram, refused)?);
                return Some(SignedReply { mismatch, ..SignedReply::default() });
            }
        };
        let (nonce, sent_us) = (verified.nonce, verified.sent_us);
        match verified.message {
            TrunkAnswer::Probe(load) if self.was_asked(nonce) => {
                let speaks = self.end == ProbedEnd::Node && load.state != ServingState::Gone;
                let sequence = nonce.wrapping_sub(self.first);
                let answers = match load.vouched {
                    true => NodeEvidence::ProbeAnswered(sequence),
                    false => NodeEvidence::AgentAnswered(sequence),
                };
                Some(SignedReply {
                    answers: speaks.then_some(answers),
                    load: self.newest(load, sent_us),
                    ..SignedReply::default()
                })
            }
            TrunkAnswer::Notice { number, load } if self.was_asked(nonce) => {
                let receipt = Some(self.write(&TrunkQuestion::Noted { number }, nonce, clock));
                Some(SignedReply {
                    load: self.newest(load, sent_us),
                    receipt,
                    ..SignedReply::default()
                })
            }
            TrunkAnswer::Start(outcome) | TrunkAnswer::Break(outcome) => {
                Some(SignedReply { order: Some((nonce, outcome)), ..SignedReply::default() })
            }
            TrunkAnswer::Process(report) => {
                Some(SignedReply { process: Some((nonce, report)), ..SignedReply::default() })
            }
            TrunkAnswer::Superseded { epoch } => {
                Some(SignedReply { fenced: Some(epoch), ..SignedReply::default() })
            }
            _ => None,
        }
    }

    /// Returns the sequence of the probe of the node that a kernel error quotes.
    fn refused(&self, quoted: &[u8], clock: Clock) -> Option<u64> {
        let verified = TrunkQuestion::read(quoted, &self.secret, clock.unix_us).ok()?;
        let is_probe = verified.message == TrunkQuestion::Probe && self.end == ProbedEnd::Node;
        is_probe.then(|| verified.nonce.wrapping_sub(self.first))
    }

    fn was_asked(&self, nonce: u64) -> bool {
        // Most answers are to the newest probes.
        self.sent_nonces.borrow().iter().rev().any(|sent| *sent == nonce)
    }

    /// Returns the load, unless a newer report has come.
    fn newest(&self, load: NodeLoad, sent_us: u64) -> Option<NodeLoad> {
        (sent_us >= self.newest_us.get()).then(|| {
            self.newest_us.set(sent_us);
            load
        })
    }
}

fn mismatch(datagram: &[u8], refused: MessageError) -> Option<Mismatch> {
    match refused {
        _ if ClockRefusal::read(datagram).is_some() => Some(Mismatch::Clock),
        MessageError::Time { .. } => Some(Mismatch::Clock),
        MessageError::Key(_) => Some(Mismatch::Secret),
        MessageError::Length
        | MessageError::Version(_)
        | MessageError::Unknown
        | MessageError::Direction
        | MessageError::Forged
        | MessageError::Replayed => None,
    }
}

/// Random, so that only a node that saw the probe can answer it (RFC 8489, 5).
type Token = [u8; 12];

/// Maximum pending probes: 2.5 s of one probe every 10 ms. The oldest is replaced.
const TOKENS_MAX: usize = 256;

#[derive(Default)]
struct ProbeTokens(RefCell<VecDeque<(Token, u64)>>);

impl ProbeTokens {
    fn ask(&self, token: Token, sequence: u64) {
        let mut asked = self.0.borrow_mut();
        if asked.len() == TOKENS_MAX {
            asked.pop_front();
        }
        asked.push_back((token, sequence));
    }

    /// Returns the sequence of the pending probe with this token.
    fn sequence(&self, token: &[u8]) -> Option<u64> {
        let asked = self.0.borrow();
        // Most errors are about the newest probes.
        asked.iter().rev().find(|(known, _)| known == token).map(|(_, sequence)| *sequence)
    }

    /// Returns the sequence of the probe with this token, and forgets the probe.
    fn answered(&self, token: &[u8]) -> Option<u64> {
        let mut asked = self.0.borrow_mut();
        let place = asked.iter().position(|(known, _)| known == token)?;
        asked.remove(place).map(|(_, sequence)| sequence)
    }
}

#[cfg(test)]
mod tests;
