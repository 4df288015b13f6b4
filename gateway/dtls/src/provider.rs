//! The cryptography of the library by ring. AES of the `aes` crate masks record numbers of DTLS 1.3 (RFC 9147, section 4.2.3), since ring
//! has no single block.

use std::fmt;
use std::sync::Arc;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};
use dimpl::crypto::{
    Aad, ActiveKeyExchange, Buf, Cipher, CryptoProvider, Dtls12CipherSuite, Dtls13CipherSuite,
    HashAlgorithm, HashContext, HashProvider, HmacProvider, KeyProvider, NamedGroup, Nonce,
    SecureRandom, SignatureAlgorithm, SignatureVerifier, SigningKey, SupportedDtls12CipherSuite,
    SupportedDtls13CipherSuite, SupportedKxGroup, TmpBuf,
};
use dimpl::{CryptoError, CryptoOperation};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey as PeerKey, agree_ephemeral};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{self, EcdsaKeyPair, UnparsedPublicKey};
use ring::{aead, digest, hmac};

/// Bytes of a tag of GCM.
const TAG_BYTES: usize = 16;

/// The contents of an object identifier, by which DER names id-ecPublicKey (RFC 5480, section 2.1.1).
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// Likewise secp256r1.
const SECP256R1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Likewise secp384r1.
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// Returns a provider that signs by this key. The library requires a static one: the pointer to the key is never freed. A process has
/// one or two certificates in its life.
pub(crate) fn provider(key: &Arc<EcdsaKeyPair>) -> CryptoProvider {
    CryptoProvider {
        kx_groups: &GROUPS,
        signature_verification: &Ring,
        key_provider: Box::leak(Box::new(OwnKey(Arc::clone(key)))),
        secure_random: &Ring,
        hash_provider: &Ring,
        hmac_provider: &Ring,
        cipher_suites: &DTLS_12_SUITES,
        dtls13_cipher_suites: &DTLS_13_SUITES,
    }
}

/// The parts of the provider that have no state.
#[derive(Debug)]
struct Ring;

impl SecureRandom for Ring {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), CryptoError> {
        let filled = SystemRandom::new().fill(buffer);
        filled.map_err(|_| CryptoError::OperationFailed(CryptoOperation::FillRandom))
    }
}

impl HashProvider for Ring {
    fn create_hash(&self, algorithm: HashAlgorithm) -> Box<dyn HashContext> {
        // The suites of TLS 1.2 and 1.3 that are offered use SHA-256 or SHA-384.
        let sha = match algorithm {
            HashAlgorithm::SHA384 => &digest::SHA384,
            _ => &digest::SHA256,
        };
        Box::new(Hash(digest::Context::new(sha)))
    }
}

struct Hash(digest::Context);

impl HashContext for Hash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn clone_and_finalize(&self, out: &mut Buf) {
        out.clear();
        out.extend_from_slice(self.0.clone().finish().as_ref());
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash")
    }
}

impl HmacProvider for Ring {
    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        let algorithm = match hash {
            HashAlgorithm::SHA256 => hmac::HMAC_SHA256,
            HashAlgorithm::SHA384 => hmac::HMAC_SHA384,
            other => return Err(CryptoError::UnsupportedHmacHash(other)),
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, key), data);
        let tag = tag.as_ref();
        let out = out.get_mut(..tag.len());
        let out = out.ok_or(CryptoError::OperationFailed(CryptoOperation::ComputeHmac))?;
        out.copy_from_slice(tag);
        Ok(tag.len())
    }
}

/// The key of the certificate. It was parsed once, and its bytes are not passed to the library.
#[derive(Debug)]
struct OwnKey(Arc<EcdsaKeyPair>);

impl KeyProvider for OwnKey {
    fn load_private_key(&self, _der: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        Ok(Box::new(OwnKey(Arc::clone(&self.0))))
    }
}

impl SigningKey for OwnKey {
    fn sign(&mut self, data: &[u8], hash: HashAlgorithm, out: &mut Buf) -> Result<(), CryptoError> {
        if hash != HashAlgorithm::SHA256 {
            let group = NamedGroup::Secp256r1;
            return Err(CryptoError::SigningKeyUnsupportedHash { group, hash });
        }
        let signature = self.0.sign(&SystemRandom::new(), data);
        let signature =
            signature.map_err(|_| CryptoError::OperationFailed(CryptoOperation::Sign))?;
        out.clear();
        out.extend_from_slice(signature.as_ref());
        Ok(())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }
}

impl SignatureVerifier for Ring {
    fn verify_signature(
        &self,
        certificate: &[u8],
        data: &[u8],
        signature: &[u8],
        hash: HashAlgorithm,
        algorithm: SignatureAlgorithm,
    ) -> Result<(), CryptoError> {
        if algorithm != SignatureAlgorithm::ECDSA {
            return Err(CryptoError::UnsupportedSignatureAlgorithm(algorithm));
        }
        let PublicKey { group, point } = public_key(certificate)?;
        let verification: &'static dyn signature::VerificationAlgorithm = match (group, hash) {
            (NamedGroup::Secp256r1, HashAlgorithm::SHA256) => &signature::ECDSA_P256_SHA256_ASN1,
            (NamedGroup::Secp256r1, HashAlgorithm::SHA384) => &signature::ECDSA_P256_SHA384_ASN1,
            (NamedGroup::Secp384r1, HashAlgorithm::SHA256) => &signature::ECDSA_P384_SHA256_ASN1,
            (NamedGroup::Secp384r1, HashAlgorithm::SHA384) => &signature::ECDSA_P384_SHA384_ASN1,
            (group, hash) => {
                let signature = algorithm;
                let unsupported =
                    CryptoError::UnsupportedSignatureVerification { signature, hash, group };
                return Err(unsupported);
            }
        };
        let verified = UnparsedPublicKey::new(verification, point).verify(data, signature);
        let signature = algorithm;
        verified.map_err(|_| CryptoError::SignatureVerificationFailed { signature, hash, group })
    }
}

/// The key of a certificate.
#[derive(PartialEq, Debug)]
pub(crate) struct PublicKey<'a> {
    pub(crate) group: NamedGroup,
    /// Uncompressed (RFC 5480, section 2.2).
    pub(crate) point: &'a [u8],
}

/// Finds the key of an X.509 certificate of any version (RFC 5280, section 4.1). The fingerprint has verified all its bytes, so that
/// nothing else in it matters.
///
/// # Errors
/// Fails if the certificate is malformed or its key none of ECDSA by P-256 or P-384.
pub(crate) fn public_key(certificate: &[u8]) -> Result<PublicKey<'_>, CryptoError> {
    let malformed = || CryptoError::CertificateParseFailed;
    let parse = || {
        let (certificate, _) = element(certificate, Some(SEQUENCE))?;
        let (mut fields, _) = element(certificate, Some(SEQUENCE))?;
        if fields.first() == Some(&VERSION) {
            (_, fields) = element(fields, None)?;
        }
        // Serial number, signature algorithm, issuer, validity, subject.
        for _ in 0..5 {
            (_, fields) = element(fields, None)?;
        }
        let (key, _) = element(fields, Some(SEQUENCE))?;
        let (algorithm, key) = element(key, Some(SEQUENCE))?;
        let (kind, curve) = element(algorithm, Some(OBJECT_IDENTIFIER))?;
        let (bits, _) = element(key, Some(BIT_STRING))?;
        Some((kind, curve, bits))
    };
    let (kind, curve, bits) = parse().ok_or_else(malformed)?;
    if kind != EC_PUBLIC_KEY {
        return Err(CryptoError::UnsupportedPublicKeyAlgorithm);
    }
    let (curve, _) = element(curve, Some(OBJECT_IDENTIFIER)).ok_or_else(malformed)?;
    let group = match curve {
        SECP256R1 => NamedGroup::Secp256r1,
        SECP384R1 => NamedGroup::Secp384r1,
        _ => return Err(CryptoError::UnsupportedEcCurve),
    };
    // The first byte counts unused bits.
    let point = bits.strip_prefix(&[0]).ok_or(CryptoError::InvalidSubjectPublicKey)?;
    Ok(PublicKey { group, point })
}

const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// The optional first field of a certificate.
const VERSION: u8 = 0xa0;

/// Splits off the first element of DER. Returns its contents and the rest; `None` if it has another tag, or is cut.
fn element(der: &[u8], tag: Option<u8>) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    if tag.is_some_and(|tag| tag != found) {
        return None;
    }
    let (&short, der) = der.split_first()?;
    let (length, der) = match short {
        0..=0x7f => (usize::from(short), der),
        0x81 => {
            let (&length, der) = der.split_first()?;
            (usize::from(length), der)
        }
        0x82 => {
            let (length, der) = der.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), der)
        }
        _ => return None,
    };
    der.split_at_checked(length)
}

/// A group of ephemeral keys.
#[derive(Debug)]
struct Group {
    name: NamedGroup,
    algorithm: &'static agreement::Algorithm,
}

static X25519: Group = Group { name: NamedGroup::X25519, algorithm: &agreement::X25519 };
static P256: Group = Group { name: NamedGroup::Secp256r1, algorithm: &agreement::ECDH_P256 };
static P384: Group = Group { name: NamedGroup::Secp384r1, algorithm: &agreement::ECDH_P384 };

/// In the order of preference.
static GROUPS: [&dyn SupportedKxGroup; 3] = [&X25519, &P256, &P384];

impl SupportedKxGroup for Group {
    fn name(&self) -> NamedGroup {
        self.name
    }

    fn start_exchange(&self, mut public: Buf) -> Result<Box<dyn ActiveKeyExchange>, CryptoError> {
        let failed = |_| CryptoError::OperationFailed(CryptoOperation::StartKeyExchange);
        let private = EphemeralPrivateKey::generate(self.algorithm, &SystemRandom::new());
        let private = private.map_err(failed)?;
        public.clear();
        public.extend_from_slice(private.compute_public_key().map_err(failed)?.as_ref());
        Ok(Box::new(Exchange { group: self.name, private, public }))
    }
}

struct Exchange {
    group: NamedGroup,
    private: EphemeralPrivateKey,
    public: Buf,
}

impl ActiveKeyExchange for Exchange {
    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn complete(self: Box<Self>, peer: &[u8], out: &mut Buf) -> Result<(), CryptoError> {
        let peer = PeerKey::new(self.private.algorithm(), peer);
        let agreed = agree_ephemeral(self.private, &peer, |secret| {
            out.clear();
            out.extend_from_slice(secret);
        });
        agreed.map_err(|_| CryptoError::InvalidPublicKey(self.group))
    }

    fn group(&self) -> NamedGroup {
        self.group
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("group", &self.group).finish_non_exhaustive()
    }
}

/// A cipher suite of both versions.
#[derive(Debug)]
struct Suite {
    dtls12: Dtls12CipherSuite,
    dtls13: Dtls13CipherSuite,
    hash: HashAlgorithm,
    algorithm: &'static aead::Algorithm,
}

static AES_128_GCM: Suite = Suite {
    dtls12: Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
    dtls13: Dtls13CipherSuite::AES_128_GCM_SHA256,
    hash: HashAlgorithm::SHA256,
    algorithm: &aead::AES_128_GCM,
};

static AES_256_GCM: Suite = Suite {
    dtls12: Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
    dtls13: Dtls13CipherSuite::AES_256_GCM_SHA384,
    hash: HashAlgorithm::SHA384,
    algorithm: &aead::AES_256_GCM,
};

static DTLS_12_SUITES: [&dyn SupportedDtls12CipherSuite; 2] = [&AES_128_GCM, &AES_256_GCM];
static DTLS_13_SUITES: [&dyn SupportedDtls13CipherSuite; 2] = [&AES_128_GCM, &AES_256_GCM];

impl Suite {
    fn cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        let key = aead::UnboundKey::new(self.algorithm, key);
        let key = key.map_err(|_| CryptoError::OperationFailed(CryptoOperation::CreateCipher))?;
        Ok(Box::new(Gcm(aead::LessSafeKey::new(key))))
    }
}

impl SupportedDtls12CipherSuite for Suite {
    fn suite(&self) -> Dtls12CipherSuite {
        self.dtls12
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash
    }

    fn key_lengths(&self) -> (usize, usize, usize) {
        // No MAC key; 4 bytes of the nonce are implicit (RFC 5288, section 3).
        (0, self.algorithm.key_len(), 4)
    }

    fn explicit_nonce_len(&self) -> usize {
        8
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        self.cipher(key)
    }
}

impl SupportedDtls13CipherSuite for Suite {
    fn suite(&self) -> Dtls13CipherSuite {
        self.dtls13
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash
    }

    fn key_len(&self) -> usize {
        self.algorithm.key_len()
    }

    fn iv_len(&self) -> usize {
        aead::NONCE_LEN
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        self.cipher(key)
    }

    fn encrypt_sn(&self, key: &[u8], sample: &[u8; 16]) -> [u8; 16] {
        const VALID: &str = "the library derives keys of `key_len` bytes";
        let mut block = Block::from(*sample);
        match self.algorithm.key_len() {
            16 => Aes128::new_from_slice(key).expect(VALID).encrypt_block(&mut block),
            _ => Aes256::new_from_slice(key).expect(VALID).encrypt_block(&mut block),
        }
        block.into()
    }
}

struct Gcm(aead::LessSafeKey);

impl Cipher for Gcm {
    fn encrypt(&mut self, data: &mut Buf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce.0);
        let sealed = self.0.seal_in_place_append_tag(nonce, aead::Aad::from(&*aad), data);
        sealed.map_err(|_| CryptoError::OperationFailed(CryptoOperation::Encrypt))
    }

    fn decrypt(&mut self, data: &mut TmpBuf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce.0);
        let opened = self.0.open_in_place(nonce, aead::Aad::from(&*aad), data.as_mut());
        let failed = |_| CryptoError::OperationFailed(CryptoOperation::Decrypt);
        let length = opened.map_err(failed)?.len();
        data.truncate(length);
        Ok(())
    }
}

impl fmt::Debug for Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gcm")
    }
}

#[cfg(test)]
mod tests;
