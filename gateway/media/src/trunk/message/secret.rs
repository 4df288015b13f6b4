//! What both ends of a trunk leg know, and sign with.

use ring::{digest, hmac};
use std::fmt;

/// A shorter secret is refused: below 128 bits it could be guessed from one recorded message.
pub const SECRET_LEN_MIN: usize = 16;

/// Which secret signed a message: the first four bytes of the secret's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyId(pub u32);

/// What both ends of a trunk leg know.
#[derive(Clone)]
pub struct Secret {
    pub(super) key: hmac::Key,
    pub(super) id: KeyId,
}

/// A secret too short to be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooShort {
    /// Its length in bytes, without the line's end; [`SECRET_LEN_MIN`] are needed.
    pub length: usize,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret has {} bytes, at least {SECRET_LEN_MIN} are needed", self.length)
    }
}

impl std::error::Error for TooShort {}

impl Secret {
    /// A secret from the bytes of its file; a line's end at the end is not part of it.
    ///
    /// # Errors
    /// Shorter than [`SECRET_LEN_MIN`].
    pub fn new(bytes: &[u8]) -> Result<Self, TooShort> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.len() < SECRET_LEN_MIN {
            return Err(TooShort { length: bytes.len() });
        }
        let hash = digest::digest(&digest::SHA256, bytes);
        let id = hash.as_ref().first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), id: KeyId(id) })
    }

    /// The name messages call it by.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.id)
    }
}
