//! Retransmissions (RFC 4588), and the packets that they contain.

use std::time::Instant;

use super::Continuity;
use super::stream::{OutgoingStream, Pass, StreamEpoch, is_above};
use crate::retransmission;
use crate::rtp::RtpHeader;

/// The client's numbers of a packet that is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OriginalNumbers {
    /// On the client's sequence.
    pub sequence: u16,
    /// On the client's timeline.
    pub timestamp: u32,
}

impl Continuity {
    /// Assigns outgoing numbers to a retransmission, as [`pass`](Self::pass) does, and to the packet that it contains. The
    /// verdict is [`Pass::Stale`] if the client got no such packet of the sender: its number is that of another packet there.
    ///
    /// `header` is that of the retransmission, which has the timestamp of the lost packet (RFC 4588, section 4), and `sequence` is the
    /// original number in its payload. The lost packet had a payload type for which `is_repaired` returns true, and the same clock rate.
    pub fn pass_retransmission(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        sequence: u16,
        clock_rate: u32,
        is_repaired: impl Fn(u8) -> bool,
        now: Instant,
    ) -> (Pass, Option<OriginalNumbers>) {
        let lost = RtpHeader { sequence, ..*header };
        let found = self.repaired(epoch, header.ssrc, &lost, clock_rate, is_repaired);
        let original = found.and_then(|index| {
            let stream = &self.streams[index];
            Some((stream.ssrc, stream.original(&lost)?))
        });
        match original {
            Some((repaired, numbers)) => {
                let pass = self.pass_from(epoch, header, clock_rate, Some(repaired), now);
                (pass, Some(numbers))
            }
            None => {
                // The node did send it.
                let of = |stream: &&mut OutgoingStream| stream.is_sent_by(epoch, header.ssrc);
                if let Some(stream) = self.streams.iter_mut().find(of) {
                    stream.withhold(header, now);
                }
                (Pass::Stale, None)
            }
        }
    }

    /// Finds the stream of a lost packet: that of the m-line on which the source of retransmissions has its place, or one with
    /// such a number and time.
    fn repaired(
        &self,
        epoch: StreamEpoch,
        source: u32,
        lost: &RtpHeader,
        clock_rate: u32,
        is_repaired: impl Fn(u8) -> bool,
    ) -> Option<usize> {
        let placed = self.streams.iter().find(|stream| stream.is_sent_by(epoch, source));
        let ssrc = placed.zip(self.announced.as_ref()).and_then(|(placed, announced)| {
            announced.section(placed.ssrc).map(|section| announced.ssrc(section.index))
        });
        let may_be = |stream: &OutgoingStream| {
            stream.is_sent_by(epoch, stream.present.node_ssrc)
                && stream.clock_rate == clock_rate
                && is_repaired(stream.payload_type)
                && ssrc.is_none_or(|ssrc| stream.ssrc == ssrc)
                && stream.is_near(stream.present.numbers(lost).1)
        };
        let streams = self.streams.iter().enumerate().filter(|(_, stream)| may_be(stream));
        let highest = |(index, stream): (usize, &OutgoingStream)| {
            (index, stream.present.node_sequence(stream.highest) as u16)
        };
        retransmission::repaired(lost.sequence, streams.map(highest))
    }
}

impl OutgoingStream {
    fn original(&self, lost: &RtpHeader) -> Option<OriginalNumbers> {
        let (sequence, timestamp) = self.present.numbers(lost);
        let behind = (self.highest as u16).wrapping_sub(sequence);
        let number = self.highest.wrapping_sub(behind.into());
        // Numbers between these belong to packets of the sender before.
        let end = self.present.first.wrapping_sub(1);
        let last = if self.present.took_over { end } else { self.present.floor };
        is_above(number, last).then_some(OriginalNumbers { sequence, timestamp })
    }
}
