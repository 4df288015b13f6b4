//! The shared secret of a trunk leg.

use ring::{digest, hkdf, hmac};
use std::fmt;
use std::sync::Arc;

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
    keys: Arc<hkdf::Prk>,
}

/// A secret with fewer than 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooShort {
    /// Length in bytes, without a line end; at least `SECRET_LEN_MIN` are required.
    pub length: usize,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret of {} bytes, at least {SECRET_LEN_MIN} needed", self.length)
    }
}

impl std::error::Error for TooShort {}

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

    pub(in crate::trunk) fn keys(&self) -> Arc<hkdf::Prk> {
        Arc::clone(&self.keys)
    }

    /// The key's name in messages.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.id)
    }
}
