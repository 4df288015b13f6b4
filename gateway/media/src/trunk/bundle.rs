//! Packets of many sessions in one datagram.
//!
//! Format: `0xE0`, then entries of tag (8 bytes), length (2 bytes) and packet; big endian. With a number: `0xE4`, the number
//! (2 bytes), entries.

use super::Tag;
use crate::demux;

/// Bytes before the first entry.
pub const OVERHEAD: usize = 1;
/// Bytes of an entry besides its packet: tag and length.
pub const ENTRY_OVERHEAD: usize = 10;

/// Bytes before the first entry of a numbered bundle.
const NUMBERED_OVERHEAD: usize = 3;

/// The place of the first byte of a bundle without a number: the entries follow it in both forms.
const PLAIN: usize = NUMBERED_OVERHEAD - OVERHEAD;

/// A datagram being filled with packets. Keeps its memory when cleared.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The numbered form. Its last byte before the entries is the first byte of the other form until a number is set.
    bytes: Vec<u8>,
    /// Limit of `bytes`.
    length_max: usize,
}

impl Bundle {
    /// Creates an empty bundle for datagrams of at most `size_max` bytes (the path MTU less IP and
    /// UDP). A number makes them 2 bytes longer.
    pub fn new(size_max: usize) -> Self {
        let mut bytes = Vec::with_capacity(PLAIN + size_max);
        bytes.extend_from_slice(&[demux::NUMBERED_BUNDLE, 0, demux::BUNDLE]);
        Self { bytes, length_max: PLAIN + size_max }
    }

    /// Adds a packet. Returns whether it fits; if not, the bundle remains unchanged.
    ///
    /// A packet that does not fit an empty bundle never fits; an empty packet is refused.
    pub fn push(&mut self, tag: Tag, packet: &[u8]) -> bool {
        let is_too_long = self.bytes.len() + ENTRY_OVERHEAD + packet.len() > self.length_max;
        !is_too_long && write_entry(tag, packet, &mut self.bytes)
    }

    /// Limit of the datagram, bytes.
    pub fn size_max(&self) -> usize {
        self.length_max - PLAIN
    }

    /// The datagram so far, without a number.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[PLAIN..]
    }

    /// The datagram with a number. The bundle has to be cleared next.
    pub fn numbered(&mut self, number: u16) -> &[u8] {
        self.bytes[1..NUMBERED_OVERHEAD].copy_from_slice(&number.to_be_bytes());
        &self.bytes
    }

    /// The tags, lengths and packets, which both forms have.
    pub(super) fn entries(&self) -> &[u8] {
        &self.bytes[NUMBERED_OVERHEAD..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - PLAIN
    }

    /// True without a packet.
    pub fn is_empty(&self) -> bool {
        self.len() == OVERHEAD
    }

    /// Removes all packets.
    pub fn clear(&mut self) {
        self.bytes.truncate(NUMBERED_OVERHEAD);
        self.bytes[PLAIN] = demux::BUNDLE;
    }
}

/// Adds a packet to a bundle. Returns false if an entry has no such length.
#[inline]
pub(super) fn write_entry(tag: Tag, packet: &[u8], bundle: &mut Vec<u8>) -> bool {
    let Some(length) = u16::try_from(packet.len()).ok().filter(|length| *length > 0) else {
        return false;
    };
    bundle.extend_from_slice(&tag.0.to_be_bytes());
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(packet);
    true
}

/// Reason why a datagram, or the rest of it, is not a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleError {
    /// The first byte is neither 0xE0 nor 0xE4, or no entry follows it and the number.
    #[error("no bundle")]
    Mark,
    /// An entry ends within its tag or length.
    #[error("bundle ends within an entry's tag or length")]
    Entry,
    /// A packet exceeds the datagram.
    #[error("bundled packet exceeds its datagram")]
    Packet,
    /// A packet of length 0.
    #[error("bundled packet is empty")]
    Empty,
}

/// Returns the packets in a datagram, in order; the first malformed entry is the last item.
pub fn entries(datagram: &[u8]) -> BundleEntries<'_> {
    match content(datagram) {
        Some(rest @ [_, ..]) => BundleEntries { rest: Ok(rest) },
        _ => BundleEntries { rest: Err(BundleError::Mark) },
    }
}

/// Returns the bytes after the first byte and, if it has one, the number.
pub(super) fn content(datagram: &[u8]) -> Option<&[u8]> {
    match datagram {
        [demux::BUNDLE, rest @ ..] | [demux::NUMBERED_BUNDLE, _, _, rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Returns the number of a bundle, if it has one.
pub fn number(datagram: &[u8]) -> Option<u16> {
    match datagram {
        [demux::NUMBERED_BUNDLE, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// Returns the tag of the first packet of a bundle that may be cut after it, as in an ICMP error, or the tag of a report of losses.
pub fn first_tag(start: &[u8]) -> Option<Tag> {
    let entry = match start {
        [demux::LOSS_REPORT, rest @ ..] => rest,
        _ => content(start)?,
    };
    entry.first_chunk().map(|tag| Tag(u64::from_be_bytes(*tag)))
}

/// The packets of a datagram, in order.
#[derive(Clone, Debug)]
pub struct BundleEntries<'a> {
    rest: Result<&'a [u8], BundleError>,
}

impl<'a> Iterator for BundleEntries<'a> {
    type Item = Result<(Tag, &'a [u8]), BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = match std::mem::replace(&mut self.rest, Ok(&[])) {
            Ok([]) => return None,
            Ok(rest) => rest,
            Err(reason) => return Some(Err(reason)),
        };
        Some(head(rest).map(|(tag, length)| {
            let (packet, rest) = rest[ENTRY_OVERHEAD..].split_at(length);
            self.rest = Ok(rest);
            (tag, packet)
        }))
    }
}

/// Reads tag and length of the first entry, which must lie whole in `rest`.
fn head(rest: &[u8]) -> Result<(Tag, usize), BundleError> {
    let Some((head, packet)) = rest.split_first_chunk::<ENTRY_OVERHEAD>() else {
        return Err(BundleError::Entry);
    };
    let [t0, t1, t2, t3, t4, t5, t6, t7, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    match length {
        0 => Err(BundleError::Empty),
        _ if length > packet.len() => Err(BundleError::Packet),
        _ => Ok((Tag(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7])), length)),
    }
}

#[cfg(test)]
mod tests;
