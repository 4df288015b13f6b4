//! `cap`: a cap on the session's bit rate, which senders are told by REMB or TMMBR.

use std::ops::RangeInclusive;

use crate::action::{Action, ActionFacts, DegradationLimit, DegradedSession, MediaLimits};
use crate::device::DeviceLimits;
use crate::offer::MediaDescription;
use crate::registry::{Metric, Op};

/// The argument is the cap in kbit/s.
pub(super) struct Cap;

impl Action for Cap {
    fn range(&self, facts: &ActionFacts<'_>) -> RangeInclusive<u32> {
        facts.bounds.floor_kbps..=facts.bounds.ceiling_kbps
    }

    fn limit(&self, arg: u32, _: &MediaDescription, limits: &mut MediaLimits) {
        limits.cap(arg);
    }

    fn metric(&self) -> Option<Metric> {
        Some(Metric::Cap)
    }

    fn exceeds_device(&self, arg: u64, device: &DeviceLimits) -> bool {
        device.kbps.is_some_and(|limit| arg > u64::from(limit))
    }

    fn needs_obedience(&self) -> bool {
        true
    }

    /// Half of the rate, down to the floor.
    fn lower(&self, session: &DegradedSession<'_>) -> Option<u32> {
        let bounds = session.facts.bounds;
        let from = match session.decided.of(Op::Cap) {
            0 => bounds.ceiling_kbps,
            cap => cap,
        };
        let to = (from / 2).max(bounds.floor_kbps);
        (session.obeys_caps && to < from).then_some(to)
    }

    /// Twice the rate, up to the ceiling, where the cap ends.
    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        let cap = session.decided.of(Op::Cap);
        let to = cap.saturating_mul(2);
        let raised = if to >= session.facts.bounds.ceiling_kbps { 0 } else { to };
        (cap > 0).then_some(raised)
    }

    fn exhausted(&self, session: &DegradedSession<'_>) -> Option<DegradationLimit> {
        let kbps = match session.decided.of(Op::Cap) {
            0 => session.sent_kbps,
            cap => Some(cap),
        };
        let floor_kbps = session.facts.bounds.floor_kbps;
        let is_at_floor = kbps.is_some_and(|kbps| kbps > 0 && kbps <= floor_kbps);
        if !session.obeys_caps {
            return Some(DegradationLimit::CapUnsupported);
        }
        is_at_floor.then_some(DegradationLimit::CapAtFloor)
    }
}

#[cfg(test)]
mod tests;
