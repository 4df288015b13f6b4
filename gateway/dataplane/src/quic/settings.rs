//! How the QUIC endpoint is to be run, and why it could not be started.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How the QUIC endpoint is to be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where to listen. An unspecified IPv6 address takes IPv4 too.
    pub listen: SocketAddr,
    /// What to show to clients.
    pub certificate: Certificate,
    /// Connections at a time, among them those in their handshake and those that are over but not yet forgotten (RFC
    /// 9000, 10.2). Default 8,192. From half of it on, a new client must prove its address first (RFC 9000, 8.1.2).
    pub connections_max: usize,
    /// How long a handshake may take. Default 5 s.
    pub handshake_within: Duration,
    /// A connection from which nothing comes for so long is gone. Default 15 s; never what finds a dead node.
    pub idle_after: Duration,
    /// How often a silent connection is kept alive, so that NAT bindings last. Default 4 s.
    pub keep_alive_every: Duration,
    /// A connection without a flow of a session for so long is closed. Default 5 s.
    pub flowless_after: Duration,
    /// Between two reports of a path to its sessions' workers. Default 100 ms.
    pub feedback_every: Duration,
    /// How long packets gather while they keep coming, before they are read and sent together; at most 250 µs. Default
    /// 200 µs: a wake-up costs more than a packet. The first packet after a pause is never delayed.
    pub gather: Duration,
    /// Bytes of DATAGRAMs that may wait for the network, and for us, per connection. Default 64 KiB: a key frame at
    /// once, and a second of 500 kbit/s. What does not fit is dropped and counted.
    pub datagram_queue_bytes: usize,
    /// Unidirectional streams a client may have open at a time. Default 256: one packet each, a key frame at once.
    pub streams_in_max: u32,
    /// Streams to a client, one packet each, that may be under way at a time. Default 256; past it, packets are
    /// dropped and counted.
    pub streams_out_max: usize,
    /// After so long a packet on a stream to a client is too old to be worth its repetition. Default 1 s.
    pub stream_lifetime: Duration,
}

impl Settings {
    /// The defaults, listening here.
    pub fn at(listen: SocketAddr) -> Settings {
        Settings {
            listen,
            certificate: Certificate::SelfMade { names: vec!["localhost".into()] },
            connections_max: 8_192,
            handshake_within: Duration::from_secs(5),
            idle_after: Duration::from_secs(15),
            keep_alive_every: Duration::from_secs(4),
            flowless_after: Duration::from_secs(5),
            feedback_every: Duration::from_millis(100),
            gather: Duration::from_micros(200),
            datagram_queue_bytes: 64 * 1_024,
            streams_in_max: 256,
            streams_out_max: 256,
            stream_lifetime: Duration::from_secs(1),
        }
    }
}

/// What the endpoint shows to clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Certificate {
    /// A key and certificate made at start; clients know it by its SHA-256.
    SelfMade {
        /// Host names and addresses it is for.
        names: Vec<String>,
    },
    /// Files in PEM.
    Files {
        /// The certificate, and those that lead to its root.
        chain: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Why the endpoint could not be started.
#[derive(Debug)]
pub enum Failure {
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file of the certificate cannot be read as PEM.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls::pki_types::pem::Error,
    },
    /// No certificate could be made for these names.
    Make(rcgen::Error),
    /// Certificate and key do not go together, or are of a kind that TLS 1.3 does not take.
    Certificate(rustls::Error),
    /// The system gave no thread, or no descriptor for its event loop.
    Thread(std::io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Listen { address, error } => {
                write!(f, "cannot listen for QUIC on {address}: {error}")
            }
            Failure::File { path, error } => {
                write!(f, "{} is not the PEM file it should be: {error}", path.display())
            }
            Failure::Make(error) => write!(f, "cannot make a certificate: {error}"),
            Failure::Certificate(error) => {
                write!(f, "the certificate and its key cannot be used: {error}")
            }
            Failure::Thread(error) => write!(f, "cannot start the QUIC thread: {error}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Listen { error, .. } | Failure::Thread(error) => Some(error),
            Failure::File { error, .. } => Some(error),
            Failure::Make(error) => Some(error),
            Failure::Certificate(error) => Some(error),
        }
    }
}
