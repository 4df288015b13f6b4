//! A quinn server that echoes datagrams, for comparison with RTP over QUIC.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;

use evenkeel_media::roq;
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::namespace::RELAY;

/// Echoes until killed, with quinn's own socket on a single-threaded tokio runtime that is pinned to one core. Prints
/// the address and the certificate's SHA-256 as a line of JSON.
///
/// # Errors
/// The system has no socket or runtime.
pub(crate) fn run() -> Result<(), String> {
    serve().map_err(|error| error.to_string())
}

fn serve() -> io::Result<()> {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".into()]).map_err(io::Error::other)?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, made.cert.der()).as_ref());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key.into())
        .map_err(io::Error::other)?;
    tls.alpn_protocols = vec![roq::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::from(RELAY), 0).into())?;
        let words = serde_json::json!({"listening": endpoint.local_addr()?, "sha256": sha256});
        println!("{words}");
        io::stdout().flush()?;
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok(datagram) = connection.read_datagram().await {
                    // A datagram without room is lost.
                    let _ = connection.send_datagram(datagram);
                }
            });
        }
        Ok(())
    })
}
