//! The certificate by which clients know the gateway.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::provider::public_key;

/// Subject of generated certificates. Clients compare fingerprints only.
const SUBJECT: &str = "evenkeel";

/// Self-signed ECDSA certificate by P-256 with its private key, as RFC 8827, section 6.5, has it. Gateways of a group may share one, so that
/// the fingerprint of an answer holds at each of them.
#[derive(Clone)]
pub struct DtlsCertificate {
    pub(crate) der: Vec<u8>,
    pub(crate) key: Arc<EcdsaKeyPair>,
    pem: Zeroizing<String>,
}

impl DtlsCertificate {
    /// Makes a key and a certificate that does not expire: its fingerprint is what clients trust.
    ///
    /// # Errors
    /// Fails if the system has no random numbers.
    pub fn generate() -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let key = Zeroizing::new(key.map_err(CertificateError::Make)?);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, SUBJECT);
        let certificate = params.self_signed(&*key).map_err(CertificateError::Make)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        Self::from_pem(&Zeroizing::new(certificate.pem() + key_pem.as_str()))
    }

    /// Reads a certificate and its private key in PKCS#8 from PEM (RFC 7468), in any order. Other sections are ignored.
    ///
    /// # Errors
    /// Fails if one is absent, the key is none of P-256, or the certificate has another key.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let der = certificate.map_err(|_| CertificateError::NoCertificate)?.to_vec();
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes());
        let pkcs8 = Zeroizing::new(pkcs8.map_err(|_| CertificateError::NoKey)?);
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            pkcs8.secret_pkcs8_der(),
            &SystemRandom::new(),
        );
        let key = key.map_err(|_| CertificateError::KeyType)?;
        let found = public_key(&der).map_err(|_| CertificateError::Malformed)?;
        if found.point != key.public_key().as_ref() {
            return Err(CertificateError::OtherKey);
        }
        Ok(Self { der, key: Arc::new(key), pem: Zeroizing::new(pem.to_owned()) })
    }

    /// The certificate and its private key in PEM, for a file that only the gateway can read.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// The SHA-256 of the certificate, which answers have as `a=fingerprint:sha-256` (RFC 8122).
    pub fn fingerprint(&self) -> [u8; 32] {
        digest(&SHA256, &self.der).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Omits the key.
impl fmt::Debug for DtlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.fingerprint();
        f.debug_struct("DtlsCertificate").field("sha256", &fingerprint).finish_non_exhaustive()
    }
}

/// Reason why there is no certificate. It quotes no part of a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateError {
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(rcgen::Error),
    /// The PEM has no certificate.
    #[error("found no section `CERTIFICATE` in the PEM; give a certificate and its key")]
    NoCertificate,
    /// The PEM has no private key.
    #[error("found no section `PRIVATE KEY` in the PEM; give a certificate and its key in PKCS#8")]
    NoKey,
    /// The key is of another type.
    #[error("the private key is none of ECDSA by P-256 in PKCS#8, which WebRTC clients require")]
    KeyType,
    /// The certificate cannot be parsed.
    #[error("the certificate is not X.509 with an ECDSA key by P-256 or P-384")]
    Malformed,
    /// The key belongs to another certificate.
    #[error("the private key is not that of the certificate; give both of one pair")]
    OtherKey,
}

#[cfg(test)]
mod tests;
