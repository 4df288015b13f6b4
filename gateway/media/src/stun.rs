//! STUN binding for ICE (RFC 8489, RFC 8445): a request proves knowledge of a password.
//!
//! The gateway answers as an ICE-lite agent ([`BindingRequest`], [`write_success`], [`write_unknown`]), and checks addresses at which
//! its clients have not proved to receive ([`write_check`]); its probes and the lab are clients ([`BindingBuilder`], [`Response`]). A
//! client's probe of its path has padded requests, and answers of the same size ([`write_padded_request`], [`write_padded_success`]).
//! Implemented here on ring's HMAC-SHA1, because binding needs only six attributes and a general crate brings a second set of
//! hashes.

use std::net::SocketAddr;

use message::{
    ERROR_CODE, ICE_CONTROLLED, ICE_CONTROLLING, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256,
    PRIORITY, UNKNOWN_ATTRIBUTES, USE_CANDIDATE, USERNAME, XOR_MAPPED_ADDRESS, append,
    append_address, begin, end, pad, read_address,
};
pub use message::{
    MAGIC_COOKIE, StunError, StunKey, StunMessage, Transaction, Unverified, is_stun,
};

mod message;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// The PRIORITY of a check of this gateway: that of a peer-reflexive candidate of component 1 (RFC 8445, section 7.1.1).
const CHECK_PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// The tie-breaker of this gateway: a client that takes the controlled role, too, gives it up (RFC 8445, section 7.3.1.1).
const TIE_BREAKER: u64 = 0;

/// Limit of unknown attributes listed in a response, to bound its length.
const UNKNOWN_MAX: usize = 4;

/// A binding request, parsed in place.
///
/// Do not act on its content before [`StunMessage::verify`] succeeds. If it fails, send no response, so that a stranger
/// learns nothing (RFC 8489, section 9.1.3).
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    /// The whole message.
    pub message: StunMessage<'a>,
}

/// The two parts of a USERNAME (RFC 8445, section 7.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Username<'a> {
    /// The fragment chosen by the receiver of the request.
    pub server_ufrag: &'a str,
    /// The fragment chosen by the sender of the request.
    pub client_ufrag: &'a str,
}

impl<'a> Username<'a> {
    /// Reads the USERNAME of a message without checking its fingerprint, so that a message for an
    /// unknown session costs little. `None` if USERNAME is missing or has no colon.
    ///
    /// # Errors
    /// Fails if the message is not STUN, or an attribute exceeds it.
    pub fn read(datagram: &'a [u8]) -> Result<Option<Self>, StunError> {
        StunMessage::scan(datagram).map(|message| Self::of(&message))
    }

    fn of(message: &StunMessage<'a>) -> Option<Self> {
        let value = std::str::from_utf8(message.attribute(USERNAME)?).ok()?;
        let (server_ufrag, client_ufrag) = value.split_once(':')?;
        Some(Self { server_ufrag, client_ufrag })
    }
}

impl<'a> BindingRequest<'a> {
    /// Parses a binding request.
    ///
    /// # Errors
    /// Fails if the request is invalid; then send no response.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let message = StunMessage::parse(datagram)?;
        if message.kind() != BINDING_REQUEST {
            return Err(StunError::NotBinding);
        }
        for (kind, value) in message.attributes() {
            let length_fits = match kind {
                USERNAME => value.len() <= 512 && std::str::from_utf8(value).is_ok(),
                PRIORITY => value.len() == 4,
                USE_CANDIDATE => value.is_empty(),
                ICE_CONTROLLING | ICE_CONTROLLED => value.len() == 8,
                _ => true,
            };
            if !length_fits {
                return Err(StunError::Attribute(kind));
            }
        }
        Ok(Self { message })
    }

    /// Returns `None` if USERNAME is missing or has no colon. The gateway sends no response.
    pub fn username(&self) -> Option<Username<'a>> {
        Username::of(&self.message)
    }

    /// Returns whether the sender selects this path (USE-CANDIDATE).
    pub fn use_candidate(&self) -> bool {
        self.message.attribute(USE_CANDIDATE).is_some()
    }

    /// Returns the unknown comprehension-required attributes (RFC 8489, section 6.3.1), at most
    /// `UNKNOWN_MAX`. If there is one, respond with [`write_unknown`].
    pub fn unknown(&self) -> impl Iterator<Item = u16> {
        let known =
            [USERNAME, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, PRIORITY, USE_CANDIDATE];
        self.message
            .attributes()
            .map(|(kind, _)| kind)
            .filter(move |kind| *kind < 0x8000 && !known.contains(kind))
            .take(UNKNOWN_MAX)
    }
}

/// The attributes of a binding request.
#[derive(Clone, Copy, Default, Debug)]
pub struct BindingBuilder<'a> {
    /// A random transaction identifier.
    pub transaction: Transaction,
    /// `None` for a plain probe.
    pub username: Option<Username<'a>>,
    /// Key of the receiver's password.
    pub key: Option<&'a StunKey>,
    /// The priority of a candidate discovered by this check.
    pub priority: Option<u32>,
    /// The tie-breaker of a sender that selects the path; always the case towards an ICE-lite agent
    /// (RFC 8445, section 6.1.1).
    pub controlling: Option<u64>,
    /// True if the request selects this path.
    pub use_candidate: bool,
}

impl BindingBuilder<'_> {
    /// Creates a plain request with only a transaction.
    pub fn probe(transaction: Transaction) -> Self {
        Self { transaction, ..Self::default() }
    }

    /// Appends the request to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = begin(BINDING_REQUEST, self.transaction, out);
        if let Some(Username { server_ufrag, client_ufrag }) = self.username {
            append(USERNAME, format!("{server_ufrag}:{client_ufrag}").as_bytes(), out);
        }
        if let Some(priority) = self.priority {
            append(PRIORITY, &priority.to_be_bytes(), out);
        }
        if let Some(tie_breaker) = self.controlling {
            append(ICE_CONTROLLING, &tie_breaker.to_be_bytes(), out);
        }
        if self.use_candidate {
            append(USE_CANDIDATE, &[], out);
        }
        end(start, self.key, out);
    }
}

/// Appends a check of the controlled agent to `out`. `key` is that of the receiver's password.
pub fn write_check(
    transaction: Transaction,
    Username { server_ufrag, client_ufrag }: Username<'_>,
    key: &StunKey,
    out: &mut Vec<u8>,
) {
    let start = begin(BINDING_REQUEST, transaction, out);
    append(USERNAME, format!("{server_ufrag}:{client_ufrag}").as_bytes(), out);
    append(PRIORITY, &CHECK_PRIORITY.to_be_bytes(), out);
    append(ICE_CONTROLLED, &TIE_BREAKER.to_be_bytes(), out);
    end(start, Some(key), out);
}

/// Appends a success response with the sender's address to `out`. Signs it if the request was
/// verified.
pub fn write_success(
    transaction: Transaction,
    mapped: SocketAddr,
    key: Option<&StunKey>,
    out: &mut Vec<u8>,
) {
    let start = begin(BINDING_SUCCESS, transaction, out);
    append_address(mapped, transaction, out);
    end(start, key, out);
}

/// Appends a signed request of `length` bytes, a multiple of 4, to `out`.
pub fn write_padded_request(
    transaction: Transaction,
    Username { server_ufrag, client_ufrag }: Username<'_>,
    key: &StunKey,
    length: usize,
    out: &mut Vec<u8>,
) {
    let start = begin(BINDING_REQUEST, transaction, out);
    append(USERNAME, format!("{server_ufrag}:{client_ufrag}").as_bytes(), out);
    pad(start, length, out);
    end(start, Some(key), out);
}

/// Like [`write_success`], in `length` bytes, a multiple of 4.
pub fn write_padded_success(
    transaction: Transaction,
    mapped: SocketAddr,
    key: &StunKey,
    length: usize,
    out: &mut Vec<u8>,
) {
    let start = begin(BINDING_SUCCESS, transaction, out);
    append_address(mapped, transaction, out);
    pad(start, length, out);
    end(start, Some(key), out);
}

/// Appends error 420 with the unknown attributes to `out` (RFC 8489, sections 6.3.1 and 14.9).
/// Lists only the first `UNKNOWN_MAX`.
pub fn write_unknown(
    transaction: Transaction,
    attributes: impl Iterator<Item = u16>,
    key: Option<&StunKey>,
    out: &mut Vec<u8>,
) {
    let start = begin(BINDING_ERROR, transaction, out);
    append(ERROR_CODE, b"\0\0\x04\x14Unknown Attribute", out);
    let mut value = [[0; 2]; UNKNOWN_MAX];
    let named = attributes.zip(&mut value).map(|(kind, place)| *place = kind.to_be_bytes()).count();
    append(UNKNOWN_ATTRIBUTES, value[..named].as_flattened(), out);
    end(start, key, out);
}

/// Returns whether a datagram of STUN has the class of a response to a binding request.
pub fn is_response(datagram: &[u8]) -> bool {
    let kind = datagram.first_chunk().map(|kind| u16::from_be_bytes(*kind));
    matches!(kind, Some(BINDING_SUCCESS | BINDING_ERROR))
}

/// A response to a binding request, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The whole message.
    pub message: StunMessage<'a>,
    /// The mapped address, or the error.
    pub outcome: BindingOutcome,
}

/// The content of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindingOutcome {
    /// The source address of the request, as seen by the server.
    Mapped(SocketAddr),
    /// The error code, 300–699.
    Refused(u16),
}

impl<'a> Response<'a> {
    /// Parses a response.
    ///
    /// # Errors
    /// Fails if the response is invalid.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let message = StunMessage::parse(datagram)?;
        let outcome = match message.kind() {
            BINDING_SUCCESS => message
                .attribute(XOR_MAPPED_ADDRESS)
                .and_then(|value| read_address(value, message.transaction()))
                .map(BindingOutcome::Mapped)
                .ok_or(StunError::Attribute(XOR_MAPPED_ADDRESS))?,
            BINDING_ERROR => message
                .attribute(ERROR_CODE)
                .and_then(error_code)
                .map(BindingOutcome::Refused)
                .ok_or(StunError::Attribute(ERROR_CODE))?,
            _ => return Err(StunError::NotBinding),
        };
        Ok(Self { message, outcome })
    }
}

fn error_code(value: &[u8]) -> Option<u16> {
    let &[_, _, class, number] = value.first_chunk()?;
    let (class, number) = (u16::from(class & 7), u16::from(number));
    ((3..=6).contains(&class) && number < 100).then_some(class * 100 + number)
}

#[cfg(test)]
mod tests;
