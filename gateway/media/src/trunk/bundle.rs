//! Packets of many sessions in one datagram.
//!
//! `0xE0`, then entries of tag (8 bytes), length (2) and packet, big endian.

use super::Tag;
use crate::demux;
use std::fmt;

/// Bytes before the first entry.
pub const OVERHEAD: usize = 1;
/// Bytes of an entry besides its packet: tag and length.
pub const ENTRY_OVERHEAD: usize = 10;

/// A datagram being filled with packets. Keeps its memory when cleared.
#[derive(Clone, Debug)]
pub struct Bundle {
    bytes: Vec<u8>,
    size_max: usize,
    packets: usize,
}

impl Bundle {
    /// An empty bundle for datagrams of at most `size_max` bytes (the path MTU less IP and UDP).
    #[must_use]
    pub fn new(size_max: usize) -> Self {
        let mut bytes = Vec::with_capacity(size_max);
        bytes.push(demux::BUNDLE);
        Self { bytes, size_max, packets: 0 }
    }

    /// Adds a packet; returns whether it fit. If not, the bundle is unchanged.
    ///
    /// A packet that does not fit an empty bundle never fits; an empty packet is refused.
    #[must_use]
    pub fn push(&mut self, tag: Tag, packet: &[u8]) -> bool {
        let Ok(length) = u16::try_from(packet.len()) else { return false };
        if length == 0 || self.bytes.len() + ENTRY_OVERHEAD + packet.len() > self.size_max {
            return false;
        }
        self.bytes.extend_from_slice(&tag.0.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(packet);
        self.packets += 1;
        true
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub fn packets(&self) -> usize {
        self.packets
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    pub fn clear(&mut self) {
        self.bytes.truncate(OVERHEAD);
        self.packets = 0;
    }
}

/// Why a datagram, or the rest of it, is not a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// The first byte is not 0xE0, or no entry follows it.
    Mark,
    /// An entry ends within its tag or length.
    Entry,
    /// A packet exceeds the datagram.
    Packet,
    /// A packet of length 0.
    Empty,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mark => "no bundle",
            Self::Entry => "bundle ends within an entry's tag or length",
            Self::Packet => "bundled packet exceeds its datagram",
            Self::Empty => "bundled packet is empty",
        })
    }
}

impl std::error::Error for Malformed {}

/// The packets in a datagram, in order; the first malformed entry is the last item.
#[must_use]
pub fn entries(datagram: &[u8]) -> Entries<'_> {
    match datagram.split_first() {
        Some((&demux::BUNDLE, rest)) if !rest.is_empty() => Entries { rest: Ok(rest) },
        _ => Entries { rest: Err(Malformed::Mark) },
    }
}

/// Like [`entries`], with packets that can be modified in place.
#[must_use]
pub fn entries_mut(datagram: &mut [u8]) -> EntriesMut<'_> {
    match datagram.split_first_mut() {
        Some((&mut demux::BUNDLE, rest)) if !rest.is_empty() => EntriesMut { rest: Ok(rest) },
        _ => EntriesMut { rest: Err(Malformed::Mark) },
    }
}

#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: Result<&'a [u8], Malformed>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(Tag, &'a [u8]), Malformed>;

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

#[derive(Debug)]
pub struct EntriesMut<'a> {
    rest: Result<&'a mut [u8], Malformed>,
}

impl<'a> Iterator for EntriesMut<'a> {
    type Item = Result<(Tag, &'a mut [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = match std::mem::replace(&mut self.rest, Ok(&mut [])) {
            Ok([]) => return None,
            Ok(rest) => rest,
            Err(reason) => return Some(Err(reason)),
        };
        Some(head(rest).map(|(tag, length)| {
            let (packet, rest) = rest[ENTRY_OVERHEAD..].split_at_mut(length);
            self.rest = Ok(rest);
            (tag, packet)
        }))
    }
}

/// Tag and length of the first entry, which lies whole in `rest`.
fn head(rest: &[u8]) -> Result<(Tag, usize), Malformed> {
    let Some((head, packet)) = rest.split_first_chunk::<ENTRY_OVERHEAD>() else {
        return Err(Malformed::Entry);
    };
    let [t0, t1, t2, t3, t4, t5, t6, t7, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    match length {
        0 => Err(Malformed::Empty),
        _ if length > packet.len() => Err(Malformed::Packet),
        _ => Ok((Tag(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7])), length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(packets: &[(u64, &[u8])]) -> Bundle {
        let mut bundle = Bundle::new(1_200);
        for (tag, packet) in packets {
            assert!(bundle.push(Tag(*tag), packet));
        }
        bundle
    }

    #[test]
    fn packets_of_any_size_are_read_back_in_order() {
        let packets: [(u64, &[u8]); 3] = [(1, b"a"), (u64::MAX, &[2; 700]), (1, b"ccc")];
        let mut bytes = bundle(&packets).as_bytes().to_vec();
        let read: Vec<_> = entries(&bytes).map(Result::unwrap).collect();
        assert_eq!(read, packets.map(|(tag, packet)| (Tag(tag), packet)));
        let read: Vec<_> =
            entries_mut(&mut bytes).map(|e| e.map(|(t, p)| (t, p.to_vec()))).collect();
        assert_eq!(read, packets.map(|(tag, packet)| Ok((Tag(tag), packet.to_vec()))));
    }

    #[test]
    fn rewriting_an_entry_leaves_others_unchanged() {
        let mut bytes = bundle(&[(1, b"aaa"), (2, b"bbb"), (3, b"ccc")]).as_bytes().to_vec();
        for entry in entries_mut(&mut bytes) {
            let (tag, packet) = entry.unwrap();
            if tag == Tag(2) {
                packet.fill(b'x');
            }
        }
        assert_eq!(bytes, bundle(&[(1, b"aaa"), (2, b"xxx"), (3, b"ccc")]).as_bytes());
    }

    #[test]
    fn bundle_fills_to_the_byte() {
        let size_max = OVERHEAD + 2 * ENTRY_OVERHEAD + 30;
        let mut bundle = Bundle::new(size_max);
        assert!(bundle.push(Tag(1), &[0; 10]));
        assert!(!bundle.push(Tag(2), &[0; 21]));
        assert_eq!((bundle.packets(), bundle.as_bytes().len()), (1, 21));
        assert!(bundle.push(Tag(2), &[0; 20]));
        assert_eq!(bundle.as_bytes().len(), size_max);
        assert!(!bundle.push(Tag(3), &[0]));
    }

    #[test]
    fn cleared_bundle_keeps_its_memory() {
        let again = bundle(&[(2, b"b")]);
        let mut bundle = bundle(&[(1, b"a")]);
        let memory = bundle.as_bytes().as_ptr();
        bundle.clear();
        assert!(bundle.is_empty());
        assert!(bundle.push(Tag(2), b"b"));
        assert_eq!(bundle.as_bytes(), again.as_bytes());
        assert_eq!(bundle.as_bytes().as_ptr(), memory);
    }

    #[test]
    fn packet_above_the_length_field_is_refused() {
        let mut bundle = Bundle::new(1 << 20);
        assert!(!bundle.push(Tag(1), &[]));
        assert!(!bundle.push(Tag(1), &vec![0; 65_536]));
        assert!(bundle.push(Tag(1), &vec![0; 65_535]));
    }

    #[test]
    fn truncated_bundle_yields_whole_entries_then_error() {
        let mut whole = bundle(&[(1, b"aaa"), (2, b"bbb")]).as_bytes().to_vec();
        for length in 0..whole.len() {
            let expected = match length {
                0..2 => (0, Some(Malformed::Mark)),
                2..11 => (0, Some(Malformed::Entry)),
                11..14 => (0, Some(Malformed::Packet)),
                14 => (1, None),
                15..24 => (1, Some(Malformed::Entry)),
                _ => (1, Some(Malformed::Packet)),
            };
            let items: Vec<_> = entries(&whole[..length]).collect();
            assert_eq!(items.iter().filter(|item| item.is_ok()).count(), expected.0, "{length}");
            assert_eq!(items.iter().find_map(|item| item.err()), expected.1, "{length}");
            let errors = entries_mut(&mut whole[..length]).filter_map(Result::err);
            assert_eq!(errors.collect::<Vec<_>>(), expected.1.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn empty_packet_and_wrong_mark_are_refused() {
        let mut bytes = vec![demux::BUNDLE];
        bytes.extend_from_slice(&[0; ENTRY_OVERHEAD]);
        assert_eq!(entries(&bytes).collect::<Vec<_>>(), [Err(Malformed::Empty)]);
        bytes[0] = demux::SIGNED;
        assert_eq!(entries(&bytes).collect::<Vec<_>>(), [Err(Malformed::Mark)]);
    }
}
