//! A QUIC server for tests, with a self-signed certificate and its own thread.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_media::roq;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, ServerConfig};
use tokio::sync::oneshot;

pub(crate) struct QuicServer {
    pub(crate) address: SocketAddr,
    pub(crate) certificate_sha256: [u8; 32],
    /// The server ends when this is dropped.
    _end: oneshot::Sender<()>,
}

/// Serves every connection with `serve`.
pub(crate) fn start<F>(serve: impl Fn(Connection) -> F + Send + 'static) -> QuicServer
where
    F: Future<Output = ()> + Send + 'static,
{
    let certified = rcgen::generate_simple_self_signed(vec!["evenkeel".into()]).unwrap();
    let certificate = certified.cert.der().clone();
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    tls.alpn_protocols = vec![roq::ALPN.to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = runtime
        .block_on(async { Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap() });
    let address = endpoint.local_addr().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let serving = async {
                while let Some(incoming) = endpoint.accept().await {
                    let Ok(connection) = incoming.await else { continue };
                    tokio::spawn(serve(connection));
                }
            };
            tokio::select! {
                () = serving => {}
                _gone = ended => {}
            }
        });
    });
    QuicServer { address, certificate_sha256: digest.as_ref().try_into().unwrap(), _end: end }
}
