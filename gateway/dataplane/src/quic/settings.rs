//! Settings of the QUIC endpoint, and its start errors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the QUIC endpoint, from `[[listen]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuicSettings {
    /// An unspecified IPv6 address accepts IPv4 too.
    pub listen: SocketAddr,
    /// The address may be another host's, until it moves to this one. Default false.
    pub moves: bool,
    /// Source of the certificate that clients verify.
    pub certificate: CertificateSource,
    /// Limit of connections, including handshakes and those that are closed but not forgotten (RFC 9000, 10.2). Default
    /// 8,192. Above half of it a new client must validate its address (RFC 9000, 8.1.2).
    pub connections_max: usize,
    /// Limit of connections of one IPv4 address or IPv6 /56, counted in the same way. Default 2,048.
    pub connections_per_source: usize,
    /// Limit of handshakes in progress of one source. Default 512: more are not served faster. Initial packets beyond
    /// it are ignored; clients repeat them after a second (RFC 9002, 6.2.2).
    pub handshakes_per_source: usize,
    /// Handshake timeout. Default 5 s.
    pub handshake_within: Duration,
    /// Idle timeout. Default 15 s; node failure detection does not depend on it.
    pub idle_after: Duration,
    /// Keep-alive interval, for NAT bindings. Default 4 s.
    pub keep_alive_every: Duration,
    /// A connection without a flow of a session is closed after this time. Default 5 s.
    pub flowless_after: Duration,
    /// Interval of path reports to workers. Default 100 ms.
    pub feedback_every: Duration,
    /// Maximum time for which packets gather while they keep arriving; at most 250 µs. Default 200 µs: a wake-up costs
    /// more than a packet. The first packet after a pause is never delayed.
    pub gather: Duration,
    /// Send and receive queue for DATAGRAMs per connection, in bytes. Default 64 KiB: a key frame at once, and a
    /// second of 500 kbit/s. Excess is dropped and counted.
    pub datagram_queue_bytes: usize,
    /// Limit of unidirectional streams that a client may have open. Default 256: a key frame at once, with one packet
    /// per stream.
    pub streams_in_max: u32,
    /// Streams to a client in progress, one packet each. Default 256; packets beyond are dropped and counted.
    pub streams_out_max: usize,
}

impl QuicSettings {
    /// Returns the defaults with this address.
    pub fn at(listen: SocketAddr) -> QuicSettings {
        QuicSettings {
            listen,
            moves: false,
            certificate: CertificateSource::SelfMade { names: vec!["localhost".into()] },
            connections_max: 8_192,
            connections_per_source: 2_048,
            handshakes_per_source: 512,
            handshake_within: Duration::from_secs(5),
            idle_after: Duration::from_secs(15),
            keep_alive_every: Duration::from_secs(4),
            flowless_after: Duration::from_secs(5),
            feedback_every: Duration::from_millis(100),
            gather: Duration::from_micros(200),
            datagram_queue_bytes: 64 * 1_024,
            streams_in_max: 256,
            streams_out_max: 256,
        }
    }
}

/// Source of the certificate of the endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CertificateSource {
    /// Generated at start. Clients know it by its SHA-256.
    SelfMade {
        /// Host names and addresses of the certificate.
        names: Vec<String>,
    },
    /// PEM files.
    Files {
        /// The certificate and its intermediates.
        chain: PathBuf,
        /// PEM file of the private key.
        key: PathBuf,
    },
}

/// Reason why the endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum QuicStartError {
    /// The socket was not bound.
    #[error("cannot listen for QUIC on {address}: {error}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// A certificate file is not readable as PEM.
    #[error("cannot read {} as PEM: {error}", path.display())]
    File {
        /// The unreadable file.
        path: PathBuf,
        /// The parser's error.
        #[source]
        error: rustls::pki_types::pem::Error,
    },
    /// No certificate could be generated for the names.
    #[error("cannot generate a certificate: {0}")]
    Make(#[source] rcgen::Error),
    /// Certificate and key do not match, or TLS 1.3 does not support their kind.
    #[error("cannot use the certificate and its key: {0}")]
    Certificate(#[source] rustls::Error),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The system refused a thread, or a descriptor for the event loop.
    #[error("cannot start the QUIC thread: {0}")]
    Thread(#[source] std::io::Error),
}
