//! Certificates that browsers accept by their SHA-256 (`serverCertificateHashes` of WebTransport, W3C): ECDSA with P-256, valid for
//! at most two weeks.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::x509::{certified, not_before, sha256};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A browser refuses a certificate of more than 14 days by its hash; one day is left for other ways to count.
const VALID_FOR: Duration = DAY.saturating_mul(13);

/// A certificate is in use for this time. A page that learned the hashes of it and of the next one can connect for this time at least.
const USED_FOR: Duration = DAY.saturating_mul(7);

/// A certificate is valid for this time before its use: clocks of clients may be late.
const EARLY: Duration = DAY;

/// The certificate in use and the next one. A page that knows both hashes can connect before and after the replacement.
pub struct ShortLivedCertificates {
    names: Vec<String>,
    /// Locked for a handshake or an answer, never for a packet.
    pair: Mutex<CertificatePair>,
}

#[derive(Clone)]
struct CertificatePair {
    current: ShortLived,
    next: ShortLived,
}

#[derive(Clone)]
struct ShortLived {
    key: Arc<CertifiedKey>,
    sha256: [u8; 32],
    used_from: SystemTime,
    /// The certificate, and its key in PKCS#8.
    pem: Zeroizing<String>,
}

/// Reason why there are no certificates. It quotes no part of a key.
#[derive(Debug, thiserror::Error)]
pub enum ShortLivedError {
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The PEM does not contain two certificates, each with its key.
    #[error("found no two sections `CERTIFICATE`, each before its section `PRIVATE KEY`")]
    Sections,
    /// A certificate cannot be parsed, or has another key.
    #[error("cannot use the certificate and its key: {0}")]
    Certificate(#[from] rustls::Error),
    /// A certificate has no beginning that is known.
    #[error("cannot read from when a certificate is valid")]
    Validity,
}

impl ShortLivedCertificates {
    /// Makes certificates for these host names.
    ///
    /// # Errors
    /// Fails if a name is not one.
    pub fn generate(names: Vec<String>, now: SystemTime) -> Result<Self, ShortLivedError> {
        let pair = CertificatePair::from(now, &names)?;
        Ok(Self { names, pair: Mutex::new(pair) })
    }

    /// Reads the text of [`to_pem`](Self::to_pem), perhaps of another process. [`renew`](Self::renew) replaces certificates that
    /// have ended since.
    ///
    /// # Errors
    /// Fails for other content.
    pub fn from_pem(names: Vec<String>, pem: &str) -> Result<Self, ShortLivedError> {
        let pair = Mutex::new(CertificatePair::from_pem(pem)?);
        Ok(Self { names, pair })
    }

    /// Replaces both by those of another process. Connections keep the one that they began with. Returns whether they differ.
    ///
    /// # Errors
    /// Fails for text that is not of [`to_pem`](Self::to_pem); the certificates remain.
    pub fn replace(&self, pem: &str) -> Result<bool, ShortLivedError> {
        let pair = CertificatePair::from_pem(pem)?;
        let differs = [pair.current.sha256, pair.next.sha256] != self.sha256();
        if differs {
            *self.pair() = pair;
        }
        Ok(differs)
    }

    /// Both certificates with their keys in PEM, for a file that only the gateway can read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let pair = self.pair();
        Zeroizing::new([pair.current.pem.as_str(), pair.next.pem.as_str()].concat())
    }

    /// SHA-256 of the certificate in use and of the next one.
    pub fn sha256(&self) -> [[u8; 32]; 2] {
        let pair = self.pair();
        [pair.current.sha256, pair.next.sha256]
    }

    /// Replaces certificates after their time of use. Connections keep the one that they began with. Returns whether any was replaced.
    ///
    /// # Errors
    /// Fails if no certificate can be made; the certificates remain.
    pub fn renew(&self, now: SystemTime) -> Result<bool, ShortLivedError> {
        let pair = self.pair().clone();
        let renewed = pair.renewed(now, &self.names)?;
        let is_renewed = renewed.is_some();
        if let Some(renewed) = renewed {
            *self.pair() = renewed;
        }
        Ok(is_renewed)
    }

    /// The certificate in use.
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.pair().current.key)
    }

    fn pair(&self) -> MutexGuard<'_, CertificatePair> {
        self.pair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Omits the keys, to keep them out of logs.
impl fmt::Debug for ShortLivedCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShortLivedCertificates")
            .field("sha256", &self.sha256())
            .finish_non_exhaustive()
    }
}

impl CertificatePair {
    fn from(now: SystemTime, names: &[String]) -> Result<Self, ShortLivedError> {
        let (current, next) =
            (ShortLived::new(now, names)?, ShortLived::new(now + USED_FOR, names)?);
        Ok(Self { current, next })
    }

    fn from_pem(pem: &str) -> Result<Self, ShortLivedError> {
        let second = pem.rfind("-----BEGIN CERTIFICATE-----").ok_or(ShortLivedError::Sections)?;
        let (current, next) = pem.split_at(second);
        let [current, next] =
            [current, next].map(|pem| ShortLived::from_pem(pem.to_owned().into()));
        Ok(Self { current: current?, next: next? })
    }

    /// `None` if both may remain.
    fn renewed(&self, now: SystemTime, names: &[String]) -> Result<Option<Self>, ShortLivedError> {
        let Self { current, next } = self;
        let is_set_back = now + EARLY < current.used_from;
        if now < next.used_from && !is_set_back {
            return Ok(None);
        }
        if is_set_back || now >= next.used_from + USED_FOR {
            return Self::from(now, names).map(Some);
        }
        let after = ShortLived::new(next.used_from + USED_FOR, names)?;
        Ok(Some(Self { current: next.clone(), next: after }))
    }
}

impl ShortLived {
    fn new(used_from: SystemTime, names: &[String]) -> Result<Self, ShortLivedError> {
        // Certificates count whole seconds.
        let since_epoch = used_from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let valid_from = Duration::from_secs(since_epoch.as_secs()).saturating_sub(EARLY);
        let mut parameters = rcgen::CertificateParams::new(names)?;
        parameters.not_before = rcgen::date_time_ymd(1970, 1, 1) + valid_from;
        parameters.not_after = parameters.not_before + VALID_FOR;
        // ECDSA with P-256.
        let key = rcgen::KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        Self::from_pem(Zeroizing::new(certificate.pem() + key_pem.as_str()))
    }

    fn from_pem(pem: Zeroizing<String>) -> Result<Self, ShortLivedError> {
        let absent = |_| ShortLivedError::Sections;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(absent)?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(absent)?;
        let used_from = not_before(&certificate).ok_or(ShortLivedError::Validity)? + EARLY;
        let sha256 = sha256(&certificate);
        let key = Arc::new(certified(vec![certificate], key)?);
        Ok(Self { key, sha256, used_from, pem })
    }
}

#[cfg(test)]
mod tests;
