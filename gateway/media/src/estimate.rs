//! The rate that the path to a client can carry.
//!
//! From arrival times of packets (transport-wide feedback, or RFC 8888): `trend` finds out whether a queue grows or drains, `acknowledged`
//! measures the rate that arrives, and `control` follows both, as draft-ietf-rmcat-gcc-02 describes. `loss` tells congestion from
//! random loss. From receiver reports alone: `reports`.

mod acknowledged;
mod control;
mod loss;
mod lowest;
mod reports;
mod sent;
mod trend;

use std::time::{Duration, Instant};

use crate::rtcp::{CongestionFeedback, PacketArrival, REFERENCE_TICKS, TICK_US, TransportFeedback};
use acknowledged::AcknowledgedRate;
use control::{PathCondition, RateControl};
use loss::{LossTolerance, LossWindow, WindowLoss};
use lowest::Lowest;
use reports::ReportEstimate;
use sent::{PacketFate, SENT_MAX, SentPacket, SentPackets};
use trend::{DelayTrend, PathUse};

/// An estimate ends after this time without feedback. Receivers send some each 50 to 250 ms.
const FEEDBACK_KEPT_US: i64 = 3_000_000;

/// The lowest delay of this time, at most twice as long, is that of the path without a queue. Clocks drift apart and routes change.
const BASE_DELAY_US: i64 = 10_000_000;

/// A delay that grew by [`JUMP_US`] within this time, at most twice as long, is overuse. The trend alone would need several bursts, which take the
/// longer the less of them the path carries.
const JUMP_WITHIN_US: i64 = 100_000;
const JUMP_US: f64 = 60_000.0;

/// Reference times of transport-wide feedback: their bits, and their unit.
const REFERENCE_BITS: u32 = 24;
const REFERENCE_PER_MINUTE: i32 = 60_000 / 64;

/// Times of congestion control feedback: their bits, their units in a second, and those of arrivals (RFC 8888, section 3.1).
const REPORT_BITS: u32 = 32;
const REPORT_PER_SECOND: i32 = 65_536;
const OFFSET_PER_SECOND: i64 = 1_024;

/// The rate that a path to a client can carry, from arrival times or from reports.
///
/// Allocates once, with the first packet that is noted.
#[derive(Default, Debug)]
pub struct RateEstimate {
    /// Times are counted from the first call on.
    origin: Option<Instant>,
    sent: SentPackets,
    clock: ReceiverClock,
    path: PathEstimate,
    /// The last feedback that told of a packet's arrival.
    heard_us: Option<i64>,
    reports: ReportEstimate,
}

impl RateEstimate {
    pub fn new() -> RateEstimate {
        RateEstimate::default()
    }

    /// Notes a packet with this transport-wide sequence number.
    pub fn note_sent(&mut self, number: u16, bytes: usize, at: Instant) {
        let at_us = self.since_origin(at);
        self.sent.note(number, bytes, at_us);
    }

    /// Notes a packet without such a number, for a client that sends congestion control feedback (RFC 8888).
    pub fn note_sent_in_stream(&mut self, ssrc: u32, sequence: u16, bytes: usize, at: Instant) {
        let at_us = self.since_origin(at);
        self.sent.note_in_stream(ssrc, sequence, bytes, at_us);
    }

    /// Reads feedback of the client. What it tells of packets that were not sent, or that it told of before, does not count.
    pub fn note_feedback(&mut self, feedback: &TransportFeedback<'_>, now: Instant) {
        let now_us = self.since_origin(now);
        let units = self.clock.read(feedback.reference, REFERENCE_BITS, REFERENCE_PER_MINUTE);
        let Some(reference_us) = units.map(|units| units * REFERENCE_TICKS * TICK_US) else {
            self.path = PathEstimate::default();
            return;
        };
        self.forget_old_path(now_us);
        for (number, ticks) in feedback.arrivals().take(SENT_MAX) {
            if let Some(packet) = self.sent.find(number, now_us) {
                match ticks {
                    Some(ticks) => {
                        self.path.note_arrived(packet, Some(reference_us + ticks * TICK_US));
                    }
                    None => self.path.note_missing(packet),
                }
            }
        }
        self.follow_path(now_us);
    }

    /// Reads congestion control feedback of the client, about packets of [`note_sent_in_stream`](RateEstimate::note_sent_in_stream).
    pub fn note_congestion_feedback(&mut self, feedback: &CongestionFeedback<'_>, now: Instant) {
        let now_us = self.since_origin(now);
        let Some(units) = self.clock.read(feedback.at, REPORT_BITS, 60 * REPORT_PER_SECOND) else {
            self.path = PathEstimate::default();
            return;
        };
        self.forget_old_path(now_us);
        let report_us = units * 1_000_000 / i64::from(REPORT_PER_SECOND);
        let path = &mut self.path;
        self.sent.for_each_told(feedback, now_us, |packet, arrival| match arrival {
            PacketArrival::Missing => path.note_missing(packet),
            PacketArrival::Untimed => path.note_arrived(packet, None),
            PacketArrival::Before(offset) => {
                let before_us = i64::from(offset) * 1_000_000 / OFFSET_PER_SECOND;
                path.note_arrived(packet, Some(report_us - before_us));
            }
        });
        self.follow_path(now_us);
    }

    fn forget_old_path(&mut self, now_us: i64) {
        if self.heard_us.is_some_and(|heard_us| now_us - heard_us >= FEEDBACK_KEPT_US) {
            self.path = PathEstimate::default();
        }
    }

    fn follow_path(&mut self, now_us: i64) {
        if let Some(sent_us) = self.path.newest_sent_us.take() {
            self.heard_us = Some(now_us);
            self.path.follow(now_us, now_us - sent_us);
        }
    }

    /// Reads a receiver report: the share of packets that the path lost, and the rate that was sent meanwhile.
    pub fn note_report(
        &mut self,
        lost_ppm: u32,
        round_trip: Option<Duration>,
        sent_kbps: u32,
        now: Instant,
    ) {
        let now_us = self.since_origin(now);
        let loss = f64::from(lost_ppm.min(1_000_000)) / 1e6;
        self.reports.read(loss, round_trip, sent_kbps.into(), now_us);
    }

    /// The rate in kbit/s. `None` if nothing is known, or nothing fresh.
    pub fn kbps(&self, now: Instant) -> Option<u32> {
        let now_us = micros_between(self.origin?, now);
        let by_arrivals = if self.is_heard(now_us) { self.path.kbps() } else { None };
        let kbps = by_arrivals.or_else(|| self.reports.kbps(now_us))?;
        Some(kbps.round() as u32)
    }

    /// The trend of the one-way delay: microseconds by which it grows in a second. `None` without fresh feedback about arrivals.
    pub fn trend_us_per_s(&self, now: Instant) -> Option<i32> {
        let now_us = micros_between(self.origin?, now);
        let slope = self.path.trend.slope().filter(|_| self.is_heard(now_us))?;
        Some((slope * 1e6) as i32)
    }

    /// Returns whether there is fresh feedback about arrivals.
    fn is_heard(&self, now_us: i64) -> bool {
        self.heard_us.is_some_and(|heard| now_us - heard < FEEDBACK_KEPT_US)
    }

    fn since_origin(&mut self, at: Instant) -> i64 {
        micros_between(*self.origin.get_or_insert(at), at)
    }
}

fn micros_between(origin: Instant, at: Instant) -> i64 {
    i64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(i64::MAX)
}

/// Extends the times of a receiver.
#[derive(Default, Debug)]
struct ReceiverClock {
    last: Option<u32>,
    /// Units since the first time.
    units: i64,
}

impl ReceiverClock {
    /// Reads a time of so many bits. Returns the units since the first time; `None` if it is more than a minute from the last one. Then it is
    /// that of another clock, which begins anew.
    fn read(&mut self, time: u32, bits: u32, units_per_minute: i32) -> Option<i64> {
        let last = self.last.replace(time).unwrap_or(time);
        let unused = u32::BITS - bits;
        let ahead = (time.wrapping_sub(last) << unused).cast_signed() >> unused;
        if ahead.unsigned_abs() > units_per_minute.unsigned_abs() {
            self.units = 0;
            return None;
        }
        self.units += i64::from(ahead);
        Some(self.units)
    }
}

/// The estimate from arrival times.
#[derive(Debug)]
struct PathEstimate {
    trend: DelayTrend,
    acknowledged: AcknowledgedRate,
    losses: LossWindow,
    tolerance: LossTolerance,
    base_delay: Lowest,
    recent_delay: Lowest,
    control: RateControl,
    /// Of the packets of this feedback.
    newest_sent_us: Option<i64>,
    has_overuse: bool,
    queue_us: f64,
    jump_us: f64,
}

impl Default for PathEstimate {
    fn default() -> Self {
        PathEstimate {
            trend: DelayTrend::default(),
            acknowledged: AcknowledgedRate::default(),
            losses: LossWindow::default(),
            tolerance: LossTolerance::default(),
            base_delay: Lowest::within(BASE_DELAY_US),
            recent_delay: Lowest::within(JUMP_WITHIN_US),
            control: RateControl::default(),
            newest_sent_us: None,
            has_overuse: false,
            queue_us: 0.0,
            jump_us: 0.0,
        }
    }
}

impl PathEstimate {
    fn note_missing(&mut self, packet: &mut SentPacket) {
        if packet.fate == PacketFate::Unknown {
            packet.fate = PacketFate::Missing;
            self.losses.note_lost();
        }
    }

    /// Notes that a packet arrived, at this time of the receiver's clock if that is known.
    fn note_arrived(&mut self, packet: &mut SentPacket, arrived_us: Option<i64>) {
        match std::mem::replace(&mut packet.fate, PacketFate::Arrived) {
            PacketFate::Unknown => self.losses.note_arrived(),
            PacketFate::Missing => self.losses.note_late(),
            PacketFate::Arrived => return,
        }
        let Some(arrived_us) = arrived_us else { return };
        let sent_us = packet.at_us;
        self.newest_sent_us = Some(sent_us);
        self.has_overuse |= self.trend.note(sent_us, arrived_us) == PathUse::Over;
        self.acknowledged.note(sent_us, arrived_us, packet.bytes);
        // The clocks differ by any constant.
        let delay_us = (arrived_us - sent_us) as f64;
        self.queue_us = delay_us - self.base_delay.update(delay_us, arrived_us);
        self.jump_us = delay_us - self.recent_delay.update(delay_us, arrived_us);
    }

    /// Follows the path after the arrivals of a feedback packet.
    fn follow(&mut self, now_us: i64, round_trip_us: i64) {
        let window = self.losses.close(now_us);
        let has_overuse = std::mem::take(&mut self.has_overuse) || self.jump_us > JUMP_US;
        let condition = PathCondition {
            path_use: if has_overuse { PathUse::Over } else { self.trend.path_use() },
            queue_us: self.queue_us,
            loss: window.map_or(0.0, WindowLoss::share),
            is_lossy: window.is_some_and(|window| {
                self.tolerance.is_exceeded(window.share(), window.packets.into())
            }),
            round_trip_us,
        };
        if self.control.follow(&condition, &self.acknowledged, now_us) {
            // Packets that were sent at the higher rate say nothing about the lower one.
            self.trend.restart();
            self.recent_delay = Lowest::within(JUMP_WITHIN_US);
            self.jump_us = 0.0;
        }
    }

    fn kbps(&self) -> Option<f64> {
        let rate = self.control.rate_kbps()?;
        Some(rate.min(self.acknowledged.bound_kbps()?))
    }
}

#[cfg(test)]
mod tests;
