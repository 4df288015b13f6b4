//! The client of a handshake, for simulated clients and tests.

use std::sync::Arc;
use std::time::Instant;

use dimpl::{Config, Dtls, Output};
use evenkeel_media::srtp::SrtpKeys;

use crate::certificate::DtlsCertificate;
use crate::handshakes::{DATAGRAM_MAX, HandshakeFailure, srtp_keys};
use crate::provider::provider;

/// A client by DTLS 1.2. It accepts any certificate; its caller compares [`Self::gateway_certificate`] with the fingerprint of an answer.
pub struct DtlsClient {
    dtls: Dtls,
    buffer: Vec<u8>,
    due: Instant,
    gateway_certificate: Option<Vec<u8>>,
    keys: Option<SrtpKeys>,
}

impl DtlsClient {
    /// Creates a client that shows this certificate. [`Self::handle_timeout`] begins its handshake.
    pub fn new(certificate: &DtlsCertificate, now: Instant) -> Self {
        let config = Config::builder().with_crypto_provider(provider(&certificate.key)).build();
        let config = config.expect("the defaults are valid, and ring passes the library's checks");
        let own = dimpl::DtlsCertificate {
            certificate: certificate.der.clone(),
            private_key: Vec::new(),
        };
        let mut dtls = Dtls::new_12(Arc::new(config), own, now);
        dtls.set_active(true);
        let buffer = vec![0; DATAGRAM_MAX];
        Self { dtls, buffer, due: now, gateway_certificate: None, keys: None }
    }

    /// Processes a datagram of the gateway. `output` sends one to it.
    ///
    /// # Errors
    /// Fails if the gateway ended the handshake.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        now: Instant,
        output: &mut impl FnMut(&[u8]),
    ) -> Result<(), HandshakeFailure> {
        self.dtls.handle_timeout(now).map_err(HandshakeFailure::of)?;
        self.dtls.handle_packet(datagram).map_err(HandshakeFailure::of)?;
        self.poll(output);
        Ok(())
    }

    /// Begins the handshake, and repeats flights that had no answer.
    ///
    /// # Errors
    /// Fails if there was no answer for too long.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        output: &mut impl FnMut(&[u8]),
    ) -> Result<(), HandshakeFailure> {
        self.dtls.handle_timeout(now).map_err(HandshakeFailure::of)?;
        self.poll(output);
        Ok(())
    }

    /// Ends the connection.
    pub fn close(&mut self, output: &mut impl FnMut(&[u8])) {
        // Fails only for a connection that has ended.
        let _ = self.dtls.close();
        self.poll(output);
    }

    /// The time of the next [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Instant {
        self.due
    }

    /// The gateway's certificate in DER, once it was received.
    pub fn gateway_certificate(&self) -> Option<&[u8]> {
        self.gateway_certificate.as_deref()
    }

    /// The keys, once the handshake is complete.
    pub fn keys(&self) -> Option<&SrtpKeys> {
        self.keys.as_ref()
    }

    fn poll(&mut self, output: &mut impl FnMut(&[u8])) {
        loop {
            match self.dtls.poll_output(&mut self.buffer) {
                Output::Packet(datagram) => output(datagram),
                Output::PeerCert(certificate) => {
                    self.gateway_certificate = Some(certificate.to_vec());
                }
                Output::KeyingMaterial(material, profile) => {
                    self.keys = srtp_keys(profile, &material);
                }
                Output::BufferTooSmall { needed } => self.buffer.resize(needed, 0),
                Output::Timeout(at) => {
                    self.due = at;
                    return;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
