//! The place of a new source among the client's streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announced::{AnnouncedSection, AnnouncedStreams, Placement};
use super::stream::{OutgoingStream, Pass};
use super::{Continuity, Protection};
use crate::rtp::{RtpHeader, VIDEO_CLOCK_HZ};

/// A stream that was silent for this time gives its m-line to another one. Silent voice sends a packet every 400 ms.
const ENDED_AFTER: Duration = Duration::from_secs(1);

/// A voice without an m-line looks for one at sequence numbers that are multiples of this.
const LOOKS_EVERY: u16 = 16;

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
