//! The tables between a client's numbers and those of rooms.

/// Maps payload types (RFC 3550, section 5.1): 0 to 127 on both sides.
pub type PayloadTypeMap = NumberMap<128, 128>;

/// Maps ids of header extensions (RFC 8285): 1 to 255 at the client, 1 to 14 in rooms, so that packets there have the one-byte form.
pub type ExtensionMap = NumberMap<256, 15>;

/// A table of a client's numbers below `CLIENT` and rooms' numbers below `ROOM`, one load for each direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NumberMap<const CLIENT: usize, const ROOM: usize> {
    to_room: [Option<u8>; CLIENT],
    to_client: [Option<u8>; ROOM],
}

impl<const CLIENT: usize, const ROOM: usize> Default for NumberMap<CLIENT, ROOM> {
    fn default() -> Self {
        NumberMap { to_room: [None; CLIENT], to_client: [None; ROOM] }
    }
}

impl<const CLIENT: usize, const ROOM: usize> NumberMap<CLIENT, ROOM> {
    /// Returns the room's number for a number of the client; `None` if it was not negotiated.
    pub fn room_number(&self, client: u8) -> Option<u8> {
        self.to_room.get(usize::from(client)).copied().flatten()
    }

    /// Returns the client's number for a number of the room; `None` if it was not negotiated. The first one that was
    /// negotiated, if there are several.
    pub fn client_number(&self, room: u8) -> Option<u8> {
        self.to_client.get(usize::from(room)).copied().flatten()
    }

    /// Returns true if the client's number has this meaning, or may get it: a number never changes its meaning during a session
    /// (RFC 3264, section 8.3.2).
    pub(crate) fn admits(&self, client: u8, room: u8) -> bool {
        self.room_number(client).is_none_or(|mapped| mapped == room)
    }

    /// Adds a pair that [`NumberMap::admits`].
    pub(crate) fn insert(&mut self, client: u8, room: u8) {
        if let Some(entry) = self.to_room.get_mut(usize::from(client)) {
            *entry = Some(room);
        }
        if let Some(entry) = self.to_client.get_mut(usize::from(room)) {
            entry.get_or_insert(client);
        }
    }
}

/// The header extensions that the gateway accepts, each with its id in every room. Ids of Chromium, so that its packets keep theirs.
///
/// Two that browsers offer are absent, since their values hold for one transport and other clients receive them unchanged. `sdes:mid`
/// (RFC 9143) names an m-line of the sender, which omits it once a report acknowledged the stream: a client that joins later, and
/// had negotiated it, would drop the stream. A sender with transport-wide sequence numbers
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01) lowers its rate to the minimum without feedback, which the gateway does not write.
pub const EXTENSION_URIS: [(u8, &str); 12] = [
    // RFC 6464.
    (1, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
    (2, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
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

/// Names the simulcast layer of a packet (RFC 8852).
pub(crate) const RTP_STREAM_ID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";

/// Returns the entry of an extension.
pub(crate) fn room_extension(uri: &str) -> Option<(u8, &'static str)> {
    EXTENSION_URIS.into_iter().find(|(_, known)| *known == uri)
}

#[cfg(test)]
mod tests;
