//! Ends the DTLS handshakes of WebRTC clients: datagrams and time in, datagrams and SRTP keys out, without sockets, threads or a clock.
//!
//! The gateway is the server of each handshake (`a=setup:passive`, RFC 8842) and asks for the client's certificate, of which the SDP had a
//! fingerprint (RFC 8122). [`Handshakes`] holds one state per session. A handshake ends with the keys of SRTP (RFC 5764), or with a
//! [`HandshakeFailure`].
//!
//! # Version and algorithms
//!
//! - DTLS 1.2 (RFC 6347) if the client offers it, else DTLS 1.3 (RFC 9147).
//! - ECDHE by X25519, P-256 or P-384, ECDSA by P-256 or P-384 (the gateway: P-256), AES-128-GCM or AES-256-GCM. A client needs
//!   the extended master secret (RFC 7627) and a certificate with an ECDSA key, as RFC 8827, section 6.5, has it: `dimpl` verifies no RSA.
//! - SRTP profiles by the preference of the library: in DTLS 1.2 AEAD_AES_256_GCM, AEAD_AES_128_GCM, SRTP_AES128_CM_HMAC_SHA1_80, in
//!   DTLS 1.3 the first of them that the client offers.
//! - No cookie: the caller passes datagrams of addresses that sent a verified ICE check (RFC 8445).
//!
//! The protocol is that of `dimpl`, the cryptography that of `ring`. `dimpl` draws random numbers of its own, and reads the wall clock
//! for the time in a hello.
//!
//! # Secrets
//!
//! [`SrtpKey`](evenkeel_media::srtp::SrtpKey)s and the text of a [`DtlsCertificate`] are wiped when dropped. Neither `dimpl` nor `ring`
//! wipes its own copies of secrets.

mod certificate;
mod client;
mod handshakes;
mod hello;
mod provider;
mod records;

pub use certificate::{CertificateError, DtlsCertificate};
pub use client::DtlsClient;
pub use handshakes::{
    CONNECTED_MAX, HANDSHAKE_LIFETIME, HANDSHAKES_MAX, HandshakeEvent, HandshakeFailure,
    HandshakeRefusal, Handshakes, Peer,
};
