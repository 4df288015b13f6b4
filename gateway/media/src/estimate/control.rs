//! Raises and lowers the rate with the state of the path (gcc-02, section 5.5).

use super::acknowledged::{AcknowledgedRate, HEADROOM};
use super::trend::PathUse;

/// The lowest estimate: a voice.
pub(super) const RATE_MIN_KBPS: f64 = 30.0;

/// Overuse lowers the rate to this share of what arrives (gcc-02, sections 5.5 and 5.6) ...
const DECREASE: f64 = 0.85;

/// ... and to less if the queue is longer than this, so that it drains within a second, but to no less than [`DECREASE_MIN`].
const QUEUE_FREE_US: f64 = 50_000.0;
const DECREASE_MIN: f64 = 0.5;

/// The rate is held for this time and a round trip after a decrease, until its effect is known.
const HELD_US: i64 = 200_000;

/// A lower rate than this share of the present one does not wait: the path carries much less than it did a moment ago.
const URGENT: f64 = 0.8;

/// Growth near the rate at which the path was full: about a packet in the response time of gcc-02, section 5.5, of a round trip of 60 ms. It is the
/// same for all round trips, so that flows share a path evenly.
const ADDITIVE_KBPS_PER_S: f64 = 60.0;

/// Growth otherwise. gcc-02, section 5.5, has 1.08; this returns to the full rate within 8 s after a fall by 70 %, without probes, which the
/// gateway does not send.
const GROWTH_PER_S: f64 = 1.3;

/// More than this times the rate at which the path was full is another path (gcc-02, section 5.5).
const BEYOND_FULL: f64 = 1.05;

/// Rates at which the path was full that differ by more have nothing in common.
const FULL_DEVIATION: f64 = 0.1;
const FULL_WEIGHT: f64 = 0.3;

/// After a fall the rate returns this fast to this share of the former rate: a short flow of others may have filled the queue, and is gone.
const RETURN_PER_S: f64 = 2.0;
const RETURN_SHARE: f64 = 0.6;

/// A further fall on the way says that the path carries less: the former rate counts for this share. Decreases within [`FALL_US`] are one fall.
const RETURN_AGAIN: f64 = 0.5;
const FALL_US: i64 = 1_500_000;

/// A queue below this is none.
const QUEUE_NONE_US: f64 = 40_000.0;

/// After this time of a queue that the decreases do not drain, others fill it. A flow that made way for the delay would get nothing beside them.
const COMPETITION_AFTER_US: i64 = 3_000_000;

/// Without a queue for this time they are gone.
const COMPETITION_ENDS_US: i64 = 2_000_000;

/// Beside flows that fill the queue the rate grows as fast as one of TCP, and is lowered by loss from this share on.
const COMPETITION_KBPS_PER_S: f64 = 100.0;
const COMPETITION_LOSS: f64 = 0.05;

/// Loss that is congestion lowers the rate to this share of what arrives.
const LOSS_DECREASE: f64 = 0.95;

/// A pause of feedback counts as no more growth than this.
const STEP_MAX_US: i64 = 1_000_000;

/// The state of the path, by one feedback packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathCondition {
    pub(super) path_use: PathUse,
    /// The delay above the lowest one.
    pub(super) queue_us: f64,
    /// The loss of a window that ended, else 0.
    pub(super) loss: f64,
    /// The loss is congestion.
    pub(super) is_lossy: bool,
    pub(super) round_trip_us: i64,
}

/// The rate that follows the state of the path.
#[derive(Default, Debug)]
pub(super) struct RateControl {
    rate: Option<ControlledRate>,
}

#[derive(Debug)]
struct ControlledRate {
    kbps: f64,
    /// The rate that arrived when the path was full.
    full_kbps: Option<f64>,
    /// The rate before a fall, while the rate returns to it.
    former_kbps: Option<f64>,
    followed_us: i64,
    lowered_us: Option<i64>,
    queue: QueueHistory,
}

/// Finds out whether other flows fill the queue.
#[derive(Debug)]
struct QueueHistory {
    /// The last time at which the queue was short, or drained.
    drained_us: i64,
    long_us: Option<i64>,
    is_filled_by_others: bool,
}

impl RateControl {
    /// The rate; `None` before packets were acknowledged for a while.
    pub(super) fn rate_kbps(&self) -> Option<f64> {
        self.rate.as_ref().map(|rate| rate.kbps)
    }

    /// Follows the path. Returns whether the rate was lowered.
    pub(super) fn follow(
        &mut self,
        path: &PathCondition,
        acknowledged: &AcknowledgedRate,
        now_us: i64,
    ) -> bool {
        let Some(latest_kbps) = acknowledged.latest_kbps() else { return false };
        if let Some(rate) = &mut self.rate {
            return rate.follow(path, latest_kbps, acknowledged, now_us);
        }
        self.rate = Some(ControlledRate {
            kbps: (HEADROOM * latest_kbps).max(RATE_MIN_KBPS),
            full_kbps: None,
            former_kbps: None,
            followed_us: now_us,
            lowered_us: None,
            queue: QueueHistory { drained_us: now_us, long_us: None, is_filled_by_others: false },
        });
        false
    }
}

impl ControlledRate {
    fn follow(
        &mut self,
        path: &PathCondition,
        latest_kbps: f64,
        acknowledged: &AcknowledgedRate,
        now_us: i64,
    ) -> bool {
        let passed_us = now_us - std::mem::replace(&mut self.followed_us, now_us);
        let seconds = passed_us.clamp(0, STEP_MAX_US) as f64 / 1e6;
        let bound_kbps = acknowledged.bound_kbps().unwrap_or_default();
        let held_us = HELD_US + path.round_trip_us;
        let is_held = self.lowered_us.is_some_and(|lowered_us| now_us - lowered_us < held_us);
        let competes = self.queue.follow(path, now_us);
        if path.is_lossy {
            return self.lower(LOSS_DECREASE * acknowledged.mean_kbps(), now_us);
        }
        if competes {
            if is_held {
                return false;
            }
            if path.loss > COMPETITION_LOSS {
                return self.lower(DECREASE * latest_kbps / (1.0 - path.loss), now_us);
            }
            self.kbps = (self.kbps + COMPETITION_KBPS_PER_S * seconds).min(bound_kbps);
            return false;
        }
        match path.path_use {
            PathUse::Over => {
                let drain = (path.queue_us - QUEUE_FREE_US).max(0.0) / 1e6;
                let kbps = (DECREASE - drain).max(DECREASE_MIN) * latest_kbps;
                if kbps >= self.kbps || is_held && kbps >= URGENT * self.kbps {
                    return false;
                }
                self.note_full(latest_kbps);
                self.lower(kbps, now_us)
            }
            PathUse::Normal if !is_held => {
                let mean_kbps = acknowledged.mean_kbps();
                if self.full_kbps.is_some_and(|full| mean_kbps > BEYOND_FULL * full) {
                    self.full_kbps = None;
                }
                if self.former_kbps.is_some_and(|former| self.kbps >= RETURN_SHARE * former) {
                    self.former_kbps = None;
                }
                let grown = if self.former_kbps.is_some() {
                    self.kbps * RETURN_PER_S.powf(seconds)
                } else if self.full_kbps.is_some() {
                    self.kbps + ADDITIVE_KBPS_PER_S * seconds
                } else {
                    self.kbps * GROWTH_PER_S.powf(seconds)
                };
                self.kbps = grown.min(bound_kbps);
                false
            }
            PathUse::Under | PathUse::Normal => false,
        }
    }

    fn note_full(&mut self, kbps: f64) {
        let full_kbps = self.full_kbps.filter(|full| (kbps / full - 1.0).abs() < FULL_DEVIATION);
        self.full_kbps = Some(full_kbps.map_or(kbps, |full| full + FULL_WEIGHT * (kbps - full)));
    }

    fn lower(&mut self, kbps: f64, now_us: i64) -> bool {
        let kbps = kbps.max(RATE_MIN_KBPS);
        let is_lower = kbps < self.kbps;
        if is_lower {
            let is_one_fall = |lowered_us: i64| now_us - lowered_us < FALL_US;
            let share = if self.lowered_us.is_some_and(is_one_fall) { 1.0 } else { RETURN_AGAIN };
            self.former_kbps = Some(self.former_kbps.map_or(self.kbps, |former| share * former));
            (self.kbps, self.lowered_us) = (kbps, Some(now_us));
        }
        is_lower
    }
}

impl QueueHistory {
    /// Returns whether other flows fill the queue.
    fn follow(&mut self, path: &PathCondition, now_us: i64) -> bool {
        if path.queue_us >= QUEUE_NONE_US {
            self.long_us = Some(now_us);
        } else {
            self.drained_us = now_us;
            let is_long = |long_us: i64| now_us - long_us < COMPETITION_ENDS_US;
            self.is_filled_by_others &= self.long_us.is_some_and(is_long);
        }
        if path.path_use == PathUse::Under {
            self.drained_us = now_us;
        }
        self.is_filled_by_others |= now_us - self.drained_us > COMPETITION_AFTER_US;
        self.is_filled_by_others
    }
}
