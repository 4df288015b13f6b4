//! The packets that retransmissions repair (RFC 4588).

use super::stream::{OutgoingStream, is_above};
use super::{Continuity, Protection, StreamEpoch};
use crate::{retransmission, rtp};

/// The client's numbers of a packet that is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OriginalPacket {
    /// That of the stream.
    pub ssrc: u32,
    /// On the client's sequence.
    pub sequence: u16,
    /// On the client's timeline.
    pub timestamp: u32,
}

impl Continuity {
    /// Returns the client's numbers of the packet that a retransmission contains. `None` if the client got
    /// no such packet of the sender: its number is that of another packet there.
    ///
    /// `header` is that of the retransmission, which has the timestamp of the lost packet (RFC 4588, section 4), and `sequence` is the
    /// original number in its payload. The lost packet was sent by the hop of `epoch`, with a clock rate of `clock_rate`, and with
    /// a payload type for which `is_repaired` returns true.
    pub fn original(
        &self,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        sequence: u16,
        clock_rate: u32,
        is_repaired: impl Fn(u8) -> bool,
    ) -> Option<OriginalPacket> {
        if self.protection == Protection::Srtp {
            return Some(OriginalPacket { ssrc: 0, sequence, timestamp: header.timestamp });
        }
        let may_be = |stream: &&OutgoingStream| {
            stream.is_sent_by(epoch, stream.present.node_ssrc)
                && stream.clock_rate == clock_rate
                && is_repaired(stream.payload_type)
        };
        let highest = |stream: &OutgoingStream| stream.present.node_sequence(stream.highest) as u16;
        let streams = self.streams.iter().filter(may_be).map(|stream| (stream, highest(stream)));
        retransmission::repaired(sequence, streams)?.original(header, sequence)
    }
}

impl OutgoingStream {
    fn original(&self, header: &rtp::RtpHeader, sequence: u16) -> Option<OriginalPacket> {
        let lost = rtp::RtpHeader { sequence, ..*header };
        let (sequence, timestamp) = self.present.numbers(&lost);
        let behind = (self.highest as u16).wrapping_sub(sequence);
        let number = self.highest.wrapping_sub(behind.into());
        // Numbers between these belong to packets of the sender before.
        let end = self.present.first.wrapping_sub(1);
        let last = if self.present.took_over { end } else { self.present.floor };
        is_above(number, last).then_some(OriginalPacket { ssrc: self.ssrc, sequence, timestamp })
    }
}
