//! The place of a new source among the client's streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announced::{AnnouncedSection, AnnouncedStreams, Placement};
use super::{Continuity, Protection};
use crate::rtp::RtpHeader;

/// A stream that was silent for this time, while the node sent other packets, gives its m-line to another one. Longer than the
/// interval of silent voice.
const ENDED_AFTER: Duration = Duration::from_secs(1);

impl Continuity {
    /// Gives sources the SSRCs that were announced, from their first packet on. A client without m-lines, now and before, gets the
    /// SSRCs of the sources.
    ///
    /// The streams of m-lines that the client turned off remain, since no number of an SSRC is used twice.
    pub fn announce(&mut self, announced: Arc<AnnouncedStreams>) {
        if announced.sections.is_empty() && self.announced.is_none() {
            return;
        }
        self.streams.retain(|stream| announced.has_announced(stream.ssrc));
        self.announced = Some(announced);
    }

    /// Returns whether the client turned off the m-line of the stream at this place.
    pub(super) fn is_held(&self, index: usize) -> bool {
        let ssrc = self.streams[index].ssrc;
        self.announced.as_ref().is_some_and(|announced| announced.section(ssrc).is_none())
    }

    /// Finds a place for a new source, which sends retransmissions of the stream with the SSRC `repaired` if there is one.
    pub(super) fn place(
        &mut self,
        header: &RtpHeader,
        clock_rate: u32,
        repaired: Option<u32>,
        now: Instant,
    ) -> Placement {
        match (self.announced.clone(), repaired) {
            (None, _) => self.place_anywhere(header, clock_rate),
            (Some(announced), Some(repaired)) => self.place_beside(repaired, &announced),
            (Some(announced), None) => self.place_on_m_line(header, clock_rate, &announced, now),
        }
    }

    fn place_anywhere(&mut self, header: &RtpHeader, clock_rate: u32) -> Placement {
        match self.orphan(header, clock_rate, |_| true) {
            Some(index) => Placement::Continues(index),
            None if self.protection == Protection::Srtp => Placement::Begins(header.ssrc),
            None => Placement::Begins(self.free_ssrc(header.ssrc)),
        }
    }

    fn place_beside(&self, repaired: u32, announced: &AnnouncedStreams) -> Placement {
        let section = announced.section(repaired).filter(|section| section.has_retransmissions);
        let Some(section) = section else { return Placement::Surplus };
        let ssrc = announced.retransmission_ssrc(section.index);
        self.stream_of(ssrc).map_or(Placement::Begins(ssrc), Placement::Continues)
    }

    fn place_on_m_line(
        &self,
        header: &RtpHeader,
        clock_rate: u32,
        announced: &AnnouncedStreams,
        now: Instant,
    ) -> Placement {
        let admits =
            |section: &&AnnouncedSection| section.payload_types.contains(&header.payload_type);
        let ssrcs = || announced.sections().filter(admits).map(|it| announced.ssrc(it.index));
        let is_admitting = |ssrc| ssrcs().any(|admitting| admitting == ssrc);
        if let Some(index) = self.orphan(header, clock_rate, is_admitting) {
            return Placement::Continues(index);
        }
        if let Some(ssrc) = ssrcs().find(|ssrc| self.stream_of(*ssrc).is_none()) {
            return Placement::Begins(ssrc);
        }
        let last = |index: usize| self.streams[index].last_packet_at;
        // Before this packet: if the node sent nothing at all, no source has ended.
        let newest = (0..self.streams.len()).map(last).chain(self.surplus_at).max().unwrap_or(now);
        let ended = ssrcs()
            .filter_map(|ssrc| self.stream_of(ssrc))
            .filter(|index| newest.saturating_duration_since(last(*index)) >= ENDED_AFTER);
        ended.min_by_key(|index| last(*index)).map_or(Placement::Surplus, Placement::Continues)
    }

    fn stream_of(&self, ssrc: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.ssrc == ssrc)
    }
}

#[cfg(test)]
mod tests;
