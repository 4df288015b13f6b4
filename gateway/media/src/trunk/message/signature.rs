//! Head and signature of all messages.

use super::{GroupOwner, KEEP_MAX, KeyId, MessageError, NodeSecret, OWNED, SKEW_MAX_US, VERSION};
use crate::demux;
use crate::trunk::Tag;
use ring::hmac;

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
    out.extend_from_slice(&[0; 4]);
}

pub(super) fn sign(secret: &NodeSecret, start: usize, out: &mut Vec<u8>) {
    let mac = hmac::sign(&secret.key, &out[start..]);
    out.extend_from_slice(mac.as_ref());
}

pub(super) fn write_tags(tags: &[Tag], out: &mut Vec<u8>) {
    tags.iter().for_each(|tag| out.extend_from_slice(&tag.0.to_be_bytes()));
}

pub(super) fn write_padding(bytes: u16, out: &mut Vec<u8>) {
    out.resize(out.len() + usize::from(bytes), 0);
}

/// A message with a valid signature and time.
pub(super) struct SignedMessage<'a> {
    pub(super) kind: u8,
    pub(super) owner: Option<GroupOwner>,
    pub(super) body: &'a [u8],
    pub(super) nonce: u64,
    pub(super) sent_us: u64,
}

pub(super) fn verify<'a>(
    datagram: &'a [u8],
    direction: u8,
    secret: &NodeSecret,
    now_us: u64,
) -> Result<SignedMessage<'a>, MessageError> {
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
        return Err(MessageError::Time { ahead_us: ahead_us(sent_us, now_us) });
    }
    let mut body = MessageBody(body);
    let owner = is_owned.then(|| read_owner(&mut body)).transpose()?;
    Ok(SignedMessage { kind, owner, body: body.0, nonce, sent_us })
}

fn read_owner(body: &mut MessageBody<'_>) -> Result<GroupOwner, MessageError> {
    let owner = GroupOwner { epoch: body.u64()?, group: body.u32()? };
    body.skip::<4>()?;
    if owner.epoch == 0 { Err(MessageError::Unknown) } else { Ok(owner) }
}

/// Returns the sender's clock less the local clock.
pub(super) fn ahead_us(sent_us: u64, now_us: u64) -> i64 {
    let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    signed(sent_us) - signed(now_us)
}

/// The unread part of a body.
pub(super) struct MessageBody<'a>(pub(super) &'a [u8]);

impl MessageBody<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(MessageError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn skip<const N: usize>(&mut self) -> Result<(), MessageError> {
        self.take::<N>().map(|_| ())
    }

    pub(super) fn u8(&mut self) -> Result<u8, MessageError> {
        self.take().map(u8::from_be_bytes)
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
