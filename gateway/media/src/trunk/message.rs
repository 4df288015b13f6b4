//! What the gateway and a node tell each other about sessions: signed, one message a datagram.
//!
//! ```text
//! 0xE1 | version u8 | kind u8 | direction u8 | key id u32 | nonce u64 | time u64 | body | HMAC-SHA256
//! ```
//!
//! Integers are big endian, the time is in microseconds since the Unix epoch, the HMAC covers all
//! before it. An answer is never longer than its question, so a node amplifies nothing; it echoes
//! the question's key id and nonce.
//!
//! | kind | question's body | answer's body |
//! |---|---|---|
//! | 1 probe | 16 zero bytes | load u16, state u8, sessions u32 |
//! | 2 open | room u64, session u64, tag u64, lease u16, 6 zero bytes | tag u64, status u8 |
//! | 3 close | tag u64, 8 zero bytes | tag u64, status u8 |
//! | 4 drain | 16 zero bytes | as to a probe |
//! | 5 keep | lease u16, 6 zero bytes, 1 to 142 tags u64 | those of the tags that are not open |
//!
//! Leases are in seconds. A session is opened by an *open* of its own and kept open by a *keep* that
//! names many. A lease lasts several of them: what one loses, the next makes good, and nobody asks
//! again in between.

use super::Tag;
use crate::demux;
use std::fmt;

mod secret;
mod signature;

pub use secret::{KeyId, SECRET_LEN_MIN, Secret, TooShort};

use signature::{ANSWER, Body, QUESTION, sign, verify, write_head};

/// The version this code speaks.
pub const VERSION: u8 = 1;
/// A message whose time differs from ours by more is refused: 5 s, for clocks that drift a little.
pub const SKEW_MAX_US: u64 = 5_000_000;
const PROBE: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const DRAIN: u8 = 4;
const KEEP: u8 = 5;
/// Tags that one [`Question::Keep`] names at most: with them it has 1,200 bytes, which no path
/// fragments (IPv6's least MTU is 1,280, RFC 8200, 5).
pub const KEEP_MAX: usize = 142;

/// What is asked of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// Are you there, and how loaded?
    Probe,
    /// Open this session. Asking again changes nothing but the lease, which begins anew.
    Open {
        /// The room it belongs to.
        room: u64,
        /// The session's number at the gateway.
        session: u64,
        /// What names it on this leg from now on.
        tag: Tag,
        /// Seconds until the node may forget it unless asked again.
        lease_s: u16,
    },
    /// Close this session.
    Close {
        /// What names it.
        tag: Tag,
    },
    /// Take no new sessions from now on; those open stay.
    Drain,
    /// Keep these sessions open: their leases begin anew, and their packets go to where this came
    /// from. It opens none.
    Keep {
        /// Seconds until the node may forget them unless asked again.
        lease_s: u16,
        /// What names them; at least one, at most [`KEEP_MAX`].
        tags: Box<[Tag]>,
    },
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To [`Question::Probe`].
    Probe(Load),
    /// To [`Question::Open`].
    Open {
        /// The session's tag.
        tag: Tag,
        /// Whether it is open.
        status: Status,
    },
    /// To [`Question::Close`].
    Close {
        /// The session's tag.
        tag: Tag,
        /// [`Status::Ok`] or [`Status::UnknownTag`].
        status: Status,
    },
    /// To [`Question::Drain`].
    Drain(Load),
    /// To [`Question::Keep`].
    Keep {
        /// Those of the question's tags that the node does not know, or keeps no longer.
        unknown: Box<[Tag]>,
    },
}

/// How a node fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Use of its capacity in thousandths; above 1,000 is overload.
    pub permille: u16,
    /// Whether it takes new sessions.
    pub state: State,
    /// Sessions open at it.
    pub sessions: u32,
}

/// Whether a node takes new sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It does.
    Serving,
    /// Not any more; those open stay.
    Draining,
}

/// How an opening or closing went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done.
    Ok,
    /// Refused: no room for it.
    Full,
    /// Refused: the node is draining.
    Draining,
    /// Refused: no session has this tag.
    UnknownTag,
}

/// A message whose signature and time were found good, and what it came with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified<T> {
    /// The question or answer.
    pub message: T,
    /// Chosen by who asks, echoed by who answers.
    pub nonce: u64,
    /// When it was signed, by the sender's clock: microseconds since the Unix epoch.
    pub sent_us: u64,
}

/// Why a message is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not 0xE1, or shorter or longer than its kind is.
    Length,
    /// A version this code does not speak.
    Version(u8),
    /// A kind, or a value in its body, that does not exist.
    Unknown,
    /// A question where an answer is due, or the other way round.
    Direction,
    /// Signed with another secret.
    Key(KeyId),
    /// The signature is wrong.
    Forged,
    /// Signed too long ago or too far in the future, by [`SKEW_MAX_US`].
    Time,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(f, "length does not fit a signed message"),
            Self::Version(version) => write!(f, "version {version}, {VERSION} is spoken here"),
            Self::Unknown => write!(f, "kind or value does not exist"),
            Self::Direction => write!(f, "question and answer confused"),
            Self::Key(id) => write!(f, "signed with another secret ({:08x})", id.0),
            Self::Forged => write!(f, "signature is wrong"),
            Self::Time => write!(f, "signed more than 5 s before or after now"),
        }
    }
}

impl std::error::Error for Refused {}

/// Which secret a datagram says it was signed with; none if it is no signed message.
///
/// For ends that hold several secrets, as while one is replaced.
#[must_use]
pub fn key_id(datagram: &[u8]) -> Option<KeyId> {
    match datagram {
        [demux::SIGNED, _, _, _, a, b, c, d, ..] => {
            Some(KeyId(u32::from_be_bytes([*a, *b, *c, *d])))
        }
        _ => None,
    }
}

impl Question {
    /// Appends the signed question to `out`.
    pub fn write(&self, secret: &Secret, nonce: u64, now_us: u64, out: &mut Vec<u8>) {
        let start = out.len();
        match *self {
            Self::Probe => {
                write_head(PROBE, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&[0; 16]);
            }
            Self::Open { room, session, tag, lease_s } => {
                write_head(OPEN, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&room.to_be_bytes());
                out.extend_from_slice(&session.to_be_bytes());
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
            }
            Self::Close { tag } => {
                write_head(CLOSE, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.extend_from_slice(&[0; 8]);
            }
            Self::Drain => {
                write_head(DRAIN, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&[0; 16]);
            }
            Self::Keep { lease_s, ref tags } => {
                write_head(KEEP, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
                write_tags(tags, out);
            }
        }
        sign(secret, start, out);
    }

    /// Reads a question and checks its signature and time.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn read(datagram: &[u8], secret: &Secret, now_us: u64) -> Result<Verified<Self>, Refused> {
        let (kind, body, nonce, sent_us) = verify(datagram, QUESTION, secret, now_us)?;
        let mut body = Body(body);
        let message = match kind {
            PROBE => {
                body.skip::<16>()?;
                Self::Probe
            }
            OPEN => {
                let (room, session, tag) = (body.u64()?, body.u64()?, Tag(body.u64()?));
                let lease_s = body.u16()?;
                body.skip::<6>()?;
                Self::Open { room, session, tag, lease_s }
            }
            CLOSE => {
                let tag = Tag(body.u64()?);
                body.skip::<8>()?;
                Self::Close { tag }
            }
            DRAIN => {
                body.skip::<16>()?;
                Self::Drain
            }
            KEEP => {
                let lease_s = body.u16()?;
                body.skip::<6>()?;
                let tags = body.tags()?;
                if tags.is_empty() {
                    return Err(Refused::Length);
                }
                Self::Keep { lease_s, tags }
            }
            _ => return Err(Refused::Unknown),
        };
        body.finish()?;
        Ok(Verified { message, nonce, sent_us })
    }
}

impl Answer {
    /// Appends the signed answer to the question with this nonce to `out`.
    pub fn write(&self, secret: &Secret, nonce: u64, now_us: u64, out: &mut Vec<u8>) {
        let start = out.len();
        match *self {
            Self::Probe(load) => {
                write_head(PROBE, ANSWER, secret, nonce, now_us, out);
                load.write(out);
            }
            Self::Open { tag, status } => {
                write_head(OPEN, ANSWER, secret, nonce, now_us, out);
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.push(status.code());
            }
            Self::Close { tag, status } => {
                write_head(CLOSE, ANSWER, secret, nonce, now_us, out);
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.push(status.code());
            }
            Self::Drain(load) => {
                write_head(DRAIN, ANSWER, secret, nonce, now_us, out);
                load.write(out);
            }
            Self::Keep { ref unknown } => {
                write_head(KEEP, ANSWER, secret, nonce, now_us, out);
                write_tags(unknown, out);
            }
        }
        sign(secret, start, out);
    }

    /// Reads an answer and checks its signature and time. Whether its nonce is one that was asked
    /// with is for the caller to check.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn read(datagram: &[u8], secret: &Secret, now_us: u64) -> Result<Verified<Self>, Refused> {
        let (kind, body, nonce, sent_us) = verify(datagram, ANSWER, secret, now_us)?;
        let mut body = Body(body);
        let message = match kind {
            PROBE => Self::Probe(Load::read(&mut body)?),
            OPEN => Self::Open { tag: Tag(body.u64()?), status: Status::read(&mut body)? },
            CLOSE => Self::Close { tag: Tag(body.u64()?), status: Status::read(&mut body)? },
            DRAIN => Self::Drain(Load::read(&mut body)?),
            KEEP => Self::Keep { unknown: body.tags()? },
            _ => return Err(Refused::Unknown),
        };
        body.finish()?;
        Ok(Verified { message, nonce, sent_us })
    }
}

fn write_tags(tags: &[Tag], out: &mut Vec<u8>) {
    tags.iter().for_each(|tag| out.extend_from_slice(&tag.0.to_be_bytes()));
}

impl Load {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.permille.to_be_bytes());
        out.push(match self.state {
            State::Serving => 0,
            State::Draining => 1,
        });
        out.extend_from_slice(&self.sessions.to_be_bytes());
    }

    fn read(body: &mut Body<'_>) -> Result<Self, Refused> {
        let permille = body.u16()?;
        let state = match body.u8()? {
            0 => State::Serving,
            1 => State::Draining,
            _ => return Err(Refused::Unknown),
        };
        Ok(Self { permille, state, sessions: body.u32()? })
    }
}

impl Status {
    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Full => 1,
            Self::Draining => 2,
            Self::UnknownTag => 3,
        }
    }

    fn read(body: &mut Body<'_>) -> Result<Self, Refused> {
        match body.u8()? {
            0 => Ok(Self::Ok),
            1 => Ok(Self::Full),
            2 => Ok(Self::Draining),
            3 => Ok(Self::UnknownTag),
            _ => Err(Refused::Unknown),
        }
    }
}

#[cfg(test)]
mod tests;
