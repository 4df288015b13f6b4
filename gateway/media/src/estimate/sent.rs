//! Packets that were sent, by their transport-wide numbers.

/// Packets that are remembered: 2 s of 1,000 packets/s, which is more than a round trip and an interval of feedback.
pub(super) const SENT_MAX: usize = 2_048;

/// Feedback about older packets is of another turn of the numbers.
const SENT_KEPT_US: i64 = 10_000_000;

/// The last packets that were sent. Allocates with the first one.
#[derive(Default, Debug)]
pub(super) struct SentPackets {
    /// By number, modulo [`SENT_MAX`].
    packets: Vec<Option<SentPacket>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SentPacket {
    number: u16,
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
        if self.packets.is_empty() {
            self.packets = vec![None; SENT_MAX];
        }
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.packets[usize::from(number) % SENT_MAX] =
            Some(SentPacket { number, bytes, fate: PacketFate::Unknown, at_us });
    }

    /// Returns the packet with this number, if it was sent lately.
    pub(super) fn find(&mut self, number: u16, now_us: i64) -> Option<&mut SentPacket> {
        let packet = self.packets.get_mut(usize::from(number) % SENT_MAX)?.as_mut()?;
        (packet.number == number && now_us - packet.at_us < SENT_KEPT_US).then_some(packet)
    }
}
