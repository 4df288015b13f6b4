//! `cap-down`: a cap on what the session receives, which leaves alone what it sends.

use std::ops::RangeInclusive;

use super::cap::{bounds, exceeds, raised};
use crate::action::{Action, ActionFacts, DegradedSession, MediaLimits, lower_cap};
use crate::device::DeviceLimits;
use crate::offer::MediaDescription;
use crate::registry::{Metric, Op};

/// The argument is the cap in kbit/s.
pub(super) struct CapDown;

impl Action for CapDown {
    fn range(&self, facts: &ActionFacts<'_>) -> RangeInclusive<u32> {
        bounds(facts)
    }

    fn limit(&self, arg: u32, _: &MediaDescription, limits: &mut MediaLimits) {
        limits.receive_kbps = lower_cap(limits.receive_kbps, arg);
    }

    fn metric(&self) -> Option<Metric> {
        Some(Metric::CapDown)
    }

    fn exceeds_device(&self, arg: u64, device: &DeviceLimits) -> bool {
        exceeds(arg, device)
    }

    fn needs_obedience(&self) -> bool {
        true
    }

    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        raised(Op::CapDown, session)
    }
}
