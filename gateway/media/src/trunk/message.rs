//! Signed messages between the gateway and a node, one per datagram.
//!
//! ```text
//! 0xE1 | version u8 | kind u8 | direction u8 | key id u32 | nonce u64 | time u64 | body | HMAC-SHA256
//! ```
//!
//! In a question of version 3 `epoch u64 | group u32 | 4 zero bytes` precede the body: the gateway
//! asks as the owner of a group ([`GroupOwner`]). A node refuses an older epoch than the
//! newest that it served, by a *superseded*. Gateways without a group send version 2, as do all
//! answers, so that either end may be updated first; a node of an earlier program refuses all
//! questions of a group.
//!
//! Integers are big endian, the time is in microseconds since the Unix epoch, and the HMAC covers
//! all bytes before it. The direction is 0 towards the node and 1 from it. An answer is never
//! longer than its question, so that a node cannot be used for amplification. It echoes the
//! question's key id and nonce.
//!
//! The key of the HMAC is derived from the secret and the node's name ([`NodeSecret`]), which is not
//! sent: a node refuses messages for a node of another name as forged. The key id depends only on
//! the secret. Version 1 used the secret itself as the key.
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
//! | 8 break | fault u8, 15 zero bytes | outcome u8 |
//! | 9 path | longest bundle u16, 14 zero bytes, any number of zero bytes | as many bytes as the question |
//! | 10 refusal | | reason u8; its key id is 0, and it ends without an HMAC |
//! | 11 vote | standing u8, 3 zero bytes, hold u32, epoch u64, claim u64, group u32, 4 zero bytes | epoch u64, promised u64, heard u32, instance u32 |
//! | 12 superseded | | epoch u64 |
//!
//! A vote's standing is 1 owner, 2 standby, 3 claim. Hold and heard are in microseconds; 2³² - 1 means
//! until the next epoch, and longer or never.
//!
//! The state is 0 serving, 1 draining, 2 gone, plus 0x80 if the media port was not checked.
//! Leases are in seconds. A separate *open* opens each session; *keep* messages that list many tags
//! renew them. A lease spans several *keep* messages, so that a lost one needs no retransmission.
//!
//! A path question has any length: its answer shows that both directions carry datagrams of that
//! length. It also sets the size of bundles sent back.
//!
//! A notice has the opposite direction: the node reports a change of its state, and the gateway
//! acknowledges it. The node sends it only to gateways that recently sent a validly signed probe
//! ([`SUBSCRIBED_FOR_US`]). It echoes the nonce of that probe, so that it cannot be replayed at
//! another gateway or for another node, and it is no longer than the probe. A node accepts every
//! message once ([`Replays`]).
//!
//! A node may answer a question signed with its secret but outside the time window with an unsigned
//! [`ClockRefusal`] of reason 1, which is logged and counted but never trusted.

use super::GroupOwner;

mod answer;
mod question;
mod signature;

pub use answer::{ClockRefusal, NodeLoad, OpenStatus, OrderOutcome, ServingState, TrunkAnswer};
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
