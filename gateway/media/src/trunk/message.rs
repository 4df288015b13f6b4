//! Signed messages between the gateway and a node, one per datagram. `docs/trunk.md` specifies them.
//!
//! The key of the HMAC is derived from the secret and the node's name ([`NodeSecret`]), which is not
//! sent: a node refuses messages for a node of another name as forged. A node accepts every message
//! once ([`Replays`]).
//!
//! An answer is never longer than its question, so that a node cannot be used for amplification. A
//! notice, by which the node reports a change of its state, goes only to gateways that recently sent a
//! validly signed probe ([`SUBSCRIBED_FOR_US`]); it echoes the nonce of that probe and is no longer.
//!
//! A gateway that asks as the owner of a group ([`GroupOwner`]) sends version 3. Other gateways send
//! version 2, as do all answers, so that either end may be updated first.

use super::GroupOwner;

mod answer;
mod question;
mod signature;

pub use answer::{
    ClockRefusal, NodeLoad, OpenStatus, OrderOutcome, ProcessReport, ServingState, TrunkAnswer,
};
pub use question::{NodeFault, TrunkQuestion};
pub use signature::{KeyId, NodeSecret, Replays, TooShort};

pub(crate) const VERSION: u8 = 2;
/// Version of a question in the name of a group's owner.
const OWNED: u8 = 3;
/// Largest accepted difference between a message's time and the local clock: 5 s.
pub const SKEW_MAX_US: u64 = 5_000_000;
/// Time for which a probe subscribes its sender to notices: 10 s.
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
const VOTE: u8 = 11;
const SUPERSEDED: u8 = 12;
const PROCESS: u8 = 13;
/// Limit of tags in one [`TrunkQuestion::Keep`]: its 1,200 bytes fit any path (IPv6's minimum MTU is
/// 1,280, RFC 8200, 5).
pub const KEEP_MAX: usize = 142;

/// Minimum length of a path question: its head, 16 bytes, and its signature.
pub const PATH_LEN_MIN: usize = 72;

/// A message with verified signature and time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified<T> {
    /// The parsed message.
    pub message: T,
    /// The sender of a question chooses it; the answer echoes it.
    pub nonce: u64,
    /// Set in a question of a group's owner.
    pub owner: Option<GroupOwner>,
    /// Signing time by the sender's clock: microseconds since the Unix epoch.
    pub sent_us: u64,
}

impl Verified<u8> {
    /// Puts the message in the place of its kind.
    fn with<T>(self, message: T) -> Verified<T> {
        let Verified { nonce, owner, sent_us, .. } = self;
        Verified { message, nonce, owner, sent_us }
    }
}

/// The message is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// The first byte is not 0xE1, or the length does not match the kind.
    #[error("invalid length")]
    Length,
    /// A version that is not spoken here.
    #[error("version {0}, expected {VERSION}")]
    Version(u8),
    /// The kind is unknown, or the body has an invalid value.
    #[error("unknown kind or value")]
    Unknown,
    /// The message is a question instead of an answer, or the reverse.
    #[error("wrong direction")]
    Direction,
    /// The message is signed with another secret.
    #[error("signed with another secret ({:08x})", .0 .0)]
    Key(KeyId),
    /// The signature is wrong, or the message is for a node of another name.
    #[error("wrong signature, or another node name")]
    Forged,
    /// The time differs by more than [`SKEW_MAX_US`].
    #[error(
        "signed {:.1} s {} now, limit {} s",
        ahead_us.unsigned_abs() as f64 / 1e6,
        if *ahead_us < 0 { "before" } else { "after" },
        SKEW_MAX_US / 1_000_000
    )]
    Time {
        /// The sender's clock less the local clock, microseconds.
        ahead_us: i64,
    },
    /// The message was accepted before.
    #[error("replayed")]
    Replayed,
}

#[cfg(test)]
mod tests;
