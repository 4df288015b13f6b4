//! A stream towards the client, with the mapping from the node's numbers.

use super::numbers::{FILLED_WITHIN, MissingNumbers, Recent, Use, WINDOW};
use super::pace::{SilenceSpan, TimestampPace};
use super::protection::Protection;
use crate::rtp::{RtpHeader, sequence_ahead, timestamp_ahead};
use evenkeel_instant as instant;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Limit of streams per session: a conference's active speakers with their video. Above it, the
/// stream that has been silent longest is forgotten.
pub(crate) const STREAMS_MAX: usize = 16;

/// Largest forward jump of a stream that continues across a switch: MAX_DROPOUT of RFC 3550,
/// appendix A.1.
const AHEAD_MAX: i16 = 3_000;

/// Largest backward jump: MAX_MISORDER of RFC 3550, appendix A.1.
const BEHIND_MAX: i16 = 100;

/// Maximum distance of the timestamps of a stream that continues by itself from its last timestamp,
/// or from the present time by its clock. Beyond it the stream restarted under the same SSRC near
/// the old number.
const TIMESTAMP_TOLERANCE: Duration = Duration::from_secs(10);

/// Number of usual packet intervals after which a source counts as silent.
const FEW: u32 = 4;

/// Evidence of a node's death may come this much later than the death.
const EVIDENCE_WITHIN: Duration = Duration::from_millis(250);

/// Identifies the time from one switch to the next. Only grows.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, Debug,
)]
pub struct StreamEpoch(pub u64);

/// The client's numbers of a packet that is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OriginalNumbers {
    /// Of the stream that lacked the packet.
    pub ssrc: u32,
    /// On the client's sequence.
    pub sequence: u16,
    /// On the client's timeline.
    pub timestamp: u32,
}

/// Verdict on a packet towards the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// The packet passes as it is.
    Untouched,
    /// The packet passes with these values in its header.
    Rewrite {
        /// The stream's SSRC towards the client.
        ssrc: u32,
        /// On the client's sequence.
        sequence: u16,
        /// On the client's timeline.
        timestamp: u32,
    },
    /// Drop the packet: its hop is closed, the stream began after its hop was left, or its number is
    /// far from the last one and the next one has not come ([`Protection::Terminated`]).
    Stale,
    /// Drop the packet: it passed before, or since a switch another packet has its number.
    Duplicate,
    /// Drop the packet: the client has no m-line for its stream ([`Continuity::announce`](super::Continuity::announce)).
    Surplus,
}

/// A stream towards the client.
///
/// Outgoing sequence numbers have 32 bits and are compared across the wrap.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub(super) struct OutgoingStream {
    /// The SSRC known to the client.
    pub(super) ssrc: u32,
    pub(super) payload_type: u8,
    pub(super) clock_rate: u32,
    /// Time of the last packet that passed.
    #[serde(with = "instant")]
    pub(super) last_packet_at: Instant,
    pub(super) present: Mapping,
    pub(super) previous: Option<Mapping>,
    pub(super) reports: Reports,
    /// The highest outgoing number used.
    pub(super) highest: u32,
    /// The latest outgoing timestamp.
    latest: u32,
    /// Time when `latest` was first used.
    #[serde(with = "instant")]
    latest_at: Instant,
    /// The number that would follow a jump: two consecutive numbers are accepted.
    after_jump: Option<u16>,
    /// The highest number withheld since the last gap was closed, and the numbers that later packets leave out.
    pub(super) withheld: Option<(u16, u32)>,
    pub(super) pace: TimestampPace,
    recent: Recent,
    missing: MissingNumbers,
    /// True if another hop continues the stream in place of the present one.
    pub(super) on_copies: bool,
    /// True if numbers above the highest may have been used in another process.
    #[serde(default)]
    pub(super) elsewhere: bool,
    /// The outgoing number up to which losses were counted, and the number of packets that had
    /// passed by then.
    counted: (u32, u32),
    /// Bit n is set if the number n below the highest one withheld was withheld, too.
    #[serde(default)]
    among: u32,
}

/// Translates a sender's numbers to the client's.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub(super) struct Mapping {
    epoch: StreamEpoch,
    /// The previous hop, if it sent the same stream with the same numbers.
    earlier: Option<StreamEpoch>,
    /// The SSRC that the node sends.
    pub(super) node_ssrc: u32,
    /// Offset of the client's sequence numbers from the node's, which are extended to 32 bits from
    /// its first packet.
    pub(super) sequence: u32,
    /// Offset of the client's timestamps from the node's.
    pub(super) timestamp: u32,
    /// The outgoing number of the mapping's first packet.
    pub(super) first: u32,
    /// Highest number that the previous sender used, or that was used before a gap was closed; this mapping uses only numbers above it.
    pub(super) floor: u32,
    /// True if the mapping continues another sender's stream.
    pub(super) took_over: bool,
    /// True until a key frame of this sender: the client refers to pictures of the sender before.
    #[serde(default)]
    pub(super) awaits_key_frame: bool,
}

/// State for rewriting RTCP reports of a stream.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub(super) struct Reports {
    pub(super) packets: u32,
    /// Payload bytes that passed.
    pub(super) octets: u32,
    /// The previous sender's packet count, less the packets that passed.
    pub(super) packets_before: u32,
    pub(super) octets_before: u32,
    /// Middle bits of the NTP times in the present sender's last reports.
    pub(super) times: [u32; 4],
    /// Cumulative losses in the client's last report.
    pub(super) lost: i32,
    /// Losses that occurred before the present sender.
    pub(super) lost_before: i32,
    /// The last number that was skipped, until the client has reported about a later one.
    #[serde(default)]
    pub(super) skipped_to: Option<u16>,
    /// The outgoing number that would be the highest if none had passed, and no number below were unsent.
    #[serde(default)]
    unsent_from: u32,
}

impl Mapping {
    fn carries(&self, epoch: StreamEpoch, node_ssrc: u32) -> bool {
        self.node_ssrc == node_ssrc && (self.epoch == epoch || self.earlier == Some(epoch))
    }

    pub(super) fn numbers(&self, header: &RtpHeader) -> (u16, u32) {
        let sequence = header.sequence.wrapping_add(self.sequence as u16);
        (sequence, header.timestamp.wrapping_add(self.timestamp))
    }

    /// Returns the lowest outgoing number that the mapping translates: others had another offset.
    pub(super) fn oldest(&self) -> u32 {
        if is_above(self.first, self.floor) { self.first } else { self.floor.wrapping_add(1) }
    }

    /// Returns the node's sequence number for an outgoing one; the upper half counts the node's
    /// cycles.
    pub(super) fn node_sequence(&self, sequence: u32) -> u32 {
        sequence.wrapping_sub(self.sequence)
    }
}

impl OutgoingStream {
    /// Creates a stream under `ssrc` that begins with `sequence` and keeps the node's timestamps.
    pub(super) fn begin(
        epoch: StreamEpoch,
        header: &RtpHeader,
        (ssrc, sequence): (u32, u16),
        clock_rate: u32,
        now: Instant,
    ) -> Self {
        let highest = u32::from(sequence);
        let mut pace = TimestampPace::default();
        pace.resume(header.marker);
        Self {
            ssrc,
            payload_type: header.payload_type,
            clock_rate,
            last_packet_at: now,
            present: Mapping {
                epoch,
                earlier: None,
                node_ssrc: header.ssrc,
                sequence: highest.wrapping_sub(u32::from(header.sequence)),
                timestamp: 0,
                first: highest,
                floor: highest.wrapping_sub(1 << 16),
                took_over: false,
                awaits_key_frame: false,
            },
            previous: None,
            reports: Reports {
                packets: 1,
                octets: header.payload_len() as u32,
                unsent_from: highest.wrapping_sub(1),
                ..Reports::default()
            },
            highest,
            latest: header.timestamp,
            latest_at: now,
            after_jump: None,
            withheld: None,
            pace,
            recent: Recent::new(highest, header.timestamp),
            missing: MissingNumbers::default(),
            on_copies: false,
            elsewhere: false,
            counted: (highest.wrapping_sub(1), 0),
            among: 0,
        }
    }

    /// Returns the packets expected since the last call, by the sender's numbers, and the missing
    /// ones.
    pub(super) fn arrivals(&mut self) -> (u32, u32) {
        let (highest, packets) =
            std::mem::replace(&mut self.counted, (self.highest, self.reports.packets));
        let came = self.reports.packets.wrapping_sub(packets);
        let expected = self.highest.wrapping_sub(highest);
        (expected.max(came), expected.saturating_sub(came))
    }

    /// Restarts the count here: packets that the previous sender failed to deliver are no loss of
    /// the present one.
    pub(super) fn count_from_here(&mut self) {
        self.counted = (self.highest, self.reports.packets);
    }

    /// Returns the numbers up to this outgoing one with which no packet has passed, modulo 2^32. [`Self::skip_to`] is excluded.
    pub(super) fn unsent_to(&self, sequence: u16) -> u32 {
        let Reports { packets, unsent_from, .. } = self.reports;
        let unsent = self.highest.wrapping_sub(unsent_from).wrapping_sub(packets);
        let above = sequence_ahead(self.highest as u16, sequence).clamp(0, WINDOW as i16);
        let above = u32::from(above.unsigned_abs());
        unsent.wrapping_sub(above - self.recent.used_among(above))
    }

    /// Returns the hop that delivers the stream, or delivered it last.
    pub(super) fn epoch(&self) -> StreamEpoch {
        self.present.epoch
    }

    /// Returns whether the hop of `epoch` delivers, or delivered, the stream under this SSRC.
    pub(super) fn carries(&self, epoch: StreamEpoch, node_ssrc: u32) -> bool {
        self.present.carries(epoch, node_ssrc)
            || self.previous.is_some_and(|mapping| mapping.carries(epoch, node_ssrc))
    }

    /// Returns whether the present sender uses this SSRC in the hop of `epoch`.
    pub(super) fn is_sent_by(&self, epoch: StreamEpoch, node_ssrc: u32) -> bool {
        self.present.carries(epoch, node_ssrc)
    }

    /// Returns whether the last sender used this SSRC.
    pub(super) fn is_from(&self, node_ssrc: u32) -> bool {
        self.present.node_ssrc == node_ssrc
    }

    /// Returns whether the client gets the node's packets unchanged.
    pub(super) fn is_untouched(&self) -> bool {
        let Mapping { node_ssrc, sequence, timestamp, .. } = self.present;
        (node_ssrc, sequence, timestamp) == (self.ssrc, 0, 0)
    }

    /// Returns whether a packet with the last sender's SSRC follows that sender's packets.
    pub(super) fn is_followed_by(&self, header: &RtpHeader, now: Instant) -> bool {
        let (sequence, timestamp) = self.present.numbers(header);
        let ahead = sequence_ahead(sequence, self.highest as u16);
        let expected = self.latest.wrapping_add(self.ticks_since(self.latest_at, now) as u32);
        let off = |from| u64::from(timestamp_ahead(timestamp, from).unsigned_abs());
        let off = off(expected).min(off(self.latest));
        let tolerance = ticks(TIMESTAMP_TOLERANCE, self.clock_rate);
        (-BEHIND_MAX..=AHEAD_MAX).contains(&ahead) && (off <= tolerance || self.clock_rate == 0)
    }

    /// Returns whether this outgoing timestamp is near the latest one.
    pub(super) fn is_near(&self, timestamp: u32) -> bool {
        let off = timestamp_ahead(timestamp, self.latest).unsigned_abs();
        u64::from(off) <= ticks(TIMESTAMP_TOLERANCE, self.clock_rate)
    }

    /// Returns the number of packets missing between the last one and this one, by the sender's
    /// numbers.
    pub(super) fn missing_before(&self, header: &RtpHeader) -> u32 {
        let ahead = sequence_ahead(self.present.numbers(header).0, self.highest as u16);
        u32::try_from(i32::from(ahead) - 1).unwrap_or(0)
    }

    /// Continues the stream at the present hop with the same mapping. Packets of the previous hop
    /// still use it too.
    pub(super) fn go_on(&mut self, epoch: StreamEpoch, previous: Option<StreamEpoch>) {
        self.present.earlier = Some(self.present.epoch).filter(|epoch| Some(*epoch) == previous);
        self.present.epoch = epoch;
    }

    /// Ends the mapping: the sender continues another stream.
    pub(super) fn release(&mut self) {
        let never = StreamEpoch::default();
        // No node sends the client's SSRC.
        self.present =
            Mapping { epoch: never, earlier: None, node_ssrc: self.ssrc, ..self.present };
        self.previous = None;
    }

    /// Notes that numbers above the highest may have been used in another process.
    pub(super) fn went_on_elsewhere(&mut self) {
        self.previous = None;
        self.use_only_above(self.highest);
        // The next packet does not show how many were missed.
        (self.elsewhere, self.on_copies) = (true, true);
    }

    /// Begins above all numbers that another process may have used before this packet.
    pub(super) fn begin_above(&mut self, header: &RtpHeader) {
        let (sequence, _) = self.present.numbers(header);
        let ahead = sequence_ahead(sequence, self.highest as u16);
        self.elsewhere = ahead <= 0;
        self.on_copies = self.elsewhere;
        if !self.elsewhere {
            self.use_only_above(self.highest.wrapping_add_signed(i32::from(ahead) - 1));
        }
    }

    /// Gives the next packet a number above this one.
    pub(super) fn skip_to(&mut self, sequence: u16) {
        let ahead = sequence_ahead(sequence, self.highest as u16);
        let Ok(ahead @ 1..) = u32::try_from(ahead) else { return };
        self.highest = self.highest.wrapping_add(ahead);
        self.present.sequence = self.present.sequence.wrapping_add(ahead);
        self.counted.0 = self.counted.0.wrapping_add(ahead);
        // The client will count them.
        self.reports.lost_before = self.reports.lost_before.saturating_add_unsigned(ahead);
        self.reports.skipped_to = Some(sequence);
        self.reports.unsent_from = self.reports.unsent_from.wrapping_add(ahead);
        self.recent.advance(self.highest, ahead, self.latest);
        (self.previous, self.after_jump, self.withheld) = (None, None, None);
        self.use_only_above(self.highest);
    }

    /// Late packets have lost their numbers.
    pub(super) fn use_only_above(&mut self, number: u32) {
        (self.present.first, self.present.floor) = (number.wrapping_add(1), number);
    }

    /// Continues the stream with another sender, after the lost packets. Without a `lead` none is
    /// lost.
    pub(super) fn take_over(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        lead: Option<Duration>,
        now: Instant,
    ) -> Pass {
        let silence = SilenceSpan {
            since_frame: self.ticks_since(self.latest_at, now),
            since_packet: self.ticks_since(self.last_packet_at, now),
            lead: ticks(lead.unwrap_or_default(), self.clock_rate),
        };
        let leap = self.pace.leap(silence, self.clock_rate);
        // Withheld packets are not lost.
        let is_lost = self.withheld.take().is_none() && lead.is_some();
        let mut lost = if is_lost { leap.lost } else { 0 };
        let elsewhere = std::mem::take(&mut self.elsewhere);
        if elsewhere {
            lost = lost.max(self.pace.most_within(silence.since_packet, self.clock_rate));
        }
        let ahead = u32::from(lost) + 1;
        let floor = self.highest;
        self.highest = floor.wrapping_add(ahead);
        if leap.ticks != 0 {
            self.latest = self.latest.wrapping_add(leap.ticks);
            self.latest_at = now;
        }
        self.previous = (!elsewhere).then_some(self.present);
        self.present = Mapping {
            epoch,
            earlier: None,
            node_ssrc: header.ssrc,
            sequence: self.highest.wrapping_sub(header.sequence.into()),
            timestamp: self.latest.wrapping_sub(header.timestamp),
            first: self.highest,
            floor: if elsewhere { self.highest.wrapping_sub(1) } else { floor },
            took_over: true,
            awaits_key_frame: true,
        };
        self.payload_type = header.payload_type;
        (self.after_jump, self.on_copies) = (None, false);
        self.pace.resume(header.marker);
        self.recent.advance(self.highest, ahead, self.latest);
        self.reports.take_over(lost);
        self.count(header, now);
        self.count_from_here();
        self.numbers_of(header)
    }

    /// Handles a packet of the present or the previous sender.
    pub(super) fn pass(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        protection: Protection,
        now: Instant,
    ) -> Pass {
        if self.present.carries(epoch, header.ssrc) {
            self.pass_present(header, protection, now)
        } else {
            self.pass_previous(header, now)
        }
    }

    /// Returns the outgoing numbers of a packet of the present sender.
    pub(super) fn numbers_of(&self, header: &RtpHeader) -> Pass {
        if self.is_untouched() {
            return Pass::Untouched;
        }
        let (sequence, timestamp) = self.present.numbers(header);
        Pass::Rewrite { ssrc: self.ssrc, sequence, timestamp }
    }

    /// Handles a packet of a sender that may have restarted. Once the next number follows (RFC 3550,
    /// appendix A.1), the sender continues the stream as another one would.
    #[cold]
    fn restart(&mut self, header: &RtpHeader, now: Instant) -> Pass {
        let (sequence, _) = self.present.numbers(header);
        if self.after_jump != Some(sequence) {
            self.after_jump = Some(sequence.wrapping_add(1));
            return Pass::Stale;
        }
        let pass = self.take_over(self.present.epoch, header, Some(Duration::ZERO), now);
        self.previous = None;
        pass
    }

    fn pass_present(&mut self, header: &RtpHeader, protection: Protection, now: Instant) -> Pass {
        self.close_up(header);
        let (sequence, timestamp) = self.present.numbers(header);
        let ahead = sequence_ahead(sequence, self.highest as u16);
        match ahead {
            1..=AHEAD_MAX => {
                let ahead = ahead.unsigned_abs();
                if self.on_copies {
                    self.note_missing_before(header, now);
                    // As `count_from_here` after `advance`: a test on both sides of it doubles the path.
                    let highest = self.highest.wrapping_add(ahead.into());
                    self.counted = (highest, self.reports.packets);
                }
                self.advance(header, timestamp, ahead, now);
            }
            ..=0 if ahead >= -BEHIND_MAX => {
                let number = self.highest.wrapping_add_signed(ahead.into());
                let may_restart = protection == Protection::Terminated
                    && !(self.is_renumbered(number) && self.is_late(timestamp));
                if may_restart && self.is_other(number, timestamp) {
                    return self.restart(header, now);
                }
                if !self.fill(number, timestamp) {
                    return Pass::Duplicate;
                }
                self.missing.fill(number, now);
            }
            // Two late retransmissions in sequence are no restart.
            _ if protection == Protection::Terminated && ahead < 0 && self.is_late(timestamp) => {
                return Pass::Stale;
            }
            _ if protection == Protection::Terminated => return self.restart(header, now),
            _ => self.jump(header, timestamp, sequence, now),
        }
        self.payload_type = header.payload_type;
        self.count(header, now);
        self.numbers_of(header)
    }

    fn advance(&mut self, header: &RtpHeader, timestamp: u32, ahead: u16, now: Instant) {
        let ticks = timestamp_ahead(timestamp, self.latest);
        self.pace.advance(ahead, ticks, header.marker);
        self.highest = self.highest.wrapping_add(ahead.into());
        self.recent.advance(self.highest, ahead.into(), timestamp);
        self.after_jump = None;
        // With B-frames, a frame that is shown earlier is sent later, and its timestamp goes back
        // by less than a second. A larger step back means that the sender reset its clock.
        if ticks > 0 || ticks.unsigned_abs() > self.clock_rate {
            self.latest = timestamp;
            self.latest_at = now;
        }
    }

    /// Returns whether a gap was closed above this number, so that it is none of its packet.
    fn is_renumbered(&self, number: u32) -> bool {
        is_above(self.present.oldest(), number) && !is_above(self.present.first, self.present.floor)
    }

    /// Returns whether another packet has this number, at or below the highest, or may have it.
    fn is_other(&self, number: u32, timestamp: u32) -> bool {
        let behind = self.highest.wrapping_sub(number);
        match behind >= WINDOW {
            true => !self.is_late(timestamp),
            false => self.recent.at(number, behind, timestamp) == Use::Other,
        }
    }

    /// Returns whether the timestamp is at most a second older than the latest one: a packet behind the highest one is then late, and
    /// no sign of a restart. The client may have asked for it again.
    fn is_late(&self, timestamp: u32) -> bool {
        let older = timestamp_ahead(self.latest, timestamp);
        older >= 0 && older.unsigned_abs() <= self.clock_rate
    }

    /// Uses a number at or below the highest. Returns whether it was available.
    fn fill(&mut self, number: u32, timestamp: u32) -> bool {
        let behind = self.highest.wrapping_sub(number);
        let own = is_above(number, self.present.first) || number == self.present.first;
        let free = match self.recent.at(number, behind, timestamp) {
            Use::Free => true,
            Use::Same => false,
            // The sender restarted at a number that was used before.
            Use::Other => own,
        };
        let free = free && is_above(number, self.present.floor);
        if free {
            self.recent.fill(number, behind, timestamp);
        }
        free
    }

    /// Handles a number far from the last one: the packet passes, and the jump is accepted once the
    /// next number follows (RFC 3550, appendix A.1).
    fn jump(&mut self, header: &RtpHeader, timestamp: u32, sequence: u16, now: Instant) {
        if self.after_jump != Some(sequence) {
            self.after_jump = Some(sequence.wrapping_add(1));
            return;
        }
        let ahead = sequence.wrapping_sub(self.highest as u16);
        (self.on_copies, self.elsewhere) = (false, false);
        self.highest = self.highest.wrapping_add(ahead.into());
        // Two packets passed; the client takes the jump for a restart as well.
        let unsent_from = self.reports.unsent_from.wrapping_add(ahead.into());
        self.reports.unsent_from = unsent_from.wrapping_sub(2);
        self.recent = Recent::new(self.highest, timestamp);
        self.after_jump = None;
        self.pace.resume(header.marker);
        self.latest = timestamp;
        self.latest_at = now;
        self.counted = (self.highest.wrapping_sub(1), self.reports.packets);
    }

    /// Handles a packet of the previous sender after a takeover: only reserved numbers are
    /// available.
    fn pass_previous(&mut self, header: &RtpHeader, now: Instant) -> Pass {
        let Some(mapping) = self.previous else { return Pass::Stale };
        let (sequence, timestamp) = mapping.numbers(header);
        let ahead = sequence_ahead(sequence, self.highest as u16);
        let number = self.highest.wrapping_add_signed(ahead.into());
        let behind = self.highest.wrapping_sub(number);
        let kept_free = is_above(number, mapping.floor) && is_above(self.present.first, number);
        if !kept_free || self.recent.at(number, behind, timestamp) != Use::Free {
            return Pass::Duplicate;
        }
        self.recent.fill(number, behind, timestamp);
        self.missing.fill(number, now);
        self.count(header, now);
        if (mapping.node_ssrc, mapping.sequence, mapping.timestamp) == (self.ssrc, 0, 0) {
            return Pass::Untouched;
        }
        Pass::Rewrite { ssrc: self.ssrc, sequence, timestamp }
    }

    /// Returns whether the present mapping is that of the first sender and older than the last
    /// packet, and no packet of the last switch is missing.
    pub(super) fn is_whole(&self) -> bool {
        let Mapping { took_over, first, .. } = self.present;
        !took_over && self.highest != first && self.missing.is_filled()
    }

    /// Number of packets missed at switches, as known at `now`.
    pub(super) fn missed(&self, now: Instant) -> u32 {
        self.missing.all(Some(now))
    }

    /// Notes that the numbers above this one, up to the present one, were skipped.
    pub(super) fn note_skipped(&mut self, above: u32, now: Instant) {
        let skipped = self.highest.wrapping_sub(above).saturating_sub(1);
        self.missing.open(above.wrapping_add(1), skipped.try_into().unwrap_or(u16::MAX), now);
    }

    /// Notes that another hop continues the stream with its own numbers from this packet.
    pub(super) fn note_missing_before(&mut self, header: &RtpHeader, now: Instant) {
        self.on_copies = false;
        if self.elsewhere {
            return self.begin_above(header);
        }
        let missing = self.missing_before(header);
        let missing = missing.try_into().unwrap_or(u16::MAX);
        self.missing.open(self.highest.wrapping_add(1), missing, now);
    }

    /// Returns whether the source was active when its hop ended at `since`.
    pub(super) fn spoke_until(&self, since: Instant) -> bool {
        self.last_packet_at + self.usually_within() + EVIDENCE_WITHIN >= since
    }

    /// Returns whether the source paused before the hop ended, or while a hop left as planned still
    /// delivered. In both cases no packet is missing.
    pub(super) fn paused(&self, since: Instant, planned: bool, now: Instant) -> bool {
        let late = since + FILLED_WITHIN + self.usually_within();
        !self.spoke_until(since) || planned && now > late
    }

    /// Time after which the source counts as silent: [`FEW`] usual packet intervals.
    fn usually_within(&self) -> Duration {
        let ticks = self.pace.interval().unwrap_or_default();
        match self.clock_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) * ticks.min(rate) / rate * FEW,
        }
    }

    fn count(&mut self, header: &RtpHeader, now: Instant) {
        self.last_packet_at = now;
        self.reports.packets = self.reports.packets.wrapping_add(1);
        self.reports.octets = self.reports.octets.wrapping_add(header.payload_len() as u32);
    }

    /// Timestamp units from `then` to `now`.
    fn ticks_since(&self, then: Instant, now: Instant) -> u64 {
        ticks(now.saturating_duration_since(then), self.clock_rate)
    }

    /// Withholds a packet. Returns the last number that passed, and the distance from it; `None` if
    /// the packet is late.
    pub(super) fn withhold(&mut self, header: &RtpHeader, now: Instant) -> Option<(u16, u32)> {
        let (sequence, _) = self.present.numbers(header);
        let (last, place) = self.pending();
        let ahead = sequence_ahead(sequence, last);
        let place = place.checked_add_signed(ahead.into()).filter(|&place| place > 0)?;
        if ahead > 0 {
            self.withheld = Some((sequence, place));
            let ahead = ahead.unsigned_abs().into();
            self.among = self.among.checked_shl(ahead).unwrap_or(0) | lowest_bits(ahead);
        }
        self.last_packet_at = now;
        Some((self.highest as u16, place))
    }

    /// Withholds a packet between others that pass. Returns false if it is late.
    pub(super) fn withhold_between(&mut self, header: &RtpHeader, now: Instant) -> bool {
        let (sequence, _) = self.present.numbers(header);
        let (last, left_out) = self.pending();
        let ahead = sequence_ahead(sequence, last);
        if (1..=AHEAD_MAX).contains(&ahead) {
            self.withheld = Some((sequence, left_out + 1));
            self.among = self.among.checked_shl(ahead.unsigned_abs().into()).unwrap_or(0) | 1;
        } else {
            let bit = 1_u32.checked_shl(ahead.unsigned_abs().into());
            let is_among = left_out > 0 && sequence_ahead(sequence, self.highest as u16) > 0;
            let Some(bit) = bit.filter(|_| ahead <= 0 && is_among) else { return false };
            self.withheld = Some((last, left_out + u32::from(self.among & bit == 0)));
            self.among |= bit;
        }
        self.last_packet_at = now;
        true
    }

    /// The highest number withheld, and the numbers left out; the last number that passed, and 0 if there are none.
    fn pending(&mut self) -> (u16, u32) {
        self.withheld.unwrap_or_else(|| {
            self.among = 0;
            (self.highest as u16, 0)
        })
    }

    /// Closes the gap that packets withheld before this one left.
    #[inline]
    pub(super) fn close_up(&mut self, header: &RtpHeader) {
        if let Some((last, left_out)) = self.withheld {
            self.close_gap(header, last, left_out);
        }
    }

    /// As [`Self::close_up`]. The gap of those withheld behind this packet remains.
    #[cold]
    fn close_gap(&mut self, header: &RtpHeader, last: u16, left_out: u32) {
        let (sequence, _) = self.present.numbers(header);
        let behind = u32::from(sequence_ahead(last, sequence).max(0).unsigned_abs());
        let Some(before) = self.among.checked_shr(behind) else { return };
        let kept = self.among & lowest_bits(behind);
        let closed = left_out.saturating_sub(kept.count_ones());
        if closed == 0 {
            return;
        }
        // Late packets from before have lost their numbers, also those that are missing until now.
        let ahead = u32::try_from(sequence_ahead(last, self.highest as u16)).unwrap_or(0);
        let ahead = ahead.saturating_sub(behind + before.trailing_zeros() + closed);
        self.present.floor = self.highest.wrapping_add(ahead);
        self.present.sequence = self.present.sequence.wrapping_sub(closed);
        self.withheld = (kept > 0).then(|| (last.wrapping_sub(closed as u16), kept.count_ones()));
        self.among = kept;
    }

    /// The client's numbers of a packet of the present sender that is sent again; `None` if the client got no such packet.
    pub(super) fn original(&self, lost: &RtpHeader) -> Option<OriginalNumbers> {
        let (sequence, timestamp) = self.present.numbers(lost);
        let behind = (self.highest as u16).wrapping_sub(sequence);
        let number = self.highest.wrapping_sub(behind.into());
        // Numbers between these belong to packets of the sender before, or to others of this one.
        let end = self.present.oldest().wrapping_sub(1);
        let last = if self.present.took_over { end } else { self.present.floor };
        is_above(number, last).then_some(OriginalNumbers { ssrc: self.ssrc, sequence, timestamp })
    }
}

impl Reports {
    /// Switches the reports to another sender. The client will count the skipped numbers as lost.
    fn take_over(&mut self, skipped: u16) {
        self.times = [0; 4];
        self.lost_before = self.lost.saturating_add(skipped.into());
    }
}

fn ticks(time: Duration, clock_rate: u32) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // Rounded: 20 ms measured slightly short must still give 960 ticks at 48 kHz.
    (micros.saturating_mul(clock_rate.into()).saturating_add(500_000)) / 1_000_000
}

/// The number with so many of its lowest bits set.
fn lowest_bits(bits: u32) -> u32 {
    1_u32.checked_shl(bits).map_or(u32::MAX, |bit| bit - 1)
}

fn is_above(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() > 0
}
