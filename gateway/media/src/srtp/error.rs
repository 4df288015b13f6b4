//! Refusals of packets.

use crate::rtp::RtpError;

/// Reason why a packet was not protected or unprotected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SrtpError {
    /// The packet is not RTP.
    #[error(transparent)]
    Rtp(#[from] RtpError),
    /// The packet is not RTCP.
    #[error("shorter than an RTCP header of 8 bytes, or its version is not 2")]
    Rtcp,
    /// The packet ends before its tag.
    #[error("too short for the tag and index of SRTP")]
    Short,
    /// The packet is longer than [`PACKET_MAX`](super::PACKET_MAX).
    #[error("longer than 65535 bytes")]
    Long,
    /// The buffer has no room behind the packet.
    #[error("protected, the packet needs {needed} bytes; the buffer has {found}")]
    NoRoom {
        /// Bytes of the protected packet.
        needed: usize,
        /// Bytes of the buffer.
        found: usize,
    },
    /// The index was used, or is too far below the highest used one.
    #[error("the index was used, or is more than 127 below the highest one")]
    Reused,
    /// No index of the source was leased.
    #[error("no index is leased for this SSRC; lease one first")]
    NotLeased,
    /// All leased indices are used.
    #[error("the index is not below {limit}, the end of the lease; lease more, or replace the key")]
    LeaseExhausted {
        /// The end of the lease.
        limit: u64,
    },
    /// A copy's lease is longer than a jump that receivers follow: the copy is too old, or the lease was too long.
    #[error(
        "the stream would skip {skipped} indices, and a receiver follows at most 32766 (RFC 3711, section 3.3.1); \
         end the session, or replace its key"
    )]
    JumpTooFar {
        /// Indices from the last sent one, as far as known, to the end of the lease.
        skipped: u64,
    },
    /// The packet was accepted before, or is too old to tell.
    #[error("replayed, or more than 127 below the highest index")]
    Replayed,
    /// The tag is wrong: another key, or a changed packet.
    #[error("the tag does not match")]
    Forged,
    /// The session has [`SOURCES_MAX`](super::SOURCES_MAX) sources.
    #[error("the session has {max} SSRCs already")]
    SourcesFull {
        /// The maximum.
        max: usize,
    },
}
