//! `park`: the session is suspended. Media of neither direction passes; RTCP does.

use std::ops::RangeInclusive;

use crate::action::{Action, ActionFacts, DegradedSession, MediaLimits};
use crate::offer::MediaDescription;
use crate::registry::{Metric, Op};

/// The argument is 1. A key frame is requested when the media returns.
pub(super) struct Park;

impl Action for Park {
    fn range(&self, _: &ActionFacts<'_>) -> RangeInclusive<u32> {
        1..=1
    }

    fn limit(&self, _: u32, _: &MediaDescription, limits: &mut MediaLimits) {
        limits.withheld = u128::MAX;
        limits.parked = true;
    }

    fn metric(&self) -> Option<Metric> {
        Some(Metric::Park)
    }

    fn needs_grant(&self) -> bool {
        true
    }

    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        session.decided.of(Op::Park).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceLimits;
    use crate::offer::{RtcpPort, Srtp};
    use crate::settings::CapBounds;
    use crate::{GuardRule, Plan};

    #[test]
    fn park_withholds_all_media_and_zero_resumes() {
        let media = MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Opaque);
        let (bounds, device) =
            (CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 }, DeviceLimits::default());
        let facts = ActionFacts { media: &media, bounds, device: &device };
        let plan = Plan::default().after(Op::Park, 1, &facts).unwrap();
        let limits = plan.limits(&facts);
        assert!(limits.parked && limits.withholds(0) && limits.withholds(127));
        assert_eq!(plan.rung(), 1);
        let resumed = plan.after(Op::Park, 0, &facts).unwrap();
        assert_eq!(resumed, Plan::default());
        assert!(resumed.limits(&facts).restores(&limits), "a key frame is needed");
        assert_eq!(plan.after(Op::Park, 2, &facts), Err(GuardRule::ArgumentOutOfBounds));
    }
}
