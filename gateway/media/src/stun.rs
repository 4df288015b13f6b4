//! STUN binding for ICE (RFC 8489, RFC 8445): a request proves knowledge of a password.
//!
//! The gateway answers as an ICE-lite agent ([`BindingRequest`], [`write_success`], [`write_error`]); its
//! probes and the lab are clients ([`BindingBuilder`], [`Response`]). Implemented here on ring's
//! HMAC-SHA1, because binding needs only six attributes and a general crate brings a second set of
//! hashes.

use ring::hmac;
use std::fmt;

mod attribute;
mod request;
mod response;

pub(crate) use request::UNKNOWN_MAX;
pub use request::{BindingBuilder, BindingRequest, IceRole, Username};
pub use response::{
    BindingOutcome, Response, StunErrorCode, write_error, write_success, write_unknown,
};

/// The fixed value at bytes 4–7 of every message (RFC 8489, section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Longer messages are refused: IPv6's minimum MTU suffices for any binding.
pub(crate) const MESSAGE_LEN_MAX: usize = 1_280;

const HEADER_LEN: usize = 20;

/// Matches a response to its request; the client chooses it at random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Transaction(pub [u8; 12]);

/// A short-term password, prepared for signing (RFC 8489, section 9.1).
#[derive(Clone)]
pub struct StunKey(hmac::Key);

impl StunKey {
    /// Creates a key. ICE passwords are plain ASCII and need no preparation.
    pub fn new(password: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }
}

impl fmt::Debug for StunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Returns whether a datagram is a STUN message (RFC 8489, section 5): first two bits zero, the
/// cookie, the correct length. Attributes are not checked.
pub fn is_stun(datagram: &[u8]) -> bool {
    let Some(&[first, _, high, low, c0, c1, c2, c3]) = datagram.first_chunk::<8>() else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    first >> 6 == 0
        && u32::from_be_bytes([c0, c1, c2, c3]) == MAGIC_COOKIE
        && length.is_multiple_of(4)
        && datagram.len() == HEADER_LEN + length
}

/// Reason why bytes are not the expected message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StunError {
    /// The bytes are no STUN message ([`is_stun`]), or longer than `MESSAGE_LEN_MAX`.
    NotStun,
    /// The message has another class or method: an indication, an allocation, a response instead of
    /// a request.
    NotBinding,
    /// An attribute exceeds the message or has an invalid length.
    Attribute(u16),
    /// FINGERPRINT is wrong, or not last.
    Fingerprint,
}

impl fmt::Display for StunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStun => write!(f, "no STUN message"),
            Self::NotBinding => write!(f, "another STUN class or method than expected"),
            Self::Attribute(kind) => write!(f, "STUN attribute {kind:#06x} is malformed"),
            Self::Fingerprint => write!(f, "STUN fingerprint is wrong"),
        }
    }
}

impl std::error::Error for StunError {}

/// Reason why a message is not authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unverified {
    /// MESSAGE-INTEGRITY is missing.
    Missing,
    /// MESSAGE-INTEGRITY does not match the password and content.
    Wrong,
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "STUN message integrity is missing",
            Self::Wrong => "STUN message integrity is wrong",
        })
    }
}

impl std::error::Error for Unverified {}

#[cfg(test)]
mod tests;
