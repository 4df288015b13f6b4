//! Loss at a receiver before and after repair, by its reports and requests, and the bursts of losses.

mod sent;

use std::time::Instant;

pub use sent::LossSample;
use sent::SentNumbers;
use serde::{Deserialize, Serialize};

use crate::rtcp::ReportBlock;
use crate::rtcp::xr::{LossRuns, StatisticsSummary, VoipMetrics};
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

/// The losses of one stream between the gateway and a client, by the client's reports (RFC 3550, RFC 3611) and its requests (RFC 4585).
///
/// A report tells of all numbers up to its highest one. Numbers that were never sent to the client were lost before the path,
/// and are no loss of it. A packet that was sent again under its own number is not in the fraction lost (RFC 3550, appendix A.3),
/// although the path had lost it.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub struct StreamLoss {
    last: Option<LastReport>,
    /// Packets sent again since the last report.
    same: u32,
    separate: u32,
    /// The highest number that the client asked for, or reported as lost by its number.
    missing_to: Option<u16>,
    bursts: Bursts,
    /// The end of the last exact count.
    #[serde(default)]
    counted: Option<CountEnd>,
    /// The bursts in the client's metrics of VoIP.
    #[serde(default)]
    voip_bursts: Bursts,
    /// Present once a packet was noted. Another process notes them anew.
    #[serde(skip)]
    sent: Option<Box<SentNumbers>>,
    /// The share of packets that the client lacks after repair, ppm, until the report about the same interval is read.
    #[serde(skip)]
    left_ppm: Option<i64>,
}

#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct LastReport {
    sequence_max: u32,
    /// Numbers up to that one that were not sent.
    unsent: u32,
}

/// The first number after those of an exact count, and the numbers before it that were not sent.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct CountEnd {
    end: u16,
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

impl StreamLoss {
    /// A packet with this number was sent. Repairs are chosen by [`Self::sample`], for which all packets of a stream are noted; the
    /// measurements need it of none.
    pub fn note_sent(&mut self, sequence: u16) {
        match &mut self.sent {
            Some(sent) => sent.note_sent(sequence),
            None => self.sent = Some(Box::new(SentNumbers::new(sequence))),
        }
    }

    /// Returns a copy without the packets that were noted.
    pub fn recorded(&self) -> StreamLoss {
        let StreamLoss { last, same, separate, missing_to, bursts, counted, voip_bursts, .. } =
            *self;
        StreamLoss {
            last,
            same,
            separate,
            missing_to,
            bursts,
            counted,
            voip_bursts,
            sent: None,
            left_ppm: None,
        }
    }

    /// Returns whether packets of the stream are noted.
    pub fn notes_packets(&self) -> bool {
        self.sent.is_some()
    }

    /// Notes that a packet that the client lacks was sent again, in time for its jitter buffer.
    pub fn note_repair(&mut self, packet: RepairPacket) {
        let count = match packet {
            RepairPacket::Same => &mut self.same,
            RepairPacket::Separate => &mut self.separate,
        };
        *count = count.saturating_add(1);
    }

    /// Notes numbers that the client asks for (RFC 4585, section 6.2.1), in order. Repeated ones count once, and those that are known not to
    /// have been sent do not count.
    pub fn note_missing(&mut self, numbers: impl Iterator<Item = u16>, now: Instant) {
        for number in numbers {
            if let Some(ahead) = self.ahead_of_missing(number)
                && self.sent.as_deref().is_none_or(|sent| sent.was_sent(number))
            {
                self.bursts.add(1, u64::from(ahead != 1));
                self.missing_to = Some(number);
                if let Some(sent) = &mut self.sent {
                    sent.note_request(now);
                }
            }
        }
    }

    /// Returns the distance of this number from the last missing one; `None` if it repeats an earlier one.
    fn ahead_of_missing(&self, number: u16) -> Option<i16> {
        let ahead = self.missing_to.map_or(i16::MAX, |to| sequence_ahead(number, to));
        (!(-REPEATED_WITHIN..=0).contains(&ahead)).then_some(ahead)
    }

    /// Reads a report. `unsent`: numbers up to the report's highest one that were not sent to the client, modulo 2^32.
    pub fn read(&mut self, block: &ReportBlock, unsent: u32, now: Instant) -> IntervalLoss {
        if let Some(sent) = &mut self.sent {
            sent.note_report(block, now);
        }
        let report = LastReport { sequence_max: block.sequence_max, unsent };
        let last = self.last.replace(report);
        let (same, separate) = (std::mem::take(&mut self.same), std::mem::take(&mut self.separate));
        let (fraction, left) = (i64::from(block.fraction_lost), self.left_ppm.take());
        let all = |ppm, before_path| {
            let after_repair = left.unwrap_or(ppm);
            IntervalLoss { before_repair: ppm, after_repair, before_path }
        };
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
            after_repair: left.unwrap_or_else(|| share(lost - 256 * i64::from(separate))),
            before_path: unsent.max(0) * PPM / i64::from(expected),
        }
    }

    /// Reads which packets the client received (RFC 3611, section 4.1). `unsent`: numbers before the end of the report that were not sent to the
    /// client, modulo 2^32. `None` if it tells of no packet that was sent.
    pub fn read_runs(
        &mut self,
        runs: &LossRuns<'_>,
        unsent: u32,
        now: Instant,
    ) -> Option<IntervalLoss> {
        let (mut at, mut numbers, mut lost, mut is_in_burst) = (runs.begin, 0_u32, 0_u32, false);
        for run in runs.runs() {
            numbers += u32::from(run.length);
            lost += if run.is_lost { run.length.into() } else { 0 };
            if runs.thinning == 0 {
                is_in_burst = run.is_lost && self.note_lost_run(at, run.length, is_in_burst);
                at = at.wrapping_add(run.length);
            }
        }
        let unsent = match runs.thinning {
            0 => self.unsent_between(runs.begin, runs.end, numbers, unsent),
            // Those numbers are a sample, too.
            _ => 0,
        };
        self.read_count(numbers, lost, unsent, now)
    }

    /// Reads which packets the client has after repair (RFC 5725), of those that were [noted](Self::note_sent). Nothing else tells what parity
    /// restored. The next report, or exact count, is about the same packets.
    pub fn read_runs_after_repair(&mut self, runs: &LossRuns<'_>) {
        let Some(sent) = self.sent.as_deref().filter(|_| runs.thinning == 0) else { return };
        let (mut at, mut packets, mut lost) = (runs.begin, 0_u32, 0_u32);
        for run in runs.runs() {
            let sent = sent.sent_in(at, run.length);
            packets += sent;
            lost += if run.is_lost { sent } else { 0 };
            at = at.wrapping_add(run.length);
        }
        self.left_ppm = (i64::from(lost) * PPM).checked_div(packets.into());
    }

    /// Notes that these numbers were lost. Returns whether the next lost ones go on with their burst.
    fn note_lost_run(&mut self, first: u16, length: u16, continues: bool) -> bool {
        let sent = self.sent.as_deref().map_or(length.into(), |it| it.sent_in(first, length));
        if sent > 0 && self.ahead_of_missing(first).is_some() {
            self.bursts.add(sent.into(), u64::from(!continues));
            self.missing_to = Some(first.wrapping_add(length - 1));
        }
        continues || sent > 0
    }

    /// Reads the number of packets that the client lacks (RFC 3611, section 4.6). `unsent`: as for [`Self::read_runs`].
    pub fn read_statistics(
        &mut self,
        summary: &StatisticsSummary,
        unsent: u32,
        now: Instant,
    ) -> Option<IntervalLoss> {
        let numbers = u32::from(summary.end.wrapping_sub(summary.begin));
        let lost = summary.lost?.min(numbers);
        let unsent = self.unsent_between(summary.begin, summary.end, numbers, unsent);
        self.read_count(numbers, lost, unsent, now)
    }

    /// Returns how many of so many numbers from `begin` on were not sent. Without notes of sent packets that is known only if the count goes
    /// on where the last one ended.
    fn unsent_between(&mut self, begin: u16, end: u16, numbers: u32, unsent: u32) -> u32 {
        let last = self.counted.replace(CountEnd { end, unsent });
        match (&self.sent, last) {
            (Some(sent), _) => numbers - sent.sent_in(begin, numbers as u16),
            (None, Some(last)) if last.end == begin => {
                unsent.wrapping_sub(last.unsent).cast_signed().max(0).unsigned_abs().min(numbers)
            }
            (None, _) => 0,
        }
    }

    /// Reads an exact count. `lost`: packets of `numbers` that the client lacks, those included that were not sent.
    fn read_count(
        &mut self,
        numbers: u32,
        lost: u32,
        unsent: u32,
        now: Instant,
    ) -> Option<IntervalLoss> {
        let sent = i64::from(numbers.saturating_sub(unsent));
        if sent == 0 {
            return None;
        }
        let (same, separate) = (std::mem::take(&mut self.same), std::mem::take(&mut self.separate));
        let (lost, left) = (i64::from(lost.saturating_sub(unsent)), self.left_ppm.take());
        let share = |lost: i64| lost * PPM / sent;
        let loss = IntervalLoss {
            before_repair: share(lost + i64::from(same)).min(PPM),
            after_repair: left.unwrap_or_else(|| share(lost - i64::from(separate))),
            before_path: i64::from(unsent) * PPM / i64::from(numbers),
        };
        if let Some(sent) = &mut self.sent {
            sent.note_count(loss.before_repair as u32, now);
        }
        Some(loss)
    }

    /// Reads the client's metrics of VoIP (RFC 3611, section 4.7). Its bursts are those of this stream until packets are known by their
    /// numbers: with losses of a density, a run of lost packets has 1 / (1 − density) of them.
    pub fn read_voip(&mut self, metrics: &VoipMetrics) {
        let VoipMetrics { burst_density, burst_ms, .. } = *metrics;
        self.voip_bursts = match burst_density > 0 && burst_ms > 0 {
            true => Bursts { lost: 256, bursts: 256 - u64::from(burst_density) },
            false => Bursts::default(),
        };
    }

    /// Returns the recent loss before repair, of packets that were [noted](Self::note_sent): the higher one by reports and by requests.
    /// `None` if neither came lately.
    pub fn sample(&self, now: Instant) -> Option<LossSample> {
        self.sent.as_deref()?.sample(now)
    }

    /// The bursts of lost packets: those that the client asked for or reported by their numbers, or else those of its metrics of VoIP.
    pub fn bursts(&self) -> Bursts {
        if self.bursts.bursts > 0 { self.bursts } else { self.voip_bursts }
    }
}

#[cfg(test)]
mod tests;
