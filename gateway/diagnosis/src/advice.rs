//! Advice to the user of a session, if repair and ladder cannot hold its quality.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use evenkeel_model::{Advice, AdviceKind, Impairment, PathSegment, SessionId};

/// R-factor times 100 below which voice is under its floor, unless the scenario's objective has another: from 70 down many users
/// are dissatisfied (ITU-T G.107, annex B).
pub const FLOOR_R_CENTI: u32 = 7_000;

/// Loss that repair left, in ppm, from which media is under its floor: the native ladder steps down there.
const FLOOR_LOSS_PPM: u32 = 50_000;

/// R-factor times 100, and loss in ppm, that leave video no use: nearly all users are dissatisfied, and a second has no whole frame.
const SEVERE_R_CENTI: u32 = 5_000;
const SEVERE_LOSS_PPM: u32 = 200_000;

/// Quality is under its floor for this time before advice is given, or becomes worse. Repair and the first step of the ladder have
/// had their effect by then.
const WORSENS_AFTER: Duration = Duration::from_secs(2);

/// Quality is better, or the cause another one, for this time before the advice follows.
const EASES_AFTER: Duration = Duration::from_secs(5);

/// The shortest time between two changes, unless advice becomes worse: a user who follows it needs that long.
const CHANGES_EVERY: Duration = Duration::from_secs(10);

/// The video of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VideoState {
    /// The session has no video.
    Absent,
    Shown,
    /// The ladder withholds it.
    Withheld,
}

/// The quality of a session at one time.
#[derive(Clone, Copy, Debug)]
pub struct SessionQuality {
    pub session: SessionId,
    pub impairment: Option<Impairment>,
    /// The R-factor of its voice times 100, and the floor for it.
    pub r_centi: Option<u32>,
    pub floor_r_centi: u32,
    /// The higher loss of both directions after repair, in ppm.
    pub loss_ppm: Option<u32>,
    pub video: VideoState,
    /// The ladder has no lower bit rate.
    pub is_capped_at_floor: bool,
    /// A policy suspended the session.
    pub is_parked: bool,
}

impl SessionQuality {
    /// The segment of the session's own path that impairs it. A user can do nothing about another client's.
    fn cause(&self) -> Option<PathSegment> {
        let Impairment { segment, at, .. } = self.impairment?;
        match segment {
            PathSegment::Uplink | PathSegment::Downlink | PathSegment::Leg | PathSegment::Node => {
                (at == self.session).then_some(segment)
            }
            PathSegment::Device | PathSegment::Gateway | PathSegment::Unknown => None,
        }
    }

    fn is_beyond(&self, r_centi: u32, loss_ppm: u32) -> bool {
        self.r_centi.is_some_and(|r| r < r_centi)
            || self.loss_ppm.is_some_and(|loss| loss >= loss_ppm)
    }

    /// The advice that helps against this cause.
    fn advice(&self, cause: PathSegment) -> Option<Advice> {
        let is_of_client = matches!(cause, PathSegment::Uplink | PathSegment::Downlink);
        let is_low = self.is_beyond(self.floor_r_centi, FLOOR_LOSS_PPM);
        let is_severe = self.is_beyond(SEVERE_R_CENTI, SEVERE_LOSS_PPM);
        let kind = match self.video {
            VideoState::Shown if is_severe => AdviceKind::AudioOnly,
            VideoState::Shown if is_low || self.is_capped_at_floor => AdviceKind::LowerQuality,
            VideoState::Shown => return None,
            VideoState::Absent | VideoState::Withheld if is_low && is_of_client => {
                AdviceKind::SwitchNetwork
            }
            VideoState::Withheld => AdviceKind::AudioOnly,
            VideoState::Absent if is_low => AdviceKind::LowerQuality,
            VideoState::Absent => return None,
        };
        Some(Advice { kind, cause })
    }
}

/// The advice of one session over time.
#[derive(Default, Debug)]
pub struct Advisor {
    /// The cause that was found last, since quality was not good.
    cause: Option<PathSegment>,
    standing: Option<Advice>,
    changed: Option<Instant>,
    /// The comparison of the advice that would help now with the standing one, and the time since which it is so.
    leaning: Option<(Ordering, Instant)>,
}

impl Advisor {
    /// The advice in force.
    pub fn standing(&self) -> Option<Advice> {
        self.standing
    }

    /// A new advisor would judge alike.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.standing.is_none() && self.leaning.is_none() && self.may_change(now)
    }

    fn may_change(&self, now: Instant) -> bool {
        self.changed.is_none_or(|at| now.saturating_duration_since(at) >= CHANGES_EVERY)
    }

    /// Takes the quality of now. Returns advice that is new, or [`AdviceKind::Restored`] with the cause that has ended.
    pub fn judge(&mut self, quality: &SessionQuality, now: Instant) -> Option<Advice> {
        self.cause = quality.cause().or(self.cause);
        let helps = match (quality.is_parked, self.cause) {
            (true, cause) => {
                let cause = cause.unwrap_or(PathSegment::Unknown);
                Some(Advice { kind: AdviceKind::Suspended, cause })
            }
            (false, cause) => cause.and_then(|cause| quality.advice(cause)),
        };
        if helps == self.standing {
            if helps.is_none() {
                self.cause = None;
            }
            self.leaning = None;
            return None;
        }
        let kind = |advice: Option<Advice>| advice.map(|advice| advice.kind);
        let direction = kind(helps).cmp(&kind(self.standing));
        let leaning = self.leaning.filter(|(before, _)| *before == direction);
        let (_, since) = *self.leaning.insert(leaning.unwrap_or((direction, now)));
        let worsens = direction == Ordering::Greater;
        let lasts = if worsens { WORSENS_AFTER } else { EASES_AFTER };
        let is_urgent = worsens && self.standing.is_some();
        if now.saturating_duration_since(since) < lasts || !(is_urgent || self.may_change(now)) {
            return None;
        }
        let before = std::mem::replace(&mut self.standing, helps);
        (self.changed, self.leaning) = (Some(now), None);
        let restored = |ended: Advice| Advice { kind: AdviceKind::Restored, ..ended };
        helps.or(before.map(restored))
    }
}

#[cfg(test)]
mod tests;
