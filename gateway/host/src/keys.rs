//! Trust: known keys, and revoked keys and digests.

use std::sync::Arc;

use data_encoding::HEXLOWER;

use crate::refused::PluginRefusal;
use crate::shipped::shipped;
use crate::signature::{BadKey, PublicKey, content_digest, sha256, signer, unhex};

/// Known keys and revocations. Default: empty.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TrustedKeys {
    known: Vec<(Arc<str>, PublicKey)>,
    revoked_keys: Vec<PublicKey>,
    revoked_digests: Vec<[u8; 32]>,
}

/// Digests and key of a running plugin, to check against later revocations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginSeal {
    digests: [[u8; 32]; 2],
    signer: Option<PublicKey>,
}

impl PluginSeal {
    /// The seal of a plugin file.
    ///
    /// # Errors
    /// As [`signer`].
    pub fn of(plugin: &[u8]) -> Result<PluginSeal, PluginRefusal> {
        Ok(PluginSeal { digests: digests(plugin)?, signer: signer(plugin)? })
    }
}

/// Digests of the whole file, and of its bytes without the signature.
fn digests(plugin: &[u8]) -> Result<[[u8; 32]; 2], PluginRefusal> {
    Ok([sha256(plugin), content_digest(plugin)?])
}

/// The reason why a plugin is trusted, if any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Provenance {
    /// The plugin is embedded in this binary, byte for byte.
    Shipped,
    /// The plugin is signed with the known key of this name.
    Signed(Arc<str>),
    /// The plugin is neither shipped nor signed with a known key.
    Unsigned,
}

/// Treatment of plugins that are neither shipped nor signed with a known key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsigned {
    /// Unsigned plugins run.
    Allow,
    /// Only plugins that a trusted key signed run.
    Refuse,
}

impl TrustedKeys {
    /// Adds a key; a plugin signed with it is accepted.
    pub fn know(&mut self, name: Arc<str>, key: PublicKey) {
        self.known.push((name, key));
    }

    /// Revokes a key with all its signatures.
    pub fn revoke_key(&mut self, key: PublicKey) {
        self.revoked_keys.push(key);
    }

    /// Revokes a plugin by SHA-256 of its file, or of its bytes without the signature.
    pub fn revoke_digest(&mut self, digest: [u8; 32]) {
        self.revoked_digests.push(digest);
    }

    /// Names and keys, in the order they were added.
    pub fn known(&self) -> &[(Arc<str>, PublicKey)] {
        &self.known
    }

    /// Checks the trust in a plugin.
    ///
    /// A revoked plugin is refused whatever its signature. A signature by an unknown key counts as none.
    ///
    /// # Errors
    /// [`PluginRefusal::Revoked`]; [`PluginRefusal::Signature`] for an invalid one; [`PluginRefusal::Unsigned`] if `unsigned` requires a signature;
    /// and [`PluginRefusal::NotWasm`].
    pub fn judge(&self, plugin: &[u8], unsigned: Unsigned) -> Result<Provenance, PluginRefusal> {
        self.spare_digests(&digests(plugin)?)?;
        if shipped().iter().any(|shipped| shipped.bytes == plugin) {
            return Ok(Provenance::Shipped);
        }
        let signer = signer(plugin)?;
        if let Some(key) = signer {
            self.spare_key(key)?;
            if let Some(name) = self.name_of(key) {
                return Ok(Provenance::Signed(name));
            }
        }
        match unsigned {
            Unsigned::Allow => Ok(Provenance::Unsigned),
            Unsigned::Refuse => Err(PluginRefusal::Unsigned { by: signer }),
        }
    }

    /// Checks that a plugin accepted before is not revoked.
    ///
    /// # Errors
    /// [`PluginRefusal::Revoked`].
    pub fn spare(&self, seal: &PluginSeal) -> Result<(), PluginRefusal> {
        self.spare_digests(&seal.digests)?;
        seal.signer.map_or(Ok(()), |key| self.spare_key(key))
    }

    fn spare_digests(&self, digests: &[[u8; 32]]) -> Result<(), PluginRefusal> {
        match digests.iter().find(|digest| self.revoked_digests.contains(*digest)) {
            Some(digest) => Err(PluginRefusal::Revoked {
                what: format!("sha256:{}", HEXLOWER.encode(digest)).into(),
            }),
            None => Ok(()),
        }
    }

    fn spare_key(&self, key: PublicKey) -> Result<(), PluginRefusal> {
        if !self.revoked_keys.contains(&key) {
            return Ok(());
        }
        let name = self.name_of(key);
        let what = name.map_or_else(|| key.to_string(), |name| format!("key `{name}`, {key}"));
        Err(PluginRefusal::Revoked { what: what.into() })
    }

    fn name_of(&self, key: PublicKey) -> Option<Arc<str>> {
        let known = self.known.iter().find(|(_, known)| *known == key);
        known.map(|(name, _)| Arc::clone(name))
    }
}

/// Parses a SHA-256 digest: `sha256:` and 64 hexadecimal digits.
///
/// # Errors
/// The invalid text.
pub fn read_digest(text: &str) -> Result<[u8; 32], BadKey> {
    unhex(text, "sha256:")
}

#[cfg(test)]
mod tests;
