//! `end`: the session ends. It is no state of a session, so that it limits nothing and nothing undoes it.

use std::ops::RangeInclusive;

use crate::action::{Action, ActionFacts, MediaLimits};
use crate::offer::MediaDescription;

/// The argument is 1.
pub(super) struct End;

impl Action for End {
    fn range(&self, _: &ActionFacts<'_>) -> RangeInclusive<u32> {
        1..=1
    }

    fn limit(&self, _: u32, _: &MediaDescription, _: &mut MediaLimits) {}

    fn needs_grant(&self) -> bool {
        true
    }

    fn ends_session(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceLimits;
    use crate::offer::{RtcpPort, Srtp};
    use crate::registry::Op;
    use crate::settings::CapBounds;
    use crate::{GuardRule, Plan};

    #[test]
    fn end_is_no_part_of_a_plan() {
        let media = MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain);
        let (bounds, device) =
            (CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 }, DeviceLimits::default());
        let facts = ActionFacts { media: &media, bounds, device: &device };
        let after = |arg| Plan::default().after(Op::End, arg, &facts);
        assert_eq!([after(0), after(1)], [Ok(Plan::default()); 2]);
        assert_eq!(after(2), Err(GuardRule::ArgumentOutOfBounds));
        let ending = Op::ALL.into_iter().filter(|op| crate::actions::of(*op).ends_session());
        assert!(ending.eq([Op::End]));
    }
}
