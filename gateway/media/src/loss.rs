//! Loss at a receiver before and after repair, by its reports, and the bursts of losses.

use serde::{Deserialize, Serialize};

use crate::rtcp::ReportBlock;
use crate::rtp::sequence_ahead;

/// Bursts after which older ones weigh half: enough for a mean, and few enough that it follows the path within seconds of heavy loss.
const BURSTS_MAX: u64 = 64;

/// The most packets between two reports: 15 s of 4,000 packets/s. Receivers that count more have restarted.
const EXPECTED_MAX: u32 = 60_000;

/// A request of a number this far behind the highest one repeats an earlier request. A number further behind is a later one, after a
/// long time without requests.
const REPEATED_WITHIN: i16 = 4_096;

const PPM: i64 = 1_000_000;

/// The lengths of bursts of loss. Recent ones weigh more.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub struct Bursts {
    lost: u64,
    bursts: u64,
}

impl Bursts {
    /// Adds packets that were lost in this many bursts.
    pub fn add(&mut self, lost: u64, bursts: u64) {
        (self.lost, self.bursts) = (self.lost + lost, self.bursts + bursts);
        while self.bursts >= BURSTS_MAX {
            (self.lost, self.bursts) = (self.lost / 2, self.bursts / 2);
        }
    }

    /// The mean length in hundredths of packets, at least 100; `None` before the first burst.
    pub fn mean_centi(&self) -> Option<u64> {
        Some((self.lost * 100).checked_div(self.bursts)?.max(100))
    }

    /// The mean length over that of random loss of this share, whose bursts have 1 / (1 − p) packets. 1 before the first burst.
    pub fn ratio(&self, loss_ppm: u32) -> f64 {
        let share = f64::from(loss_ppm.min(1_000_000)) / 1e6;
        self.mean_centi().map_or(1.0, |centi| centi as f64 / 100.0 * (1.0 - share))
    }
}

/// How a packet that a receiver lacks is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepairPacket {
    /// Under its own number. The receiver's reports then count it as received.
    Same,
    /// In a stream of its own, as RTX (RFC 4588). The receiver's reports still count it as lost.
    Separate,
}

/// The losses of one stream at its receiver, by the receiver's reports.
///
/// A report tells of all numbers up to its highest one. Numbers that were never sent to the receiver were lost before the path,
/// and are no loss of it. A packet that was sent again under its own number is not in the fraction lost (RFC 3550, appendix A.3),
/// although the path had lost it.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub struct ReportedLoss {
    last: Option<LastReport>,
    /// Packets sent again since the last report.
    same: u32,
    separate: u32,
    /// The highest number that the receiver asked for.
    missing_to: Option<u16>,
    bursts: Bursts,
}

#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct LastReport {
    sequence_max: u32,
    /// Numbers up to that one that were not sent.
    unsent: u32,
}

/// Loss between two reports, in parts per million. Negative if packets were repaired that an earlier interval lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IntervalLoss {
    /// Packets that the path lost.
    pub before_repair: i64,
    /// Packets that the receiver lacks.
    pub after_repair: i64,
    /// Packets that never entered the path, of all that the receiver should have got.
    pub before_path: i64,
}

impl ReportedLoss {
    /// Notes that a packet that the receiver lacks was sent again, in time for its jitter buffer.
    pub fn note_repair(&mut self, packet: RepairPacket) {
        let count = match packet {
            RepairPacket::Same => &mut self.same,
            RepairPacket::Separate => &mut self.separate,
        };
        *count = count.saturating_add(1);
    }

    /// Notes numbers that the receiver asks for (RFC 4585, section 6.2.1), in order. Repeated ones count once.
    pub fn note_missing(&mut self, numbers: impl Iterator<Item = u16>) {
        for number in numbers {
            let ahead = self.missing_to.map_or(i16::MAX, |to| sequence_ahead(number, to));
            if !(-REPEATED_WITHIN..=0).contains(&ahead) {
                self.bursts.add(1, u64::from(ahead != 1));
                self.missing_to = Some(number);
            }
        }
    }

    /// Reads a report. `unsent`: numbers up to the report's highest one that were not sent to the receiver, modulo 2^32.
    pub fn read(&mut self, block: &ReportBlock, unsent: u32) -> IntervalLoss {
        let report = LastReport { sequence_max: block.sequence_max, unsent };
        let last = self.last.replace(report);
        let (same, separate) = (std::mem::take(&mut self.same), std::mem::take(&mut self.separate));
        let fraction = i64::from(block.fraction_lost);
        let all =
            |ppm, before_path| IntervalLoss { before_repair: ppm, after_repair: ppm, before_path };
        let reported = fraction * PPM / 256;
        let Some(last) = last else {
            // The first report tells of all numbers.
            let (lost, unsent) = (i64::from(block.lost), i64::from(unsent));
            let own = if lost > 0 { reported * (lost - unsent).max(0) / lost } else { reported };
            return all(own, reported - own);
        };
        let expected = report.sequence_max.wrapping_sub(last.sequence_max);
        // Fewer than none if late packets filled earlier gaps.
        let unsent = i64::from(unsent.wrapping_sub(last.unsent).cast_signed());
        let sent = i64::from(expected) - unsent;
        if !(1..=EXPECTED_MAX).contains(&expected) || sent <= 0 {
            return all(reported, 0);
        }
        // In 1/256 packets.
        let lost = (fraction * i64::from(expected) - 256 * unsent.max(0)).max(0);
        let share = |lost: i64| lost * PPM / (256 * sent);
        IntervalLoss {
            before_repair: share(lost + 256 * i64::from(same)).min(PPM),
            after_repair: share(lost - 256 * i64::from(separate)),
            before_path: unsent.max(0) * PPM / i64::from(expected),
        }
    }

    /// The bursts of packets that the receiver asked for.
    pub fn bursts(&self) -> Bursts {
        self.bursts
    }
}

#[cfg(test)]
mod tests;
