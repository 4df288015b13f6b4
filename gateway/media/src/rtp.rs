//! RTP packets, and the reception of their sources.
//!
//! Headers are parsed and modified in place (RFC 3550, section 5). Reception is loss, reordering, duplicates, jitter and
//! gaps (RFC 3550, appendix A).

pub mod extension;

use crate::rtcp::ReportBlock;
use evenkeel_instant as instant;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Length of the fixed header, without CSRCs and extension (RFC 3550, 5.1).
pub const HEADER_LEN: usize = 12;

/// An RTP header, and the position of the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtpHeader {
    /// 0–127; the session description assigns it.
    pub payload_type: u8,
    /// Voice: first packet after silence. Video: last packet of a frame (RFC 3551, section 4.1).
    pub marker: bool,
    /// Wraps at 2^16.
    pub sequence: u16,
    /// Sampling instant in units of the clock rate, wraps at 2^32.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Index of the first payload byte, after CSRCs and header extension.
    pub payload_offset: usize,
    /// Index after the last payload byte, before padding.
    pub payload_end: usize,
}

/// Reason why bytes are not an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RtpError {
    /// The packet is shorter than its fixed header and CSRCs.
    #[error("shorter than an RTP header")]
    Short,
    /// The version is not 2.
    #[error("RTP version is not 2")]
    Version,
    /// The header extension exceeds the packet.
    #[error("RTP header extension exceeds the packet")]
    Extension,
    /// The padding has length 0 or reaches into the header.
    #[error("RTP padding does not fit the packet")]
    Padding,
}

impl RtpHeader {
    /// Reads the fixed header, CSRCs, extension and padding (RFC 3550, section 5.1).
    ///
    /// # Errors
    /// Fails if the bytes are not an RTP packet (the checks of RFC 3550, appendix A.1).
    // The packet path, in another crate, reads the fields without a copy.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, RtpError> {
        Self::parse_opaque(packet)?.without_padding(packet)
    }

    /// Reads the fixed header, CSRCs and extension of a packet that may be SRTP. The payload reaches to the end: the
    /// length of SRTP's padding is encrypted, and a tag follows it (RFC 3711, section 3.1).
    ///
    /// # Errors
    /// Fails if the bytes are neither an RTP nor an SRTP packet.
    #[inline]
    pub fn parse_opaque(packet: &[u8]) -> Result<Self, RtpError> {
        let Some(fixed) = packet.first_chunk::<HEADER_LEN>() else { return Err(RtpError::Short) };
        let [flags, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if flags >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let mut payload_offset = HEADER_LEN + 4 * usize::from(flags & 0x0f);
        if packet.len() < payload_offset {
            return Err(RtpError::Short);
        }
        if flags & 0x10 != 0 {
            let length = packet.get(payload_offset + 2..payload_offset + 4);
            let Some(&[high, low]) = length else { return Err(RtpError::Extension) };
            payload_offset += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
            if packet.len() < payload_offset {
                return Err(RtpError::Extension);
            }
        }
        Ok(Self {
            payload_type: second & 0x7f,
            marker: second & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            payload_offset,
            payload_end: packet.len(),
        })
    }

    /// Excludes the padding of plain RTP from the payload.
    ///
    /// # Errors
    /// Fails if the padding has length 0 or reaches into the header.
    #[inline]
    pub fn without_padding(self, packet: &[u8]) -> Result<Self, RtpError> {
        if !is_padded(packet) {
            return Ok(self);
        }
        let padding = packet.last().map_or(0, |padding| usize::from(*padding));
        match self.payload_end.checked_sub(padding) {
            Some(payload_end) if padding > 0 && payload_end >= self.payload_offset => {
                Ok(Self { payload_end, ..self })
            }
            _ => Err(RtpError::Padding),
        }
    }

    /// Returns the payload without padding.
    ///
    /// Returns an empty slice if `packet` is shorter than the parsed one.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.payload_offset..self.payload_end).unwrap_or_default()
    }

    /// Bytes between header and padding.
    pub fn payload_len(&self) -> usize {
        self.payload_end.saturating_sub(self.payload_offset)
    }
}

/// Returns SSRC and sequence number of a packet that may be cut after its fixed header, as in an
/// ICMP error.
pub fn ssrc_and_sequence(start: &[u8]) -> Option<(u32, u16)> {
    let [flags, _, s0, s1, _, _, _, _, c0, c1, c2, c3] = *start.first_chunk::<HEADER_LEN>()?;
    let numbers = (u32::from_be_bytes([c0, c1, c2, c3]), u16::from_be_bytes([s0, s1]));
    (flags >> 6 == 2).then_some(numbers)
}

/// Returns whether the header tells of padding (RFC 3550, section 5.1).
#[inline]
pub fn is_padded(packet: &[u8]) -> bool {
    packet.first().is_some_and(|flags| flags & 0x20 != 0)
}

/// Sets the payload type: the lower seven bits of `payload_type`. A packet shorter than a header remains unchanged.
pub fn set_payload_type(packet: &mut [u8], payload_type: u8) {
    if let Some(field) = packet.get_mut(1) {
        *field = *field & 0x80 | payload_type & 0x7f;
    }
}

/// Returns the profile and the content of the header extension (RFC 3550, section 5.3.1). `None` if there is none, or the
/// packet is malformed.
pub fn extension_mut(packet: &mut [u8]) -> Option<(u16, &mut [u8])> {
    let flags = *packet.first()?;
    let rest = packet.get_mut(HEADER_LEN + 4 * usize::from(flags & 0x0f)..)?;
    let ([p0, p1, l0, l1], rest) = rest.split_first_chunk_mut().filter(|_| flags & 0x10 != 0)?;
    let content = rest.get_mut(..4 * usize::from(u16::from_be_bytes([*l0, *l1])))?;
    Some((u16::from_be_bytes([*p0, *p1]), content))
}

/// Sets the sequence number. A packet shorter than a header remains unchanged.
#[inline]
pub fn set_sequence(packet: &mut [u8], sequence: u16) {
    if let Some(field) = packet.get_mut(2..4) {
        field.copy_from_slice(&sequence.to_be_bytes());
    }
}

/// Sets the timestamp. A packet shorter than a header remains unchanged.
#[inline]
pub fn set_timestamp(packet: &mut [u8], timestamp: u32) {
    if let Some(field) = packet.get_mut(4..8) {
        field.copy_from_slice(&timestamp.to_be_bytes());
    }
}

/// Sets the SSRC. A packet shorter than a header remains unchanged.
#[inline]
pub fn set_ssrc(packet: &mut [u8], ssrc: u32) {
    if let Some(field) = packet.get_mut(8..12) {
        field.copy_from_slice(&ssrc.to_be_bytes());
    }
}

/// The header fields chosen by a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    /// Only the lower seven bits are used.
    pub payload_type: u8,
    /// Voice: first packet after silence. Video: last packet of a frame.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Sampling instant in units of the clock rate.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// Appends a packet without CSRCs, extension and padding to `out`.
pub fn write(fields: &Fields, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER_LEN + payload.len());
    out.push(0x80);
    out.push(u8::from(fields.marker) << 7 | fields.payload_type & 0x7f);
    out.extend_from_slice(&fields.sequence.to_be_bytes());
    out.extend_from_slice(&fields.timestamp.to_be_bytes());
    out.extend_from_slice(&fields.ssrc.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Replaces `out` by the header of a packet with this one, with its CSRCs and extension. It tells of no padding.
pub fn copy_header(header: &RtpHeader, packet: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(packet.get(..header.payload_offset).unwrap_or_default());
    if let Some(flags) = out.first_mut() {
        *flags &= !0x20;
    }
}

/// Distance of `sequence` from `reference`, across the wrap; negative is behind (RFC 1982).
pub fn sequence_ahead(sequence: u16, reference: u16) -> i16 {
    sequence.wrapping_sub(reference).cast_signed()
}

/// Distance of `timestamp` from `reference`, across the wrap; negative is behind.
pub(crate) fn timestamp_ahead(timestamp: u32, reference: u32) -> i32 {
    timestamp.wrapping_sub(reference).cast_signed()
}

/// The clock of all video formats (RFC 3551, section 4).
pub const VIDEO_CLOCK_HZ: u32 = 90_000;

/// A larger jump ahead means a restarted source, not loss (RFC 3550, appendix A.1).
const DROPOUT_MAX: i16 = 3_000;
/// A larger jump back is not reordering (RFC 3550, appendix A.1).
const MISORDER_MAX: i16 = 100;
/// A packet that comes after more later ones was lost at first, and was sent again (as in RFC 9002, section 6.1.1).
const REORDERING_MAX: u32 = 3;
/// Number of remembered sequence numbers to detect duplicates; more than [`MISORDER_MAX`].
const WINDOW: u32 = 128;
/// A longer time without a packet counts as a gap: five frames of voice, three of video. Jitter
/// buffers run empty then. Silent voice (DTX) has such gaps too.
pub(crate) const GAP: Duration = Duration::from_millis(100);

/// Counts of a source, since it began or since the last [`Reception::interval`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct ReceptionCounts {
    /// Packets received, without duplicates.
    pub(crate) packets: u64,
    /// Bytes of these packets, as passed in.
    pub(crate) bytes: u64,
    /// Packets sent, according to the sequence numbers.
    pub expected: u64,
    /// Packets that were missing at first: that did not arrive, or came later than reordering explains. A reordered packet was
    /// lost in the previous interval.
    pub lost: u64,
    pub(crate) duplicates: u64,
    /// Packets that arrived after a later one.
    pub(crate) reordered: u64,
    /// Number of times longer than `GAP` without a packet.
    pub(crate) gaps: u64,
    /// The longest time without a packet.
    pub(crate) gap_max: Duration,
    /// Packets of `lost` that arrived later, as a retransmission does.
    #[serde(default)]
    pub(crate) late: u64,
    /// Packets of `lost` that did not arrive, and that repair recovered.
    #[serde(default)]
    pub(crate) recovered: u64,
    /// Runs of consecutive numbers in `lost`.
    #[serde(default)]
    pub bursts: u64,
}

impl ReceptionCounts {
    /// Packets of `lost` that were filled in the interval, also those that were lost in an earlier one.
    pub fn filled(&self) -> u64 {
        self.late + self.recovered
    }
}

/// Reception of one source. Never allocates.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub struct Reception {
    clock_rate: u32,
    total: ReceptionCounts,
    /// Counts at the end of the last interval.
    then: ReceptionCounts,
    /// The longest time without a packet since the last interval.
    gap_max: Duration,
    run: Option<SequenceRun>,
    /// Packets expected in earlier runs, before the source restarted.
    expected_before: u64,
    /// The number that would follow a jump: two consecutive numbers are accepted.
    after_jump: Option<u16>,
    /// Jitter in 1/16 timestamp units (RFC 3550, appendix A.8).
    jitter_x16: u64,
    /// Packets expected and received at the last report.
    reported: (u64, u64),
    /// True if another process may have received packets after the last one.
    #[serde(skip)]
    elsewhere: bool,
}

/// A run of sequence numbers without a jump.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct SequenceRun {
    /// Extended number of the run's first packet: cycles in the upper bits.
    first: u64,
    /// Extended number of the run's highest packet.
    highest: u64,
    /// Bit n is set if the number n below the highest arrived.
    arrivals: u128,
    /// Timestamp of the last packet in order.
    timestamp: u32,
    /// Arrival of the last packet in order.
    #[serde(with = "instant")]
    arrived: Instant,
    /// Arrival of the last packet of any kind.
    #[serde(with = "instant")]
    last_packet_at: Instant,
}

impl SequenceRun {
    fn new(header: &RtpHeader, now: Instant) -> Self {
        // The run starts at one cycle, so that earlier packets have a number too.
        let first = 1 << 16 | u64::from(header.sequence);
        let timestamp = header.timestamp;
        Self { first, highest: first, arrivals: 1, timestamp, arrived: now, last_packet_at: now }
    }

    fn expected(&self) -> u64 {
        self.highest - self.first + 1
    }
}

impl Reception {
    /// `clock_rate` is in Hz; with 0, jitter is not measured.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, ..Self::default() }
    }

    /// Handles a packet of `bytes` bytes.
    pub fn receive(&mut self, header: &RtpHeader, bytes: usize, now: Instant) {
        let Some(run) = self.run.as_mut().filter(|_| !self.elsewhere) else {
            self.expected_before += self.run.map_or(0, |run| run.expected());
            self.run = Some(SequenceRun::new(header, now));
            (self.elsewhere, self.after_jump) = (false, None);
            self.count(bytes);
            return;
        };
        let gap = now.saturating_duration_since(run.last_packet_at);
        run.last_packet_at = now;
        self.gap_max = self.gap_max.max(gap);
        self.total.gap_max = self.total.gap_max.max(gap);
        self.total.gaps += u64::from(gap > GAP);
        let ahead = sequence_ahead(header.sequence, run.highest as u16);
        match ahead {
            1..=DROPOUT_MAX => {
                self.total.bursts += u64::from(ahead > 1);
                run.highest += u64::from(ahead.unsigned_abs());
                run.arrivals =
                    run.arrivals.checked_shl(u32::from(ahead.unsigned_abs())).unwrap_or(0) | 1;
                self.after_jump = None;
                self.time(header.timestamp, now);
            }
            ..=0 if ahead >= -MISORDER_MAX => {
                let behind = u32::from(ahead.unsigned_abs());
                debug_assert!(behind < WINDOW);
                if run.arrivals >> behind & 1 == 1 {
                    self.total.duplicates += 1;
                    return;
                }
                run.arrivals |= 1 << behind;
                run.first = run.first.min(run.highest - u64::from(behind));
                self.total.reordered += 1;
                if behind > REORDERING_MAX {
                    self.total.late += 1;
                } else {
                    // Each neighbour that is missing is the end of a burst of its own; until now all was one burst.
                    let is_missing = |behind: u32| u64::from(run.arrivals >> behind & 1 == 0);
                    let ends = is_missing(behind + 1) + is_missing(behind - 1);
                    self.total.bursts = (self.total.bursts + ends).saturating_sub(1);
                }
            }
            _ if self.after_jump == Some(header.sequence) => {
                self.expected_before += run.expected();
                *run = SequenceRun::new(header, now);
                // The packet that caused the jump belongs to the new run.
                run.first -= 1;
                run.arrivals |= 2;
                self.after_jump = None;
            }
            _ => self.after_jump = Some(header.sequence.wrapping_add(1)),
        }
        self.count(bytes);
    }

    /// Notes that repair recovered this packet, which was missing. It needs no retransmission any more, and is a duplicate if it
    /// arrives. Returns false if it had arrived, or is not among the last 100 numbers.
    pub fn filled(&mut self, sequence: u16) -> bool {
        let Some(run) = &mut self.run else { return false };
        let behind = u32::from((run.highest as u16).wrapping_sub(sequence));
        let is_remembered = behind <= u32::from(MISORDER_MAX.unsigned_abs());
        let is_missing = is_remembered
            && run.arrivals >> behind & 1 == 0
            && run.highest - u64::from(behind) > run.first;
        if is_missing {
            run.arrivals |= 1 << behind;
            self.total.recovered += 1;
        }
        is_missing
    }

    /// Returns the counts since the last call, and resets them. Reordered packets lower `lost`.
    pub fn interval(&mut self) -> ReceptionCounts {
        let total = self.totals();
        let then = std::mem::replace(&mut self.then, total);
        ReceptionCounts {
            packets: total.packets - then.packets,
            bytes: total.bytes - then.bytes,
            expected: total.expected - then.expected,
            lost: (total.lost + total.late).saturating_sub(then.lost + then.late),
            late: total.late - then.late,
            recovered: total.recovered - then.recovered,
            bursts: total.bursts.saturating_sub(then.bursts),
            duplicates: total.duplicates - then.duplicates,
            reordered: total.reordered - then.reordered,
            gaps: total.gaps - then.gaps,
            gap_max: std::mem::take(&mut self.gap_max),
        }
    }

    /// Returns the counts since the source began. `lost` excludes late packets, as in reports.
    pub(crate) fn totals(&self) -> ReceptionCounts {
        let expected = self.expected();
        let lost = expected.saturating_sub(self.total.packets);
        ReceptionCounts { expected, lost, ..self.total }
    }

    /// Returns the interarrival jitter in microseconds (RFC 3550, section 6.4.1), smoothed over 16
    /// packets.
    pub fn jitter_us(&self) -> u64 {
        micros(self.jitter_x16, self.clock_rate)
    }

    /// Returns whether the source has the clock of all video formats (RFC 3551, section 4).
    pub fn is_video(&self) -> bool {
        self.clock_rate == VIDEO_CLOCK_HZ
    }

    /// Returns whether this number is the highest received, or at most `behind` below it.
    fn is_recent(&self, sequence: u16, behind: u16) -> bool {
        self.run.is_some_and(|run| (run.highest as u16).wrapping_sub(sequence) <= behind)
    }

    /// Returns a report block of the source (RFC 3550, appendix A.3): the fraction lost since the
    /// last report, other values since the beginning. `last_sr` and its delay remain 0.
    pub fn report(&mut self, ssrc: u32) -> ReportBlock {
        let (expected, received) = (self.expected(), self.total.packets);
        let (expected_then, received_then) =
            std::mem::replace(&mut self.reported, (expected, received));
        let newly_expected = expected - expected_then;
        let newly_lost = newly_expected.saturating_sub(received - received_then);
        let fraction_lost = (newly_lost * 256).checked_div(newly_expected).unwrap_or(0);
        let sequence_max = self.run.map_or(0, |run| run.highest - (1 << 16));
        ReportBlock {
            ssrc,
            fraction_lost: fraction_lost.min(255) as u8,
            lost: i32::try_from(expected.saturating_sub(received)).unwrap_or(i32::MAX),
            sequence_max: sequence_max as u32,
            jitter: (self.jitter_x16 / 16) as u32,
            last_sr: 0,
            delay_since_last_sr: 0,
        }
    }

    fn expected(&self) -> u64 {
        self.expected_before + self.run.map_or(0, |run| run.expected())
    }

    fn count(&mut self, bytes: usize) {
        self.total.packets += 1;
        self.total.bytes += bytes as u64;
    }

    /// Updates the jitter from the first packet of each frame. Packets with the same timestamp are
    /// sent back to back, so the time between them carries no information.
    fn time(&mut self, timestamp: u32, now: Instant) {
        let Some(run) = &mut self.run else { return };
        let sent = timestamp_ahead(timestamp, run.timestamp);
        if sent == 0 {
            return;
        }
        let arrival = now.saturating_duration_since(run.arrived);
        (run.timestamp, run.arrived) = (timestamp, now);
        let arrival = units(arrival, self.clock_rate);
        self.jitter_x16 = next_jitter(self.jitter_x16, sent, arrival, self.clock_rate);
    }
}

/// A stream is replaced by another one, or begins anew, after this time without a packet in order.
const FOLLOWED_FOR_US: u64 = 1_000_000;

/// Interarrival jitter of one of several streams: the first, and another one once that has ended. Times are microseconds
/// of any clock: the packet path has them, and a difference of [`Instant`]s costs more than all of this.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub struct ArrivalJitter {
    ssrc: u32,
    clock_rate: u32,
    /// Timestamp and arrival of the last packet in order.
    last: Option<(u32, i64)>,
    /// In 1/16 timestamp units (RFC 3550, appendix A.8).
    jitter_x16: u64,
}

impl ArrivalJitter {
    /// Handles a packet.
    #[inline]
    pub fn receive(&mut self, header: &RtpHeader, clock_rate: u32, now_us: i64) {
        let next = Some((header.timestamp, now_us));
        if let Some((timestamp, arrived_us)) = self.last {
            // Limited, so that the product with the clock rate fits; more than an hour is no jitter.
            let arrival_us = now_us.wrapping_sub(arrived_us).cast_unsigned().min(u32::MAX.into());
            let sent = timestamp_ahead(header.timestamp, timestamp);
            if header.ssrc == self.ssrc && sent > 0 {
                self.last = next;
                let arrival = arrival_us * u64::from(self.clock_rate) / 1_000_000;
                self.jitter_x16 =
                    next_jitter(self.jitter_x16, sent, arrival as i64, self.clock_rate);
                return;
            }
            if arrival_us < FOLLOWED_FOR_US {
                return;
            }
        }
        *self = ArrivalJitter { ssrc: header.ssrc, clock_rate, last: next, jitter_x16: 0 };
    }

    /// The jitter in microseconds.
    pub fn us(&self) -> u64 {
        micros(self.jitter_x16, self.clock_rate)
    }
}

/// Returns the smoothed jitter after a packet that arrived so many timestamp units after the last one, and was sent so
/// many after it (RFC 3550, appendix A.8).
#[inline]
fn next_jitter(jitter_x16: u64, sent: i32, arrival: i64, clock_rate: u32) -> u64 {
    let off = arrival.wrapping_sub(sent.into()).unsigned_abs();
    // A step this large is a clock reset, not jitter.
    if off >= u64::from(clock_rate) * 10 {
        return jitter_x16;
    }
    jitter_x16 + off - (jitter_x16 + 8) / 16
}

fn micros(jitter_x16: u64, clock_rate: u32) -> u64 {
    (jitter_x16 * 1_000_000).checked_div(16 * u64::from(clock_rate)).unwrap_or(0)
}

/// Reception of the sources of one sender, of which the oldest is replaced.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub struct Receptions(Vec<(u32, Reception)>);

impl Receptions {
    /// Sources that are kept.
    pub const MAX: usize = 8;

    /// Handles a packet of `bytes` bytes. The clock rate is that of its payload type.
    pub fn receive(&mut self, header: &RtpHeader, bytes: usize, clock_rate: u32, now: Instant) {
        let place = match self.0.iter().position(|(ssrc, _)| *ssrc == header.ssrc) {
            Some(place) => place,
            None => {
                if self.0.len() == Receptions::MAX {
                    self.0.remove(0);
                }
                self.0.push((header.ssrc, Reception::new(clock_rate)));
                self.0.len() - 1
            }
        };
        self.0[place].1.receive(header, bytes, now);
    }

    /// Returns whether this number of a source is the highest received, or at most `behind` below it.
    pub fn is_recent(&self, ssrc: u32, sequence: u16, behind: u16) -> bool {
        self.0.iter().any(|(of, reception)| *of == ssrc && reception.is_recent(sequence, behind))
    }

    /// Notes that repair recovered this packet of a source, which was missing. Returns false if it had arrived, or is unknown.
    pub fn filled(&mut self, ssrc: u32, sequence: u16) -> bool {
        let source = self.0.iter_mut().find(|(of, _)| *of == ssrc);
        source.is_some_and(|(_, reception)| reception.filled(sequence))
    }

    /// Notes that these are copies, and that another process has received packets since they were made. The next packet of
    /// each source shows no loss.
    pub fn went_on_elsewhere(&mut self) {
        self.iter_mut().for_each(|reception| reception.elsewhere = true);
    }

    /// All sources.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reception> {
        self.0.iter_mut().map(|(_, reception)| reception)
    }
}

/// Converts a time to clock units via whole microseconds: a 128-bit division would dominate the
/// cost of a packet.
fn units(time: Duration, clock_rate: u32) -> i64 {
    let rate = u64::from(clock_rate);
    let part = u64::from(time.subsec_micros()) * rate / 1_000_000;
    time.as_secs().saturating_mul(rate).saturating_add(part).try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
