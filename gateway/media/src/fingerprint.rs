//! Fingerprints of certificates in SDP (RFC 8122).

use std::fmt;
use std::slice;
use std::str::FromStr;

use data_encoding::HEXUPPER_PERMISSIVE;
use ring::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use serde::{Deserialize, Serialize};

use crate::bytes;

/// A fingerprint of a certificate (RFC 8122, section 5): the hash of its DER by a function that is not broken.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum CertificateFingerprint {
    /// By `sha-256`.
    Sha256(#[serde(with = "bytes")] [u8; 32]),
    /// By `sha-384`.
    Sha384(#[serde(with = "bytes")] [u8; 48]),
    /// By `sha-512`.
    Sha512(#[serde(with = "bytes")] [u8; 64]),
}

/// Reason why a fingerprint was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FingerprintError {
    /// The hash function is broken, such as `sha-1`, or unknown.
    #[error("the hash function of the fingerprint is none of sha-256, sha-384 and sha-512")]
    Hash,
    /// Not the value of an `a=fingerprint` line, or not as many bytes as the hash has.
    #[error(
        "expected `HASH BYTES` with all bytes of the hash in hexadecimal and colons between them, such as `sha-256 AB:CD:…`"
    )]
    Form,
}

impl CertificateFingerprint {
    /// Returns true if this is the fingerprint of a certificate in DER.
    pub fn matches(&self, certificate: &[u8]) -> bool {
        let (_, algorithm, bytes) = self.parts();
        digest::digest(algorithm, certificate).as_ref() == bytes
    }

    fn parts(&self) -> (&'static str, &'static Algorithm, &[u8]) {
        match self {
            Self::Sha256(bytes) => ("sha-256", &SHA256, bytes),
            Self::Sha384(bytes) => ("sha-384", &SHA384, bytes),
            Self::Sha512(bytes) => ("sha-512", &SHA512, bytes),
        }
    }
}

impl FromStr for CertificateFingerprint {
    type Err = FingerprintError;

    /// Reads the value of an `a=fingerprint` line. The case of letters does not matter.
    fn from_str(value: &str) -> Result<Self, FingerprintError> {
        let (hash, bytes) = value.split_once(' ').ok_or(FingerprintError::Form)?;
        match hash.to_ascii_lowercase().as_str() {
            "sha-256" => read_bytes(bytes).map(Self::Sha256),
            "sha-384" => read_bytes(bytes).map(Self::Sha384),
            "sha-512" => read_bytes(bytes).map(Self::Sha512),
            _ => Err(FingerprintError::Hash),
        }
    }
}

fn read_bytes<const N: usize>(text: &str) -> Result<[u8; N], FingerprintError> {
    let mut bytes = [0; N];
    let mut pairs = text.split(':').map(str::as_bytes);
    for byte in &mut bytes {
        let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(FingerprintError::Form)?;
        let decoded = HEXUPPER_PERMISSIVE.decode_mut(pair, slice::from_mut(byte));
        decoded.map_err(|_| FingerprintError::Form)?;
    }
    if pairs.next().is_some() { Err(FingerprintError::Form) } else { Ok(bytes) }
}

/// Writes the value of an `a=fingerprint` line.
impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hash, _, bytes) = self.parts();
        f.write_str(hash)?;
        let separators = std::iter::once(' ').chain(std::iter::repeat(':'));
        separators.zip(bytes).try_for_each(|(separator, byte)| write!(f, "{separator}{byte:02X}"))
    }
}

#[cfg(test)]
mod tests;
