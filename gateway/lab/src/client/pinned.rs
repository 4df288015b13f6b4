//! TLS of a client that pins the gateway's certificate by SHA-256.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_media::roq;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use quinn::{ClientConfig, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// Idle timeout; failures are detected much earlier.
const IDLE_MAX_MS: u32 = 30_000;
/// Keeps NAT bindings open during silence.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The QUIC configuration for RoQ, which accepts exactly this certificate.
///
/// # Errors
/// The provider has no TLS 1.3, or lacks the initial cipher suite of QUIC.
pub fn client_config(certificate_sha256: [u8; 32]) -> Result<ClientConfig, PinnedTlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(Pinned { certificate_sha256, provider: Arc::clone(&provider) });
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    tls.alpn_protocols = vec![roq::ALPN.to_vec()];
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(VarInt::from_u32(IDLE_MAX_MS).into()));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The TLS library lacks what QUIC needs.
#[derive(Debug, thiserror::Error)]
pub enum PinnedTlsError {
    /// No TLS 1.3.
    #[error(transparent)]
    Tls(#[from] Error),
    /// No initial cipher suite of QUIC (RFC 9001, section 5.2).
    #[error(transparent)]
    Suite(#[from] NoInitialCipherSuite),
}

#[derive(Debug)]
struct Pinned {
    certificate_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, end_entity);
        if digest.as_ref() == self.certificate_sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("the certificate is not the one the offer's answer named".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
