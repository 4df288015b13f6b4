//! Messages from a node.

use super::signature::{
    ANSWER, MessageBody, SignedMessage, sign, verify, write_head, write_padding, write_tags,
};
use super::{
    BREAK, CLOSE, DRAIN, KEEP, MessageError, NOTICE, NodeLoad, NodeSecret, OPEN, OpenStatus,
    OrderOutcome, PATH, PROBE, START, SUPERSEDED, VOTE, Verified, vote,
};
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
}

impl TrunkAnswer {
    /// Appends the signed answer to the question with this nonce to `out`.
    pub fn write(&self, secret: &NodeSecret, nonce: u64, now_us: u64, out: &mut Vec<u8>) {
        let start = out.len();
        match *self {
            Self::Probe(load) => {
                write_head(PROBE, ANSWER, secret, nonce, now_us, out);
                load.write(out);
            }
            Self::Open { tag, status } => {
                write_head(OPEN, ANSWER, secret, nonce, now_us, out);
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.push(status as u8);
            }
            Self::Close { tag, status } => {
                write_head(CLOSE, ANSWER, secret, nonce, now_us, out);
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.push(status as u8);
            }
            Self::Drain(load) => {
                write_head(DRAIN, ANSWER, secret, nonce, now_us, out);
                load.write(out);
            }
            Self::Keep { ref unknown } => {
                write_head(KEEP, ANSWER, secret, nonce, now_us, out);
                write_tags(unknown, out);
            }
            Self::Notice { number, load } => {
                write_head(NOTICE, ANSWER, secret, nonce, now_us, out);
                out.extend_from_slice(&number.to_be_bytes());
                load.write(out);
            }
            Self::Start(outcome) => {
                write_head(START, ANSWER, secret, nonce, now_us, out);
                out.push(outcome as u8);
            }
            Self::Break(outcome) => {
                write_head(BREAK, ANSWER, secret, nonce, now_us, out);
                out.push(outcome as u8);
            }
            Self::Path { padding } => {
                write_head(PATH, ANSWER, secret, nonce, now_us, out);
                out.extend_from_slice(&[0; 16]);
                write_padding(padding, out);
            }
            Self::Vote(ref voted) => {
                write_head(VOTE, ANSWER, secret, nonce, now_us, out);
                vote::write_voted(voted, out);
            }
            Self::Superseded { epoch } => {
                write_head(SUPERSEDED, ANSWER, secret, nonce, now_us, out);
                out.extend_from_slice(&epoch.to_be_bytes());
            }
        }
        sign(secret, start, out);
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
        let SignedMessage { kind, owner, body, nonce, sent_us } =
            verify(datagram, ANSWER, secret, now_us)?;
        let mut body = MessageBody(body);
        let message = match kind {
            PROBE => Self::Probe(NodeLoad::read(&mut body)?),
            OPEN => Self::Open { tag: Tag(body.u64()?), status: OpenStatus::read(&mut body)? },
            CLOSE => Self::Close { tag: Tag(body.u64()?), status: OpenStatus::read(&mut body)? },
            DRAIN => Self::Drain(NodeLoad::read(&mut body)?),
            KEEP => Self::Keep { unknown: body.tags()? },
            NOTICE => Self::Notice { number: body.u64()?, load: NodeLoad::read(&mut body)? },
            START => Self::Start(body.one_of(&OrderOutcome::ALL)?),
            BREAK => Self::Break(body.one_of(&OrderOutcome::ALL)?),
            PATH => Self::Path { padding: body.padding(16)? },
            VOTE => Self::Vote(vote::read_voted(&mut body)?),
            SUPERSEDED => Self::Superseded { epoch: body.u64()? },
            _ => return Err(MessageError::Unknown),
        };
        body.finish()?;
        Ok(Verified { message, nonce, owner, sent_us })
    }
}
