//! Responses to binding requests: the gateway writes them; probes and the lab parse them.

use super::attribute::{
    ERROR_CODE, StunMessage, UNKNOWN_ATTRIBUTES, XOR_MAPPED_ADDRESS, append, append_address, begin,
    end, read_address,
};
use super::{StunError, StunKey, Transaction, UNKNOWN_MAX, Unverified};
use std::net::SocketAddr;

const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// Error codes (RFC 8489, section 14.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StunErrorCode {
    /// 400: USERNAME or MESSAGE-INTEGRITY is missing or malformed.
    BadRequest,
    /// 401: unknown username or wrong password.
    Unauthenticated,
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

/// Appends an error response to `out`, unsigned because there is no shared password.
pub fn write_error(transaction: Transaction, code: StunErrorCode, out: &mut Vec<u8>) {
    let start = begin(BINDING_ERROR, transaction, out);
    let value: &[u8] = match code {
        StunErrorCode::BadRequest => b"\0\0\x04\x00Bad Request",
        StunErrorCode::Unauthenticated => b"\0\0\x04\x01Unauthenticated",
    };
    append(ERROR_CODE, value, out);
    end(start, None, out);
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
    let mut value = [0; 2 * UNKNOWN_MAX];
    let mut length = 0;
    for (kind, place) in attributes.zip(value.chunks_exact_mut(2)) {
        place.copy_from_slice(&kind.to_be_bytes());
        length += 2;
    }
    append(UNKNOWN_ATTRIBUTES, &value[..length], out);
    end(start, key, out);
}

/// A response to a binding request, parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    message: StunMessage<'a>,
    outcome: BindingOutcome,
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

    /// The transaction of the request.
    pub fn transaction(&self) -> Transaction {
        self.message.transaction()
    }

    /// The mapped address, or the error.
    pub fn outcome(&self) -> BindingOutcome {
        self.outcome
    }

    /// Checks that the sender knows the password.
    ///
    /// # Errors
    /// Fails if the integrity is missing or wrong; a client then drops the response.
    pub fn verify(&self, key: &StunKey) -> Result<(), Unverified> {
        self.message.verify(key)
    }
}

fn error_code(value: &[u8]) -> Option<u16> {
    let &[_, _, class, number] = value.first_chunk()?;
    let (class, number) = (u16::from(class & 7), u16::from(number));
    ((3..=6).contains(&class) && number < 100).then_some(class * 100 + number)
}
