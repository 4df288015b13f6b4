//! The streams that the answer to a client announced: a client with several m-lines of a kind tells streams apart by SSRC
//! (RFC 5576).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Continuity, OutgoingStream, Pass, Protection, STREAMS_MAX};
use crate::rtp::{RtpHeader, VIDEO_CLOCK_HZ};

/// A stream that was silent for this time gives its m-line to another one. Silent voice sends a packet every 400 ms.
const ENDED_AFTER: Duration = Duration::from_secs(1);

/// A voice without an m-line looks for one at sequence numbers that are multiples of this.
const LOOKS_EVERY: u16 = 16;

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

    fn sections(&self) -> impl Iterator<Item = &AnnouncedSection> {
        self.sections.iter().take(AnnouncedStreams::MAX)
    }

    fn is_retransmission(&self, ssrc: u32) -> bool {
        self.sections().any(|section| self.retransmission(section.index) == ssrc)
    }

    fn has(&self, ssrc: u32) -> bool {
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

impl Continuity {
    /// Gives sources the SSRCs that were announced, from their first packet on. Without m-lines they keep their own SSRCs.
    pub fn announce(&mut self, announced: Arc<AnnouncedStreams>) {
        if let Some(before) = &self.announced {
            let is_known =
                |stream: &OutgoingStream| !before.has(stream.ssrc) || announced.has(stream.ssrc);
            self.streams.retain(is_known);
        }
        self.announced = Some(announced).filter(|announced| !announced.sections.is_empty());
    }

    /// `repaired`: the source sends retransmissions for the stream with this SSRC.
    pub(super) fn place(
        &mut self,
        header: &RtpHeader,
        clock_rate: u32,
        repaired: Option<u32>,
        now: Instant,
    ) -> Placement {
        let orphan = |it: &Self| it.orphan(header, clock_rate);
        let Some(announced) = self.announced.clone() else {
            return match orphan(self) {
                Some(index) => Placement::Continues(index),
                None if self.protection == Protection::Srtp => Placement::Begins(header.ssrc),
                None => Placement::Begins(self.free_ssrc(header.ssrc)),
            };
        };
        let place = |ssrc| self.streams.iter().position(|stream| stream.ssrc == ssrc);
        if let Some(repaired) = repaired {
            let of = |section: &&AnnouncedSection| {
                section.has_retransmissions && announced.ssrc(section.index) == repaired
            };
            let Some(section) = announced.sections().find(of) else { return Placement::Surplus };
            let ssrc = announced.retransmission(section.index);
            return match place(ssrc) {
                Some(index) => Placement::Continues(index),
                None => Placement::Begins(ssrc),
            };
        }
        let admits =
            |section: &&AnnouncedSection| section.payload_types.contains(&header.payload_type);
        let mut admitting = announced.sections().filter(admits).peekable();
        if admitting.peek().is_none() {
            return Placement::Surplus;
        }
        if let Some(index) = orphan(self) {
            return Placement::Continues(index);
        }
        let mut ended: Option<(Instant, usize)> = None;
        for section in admitting {
            let ssrc = announced.ssrc(section.index);
            let Some(index) = place(ssrc) else { return Placement::Begins(ssrc) };
            let last = self.streams[index].last_packet_at;
            let has_ended = now.saturating_duration_since(last) >= ENDED_AFTER;
            if has_ended && ended.is_none_or(|(before, _)| last < before) {
                ended = Some((last, index));
            }
        }
        match ended {
            Some((_, index)) => Placement::Continues(index),
            // Browsers mix some voices that were not announced, and show no such picture.
            None if clock_rate != VIDEO_CLOCK_HZ => Placement::Begins(self.free_ssrc(header.ssrc)),
            None => Placement::Surplus,
        }
    }

    /// Returns whether the stream at this place has no m-line and gets one with this packet. Its present numbers are forgotten then.
    pub(super) fn finds_m_line(
        &mut self,
        index: usize,
        header: &RtpHeader,
        clock_rate: u32,
        now: Instant,
    ) -> bool {
        if header.sequence % LOOKS_EVERY != 0 || self.is_announced(self.streams[index].ssrc) {
            return false;
        }
        let found = match self.place(header, clock_rate, None, now) {
            Placement::Begins(ssrc) => self.is_announced(ssrc),
            Placement::Continues(other) => self.is_announced(self.streams[other].ssrc),
            Placement::Surplus => false,
        };
        if found {
            self.streams.swap_remove(index);
        }
        found
    }

    /// Returns whether the client was told the SSRC of this stream. Such a stream is never forgotten.
    pub(super) fn is_announced(&self, ssrc: u32) -> bool {
        self.announced.as_ref().is_some_and(|announced| announced.has(ssrc))
    }

    /// Returns whether the client was told that this SSRC sends retransmissions.
    pub(super) fn is_announced_retransmission(&self, ssrc: u32) -> bool {
        self.announced.as_ref().is_some_and(|announced| announced.is_retransmission(ssrc))
    }
}

impl OutgoingStream {
    /// Continues the stream with another source of its hop. A source that ended has lost nothing.
    pub(super) fn follow_ended(&mut self, header: &RtpHeader, now: Instant) -> Pass {
        self.withheld = Some((self.highest as u16, 0));
        let pass = self.take_over(self.epoch(), header, Duration::ZERO, now);
        self.previous = None;
        pass
    }
}

#[cfg(test)]
mod tests;
