//! The header extensions of clients, and their ids in rooms.

/// The header extensions that the gateway accepts, each with its id in every room. Ids of Chromium, so that its packets keep theirs.
///
/// One that browsers offer is absent, since its values hold for one transport and other clients receive them unchanged: `sdes:mid`
/// (RFC 9143) names an m-line of the sender, which omits it once a report acknowledged the stream. A client that joins later, and
/// had negotiated it, would drop the stream. Its id of Chromium, 4, is free: packets of simulcast have a label of their sender there.
/// Transport-wide numbers are accepted where the gateway alone writes them.
pub const EXTENSION_URIS: [(u8, &str); 13] = [
    // RFC 6464.
    (1, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
    (2, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
    (3, TRANSPORT_WIDE_NUMBER),
    (5, "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"),
    (6, "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type"),
    (7, "http://www.webrtc.org/experiments/rtp-hdrext/video-timing"),
    (8, "http://www.webrtc.org/experiments/rtp-hdrext/color-space"),
    (9, "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"),
    // RFC 8852.
    (10, RTP_STREAM_ID),
    (11, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"),
    // AV1 RTP payload format 1.0, appendix A.
    (12, "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"),
    // 3GPP TS 26.114, section 7.4.5.
    (13, "urn:3gpp:video-orientation"),
    // RFC 5450.
    (14, "urn:ietf:params:rtp-hdrext:toffset"),
];

/// Numbers the packets of a transport (draft-holmer-rmcat-transport-wide-cc-extensions-01). It is accepted only for packets to the
/// client: a client that numbers its own packets lowers its rate to the minimum without feedback, which the gateway does not write.
pub(crate) const TRANSPORT_WIDE_NUMBER: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Names the simulcast layer of a packet (RFC 8852).
pub(crate) const RTP_STREAM_ID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";

/// Returns the entry of an extension.
pub(crate) fn room_extension(uri: &str) -> Option<(u8, &'static str)> {
    EXTENSION_URIS.into_iter().find(|(_, known)| *known == uri)
}

#[cfg(test)]
mod tests;
