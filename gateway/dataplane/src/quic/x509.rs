//! Certificates with their keys, and facts of certificates (RFC 5280).

use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

/// Fails if the key is not that of the certificate.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain, key, &default_provider())
}

/// Returns the time at which the first certificate of a chain ends. `None` if none does.
pub fn chain_ends(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    chain.iter().filter_map(not_after).min()
}

/// The end of the validity of a certificate (RFC 5280, section 4.1.2.5). rustls names it in the refusal of an expired certificate, as each
/// is in the end.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    match refusal(certificate, Duration::MAX)? {
        CertificateError::ExpiredContext { not_after, .. } => time(not_after),
        _ => None,
    }
}

/// The beginning of the validity of a certificate.
pub fn not_before(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    match refusal(certificate, Duration::ZERO)? {
        CertificateError::NotValidYetContext { not_before, .. } => time(not_before),
        _ => None,
    }
}

/// Why the certificate is refused at this time after the epoch.
fn refusal(certificate: &CertificateDer<'_>, at: Duration) -> Option<CertificateError> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let (nothing, at) = (RootCertStore::empty(), UnixTime::since_unix_epoch(at));
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nothing, &[], at, &[]) {
        Err(rustls::Error::InvalidCertificate(reason)) => Some(reason),
        Ok(()) | Err(_) => None,
    }
}

fn time(found: UnixTime) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(found.as_secs()))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("the hash has 32 bytes")
}
