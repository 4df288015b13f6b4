//! The certificate shown to clients, and the secret of the endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_media::roq;
use quinn_proto::EndpointConfig;
use quinn_proto::crypto::rustls::QuicServerConfig;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::connection_ids::ConnectionIdKeys;
use super::short_lived::ShortLivedCertificates;
use super::x509::{certified, chain_ends, sha256};
use super::{CertificateSource, QuicStartError, http3};

/// The properties by which clients know an endpoint. A process with the identity of another one continues its
/// certificate, and its stateless resets (RFC 9000, 10.3) end the connections of the other. Contains private keys.
#[derive(Clone, Serialize, Deserialize)]
pub struct EndpointIdentity {
    /// From it follow the keys of connection IDs, stateless resets and Retry tokens.
    secret: [u8; 32],
    self_made: Option<SelfMade>,
    /// Number among the processes that replaced one another. Each issues connection IDs by a key of its own.
    #[serde(default)]
    process: u8,
}

/// Omits the keys, to keep them out of logs.
impl fmt::Debug for EndpointIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct SelfMade {
    names: Vec<String>,
    /// DER.
    certificate: Vec<u8>,
    /// PKCS#8.
    key: Vec<u8>,
}

/// A certificate with its key, and its SHA-256.
pub(super) struct EndpointTls {
    key: Arc<CertifiedKey>,
    pub(super) sha256: [u8; 32],
    /// The first end of a certificate of the chain.
    pub(super) ends: Option<SystemTime>,
}

impl EndpointTls {
    /// Returns the TLS configuration. Clients that speak HTTP/3 alone see the short-lived certificate, if there is one.
    pub(super) fn config(
        &self,
        short_lived: Option<Arc<ShortLivedCertificates>>,
    ) -> QuicServerConfig {
        let resolver = CertificateByProtocol { key: Arc::clone(&self.key), short_lived };
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the ring provider has TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        tls.alpn_protocols = vec![roq::ALPN.to_vec(), http3::ALPN.to_vec()];
        tls.try_into().expect("the ring provider has the suite of QUIC's first packets")
    }
}

#[derive(Debug)]
struct CertificateByProtocol {
    key: Arc<CertifiedKey>,
    short_lived: Option<Arc<ShortLivedCertificates>>,
}

impl ResolvesServerCert for CertificateByProtocol {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let speaks =
            |name| hello.alpn().is_some_and(|mut all| all.any(|protocol| protocol == name));
        match &self.short_lived {
            Some(certificates) if speaks(http3::ALPN) && !speaks(roq::ALPN) => {
                Some(certificates.current())
            }
            Some(_) | None => Some(Arc::clone(&self.key)),
        }
    }
}

impl EndpointIdentity {
    pub(super) fn new() -> Result<EndpointIdentity, QuicStartError> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| QuicStartError::Random)?;
        Ok(EndpointIdentity { secret, self_made: None, process: 0 })
    }

    /// Gateways with one secret have one identity, unless they make their certificates themselves.
    pub fn of_secret(secret: &[u8]) -> EndpointIdentity {
        EndpointIdentity { secret: sha256(secret), self_made: None, process: 0 }
    }

    /// The identity of the process that replaces the one with this identity.
    pub fn successor(&self) -> EndpointIdentity {
        EndpointIdentity { process: self.process.wrapping_add(1), ..self.clone() }
    }

    pub(super) fn process(&self) -> u8 {
        self.process
    }

    /// Returns this certificate. A self-made one is made once for its names.
    pub(super) fn tls(
        &mut self,
        certificate: &CertificateSource,
    ) -> Result<EndpointTls, QuicStartError> {
        let (chain, key) = match certificate {
            CertificateSource::SelfMade { names } => {
                let kept = self.self_made.take().filter(|made| made.names == *names);
                let made = kept.map_or_else(|| SelfMade::new(names.clone()), Ok);
                self.self_made.insert(made.map_err(QuicStartError::Make)?).chain()
            }
            CertificateSource::Files { chain, key } => {
                let unreadable = |path: &std::path::Path| {
                    let path = path.to_owned();
                    move |error| QuicStartError::File { path, error }
                };
                let certificates = CertificateDer::pem_file_iter(chain)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(unreadable(chain))?;
                (certificates, PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?)
            }
        };
        let leaf = chain
            .first()
            .ok_or(QuicStartError::Certificate(rustls::Error::NoCertificatesPresented))?;
        let sha256 = sha256(leaf);
        let ends = chain_ends(&chain);
        let key = Arc::new(certified(chain, key).map_err(QuicStartError::Certificate)?);
        Ok(EndpointTls { key, sha256, ends })
    }

    /// Returns the key of Retry tokens.
    pub(super) fn token_key(&self) -> hkdf::Prk {
        let info: [&[u8]; 1] = [b"retry tokens"];
        let prk = self.prk();
        let key = prk.expand(&info, hkdf::HKDF_SHA256);
        key.map(hkdf::Prk::from).expect("a key is as long as the hash")
    }

    pub(super) fn endpoint_config(&self) -> EndpointConfig {
        let prk = self.prk();
        let info: [&[u8]; 1] = [b"stateless resets"];
        let key = prk.expand(&info, hmac::HMAC_SHA256);
        let reset_key = key.map(hmac::Key::from).expect("a key is as long as the hash");
        let (process, keys) = (self.process, self.connection_id_keys());
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        config
            .cid_generator(move || keys.generator(process))
            // Quinn's default of 20 ms would end the connections of a previous process at 50 a second. No other limit
            // is needed: a reset is shorter than its cause, which must carry a connection ID of this secret.
            .min_reset_interval(Duration::ZERO);
        config
    }

    pub(super) fn connection_id_keys(&self) -> ConnectionIdKeys {
        ConnectionIdKeys::of(&self.prk())
    }

    fn prk(&self) -> hkdf::Prk {
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"evenkeel quic").extract(&self.secret)
    }
}

impl SelfMade {
    fn new(names: Vec<String>) -> Result<SelfMade, rcgen::Error> {
        let made = rcgen::generate_simple_self_signed(names.clone())?;
        let certificate = CertificateDer::from(made.cert).to_vec();
        Ok(SelfMade { names, certificate, key: made.signing_key.serialize_der() })
    }

    fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        (vec![self.certificate.clone().into()], key.into())
    }
}
