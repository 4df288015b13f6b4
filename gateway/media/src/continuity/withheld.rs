//! Packets that the client does not get. Later ones close the gap in its numbers.

use std::time::Instant;

use super::stream::OutgoingStream;
use crate::rtp::{RtpHeader, sequence_ahead};

impl OutgoingStream {
    /// Withholds a packet. Returns the last number that passed, and the distance from it; `None` if
    /// the packet is late.
    pub(super) fn withhold(&mut self, header: &RtpHeader, now: Instant) -> Option<(u16, u32)> {
        let (sequence, _) = self.present.numbers(header);
        let (last, place) = self.withheld.unwrap_or((self.highest as u16, 0));
        let ahead = sequence_ahead(sequence, last);
        let place = place.checked_add_signed(ahead.into()).filter(|&place| place > 0)?;
        if ahead > 0 {
            self.withheld = Some((sequence, place));
        }
        self.last_packet_at = now;
        Some((self.highest as u16, place))
    }

    /// Closes the gap that withheld packets left before this one.
    pub(super) fn close_up(&mut self, header: &RtpHeader) {
        let (sequence, _) = self.present.numbers(header);
        let Some((last, place)) = self.withheld else { return };
        if sequence_ahead(sequence, last) <= 0 {
            return;
        }
        self.withheld = None;
        self.present.sequence = self.present.sequence.wrapping_sub(place);
        self.use_only_above(self.highest);
    }
}
