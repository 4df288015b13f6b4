//! The place of a new source among the client's streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announced::{AnnouncedSection, AnnouncedStreams, Placement};
use super::stream::{OutgoingStream, Pass};
use super::{Continuity, Protection};
use crate::rtp::RtpHeader;

/// A stream that was silent for this time gives its m-line to another one. Silent voice sends a packet every 400 ms.
const ENDED_AFTER: Duration = Duration::from_secs(1);

impl Continuity {
    /// Gives sources the SSRCs that were announced, from their first packet on. Without m-lines they keep their own SSRCs.
    pub fn announce(&mut self, announced: Arc<AnnouncedStreams>) {
        let announced = Some(announced).filter(|announced| !announced.sections.is_empty());
        if announced.is_some() || self.announced.is_some() {
            let has = |ssrc| announced.as_ref().is_some_and(|announced| announced.has(ssrc));
            self.streams.retain(|stream| has(stream.ssrc));
        }
        self.announced = announced;
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
        ended.map_or(Placement::Surplus, |(_, index)| Placement::Continues(index))
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
