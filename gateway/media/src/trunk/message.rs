//! What the gateway and a node tell each other about sessions and themselves: signed, one message a datagram.
//!
//! ```text
//! 0xE1 | version u8 | kind u8 | direction u8 | key id u32 | nonce u64 | time u64 | body | HMAC-SHA256
//! ```
//!
//! Integers are big endian, the time is in microseconds since the Unix epoch, the HMAC covers all
//! before it. The direction is 0 towards the node and 1 from it. An answer is never longer than its
//! question, so a node amplifies nothing; it echoes the question's key id and nonce.
//!
//! | kind | to the node | from the node |
//! |---|---|---|
//! | 1 probe | 16 zero bytes | load u16, state u8, sessions u32 |
//! | 2 open | room u64, session u64, tag u64, lease u16, 6 zero bytes | tag u64, status u8 |
//! | 3 close | tag u64, 8 zero bytes | tag u64, status u8 |
//! | 4 drain | 16 zero bytes | as to a probe |
//! | 5 keep | lease u16, 6 zero bytes, 1 to 142 tags u64 | those of the tags that are not open |
//! | 6 notice | number u64, 8 zero bytes | number u64, then as to a probe |
//! | 7 start | 16 zero bytes | outcome u8 |
//! | 8 break | what u8, 15 zero bytes | outcome u8 |
//! | 9 path | longest bundle u16, 14 zero bytes, any number of zero bytes | as many bytes as the question |
//! | 10 refusal | | why u8; its key id is 0, and it ends without an HMAC |
//!
//! The state is 0 serving, 1 draining, 2 gone, with 0x80 added where nobody vouches for the media port.
//! Leases are in seconds. A session is opened by an *open* of its own and kept open by a *keep* that
//! names many. A lease lasts several of them: what one loses, the next makes good, and nobody asks
//! again in between.
//!
//! A question of the path has any length: that it is answered shows that both ways carry datagrams as long. It says how
//! long bundles to where it came from may be.
//!
//! A notice goes the other way round: the node says unasked that its state changed, and the gateway
//! notes that it heard. It goes only to who probed with a good signature lately
//! ([`SUBSCRIBED_FOR_US`]), echoes the nonce of that probe, so that it is worth nothing at another
//! gateway or in another node's name, and is no longer than the probe was. A node believes every
//! message once ([`Replays`]).
//!
//! To a question that was signed with its secret, but by another time, a node may say so: its body is 1. Nobody signed that ([`Refusal`]): it tells people why nothing else comes, and is evidence of nothing.

use crate::demux;
use std::fmt;

mod answer;
mod load;
mod question;
mod refusal;
mod replays;
mod secret;
mod signature;

pub use answer::Answer;
pub use load::{Break, Load, Outcome, State, Status};
pub use question::Question;
pub use refusal::Refusal;
pub use replays::{REPLAYS_MAX, Replays};
pub use secret::{KeyId, SECRET_LEN_MIN, Secret, TooShort};

/// The version this code speaks.
pub const VERSION: u8 = 1;
/// A message whose time differs from ours by more is refused: 5 s, for clocks that drift a little.
pub const SKEW_MAX_US: u64 = 5_000_000;
/// Who probed within this is told unasked of what changes: 10 s.
pub const SUBSCRIBED_FOR_US: u64 = 10_000_000;
const PROBE: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const DRAIN: u8 = 4;
const KEEP: u8 = 5;
const NOTICE: u8 = 6;
const START: u8 = 7;
const BREAK: u8 = 8;
const PATH: u8 = 9;
const REFUSAL: u8 = 10;
/// Tags that one [`Question::Keep`] names at most: with them it has 1,200 bytes, which no path
/// fragments (IPv6's least MTU is 1,280, RFC 8200, 5).
pub const KEEP_MAX: usize = 142;

/// How long a question of the path is at least: its head, 16 bytes, and its signature.
pub const PATH_LEN_MIN: usize = 72;

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
    Time {
        /// By how much the sender's clock is before ours, microseconds; less than 0 where it is behind.
        ahead_us: i64,
    },
    /// It came before.
    Replayed,
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
            Self::Time { ahead_us } => {
                let (by, side) = (ahead_us.unsigned_abs() as f64 / 1e6, *ahead_us < 0);
                let side = if side { "before" } else { "after" };
                write!(f, "signed {by:.1} s {side} now, at most {} s", SKEW_MAX_US / 1_000_000)
            }
            Self::Replayed => write!(f, "came before"),
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

#[cfg(test)]
mod tests;
