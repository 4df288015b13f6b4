//! RTP over QUIC (draft-ietf-avtcore-rtp-over-quic-14): the endpoint, on a thread of its own.
//!
//! A client's packets come in DATAGRAMs and unidirectional streams. Their flow identifier is a capability: it is
//! looked up in [`Flows`](crate::flows::Flows), and the packet crosses by a ring to the worker where the session
//! lives. What that worker sends back goes to the connection that last delivered a valid packet of the session.
//!
//! What a client does wrong, and what it gets:
//!
//! | wrong | answer |
//! |---|---|
//! | unknown flow in a DATAGRAM | dropped, counted |
//! | unknown flow in a stream | STOP_SENDING(ROQ_UNKNOWN_FLOW_ID) |
//! | not RTP, empty or too long in a stream | STOP_SENDING(ROQ_PACKET_ERROR) |
//! | not RTP, empty or no flow identifier in a DATAGRAM; a stream that ends within a packet | closed with ROQ_PACKET_ERROR: there is nothing less to answer with |
//! | a bidirectional stream | closed with ROQ_STREAM_CREATION_ERROR |
//! | no flow of a session for 5 s | closed with ROQ_GENERAL_ERROR |

mod certificate;
mod connection;
mod connections;
mod counters;
mod endpoint;
mod hub;
mod incoming_stream;
mod outgoing_streams;
mod round;
mod settings;
mod socket;
#[cfg(test)]
mod tests;
mod thread;
mod timers;

pub use counters::Counters;
pub use settings::{Certificate, Failure, Settings};
pub use thread::{Thread, start};

use evenkeel_media::roq;

/// An error code of the draft as quinn takes it.
fn code(error: roq::ErrorCode) -> quinn_proto::VarInt {
    quinn_proto::VarInt::from_u32(u32::from(error as u8))
}
