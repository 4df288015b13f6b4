//! A STUN message and its attributes: parsed, checked, appended (RFC 8489, section 14).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ring::hmac;

/// The fixed value at bytes 4–7 of every message (RFC 8489, section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Longer messages are refused: the largest UDP payload in a frame of Ethernet, which a client's probe sends (RFC 768, RFC 894).
pub(crate) const MESSAGE_LEN_MAX: usize = 1_472;

const HEADER_LEN: usize = 20;

/// Matches a response to its request; the client chooses it at random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StunError {
    /// The bytes are no STUN message ([`is_stun`]), or longer than `MESSAGE_LEN_MAX`.
    #[error("no STUN message")]
    NotStun,
    /// The message has another class or method: an indication, an allocation, a response instead of
    /// a request.
    #[error("another STUN class or method than expected")]
    NotBinding,
    /// An attribute exceeds the message or has an invalid length.
    #[error("STUN attribute {0:#06x} is malformed")]
    Attribute(u16),
    /// FINGERPRINT is wrong, or not last.
    #[error("STUN fingerprint is wrong")]
    Fingerprint,
}

/// Reason why a message is not authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unverified {
    /// MESSAGE-INTEGRITY is missing.
    #[error("STUN message integrity is missing")]
    Missing,
    /// MESSAGE-INTEGRITY does not match the password and content.
    #[error("STUN message integrity is wrong")]
    Wrong,
}

pub(super) const USERNAME: u16 = 0x0006;
pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(super) const ERROR_CODE: u16 = 0x0009;
pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(super) const PRIORITY: u16 = 0x0024;
pub(super) const USE_CANDIDATE: u16 = 0x0025;
/// RFC 5780, section 7.6.
const PADDING: u16 = 0x0026;
const FINGERPRINT: u16 = 0x8028;
pub(super) const ICE_CONTROLLED: u16 = 0x8029;
pub(super) const ICE_CONTROLLING: u16 = 0x802a;

const ATTRIBUTE_HEADER_LEN: usize = 4;
const INTEGRITY_LEN: usize = 20;
const FINGERPRINT_LEN: usize = 4;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// A message with a valid header and attributes within its length.
#[derive(Clone, Copy, Debug)]
pub struct StunMessage<'a> {
    bytes: &'a [u8],
    /// Offset of MESSAGE-INTEGRITY. Later attributes except FINGERPRINT are ignored (section 14.5).
    integrity_at: Option<usize>,
    /// True if FINGERPRINT ends the message.
    pub(super) has_fingerprint: bool,
    /// End of the attributes that are not ignored.
    end: usize,
}

impl<'a> StunMessage<'a> {
    /// Parses a message and checks its fingerprint.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, StunError> {
        let message = Self::scan(bytes)?;
        if message.has_fingerprint {
            let at = bytes.len() - ATTRIBUTE_HEADER_LEN - FINGERPRINT_LEN;
            if bytes[at + ATTRIBUTE_HEADER_LEN..] != fingerprint(&bytes[..at]).to_be_bytes() {
                return Err(StunError::Fingerprint);
            }
        }
        Ok(message)
    }

    /// Parses a message, except for the value of its fingerprint.
    #[inline]
    pub(super) fn scan(bytes: &'a [u8]) -> Result<Self, StunError> {
        if !is_stun(bytes) || bytes.len() > MESSAGE_LEN_MAX {
            return Err(StunError::NotStun);
        }
        let mut message =
            Self { bytes, integrity_at: None, has_fingerprint: false, end: bytes.len() };
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            let (kind, value) = attribute_at(bytes, at)?;
            match (kind, value.len()) {
                (MESSAGE_INTEGRITY, INTEGRITY_LEN) if message.integrity_at.is_none() => {
                    message.integrity_at = Some(at);
                    message.end = message.end.min(at);
                }
                (MESSAGE_INTEGRITY_SHA256, _) => message.end = message.end.min(at),
                (FINGERPRINT, FINGERPRINT_LEN) => {
                    if at + ATTRIBUTE_HEADER_LEN + FINGERPRINT_LEN != bytes.len() {
                        return Err(StunError::Fingerprint);
                    }
                    message.has_fingerprint = true;
                    message.end = message.end.min(at);
                }
                (MESSAGE_INTEGRITY | FINGERPRINT, length)
                    if length != INTEGRITY_LEN || kind == FINGERPRINT =>
                {
                    return Err(StunError::Attribute(kind));
                }
                _ => {}
            }
            at += ATTRIBUTE_HEADER_LEN + value.len().next_multiple_of(4);
        }
        Ok(message)
    }

    /// Returns class and method, the first two bytes.
    pub(super) fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Identifies the request; repeated in its response.
    pub fn transaction(&self) -> Transaction {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        Transaction(id)
    }

    /// Returns the attributes covered by the integrity, in order.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let (bytes, end) = (self.bytes, self.end);
        let mut at = HEADER_LEN;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (kind, value) = attribute_at(bytes, at).ok()?;
            at += ATTRIBUTE_HEADER_LEN + value.len().next_multiple_of(4);
            Some((kind, value))
        })
    }

    /// Returns the first attribute of this kind; later ones are ignored (section 14).
    pub(super) fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// Checks that the sender knows the password. MESSAGE-INTEGRITY is the HMAC-SHA1 of the message before it, with the
    /// header length adjusted to end after this attribute (section 14.5).
    ///
    /// # Errors
    /// The integrity is missing or wrong.
    pub fn verify(&self, key: &StunKey) -> Result<(), Unverified> {
        let at = self.integrity_at.ok_or(Unverified::Missing)?;
        let value = at + ATTRIBUTE_HEADER_LEN;
        let mut signed = [0; MESSAGE_LEN_MAX];
        let signed = &mut signed[..at];
        signed.copy_from_slice(&self.bytes[..at]);
        set_length(signed, at + ATTRIBUTE_HEADER_LEN + INTEGRITY_LEN);
        let mac = &self.bytes[value..value + INTEGRITY_LEN];
        hmac::verify(&key.0, signed, mac).map_err(|_| Unverified::Wrong)
    }
}

fn attribute_at(bytes: &[u8], at: usize) -> Result<(u16, &[u8]), StunError> {
    let rest = &bytes[at..];
    let Some((&[k0, k1, l0, l1], rest)) = rest.split_first_chunk::<ATTRIBUTE_HEADER_LEN>() else {
        return Err(StunError::Attribute(0));
    };
    let kind = u16::from_be_bytes([k0, k1]);
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length.next_multiple_of(4) > rest.len() {
        return Err(StunError::Attribute(kind));
    }
    Ok((kind, &rest[..length]))
}

/// Begins a message at the end of `out` and returns its offset.
pub(super) fn begin(kind: u16, transaction: Transaction, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    out.extend_from_slice(&transaction.0);
    start
}

pub(super) fn append(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).expect("values written here fit into a datagram");
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len() + value.len().next_multiple_of(4) - value.len(), 0);
}

/// Pads the message that began at `start`, so that it has this length once [`end`] has signed it. A longer message is left as it is.
pub(super) fn pad(start: usize, message_len: usize, out: &mut Vec<u8>) {
    let signed = 2 * ATTRIBUTE_HEADER_LEN + INTEGRITY_LEN + FINGERPRINT_LEN;
    let used = out.len() - start + signed + ATTRIBUTE_HEADER_LEN;
    if let Some(padding) = message_len.min(MESSAGE_LEN_MAX).checked_sub(used) {
        append(PADDING, &[0; MESSAGE_LEN_MAX][..padding], out);
    }
}

/// Ends the message that began at `start`: MESSAGE-INTEGRITY if there is a key, then FINGERPRINT.
pub(super) fn end(start: usize, key: Option<&StunKey>, out: &mut Vec<u8>) {
    if let Some(key) = key {
        let length = out.len() - start + ATTRIBUTE_HEADER_LEN + INTEGRITY_LEN;
        set_length(&mut out[start..], length);
        let mac = hmac::sign(&key.0, &out[start..]);
        append(MESSAGE_INTEGRITY, mac.as_ref(), out);
    }
    let length = out.len() - start + ATTRIBUTE_HEADER_LEN + FINGERPRINT_LEN;
    set_length(&mut out[start..], length);
    let value = fingerprint(&out[start..]);
    append(FINGERPRINT, &value.to_be_bytes(), out);
}

/// Sets the length in the header, for a message of `message_len` bytes.
fn set_length(message: &mut [u8], message_len: usize) {
    let length = u16::try_from(message_len - HEADER_LEN).unwrap_or(u16::MAX);
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Appends XOR-MAPPED-ADDRESS (section 14.2): the address XORed with cookie and transaction, so
/// that NATs do not rewrite it.
pub(super) fn append_address(address: SocketAddr, transaction: Transaction, out: &mut Vec<u8>) {
    let port = (address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes();
    let mut value = [0, 1, port[0], port[1], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let length = match address.ip() {
        IpAddr::V4(ip) => {
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..].copy_from_slice(&ip.octets());
            20
        }
    };
    value[4..].iter_mut().zip(address_mask(transaction)).for_each(|(byte, mask)| *byte ^= mask);
    append(XOR_MAPPED_ADDRESS, &value[..length], out);
}

pub(super) fn read_address(value: &[u8], transaction: Transaction) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([p0, p1]) ^ (MAGIC_COOKIE >> 16) as u16;
    let mut octets = address_mask(transaction);
    octets.iter_mut().zip(address).for_each(|(byte, masked)| *byte ^= masked);
    let ip = match (family, address.len()) {
        (1, 4) => IpAddr::from(*octets.first_chunk::<4>()?),
        (2, 16) => IpAddr::from(octets),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn address_mask(transaction: Transaction) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&transaction.0);
    mask
}

/// Computes the CRC-32 of the message before the attribute, XORed with "STUN" (section 14.7). The
/// length in the header already includes the attribute.
fn fingerprint(message: &[u8]) -> u32 {
    crc32fast::hash(message) ^ FINGERPRINT_XOR
}
