//! Packets that were sent, by their transport-wide numbers, or by stream and sequence number.

use crate::rtcp::{CongestionFeedback, PacketArrival, StreamArrivals};

/// Packets that are remembered: 2 s of 1,000 packets/s, which is more than a round trip and an interval of feedback.
pub(super) const SENT_MAX: usize = 2_048;

/// Feedback about older packets is of another turn of the numbers.
const SENT_KEPT_US: i64 = 10_000_000;

/// Streams of a client: voice, and video with its repair. Further ones take the place of the first.
const STREAMS_MAX: usize = 8;

/// The last packets that were sent. Allocates with the first one.
#[derive(Default, Debug)]
pub(super) struct SentPackets {
    /// By transport-wide number, or in the order of sending, modulo [`SENT_MAX`].
    packets: Vec<Option<SentPacket>>,
    /// The place of the next packet of a stream.
    next: usize,
    /// SSRCs.
    streams: [Option<u32>; STREAMS_MAX],
    streams_noted: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SentPacket {
    number: u16,
    /// The index of its stream; 0 for packets with transport-wide numbers.
    stream: u8,
    pub(super) bytes: u16,
    pub(super) fate: PacketFate,
    pub(super) at_us: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PacketFate {
    Unknown,
    /// Feedback told that it had not come.
    Missing,
    Arrived,
}

impl SentPackets {
    pub(super) fn note(&mut self, number: u16, bytes: usize, at_us: i64) {
        self.put(usize::from(number), SentPacket::new(number, 0, bytes, at_us));
    }

    pub(super) fn note_in_stream(&mut self, ssrc: u32, sequence: u16, bytes: usize, at_us: i64) {
        let known = self.streams.iter().position(|stream| *stream == Some(ssrc));
        let stream = known.unwrap_or_else(|| {
            let place = self.streams_noted % STREAMS_MAX;
            (self.streams[place], self.streams_noted) = (Some(ssrc), self.streams_noted + 1);
            place
        });
        self.put(self.next, SentPacket::new(sequence, stream as u8, bytes, at_us));
        self.next = (self.next + 1) % SENT_MAX;
    }

    fn put(&mut self, place: usize, packet: SentPacket) {
        if self.packets.is_empty() {
            self.packets = vec![None; SENT_MAX];
        }
        self.packets[place % SENT_MAX] = Some(packet);
    }

    /// Returns the packet with this number, if it was sent lately.
    pub(super) fn find(&mut self, number: u16, now_us: i64) -> Option<&mut SentPacket> {
        let packet = self.packets.get_mut(usize::from(number) % SENT_MAX)?.as_mut()?;
        (packet.number == number && now_us - packet.at_us < SENT_KEPT_US).then_some(packet)
    }

    /// Passes each packet of streams that the feedback tells of to `each`, in the order of sending.
    pub(super) fn for_each_told(
        &mut self,
        feedback: &CongestionFeedback<'_>,
        now_us: i64,
        mut each: impl FnMut(&mut SentPacket, PacketArrival),
    ) {
        let mut told: [Option<StreamArrivals<'_>>; STREAMS_MAX] = [None; STREAMS_MAX];
        for stream in feedback.streams().take(STREAMS_MAX) {
            if let Some(index) = self.streams.iter().position(|ssrc| *ssrc == Some(stream.ssrc)) {
                told[index] = Some(stream);
            }
        }
        let split = self.next.min(self.packets.len());
        let (newer, older) = self.packets.split_at_mut(split);
        let in_order = older.iter_mut().chain(newer).flatten();
        for packet in in_order.filter(|packet| now_us - packet.at_us < SENT_KEPT_US) {
            let stream = told[usize::from(packet.stream)];
            if let Some(arrival) = stream.and_then(|stream| stream.arrival(packet.number)) {
                each(packet, arrival);
            }
        }
    }
}

impl SentPacket {
    fn new(number: u16, stream: u8, bytes: usize, at_us: i64) -> SentPacket {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        SentPacket { number, stream, bytes, fate: PacketFate::Unknown, at_us }
    }
}
