//! TLS of `[webrtc]`, and the state of its certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_config::{CertificateFiles, WebrtcSettings};
use evenkeel_dataplane::quic::{chain_ends, not_before};
use evenkeel_telemetry::date;
use rustls::InconsistentKeys;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsAcceptor;
use webpki::{EndEntityCert, InvalidNameContext};

/// Time before the end of a certificate in which it has to be renewed, as the alert `EvenkeelCredentialEnds` has it.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// The certificate of `[webrtc]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebrtcCertificateError {
    /// A file is not readable as PEM.
    #[error("cannot read {} as PEM: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        error: pem::Error,
    },
    /// The file has no certificate.
    #[error("found no certificate in {}", .0.display())]
    Empty(PathBuf),
    /// The certificate is not of version 3.
    #[error(
        "the certificate {} is of X.509 version 1 or 2, which clients refuse; issue one of version 3 with the name of the host (`openssl req -x509 … -addext subjectAltName=DNS:HOST`)",
        .0.display()
    )]
    Version(PathBuf),
    /// The certificate is malformed.
    #[error("cannot read the certificate {}: {error}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        error: webpki::Error,
    },
    /// The key is that of another certificate.
    #[error("the key {} is not that of the certificate {}", .key.display(), .chain.display())]
    OtherKey {
        /// The file of the certificate.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// TLS 1.3 does not support the kind of the key.
    #[error("cannot use the certificate and its key: {0}")]
    Pair(rustls::Error),
}

/// The certificate of `[webrtc]` in use.
pub(crate) struct WebrtcTls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) certificate: WebrtcCertificate,
}

/// A certificate that fits its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebrtcCertificate {
    /// `None`: it cannot be read.
    begins: Option<SystemTime>,
    /// The first end of a certificate of the chain; `None`: it cannot be read.
    ends: Option<SystemTime>,
    /// The hosts that it is for.
    names: Vec<String>,
    /// `host` of `[webrtc]`, if it is not for it.
    other_host: Option<String>,
}

impl WebrtcCertificate {
    /// Reads the certificate of these settings; `None` if they have none.
    ///
    /// # Errors
    /// If the gateway could not start with it.
    pub fn of(
        settings: &WebrtcSettings,
    ) -> Option<Result<WebrtcCertificate, WebrtcCertificateError>> {
        Some(read(settings)?.map(|tls| tls.certificate))
    }

    /// The first end of a certificate of the chain; `None`: it cannot be read.
    pub fn ends(&self) -> Option<SystemTime> {
        self.ends
    }

    /// Returns the reason for which clients refuse the certificate now.
    pub fn refused(&self, now: SystemTime) -> Option<String> {
        let names =
            || if self.names.is_empty() { "no host".to_owned() } else { self.names.join(", ") };
        if let Some(ended) = self.ends.filter(|ends| now > *ends) {
            Some(format!("the certificate expired on {}", date(ended)))
        } else if let Some(begins) = self.begins.filter(|begins| now < *begins) {
            Some(format!("the certificate is not valid before {}", date(begins)))
        } else if let Some(host) = &self.other_host {
            Some(format!("the certificate is for {}, not for the `host` {host}", names()))
        } else if self.names.is_empty() {
            Some(
                "the certificate has no subjectAltName, by which clients know their host"
                    .to_owned(),
            )
        } else {
            None
        }
    }

    /// One line for people: the hosts and the end.
    pub fn summary(&self, now: SystemTime) -> String {
        let names = self.names.join(", ");
        let Some(ends) = self.ends else {
            return format!(
                "the certificate of [webrtc], for {names}, has an end that cannot be read"
            );
        };
        let is_soon = now + RENEWED_BEFORE > ends;
        let renew = if is_soon { ": renew it" } else { "" };
        format!("the certificate of [webrtc], for {names}, ends on {}{renew}", date(ends))
    }
}

/// Reads the files; `None` if the settings name none. Only TLS 1.3 is accepted, which every WebRTC client has.
pub(crate) fn read(settings: &WebrtcSettings) -> Option<Result<WebrtcTls, WebrtcCertificateError>> {
    let files = settings.certificate.as_ref()?;
    Some(read_files(files, settings.host.as_deref()))
}

fn read_files(
    CertificateFiles { chain, key }: &CertificateFiles,
    host: Option<&str>,
) -> Result<WebrtcTls, WebrtcCertificateError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| WebrtcCertificateError::File { path, error }
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(chain))?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let certificate = inspect(&certificates, chain, host)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(WebrtcCertificateError::Pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, private_key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let (chain, key) = (chain.clone(), key.clone());
                WebrtcCertificateError::OtherKey { chain, key }
            }
            error => WebrtcCertificateError::Pair(error),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(WebrtcTls { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
}

/// `path`: the file of the chain.
fn inspect(
    chain: &[CertificateDer<'_>],
    path: &Path,
    host: Option<&str>,
) -> Result<WebrtcCertificate, WebrtcCertificateError> {
    let leaf = chain.first().ok_or_else(|| WebrtcCertificateError::Empty(path.to_owned()))?;
    let parsed = EndEntityCert::try_from(leaf).map_err(|error| match error {
        webpki::Error::UnsupportedCertVersion => WebrtcCertificateError::Version(path.to_owned()),
        error => WebrtcCertificateError::Malformed { path: path.to_owned(), error },
    })?;
    let is_for = |host: &str| {
        let host = ServerName::try_from(host.to_owned());
        host.is_ok_and(|host| parsed.verify_is_valid_for_subject_name(&host).is_ok())
    };
    Ok(WebrtcCertificate {
        begins: not_before(leaf),
        ends: chain_ends(chain),
        names: names(&parsed),
        other_host: host.filter(|host| !is_for(host)).map(str::to_owned),
    })
}

/// The hosts that a certificate is for, also those that webpki takes for invalid. It names them, addresses too, in the refusal of another
/// address alone.
fn names(certificate: &EndEntityCert<'_>) -> Vec<String> {
    let other = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let Err(webpki::Error::CertNotValidForName(InvalidNameContext { presented, .. })) =
        certificate.verify_is_valid_for_subject_name(&other)
    else {
        return Vec::new();
    };
    // `DnsName("live.example.org")`, `IpAddress(203.0.113.7)`.
    let name = |shown: String| {
        let inner = shown.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
        inner.unwrap_or(&shown).trim_matches('"').to_owned()
    };
    presented.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests;
