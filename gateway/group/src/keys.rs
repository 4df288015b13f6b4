//! The keys of a group.

use evenkeel_config::SecretFile;
use ring::{hkdf, hmac};

/// Separates the keys of this protocol from other uses of the secret.
const PROTOCOL: &[u8] = b"evenkeel cluster 1";

/// Identifies a secret in a beat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BeatKeyId(pub(super) [u8; 4]);

/// The keys that follow from a secret by HKDF-SHA256 (RFC 5869).
pub(super) struct GroupKeys(hkdf::Prk);

impl GroupKeys {
    pub(super) fn of(secret: &SecretFile) -> GroupKeys {
        GroupKeys(hkdf::Salt::new(hkdf::HKDF_SHA256, PROTOCOL).extract(secret.bytes()))
    }

    pub(super) fn id(&self) -> BeatKeyId {
        let [a, b, c, d, ..] = self.bytes(&[b"id"]);
        BeatKeyId([a, b, c, d])
    }

    /// The key of beats in one direction. Names contain no space.
    pub(super) fn beats(&self, sender: &str, recipient: &str) -> hmac::Key {
        let bytes = self.bytes(&[b"beats ", sender.as_bytes(), b" ", recipient.as_bytes()]);
        hmac::Key::new(hmac::HMAC_SHA256, &bytes)
    }

    /// The seed of the private key of connections.
    pub(super) fn link(&self) -> [u8; 32] {
        self.bytes(&[b"link"])
    }

    fn bytes(&self, info: &[&[u8]]) -> [u8; 32] {
        let mut bytes = [0; 32];
        let filled = self.0.expand(info, hkdf::HKDF_SHA256).and_then(|key| key.fill(&mut bytes));
        filled.expect("a key is as long as the hash");
        bytes
    }
}
