//! Messages from a node.

use std::time::Duration;

use super::question::{OPEN_END, micros};
use super::signature::{
    ANSWER, HEAD_LEN, MessageBody, QUESTION, sign, verify, write_head, write_tags, write_zeros,
};
use super::{
    BREAK, CLOSE, DRAIN, KEEP, MessageError, NOTICE, NodeSecret, OPEN, OWNED, PATH, PATH_LEN_MIN,
    PROBE, PROCESS, REFUSAL, START, SUPERSEDED, VERSION, VOTE, Verified,
};
use crate::demux;
use crate::trunk::{Tag, Voted};

/// A node's message to a gateway (`docs/trunk.md`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrunkAnswer {
    /// Answers [`TrunkQuestion::Probe`](super::TrunkQuestion::Probe).
    Probe(NodeLoad),
    /// Answers [`TrunkQuestion::Open`](super::TrunkQuestion::Open).
    Open {
        /// The tag of the question.
        tag: Tag,
        /// The outcome.
        status: OpenStatus,
    },
    /// Answers [`TrunkQuestion::Close`](super::TrunkQuestion::Close).
    Close {
        /// The tag of the question.
        tag: Tag,
        /// [`OpenStatus::Ok`] or [`OpenStatus::UnknownTag`].
        status: OpenStatus,
    },
    /// Answers [`TrunkQuestion::Drain`](super::TrunkQuestion::Drain).
    Drain(NodeLoad),
    /// Answers [`TrunkQuestion::Keep`](super::TrunkQuestion::Keep).
    Keep {
        /// Tags of the question that are not open at the node.
        unknown: Box<[Tag]>,
    },
    /// Reports without a question that the node's state changed. Sent to recent probers with the
    /// nonce of their last probe, and retransmitted until
    /// [`TrunkQuestion::Noted`](super::TrunkQuestion::Noted) acknowledges it.
    Notice {
        /// Number of the notice at this node.
        number: u64,
        /// The node's load at that moment.
        load: NodeLoad,
    },
    /// Answers [`TrunkQuestion::Start`](super::TrunkQuestion::Start).
    Start(OrderOutcome),
    /// Answers [`TrunkQuestion::Break`](super::TrunkQuestion::Break).
    Break(OrderOutcome),
    /// Answers [`TrunkQuestion::Path`](super::TrunkQuestion::Path).
    Path {
        /// Equal to the question's padding, so that both have the same length.
        padding: u16,
    },
    /// Answers [`TrunkQuestion::Vote`](super::TrunkQuestion::Vote).
    Vote(Voted),
    /// Refuses a question of an owner: its group has a newer one.
    Superseded {
        /// The newest epoch that the node served.
        epoch: u64,
    },
    /// Answers [`TrunkQuestion::Process`](super::TrunkQuestion::Process).
    Process(ProcessReport),
}

impl TrunkAnswer {
    /// Appends the signed answer to the question with this nonce to `out`.
    pub fn write(&self, secret: &NodeSecret, nonce: u64, now_us: u64, out: &mut Vec<u8>) {
        let start = out.len();
        write_head(self.kind(), ANSWER, secret, nonce, now_us, out);
        match *self {
            Self::Probe(load) | Self::Drain(load) => load.write(out),
            Self::Open { tag, status } | Self::Close { tag, status } => {
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.push(status as u8);
            }
            Self::Keep { ref unknown } => write_tags(unknown, out),
            Self::Notice { number, load } => {
                out.extend_from_slice(&number.to_be_bytes());
                load.write(out);
            }
            Self::Start(outcome) | Self::Break(outcome) => out.push(outcome as u8),
            Self::Path { padding } => write_zeros(16 + usize::from(padding), out),
            Self::Vote(ref voted) => voted.write(out),
            Self::Superseded { epoch } => out.extend_from_slice(&epoch.to_be_bytes()),
            Self::Process(ProcessReport { memory_permille, age_s }) => {
                out.extend_from_slice(&memory_permille.to_be_bytes());
                out.extend_from_slice(&age_s.to_be_bytes());
            }
        }
        sign(secret, start, out);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Probe(_) => PROBE,
            Self::Open { .. } => OPEN,
            Self::Close { .. } => CLOSE,
            Self::Drain(_) => DRAIN,
            Self::Keep { .. } => KEEP,
            Self::Notice { .. } => NOTICE,
            Self::Start(_) => START,
            Self::Break(_) => BREAK,
            Self::Path { .. } => PATH,
            Self::Vote(_) => VOTE,
            Self::Superseded { .. } => SUPERSEDED,
            Self::Process(_) => PROCESS,
        }
    }

    /// Reads an answer and checks its signature and time. The caller checks the nonce.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub fn read(
        datagram: &[u8],
        secret: &NodeSecret,
        now_us: u64,
    ) -> Result<Verified<Self>, MessageError> {
        let (mut body, verified) = verify(datagram, ANSWER, secret, now_us)?;
        let message = match verified.message {
            PROBE => Self::Probe(NodeLoad::read(&mut body)?),
            OPEN => Self::Open { tag: Tag(body.u64()?), status: body.one_of(&OpenStatus::ALL)? },
            CLOSE => Self::Close { tag: Tag(body.u64()?), status: body.one_of(&OpenStatus::ALL)? },
            DRAIN => Self::Drain(NodeLoad::read(&mut body)?),
            KEEP => Self::Keep { unknown: body.tags()? },
            NOTICE => Self::Notice { number: body.u64()?, load: NodeLoad::read(&mut body)? },
            START => Self::Start(body.one_of(&OrderOutcome::ALL)?),
            BREAK => Self::Break(body.one_of(&OrderOutcome::ALL)?),
            PATH => Self::Path { padding: body.padding(16)? },
            VOTE => Self::Vote(Voted::read(&mut body)?),
            SUPERSEDED => Self::Superseded { epoch: body.u64()? },
            PROCESS => {
                Self::Process(ProcessReport { memory_permille: body.u16()?, age_s: body.u32()? })
            }
            _ => return Err(MessageError::Unknown),
        };
        body.finish()?;
        Ok(verified.with(message))
    }
}

/// Added to the encoded state if `vouched` is false.
const UNVOUCHED: u8 = 0x80;

/// Load and state of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeLoad {
    /// Use of the node's capacity in thousandths; full at 1,000.
    pub permille: u16,
    /// Whether the node takes sessions.
    pub state: ServingState,
    /// Open sessions.
    pub sessions: u32,
    /// True if the media port itself answered, or was checked just before. False for an agent
    /// without a port check.
    pub vouched: bool,
}

/// The process of a media server, as the agent beside it sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessReport {
    /// Resident memory, thousandths of the memory that the process may use.
    pub memory_permille: u16,
    /// Seconds since its start.
    pub age_s: u32,
}

/// State of a node. Encoded as its index in [`ServingState::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServingState {
    /// The node accepts new sessions.
    Serving,
    /// The node accepts no new sessions; open ones remain until they are moved.
    Draining,
    /// The node's process died or was not started, as reported by an agent beside it.
    Gone,
}

impl ServingState {
    /// In the order of their codes.
    pub const ALL: [Self; 3] = [Self::Serving, Self::Draining, Self::Gone];
}

/// Result of opening or closing a session. Encoded as its index in [`OpenStatus::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenStatus {
    /// The session is open.
    Ok,
    /// Refused: the node is at capacity.
    Full,
    /// Refused: the node is draining.
    Draining,
    /// Refused: no session has this tag.
    UnknownTag,
    /// The server behind the agent refused.
    Failed,
    /// Refused: the node takes encrypted datagrams only.
    Unencrypted,
}

impl OpenStatus {
    /// In the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::Full, Self::Draining, Self::UnknownTag, Self::Failed, Self::Unencrypted];
}

/// Result of an order to start or break a node. Encoded as its index in [`OrderOutcome::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderOutcome {
    /// The order was executed, or is being executed.
    Done,
    /// The agent's configuration does not allow drills.
    Forbidden,
    /// The order has no target, such as no process to signal.
    Unable,
}

impl OrderOutcome {
    /// In the order of their codes.
    pub const ALL: [Self; 3] = [Self::Done, Self::Forbidden, Self::Unable];
}

impl NodeLoad {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.permille.to_be_bytes());
        out.push(self.state as u8 | if self.vouched { 0 } else { UNVOUCHED });
        out.extend_from_slice(&self.sessions.to_be_bytes());
    }

    fn read(body: &mut MessageBody<'_>) -> Result<Self, MessageError> {
        let (permille, state) = (body.u16()?, body.u8()?);
        let vouched = state & UNVOUCHED == 0;
        let state = ServingState::ALL.get(usize::from(state & !UNVOUCHED));
        let state = *state.ok_or(MessageError::Unknown)?;
        Ok(Self { permille, state, sessions: body.u32()?, vouched })
    }
}

impl Voted {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.promised.to_be_bytes());
        out.extend_from_slice(&self.heard.map_or(OPEN_END, micros).to_be_bytes());
        out.extend_from_slice(&self.instance.to_be_bytes());
    }

    fn read(body: &mut MessageBody<'_>) -> Result<Self, MessageError> {
        let (epoch, promised, heard) = (body.u64()?, body.u64()?, body.u32()?);
        let heard = (heard != OPEN_END).then(|| Duration::from_micros(heard.into()));
        Ok(Self { epoch, promised, heard, instance: body.u32()? })
    }
}

/// Reason code: the question's time differs by more than [`SKEW_MAX_US`](super::SKEW_MAX_US).
const CLOCK: u8 = 1;

/// An unsigned answer to a question signed with the node's secret but outside the time window, so that
/// an operator can distinguish clock skew from a dead node. Questions with other secrets get no answer.
///
/// Use it only as a hint for logs and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockRefusal {
    /// The nonce of the refused question.
    pub nonce: u64,
    /// The node's clock: microseconds since the Unix epoch.
    pub sent_us: u64,
}

impl ClockRefusal {
    /// Returns the refusal of this datagram; `None` unless it is a complete question outside the
    /// time window. A refusal is shorter than any question. Send it at a bounded rate: the source
    /// may be spoofed.
    pub fn of(datagram: &[u8], refused: MessageError, now_us: u64) -> Option<Self> {
        let is_late = matches!(refused, MessageError::Time { .. });
        if !is_late || datagram.len() < PATH_LEN_MIN {
            return None;
        }
        let (head, _) = datagram.split_first_chunk::<HEAD_LEN>()?;
        let [demux::SIGNED, VERSION | OWNED, _, QUESTION, _, _, _, _, nonce @ ..] = head else {
            return None;
        };
        Some(Self { nonce: MessageBody(nonce).u64().ok()?, sent_us: now_us })
    }

    /// Appends the message; it is not signed.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[demux::SIGNED, VERSION, REFUSAL, ANSWER]);
        write_zeros(4, out);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        out.extend_from_slice(&self.sent_us.to_be_bytes());
        out.push(CLOCK);
    }

    /// Returns `None` if the datagram is no refusal.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (head, body) = datagram.split_first_chunk::<HEAD_LEN>()?;
        let [demux::SIGNED, VERSION, REFUSAL, ANSWER, numbers @ ..] = head else { return None };
        let mut numbers = MessageBody(numbers);
        let (_, nonce, sent_us) = (numbers.u32().ok()?, numbers.u64().ok()?, numbers.u64().ok()?);
        (body == [CLOCK]).then_some(Self { nonce, sent_us })
    }
}

#[cfg(test)]
mod tests;
