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

/// The header extensions that the gateway accepts; the id in every room is the index plus one. Ids of Chromium, so that its packets keep
/// theirs.
pub const EXTENSION_URIS: [&str; 14] = [
    // RFC 6464.
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    // draft-holmer-rmcat-transport-wide-cc-extensions-01.
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    // RFC 9143.
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
    "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
    "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    // RFC 8852.
    RTP_STREAM_ID,
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    // AV1 RTP payload format 1.0, appendix A.
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    // 3GPP TS 26.114, section 7.4.5.
    "urn:3gpp:video-orientation",
    // RFC 5450.
    "urn:ietf:params:rtp-hdrext:toffset",
];

/// Names the simulcast layer of a packet (RFC 8852).
pub(crate) const RTP_STREAM_ID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";

/// Returns the id of an extension in every room.
pub(crate) fn room_extension(uri: &str) -> Option<u8> {
    let index = EXTENSION_URIS.iter().position(|known| *known == uri)?;
    u8::try_from(index + 1).ok()
}

#[cfg(test)]
mod tests;
