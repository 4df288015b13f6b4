//! The rate that the path to a client can carry.
//!
//! From arrival times of packets (transport-wide feedback): `trend` finds out whether a queue grows or drains, `acknowledged`
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

use crate::rtcp::{REFERENCE_TICKS, TICK_US, TransportFeedback};
use acknowledged::AcknowledgedRate;
use control::{PathCondition, RateControl};
use loss::{LossTolerance, LossWindow, WindowLoss};
use lowest::Lowest;
use reports::ReportEstimate;
use sent::{PacketFate, SENT_MAX, SentPackets};
use trend::{DelayTrend, PathUse};

/// An estimate ends after this time without feedback. Receivers send some each 50 to 250 ms.
const FEEDBACK_KEPT_US: i64 = 3_000_000;

/// The estimate exceeds what arrived by no more than this factor (gcc-02, section 5.5).
const HEADROOM: f64 = 1.5;

/// The lowest delay of this time, at most twice as long, is that of the path without a queue. Clocks drift apart and routes change.
const BASE_DELAY_US: i64 = 10_000_000;

/// A delay that grew by [`JUMP_US`] within this time, at most twice as long, is overuse. The trend alone would need several bursts, which take the
/// longer the less of them the path carries.
const JUMP_WITHIN_US: i64 = 100_000;
const JUMP_US: f64 = 60_000.0;

/// A receiver's clock that jumps further than this, in units of 64 ms, is another clock.
const CLOCK_JUMP_MAX: i32 = 60_000 / 64;

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

    /// Reads feedback of the client. What it tells of packets that were not sent, or that it told of before, does not count.
    pub fn note_feedback(&mut self, feedback: &TransportFeedback<'_>, now: Instant) {
        let now_us = self.since_origin(now);
        let Some(reference_us) = self.clock.read(feedback.reference) else {
            self.path = PathEstimate::default();
            return;
        };
        if self.heard_us.is_some_and(|heard_us| now_us - heard_us >= FEEDBACK_KEPT_US) {
            self.path = PathEstimate::default();
        }
        let mut newest = None;
        for (number, arrival) in feedback.arrivals().take(SENT_MAX) {
            let Some(packet) = self.sent.find(number, now_us) else { continue };
            let Some(ticks) = arrival else {
                if packet.fate == PacketFate::Unknown {
                    packet.fate = PacketFate::Missing;
                    self.path.losses.note_lost();
                }
                continue;
            };
            match std::mem::replace(&mut packet.fate, PacketFate::Arrived) {
                PacketFate::Unknown => self.path.losses.note_arrived(),
                PacketFate::Missing => self.path.losses.note_late(),
                PacketFate::Arrived => continue,
            }
            let arrived_us = reference_us + ticks * TICK_US;
            self.path.note_arrival(packet.at_us, arrived_us, packet.bytes);
            newest = Some(packet.at_us);
        }
        if let Some(sent_us) = newest {
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
        let is_heard = self.heard_us.is_some_and(|heard| now_us - heard < FEEDBACK_KEPT_US);
        let by_arrivals = if is_heard { self.path.kbps() } else { None };
        let kbps = by_arrivals.or_else(|| self.reports.kbps(now_us))?;
        Some(kbps.round() as u32)
    }

    /// The trend of the one-way delay: microseconds by which it grows in a second.
    pub fn trend_us_per_s(&self) -> Option<i32> {
        self.path.trend.slope().map(|slope| (slope * 1e6) as i32)
    }

    fn since_origin(&mut self, at: Instant) -> i64 {
        micros_between(*self.origin.get_or_insert(at), at)
    }
}

fn micros_between(origin: Instant, at: Instant) -> i64 {
    i64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(i64::MAX)
}

/// Extends reference times, which have 24 bits.
#[derive(Default, Debug)]
struct ReceiverClock {
    last: Option<u32>,
    /// Units of 64 ms since the first reference time.
    units: i64,
}

impl ReceiverClock {
    /// Returns microseconds since the first reference time; `None` if this is another clock, which begins anew.
    fn read(&mut self, reference: u32) -> Option<i64> {
        let last = self.last.replace(reference).unwrap_or(reference);
        let ahead = (reference.wrapping_sub(last) << 8).cast_signed() >> 8;
        if ahead.abs() > CLOCK_JUMP_MAX {
            self.units = 0;
            return None;
        }
        self.units += i64::from(ahead);
        Some(self.units * REFERENCE_TICKS * TICK_US)
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
            has_overuse: false,
            queue_us: 0.0,
            jump_us: 0.0,
        }
    }
}

impl PathEstimate {
    fn note_arrival(&mut self, sent_us: i64, arrived_us: i64, bytes: u16) {
        self.has_overuse |= self.trend.note(sent_us, arrived_us) == PathUse::Over;
        self.acknowledged.note(sent_us, arrived_us, bytes);
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
