//! The parity packets of a stream.

use std::time::{Duration, Instant};

use super::{FlexfecError, PACKET_BYTES_MAX, ParityPayload, SPAN_MAX, add, places};
use crate::repair::cache::PacketCache;
use crate::rtp::{HEADER_LEN, RtpHeader, sequence_ahead};

/// Parity packets are sent for groups of packets, and cover packets of the last three groups (the idea of Tambur, NSDI 2023). So three parity
/// packets cover a packet, each with other packets: a third of parity leaves 0.1 % of frames broken at 5 % loss, within one group each 5.4 %.
const GROUPS: usize = 3;

/// Limit of packets of a group, which ends with a frame if it is shorter. The groups fit into a mask.
const GROUP_MAX: usize = SPAN_MAX as usize / GROUPS;

/// Limit of covered packets: parity is longer by its header of 32 bytes, is encrypted (20 bytes), and fits into a packet of IPv6 and UDP (48 bytes).
const COVERED_BYTES_MAX: usize = PACKET_BYTES_MAX - 100;

/// The time by which a packet must be younger than the latency of the receiver, so that parity for it is in time in spite of jitter. In a
/// shorter latency than twice this time, parity covers the packets of this time.
const EARLIER: Duration = Duration::from_millis(20);

/// Limit of kept packets: three groups of the longest ones, with their index.
const KEPT_BYTES_MAX: usize = 384 << 10;

/// Parity packets are counted in sixtieths, which all shares have.
const WHOLE: u32 = 60;

/// The share of parity packets, in packets of the stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Overhead {
    Tenth,
    Fifth,
    Third,
    Half,
}

impl Overhead {
    /// Parity packets for each packet, in sixtieths.
    fn of_packet(self) -> u32 {
        match self {
            Overhead::Tenth => WHOLE / 10,
            Overhead::Fifth => WHOLE / 5,
            Overhead::Third => WHOLE / 3,
            Overhead::Half => WHOLE / 2,
        }
    }
}

/// Makes the parity packets of one stream. No allocation per packet.
#[derive(Debug)]
pub struct ParityWriter {
    ssrc: u32,
    packets: PacketCache,
    highest: Option<u16>,
    /// Numbers of packets, those of the newest group first.
    groups: [Vec<u16>; GROUPS],
    /// Sixtieths of a parity packet.
    owed: u32,
    /// Parity packets of the newest group, which is complete then.
    due: usize,
    made: usize,
    data: Vec<u8>,
}

impl ParityWriter {
    /// Begins with the next packet of a stream. `latency`: the time for which its receiver awaits a packet.
    pub fn new(ssrc: u32, latency: Duration) -> ParityWriter {
        let reach = latency.saturating_sub(EARLIER).max(EARLIER);
        ParityWriter {
            ssrc,
            packets: PacketCache::new(KEPT_BYTES_MAX, reach),
            highest: None,
            groups: Default::default(),
            owed: 0,
            due: 0,
            made: 0,
            data: Vec::new(),
        }
    }

    /// Bytes of the kept packets.
    pub fn allocated(&self) -> usize {
        self.packets.allocated()
    }

    /// Returns the bytes that [`keep`](ParityWriter::keep) would allocate for a packet of this length.
    pub fn growth(&mut self, length: usize, now: Instant) -> usize {
        self.packets.growth(length, now)
    }

    /// Allocates no more for packets: older ones give way.
    pub fn stop_growth(&mut self) {
        self.packets.set_bytes_max(self.packets.allocated());
    }

    /// Keeps a packet as the receiver gets it, decrypted.
    pub fn keep(&mut self, header: &RtpHeader, packet: &[u8], overhead: Overhead, now: Instant) {
        if self.due > 0 {
            self.groups.rotate_right(1);
            self.groups[0].clear();
            (self.due, self.made) = (0, 0);
        }
        let sequence = header.sequence;
        let ahead = self.highest.map_or(1, |highest| sequence_ahead(sequence, highest));
        if ahead.unsigned_abs() >= SPAN_MAX {
            // The stream began anew, or paused.
            self.groups.iter_mut().for_each(Vec::clear);
            self.owed = 0;
        }
        if ahead > 0 || ahead.unsigned_abs() >= SPAN_MAX {
            self.highest = Some(sequence);
        }
        let newest = &mut self.groups[0];
        if (HEADER_LEN..=COVERED_BYTES_MAX).contains(&packet.len()) {
            self.packets.keep(self.ssrc, sequence, packet, now);
            newest.push(sequence);
            self.owed += overhead.of_packet();
        }
        if self.owed >= WHOLE && (header.marker || newest.len() >= GROUP_MAX) {
            self.due = (self.owed / WHOLE) as usize;
            self.owed %= WHOLE;
        }
    }

    /// Appends the payload of the next parity packet that is due. Returns false if none is.
    pub fn write_next(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        while self.made < self.due {
            let index = self.made;
            self.made += 1;
            if self.write(index, now, out).is_ok() {
                return true;
            }
        }
        false
    }

    /// Appends the payload of one of the parity packets that are due. Fails if no packet is left that it would cover.
    fn write(&mut self, index: usize, now: Instant, out: &mut Vec<u8>) -> Result<(), FlexfecError> {
        let ParityWriter { ssrc, packets, highest, groups, due, data, .. } = self;
        let lowest = highest.unwrap_or_default().wrapping_sub(SPAN_MAX - 1);
        let mut mask = 0_u128;
        for (back, group) in groups.iter().enumerate() {
            for (place, sequence) in group.iter().enumerate() {
                // Packets that share a parity packet after their group are in different ones after the next, if there are enough.
                let covering = match back {
                    0 => place % *due,
                    1 => place * *due / group.len(),
                    _ => (place + place / *due) % *due,
                };
                let at = sequence.wrapping_sub(lowest);
                if covering == index
                    && at < SPAN_MAX
                    && packets.find(*ssrc, *sequence, now).is_some()
                {
                    mask |= 1 << at;
                }
            }
        }
        let mut fields = [0; 8];
        data.clear();
        for place in places(mask) {
            let number = lowest.wrapping_add(place);
            let Some(kept) = packets.find(*ssrc, number, now) else { continue };
            data.resize(data.len().max(kept.packet.len() - HEADER_LEN), 0);
            add(kept.packet, &mut fields, data)?;
        }
        let skipped = mask.trailing_zeros();
        let base = lowest.wrapping_add(skipped as u16);
        let mask = mask.checked_shr(skipped).unwrap_or(0);
        ParityPayload { ssrc: *ssrc, base, mask, fields, data }.write(out)
    }
}
