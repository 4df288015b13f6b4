//! Trust in plugins: signatures, known keys, and revoked keys and digests.
//!
//! Plugins are signed with Ed25519 (RFC 8032), in the custom section `evenkeel:signature` at the end. The section holds a
//! byte 1, the public key (32 bytes) and the signature (64 bytes). Signed are a context string, the public key, and
//! SHA-256 of all bytes before the section. A plugin has at most one signature, at its very end; signing again replaces
//! it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Deserialize;

use crate::plugin_file::{Outline, sha256};
use crate::refusal::PluginRefusal;

/// Start of the section: custom (0), 116 bytes, a name of 18 bytes, the name, version 1. Only these exact bytes are
/// accepted, so that a signature has one encoding.
const HEAD: &[u8] = b"\x00\x74\x12evenkeel:signature\x01";

const SECTION_BYTES: usize = HEAD.len() + KEY_BYTES + SIGNATURE_BYTES;

const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// Separates these signatures from others by the same key.
const CONTEXT: &[u8] = b"evenkeel plugin signature v1\0";

const PUBLIC: &str = "ed25519:";
const SECRET: &str = "ed25519-secret:";

/// A public key. As text: `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

/// A text is not a key; says what was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{found}, expected `{prefix}` and {digits} hexadecimal digits")]
pub struct InvalidKey {
    found: &'static str,
    prefix: &'static str,
    digits: usize,
}

/// Signs plugins. Hidden in debug output.
pub struct SecretKey {
    seed: [u8; KEY_BYTES],
    pair: Ed25519KeyPair,
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    /// Surrounding space is ignored.
    fn from_str(text: &str) -> Result<PublicKey, InvalidKey> {
        unhex(text, PUBLIC).map(PublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(… of {})", self.public())
    }
}

impl SecretKey {
    /// A new key from the system's randomness.
    ///
    /// # Panics
    ///
    /// If the system has no randomness.
    pub fn generate() -> SecretKey {
        let mut seed = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut seed).expect("a system has randomness");
        SecretKey::of(seed)
    }

    /// Parses the text of [`SecretKey::text`]; surrounding space is ignored.
    pub fn read(text: &str) -> Result<SecretKey, InvalidKey> {
        unhex(text, SECRET).map(SecretKey::of)
    }

    fn of(seed: [u8; KEY_BYTES]) -> SecretKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("every 32 bytes are a seed");
        SecretKey { seed, pair }
    }

    /// The secret as stored in a file: `ed25519-secret:` and 64 hexadecimal digits, the seed of RFC
    /// 8032.
    pub fn text(&self) -> String {
        format!("{SECRET}{}", HEXLOWER.encode(&self.seed))
    }

    /// The key that verifies this key's signatures.
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_key().as_ref();
        PublicKey(bytes.try_into().expect("a public key has 32 bytes"))
    }
}

/// Appends this key's signature to the plugin, in place of an earlier one.
///
/// # Errors
/// If the bytes are not WebAssembly, or contain an invalid signature, which is not replaced.
pub fn sign(plugin: &[u8], key: &SecretKey) -> Result<Vec<u8>, PluginRefusal> {
    let plugin = match find(plugin)? {
        Some(section) => section.signed,
        None => plugin,
    };
    let public = key.public();
    let signature = key.pair.sign(&message(&public, plugin));
    Ok([plugin, HEAD, &public.0, signature.as_ref()].concat())
}

/// The key of a plugin's valid signature, if it has one.
///
/// The signature may be by any key: check separately that the key is trusted.
///
/// # Errors
/// [`PluginRefusal::Signature`] for a signature that does not match its key and these bytes, for several, or for one that is not at
/// the end; [`PluginRefusal::NotWasm`] if the bytes are not WebAssembly.
pub fn signer(plugin: &[u8]) -> Result<Option<PublicKey>, PluginRefusal> {
    let Some(section) = find(plugin)? else { return Ok(None) };
    UnparsedPublicKey::new(&ED25519, section.key.0)
        .verify(&message(&section.key, section.signed), section.signature)
        .map_err(|_| {
            unfit_signature("one that does not match these bytes: they changed after signing")
        })?;
    Ok(Some(section.key))
}

struct Section<'a> {
    signed: &'a [u8],
    key: PublicKey,
    signature: &'a [u8],
}

fn find(plugin: &[u8]) -> Result<Option<Section<'_>>, PluginRefusal> {
    let outline = Outline::read(plugin)?;
    match outline.signatures {
        0 => return Ok(None),
        1 => {}
        _ => return Err(unfit_signature("more than one; signing again replaces it")),
    }
    // There is exactly one signature section. It must be at the end, in the canonical encoding.
    let at = plugin.len().checked_sub(SECTION_BYTES);
    let (signed, section) = at.map_or((&plugin[..0], plugin), |at| plugin.split_at(at));
    let Some(said) = section.strip_prefix(HEAD) else {
        let found = "one that is not at the end as `evenkeel plugin sign` writes it";
        return Err(unfit_signature(found));
    };
    let (key, signature) = said.split_at(KEY_BYTES);
    let key = PublicKey(key.try_into().expect("it was cut to 32 bytes"));
    Ok(Some(Section { signed, key, signature }))
}

fn message(key: &PublicKey, signed: &[u8]) -> Vec<u8> {
    [CONTEXT, &key.0, &sha256(signed)].concat()
}

fn unfit_signature(found: &'static str) -> PluginRefusal {
    PluginRefusal::Signature(found)
}

/// Parses 32 bytes in hexadecimal digits of either case, after a prefix.
fn unhex(text: &str, prefix: &'static str) -> Result<[u8; 32], InvalidKey> {
    let bad = |found| InvalidKey { found, prefix, digits: 2 * KEY_BYTES };
    let digits = text.trim().strip_prefix(prefix).ok_or(bad("another beginning"))?;
    if digits.len() != 2 * KEY_BYTES {
        return Err(bad("another length"));
    }
    let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| bad("another letter"))?;
    Ok(bytes.try_into().expect("two digits are a byte"))
}

/// Known keys and revocations. Default: empty.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TrustedKeys {
    /// Names and keys, in the order they were added.
    pub known: Vec<(Arc<str>, PublicKey)>,
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

/// SHA-256 of the whole file, and of its bytes without the signature.
fn digests(plugin: &[u8]) -> Result<[[u8; 32]; 2], PluginRefusal> {
    let content = find(plugin)?.map_or(plugin, |section| section.signed);
    Ok([sha256(plugin), sha256(content)])
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnsignedPlugins {
    /// Unsigned plugins run.
    Allow,
    /// Only plugins that a trusted key signed run.
    Refuse,
}

impl TrustedKeys {
    /// Adds a key; a plugin signed with it is accepted.
    pub fn add(&mut self, name: Arc<str>, key: PublicKey) {
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

    /// Checks the trust in a plugin.
    ///
    /// A revoked plugin is refused whatever its signature. A signature by an unknown key counts as none.
    ///
    /// # Errors
    /// [`PluginRefusal::Revoked`]; [`PluginRefusal::Signature`] for an invalid one; [`PluginRefusal::Unsigned`] if `unsigned` requires a signature;
    /// and [`PluginRefusal::NotWasm`].
    pub fn judge(
        &self,
        plugin: &[u8],
        unsigned: UnsignedPlugins,
    ) -> Result<Provenance, PluginRefusal> {
        self.check_digests(&digests(plugin)?)?;
        if shipped().iter().any(|shipped| shipped.bytes == plugin) {
            return Ok(Provenance::Shipped);
        }
        let signer = signer(plugin)?;
        if let Some(key) = signer {
            self.check_key(key)?;
            if let Some(name) = self.name_of(key) {
                return Ok(Provenance::Signed(name));
            }
        }
        match unsigned {
            UnsignedPlugins::Allow => Ok(Provenance::Unsigned),
            UnsignedPlugins::Refuse => {
                Err(PluginRefusal::Unsigned(signer.map(|key| key.to_string().into())))
            }
        }
    }

    /// Checks that a plugin accepted before is not revoked.
    ///
    /// # Errors
    /// [`PluginRefusal::Revoked`].
    pub fn check_revoked(&self, seal: &PluginSeal) -> Result<(), PluginRefusal> {
        self.check_digests(&seal.digests)?;
        seal.signer.map_or(Ok(()), |key| self.check_key(key))
    }

    fn check_digests(&self, digests: &[[u8; 32]]) -> Result<(), PluginRefusal> {
        match digests.iter().find(|digest| self.revoked_digests.contains(*digest)) {
            Some(digest) => {
                Err(PluginRefusal::Revoked(format!("sha256:{}", HEXLOWER.encode(digest)).into()))
            }
            None => Ok(()),
        }
    }

    fn check_key(&self, key: PublicKey) -> Result<(), PluginRefusal> {
        if !self.revoked_keys.contains(&key) {
            return Ok(());
        }
        let name = self.name_of(key);
        let what = name.map_or_else(|| key.to_string(), |name| format!("key `{name}`, {key}"));
        Err(PluginRefusal::Revoked(what.into()))
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
pub fn read_digest(text: &str) -> Result<[u8; 32], InvalidKey> {
    unhex(text, "sha256:")
}

/// A plugin that the binary contains.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// The plugin's folder under `plugins/`.
    pub name: &'static str,
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    pub bytes: &'static [u8],
}

/// All shipped plugins, ordered by name.
pub fn shipped() -> &'static [Shipped] {
    SHIPPED
}

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

#[cfg(test)]
mod tests;
