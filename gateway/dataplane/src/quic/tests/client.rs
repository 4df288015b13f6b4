//! TLS and transport configurations of test clients.

use std::sync::Arc;

use evenkeel_media::roq;
use quinn::VarInt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::super::QuicThread;

pub(super) fn client_config(thread: &QuicThread, datagrams: bool) -> quinn::ClientConfig {
    client_speaking(thread, datagrams, vec![roq::ALPN.to_vec()])
}

pub(super) fn client_speaking(
    thread: &QuicThread,
    datagrams: bool,
    alpn: Vec<Vec<u8>>,
) -> quinn::ClientConfig {
    let mut transport = quinn::TransportConfig::default();
    if !datagrams {
        transport.datagram_receive_buffer_size(None);
    }
    client_with_transport(thread.certificate_sha256, transport, alpn)
}

/// Creates a client that trusts the certificate with this SHA-256.
pub(super) fn client_of(certificate_sha256: [u8; 32]) -> quinn::ClientConfig {
    let transport = quinn::TransportConfig::default();
    client_with_transport(certificate_sha256, transport, vec![roq::ALPN.to_vec()])
}

/// Creates a client that trusts the certificate with this SHA-256.
pub(super) fn client_trusting(sha256: [u8; 32], alpn: Vec<Vec<u8>>) -> quinn::ClientConfig {
    client_with_transport(sha256, quinn::TransportConfig::default(), alpn)
}

pub(super) fn client_without_credit(thread: &QuicThread) -> quinn::ClientConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.datagram_receive_buffer_size(None).max_concurrent_uni_streams(VarInt::from_u32(0));
    client_with_transport(thread.certificate_sha256, transport, vec![roq::ALPN.to_vec()])
}

/// Creates a client that trusts no certificate.
pub(super) fn client_without_trust() -> quinn::ClientConfig {
    client_with_transport([0; 32], quinn::TransportConfig::default(), vec![])
}

fn client_with_transport(
    sha256: [u8; 32],
    transport: quinn::TransportConfig,
    alpn: Vec<Vec<u8>>,
) -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Fingerprint(sha256)))
        .with_no_client_auth();
    tls.alpn_protocols = alpn;
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    config
}

/// Trusts the certificate with this SHA-256, like a client that got it from the admin API.
#[derive(Debug)]
struct Fingerprint([u8; 32]);

impl ServerCertVerifier for Fingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if sha256(end_entity) == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    ::ring::digest::digest(&::ring::digest::SHA256, bytes).as_ref().try_into().unwrap()
}
