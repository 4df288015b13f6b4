//! Head and signature of all messages: the shared secret of a trunk leg, and protection against replays.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ring::{digest, hkdf, hmac};

use super::{GroupOwner, KEEP_MAX, MessageError, OWNED, SKEW_MAX_US, VERSION, Verified};
use crate::demux;
use crate::trunk::Tag;

pub(super) const HEAD_LEN: usize = 24;
pub(super) const MAC_LEN: usize = 32;

/// Direction from the gateway to a node.
pub(super) const QUESTION: u8 = 0;
/// Direction from a node to the gateway.
pub(super) const ANSWER: u8 = 1;

pub(super) fn write_head(
    kind: u8,
    direction: u8,
    secret: &NodeSecret,
    nonce: u64,
    now_us: u64,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&[demux::SIGNED, VERSION, kind, direction]);
    out.extend_from_slice(&secret.id.0.to_be_bytes());
    out.extend_from_slice(&nonce.to_be_bytes());
    out.extend_from_slice(&now_us.to_be_bytes());
}

/// Makes the head that was just written that of a question in the name of an owner.
pub(super) fn write_owner(owner: GroupOwner, start: usize, out: &mut Vec<u8>) {
    out[start + 1] = OWNED;
    out.extend_from_slice(&owner.epoch.to_be_bytes());
    out.extend_from_slice(&owner.group.to_be_bytes());
    write_zeros(4, out);
}

pub(super) fn sign(secret: &NodeSecret, start: usize, out: &mut Vec<u8>) {
    let mac = hmac::sign(&secret.key, &out[start..]);
    out.extend_from_slice(mac.as_ref());
}

pub(super) fn write_tags(tags: &[Tag], out: &mut Vec<u8>) {
    tags.iter().for_each(|tag| out.extend_from_slice(&tag.0.to_be_bytes()));
}

pub(super) fn write_zeros(bytes: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + bytes, 0);
}

/// Checks signature and time. Returns the body, and the kind in place of the message.
pub(super) fn verify<'a>(
    datagram: &'a [u8],
    direction: u8,
    secret: &NodeSecret,
    now_us: u64,
) -> Result<(MessageBody<'a>, Verified<u8>), MessageError> {
    let Some((signed, mac)) = datagram.split_last_chunk::<MAC_LEN>() else {
        return Err(MessageError::Length);
    };
    let Some((&head, body)) = signed.split_first_chunk::<HEAD_LEN>() else {
        return Err(MessageError::Length);
    };
    let [mark, version, kind, found_direction, numbers @ ..] = head;
    let mut numbers = MessageBody(&numbers);
    let (id, nonce, sent_us) = (KeyId(numbers.u32()?), numbers.u64()?, numbers.u64()?);
    if mark != demux::SIGNED {
        return Err(MessageError::Length);
    }
    let is_owned = version == OWNED && found_direction == QUESTION;
    if version != VERSION && !is_owned {
        return Err(MessageError::Version(version));
    }
    if id != secret.id {
        return Err(MessageError::Key(id));
    }
    hmac::verify(&secret.key, signed, mac).map_err(|_| MessageError::Forged)?;
    if found_direction != direction {
        return Err(MessageError::Direction);
    }
    if sent_us.abs_diff(now_us) > SKEW_MAX_US {
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        return Err(MessageError::Time { ahead_us: signed(sent_us) - signed(now_us) });
    }
    let mut body = MessageBody(body);
    let owner = is_owned.then(|| read_owner(&mut body)).transpose()?;
    Ok((body, Verified { message: kind, nonce, owner, sent_us }))
}

fn read_owner(body: &mut MessageBody<'_>) -> Result<GroupOwner, MessageError> {
    let owner = GroupOwner { epoch: body.u64()?, group: body.u32()? };
    body.skip(4)?;
    if owner.epoch == 0 { Err(MessageError::Unknown) } else { Ok(owner) }
}

/// The unread part of a body.
pub(super) struct MessageBody<'a>(pub(super) &'a [u8]);

impl MessageBody<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(MessageError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn skip(&mut self, bytes: usize) -> Result<(), MessageError> {
        self.0 = self.0.get(bytes..).ok_or(MessageError::Length)?;
        Ok(())
    }

    pub(super) fn u8(&mut self) -> Result<u8, MessageError> {
        self.take().map(u8::from_be_bytes)
    }

    /// Reads a byte of which the last bit is in use.
    pub(super) fn flag(&mut self) -> Result<bool, MessageError> {
        self.u8().map(|byte| byte & 1 == 1)
    }

    /// Reads a byte that is an index into this list.
    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T, MessageError> {
        all.get(usize::from(self.u8()?)).copied().ok_or(MessageError::Unknown)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MessageError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MessageError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, MessageError> {
        self.take().map(u64::from_be_bytes)
    }

    /// Reads the rest as tags, at most [`KEEP_MAX`].
    pub(super) fn tags(&mut self) -> Result<Box<[Tag]>, MessageError> {
        let (tags, rest) = self.0.as_chunks();
        if tags.len() > KEEP_MAX {
            return Err(MessageError::Length);
        }
        self.0 = rest;
        Ok(tags.iter().map(|&tag| Tag(u64::from_be_bytes(tag))).collect())
    }

    /// Reads the rest and returns its length beyond `beside` bytes; all must be zero.
    pub(super) fn padding(&mut self, beside: usize) -> Result<u16, MessageError> {
        let bytes = self.0.len().checked_sub(beside).and_then(|bytes| u16::try_from(bytes).ok());
        let bytes = bytes.ok_or(MessageError::Length)?;
        if self.0.iter().any(|&byte| byte != 0) {
            return Err(MessageError::Unknown);
        }
        self.0 = &[];
        Ok(bytes)
    }

    pub(super) fn finish(self) -> Result<(), MessageError> {
        if self.0.is_empty() { Ok(()) } else { Err(MessageError::Length) }
    }
}

/// Shorter secrets are refused: one below 128 bits could be guessed from one recorded message.
pub(crate) const SECRET_LEN_MIN: usize = 16;

/// Identifies the secret of a message: the first four bytes of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyId(pub u32);

/// Separates the keys of this protocol and version from other uses of the secret.
const PROTOCOL: &[u8] = b"evenkeel trunk 2 ";

/// The keys of one node, derived from the secret and the node's name by HKDF-SHA256 (RFC 5869). A
/// message for another node therefore has a wrong signature, even if both nodes share the secret.
#[derive(Clone)]
pub struct NodeSecret {
    pub(super) key: hmac::Key,
    pub(super) id: KeyId,
    /// Source of the keys of encrypted datagrams.
    pub(in crate::trunk) keys: Arc<hkdf::Prk>,
}

/// A secret with fewer than 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("secret of {length} bytes, at least {SECRET_LEN_MIN} needed")]
pub struct TooShort {
    /// Length in bytes, without a line end; at least `SECRET_LEN_MIN` are required.
    pub length: usize,
}

impl NodeSecret {
    /// Derives the keys of the node with this name from the bytes of the secret's file; a trailing
    /// line end is ignored.
    ///
    /// # Errors
    /// Fails for less than `SECRET_LEN_MIN` bytes.
    ///
    /// # Panics
    /// Never: HKDF limits keys to 255 hashes, and a key is one hash long.
    pub fn new(bytes: &[u8], node: &str) -> Result<Self, TooShort> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.len() < SECRET_LEN_MIN {
            return Err(TooShort { length: bytes.len() });
        }
        let hash = digest::digest(&digest::SHA256, bytes);
        let id = hash.as_ref().first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
        let salt = [PROTOCOL, node.as_bytes()].concat();
        let keys = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(bytes);
        let key = keys.expand(&[b"message"], hmac::HMAC_SHA256);
        let key = key.map(hmac::Key::from).expect("one hash is long enough");
        Ok(Self { key, id: KeyId(id), keys: Arc::new(keys) })
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.id)
    }
}

/// Limit of remembered messages: [`SKEW_MAX_US`] at 13,000 per second. Above it the oldest are
/// forgotten, and every message of their age is refused.
pub(crate) const REPLAYS_MAX: usize = 65_536;

/// Messages accepted within the time window, by signing time and signature.
#[derive(Clone, Default, Debug)]
pub struct Replays {
    seen: BTreeSet<(u64, u64)>,
    /// Signing time before which messages are refused.
    floor_us: u64,
}

impl Replays {
    /// Refuses messages that were signed before this Unix time in microseconds, at which the process began: another one may have
    /// accepted them. The messages of a clock that lags are refused for the time by which it lags.
    pub fn since(began_us: u64) -> Replays {
        Replays { floor_us: began_us, ..Replays::default() }
    }

    /// Remembers a verified message.
    ///
    /// # Errors
    /// Returns [`MessageError::Replayed`] if the message was, or may have been, accepted before.
    pub(super) fn note(
        &mut self,
        datagram: &[u8],
        sent_us: u64,
        now_us: u64,
    ) -> Result<(), MessageError> {
        let stale_us = now_us.saturating_sub(SKEW_MAX_US);
        while self.seen.first().is_some_and(|(sent_us, _)| *sent_us < stale_us) {
            self.seen.pop_first();
        }
        let signature = datagram.last_chunk().map_or(0, |last| u64::from_be_bytes(*last));
        if sent_us < self.floor_us || !self.seen.insert((sent_us, signature)) {
            return Err(MessageError::Replayed);
        }
        if self.seen.len() > REPLAYS_MAX
            && let Some((oldest_us, _)) = self.seen.pop_first()
        {
            self.floor_us = oldest_us + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
