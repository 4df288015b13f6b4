//! Clients of TLS.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// These certificates in PEM, by default the system's. Without any, connections fail.
pub fn roots(ca: Option<&[u8]>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = match ca {
        Some(pem) => CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect(),
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "cannot read a trusted certificate");
            }
            found.certs
        }
    };
    let (taken, _ignored) = roots.add_parsable_certificates(found);
    if taken == 0 {
        tracing::warn!("no trusted certificates found; connections over TLS will fail");
    }
    roots
}

/// A client that trusts these certificates.
pub fn client(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring does every version that is built in")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
