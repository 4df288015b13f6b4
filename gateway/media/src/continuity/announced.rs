//! The streams that the answer to a client announced: a client with several m-lines of a kind tells streams apart by SSRC
//! (RFC 5576).

use serde::{Deserialize, Serialize};

use super::stream::STREAMS_MAX;

/// The streams that a client was told to expect, one per m-line on which it receives.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct AnnouncedStreams {
    /// Determines the SSRCs. It remains in the answers to later offers.
    pub seed: u32,
    /// In the order of the m-lines; those above [`AnnouncedStreams::MAX`] get no stream.
    pub sections: Vec<AnnouncedSection>,
}

/// An m-line on which a client receives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct AnnouncedSection {
    /// The place of the m-line in the description.
    pub index: u8,
    /// The room's payload types of its codecs.
    pub payload_types: Vec<u8>,
    /// The client accepts retransmissions with an SSRC of their own (RFC 4588, section 4).
    pub has_retransmissions: bool,
}

impl AnnouncedStreams {
    /// Each may have a stream of retransmissions.
    pub const MAX: usize = STREAMS_MAX / 2;

    /// Returns the SSRC of the m-line at this place.
    pub fn ssrc(&self, index: u8) -> u32 {
        self.seed.wrapping_add(2 * u32::from(index))
    }

    /// Returns the SSRC of retransmissions on the m-line at this place.
    pub fn retransmission(&self, index: u8) -> u32 {
        self.ssrc(index).wrapping_add(1)
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = &AnnouncedSection> {
        self.sections.iter().take(AnnouncedStreams::MAX)
    }

    pub(super) fn is_retransmission(&self, ssrc: u32) -> bool {
        self.sections().any(|section| self.retransmission(section.index) == ssrc)
    }

    pub(super) fn has(&self, ssrc: u32) -> bool {
        self.sections().any(|section| self.ssrc(section.index) == ssrc)
            || self.is_retransmission(ssrc)
    }
}

/// The place of a new source among the client's streams.
pub(super) enum Placement {
    /// It continues the stream at this place, of which the hop or the source has ended.
    Continues(usize),
    /// It begins a stream with this SSRC.
    Begins(u32),
    /// The client has no m-line for it.
    Surplus,
}
