//! The streams that the answer to a client announced: a client with several m-lines of a kind tells streams apart by SSRC
//! (RFC 5576).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::stream::STREAMS_MAX;

/// The streams that a client was told to expect, one per m-line on which it receives.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct AnnouncedStreams {
    /// Determines the SSRCs. It remains in the answers to later offers.
    pub seed: u32,
    /// Indices of the m-lines that the client plays in sync. They remain in the answers to later offers.
    pub in_sync: Vec<u8>,
    /// The m-lines in their order. Only the first [`AnnouncedStreams::MAX`] of them have a stream.
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
    /// The sender of the stream; `None` if the room had none for it at the time of the answer.
    #[serde(default)]
    pub sender: Option<AnnouncedSender>,
}

/// The sender of an announced stream.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct AnnouncedSender {
    /// The id of the `MediaStream` at the client: one for the voice and the pictures of a sender.
    pub stream: Arc<str>,
    /// The SSRCs with which the sender announced it. Some nodes keep them.
    pub ssrcs: Vec<u32>,
}

/// Numbers behind the seed that m-lines take: two each.
const SSRCS: u32 = 2 * (u8::MAX as u32 + 1);

impl AnnouncedStreams {
    /// Limit of m-lines with a stream: each may have a second stream, of retransmissions.
    pub const MAX: usize = STREAMS_MAX / 2;

    /// Returns the SSRC of the m-line at this place.
    pub fn ssrc(&self, index: u8) -> u32 {
        self.seed.wrapping_add(2 * u32::from(index))
    }

    /// Returns the SSRC of retransmissions on the m-line at this place.
    pub fn retransmission_ssrc(&self, index: u8) -> u32 {
        self.ssrc(index).wrapping_add(1)
    }

    /// Returns the SSRC of parity on the m-line at this place. It is no stream with a place of its own: the gateway makes it.
    pub fn parity_ssrc(&self, index: u8) -> u32 {
        self.seed.wrapping_add(SSRCS + u32::from(index))
    }

    /// Returns the SSRC of retransmissions of the stream with this SSRC, if the client was told of one.
    pub fn retransmissions_of(&self, ssrc: u32) -> Option<u32> {
        let section = self.section(ssrc).filter(|section| section.has_retransmissions)?;
        let is_of_media = ssrc == self.ssrc(section.index);
        is_of_media.then(|| self.retransmission_ssrc(section.index))
    }

    /// Returns whether the SSRC is that of retransmissions on an m-line.
    pub fn is_of_retransmissions(&self, ssrc: u32) -> bool {
        self.section(ssrc).is_some_and(|section| {
            section.has_retransmissions && ssrc == self.retransmission_ssrc(section.index)
        })
    }

    /// Returns whether the client was told of any SSRC of retransmissions.
    pub fn has_retransmissions(&self) -> bool {
        self.sections().any(|section| section.has_retransmissions)
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = &AnnouncedSection> {
        self.sections.iter().take(AnnouncedStreams::MAX)
    }

    /// Returns whether the SSRC is, or was, that of an m-line.
    pub(super) fn has_announced(&self, ssrc: u32) -> bool {
        ssrc.wrapping_sub(self.seed) < SSRCS
    }

    /// Returns the m-line on which the client receives this SSRC.
    pub(super) fn section(&self, ssrc: u32) -> Option<&AnnouncedSection> {
        let index = u8::try_from(ssrc.wrapping_sub(self.seed) / 2).ok()?;
        self.sections().find(|section| section.index == index)
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
