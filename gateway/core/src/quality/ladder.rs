use std::time::{Duration, Instant};

use evenkeel_model::{CapBounds, Metric, Op, Plan};

use crate::sessions::Session;

/// Loss in ppm from which the native ladder steps down: 5 %, where speech begins to suffer.
const DOWN_AT_PPM: u32 = 50_000;

/// Loss in ppm up to which it climbs. Loss between the thresholds changes nothing, so a session that a rung helps stays
/// on it.
const UP_BELOW_PPM: u32 = 20_000;

/// Interval between two steps down, in which a cap takes effect and its loss is measured.
const DOWN_EVERY: Duration = Duration::from_secs(1);

/// Time of low loss before each step up. Climbing too early costs as much as it gains.
const UP_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct LadderInput {
    pub(crate) plan: Plan,
    /// The higher loss of both directions; `None` without a measurement.
    pub(crate) loss_ppm: Option<u32>,
    pub(crate) bounds: CapBounds,
    /// A cap has an effect.
    pub(crate) caps: bool,
    pub(crate) video: bool,
}

impl LadderInput {
    pub(crate) fn of(session: &Session, caps: bool) -> LadderInput {
        LadderInput {
            plan: session.plan,
            loss_ppm: session.measured(Metric::LossDown).max(session.measured(Metric::LossUp)),
            bounds: session.bounds,
            caps,
            video: session.request.media.has_video(),
        }
    }
}

/// A session on the native ladder. Each step down halves its rate to the floor; the last one removes its video. Steps
/// up reverse this slowly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeLadder {
    /// The earliest time of the next step down.
    down_from: Instant,
    /// The time since which loss is low and the rung unchanged.
    calm_since: Option<Instant>,
}

impl NativeLadder {
    pub(crate) fn begin(now: Instant) -> NativeLadder {
        NativeLadder { down_from: now, calm_since: None }
    }

    pub(crate) fn step(&mut self, look: LadderInput, now: Instant) -> Option<(Op, u64)> {
        let loss_ppm = look.loss_ppm?;
        if loss_ppm > UP_BELOW_PPM {
            self.calm_since = None;
            if loss_ppm < DOWN_AT_PPM || now < self.down_from {
                return None;
            }
            self.down_from = now + DOWN_EVERY;
            return look.down();
        }
        let calm_since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(calm_since) < UP_AFTER {
            return None;
        }
        self.calm_since = Some(now);
        look.up()
    }
}

impl LadderInput {
    fn down(self) -> Option<(Op, u64)> {
        let CapBounds { floor_kbps, ceiling_kbps } = self.bounds;
        let from = if self.plan.cap_kbps == 0 { ceiling_kbps } else { self.plan.cap_kbps };
        let to = (from / 2).max(floor_kbps);
        if self.caps && to < from {
            return Some((Op::Cap, u64::from(to)));
        }
        (self.video && self.plan.shed == 0).then_some((Op::VoiceOnly, 1))
    }

    fn up(self) -> Option<(Op, u64)> {
        if self.plan.shed != 0 {
            return Some((Op::VoiceOnly, 0));
        }
        let to = u64::from(self.plan.cap_kbps) * 2;
        let lifted = if to >= u64::from(self.bounds.ceiling_kbps) { 0 } else { to };
        (self.plan.cap_kbps > 0).then_some((Op::Cap, lifted))
    }
}

#[cfg(test)]
mod tests;
