//! Errors of a client that end its connection.

use quinn_proto::VarInt;

/// Reason why the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::quic) enum Http3Error {
    #[error("a DATAGRAM without a quarter stream ID and a packet of RTP or RTCP")]
    Datagram,
    #[error("no credit for SETTINGS or an answer")]
    NoCredit,
    #[error("a second stream of this type, or one of a type that only servers open")]
    StreamCreation,
    #[error("the control stream, or one of QPACK, has ended")]
    ClosedCriticalStream,
    #[error("a frame that this stream may not have here")]
    FrameUnexpected,
    #[error("a frame that is cut, or one of SETTINGS that is malformed")]
    Frame,
    #[error("a frame or a field section of more than 16 KiB")]
    ExcessiveLoad,
    #[error("a setting of HTTP/2")]
    Settings,
    #[error("a control stream that does not begin with SETTINGS")]
    MissingSettings,
    #[error("a request without its pseudo-header fields")]
    Message,
    #[error("a field section that is malformed, or refers to the dynamic table")]
    Decompression,
}

impl Http3Error {
    /// The code (RFC 9114, section 8.1; RFC 9204, section 6; RFC 9297, section 5.2).
    pub(in crate::quic) fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Http3Error::Datagram => 0x33,
            Http3Error::NoCredit => 0x101,
            Http3Error::StreamCreation => 0x103,
            Http3Error::ClosedCriticalStream => 0x104,
            Http3Error::FrameUnexpected => 0x105,
            Http3Error::Frame => 0x106,
            Http3Error::ExcessiveLoad => 0x107,
            Http3Error::Settings => 0x109,
            Http3Error::MissingSettings => 0x10a,
            Http3Error::Message => 0x10e,
            Http3Error::Decompression => 0x200,
        })
    }
}
