//! The estimate from receiver reports alone: loss-based (gcc-02, section 6).

use std::time::Duration;

use super::acknowledged::HEADROOM;
use super::control::RATE_MIN_KBPS;
use super::loss::LossTolerance;
use super::lowest::Lowest;

/// An estimate ends after this time without a report: three missed ones (RFC 3550, section 6.2).
const KEPT_US: i64 = 15_000_000;

/// Less loss is none (gcc-02, section 6).
const LOSS_NONE: f64 = 0.02;

/// The lowest round trip of this time, at most twice as long, is that of the path without a queue.
const BASE_ROUND_TRIP_US: i64 = 30_000_000;

/// A round trip that exceeds the lowest one by this has a queue on its way: loss beside it is congestion.
const QUEUE_US: f64 = 100_000.0;

/// The highest rate of this time, at most twice as long, bounds the estimate.
const BOUND_US: i64 = 10_000_000;

/// Growth, by which the full rate returns within 8 s, for the time between two usual reports at most.
const GROWTH_PER_S: f64 = 1.3;
const STEP_MAX_US: i64 = 5_000_000;

/// Congestion lowers the rate to this share of what arrives.
const DECREASE: f64 = 0.95;

/// The estimate from receiver reports.
#[derive(Debug)]
pub(super) struct ReportEstimate {
    rate: Option<ReportedRate>,
    tolerance: LossTolerance,
    base_round_trip: Lowest,
    /// Of negated rates.
    highest: Lowest,
}

#[derive(Clone, Copy, Debug)]
struct ReportedRate {
    kbps: f64,
    at_us: i64,
}

impl Default for ReportEstimate {
    fn default() -> Self {
        ReportEstimate {
            rate: None,
            tolerance: LossTolerance::default(),
            base_round_trip: Lowest::within(BASE_ROUND_TRIP_US),
            highest: Lowest::within(BOUND_US),
        }
    }
}

impl ReportEstimate {
    /// Reads a report: the loss since the one before, and the rate that was sent meanwhile.
    pub(super) fn read(
        &mut self,
        loss: f64,
        round_trip: Option<Duration>,
        sent_kbps: f64,
        now_us: i64,
    ) {
        if self.rate.is_some_and(|rate| now_us - rate.at_us >= KEPT_US) {
            *self = ReportEstimate::default();
        }
        let arrived_kbps = sent_kbps * (1.0 - loss);
        let bound_kbps = -HEADROOM * self.highest.update(-arrived_kbps, now_us);
        let has_queue = round_trip.is_some_and(|round_trip| {
            let round_trip_us = round_trip.as_secs_f64() * 1e6;
            round_trip_us - self.base_round_trip.update(round_trip_us, now_us) > QUEUE_US
        });
        // A report has no number of packets: it counts as it is.
        let is_exceeded = self.rate.is_some() && self.tolerance.is_exceeded(loss, f64::INFINITY);
        let kbps = match self.rate {
            None => bound_kbps,
            Some(rate) if is_exceeded || has_queue && loss >= LOSS_NONE => {
                rate.kbps.min(DECREASE * arrived_kbps)
            }
            Some(rate) if has_queue || self.tolerance.is_trying() => rate.kbps,
            // Without a round trip a little loss may be that of a full queue.
            Some(rate) if loss >= LOSS_NONE && round_trip.is_none() => rate.kbps,
            Some(rate) => {
                let passed_us = (now_us - rate.at_us).clamp(0, STEP_MAX_US);
                rate.kbps * GROWTH_PER_S.powf(passed_us as f64 / 1e6)
            }
        };
        let kbps = kbps.min(bound_kbps).max(RATE_MIN_KBPS);
        self.rate = Some(ReportedRate { kbps, at_us: now_us });
    }

    /// The rate; `None` without a fresh report.
    pub(super) fn kbps(&self, now_us: i64) -> Option<f64> {
        self.rate.filter(|rate| now_us - rate.at_us < KEPT_US).map(|rate| rate.kbps)
    }
}

#[cfg(test)]
mod tests;
