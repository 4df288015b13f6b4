//! Whom a gateway believes: keys that it knows, and what was taken back.

use std::sync::Arc;

use crate::refused::Refused;
use crate::shipped::shipped;
use crate::signature::{BadKey, PublicKey, content_digest, hex, sha256, signer, unhex};

/// The keys a gateway knows, and what was revoked. Default: none of either.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Keys {
    known: Vec<(Arc<str>, PublicKey)>,
    revoked_keys: Vec<PublicKey>,
    revoked_digests: Vec<[u8; 32]>,
}

/// What of a plugin may be revoked, for as long as it runs: its digests and, where it is signed, the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    digests: [[u8; 32]; 2],
    signer: Option<PublicKey>,
}

impl Seal {
    /// Of a plugin as it was pushed, or as it is in its file.
    ///
    /// # Errors
    /// As [`signer`].
    pub fn of(plugin: &[u8]) -> Result<Seal, Refused> {
        Ok(Seal { digests: digests(plugin)?, signer: signer(plugin)? })
    }
}

/// Of the file, and of its bytes without the signature.
fn digests(plugin: &[u8]) -> Result<[[u8; 32]; 2], Refused> {
    Ok([sha256(plugin), content_digest(plugin)?])
}

/// Who vouches for a plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vouched {
    /// It is in this binary, byte for byte.
    Shipped,
    /// The holder of this key, by the name it is known by here.
    Signed(Arc<str>),
    /// Nobody who is known here.
    Nobody,
}

/// What becomes of a plugin for which nobody known here vouches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsigned {
    /// It is taken.
    Allow,
    /// It is refused.
    Refuse,
}

impl Keys {
    /// Knows one more key; a plugin signed with it is taken.
    pub fn know(&mut self, name: Arc<str>, key: PublicKey) {
        self.known.push((name, key));
    }

    /// Takes back all that this key signed, and signs.
    pub fn revoke_key(&mut self, key: PublicKey) {
        self.revoked_keys.push(key);
    }

    /// Takes one plugin back: by SHA-256 of its file, or of its bytes without the signature.
    pub fn revoke_digest(&mut self, digest: [u8; 32]) {
        self.revoked_digests.push(digest);
    }

    /// Names and keys, in the order they became known.
    pub fn known(&self) -> &[(Arc<str>, PublicKey)] {
        &self.known
    }

    /// Says who vouches for a plugin, or why it is not taken.
    ///
    /// What was revoked is never taken, whoever vouches for it. A signature by a key that is not known here counts as none.
    ///
    /// # Errors
    /// [`Refused::Revoked`], [`Refused::Signature`] for one that does not fit, [`Refused::Unsigned`] where `unsigned` does not
    /// allow it, and [`Refused::NotWasm`].
    pub fn judge(&self, plugin: &[u8], unsigned: Unsigned) -> Result<Vouched, Refused> {
        self.spare_digests(&digests(plugin)?)?;
        if shipped().iter().any(|shipped| shipped.bytes == plugin) {
            return Ok(Vouched::Shipped);
        }
        let signer = signer(plugin)?;
        if let Some(key) = signer {
            self.spare_key(key)?;
            if let Some(name) = self.name_of(key) {
                return Ok(Vouched::Signed(name));
            }
        }
        match unsigned {
            Unsigned::Allow => Ok(Vouched::Nobody),
            Unsigned::Refuse => Err(Refused::Unsigned { by: signer }),
        }
    }

    /// Whether nothing of a plugin that was taken is revoked by now.
    ///
    /// # Errors
    /// [`Refused::Revoked`].
    pub fn spare(&self, seal: &Seal) -> Result<(), Refused> {
        self.spare_digests(&seal.digests)?;
        seal.signer.map_or(Ok(()), |key| self.spare_key(key))
    }

    fn spare_digests(&self, digests: &[[u8; 32]]) -> Result<(), Refused> {
        match digests.iter().find(|digest| self.revoked_digests.contains(*digest)) {
            Some(digest) => {
                Err(Refused::Revoked { what: format!("sha256:{}", hex(digest)).into() })
            }
            None => Ok(()),
        }
    }

    fn spare_key(&self, key: PublicKey) -> Result<(), Refused> {
        if !self.revoked_keys.contains(&key) {
            return Ok(());
        }
        let name = self.name_of(key);
        let what = name.map_or_else(|| key.to_string(), |name| format!("key `{name}`, {key}"));
        Err(Refused::Revoked { what: what.into() })
    }

    fn name_of(&self, key: PublicKey) -> Option<Arc<str>> {
        let known = self.known.iter().find(|(_, known)| *known == key);
        known.map(|(name, _)| Arc::clone(name))
    }
}

/// SHA-256 as people write it: `sha256:` and 64 hexadecimal digits.
///
/// # Errors
/// What is there instead.
pub fn read_digest(text: &str) -> Result<[u8; 32], BadKey> {
    unhex(text, "sha256:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{SecretKey, sign};

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn knowing(key: &SecretKey) -> Keys {
        let mut keys = Keys::default();
        keys.know("ops".into(), key.public());
        keys
    }

    #[test]
    fn a_signature_by_a_known_key_is_enough() {
        let (ours, theirs) = (SecretKey::generate(), SecretKey::generate());
        let keys = knowing(&ours);
        let signed = sign(MODULE, &ours).unwrap();
        assert_eq!(keys.judge(&signed, Unsigned::Refuse), Ok(Vouched::Signed("ops".into())));
        let by_another = sign(MODULE, &theirs).unwrap();
        let by = Some(theirs.public());
        assert_eq!(keys.judge(&by_another, Unsigned::Refuse), Err(Refused::Unsigned { by }));
        assert_eq!(keys.judge(&by_another, Unsigned::Allow), Ok(Vouched::Nobody));
        assert_eq!(keys.judge(MODULE, Unsigned::Refuse), Err(Refused::Unsigned { by: None }));
        assert_eq!(keys.judge(MODULE, Unsigned::Allow), Ok(Vouched::Nobody));
    }

    #[test]
    fn a_broken_signature_is_refused_also_where_none_is_needed() {
        let mut signed = sign(MODULE, &SecretKey::generate()).unwrap();
        *signed.last_mut().unwrap() ^= 1;
        let seen = Keys::default().judge(&signed, Unsigned::Allow);
        assert!(matches!(seen, Err(Refused::Signature { .. })), "{seen:?}");
    }

    #[test]
    fn what_is_revoked_is_refused_whoever_vouches_for_it() {
        let key = SecretKey::generate();
        let signed = sign(MODULE, &key).unwrap();
        let is_revoked = |keys: &Keys, plugin: &[u8]| {
            matches!(keys.judge(plugin, Unsigned::Allow), Err(Refused::Revoked { .. }))
        };
        let mut keys = knowing(&key);
        assert!(!is_revoked(&keys, &signed));
        keys.revoke_key(key.public());
        assert!(is_revoked(&keys, &signed) && !is_revoked(&keys, MODULE));
        // What runs already is told apart as well.
        let refused = keys.judge(&signed, Unsigned::Allow).unwrap_err();
        assert_eq!(keys.spare(&Seal::of(&signed).unwrap()), Err(refused));
        assert_eq!(keys.spare(&Seal::of(MODULE).unwrap()), Ok(()));
        for digest in [sha256(MODULE), sha256(&signed)] {
            let mut keys = knowing(&key);
            keys.revoke_digest(digest);
            assert!(is_revoked(&keys, &signed));
            assert!(keys.spare(&Seal::of(&signed).unwrap()).is_err());
            assert_eq!(is_revoked(&keys, MODULE), digest == sha256(MODULE));
        }
        let shipped = shipped()[0].bytes;
        assert_eq!(Keys::default().spare(&Seal::of(shipped).unwrap()), Ok(()));
        let mut keys = Keys::default();
        assert_eq!(keys.judge(shipped, Unsigned::Refuse), Ok(Vouched::Shipped));
        keys.revoke_digest(sha256(shipped));
        assert!(is_revoked(&keys, shipped));
    }
}
