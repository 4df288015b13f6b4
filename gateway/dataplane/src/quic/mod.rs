//! RTP over QUIC (draft-ietf-avtcore-rtp-over-quic-14): the endpoint, on its own thread.
//!
//! A client's packets come in DATAGRAMs and unidirectional streams. Their flow identifier is a capability: the endpoint
//! looks it up in [`Flows`](crate::flows::Flows) and passes the packet over a ring to the session's home worker.
//! Packets to the client go over the connection that last delivered a valid packet of the session.
//!
//! Handling of protocol errors:
//!
//! | error | handling |
//! |---|---|
//! | unknown flow in a DATAGRAM | dropped, counted |
//! | unknown flow in a stream | STOP_SENDING(ROQ_UNKNOWN_FLOW_ID) |
//! | not RTP, empty or too long in a stream | STOP_SENDING(ROQ_PACKET_ERROR) |
//! | not RTP, empty or no flow identifier in a DATAGRAM | connection closed with ROQ_PACKET_ERROR |
//! | a stream that ends within a packet | connection closed with ROQ_PACKET_ERROR |
//! | a bidirectional stream | connection closed with ROQ_STREAM_CREATION_ERROR |
//! | no flow of a session for 5 s | connection closed with ROQ_GENERAL_ERROR |
//!
//! A client may speak WebTransport instead (`http3.rs`); its connections are closed with codes of HTTP/3.

mod certificate;
mod congestion;
mod connection;
mod connection_ids;
mod connections;
mod counters;
mod endpoint;
mod http3;
mod hub;
mod predecessors;
mod process_link;
mod send_queue;
mod settings;
mod short_lived;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod thread;
mod x509;

pub use certificate::EndpointIdentity;
pub use counters::Counters;
pub use http3::{probe_url, webtransport_url};
pub use predecessors::HandedConnections;
pub use settings::{CertificateSource, QuicSettings, QuicStartError};
pub use short_lived::{ShortLivedCertificates, ShortLivedError};
pub use thread::{BoundQuicSocket, PredecessorThread, QuicThread, Resumer, listen, start};
pub use x509::{chain_ends, not_before};

use evenkeel_media::roq;

fn code(error: roq::ErrorCode) -> quinn_proto::VarInt {
    quinn_proto::VarInt::from_u32(u32::from(error as u8))
}
