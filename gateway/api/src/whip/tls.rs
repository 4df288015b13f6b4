//! TLS of `[webrtc]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use evenkeel_config::CertificateFiles;
use evenkeel_dataplane::quic::chain_ends;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

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
    /// Certificate and key do not match, or TLS 1.3 does not support their kind.
    #[error("cannot use the certificate and its key: {0}")]
    Pair(rustls::Error),
}

/// The certificate of `[webrtc]` in use.
pub(crate) struct WebrtcTls {
    pub(crate) acceptor: TlsAcceptor,
    /// The first end of a certificate of the chain.
    pub(crate) ends: Option<SystemTime>,
}

/// Reads the files. Only TLS 1.3 is accepted, which every WebRTC client has.
pub(crate) fn read(
    CertificateFiles { chain, key }: &CertificateFiles,
) -> Result<WebrtcTls, WebrtcCertificateError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| WebrtcCertificateError::File { path, error }
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(chain))?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let ends = chain_ends(&certificates);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(WebrtcCertificateError::Pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, private_key)
        .map_err(WebrtcCertificateError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(WebrtcTls { acceptor: TlsAcceptor::from(Arc::new(config)), ends })
}
