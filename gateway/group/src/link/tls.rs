//! TLS 1.3 between the members: both ends present a raw public key (RFC 7250) that follows from the group's secret, and
//! accept only such keys.

use std::sync::Arc;

use evenkeel_config::SecretFile;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, DigitallySignedStruct,
    DistinguishedName, Error, PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::super::keys::GroupKeys;

/// PKCS#8 of an Ed25519 key before its 32 bytes (RFC 8410, 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

const LINK: &[u8] = b"evenkeel-cluster";

/// HTTP/2: the peer asks this member's API.
const API: &[u8] = b"h2";

/// The TLS configurations of one member.
#[derive(Clone, Debug)]
pub(crate) struct LinkTls {
    pub(super) client: Arc<ClientConfig>,
    /// For connections to the peer's API.
    pub(super) api: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl LinkTls {
    /// Presents the key of the first secret, and accepts those of all.
    pub(crate) fn of(secrets: &[SecretFile]) -> Result<LinkTls, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let keys = secrets.iter().map(signing_key).collect::<Result<Vec<_>, _>>()?;
        let public = keys.iter().map(|key| public_key(&**key)).collect::<Result<Vec<_>, _>>()?;
        let first = keys.into_iter().next().ok_or(Error::NoCertificatesPresented)?;
        let own = Arc::new(CertifiedKey::new(vec![public[0].clone()], first));
        let accepted = Arc::new(PinnedKey { public, provider: Arc::clone(&provider) });
        let versions = [&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&accepted) as _)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::clone(&own),
            )));
        client.alpn_protocols = vec![LINK.to_vec()];
        // Each connection is authenticated anew, and no data is sent before.
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        let mut api = client.clone();
        api.alpn_protocols = vec![API.to_vec()];
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(accepted)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
        server.alpn_protocols = vec![LINK.to_vec(), API.to_vec()];
        server.send_tls13_tickets = 0;
        Ok(LinkTls { client: Arc::new(client), api: Arc::new(api), server: Arc::new(server) })
    }
}

/// True if the other end asks this member's API.
pub(super) fn asks_api(state: &CommonState) -> bool {
    state.alpn_protocol() == Some(API)
}

fn signing_key(secret: &SecretFile) -> Result<Arc<dyn SigningKey>, Error> {
    let pkcs8 = [&PKCS8_HEAD[..], &GroupKeys::of(secret).link()].concat();
    any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))
}

/// The public key where a certificate would stand.
fn public_key(key: &dyn SigningKey) -> Result<CertificateDer<'static>, Error> {
    let key = key.public_key().ok_or(Error::NoCertificatesPresented)?;
    Ok(CertificateDer::from(key.as_ref().to_vec()))
}

/// True if the handshake failed because one end does not accept the key of the other.
pub(super) fn is_another_secret(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
            | Error::AlertReceived(AlertDescription::AccessDenied)
    )
}

#[derive(Debug)]
struct PinnedKey {
    public: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl PinnedKey {
    fn check(&self, found: &CertificateDer<'_>) -> Result<(), Error> {
        match self.public.iter().any(|known| known == found) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }
}

/// The methods that verifiers of both ends have in common.
macro_rules! raw_ed25519_keys_of_tls13 {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _key: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let key = SubjectPublicKeyInfoDer::from(key.as_ref());
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    raw_ed25519_keys_of_tls13!();
}

impl ClientCertVerifier for PinnedKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    raw_ed25519_keys_of_tls13!();
}
