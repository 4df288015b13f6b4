//! The bytes of states. serde writes them as one value, and not as a list of numbers.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

/// Most states have no more bytes than this, and the questions and answers about them allocate nothing for each.
const IN_PLACE_MAX: usize = 64;

/// Bytes that are stored in place if they are few.
#[derive(Clone)]
pub struct StateBytes(Storage);

#[derive(Clone)]
enum Storage {
    InPlace { length: u8, bytes: [u8; IN_PLACE_MAX] },
    Apart(Box<[u8]>),
}

impl From<&[u8]> for StateBytes {
    #[inline]
    fn from(from: &[u8]) -> StateBytes {
        let mut bytes = [0; IN_PLACE_MAX];
        match bytes.get_mut(..from.len()) {
            Some(place) => {
                place.copy_from_slice(from);
                StateBytes(Storage::InPlace { length: from.len() as u8, bytes })
            }
            None => StateBytes(Storage::Apart(from.into())),
        }
    }
}

impl<const N: usize> From<[u8; N]> for StateBytes {
    fn from(bytes: [u8; N]) -> StateBytes {
        bytes.as_slice().into()
    }
}

impl From<Box<[u8]>> for StateBytes {
    fn from(bytes: Box<[u8]>) -> StateBytes {
        if bytes.len() <= IN_PLACE_MAX {
            return (&*bytes).into();
        }
        StateBytes(Storage::Apart(bytes))
    }
}

impl From<Vec<u8>> for StateBytes {
    fn from(bytes: Vec<u8>) -> StateBytes {
        if bytes.len() <= IN_PLACE_MAX {
            return bytes.as_slice().into();
        }
        StateBytes(Storage::Apart(bytes.into()))
    }
}

impl FromIterator<u8> for StateBytes {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> StateBytes {
        Vec::from_iter(bytes).into()
    }
}

impl Deref for StateBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Storage::InPlace { length, bytes } => &bytes[..usize::from(*length)],
            Storage::Apart(bytes) => bytes,
        }
    }
}

impl DerefMut for StateBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Storage::InPlace { length, bytes } => &mut bytes[..usize::from(*length)],
            Storage::Apart(bytes) => bytes,
        }
    }
}

impl PartialEq for StateBytes {
    fn eq(&self, other: &StateBytes) -> bool {
        **self == **other
    }
}

impl Eq for StateBytes {}

impl fmt::Debug for StateBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Writes the bytes as one value.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Reads bytes as one value, or as a list of numbers.
///
/// # Errors
///
/// The value is neither.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<StateBytes, D::Error> {
    deserializer.deserialize_byte_buf(BytesVisitor)
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = StateBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(bytes.into())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
        Ok(bytes.into())
    }

    /// Formats without bytes write a list.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_in_place_up_to_64() {
        for length in [0, 1, 63, 64, 65, 4_096] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let kept = StateBytes::from(bytes.as_slice());
            assert_eq!(*kept, *bytes);
            assert_eq!(matches!(kept.0, Storage::InPlace { .. }), length <= 64, "{length}");
            let boxed = StateBytes::from(bytes.clone().into_boxed_slice());
            assert_eq!((&kept, &kept), (&boxed, &StateBytes::from(bytes)));
        }
    }

    #[test]
    fn bytes_of_another_length_differ() {
        let mut bytes = StateBytes::from([1, 2]);
        assert_ne!(bytes, StateBytes::from([1, 2, 0]));
        bytes.fill(7);
        assert_eq!(bytes, StateBytes::from([7, 7]));
    }
}
