//! The certificate shown to clients and its fingerprint.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use evenkeel_media::roq;

use super::{Certificate, Failure};

/// TLS configuration, and the SHA-256 of its certificate.
pub(super) struct Identity {
    pub(super) tls: quinn_proto::crypto::rustls::QuicServerConfig,
    pub(super) sha256: [u8; 32],
}

impl Identity {
    pub(super) fn of(certificate: &Certificate) -> Result<Identity, Failure> {
        let (chain, key) = match certificate {
            Certificate::SelfMade { names } => self_made(names.clone()).map_err(Failure::Make)?,
            Certificate::Files { chain, key } => {
                let unreadable = |path: &std::path::Path| {
                    let path = path.to_owned();
                    move |error| Failure::File { path, error }
                };
                let certificates = CertificateDer::pem_file_iter(chain)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(unreadable(chain))?;
                (certificates, PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?)
            }
        };
        let leaf =
            chain.first().ok_or(Failure::Certificate(rustls::Error::NoCertificatesPresented))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, leaf);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest.as_ref());

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Failure::Certificate)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(Failure::Certificate)?;
        tls.alpn_protocols = vec![roq::ALPN.to_vec()];
        let tls = tls.try_into().expect("the ring provider has the suite of QUIC's first packets");
        Ok(Identity { tls, sha256 })
    }
}

type Chain = Vec<CertificateDer<'static>>;

fn self_made(names: Vec<String>) -> Result<(Chain, PrivateKeyDer<'static>), rcgen::Error> {
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.into()], key.into()))
}
